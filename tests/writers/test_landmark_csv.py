"""The table: its columns, odd file names, and what is left of it after an interruption."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dhm_cli.errors import InputError
from dhm_cli.geometry.pose import euler_to_matrix, yaw_pitch_roll_to_matrix
from dhm_cli.inference.aligner import Face
from dhm_cli.inference.columns import DEFAULT_COLUMNS, Layout, with_angles
from dhm_cli.inference.results import BAD_BOX, NO_FACE, OK, UNREADABLE, PhotoResult, partial_path
from dhm_cli.writers.landmark_csv import Csv
from dhm_cli.writers.row_files import RowFile, RowStream

COLUMNS = tuple(Layout().header)

LANDMARKS = np.arange(68 * 3).reshape(68, 3) / 7
ROTATION = yaw_pitch_roll_to_matrix(np.radians([5.0, 6.0, 7.0]))


# Two faces, one, none, three; one name has a comma, a quote, a line break and a bad byte.
PATHS = ["two.jpg", 'a, "b"\nc\udcff.jpg', "none.jpg", "two.jpg.png"]
PHOTOS = [PhotoResult(path, OK if faces else NO_FACE, faces) for path, faces in zip(PATHS, (2, 1, 0, 3), strict=True)]


def open_table(out: Path, resume: bool = False, columns: Sequence[str] = DEFAULT_COLUMNS) -> RowFile:
    return RowFile(out, Layout(columns), resume, Csv())


def face(k: int = 0) -> Face:
    return Face(LANDMARKS + k, (1.0, 2.0, 3.0, 4.0 + k), 0.5, ROTATION)


def write_all(out: Path, resume: bool = False, finish: bool = True) -> None:
    """Write the photos that are not in the table yet."""
    table = open_table(out, resume)
    for result in PHOTOS:
        if (result.path,) not in table.finished:
            table.write(result, [face(k) for k in range(result.faces)])
    table.finish() if finish else table.close()


def read_rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.reader(file))


def rows_of(tmp_path: Path, result: PhotoResult, faces: Sequence[Face] = ()) -> list[list[str]]:
    """The rows of one photo as the table has them."""
    table = open_table(tmp_path / "rows.csv")
    table.write(result, faces)
    table.finish()
    return read_rows(tmp_path / "rows.csv")[1:]


def test_columns() -> None:
    head = "path face status score confidence left top width height yaw pitch roll"
    assert " ".join(COLUMNS[:12]) == head
    assert list(COLUMNS[12:]) == [f"{axis}_{k}" for axis in "xyz" for k in range(68)]


def test_rows_of_faces(tmp_path: Path) -> None:
    sure = Face(LANDMARKS, (1.0, 2.5, 3.0, 4.0), 0.98765, yaw_pitch_roll_to_matrix(np.radians([-86.0, 12.0, 5.0])))
    given = Face(LANDMARKS, (1.0, 2.0, 3.0, 4.0), float("nan"), ROTATION)
    rows = rows_of(tmp_path, PhotoResult("a.jpg", OK, 5), [given, face(), face(), sure, face()])
    assert [row[1] for row in rows] == ["0", "1", "2", "3", "4"]
    row = dict(zip(COLUMNS, rows[3], strict=True))
    assert (row["path"], row["face"], row["status"], row["score"]) == ("a.jpg", "3", "ok", "0.988")
    assert (row["left"], row["top"], row["width"], row["height"]) == ("1.000", "2.500", "3.000", "4.000")
    assert (row["yaw"], row["pitch"], row["roll"]) == ("-86.000", "12.000", "5.000")
    # Landmark 1 is (3, 4, 5) / 7.
    assert (row["x_1"], row["y_1"], row["z_1"]) == ("0.429", "0.571", "0.714")
    assert (rows[0][3], rows[1][3]) == ("", "0.500")


def test_rows_without_a_face(tmp_path: Path) -> None:
    empty = [""] * 213
    assert rows_of(tmp_path, PhotoResult("a.jpg", NO_FACE)) == [["a.jpg", "", "no_face", *empty]]
    unreadable = PhotoResult("a.jpg", UNREADABLE, problems=("not an image",))
    assert rows_of(tmp_path, unreadable) == [["a.jpg", "", "unreadable", *empty]]
    bad = rows_of(tmp_path, PhotoResult("a.jpg", BAD_BOX, 1, ("too far left", "too large")), [face()])
    assert [row[:3] for row in bad] == [["a.jpg", "0", "ok"], *[["a.jpg", "", "bad_box"]] * 2]
    assert bad[1:] == [["a.jpg", "", "bad_box", *empty]] * 2


def test_table_holds_what_was_written(tmp_path: Path) -> None:
    out = tmp_path / "made" / "on the way" / "landmarks.csv"
    write_all(out)
    rows = read_rows(out)
    assert rows[0] == list(COLUMNS)
    found = [(path, number, status) for path, number, status, *_ in rows[1:]]
    several = [(PATHS[3], str(k), OK) for k in range(3)]
    assert found == [(PATHS[0], "0", OK), (PATHS[0], "1", OK), (PATHS[1], "0", OK), (PATHS[2], "", NO_FACE), *several]
    assert {row[4] for row in rows[5:]} == {""}  # this network tells no confidence
    numbers = np.array([[float(value) for value in (row[3], *row[5:])] for row in rows[5:]])
    for k in range(3):
        expected = [0.5, 1, 2, 3, 4 + k, 5, 6, 7, *(LANDMARKS + k).T.ravel()]
        np.testing.assert_allclose(numbers[k], expected, atol=6e-4)
    assert b"c\xff.jpg" in out.read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["landmarks.csv"]


def test_an_older_table_stays_until_the_end(tmp_path: Path) -> None:
    out = tmp_path / "landmarks.csv"
    out.write_text("older")
    table = open_table(out)
    table.write(PHOTOS[0], [face(), face(1)])
    assert out.read_text() == "older"
    table.finish()
    assert out.read_text() != "older"


def test_resume_after_a_cut_at_any_byte(tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.csv", tmp_path / "cut.csv"
    write_all(whole)
    data = whole.read_bytes()
    kept_most = 0
    second = data.index(b"two.jpg", data.index(b"two.jpg") + 1)  # a row cut off in the path is of the same photo
    for cut in [*range(0, len(data), 41), second + 3, len(data) - 1, len(data)]:
        partial_path(out).write_bytes(data[:cut])
        table = open_table(out, resume=True)
        table.close()
        assert [path for (path,) in table.finished] == PATHS[: len(table.finished)]
        kept_most = max(kept_most, len(table.finished))
        write_all(out, resume=True)
        assert out.read_bytes() == data
    assert kept_most == 3


@pytest.mark.parametrize("damage", [b"\xff" * 100, bytes(100)])
def test_damage_in_the_middle_costs_what_follows(tmp_path: Path, damage: bytes) -> None:
    whole, out = tmp_path / "whole.csv", tmp_path / "damaged.csv"
    write_all(whole)
    data = whole.read_bytes()
    at = data.index(b"none.jpg")
    partial_path(out).write_bytes(data[:at] + damage + b"\n" + data[at:])
    finished = [path for (path,) in open_table(out, resume=True).finished]
    assert finished == PATHS[:1]  # the photo before the damage may lack rows


def test_kept_faces_are_counted(tmp_path: Path) -> None:
    out = tmp_path / "landmarks.csv"
    write_all(out, finish=False)
    again = open_table(out, resume=True)
    assert [path for (path,) in again.finished] == PATHS[:3]
    assert list(again.finished.values()) == PHOTOS[:3]


def test_an_interrupted_run_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "landmarks.csv"
    write_all(out, finish=False)
    before = partial_path(out).read_bytes()
    with pytest.raises(InputError, match="holds 3 photos of an interrupted run") as caught:
        open_table(out)
    assert "--resume" in caught.value.hint
    assert partial_path(out).read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_nothing_to_resume(tmp_path: Path) -> None:
    out = tmp_path / "landmarks.csv"
    open_table(out).close()  # interrupted before the first photo
    assert list(tmp_path.iterdir()) == []
    partial_path(out).write_bytes(b"path,face")  # cut off in the header
    table = open_table(out)
    assert table.finished == {}
    table.close()
    partial_path(out).write_text("something else\n")
    with pytest.raises(InputError, match="in the way, and not of an interrupted run"):
        open_table(out, resume=True)
    assert partial_path(out).read_text() == "something else\n"


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        open_table(tmp_path / "file" / "landmarks.csv")
    with pytest.raises(InputError, match="cannot be written: File name too long") as caught:
        open_table(tmp_path / ("a" * 300))
    assert "--out" in caught.value.hint


def test_a_carriage_return_in_a_name_breaks_no_row(tmp_path: Path) -> None:
    """macOS has files called "Icon\\r"."""
    path = "photos/Icon\r.jpg"
    table = open_table(tmp_path / "out.csv")
    for name in ("a.jpg", path, "b.jpg"):
        table.write(PhotoResult(name, NO_FACE), [])
    table.close()
    again = open_table(tmp_path / "out.csv", resume=True)
    assert list(again.finished) == [("a.jpg",), (path,)]
    again.write(PhotoResult("b.jpg", NO_FACE), [])
    again.finish()
    again.close()
    with (tmp_path / "out.csv").open(newline="") as file:
        assert [row[0] for row in csv.reader(file)][1:] == ["a.jpg", path, "b.jpg"]


def test_a_face_that_the_network_doubts_says_so(tmp_path: Path) -> None:
    faces = [replace(face(), confidence=0.51), replace(face(), confidence=0.49)]
    rows = rows_of(tmp_path, PhotoResult("a.jpg", OK, 2, doubtful=1), faces)
    assert [(row[2], row[4]) for row in rows] == [("ok", "0.510"), ("doubtful", "0.490")]
    table = open_table(tmp_path / "again.csv")
    table.write(PhotoResult("a.jpg", OK, 2, doubtful=1), faces)
    table.write(PhotoResult("b.jpg", NO_FACE), [])
    table.close()
    assert open_table(tmp_path / "again.csv", resume=True).finished == {
        ("a.jpg",): PhotoResult("a.jpg", OK, 2, doubtful=1)
    }


def test_columns_are_chosen_and_a_run_with_others_does_not_go_on(tmp_path: Path) -> None:
    out, groups = tmp_path / "rows.csv", ("visible", "box", "sigma")
    table = open_table(out, columns=groups)
    told = np.full((68, 3), [0.25, 0.5, 0.25])
    table.write(PhotoResult("a.jpg", OK, 2), [replace(face(), sigma=np.arange(68.0), visibility=told), face()])
    table.write(PhotoResult("b.jpg", NO_FACE), [])
    table.close()
    with pytest.raises(InputError, match="other columns") as caught:
        open_table(out, resume=True)
    assert "--columns" in (caught.value.hint or "")
    table = open_table(out, resume=True, columns=groups)
    table.finish()
    rows = read_rows(out)
    assert rows[0] == Layout(groups).header
    row = dict(zip(rows[0], rows[1], strict=True))
    assert (row["visible_0"], row["left"], row["sigma_67"]) == ("0.250", "1.000", "67.000")
    assert rows[2][3:71] == [""] * 68  # a network that tells nothing
    with pytest.raises(InputError, match="--columns noses: not known"):
        open_table(tmp_path / "new.csv", columns=["noses"])
    with pytest.raises(InputError, match="given twice"):
        open_table(tmp_path / "new.csv", columns=["box", "box"])


def test_the_names_of_the_columns_tell_the_order_of_the_angles(tmp_path: Path) -> None:
    """The same profile as people see it and as 300W-LP's files have it, under other names."""
    profile = Face(LANDMARKS, (1.0, 2.0, 3.0, 4.0), 0.5, euler_to_matrix(np.radians([73.0, -77.0, -68.0])))
    for angles, names, expected in (
        ("yaw-pitch-roll", ["yaw", "pitch", "roll"], [-86, 12, 5]),
        ("300w-lp", ["pitch_300w_lp", "yaw_300w_lp", "roll_300w_lp"], [73, -77, -68]),
    ):
        out, columns = tmp_path / f"{angles}.csv", with_angles(DEFAULT_COLUMNS, angles)
        table = open_table(out, columns=columns)
        table.write(PhotoResult("a.jpg", OK, 1), [profile])
        table.finish()
        stream = RowStream(tmp_path / "stream.csv", Layout(columns), False, Csv())
        stream.write(PhotoResult("a.jpg", OK, 1), [profile])
        stream.close()
        assert (tmp_path / "stream.csv").read_bytes() == out.read_bytes()
        head, row = read_rows(out)
        assert head == Layout(columns).header
        at = head.index(names[0])
        assert head[at : at + 3] == names
        np.testing.assert_allclose([float(value) for value in row[at : at + 3]], expected, atol=0.5)


def test_a_run_with_the_other_angles_does_not_go_on(tmp_path: Path) -> None:
    out = tmp_path / "landmarks.csv"
    write_all(out, finish=False)
    with pytest.raises(InputError, match="other columns"):
        open_table(out, resume=True, columns=with_angles(DEFAULT_COLUMNS, "300w-lp"))
