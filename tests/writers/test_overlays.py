"""Copies of photos with landmarks: where they go, and what cannot be drawn."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from example_photos import ASTRONAUT, encode, read_table, write_album
from numpy.typing import NDArray

from dhm_cli.alignment.photos import align_files
from dhm_cli.drawing.heads import PARTS
from dhm_cli.errors import InputError
from dhm_cli.inference.aligner import Aligner
from dhm_cli.inference.results import OK
from dhm_cli.io.images import read_image
from dhm_cli.writers.jpeg_folder import JpegFolder
from dhm_cli.writers.overlays import draw

BLACK = np.zeros((400, 500, 3), np.uint8)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    return write_album(tmp_path / "album")


def test_overlays_mirror_the_folders(album: Path, dummy_network: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn"
    align_files([album], tmp_path / "out.csv", overlay_dir=drawn, device="cpu", model=dummy_network)
    names = ["a.jpg", "b.jpg", "trip, 1/Zoë und Söhne.jpg", "trip, 1/a.jpg"]
    assert sorted(str(path.relative_to(drawn)) for path in drawn.rglob("*.jpg")) == sorted(names)
    photo, overlay = read_image(album / "a.png").astype(int), read_image(drawn / "a.jpg").astype(int)
    difference = np.abs(photo - overlay).max(axis=2)
    assert (difference[60:190, 160:300] > 60).sum() > 100
    assert difference[250:].mean() < 6
    np.testing.assert_allclose(read_image(drawn / "b.jpg"), 128, atol=2)


def test_overlays_never_touch_the_photos(album: Path, dummy_network: Path, tmp_path: Path) -> None:
    link = tmp_path / "link to the album"
    link.symlink_to(album, target_is_directory=True)
    for folder in (album, album.parent, link):
        with pytest.raises(InputError, match="lies in the folder for overlays"):
            align_files([album], tmp_path / "out.csv", overlay_dir=folder, device="cpu", model=dummy_network)
    assert not (tmp_path / "out.csv.partial").exists()


@pytest.mark.parametrize("way", ["soft link", "hard link", "link elsewhere", "file of somebody", "folder"])
def test_what_lies_in_the_way_of_an_overlay_is_left_alone(
    album: Path, dummy_network: Path, tmp_path: Path, way: str
) -> None:
    """A link used to be followed and what it leads to overwritten; a folder ended the run for good."""
    drawn, other = tmp_path / "drawn", tmp_path / "thesis.txt"
    drawn.mkdir()
    other.write_text("years of work")
    place, before = drawn / "b.jpg", (album / "b.jpg").read_bytes()
    if way == "soft link":
        place.symlink_to(album / "b.jpg")
    elif way == "hard link":
        os.link(album / "b.jpg", place)
    elif way == "link elsewhere":
        place.symlink_to(other)
    elif way == "file of somebody":
        place.write_text("not an overlay")
    else:
        place.mkdir()
    for _ in range(2):
        report = align_files([album], tmp_path / "out.csv", overlay_dir=drawn, device="cpu", model=dummy_network)
        problems = [result.overlay_problem for result in report.results if result.overlay_problem]
        assert len(problems) == 1
        assert "left alone" in problems[0] or "--force replaces it" in problems[0]
        assert (drawn / "a.jpg").is_file()
    assert (album / "b.jpg").read_bytes() == before
    assert other.read_text() == "years of work"
    if way == "file of somebody":
        align_files([album], tmp_path / "out.csv", overlay_dir=drawn, device="cpu", model=dummy_network, force=True)
        assert read_image(place).ndim == 3


def test_every_photo_has_an_overlay_of_its_own(dummy_network: Path, tmp_path: Path) -> None:
    """Of `a.png` and `a.png.jpg` one was lost."""
    names = ("a.png", "a.jpg", "a.png.jpg", "A.webp", "b.png", "c.d/b.png")
    for name in names:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(encode(np.zeros((16, 16, 3), np.uint8), ".png"))
    photos = [tmp_path / "photos" / name for name in names]
    folder = JpegFolder(tmp_path / "drawn", "overlay", "--overlay", photos)
    paths = [folder.path(photo) for photo in photos]
    assert len(set(paths)) == len(names)
    shown = [str(path.relative_to(tmp_path / "drawn")) for path in paths]
    assert shown == ["a.png.jpg", "a.jpg", "a.png_.jpg", "A.jpg", "b.jpg", "c.d/b.jpg"]


def test_overlays_of_photos_on_several_drives(
    album: Path, dummy_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(paths: list[str]) -> str:
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr("os.path.commonpath", refuse)
    with pytest.raises(InputError, match="several drives"):
        align_files([album], tmp_path / "out.csv", overlay_dir=tmp_path / "d", device="cpu", model=dummy_network)


def test_an_overlay_that_cannot_be_made_costs_no_landmarks(dummy_network: Path, tmp_path: Path) -> None:
    folder, drawn = tmp_path / "odd", tmp_path / "drawn"
    folder.mkdir()
    long = "n" * 250 + ".png"  # the longest that there may be
    for name in ("a.png", long):
        (folder / name).write_bytes(ASTRONAUT.read_bytes())
    (folder / "wide.png").write_bytes(encode(np.zeros((16, 66_000, 3), np.uint8), ".png"))
    boxes = tmp_path / "boxes.csv"
    rows = ["a.png,180,70,90,106", f"{long},180,70,90,106", "wide.png,65000,2,12,12"]
    boxes.write_text("\n".join(["path,left,top,width,height", *rows]))
    out = tmp_path / "out.csv"
    report = align_files([folder], out, boxes_csv=boxes, overlay_dir=drawn, device="cpu", model=dummy_network)
    assert [row["status"] for row in read_table(out)] == [OK] * 3
    assert sorted(path.name for path in drawn.iterdir()) == ["a.jpg", "n" * 250 + ".jpg"]
    assert [result.overlay_problem for result in report.results] == [
        "",
        "",
        "a JPEG cannot hold 66000 x 16 pixels",
    ]


def test_a_folder_for_overlays_that_cannot_be_written_stops_the_run(
    album: Path, dummy_network: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    options = {"device": "cpu", "model": dummy_network}
    with pytest.raises(InputError, match="file: is no folder") as caught:
        align_files([album], tmp_path / "out.csv", overlay_dir=tmp_path / "file", **options)
    assert "--overlay" in caught.value.hint


def test_a_drawing_that_fails_costs_no_landmarks(
    album: Path, dummy_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NDArray[np.uint8]:
        raise MemoryError

    monkeypatch.setattr("dhm_cli.writers.overlays.draw_heads", fail)
    options = {"device": "cpu", "model": dummy_network}
    report = align_files([album], tmp_path / "out.csv", overlay_dir=tmp_path / "drawn", **options)
    assert report.faces == 4
    assert report.results[0].overlay_problem == "not enough memory"


def test_what_is_drawn(astronaut: NDArray[np.uint8]) -> None:
    (face,) = Aligner("cpu").align(astronaut)
    before = astronaut.copy()
    plain = draw(astronaut, [face])
    np.testing.assert_array_equal(astronaut, before)
    drawn = {part: (draw(astronaut, [face], (part,)) != astronaut).any(axis=2) for part in PARTS}
    assert not drawn["number"].any()  # there is one face only
    for part in ("points", "lines", "axes", "box", "confidence"):
        assert drawn[part].sum() > 100, part
    np.testing.assert_array_equal((plain != astronaut).any(axis=2), drawn["points"] | drawn["lines"])
    left, top, width, height = np.round(face.box).astype(int)
    assert drawn["box"][top, left : left + width].all()
    assert not drawn["box"][top + 5 : top + height - 5, left + 5 : left + width - 5].any()
    numbered = draw(astronaut, [face, replace(face, landmarks=face.landmarks + np.array([100, 100, 0]))], ("number",))
    assert (numbered != astronaut).any()
    bgr = draw(np.ascontiguousarray(astronaut[..., ::-1]), [face], bgr=True)
    np.testing.assert_array_equal(bgr[..., ::-1], plain)
    with pytest.raises(InputError, match="uint8"):
        draw(astronaut / 255, [face])
    for parts in ((), ("points", "nose")):
        with pytest.raises(InputError, match="not known") as caught:
            draw(astronaut, [face], parts)
        assert "axes" in caught.value.hint
