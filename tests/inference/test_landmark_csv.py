"""The table: its columns, odd file names, and what is left of it after an interruption."""

import csv
from pathlib import Path

import numpy as np
import pytest

from dhm_cli.errors import InputError
from dhm_cli.inference.landmark_csv import (
    COLUMNS,
    NO_FACE,
    UNREADABLE,
    LandmarkTable,
    Row,
    empty_row,
    face_row,
    partial_path,
)

LANDMARKS = np.arange(68 * 3).reshape(68, 3) / 7


def photos() -> list[list[Row]]:
    """Rows of four photos: two faces, one, none, three; one name has a comma, a quote, a line break and a bad byte."""

    def faces(path: str, count: int) -> list[Row]:
        return [face_row(path, k, 0.5, (1, 2, 3, 4 + k), (5, 6, 7), LANDMARKS + k) for k in range(count)]

    odd = 'a, "b"\nc\udcff.jpg'
    return [faces("two.jpg", 2), faces(odd, 1), [empty_row("none.jpg", NO_FACE)], faces("two.jpg.png", 3)]


def write_all(out: Path, groups: list[list[Row]], resume: bool = False, finish: bool = True) -> None:
    table = LandmarkTable(out, resume)
    for rows in groups:
        if rows[0][0] not in table.finished:
            table.write(rows)
    table.finish() if finish else table.close()


def test_columns() -> None:
    head = "path face status score left top width height pitch yaw roll"
    assert " ".join(COLUMNS[:11]) == head
    assert list(COLUMNS[11:]) == [f"{axis}_{k}" for axis in "xyz" for k in range(68)]


def test_rows() -> None:
    cells = face_row("a.jpg", 3, 0.98765, (1.0, 2.5, 3.0, 4.0), (5.0, -6.0, 7.0), LANDMARKS)
    row = dict(zip(COLUMNS, cells, strict=True))
    assert (row["path"], row["face"], row["status"], row["score"]) == ("a.jpg", "3", "ok", "0.988")
    assert (row["left"], row["top"], row["width"], row["height"]) == ("1.000", "2.500", "3.000", "4.000")
    assert (row["pitch"], row["yaw"], row["roll"]) == ("5.000", "-6.000", "7.000")
    # Landmark 1 is (3, 4, 5) / 7.
    assert (row["x_1"], row["y_1"], row["z_1"]) == ("0.429", "0.571", "0.714")
    assert face_row("a.jpg", 0, float("nan"), (1, 2, 3, 4), (5, 6, 7), LANDMARKS)[3] == ""
    assert empty_row("a.jpg", UNREADABLE) == ["a.jpg", "", "unreadable"] + [""] * 212


def test_table_holds_what_was_written(tmp_path: Path) -> None:
    out = tmp_path / "made" / "on the way" / "landmarks.csv"
    write_all(out, photos())
    with out.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert list(csv.reader(file)) == [list(COLUMNS), *(row for rows in photos() for row in rows)]
    assert b"c\xff.jpg" in out.read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["landmarks.csv"]


def test_an_older_table_stays_until_the_end(tmp_path: Path) -> None:
    out = tmp_path / "landmarks.csv"
    out.write_text("older")
    table = LandmarkTable(out)
    table.write(photos()[0])
    assert out.read_text() == "older"
    table.finish()
    assert out.read_text() != "older"


def test_resume_after_a_cut_at_any_byte(tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.csv", tmp_path / "cut.csv"
    write_all(whole, photos())
    data = whole.read_bytes()
    paths = [rows[0][0] for rows in photos()]
    kept_most = 0
    for cut in [*range(0, len(data), 41), len(data) - 1, len(data)]:
        partial_path(out).write_bytes(data[:cut])
        table = LandmarkTable(out, resume=True)
        table.close()
        assert list(table.finished) == paths[: len(table.finished)]
        kept_most = max(kept_most, len(table.finished))
        write_all(out, photos(), resume=True)
        assert out.read_bytes() == data
    assert kept_most == 3


@pytest.mark.parametrize("damage", [b"\xff" * 100, bytes(100)])
def test_damage_in_the_middle_costs_what_follows(tmp_path: Path, damage: bytes) -> None:
    whole, out = tmp_path / "whole.csv", tmp_path / "damaged.csv"
    write_all(whole, photos())
    data = whole.read_bytes()
    at = data.index(b"none.jpg")
    partial_path(out).write_bytes(data[:at] + damage + b"\n" + data[at:])
    finished = list(LandmarkTable(out, resume=True).finished)
    before = [photos()[0][0][0], photos()[1][0][0]]
    # Python 3.10 refuses to read a line of zeros, which costs the photo before it as well.
    assert finished in ((before, before[:1]) if not any(damage) else (before,))


def test_kept_faces_are_counted(tmp_path: Path) -> None:
    out = tmp_path / "landmarks.csv"
    write_all(out, photos(), finish=False)
    again = LandmarkTable(out, resume=True)
    assert list(again.faces) == list(again.finished)
    assert list(again.faces.values()) == [2, 1, 0]


def test_an_interrupted_run_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "landmarks.csv"
    write_all(out, photos(), finish=False)
    before = partial_path(out).read_bytes()
    with pytest.raises(InputError, match="holds 3 photos of an interrupted run") as caught:
        LandmarkTable(out)
    assert "--resume" in caught.value.hint
    assert partial_path(out).read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_nothing_to_resume(tmp_path: Path) -> None:
    out = tmp_path / "landmarks.csv"
    LandmarkTable(out).close()  # interrupted before the first photo
    assert list(tmp_path.iterdir()) == []
    partial_path(out).write_bytes(b"path,face")  # cut off in the header
    assert LandmarkTable(out).finished == {}
    partial_path(out).write_text("something else\n")
    assert LandmarkTable(out, resume=True).finished == {}


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        LandmarkTable(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        LandmarkTable(tmp_path / "file" / "landmarks.csv")
    with pytest.raises(InputError, match="cannot be written: File name too long") as caught:
        LandmarkTable(tmp_path / ("a" * 300))
    assert "--out" in caught.value.hint
