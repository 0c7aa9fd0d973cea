"""Torch7 files: the tensors that LS3D-W has, and what else such a file may hold."""

from pathlib import Path

import dataset_examples as examples
import numpy as np
import pytest

from dhm_cli.errors import InputError
from dhm_cli.io.torch7 import read_t7


@pytest.mark.parametrize("kind", ["float32", "float64", "int64"])
@pytest.mark.parametrize("transposed", [False, True])
def test_t7_tensors(tmp_path: Path, kind: str, transposed: bool) -> None:
    points = examples.make_points(5).astype(kind)
    path = tmp_path / "a.t7"
    path.write_bytes(examples.t7_bytes(points, transposed))
    np.testing.assert_array_equal(read_t7(path), points - 1)
    assert read_t7(path).dtype == np.float32


def test_t7_of_the_first_versions(tmp_path: Path) -> None:
    """They name the class where later ones name their version first."""
    points = examples.make_points(5)
    path = tmp_path / "a.t7"
    path.write_bytes(examples.t7_bytes(points).replace(b"\x03\0\0\0V 1", b""))
    np.testing.assert_allclose(read_t7(path), points - 1, atol=1e-4)


def test_t7_of_another_shape(tmp_path: Path) -> None:
    for shape in ((66, 2), (2, 68), (68, 3), (136,), (1, 68, 2)):
        path = examples.write_t7(tmp_path / "a.t7", np.ones(shape))
        with pytest.raises(InputError, match=r"a\.t7: a tensor of " + " x ".join(map(str, shape))):
            read_t7(path)


def broken_t7(kind: str) -> bytes:
    good = examples.t7_bytes(examples.make_points())
    if kind == "far strides":  # numpy would read beyond the numbers of the file
        at = good.index(b"torch.DoubleTensor") + len(b"torch.DoubleTensor") + 4 + 16
        return good[:at] + (10**6).to_bytes(8, "little") + good[at + 8 :]
    return {
        "empty": b"",
        "text": b"version: 1",
        "number": b"\x01\x00\x00\x00" + np.float64(1.5).tobytes(),
        "nil": b"\x00\x00\x00\x00",
        "truncated": good[: len(good) // 2],
        "short storage": good[:-8],
        "other class": good.replace(b"torch.DoubleTensor", b"torch.DoubleTensox"),
        "half": good.replace(b"torch.DoubleTensor", b"torch.HalfTensor\0\0"),
        "nan": examples.t7_bytes(np.full((68, 2), np.nan)),
        "far": examples.t7_bytes(np.full((68, 2), 1e8)),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "empty",
        "text",
        "number",
        "nil",
        "truncated",
        "short storage",
        "other class",
        "half",
        "nan",
        "far",
        "far strides",
    ],
)
def test_broken_t7_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "broken.t7"
    path.write_bytes(broken_t7(kind))
    with pytest.raises(InputError, match=r"broken\.t7") as error:
        read_t7(path)
    assert error.value.hint


def test_missing_t7(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_t7(tmp_path / "absent.t7")
