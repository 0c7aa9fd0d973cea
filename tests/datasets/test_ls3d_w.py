"""LS3D-W and 300VW: images with .t7 files, and frames of videos."""

from pathlib import Path

import cv2
import dataset_examples as examples
import numpy as np
import pytest
from dataset_examples import SIZE, by_name, load_image

from dhm_cli.datasets.discovery import find_layout
from dhm_cli.datasets.samples import load_images
from dhm_cli.errors import InputError


def test_ls3d_w(tmp_path: Path) -> None:
    root = tmp_path / "LS3D-W"
    names = examples.write_ls3d_w(root)
    layout = find_layout(root)
    samples = by_name(root)
    assert layout.name == "ls3d-w"
    assert list(samples) == names
    splits = {name: sample.split for name, sample in samples.items()}
    assert splits.pop("300VW-3D/Trainset/001/0001.jpg") == splits.pop("300VW-3D/Trainset/001/0002.jpg") == "train"
    assert set(splits.values()) == {"test"}
    assert samples["300VW-3D/CatA/114/0001.jpg"].identity == samples["300VW-3D/CatA/114/0002.jpg"].identity
    assert samples["Menpo-3D/a 1.jpg"].subset == "Menpo-3D"
    assert len({sample.identity for sample in samples.values()}) == 5
    truth = layout.read(samples["Menpo-3D/a 1.jpg"], *SIZE)
    np.testing.assert_array_equal(truth.points, examples.make_points(2) - 1)
    assert truth.parameters is None
    assert truth.landmarks is None


@pytest.mark.parametrize(
    ("part", "split"),
    [("Menpo-3D", "test"), ("300VW-3D", "test"), ("CatB", "test"), ("300VW-3D/Trainset", "train"), ("mine", "auto")],
)
def test_parts_of_ls3d_w_alone(tmp_path: Path, part: str, split: str) -> None:
    folder = tmp_path / "data" / part
    image = examples.write_image(folder / "a.PNG")
    examples.write_t7(image.with_suffix(".T7"), examples.make_points())
    (sample,) = find_layout(folder).samples(folder)
    assert sample.split == split
    np.testing.assert_array_equal(find_layout(folder).read(sample, *SIZE).points, examples.make_points() - 1)


def test_300vw(tmp_path: Path) -> None:
    root = tmp_path / "300VW"
    levels = examples.write_300vw(root)
    layout = find_layout(root)
    samples = layout.samples(root)
    assert (layout.name, layout.silhouette_jaw) == ("300vw", True)
    numbers = [1, 3, 12]
    assert [s.name for s in samples] == [f"{v}/vid.avi#{n:06d}" for v in ("001", "002") for n in numbers]
    assert [s.frame for s in samples[:3]] == [0, 2, 11]
    assert {(s.identity, s.source, s.split) for s in samples[:3]} == {("001", "001/vid.avi", "auto")}
    for sample, loaded in zip(samples, load_images(samples), strict=True):
        assert not isinstance(loaded, InputError)
        assert loaded[1:] == SIZE
        assert sample.frame is not None
        blue, green, red = cv2.imdecode(np.frombuffer(loaded[0], np.uint8), 1).mean(axis=(0, 1))
        np.testing.assert_allclose([red, green, blue], [200, 100, levels[sample.frame]], atol=4)
    points = examples.make_points(3)
    points[5] = [-1, -1]  # outside the image, as .pts files of ibug mean it
    examples.write_pts(root / "001" / "annot" / "000003.pts", points)
    np.testing.assert_array_equal(layout.read(samples[1], *SIZE).points, points - 1)
    assert load_image(samples[4])[0] == list(load_images(samples))[4][0]  # type: ignore[index]


def test_frames_annotated_beside_the_video(tmp_path: Path) -> None:
    folder = tmp_path / "CatA" / "114"
    examples.write_video(folder / "vid.avi")
    examples.write_t7(folder / "000002.t7", examples.make_points(2))
    examples.write_image(folder / "000005.jpg")
    examples.write_t7(folder / "000005.t7", examples.make_points(5))  # the image's
    examples.write_t7(folder / "mean.t7", examples.make_points(6))
    samples = by_name(folder.parent)
    assert find_layout(folder.parent).name == "ls3d-w"
    assert list(samples) == ["114/000005.jpg", "114/vid.avi#000002"]
    assert {(sample.split, sample.identity) for sample in samples.values()} == {("test", "114")}
    truth = find_layout(folder.parent).read(samples["114/vid.avi#000002"], *SIZE)
    np.testing.assert_array_equal(truth.points, examples.make_points(2) - 1)


def test_frames_counted_from_0(tmp_path: Path) -> None:
    examples.write_300vw(tmp_path / "300VW", ("001",))
    examples.write_pts(tmp_path / "300VW" / "001" / "annot" / "000000.pts", examples.make_points())
    with pytest.raises(InputError, match=r"000000\.pts: frame 0"):
        find_layout(tmp_path).samples(tmp_path)


def test_frames_saved_as_images_stay_together(tmp_path: Path) -> None:
    for name in ("001/000001.jpg", "001/000002.jpg", "002/000001.jpg", "002/face.jpg"):
        examples.write_pts(examples.write_image(tmp_path / name).with_suffix(".pts"), examples.make_points())
    identities = [sample.identity for sample in by_name(tmp_path).values()]
    assert identities == ["001", "001", "002", "002/face.jpg"]


def test_a_short_video_loses_only_its_missing_frames(tmp_path: Path) -> None:
    examples.write_300vw(tmp_path / "300VW", ("001",))
    examples.write_pts(tmp_path / "300VW" / "001" / "annot" / "000040.pts", examples.make_points())
    samples = find_layout(tmp_path).samples(tmp_path)
    *found, lost = load_images(samples)
    assert not any(isinstance(each, InputError) for each in found)
    assert isinstance(lost, InputError)
    assert "ends after 12 frames, so frame 40 is missing" in lost.message
    with pytest.raises(InputError, match="frame 40 is missing"):
        load_image(samples[-1])


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    examples.write_300vw(tmp_path / "300VW", ("001",))
    (tmp_path / "300VW" / "001" / "vid.avi").write_bytes(b"nothing")
    loaded = list(load_images(find_layout(tmp_path).samples(tmp_path)))
    assert len(loaded) == 3
    assert all(isinstance(each, InputError) and "vid.avi: cannot be opened" in each.message for each in loaded)


def test_two_videos_for_the_same_frames(tmp_path: Path) -> None:
    examples.write_300vw(tmp_path / "300VW", ("001",))
    examples.write_video(tmp_path / "300VW" / "001" / "other.mp4.avi")
    with pytest.raises(InputError, match="2 videos"):
        find_layout(tmp_path).samples(tmp_path)
