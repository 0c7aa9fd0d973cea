"""Checks against real files that cannot be shared; skipped where they are absent."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.io
import torch
from numpy.typing import NDArray
from places import SHARED_DATA
from scipy.spatial.transform import Rotation

from dhm_cli.data.store import FaceStore
from dhm_cli.errors import InputError
from dhm_cli.evaluation.evaluate import EvaluationOptions
from dhm_cli.evaluation.evaluate import evaluate as run_evaluation
from dhm_cli.evaluation.numbers import Scoring
from dhm_cli.geometry.landmarks import MIRROR
from dhm_cli.geometry.pose import estimate_pose, matrix_to_euler
from dhm_cli.io.matlab import read_mat
from dhm_cli.metrics.landmark_error import normalised_mean_error
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.parameters import Parameters, pack
from dhm_cli.morphable.readers.face_model_files import read_face_model
from dhm_cli.morphable.rotation import euler_to_matrix
from dhm_cli.preparation.options import PrepareOptions
from dhm_cli.preparation.prepare import prepare_folder

pytestmark = pytest.mark.skipif(
    not (SHARED_DATA / "bfm" / "BFM68.mat").is_file(), reason="no shared data; name its folder in DHM_SHARED_DATA"
)


def evaluate(*arguments: Any) -> dict[str, Any]:
    """The content of the report's JSON file, NaN in place of null."""
    return run_evaluation(*arguments).to_json()


@pytest.fixture(scope="module")
def bfm() -> FaceModel:
    return read_face_model(SHARED_DATA / "bfm" / "BFM68.mat")


def aflw2000_files() -> list[Path]:
    return sorted((SHARED_DATA / "aflw2000_format").glob("*.mat"))


def parameters_of(file: Path) -> torch.Tensor:
    """p of a .mat file: Pose_Para is pitch, yaw, roll, t_x, t_y, t_z, f."""
    fields = {k: np.asarray(v, np.float64).ravel() for k, v in read_mat(file).items() if k.endswith("_Para")}
    pose = torch.from_numpy(fields["Pose_Para"])[None]
    return pack(
        Parameters(
            scale=pose[:, 6],
            angles=pose[:, :3],
            translation=pose[:, 3:5],
            identity=torch.from_numpy(fields["Shape_Para"])[None],
            expression=torch.from_numpy(fields["Exp_Para"])[None],
        )
    )


def test_sixteen_files_are_there() -> None:
    assert len(aflw2000_files()) == 16


@pytest.mark.parametrize("file", aflw2000_files(), ids=lambda file: file.stem)
def test_parameters_reproduce_the_points_of_the_file(bfm: FaceModel, file: Path) -> None:
    height = cv2.imread(str(file.with_suffix(".jpg"))).shape[0]
    points = bfm.to(torch.float64).landmarks(parameters_of(file), float(height))[0].numpy()
    truth = np.asarray(scipy.io.loadmat(file)["pt3d_68"], np.float64).T
    np.testing.assert_allclose(points[:, :2], truth[:, :2] - 1, atol=1e-3)  # 1-based on disk
    # Depth has another origin.
    np.testing.assert_allclose(points[:, 2] - points[:, 2].mean(), truth[:, 2] - truth[:, 2].mean(), atol=1e-2)


@pytest.mark.parametrize("file", aflw2000_files(), ids=lambda file: file.stem)
def test_poses_of_the_files_return(bfm: FaceModel, file: Path) -> None:
    angles = parameters_of(file)[:, 1:4]
    rotation = euler_to_matrix(angles).numpy()
    np.testing.assert_allclose(rotation, Rotation.from_euler("XYZ", -angles.numpy()).as_matrix(), atol=1e-12)
    wrapped = (angles.numpy() + np.pi) % (2 * np.pi) - np.pi
    np.testing.assert_allclose(matrix_to_euler(rotation), wrapped, atol=1e-6)


