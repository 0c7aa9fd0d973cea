"""Boxes files: reading them, and finding each photo's boxes."""

from pathlib import Path

import pytest

from dhm_cli.alignment.given_boxes import match_boxes, read_boxes
from dhm_cli.errors import InputError

HEADER = "path,left,top,width,height\n"
A, B = (1.0, 2.0, 30.0, 40.5), (5.0, -6.0, 7.0, 8.0)


def test_read(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    # With the byte order mark that spreadsheets write.
    path.write_text("\ufeff" + HEADER + '"a,b.jpg",1,2,30,40.5\nc.jpg,5,-6,7,8\n"a,b.jpg",5,-6,7,8\n', encoding="utf-8")
    assert read_boxes(path) == {"a,b.jpg": [A, B], "c.jpg": [B]}
    path.write_text("height,note,width,top,left,path\n40.5,x,30,2,1,a.jpg\n")
    assert read_boxes(path) == {"a.jpg": [A]}


def test_rows_without_a_box_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text(HEADER + "a.jpg,1,2,30,40.5\nb.jpg,,,,\n")
    assert read_boxes(path) == {"a.jpg": [A]}
    rows = ["a.jpg,ok,1,2,30,40.5", "b.jpg,no_face,,,,", "c.jpg,bad_box,5,-6,7,8", "d.jpg,unreadable,,,,"]
    path.write_text("\n".join(["path,status,left,top,width,height", *rows]))
    assert read_boxes(path) == {"a.jpg": [A]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "header lacks path, left"),
        ("path,left,top,width\na,1,2,3\n", "header lacks height"),
        (HEADER + "a,1,2,3,4\nb,1,2,x,4\n", "line 3: .*found 1,2,x,4"),
        (HEADER + "a,1,2,3\n", "line 2: .*four numbers"),
        (HEADER + "a\n", "line 2: .*four numbers"),
        (HEADER + "a,1,2,3,\n", "line 2: .*four numbers"),
        (HEADER + "a,1,2,0,4\n", "line 2: .*above 0"),
        (HEADER + "a,1,2,3,inf\n", "line 2: "),
        (HEADER + ",1,2,3,4\n", "line 2: the path is empty"),
    ],
)
def test_malformed(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=reason) as caught:
        read_boxes(path)
    assert caught.value.hint


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.csv: cannot be read") as caught:
        read_boxes(tmp_path / "absent.csv")
    assert "--boxes" in caught.value.hint


def test_a_photo_is_named_by_path_or_relative_to_the_file_or_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = [Path("p/a.jpg"), Path("p/b.jpg"), Path("p/c.jpg"), Path("q/c.jpg"), Path("p/d.jpg"), Path("p/e.jpg")]
    boxes = {
        "./p/a.jpg": [A],  # as given
        "b.jpg": [B],  # relative to the boxes file in p
        str(tmp_path / "q" / "c.jpg"): [A, B],
        "/elsewhere/d.jpg": [A],  # by name
        "/elsewhere/c.jpg": [B],  # two photos of that name
        "/one/e.jpg": [A],  # two entries of that name
        "/two/e.jpg": [B],
        "gone.jpg": [A],
    }
    matched, unused = match_boxes(photos, boxes, Path("p"))
    assert matched == {photos[0]: [A], photos[1]: [B], photos[3]: [A, B], photos[4]: [A]}
    assert sorted(unused) == ["/elsewhere/c.jpg", "/one/e.jpg", "/two/e.jpg", "gone.jpg"]


def test_two_spellings_of_one_photo_add_up() -> None:
    assert match_boxes([Path("a.jpg")], {"a.jpg": [A], "./a.jpg": [B]}, Path()) == ({Path("a.jpg"): [A, B]}, [])
