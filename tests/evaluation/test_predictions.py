"""Predictions of any method: every kind of file, and what is wrong with those that cannot be used."""

import csv
import io
import json
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dhm_cli.errors import InputError
from dhm_cli.evaluation.predictions import read_predictions
from dhm_cli.geometry.pose import Angles, euler_to_matrix
from dhm_cli.inference.aligner import Face
from dhm_cli.inference.columns import DEFAULT_COLUMNS, Layout, with_angles
from dhm_cli.inference.results import BAD_BOX, NO_FACE, OK, UNREADABLE, PhotoResult
from dhm_cli.writers.registry import open_writer

# Point k of face f is (10 f + k, 200 - k / 4, k / 2 - 20): exact in every format.
K = np.arange(68)
FACES = np.stack([np.stack([10 * f + K, 200 - K / 4, K / 2 - 20], axis=-1) for f in range(3)])
NAMES = ("AFW/b 1.jpg", "AFW/a_1_0.JPG", "ü/c.png")
XY = FACES[0, :, :2].tolist()
SHAPES = pytest.mark.parametrize(
    "form",
    [lambda p: p[..., :2], lambda p: p, lambda p: p[..., :2].swapaxes(-1, -2), lambda p: p.swapaxes(-1, -2)],
    ids=["68x2", "68x3", "2x68", "3x68"],
)
Form = Callable[[Any], Any]


def coordinates(form: Form) -> int:
    return min(form(FACES).shape[1:])


