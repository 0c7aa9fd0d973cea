"""Which photos a user means."""

import os
from collections import Counter
from pathlib import Path

import pytest

from dhm_cli.errors import InputError
from dhm_cli.io.photo_search import find_photos, video_hint


def test_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["b.JPG", "a/z.png", "a/c/x.Jpeg", "a/notes.txt", "a/._z.png", ".hidden/q.jpg", "a b é.webp", "raw.dat"]
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    expected = ["a/c/x.Jpeg", "a/z.png", "a b é.webp", "b.JPG"]
    assert find_photos(["."]).photos == [Path(name) for name in expected]
    assert find_photos(["raw.dat", "a", tmp_path / "b.JPG", "./a/z.png", "b.JPG"]).photos == [
        Path("raw.dat"),
        Path("a/c/x.Jpeg"),
        Path("a/z.png"),
        tmp_path / "b.JPG",
    ]


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="no photos") as caught:
        find_photos([tmp_path])
    assert ".jpeg" in caught.value.hint
    with pytest.raises(InputError, match=r"absent: no such file or folder"):
        find_photos([tmp_path / "absent"])
    with pytest.raises(InputError, match="cannot be read: File name too long") as caught:
        find_photos(["a" * 300])
    assert caught.value.hint


def test_a_path_that_cannot_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **options: bool) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(InputError, match=r"a\.jpg: cannot be read: Permission denied") as caught:
        find_photos([tmp_path / "a.jpg"])
    assert "permissions" in caught.value.hint


def test_a_subfolder_that_cannot_be_searched_is_told_and_the_others_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to refuse the whole run."""
    for name in ("a/1.jpg", "locked/2.jpg", "z/3.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    scan = os.scandir

    def refuse(folder: Path) -> object:
        if Path(folder).name == "locked":  # root may look into every folder
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_photos([tmp_path])
    assert [photo.name for photo in found.photos] == ["1.jpg", "3.jpg"]
    assert found.problems == [f"{tmp_path / 'locked'}: cannot be searched: Permission denied"]
    with pytest.raises(InputError, match="locked: cannot be searched: Permission denied"):
        find_photos([tmp_path / "locked"])


def test_folders_too_deep_to_be_named_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photo.jpg").touch()
    monkeypatch.chdir(tmp_path)
    for _ in range(40):  # a path of 8,000 letters; 4,095 are the most that Linux takes
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
    monkeypatch.chdir(tmp_path)
    found = find_photos([tmp_path])
    assert found.photos == [tmp_path / "photo.jpg"]
    assert len(found.problems) == 1
    assert "File name too long" in found.problems[0]
    for depth in range(40, 0, -1):  # pytest's own clean-up cannot name them either
        for _ in range(depth - 1):
            os.chdir("d" * 200)
        os.rmdir("d" * 200)
        os.chdir(tmp_path)


def test_pictures_that_are_not_read_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dhm_cli.io.photo_search.reads_heic", lambda: False)
    for name in ("a.jpg", "b.HEIC", "c.heic", "d.gif", "notes.txt", ".e.heic"):
        (tmp_path / name).touch()
    assert find_photos([tmp_path]).not_read == Counter({".heic": 2})
    (tmp_path / "a.jpg").unlink()
    (tmp_path / "d.gif").unlink()
    with pytest.raises(InputError) as caught:
        find_photos([tmp_path])
    assert ".heic need the extra [heic]" in caught.value.hint
    monkeypatch.setattr("dhm_cli.io.photo_search.reads_heic", lambda: True)
    assert [photo.name for photo in find_photos([tmp_path]).photos] == ["b.HEIC", "c.heic"]


def test_a_pattern_is_filled_in_as_a_shell_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("p/b.jpg", "p/a.jpg", "p/q/c.jpg", "p/q/notes.txt", "p/q/r/d.PNG", "p/.e.jpg", "x[1].jpg", "x1.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    for pattern, expected in (
        ("p/*.jpg", ["p/a.jpg", "p/b.jpg"]),
        ("p/**/*.jpg", ["p/a.jpg", "p/b.jpg", "p/q/c.jpg"]),
        ("p/**/*", ["p/a.jpg", "p/b.jpg", "p/q/c.jpg", "p/q/notes.txt", "p/q/r/d.PNG"]),
        ("p/*", ["p/a.jpg", "p/b.jpg", "p/q/c.jpg", "p/q/r/d.PNG"]),  # q as a folder named outright
        ("x[1].jpg", ["x[1].jpg"]),  # there is such a file
        ("x[12].jpg", ["x1.jpg"]),
    ):
        assert [photo.as_posix() for photo in find_photos([pattern]).photos] == expected
    with pytest.raises(InputError, match=r"p/\*\.tif: no file fits this pattern") as caught:
        find_photos(["p/*.tif"])
    assert "**" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        (Path("s3://bucket/face.jpg"), "two slashes"),  # a path loses one
        ("my photo.jpg", "needs quotes"),
    ],
)
def test_the_hint_fits_the_name(name: str | Path, hint: str) -> None:
    with pytest.raises(InputError, match="no such file or folder") as caught:
        find_photos([name])
    assert hint in caught.value.hint


def test_a_video_is_known_by_its_name() -> None:
    assert "aligned alone" in video_hint(Path("clip.MP4"))
    assert video_hint(Path("photo.jpg")) == ""
