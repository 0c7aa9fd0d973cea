"""Images with .pts files, MERL-RAV among them, and images whose points are in a table."""

import os
from pathlib import Path

import dataset_examples as examples
import numpy as np
import pytest
from dataset_examples import SIZE, by_name, load_image

from dhm_cli.datasets.discovery import discover, find_layout
from dhm_cli.errors import InputError
from dhm_cli.io.pts import NO_LABEL, OCCLUDED, VISIBLE


def test_plain_pts_take_coordinates_as_they_are(tmp_path: Path) -> None:
    points = examples.make_points()
    points[:3] = [[-4.5, -7.25], [-4, 3], [2, 2]]  # a face cut off by the corner
    examples.write_pts(examples.write_image(tmp_path / "image 001_1.jpg").with_suffix(".pts"), points)
    layout = find_layout(tmp_path)
    (sample,) = layout.samples(tmp_path)
    truth = layout.read(sample, *SIZE)
    assert layout.name == "pts"
    np.testing.assert_array_equal(truth.points, points - 1)
    assert (truth.visibility == VISIBLE).all()


def test_merl_rav_by_its_folders(tmp_path: Path) -> None:
    examples.write_merl_rav(tmp_path)
    layout = find_layout(tmp_path)
    samples = by_name(tmp_path)
    assert layout.name == "signed-pts"
    assert len(samples) == 10
    sample = samples["left/trainset/image00001.jpg"]
    assert (sample.subset, sample.split) == ("trainset/left", "train")
    assert samples["left/testset/image00001.jpg"].split == "test"
    truth = layout.read(sample, *SIZE)
    assert truth.visibility[:3].tolist() == [NO_LABEL, OCCLUDED, VISIBLE]
    np.testing.assert_array_equal(truth.points[1], examples.make_points(1)[1] - 1)


@pytest.mark.parametrize("value", [None, [-1, -1]])
def test_merl_rav_by_its_signs(tmp_path: Path, value: list[float] | None) -> None:
    """One face of forty is enough, whether a landmark is hidden or occluded; read as told, it is a plain one."""
    curve = np.stack([20 + np.arange(68) * 0.75, np.full(68, 40.0)], axis=1)
    for number in range(40):
        points = curve.copy()
        if number == 29:
            points[5] = -points[5] if value is None else value
        examples.write_pts(examples.write_image(tmp_path / "x" / f"{number}.jpg").with_suffix(".pts"), points)
    assert find_layout(tmp_path).name == "signed-pts"
    assert find_layout(tmp_path, "signed-pts").name == "signed-pts"
    plain = find_layout(tmp_path, "pts")
    truth = plain.read({s.name: s for s in plain.samples(tmp_path)}["x/29.jpg"], *SIZE)
    assert (truth.visibility == VISIBLE).all()
    np.testing.assert_array_equal(truth.points[5], np.array([-1, -1] if value else -curve[5], np.float32) - 1)


def test_some_folders_without_occlusion(tmp_path: Path) -> None:
    curve = np.stack([20 + np.arange(68) * 0.75, np.full(68, 40.0)], axis=1)
    for folder in ("one", "two"):
        examples.write_pts(examples.write_image(tmp_path / folder / "a.jpg").with_suffix(".pts"), curve)
        curve[3] = -1
    assert {layout.name for _, layout in discover(tmp_path, set())} == {"pts", "signed-pts"}
    assert find_layout(tmp_path).name == "signed-pts"


def test_splits_from_the_names_of_folders(tmp_path: Path) -> None:
    names = ("trainset/a.jpg", "testset/a.jpg", "val/b c.jpg", "more/a.jpg")
    for name in names:
        examples.write_pts(examples.write_image(tmp_path / name).with_suffix(".pts"), examples.make_points())
    samples = by_name(tmp_path)
    assert [samples[name].split for name in names] == ["train", "test", "val", "auto"]
    assert len({sample.identity for sample in samples.values()}) == 4


def test_odd_names_and_a_missing_pts(tmp_path: Path) -> None:
    for name in ("Ünï cödé/a b.JPG", "Ünï cödé/c#1.jpeg", "d.TIFF"):
        examples.write_image(tmp_path / name)
    examples.write_pts(tmp_path / "Ünï cödé" / "a b.PTS", examples.make_points())
    examples.write_pts(tmp_path / "Ünï cödé" / "c#1.pts", examples.make_points())
    layout = find_layout(tmp_path)
    samples = by_name(tmp_path)
    assert list(samples) == ["d.TIFF", "Ünï cödé/a b.JPG", "Ünï cödé/c#1.jpeg"]
    assert all(layout.read(s, *SIZE).visibility.all() for name, s in samples.items() if name != "d.TIFF")
    assert samples["Ünï cödé/c#1.jpeg"].source == "Ünï cödé/c#1.jpeg"
    nothing = layout.read(samples["d.TIFF"], *SIZE)  # its labels may come from a table
    assert (nothing.visibility == NO_LABEL).all()
    assert np.isnan(nothing.points).all()


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"K\xf6pfe.jpg")
    try:
        examples.write_image(tmp_path / "a.jpg").rename(path)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    examples.write_pts(path.with_suffix(".pts"), examples.make_points())
    (sample,) = find_layout(tmp_path).samples(tmp_path)
    assert sample.name == sample.identity == "K\\xf6pfe.jpg"
    sample.name.encode("utf-8")
    assert load_image(sample)[1:] == SIZE


def test_one_image_of_several_with_the_same_stem(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.bmp", "b.png", "b.jpg", ".hidden.jpg", ".cache/c.jpg"):
        examples.write_image(tmp_path / name)
    examples.write_pts(tmp_path / "a.pts", examples.make_points())
    assert list(by_name(tmp_path)) == ["a.jpg", "b.jpg", "b.png"]  # without labels nothing says which b is meant


def test_images_alone_need_a_table(tmp_path: Path) -> None:
    examples.write_image(tmp_path / "faces" / "a.jpg")
    with pytest.raises(InputError, match="no known dataset"):
        find_layout(tmp_path)
    layout = find_layout(tmp_path, tables=True)
    assert layout.name == find_layout(tmp_path, "points").name == "points"
    (sample,) = layout.samples(tmp_path)
    assert (sample.name, sample.annotation) == ("faces/a.jpg", None)
    assert (layout.read(sample, *SIZE).visibility == NO_LABEL).all()
    assert discover(tmp_path, set()) == []


def test_a_table_does_not_hide_annotations(tmp_path: Path) -> None:
    examples.write_aflw2000(tmp_path)
    assert find_layout(tmp_path, tables=True).name == "aflw2000-3d"
