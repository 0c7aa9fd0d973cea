"""Tables of points and of faces, and what is wrong with some of them."""

import contextlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.io.point_tables import AFLW21_TO_68, FaceRow, PointTable, read_face_table


def make_table(path: Path, key: str = "pts68", count: int = 68) -> NDArray[np.float32]:
    points = np.random.default_rng(0).uniform(0, 100, (3, count, 2)).astype(np.float32)
    points[1, 4] = np.nan
    np.savez(path, names=np.array(["a", "b", "ü 3"]), other=np.zeros(3), **{key: points})
    return points


def test_table_by_name(tmp_path: Path) -> None:
    points = make_table(tmp_path / "points.npz")
    table = PointTable(tmp_path / "points.npz")
    np.testing.assert_array_equal(table.get("b", 77, 99), points[1])
    np.testing.assert_array_equal(table.get("ü 3", 77, 99), points[2])
    missing = table.get("absent", 77, 99)
    assert missing.shape == (68, 2)
    assert np.isnan(missing).all()


def test_table_in_a_resized_square(tmp_path: Path) -> None:
    """`_in_120`: pixel centres, so the corners of the square stay the corners of the image."""
    points = np.full((1, 68, 2), 50.0, np.float16)
    points[0, :2] = [[-0.5, -0.5], [119.5, 119.5]]
    np.savez(tmp_path / "points.npz", names=np.array(["a"]), pts68_in_120=points)
    got = PointTable(tmp_path / "points.npz").get("a", 240, 60)
    np.testing.assert_allclose(got[:3], [[-0.5, -0.5], [239.5, 59.5], [100.5, 24.75]])


def test_21_points_go_to_their_places(tmp_path: Path) -> None:
    points = make_table(tmp_path / "points.npz", count=21)
    got = PointTable(tmp_path / "points.npz").get("a", 1, 1)
    placed = dict(AFLW21_TO_68)
    # brow ends, eye corners, nose tip, mouth corners and chin, by the meaning of the two schemes
    assert placed == {
        0: 17,
        1: 19,
        2: 21,
        3: 22,
        4: 24,
        5: 26,
        6: 36,
        8: 39,
        9: 42,
        11: 45,
        14: 30,
        17: 48,
        19: 54,
        20: 8,
    }
    for source, target in placed.items():
        np.testing.assert_array_equal(got[target], points[0, source])
    assert np.isfinite(got).all(axis=1).sum() == 14


@pytest.mark.parametrize(
    "arrays",
    [
        {"pts": np.zeros((2, 68, 2))},  # no names
        {"names": np.array(["a"]), "pts": np.zeros((2, 68, 2))},  # lengths differ
        {"names": np.array(["a", "b"]), "pts": np.zeros((2, 68, 4))},  # neither 2D nor 3D
        {"names": np.array(["a", "b"]), "pts": np.zeros((2, 68, 2)), "more": np.zeros((2, 68, 2))},  # which?
        {"names": np.array(["a", "b"], dtype=object), "pts": np.zeros((2, 68, 2))},  # would need pickle
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    np.savez(tmp_path / "points.npz", **arrays)
    with pytest.raises(InputError, match=r"points\.npz"):
        PointTable(tmp_path / "points.npz")


def unreadable(path: Path, kind: str) -> Path:
    if kind == "npy":
        np.save(path.with_suffix(".npy"), np.zeros((2, 68, 2)))
        path.with_suffix(".npy").rename(path)
    elif kind == "truncated":
        make_table(path)
        path.write_bytes(path.read_bytes()[:500])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("name,x,y\n")
    elif kind == "other zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("readme.txt", "hello")
    return path


@pytest.mark.parametrize("kind", ["missing", "text", "npy", "truncated", "empty", "other zip"])
def test_unreadable_tables(tmp_path: Path, kind: str) -> None:
    path = unreadable(tmp_path / "points.npz", kind)
    with pytest.raises(InputError, match=r"points\.npz"):
        PointTable(path)


def test_face_table(tmp_path: Path) -> None:
    path = tmp_path / "faces.csv"
    text = "name,split,kind,identity,yaw\na,val,x,p1,-35.5\nb,,x,p1,0\nç,train,x,,90\n"
    path.write_text(text, encoding="utf-8")
    rows = read_face_table(path)
    assert rows == {"a": FaceRow("val", "p1", -35.5), "b": FaceRow("", "p1", 0.0), "ç": FaceRow("train", "", 90.0)}


def test_face_table_without_optional_columns(tmp_path: Path) -> None:
    path = tmp_path / "faces.csv"
    path.write_text("other,name\n3.5,a\n")
    row = read_face_table(path)["a"]
    assert row[:2] == ("", "")
    assert np.isnan(row.yaw)


def test_empty_and_wrong_yaw_in_a_table(tmp_path: Path) -> None:
    path = tmp_path / "faces.csv"
    path.write_text("name,yaw\na,\nb,7\n")
    assert np.isnan(read_face_table(path)["a"].yaw)
    path.write_text("name,yaw\na,left\n")
    with pytest.raises(InputError, match=r"faces\.csv: yaw 'left' of a"):
        read_face_table(path)


@pytest.mark.parametrize("content", [b"", b"image,split\na,val\n", b"\xff\xfe\xfa"])
def test_broken_face_tables(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "faces.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"faces\.csv"):
        read_face_table(path)


def test_missing_face_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a readable CSV"):
        read_face_table(tmp_path / "absent.csv")


def test_a_damaged_table_is_an_error_that_names_it(tmp_path: Path) -> None:
    """A changed byte in the compressed numbers once ended in a zlib.error."""
    path = tmp_path / "points.npz"
    np.savez_compressed(path, names=np.array(["a", "b"]), points=np.ones((2, 68, 2)))
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        with contextlib.suppress(InputError):
            PointTable(path)