def write_csv(path: Path, header: list[str], rows: list[list[Any]], encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def header_of(points: int = 68, axes: str = "xy", first: str = "path") -> list[str]:
    return [first, *(f"{axis}_{k}" for axis in axes for k in range(points))]


def flat(face: int, axes: int = 2) -> list[float]:
    return FACES[face, :, :axes].T.ravel().tolist()


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def pts_text(points: Any) -> str:
    lines = "\n".join(f"{x + 1} {y + 1}" for x, y in points)
    return f"version: 1\nn_points: {len(points)}\n{{\n{lines}\n}}\n"


def refused(path: Path, reason: str, hint: str = "") -> None:
    with pytest.raises(InputError, match=reason) as caught:
        read_predictions(path)
    assert path.name in caught.value.message
    assert caught.value.hint
    assert hint in caught.value.hint


POSES = np.array([[-1.5, 20.25, 0.0], [73.0, -77.0, -68.0], [1.0, 2.0, 3.0]])  # pitch, yaw, roll of 300W-LP


@pytest.mark.parametrize("angles", ["yaw-pitch-roll", "300w-lp"])
def test_table_of_align(tmp_path: Path, angles: Angles) -> None:
    """Both orders of the table are the same poses to evaluate; one is a profile, whose angles differ by 60 degrees."""
    rotations = euler_to_matrix(np.radians(POSES))
    table = open_writer(tmp_path / "landmarks.csv", Layout(with_angles(DEFAULT_COLUMNS, angles)))
    table.write(PhotoResult(NAMES[0], OK, 2), [Face(FACES[f], (1, 2, 3, 4), 0.5, rotations[f]) for f in (0, 1)])
    table.write(PhotoResult("none.jpg", NO_FACE), [])
    table.write(PhotoResult("bad.jpg", UNREADABLE, problems=("not an image",)), [])
    table.write(PhotoResult("box.jpg", BAD_BOX, problems=("it lies outside",)), [])
    table.write(PhotoResult(NAMES[2], OK, 1), [Face(FACES[2], (1, 2, 3, 4), np.nan, rotations[2])])
    table.finish()
    found = read_predictions(tmp_path / "landmarks.csv")
    assert found.names == (NAMES[0], NAMES[0], NAMES[2])
    assert found.landmarks.dtype == np.float64
    np.testing.assert_array_equal(found.landmarks, FACES)
    assert found.pose is not None
    np.testing.assert_allclose(found.pose, POSES, atol=0.01)  # the table has three digits after the point


def test_a_pose_of_other_tables_is_of_300w_lp_in_any_order(tmp_path: Path) -> None:
    """So is that of a table that an earlier `dhm align` wrote, which had pitch before yaw."""
    for k, (before, names) in enumerate(
        [([], ["pitch", "yaw", "roll"]), ([], ["yaw", "pitch", "roll"]), (["face", "status"], ["pitch", "yaw", "roll"])]
    ):
        cells = {"face": 0, "status": "ok", "pitch": 73, "yaw": -77, "roll": -68}
        header = ["path", *before, *names, *header_of()[1:]]
        row = ["a.jpg", *(cells[name] for name in (*before, *names)), *flat(0)]
        found = read_predictions(write_csv(tmp_path / f"{k}.csv", header, [row]))
        assert found.pose is not None
        np.testing.assert_array_equal(found.pose, [[73, -77, -68]])


def test_angles_of_align_that_are_none_are_refused(tmp_path: Path) -> None:
    header = ["path", "face", "status", "yaw", "pitch", "roll", *header_of()[1:]]
    rows = [["a.jpg", 0, "ok", "inf", 0, 0, *flat(0)], ["b.jpg", 0, "ok", "", "", "", *flat(0)]]
    refused(write_csv(tmp_path / "a.csv", header, rows), "are no angles in degrees")
    found = read_predictions(write_csv(tmp_path / "b.csv", header, [rows[1], ["c.jpg", 0, "ok", 9, 0, 0, *flat(0)]]))
    assert found.pose is not None
    np.testing.assert_allclose(found.pose, [[np.nan] * 3, [0, 9, 0]], atol=1e-9)


@pytest.mark.parametrize("first", ["path", "name", "image", "file"])
def test_csv_of_others(tmp_path: Path, first: str) -> None:
    # Columns in another order, with others between, padded names, an empty line.
    header = ["note", *header_of(first=first)[::-1], "yaw"]
    rows: list[list[Any]] = [["x", *[NAMES[f], *flat(f)][::-1], ""] for f in range(3)]
    path = write_csv(tmp_path / "a.CSV", [f" {name}" for name in header], [rows[0], [], *rows[1:]])
    found = read_predictions(path)
    assert found.names == NAMES
    np.testing.assert_array_equal(found.landmarks, FACES[..., :2])
    assert found.pose is None


def test_csv_of_a_spreadsheet(tmp_path: Path) -> None:
    rows = [["ü.jpg", *flat(0)]]
    assert read_predictions(write_csv(tmp_path / "a.csv", header_of(), rows, "utf-8-sig")).names == ("ü.jpg",)
    refused(write_csv(tmp_path / "b.csv", header_of(), rows, "utf-16"), "not a text file in UTF-8", "UTF-8")


def test_csv_path_comes_before_name(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", ["name", *header_of()], [["someone", "a.jpg", *flat(0)]])
    assert read_predictions(path).names == ("a.jpg",)


def test_csv_pose_of_some(tmp_path: Path) -> None:
    header = [*header_of(axes="xyz"), "roll", "yaw", "pitch"]
    rows = [[NAMES[0], *flat(0, 3), 3, -350, 1], [NAMES[1], *flat(1, 3), "", "", ""]]
    found = read_predictions(write_csv(tmp_path / "a.csv", header, rows))
    np.testing.assert_array_equal(found.landmarks, FACES[:2])
    assert found.pose is not None
    np.testing.assert_array_equal(found.pose, [[1, -350, 3], [np.nan] * 3])
    assert read_predictions(write_csv(tmp_path / "b.csv", header, rows[1:])).pose is None


def test_names_that_are_no_utf8_become_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    body = ",".join(map(str, flat(0)))
    path.write_bytes(",".join(header_of()).encode() + b"\ncaf\xe9.jpg," + body.encode() + b"\n")
    assert read_predictions(path).names == ("caf\\xe9.jpg",)
    np.savez(tmp_path / "a.npz", names=np.array([b"caf\xe9.jpg"]), points=FACES[:1])
    assert read_predictions(tmp_path / "a.npz").names == ("caf\\xe9.jpg",)


@SHAPES
def test_json_object(tmp_path: Path, form: Form) -> None:
    # One face, two faces of a photo, and photos without a face.
    value = {NAMES[2]: form(FACES[0]).tolist(), "no.jpg": [], NAMES[0]: form(FACES[1:]).tolist(), "nor.jpg": None}
    found = read_predictions(write_json(tmp_path / "a.json", value))
    assert found.names == (NAMES[2], NAMES[0], NAMES[0])
    np.testing.assert_array_equal(found.landmarks, FACES[..., : coordinates(form)])
    assert found.pose is None


@SHAPES
def test_json_list(tmp_path: Path, form: Form) -> None:
    value: list[dict[str, Any]] = [
        {"name": "someone", "path": NAMES[0], "landmarks": form(FACES[0]).tolist(), "pose": [1, -2, 3.5]},
        {"image": NAMES[0], "points": form(FACES[1]).tolist(), "score": "high"},
        {"file": "no.jpg", "landmarks": None},
        {"name": NAMES[2], "points": form(FACES[2]).tolist(), "pose": None},
    ]
    found = read_predictions(write_json(tmp_path / "a.json", value))
    assert found.names == (NAMES[0], NAMES[0], NAMES[2])
    np.testing.assert_array_equal(found.landmarks, FACES[..., : coordinates(form)])
    assert found.pose is not None
    np.testing.assert_array_equal(found.pose, [[1, -2, 3.5], [np.nan] * 3, [np.nan] * 3])


@SHAPES
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_npy(tmp_path: Path, form: Form, dtype: type) -> None:
    np.save(tmp_path / "a.npy", form(FACES).astype(dtype))
    found = read_predictions(tmp_path / "a.npy")
    assert found.names is None
    assert found.pose is None
    assert found.landmarks.dtype == np.float64
    np.testing.assert_array_equal(found.landmarks, FACES[..., : coordinates(form)])


@SHAPES
@pytest.mark.parametrize("kind", ["U", "S"])
def test_npz(tmp_path: Path, form: Form, kind: str) -> None:
    names = np.array(NAMES if kind == "U" else [name.encode() for name in NAMES])
    pose = np.array([[1, 2, 3], [np.nan] * 3, [4, 5, -6]], dtype=np.float32)
    # Heat maps and scores are no points.
    others = {"heat": np.zeros((3, 64, 64)), "score": np.ones(3)}
    np.savez(tmp_path / "a.npz", names=names, any_name=form(FACES), pose=pose, **others)
    found = read_predictions(tmp_path / "a.npz")
    assert found.names == NAMES
    np.testing.assert_array_equal(found.landmarks, FACES[..., : coordinates(form)])
    assert found.pose is not None
    np.testing.assert_array_equal(found.pose, pose)
    np.savez(tmp_path / "b.npz", names=names, any_name=form(FACES))
    assert read_predictions(tmp_path / "b.npz").pose is None


def test_folder_of_pts(tmp_path: Path) -> None:
    for f, name in enumerate(["a.pts", "B/b.PTS", "B/c d/ü.pts"]):
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # A point beyond the corner stays there: its signs are no sign of occlusion (MERL-RAV).
        path.write_text(pts_text(FACES[f, :, :2] - 210), encoding="utf-8")
    (tmp_path / "out" / "a.jpg").write_bytes(b"")
    found = read_predictions(tmp_path / "out")
    assert found.names == ("a.pts", "B/b.PTS", "B/c d/ü.pts")
    np.testing.assert_array_equal(found.landmarks, FACES[..., :2] - 210)
    assert found.pose is None


@pytest.mark.parametrize(
    ("name", "reason", "hint"),
    [
        ("absent.csv", "cannot be read: No such file", "check the name"),
        ("run.safetensors", "a network", "without --predictions"),
        ("run.pt", "a network", "without --predictions"),
        ("store.h5", "a store", "--data"),
        ("one.pts", "single .pts", "folder"),
        ("points.mat", "not a kind of file", "folder of .pts"),
        ("points", "not a kind of file", "folder of .pts"),
    ],
)
def test_other_files(tmp_path: Path, name: str, reason: str, hint: str) -> None:
    if name != "absent.csv":
        (tmp_path / name).write_bytes(b"\x89HDF\r\n")
    refused(tmp_path / name, reason, hint)


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.npy", "a.npz"])
@pytest.mark.parametrize(
    "content", [b"", b"\x89HDF\r\n\x1a\n\0\0", b"\xff\xfe\x00p\xd8", b"PK\x03\x04", b"\x93NUMPY\x01"]
)
def test_foreign_content(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, "is empty" if not content else "not |damaged|header lacks", "expected")


@pytest.mark.parametrize("points", [5, 21, 98])
def test_other_schemes(tmp_path: Path, points: int) -> None:
    reason = f"{points} points a face, but the 68-point scheme of 300-W"
    values = np.ones((2, points, 2))
    refused(write_csv(tmp_path / "a.csv", header_of(points), [["a", *np.ones(2 * points)]]), reason, "convert")
    refused(write_json(tmp_path / "a.json", {"f.jpg": values[0].tolist()}), f"'f.jpg': {reason}", "convert")
    refused(write_json(tmp_path / "b.json", [{"name": "f", "points": values[0].T.tolist()}]), f"'f': {reason}")
    np.save(tmp_path / "a.npy", values)
    refused(tmp_path / "a.npy", reason)
    np.savez(tmp_path / "a.npz", names=["a", "b"], points=values.swapaxes(1, 2))
    refused(tmp_path / "a.npz", reason)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "f.pts").write_text(pts_text(values[0]))
    with pytest.raises(InputError, match=rf"f\.pts: {points} points"):
        read_predictions(tmp_path / "out")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e6, -1e30])