@pytest.mark.parametrize("file", aflw2000_files(), ids=lambda file: file.stem)
def test_pose_estimated_from_the_points_of_a_file(bfm: FaceModel, file: Path) -> None:
    """With the face's own shape as reference the pose is exact, which proves the sign of every axis."""
    p = parameters_of(file)
    truth = np.asarray(scipy.io.loadmat(file)["pt3d_68"], np.float64).T
    shape = bfm.to(torch.float64).shape(p[:, 6:205], p[:, 205:])[0].numpy() * [1, -1, 1]
    wrapped = (p[:, 1:4].numpy() + np.pi) % (2 * np.pi) - np.pi
    np.testing.assert_allclose(np.rad2deg(estimate_pose(truth[None], shape)), np.rad2deg(wrapped), atol=0.01)


@pytest.fixture(scope="module")
def merl(bfm: FaceModel, tmp_path_factory: pytest.TempPathFactory) -> FaceStore:
    """64 faces of MERL-RAV, spread over the set, prepared with the teacher's points as prior."""
    root = tmp_path_factory.mktemp("merl")
    images = sorted((SHARED_DATA / "aflw_merl68" / "faces").glob("*.jpg"))
    (root / "faces").mkdir()
    for image in images[:: len(images) // 64][:64]:
        for file in (image, image.with_suffix(".pts")):
            shutil.copyfile(file, root / "faces" / file.name)
    options = PrepareOptions(
        prior=SHARED_DATA / "aflw_merl68" / "teacher68.npz",
        table=SHARED_DATA / "aflw_merl68" / "faces.csv",
        max_residual=100.0,
    )
    report = prepare_folder(root / "faces", bfm, root, options)
    assert report.dropped == []
    return FaceStore(report.store)


def reference_rows(store: FaceStore) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Landmarks and angles of the reference fit for the faces of a store."""
    with np.load(SHARED_DATA / "aflw_merl68" / "reference_fit.npz") as data:
        row = {name: i for i, name in enumerate(data["names"])}
        rows = [row[Path(name).stem] for name in store.labels.names]
        return data["landmarks3d"][rows].astype(np.float32), data["euler_rad"][rows]


def test_merl_faces_are_fitted_closely(merl: FaceStore) -> None:
    assert len(merl) == 64
    assert np.median(merl.labels.residual) < 2.0


def test_merl_fit_agrees_with_the_reference(merl: FaceStore) -> None:
    landmarks, _ = reference_rows(merl)
    assert np.median(normalised_mean_error(merl.labels.landmarks, landmarks)) < 1.5


def test_merl_pose_agrees_with_the_reference(merl: FaceStore) -> None:
    _, euler = reference_rows(merl)
    difference = np.abs(merl.labels.yaw - np.rad2deg(euler[:, 1]))
    assert np.median(difference) < 4
    assert np.corrcoef(merl.labels.yaw, euler[:, 1])[0, 1] > 0.99


@pytest.fixture(scope="module")
def fixtures_300w_lp(bfm: FaceModel, tmp_path_factory: pytest.TempPathFactory) -> FaceStore:
    out = tmp_path_factory.mktemp("lp")
    report = prepare_folder(SHARED_DATA / "300w_lp_format", bfm, out, PrepareOptions())
    assert report.dropped == []
    assert [f.check for f in report.findings if f.severity != "note"] == ["counts"]
    return FaceStore(report.store)


def test_300w_lp_files_convert(fixtures_300w_lp: FaceStore, bfm: FaceModel) -> None:
    labels = fixtures_300w_lp.labels
    assert len(labels) == 10
    assert len(set(labels.identity)) == 4
    heights = torch.from_numpy(labels.image_size[:, 0])
    points = bfm.to(torch.float64).landmarks(torch.from_numpy(labels.parameters).double(), heights.double()).numpy()
    np.testing.assert_allclose(labels.landmarks[..., :2], points[..., :2], atol=1e-3)
    # The files' own 2D points are near: a wrong convention would be tens of percent off. Those of _1 repeat _0.
    own = np.array([name.endswith("_0.jpg") for name in labels.names])
    np.testing.assert_array_equal(np.isnan(labels.points).any(axis=(1, 2)), ~own)
    assert 1 < labels.residual[own].min() < labels.residual[own].max() < 9


def test_300w_lp_flips_are_the_mirrored_landmarks_of_their_partners(fixtures_300w_lp: FaceStore) -> None:
    labels = fixtures_300w_lp.labels
    row = {name: i for i, name in enumerate(labels.names)}
    pairs = [(row[name.replace("_Flip/", "/")], i) for name, i in row.items() if "_Flip/" in name]
    assert len(pairs) == 4
    for plain, flip in pairs:
        width = labels.image_size[plain, 1]
        mirrored = labels.landmarks[plain][MIRROR] * [-1, 1, 1] + [width - 1, 0, 0]
        assert normalised_mean_error(labels.landmarks[flip][None], mirrored[None])[0] < 1.5
        assert labels.yaw[flip] == pytest.approx(-labels.yaw[plain], abs=1.5)


def test_aflw2000_files_convert(bfm: FaceModel, tmp_path: Path) -> None:
    report = prepare_folder(SHARED_DATA / "aflw2000_format", bfm, tmp_path, PrepareOptions())
    assert report.dropped == []
    assert report.figures["projection_px_max"] < 1e-3
    labels = FaceStore(report.store).labels
    for name, landmarks in zip(labels.names, labels.landmarks, strict=True):
        truth = scipy.io.loadmat(SHARED_DATA / "aflw2000_format" / Path(name).with_suffix(".mat"))["pt3d_68"].T
        np.testing.assert_allclose(landmarks[:, :2], truth[:, :2] - 1, atol=1e-3)


def test_parameters_of_another_face_model_are_refused(tmp_path: Path) -> None:
    ict = read_face_model(SHARED_DATA / "ict_face" / "ict_face.npz")
    with pytest.raises(InputError, match="the parameters do not fit"):
        prepare_folder(SHARED_DATA / "300w_lp_format", ict, tmp_path, PrepareOptions())


def test_two_label_sets_of_the_sixteen_faces_disagree_as_worked_out_apart(bfm: FaceModel, tmp_path: Path) -> None:
    """The re-annotated points are not at hand, so a second label set of known differences stands in for them."""
    rng = np.random.default_rng(0)
    again, errors, yaw = [], [], []
    for file in aflw2000_files():
        fields = scipy.io.loadmat(file)
        x, y = fields["pt3d_68"][:2].astype(np.float64)
        size = np.sqrt((x.max() - x.min()) * (y.max() - y.min()))
        yaw.append(np.degrees(fields["Pose_Para"][0, 1]))
        step = rng.normal(0, rng.uniform(0.5, 8.0), (2, 68))
        again.append(np.stack([x, y]) + step)
        errors.append(sum(100 * np.hypot(*step[:, k]) / size for k in range(68)) / 68)
    np.save(tmp_path / "again.npy", np.stack(again))
    groups: dict[str, list[float]] = {"0-30": [], "30-60": [], "60-90": []}
    for angle, error in zip(yaw, errors, strict=True):
        groups["0-30" if abs(angle) <= 30 else "30-60" if abs(angle) <= 60 else "60-90"].append(error)
    means = {name: sum(values) / len(values) for name, values in groups.items()}

    settings = PrepareOptions(reannotated=tmp_path / "again.npy", reannotated_origin=1)
    store = prepare_folder(SHARED_DATA / "aflw2000_format", bfm, tmp_path / "data", settings).store
    names = FaceStore(store).labels.names
    np.savez(tmp_path / "again.npz", names=names, landmarks=np.stack(again).transpose(0, 2, 1) - 1)
    report = evaluate(EvaluationOptions(store, predictions=tmp_path / "again.npz", scoring=Scoring(replicates=100)))
    for name, value in means.items():
        assert report["nme"][name] == pytest.approx(value, abs=1e-4)
        assert report["noise_floor"][name] == pytest.approx(value, abs=1e-4)
    assert report["nme"]["mean_of_bins"] == pytest.approx(sum(means.values()) / 3, abs=1e-4)
    assert report["nme"]["mean_of_images"] == pytest.approx(sum(errors) / 16, abs=1e-4)
    assert report["failure_rate"]["value"] == 100 * sum(error > 6 for error in errors) / 16
    assert report["auc"]["7"] == pytest.approx(100 * sum(max(7 - e, 0) for e in errors) / 7 / 16, abs=1e-3)
    again_as_truth = EvaluationOptions(
        store, predictions=tmp_path / "again.npz", label_set="reannotated", scoring=Scoring(replicates=100)
    )
    assert evaluate(again_as_truth)["nme"]["mean_of_images"] < 1e-4
