"""Lists of photos: lines, standard input, columns of tables."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from dhm_cli.errors import InputError
from dhm_cli.io.photo_lists import STDIN, read_list
from dhm_cli.io.photo_search import find_photos

NAMES = ["photos/a.jpg", "photos/ü, 1.png", " odd .jpg"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    return tmp_path


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def write_tables(folder: Path, column: str = "path") -> list[Path]:
    """The names in every kind of table; one a face, so that one name stands twice."""
    names = [NAMES[0], *NAMES]
    lines = [f'"{name}"' for name in names]
    (folder / "list.csv").write_text("\n".join([f"face,{column}", *(f"0,{line}" for line in lines)]))
    (folder / "list.tsv").write_text("\n".join([f"face\t{column}", *(f"0\t{line}" for line in lines)]))
    objects = [{"face": 0, column: name} for name in names]
    (folder / "list.jsonl").write_text("\n\n".join(map(json.dumps, objects)))
    (folder / "list.json").write_text(json.dumps(objects))
    np.savez(folder / "list.npz", **{column: names, "points": np.zeros((9, 2))})
    return [folder / f"list.{ending}" for ending in ("csv", "tsv", "jsonl", "json", "npz")]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_path_a_line(here: Path, end: str) -> None:
    Path("list.txt").write_bytes(b"\xef\xbb\xbf" + end.join(["", *NAMES, "", "gone.jpg", NAMES[0]]).encode())
    found = find_photos([], ["list.txt"])
    assert [str(photo) for photo in found.photos] == [*NAMES, "gone.jpg"]  # what is not there costs itself only


@pytest.mark.parametrize("between", [b"\n", b"\0"])
def test_standard_input(here: Path, monkeypatch: pytest.MonkeyPatch, between: bytes) -> None:
    feed(monkeypatch, between.join(name.encode() for name in NAMES) + between)
    assert [str(photo) for photo in find_photos([NAMES[1], "-"]).photos] == [NAMES[1], NAMES[0], NAMES[2]]


def test_columns_of_tables(here: Path) -> None:
    for file in write_tables(here):
        assert [str(photo) for photo in find_photos([], [file]).photos] == NAMES, file
    (here / "other").mkdir()
    for file in write_tables(here / "other", "photo file"):
        with pytest.raises(InputError, match=r"no column 'path'|names no photo") as caught:
            find_photos([], [file])
        assert "--path-column" in caught.value.hint
        assert [str(photo) for photo in find_photos([], [file], "photo file").photos] == NAMES, file


def test_parquet(here: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow, the extra [parquet], is not installed")
    import pyarrow

    parquet.write_table(pyarrow.table({"path": NAMES, "face": [0, 1, 2]}), "list.parquet")
    assert [str(photo) for photo in find_photos([], ["list.parquet"]).photos] == NAMES


def test_paths_are_seen_from_here_or_from_the_list(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("photos/list.txt").write_text("a.jpg\nphotos/a.jpg\n")
    assert list(read_list(Path("photos/list.txt"))) == [Path("photos/a.jpg")] * 2
    feed(monkeypatch, b"a.jpg\n")
    assert list(read_list(STDIN)) == [Path("a.jpg")]


def test_folders_in_a_list(here: Path) -> None:
    Path("empty").mkdir()
    Path("list.txt").write_text("photos\nempty\n")
    found = find_photos([], ["list.txt"])
    assert [str(photo) for photo in found.photos] == NAMES[:2]
    assert found.problems == ["empty: no photos in this folder"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("list.txt", b"", "names no photo"),
        ("list.txt", b"\n\n", "names no photo"),
        ("photo.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF", "not a list of paths"),
        ("list.csv", b"path\n", "names no photo"),
        ("list.csv", b"", "names no photo"),
        ("list.jsonl", b'{"path": 3}\n', r"line 1: column 'path': 3, not a path"),
        ("list.jsonl", b'{"file": "a.jpg"}\n', r"line 1: no column 'path'"),
        ("list.jsonl", b'{"path": "a', "line 1: not JSON"),
        ("list.jsonl", b"[1]", "line 1: not an object"),
        ("list.json", b'{"a.jpg": []}', "not a list of objects"),
        ("list.npz", b"PK", "not a readable .npz"),
    ],
)
def test_lists_that_cannot_be_read(here: Path, name: str, content: bytes, reason: str) -> None:
    Path(name).write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        find_photos([], [name])
    assert caught.value.hint


def test_a_list_that_is_not_there(here: Path) -> None:
    for name in ("gone.txt", "gone.csv", "photos"):
        with pytest.raises(InputError, match=f"{name}: cannot be read"):
            find_photos([], [name])
