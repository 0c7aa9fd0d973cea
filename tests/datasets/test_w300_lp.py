"""300W-LP and AFLW2000-3D: their folders, and every number of their .mat files."""

from pathlib import Path
from typing import Any

import dataset_examples as examples
import numpy as np
import pytest
from dataset_examples import SIZE, by_name, load_image
from numpy.typing import NDArray
from places import SHARED_DATA

from dhm_cli.datasets.catalogue import layouts
from dhm_cli.datasets.discovery import find_layout
from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import MIRROR, face_size
from dhm_cli.io.pts import VISIBLE

needs_data = pytest.mark.skipif(
    not (SHARED_DATA / "300w_lp_format").is_dir(), reason="no shared data; name its folder in DHM_SHARED_DATA"
)


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
