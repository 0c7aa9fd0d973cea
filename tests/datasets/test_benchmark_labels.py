"""The second labels of AFLW2000-3D."""

import contextlib
from pathlib import Path
from typing import Any

import dataset_examples as examples
import numpy as np
import pytest
from numpy.typing import NDArray

from dhm_cli.datasets.benchmark_labels import read_reannotated, read_yaw_labels
from dhm_cli.errors import InputError


def test_reannotated_points_in_the_order_of_sorted_names(tmp_path: Path) -> None:
    points = np.stack([examples.make_points(seed) for seed in range(3)])
    np.save(tmp_path / "re.npy", points.transpose(0, 2, 1))
    got = read_reannotated(tmp_path / "re.npy", ["image00051.jpg", "image00002.jpg", "image00004.jpg"])
    np.testing.assert_array_equal(got, points[[2, 0, 1]])
    one_based = read_reannotated(tmp_path / "re.npy", ["image00051.jpg", "image00002.jpg", "image00004.jpg"], origin=1)
    np.testing.assert_array_equal(one_based, points[[2, 0, 1]] - 1)
    assert got.dtype == np.float32


def test_reannotated_points_from_ls3d_w(tmp_path: Path) -> None:
    for number in (2, 4, 51):
        examples.write_t7(tmp_path / "sub" / f"image{number:05d}.t7", examples.make_points(number))
    got = read_reannotated(tmp_path, ["image00051.jpg", "image00002.jpg"])
    expected = np.stack([examples.make_points(51), examples.make_points(2)])
    np.testing.assert_allclose(got, expected, atol=1e-4)
    one_based = read_reannotated(tmp_path, ["image00051.jpg", "image00002.jpg"], origin=1)
    np.testing.assert_allclose(one_based, expected - 1, atol=1e-4)
    with pytest.raises(InputError, match=r"no \.t7 file for 1 of 2 images, such as image00003"):
        read_reannotated(tmp_path, ["image00002.jpg", "image00003.jpg"])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.ones((3, 68, 2)), r"shape \(3, 68, 2\)"),
        (np.ones((2, 2, 68)), "labels of 2 images, but the dataset has 3"),
        (np.full((3, 2, 68), np.nan), "NaN"),
        (np.full((3, 2, 68), "a"), "not an array of numbers"),
        (np.array([None, 1]), "not a readable"),
    ],
)
def test_wrong_reannotated_arrays(tmp_path: Path, values: NDArray[Any], words: str) -> None:
    np.save(tmp_path / "re.npy", values)
    with pytest.raises(InputError, match=words) as error:
        read_reannotated(tmp_path / "re.npy", ["a", "b", "c"])
    assert "re.npy" in error.value.message


def test_yaw_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "yaw.npy", np.array([10.0, -20.0, 75.0]))
    assert read_yaw_labels(tmp_path / "yaw.npy", ["b", "a", "c"]).tolist() == [-20, 10, 75]
    with pytest.raises(InputError, match="labels of 3 images, but the dataset has 2"):
        read_yaw_labels(tmp_path / "yaw.npy", ["a", "b"])
    np.save(tmp_path / "yaw.npy", np.zeros((3, 1)))
    with pytest.raises(InputError, match=r"shape \(3, 1\)"):
        read_yaw_labels(tmp_path / "yaw.npy", ["a", "b", "c"])
    (tmp_path / "yaw.npy").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="not a readable"):
        read_yaw_labels(tmp_path / "yaw.npy", ["a", "b", "c"])
    with pytest.raises(InputError, match="not a readable"):
        read_yaw_labels(tmp_path / "absent.npy", ["a"])


def test_damaged_arrays_are_refused_and_take_no_memory(tmp_path: Path) -> None:
    """A changed byte in the header once ended in a MemoryError or a TokenError."""
    path = tmp_path / "re.npy"
    np.save(path, np.ones((3, 2, 68)))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"(3, 2, 68), }         ", b"(3, 2, 68000000000), }"))
    with pytest.raises(InputError, match=r"re\.npy: .*more than its"):
        read_reannotated(path, ["a", "b", "c"])
    for place in range(128):
        for value in (0, 10, 39, 40, 57, 255):
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            with contextlib.suppress(InputError):
                read_reannotated(path, ["a", "b", "c"])
