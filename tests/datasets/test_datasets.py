"""Dataset layouts: recognising folders, listing faces, reading every format back to the same numbers."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import dataset_examples as examples
import numpy as np
import pytest
from numpy.typing import NDArray
from places import SHARED_DATA

from dhm_cli.datasets.benchmark_labels import read_reannotated, read_yaw_labels
from dhm_cli.datasets.catalogue import DATASETS, layouts
from dhm_cli.datasets.discovery import discover, find_layout
from dhm_cli.datasets.samples import Encoded, Sample, load_images
from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import MIRROR, face_size
from dhm_cli.io.pts import NO_LABEL, OCCLUDED, VISIBLE
from dhm_cli.io.torch7 import read_t7

SIZE = (examples.HEIGHT, examples.WIDTH)

needs_data = pytest.mark.skipif(
    not (SHARED_DATA / "300w_lp_format").is_dir(), reason="no shared data; name its folder in DHM_SHARED_DATA"
)


def load_image(sample: Sample) -> Encoded:
    """The image of one face alone."""
    (loaded,) = load_images([sample])
    if isinstance(loaded, InputError):
        raise loaded
    return loaded


def by_name(folder: Path, format: str = "auto") -> dict[str, Sample]:
    return {sample.name: sample for sample in find_layout(folder, format).samples(folder)}


def message_of(error: pytest.ExceptionInfo[InputError]) -> str:
    return f"{error.value.message}\n{error.value.hint}"


# 300W-LP


def test_300w_lp(tmp_path: Path) -> None:
    names = examples.write_300w_lp(tmp_path)
    layout = find_layout(tmp_path)
    samples = layout.samples(tmp_path)
    assert (layout.name, layout.store, layout.has_parameters) == ("300w-lp", "300w-lp", True)
    assert [s.name for s in samples] == names
    assert {s.subset for s in samples} == {"AFW", "AFW_Flip", "HELEN", "HELEN_Flip"}
    assert {s.split for s in samples} == {"auto"}
    assert {s.identity for s in samples} == {"AFW/AFW_134212_1", "HELEN/HELEN_10_2"}
    assert [s.name for s in samples if layout.flips and layout.flips(s.name)] == [n for n in names if "_Flip/" in n]


def test_the_list_names_each_layout_as_it_names_itself() -> None:
    assert [layout.name for layout in layouts()] == list(DATASETS)


def test_published_counts_of_300w_lp() -> None:
    layout = next(layout for layout in layouts() if layout.name == "300w-lp")
    assert sum(layout.published.values()) == 122_450


def test_truth_of_300w_lp(tmp_path: Path) -> None:
    fields = examples.write_face_300w_lp(tmp_path / "AFW" / "AFW_1_1_0.jpg", seed=3)
    truth = find_layout(tmp_path).read(by_name(tmp_path)["AFW/AFW_1_1_0.jpg"], *SIZE)
    np.testing.assert_array_equal(truth.points, fields["pt2d"].T.astype(np.float32) - 1)
    np.testing.assert_array_equal(truth.parameters, examples.expected_parameters(fields))
    assert (truth.visibility == VISIBLE).all()
    assert truth.landmarks is None


def test_points_of_flips_are_put_in_the_order_of_the_mirrored_face(tmp_path: Path) -> None:
    fields = examples.write_face_300w_lp(tmp_path / "AFW_Flip" / "AFW_1_1_0.jpg", seed=3)
    truth = find_layout(tmp_path).read(by_name(tmp_path)["AFW_Flip/AFW_1_1_0.jpg"], *SIZE)
    on_disk = fields["pt2d"].T.astype(np.float32) - 1
    np.testing.assert_array_equal(truth.points[0], on_disk[16])
    np.testing.assert_array_equal(truth.points[36], on_disk[45])
    np.testing.assert_array_equal(truth.points[MIRROR], on_disk)
    np.testing.assert_array_equal(truth.parameters, examples.expected_parameters(fields))


def test_300w_lp_by_one_subfolder_or_from_above(tmp_path: Path) -> None:
    names = examples.write_300w_lp(tmp_path / "300W_LP")
    part = tmp_path / "300W_LP" / "AFW_Flip"
    samples = by_name(part)
    assert list(samples) == ["AFW_134212_1_0.jpg", "AFW_134212_1_1.jpg"]
    assert {(s.subset, s.identity) for s in samples.values()} == {("AFW_Flip", "AFW/AFW_134212_1")}
    above = by_name(tmp_path)
    assert list(above) == [f"300W_LP/{name}" for name in names]
    assert above["300W_LP/HELEN_Flip/HELEN_10_2_0.jpg"].identity == "HELEN/HELEN_10_2"


def test_lower_case_folders_of_300w_lp(tmp_path: Path) -> None:
    examples.write_face_300w_lp(tmp_path / "ibug_flip" / "IBUG_image_008_1_0.jpg")
    sample = by_name(tmp_path)["ibug_flip/IBUG_image_008_1_0.jpg"]
    assert (sample.subset, sample.identity) == ("IBUG_Flip", "IBUG/IBUG_image_008_1")


def test_300w_folders_without_mat_are_not_300w_lp(tmp_path: Path) -> None:
    image = examples.write_image(tmp_path / "afw" / "134212_1.jpg")
    examples.write_pts(image.with_suffix(".pts"), examples.make_points())
    assert find_layout(tmp_path).name == "pts"


def test_matlab_73(tmp_path: Path) -> None:
    fields = examples.write_face_300w_lp(tmp_path / "AFW" / "AFW_1_1_0.jpg", seed=4)
    examples.write_mat73(tmp_path / "AFW" / "AFW_1_1_0.mat", fields)
    truth = find_layout(tmp_path).read(by_name(tmp_path)["AFW/AFW_1_1_0.jpg"], *SIZE)
    np.testing.assert_array_equal(truth.points, fields["pt2d"].T.astype(np.float32) - 1)
    np.testing.assert_array_equal(truth.parameters, examples.expected_parameters(fields))


def test_the_order_of_p_is_that_of_the_parameters() -> None:
    from dhm_cli.morphable.parameters import LAYOUT, NUM_PARAMETERS

    fields = examples.make_fields(1)
    p = examples.expected_parameters(fields)
    assert len(p) == NUM_PARAMETERS
    pose = fields["Pose_Para"].ravel()
    np.testing.assert_array_equal(p[LAYOUT["scale"]], pose[6:])
    np.testing.assert_array_equal(p[LAYOUT["angles"]], pose[:3])
    np.testing.assert_array_equal(p[LAYOUT["translation"]], pose[3:5])
    np.testing.assert_array_equal(p[LAYOUT["identity"]], fields["Shape_Para"].ravel().astype(np.float32))
    np.testing.assert_array_equal(p[LAYOUT["expression"]], fields["Exp_Para"].ravel())


def broken_fields(kind: str) -> dict[str, NDArray[Any]]:
    fields = examples.make_fields() | {"pt2d": examples.make_points().T}
    if kind == "missing":
        del fields["Exp_Para"]
    elif kind == "short":
        fields["Shape_Para"] = fields["Shape_Para"][:80]
    elif kind == "nan":
        fields["Pose_Para"] = fields["Pose_Para"] * np.nan
    elif kind == "text":
        fields["Exp_Para"] = np.array(["a", "b"])
    elif kind == "21 points":
        fields["pt2d"] = fields["pt2d"][:, :21]
    elif kind == "turned":
        fields["pt2d"] = fields["pt2d"].T
    elif kind == "far":
        fields["pt2d"] = fields["pt2d"] * 1e9
    elif kind == "elsewhere":
        fields["pt2d"] = fields["pt2d"] + [[500], [0]]
    return fields


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no field Exp_Para"),
        ("short", "Shape_Para of 80 numbers"),
        ("nan", "NaN or infinite numbers in its Pose_Para"),
        ("text", "Exp_Para"),
        ("21 points", "2 x 21, not 2 x 68"),
        ("turned", "68 x 2, not 2 x 68"),
        ("far", "no pixel positions"),
        ("elsewhere", "outside the image of 120 x 90"),
    ],
)
def test_wrong_fields_of_one_file(tmp_path: Path, kind: str, words: str) -> None:
    examples.write_face_300w_lp(tmp_path / "AFW" / "AFW_2_1_0.jpg")
    examples.write_mat(examples.write_image(tmp_path / "AFW" / "x.jpg").with_suffix(".mat"), broken_fields(kind))
    layout = find_layout(tmp_path)
    samples = by_name(tmp_path)
    layout.read(samples["AFW/AFW_2_1_0.jpg"], *SIZE)
    with pytest.raises(InputError, match=r"x\.mat") as error:
        layout.read(samples["AFW/x.jpg"], *SIZE)
    assert words in error.value.message
    assert error.value.hint


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file", b"\x89HDF\r\n\x1a\nxxxx", b"text", None])
def test_damaged_mat_files(tmp_path: Path, content: bytes | None) -> None:
    mat = tmp_path / "AFW" / "AFW_2_1_0.mat"
    examples.write_face_300w_lp(mat.with_suffix(".jpg"))
    mat.write_bytes(mat.read_bytes()[:1500] if content is None else content)
    with pytest.raises(InputError, match=r"AFW_2_1_0\.mat"):
        find_layout(tmp_path).read(by_name(tmp_path)["AFW/AFW_2_1_0.jpg"], *SIZE)


def test_a_face_without_its_mat_file(tmp_path: Path) -> None:
    examples.write_face_300w_lp(tmp_path / "AFW" / "AFW_2_1_0.jpg")
    examples.write_image(tmp_path / "AFW" / "AFW_2_1_1.jpg")
    sample = by_name(tmp_path)["AFW/AFW_2_1_1.jpg"]
    assert sample.annotation is None
    with pytest.raises(InputError, match=r"AFW_2_1_1\.jpg: no annotation"):
        find_layout(tmp_path).read(sample, *SIZE)


# AFLW2000-3D


def test_aflw2000(tmp_path: Path) -> None:
    faces = examples.write_aflw2000(tmp_path)
    layout = find_layout(tmp_path)
    samples = layout.samples(tmp_path)
    assert layout.name == "aflw2000-3d"
    assert [s.name for s in samples] == ["image00002.jpg", "image00004.jpg", "image00051.jpg"]
    assert {s.split for s in samples} == {"test"}
    for sample, fields in zip(samples, faces, strict=True):
        truth = layout.read(sample, *SIZE)
        assert truth.landmarks is not None
        np.testing.assert_array_equal(truth.landmarks, fields["pt3d_68"].T - [1, 1, 0])
        np.testing.assert_array_equal(truth.points, truth.landmarks[:, :2])
        np.testing.assert_array_equal(truth.parameters, examples.expected_parameters(fields))
        assert (truth.visibility == VISIBLE).all()
        assert truth.landmarks.dtype == truth.points.dtype == np.float32


def test_mat_files_of_300w_lp_in_another_folder_are_not_aflw2000(tmp_path: Path) -> None:
    examples.write_face_300w_lp(tmp_path / "mine" / "AFW_1_1_0.jpg")
    with pytest.raises(InputError, match="no known dataset"):
        find_layout(tmp_path)


def test_aflw2000_with_a_damaged_first_file(tmp_path: Path) -> None:
    examples.write_aflw2000(tmp_path)
    (tmp_path / "image00002.mat").write_bytes(b"")
    assert find_layout(tmp_path).name == "aflw2000-3d"
    assert len(find_layout(tmp_path).samples(tmp_path)) == 3


# LS3D-W


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


@pytest.mark.parametrize("kind", ["float32", "float64", "int64"])
@pytest.mark.parametrize("transposed", [False, True])
def test_t7_tensors(tmp_path: Path, kind: str, transposed: bool) -> None:
    points = examples.make_points(5).astype(kind)
    path = tmp_path / "a.t7"
    path.write_bytes(examples.t7_bytes(points, transposed))
    np.testing.assert_array_equal(read_t7(path), points - 1)
    assert read_t7(path).dtype == np.float32


def test_t7_of_another_shape(tmp_path: Path) -> None:
    for shape in ((66, 2), (2, 68), (68, 3), (136,), (1, 68, 2)):
        path = examples.write_t7(tmp_path / "a.t7", np.ones(shape))
        with pytest.raises(InputError, match=r"a\.t7: a tensor of " + " x ".join(map(str, shape))):
            read_t7(path)


def broken_t7(kind: str) -> bytes:
    good = examples.t7_bytes(examples.make_points())
    if kind == "far strides":  # numpy would read beyond the numbers of the file
        at = good.index(b"torch.DoubleTensor") + len(b"torch.DoubleTensor") + 4 + 16
        return good[:at] + (10**6).to_bytes(8, "little") + good[at + 8 :]
    return {
        "empty": b"",
        "text": b"version: 1",
        "number": b"\x01\x00\x00\x00" + np.float64(1.5).tobytes(),
        "nil": b"\x00\x00\x00\x00",
        "truncated": good[: len(good) // 2],
        "short storage": good[:-8],
        "other class": good.replace(b"torch.DoubleTensor", b"torch.DoubleTensox"),
        "half": good.replace(b"torch.DoubleTensor", b"torch.HalfTensor\0\0"),
        "nan": examples.t7_bytes(np.full((68, 2), np.nan)),
        "far": examples.t7_bytes(np.full((68, 2), 1e8)),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "empty",
        "text",
        "number",
        "nil",
        "truncated",
        "short storage",
        "other class",
        "half",
        "nan",
        "far",
        "far strides",
    ],
)
def test_broken_t7_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "broken.t7"
    path.write_bytes(broken_t7(kind))
    with pytest.raises(InputError, match=r"broken\.t7") as error:
        read_t7(path)
    assert error.value.hint


def test_missing_t7(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_t7(tmp_path / "absent.t7")


# Videos


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


# Images with .pts files


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
    assert layout.name == "merl-rav"
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
    assert find_layout(tmp_path).name == "merl-rav"
    assert find_layout(tmp_path, "merl-rav").name == "merl-rav"
    plain = find_layout(tmp_path, "pts")
    truth = plain.read({s.name: s for s in plain.samples(tmp_path)}["x/29.jpg"], *SIZE)
    assert (truth.visibility == VISIBLE).all()
    np.testing.assert_array_equal(truth.points[5], np.array([-1, -1] if value else -curve[5], np.float32) - 1)


def test_some_folders_without_occlusion(tmp_path: Path) -> None:
    curve = np.stack([20 + np.arange(68) * 0.75, np.full(68, 40.0)], axis=1)
    for folder in ("one", "two"):
        examples.write_pts(examples.write_image(tmp_path / folder / "a.jpg").with_suffix(".pts"), curve)
        curve[3] = -1
    assert {layout.name for _, layout in discover(tmp_path, set())} == {"pts", "merl-rav"}
    assert find_layout(tmp_path).name == "merl-rav"


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


# Tables


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


# Recognition


def test_the_error_lists_what_is_known_and_what_was_seen(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/2.JPG", "b/1.txt", "c/d/1.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "README").touch()
    with pytest.raises(InputError) as error:
        find_layout(tmp_path)
    text = message_of(error)
    assert "2 .jpg, 2 .txt, 1 without suffix, folders a, b, c" in text
    assert all(f"{layout.name}: {layout.description}" in text for layout in layouts())


@pytest.mark.parametrize("format", [layout.name for layout in layouts() if layout.name != "points"])
def test_a_named_layout_that_does_not_fit(tmp_path: Path, format: str) -> None:
    examples.write_image(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=f"not the layout {format}") as error:
        find_layout(tmp_path, format, tables=True)
    assert "seen: 1 .jpg" in error.value.message


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_layout(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a folder"):
        find_layout(tmp_path / "file")
    with pytest.raises(InputError, match="unknown format 'wflw'") as error:
        find_layout(tmp_path, "wflw")
    assert "300w-lp" in error.value.hint
    with pytest.raises(InputError, match="seen: nothing"):
        find_layout(_made(tmp_path / "empty"), "300w-lp")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_merl_labels_without_photos(tmp_path: Path) -> None:
    examples.write_merl_rav(tmp_path)
    for image in tmp_path.rglob("*.jpg"):
        image.unlink()
    with pytest.raises(InputError, match=r"no faces of MERL-RAV.*seen: 10 \.pts") as error:
        find_layout(tmp_path).samples(tmp_path)
    assert "AFLW" in error.value.hint


def write_everything(root: Path) -> dict[str, str]:
    """One dataset of each kind and what must not be found; returns the layouts by folder."""
    examples.write_300w_lp(root / "300W-LP")
    examples.write_aflw2000(root / "deep" / "er" / "AFLW2000")
    examples.write_ls3d_w(root / "LS3D-W")
    examples.write_300vw(root / "300VW", ("001",))
    examples.write_merl_rav(root / "merl")
    examples.write_pts(
        examples.write_image(root / "mine" / "faces" / "a.jpg").with_suffix(".pts"), examples.make_points()
    )
    examples.write_image(root / "photos" / "a.jpg")
    for hidden in (".cache", "env", "node_modules", "out"):
        examples.write_aflw2000(root / hidden / "AFLW2000")
    (root / "env" / "pyvenv.cfg").touch()
    examples.write_aflw2000(root / "a" / "b" / "c" / "d" / "e")
    (root / "link").symlink_to(root / "merl", target_is_directory=True)
    return {
        "300W-LP": "300w-lp",
        "deep/er/AFLW2000": "aflw2000-3d",
        "LS3D-W": "ls3d-w",
        "300VW": "300vw",
        "merl": "merl-rav",
        "mine/faces": "pts",
    }


def test_discover(tmp_path: Path) -> None:
    expected = write_everything(tmp_path)
    found = discover(tmp_path, {(tmp_path / "out").resolve()})
    assert {path.relative_to(tmp_path).as_posix(): layout.name for path, layout in found} == expected
    deeper = discover(tmp_path, set(), depth=5)
    assert tmp_path / "a" / "b" / "c" / "d" / "e" in [path for path, _ in deeper]
    with pytest.raises(InputError, match="several datasets: 300vw, 300w-lp, aflw2000-3d, ls3d-w, merl-rav, pts"):
        find_layout(tmp_path)


def test_parts_of_ls3d_w_beside_other_datasets(tmp_path: Path) -> None:
    examples.write_ls3d_w(tmp_path / "data")
    examples.write_300w_lp(tmp_path / "data" / "300W_LP")
    found = {path.name: layout.name for path, layout in discover(tmp_path, set())}
    assert found == {
        "300VW-3D": "ls3d-w",
        "300W-Testset-3D": "ls3d-w",
        "AFLW2000-3D-Reannotated": "ls3d-w",
        "Menpo-3D": "ls3d-w",
        "300W_LP": "300w-lp",
    }


def test_folders_that_must_not_be_read(tmp_path: Path) -> None:
    examples.write_aflw2000(tmp_path / "AFLW2000")
    closed = _made(tmp_path / "closed")
    closed.chmod(0)
    try:
        assert [path.name for path, _ in discover(tmp_path, set())] == ["AFLW2000"]
    finally:
        closed.chmod(0o755)


# Images


def test_images_are_stored_as_they_are(tmp_path: Path) -> None:
    """Labels belong to the stored pixels, so a photo that a viewer would turn is not turned."""
    path = examples.write_image(tmp_path / "a.jpg")
    plain = path.read_bytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    path.write_bytes(plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:])
    assert load_image(Sample("a.jpg", path, None, "a")) == (path.read_bytes(), *SIZE)


def test_damaged_images_do_not_stop_the_others(tmp_path: Path) -> None:
    good = examples.write_image(tmp_path / "good.png")
    cut = examples.write_image(tmp_path / "cut.jpg")
    cut.write_bytes(cut.read_bytes()[:-300])
    (tmp_path / "empty.jpg").touch()
    paths = [cut, good, tmp_path / "empty.jpg", tmp_path / "absent.jpg"]
    loaded = list(load_images([Sample(path.name, path, None, path.name) for path in paths]))
    assert loaded[1] == (good.read_bytes(), *SIZE)
    for path, error in zip(paths, loaded, strict=True):
        assert path == good or (isinstance(error, InputError) and path.name in error.message)


# Second labels of AFLW2000-3D


def test_reannotated_points_in_the_order_of_sorted_names(tmp_path: Path) -> None:
    points = np.stack([examples.make_points(seed) for seed in range(3)])
    np.save(tmp_path / "re.npy", points.transpose(0, 2, 1))
    got = read_reannotated(tmp_path / "re.npy", ["image00051.jpg", "image00002.jpg", "image00004.jpg"])
    np.testing.assert_array_equal(got, points[[2, 0, 1]] - 1)
    assert got.dtype == np.float32


def test_reannotated_points_from_ls3d_w(tmp_path: Path) -> None:
    for number in (2, 4, 51):
        examples.write_t7(tmp_path / "sub" / f"image{number:05d}.t7", examples.make_points(number))
    got = read_reannotated(tmp_path, ["image00051.jpg", "image00002.jpg"])
    np.testing.assert_array_equal(got, np.stack([examples.make_points(51), examples.make_points(2)]) - 1)
    with pytest.raises(InputError, match=r"no \.t7 file for 1 of 2 images, such as image00003"):
        read_reannotated(tmp_path, ["image00002.jpg", "image00003.jpg"])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.ones((3, 68, 2)), r"shape \(3, 68, 2\)"),
        (np.ones((2, 2, 68)), "labels of 2 images, but the dataset has 3"),
        (np.full((3, 2, 68), np.nan), "NaN"),
        (np.full((3, 2, 68), "a"), "not an array of numbers"),
        (np.array([None, 1]), "not a readable"),
    ],
)
def test_wrong_reannotated_arrays(tmp_path: Path, values: NDArray[Any], words: str) -> None:
    np.save(tmp_path / "re.npy", values)
    with pytest.raises(InputError, match=words) as error:
        read_reannotated(tmp_path / "re.npy", ["a", "b", "c"])
    assert "re.npy" in error.value.message


def test_yaw_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "yaw.npy", np.array([10.0, -20.0, 75.0]))
    assert read_yaw_labels(tmp_path / "yaw.npy", ["b", "a", "c"]).tolist() == [-20, 10, 75]
    with pytest.raises(InputError, match="labels of 3 images, but the dataset has 2"):
        read_yaw_labels(tmp_path / "yaw.npy", ["a", "b"])
    np.save(tmp_path / "yaw.npy", np.zeros((3, 1)))
    with pytest.raises(InputError, match=r"shape \(3, 1\)"):
        read_yaw_labels(tmp_path / "yaw.npy", ["a", "b", "c"])
    (tmp_path / "yaw.npy").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="not a readable"):
        read_yaw_labels(tmp_path / "yaw.npy", ["a", "b", "c"])
    with pytest.raises(InputError, match="not a readable"):
        read_yaw_labels(tmp_path / "absent.npy", ["a"])


def test_importing_datasets_loads_no_torch() -> None:
    code = "import dhm_cli.datasets.catalogue, sys; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert not {"torch", "scipy", "h5py", "torchfile"} & set(result.stdout.split())


# Real files


@needs_data
def test_real_300w_lp() -> None:
    folder = SHARED_DATA / "300w_lp_format"
    layout = find_layout(folder)
    samples = layout.samples(folder)
    assert layout.name == "300w-lp"
    assert len(samples) == 10
    identities = {s.name: s.identity for s in samples}
    assert identities["AFW_Flip/AFW_134212_1_1.jpg"] == identities["AFW/AFW_134212_1_0.jpg"] == "AFW/AFW_134212_1"
    assert identities["IBUG/IBUG_image_008_1_0.jpg"] == "IBUG/IBUG_image_008_1"
    truth = layout.read(samples[0], 450, 450)  # AFW_1051618982_1_0
    assert truth.parameters is not None
    pose = [1.2934945e-03, -8.7918356e-02, 4.1804076e-03, 2.6581803e-02, 2.2671713e02, 1.8551369e02]
    np.testing.assert_allclose(truth.parameters[:6], pose, rtol=1e-6)


@needs_data
def test_real_flips_are_the_mirrored_faces() -> None:
    """pt2d of a flip is 451 - x on disk, so that with the order put right it is the mirror image exactly."""
    folder = SHARED_DATA / "300w_lp_format"
    layout = find_layout(folder)
    samples = by_name(folder)
    flips = [name for name in samples if layout.flips and layout.flips(name)]
    assert len(flips) == 4
    for name in flips:
        flip = layout.read(samples[name], 450, 450)
        partner = layout.read(samples[name.replace("_Flip", "")], 450, 450)
        mirrored = partner.points[MIRROR] * [-1, 1] + [449, 0]
        assert np.abs(flip.points - mirrored).max() < 1e-3
        # The refitted pose agrees: the yaw and the roll change sign.
        assert flip.parameters is not None
        assert partner.parameters is not None
        np.testing.assert_allclose(flip.parameters[1:4], partner.parameters[1:4] * [1, -1, -1], atol=0.03)


@needs_data
def test_real_aflw2000() -> None:
    folder = SHARED_DATA / "aflw2000_format"
    layout = find_layout(folder)
    samples = layout.samples(folder)
    assert layout.name == "aflw2000-3d"
    assert len(samples) == 16
    for sample in samples:
        _, height, width = load_image(sample)
        truth = layout.read(sample, height, width)
        assert (height, width) == (450, 450)
        assert truth.landmarks is not None
        assert truth.parameters is not None
        assert 60 < face_size(truth.landmarks) < 300


@needs_data
def test_real_flips_fit_their_parameters() -> None:
    """Projected, the parameters of a flip are far nearer to its points in the mirrored order than in that on disk."""
    import torch

    from dhm_cli.morphable.readers.face_model_files import read_face_model

    model = read_face_model(SHARED_DATA / "bfm" / "BFM68.mat")
    folder = SHARED_DATA / "300w_lp_format"
    layout = find_layout(folder)
    for name, sample in by_name(folder).items():
        truth = layout.read(sample, 450, 450)
        projected = model.landmarks(torch.from_numpy(truth.parameters)[None], 450.0)[0, :, :2].numpy()  # type: ignore[arg-type]
        inner = slice(17, 68)
        error = np.linalg.norm(projected - truth.points, axis=1)[inner].mean()
        unswapped = np.linalg.norm(projected - truth.points[MIRROR], axis=1)[inner].mean()
        assert error < 12, name
        assert error < 0.25 * unswapped, name