def test_numbers_that_are_no_pixels(tmp_path: Path, bad: float) -> None:
    faces = FACES.copy()
    faces[1, 5:7, 0] = bad
    faces[2, 67, 2] = bad
    reason = r"2 of the 204 numbers of {} are no pixel positions .* in 2 of 3 faces"
    hint = "leave out the rows of faces that the method did not find"
    rows = [[NAMES[f], *faces[f].T.ravel()] for f in range(3)]
    refused(write_csv(tmp_path / "a.csv", header_of(axes="xyz"), rows), reason.format("'AFW/a_1_0.JPG'"), hint)
    value = dict(zip(NAMES, faces.tolist(), strict=True))
    refused(write_json(tmp_path / "a.json", value), reason.format("'AFW/a_1_0.JPG'"), hint)
    np.save(tmp_path / "a.npy", faces)
    refused(tmp_path / "a.npy", reason.format("row 1, counted from 0"), "in an .npz file with `names`")
    np.savez(tmp_path / "a.npz", names=NAMES, points=faces)
    refused(tmp_path / "a.npz", reason.format("'AFW/a_1_0.JPG'"), hint)


def test_empty_cells_are_no_pixels(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", header_of(), [["a.jpg", *flat(0)], ["b.jpg", *[""] * 136]])
    refused(path, r"136 of the 136 numbers of 'b.jpg' are no pixel positions .* in 1 of 2 faces", "leave out")


@pytest.mark.parametrize("bad", [[1, np.nan, 2], [1, 2, np.inf], [361, 0, 0]])
def test_numbers_that_are_no_angles(tmp_path: Path, bad: list[float]) -> None:
    np.savez(tmp_path / "a.npz", names=NAMES, points=FACES, pose=[[0, 0, 0], bad, [0, 0, 0]])
    refused(tmp_path / "a.npz", r"1 of the 3 numbers of 'AFW/a_1_0.JPG' are no angles in degrees .* 1 of 3 faces")


def test_no_face(tmp_path: Path) -> None:
    refused(write_csv(tmp_path / "a.csv", header_of(), []), "no face")
    table = open_writer(tmp_path / "b.csv")
    table.write(PhotoResult("a.jpg", NO_FACE), [])
    table.finish()
    refused(tmp_path / "b.csv", "no face")
    for k, value in enumerate([{}, [], {"a.jpg": []}, [{"name": "a.jpg", "points": []}]]):
        refused(write_json(tmp_path / f"{k}.json", value), "no face")
    np.save(tmp_path / "a.npy", FACES[:0])
    refused(tmp_path / "a.npy", "no face")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.jpg").write_bytes(b"")
    refused(tmp_path / "out", r"without \.pts files, found 1 \.jpg", "expected")


@pytest.mark.parametrize(
    ("header", "row", "reason"),
    [
        (header_of()[1:], flat(0), "header lacks path"),
        (header_of()[:-1], ["a", *flat(0)[1:]], "header lacks y_67"),
        (["path", *(f"{axis}_{k + 1}" for axis in "xy" for k in range(68))], ["a", *flat(0)], "lacks x_0, y_0"),
        (["path", "left", "top"], ["a", 1, 2], "header lacks x_0, x_1, x_2 and 133 more columns"),
        ([*header_of(), "z_0"], ["a", *flat(0), 1], "header lacks z_1, z_2, z_3 and 64 more"),
        ([*header_of(), "y_3"], ["a", *flat(0), 1], "2 columns are named y_3"),
        ([*header_of(), "path"], ["a", *flat(0), 1], "2 columns are named path"),
        (header_of(), ["a", *flat(0)[1:]], "line 2: 136 cells under a header of 137"),
        (header_of(), ["a", "b", *flat(0)], "line 2: 138 cells under a header of 137"),
        (header_of(), ["a", *flat(0)[1:], "1,5"], "line 2: expected numbers: .*'1,5'"),
        (header_of(), ["", *flat(0)], "face 0, counted from 0, has no readable name"),
        (header_of(), ["a" * 200_000, *flat(0)], "not a CSV file: field larger"),
    ],
)
def test_malformed_csv(tmp_path: Path, header: list[str], row: list[Any], reason: str) -> None:
    refused(write_csv(tmp_path / "a.csv", header, [row]), reason)


def test_cut_off_csv(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", header_of(), [['a, "b".jpg', *flat(f)] for f in range(2)])
    text = path.read_text()
    path.write_text(text[: text.rindex("a, ") + 5])
    refused(path, "line 3: 1 cells", "cut off")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a.jpg": [[1, 2]', "not a readable JSON file"),
        ('{"a.jpg": [], "a.jpg": []}', "not a readable JSON file: 'a.jpg' stands twice"),
        ("[" * 100_000, "not a readable JSON file"),
        ('"a.jpg"', "neither an object nor a list"),
        ("3", "neither an object nor a list"),
        ('{"images": [{"id": 3}], "annotations": []}', "'images': not nested lists of numbers"),
        ('{"a.jpg": {"x": 3}}', "'a.jpg': not nested lists"),
        ('{"a.jpg": "text"}', "'a.jpg': not nested lists"),
        ('{"a.jpg": [[1, 2], [3]]}', "'a.jpg': not nested lists"),
        ('{"a.jpg": [1' + "0" * 400 + "]}", "'a.jpg': not nested lists"),
        ('{"a.jpg": ' + "[" * 80 + "]" * 80 + "}", "'a.jpg': "),
        (json.dumps({"a.jpg": list(range(136))}), r"'a.jpg': float64 of shape \(136,\), not points"),
        (json.dumps({"a.jpg": [[XY]]}), "'a.jpg': lists 4 deep"),
        (json.dumps({"": XY}), "face 0, counted from 0, has no readable name"),
        (json.dumps({"\ud800": XY}), "face 0, counted from 0, has no readable name"),
        (json.dumps([XY]), "face 0, counted from 0, has no name"),
        (json.dumps([{"name": 3, "points": XY}]), "face 0, .* has no name"),
        (json.dumps([{"name": "a"}]), "face 0, .* has no landmarks"),
        (json.dumps([{"name": "a", "points": [XY]}]), r"'a': points \(1, 68, 2\)"),
        (json.dumps([{"name": "a", "points": XY, "pose": [1, 2]}]), r"'a': .* a pose \(2,\)"),
        (json.dumps([{"name": "a", "points": XY, "pose": "left"}]), "'a': not nested lists of numbers"),
        (json.dumps({"a": XY, "b": FACES[0].tolist()}), "'b' has other coordinates than 'a'"),
    ],
)
def test_malformed_json(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    refused(path, reason)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"points": FACES}, "no `names` for 3 faces"),
        ({"points": FACES, "names": NAMES[:2]}, r"`names` <U13 \(2,\) for 3 faces"),
        ({"points": FACES, "names": [1, 2, 3]}, r"`names` int64 \(3,\) for 3 faces"),
        ({"points": FACES, "names": NAMES, "pose": np.zeros((3, 2))}, r"`pose` float64 \(3, 2\) for 3 faces"),
        ({"points": FACES, "names": NAMES, "pose": np.full((3, 3), "1")}, r"`pose` <U1 \(3, 3\) for 3 faces"),
        ({"points": FACES, "old": FACES, "names": NAMES}, r"2 arrays of points, found points \(3, 68, 3\), old"),
        ({"names": NAMES, "score": np.ones(3)}, r"0 arrays of points, found score \(3,\)"),
        ({"names": NAMES, "points": FACES > 3}, "bool of shape .* not points"),
        ({"names": NAMES, "points_in_120": FACES}, "points_in_120 is in pixels of a resized image"),
        ({"names": ["", "a", "b"], "points": FACES}, "face 0, counted from 0, has no readable name"),
        ({"names": NAMES, "points": np.array([None])}, "damaged, or holds other things"),
    ],
)
def test_malformed_npz(tmp_path: Path, arrays: dict[str, Any], reason: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    refused(tmp_path / "a.npz", reason)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (FACES[0], r"array of shape \(68, 3\), not points of faces"),
        (np.zeros((3, 136)), r"array of shape \(3, 136\)"),
        (np.zeros((3, 68, 4)), r"float64 of shape \(3, 4, 68\), not points"),
        (FACES.astype(complex), "complex128 of shape"),
        (np.array(["text"]), "not points"),
    ],
)
def test_malformed_npy(tmp_path: Path, array: Any, reason: str) -> None:
    np.save(tmp_path / "a.npy", array)
    refused(tmp_path / "a.npy", reason, "expected points")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(pickle.dumps(FACES))
    refused(tmp_path / "a.npy", "not a file of NumPy arrays")
    np.save(tmp_path / "a.npy", np.array([{"x": 1}], dtype=object))
    refused(tmp_path / "a.npy", "other things than numbers")


def test_damaged_arrays_are_refused_or_read_whole(tmp_path: Path) -> None:
    plain, packed = io.BytesIO(), io.BytesIO()
    np.save(plain, FACES)
    np.savez_compressed(packed, names=NAMES, points=FACES)
    rng = np.random.default_rng(0)
    for suffix, whole in ((".npy", plain.getvalue()), (".npz", packed.getvalue())):
        path = tmp_path / f"a{suffix}"
        for cut in range(0, len(whole), 37):
            path.write_bytes(whole[:cut])
            refused(path, r"a\.np")
        for _ in range(100):
            damaged = bytearray(whole)
            damaged[rng.integers(min(len(whole), 200))] = rng.integers(256)
            path.write_bytes(damaged)
            with suppress(InputError):  # any other error is a traceback for the user
                assert read_predictions(path).landmarks.shape[1] == 68
