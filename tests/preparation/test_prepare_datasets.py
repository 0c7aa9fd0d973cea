"""`dhm prepare` on small copies of the known datasets, good and faulty."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from dataset_examples import write_t7, write_video
from numpy.typing import NDArray
from synthetic_faces import SIDE, SyntheticFaces, draw_300w_lp, draw_aflw2000

from dhm_cli.data.store import SPLITS, FaceStore
from dhm_cli.datasets.w300_lp import W300_LP
from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import MIRROR, face_size
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.preparation import acceptance, store_names
from dhm_cli.preparation import shards as parts
from dhm_cli.preparation.inspection import check_store
from dhm_cli.preparation.options import PrepareOptions
from dhm_cli.preparation.prepare import prepare_folder
from dhm_cli.preparation.report import PrepareReport
from dhm_cli.preparation.store_names import name_stores


@pytest.fixture(scope="module")
def lp(tmp_path_factory: pytest.TempPathFactory, toy_model: FaceModel) -> tuple[Path, dict[str, NDArray[np.float32]]]:
    """A small 300W-LP, not to be changed."""
    root = tmp_path_factory.mktemp("lp") / "300W_LP"
    return root, draw_300w_lp(root, toy_model)


@pytest.fixture
def lp_copy(lp: tuple[Path, dict[str, NDArray[np.float32]]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(lp[0], tmp_path / "copy"))


@pytest.fixture
def aflw(tmp_path: Path, toy_model: FaceModel) -> tuple[Path, NDArray[np.float32]]:
    return tmp_path / "AFLW2000", draw_aflw2000(tmp_path / "AFLW2000", toy_model)


def checks(report: PrepareReport) -> dict[str, str]:
    return {finding.check: finding.severity for finding in report.findings}


def test_300w_lp(lp: tuple[Path, dict[str, NDArray[np.float32]]], toy_model: FaceModel, tmp_path: Path) -> None:
    root, truth = lp
    report = prepare_folder(root, toy_model, tmp_path, PrepareOptions())
    assert report.store == tmp_path / "300w-lp.h5"
    labels = FaceStore(report.store).labels
    assert labels.names.tolist() == sorted(truth)
    for name, landmarks, size in zip(labels.names, labels.landmarks, labels.image_size, strict=True):
        np.testing.assert_allclose(landmarks[:, :2], truth[name][:, :2], atol=1e-3)
        depth = truth[name][:, 2] - truth[name][:, 2].mean()
        np.testing.assert_allclose(landmarks[:, 2], depth, atol=1e-3)
        assert size.tolist() == [SIDE, SIDE]
    assert checks(report) == {"counts": "warning"}
    assert "AFW 6 of 5,207" in report.findings[0].message


def test_flips_of_300w_lp_are_the_mirrored_faces(
    lp: tuple[Path, dict[str, NDArray[np.float32]]], toy_model: FaceModel, tmp_path: Path
) -> None:
    labels = FaceStore(prepare_folder(lp[0], toy_model, tmp_path, PrepareOptions()).store).labels
    row = {name: i for i, name in enumerate(labels.names)}
    pairs = [(i, row[name.replace("/", "_Flip/", 1)]) for name, i in row.items() if "_Flip" not in name]
    assert len(pairs) == 12
    for plain, flip in pairs:
        mirrored = labels.landmarks[plain][MIRROR] * [-1, 1, 1] + [SIDE - 1, 0, 0]
        np.testing.assert_allclose(labels.landmarks[flip], mirrored, atol=1e-2)
        points = labels.points[plain][MIRROR] * [-1, 1] + [SIDE - 1, 0]
        np.testing.assert_allclose(labels.points[flip], points, atol=2.1)  # the human's offset is not mirrored


def test_the_split_goes_by_source_face(
    lp: tuple[Path, dict[str, NDArray[np.float32]]], toy_model: FaceModel, tmp_path: Path
) -> None:
    labels = FaceStore(prepare_folder(lp[0], toy_model, tmp_path, PrepareOptions()).store).labels
    for identity in set(labels.identity):
        rows = labels.identity == identity
        assert rows.sum() == 6
        assert len(set(labels.split[rows])) == 1
    assert (labels.split == SPLITS.index("val")).sum() == 6
    other = prepare_folder(lp[0], toy_model, tmp_path, PrepareOptions(seed=3, name="other"))
    assert FaceStore(other.store).attributes["seed"] == 3
    assert FaceStore(other.store).labels.split.tolist() != labels.split.tolist()


def test_a_complete_300w_lp_has_no_finding(
    lp: tuple[Path, dict[str, NDArray[np.float32]]],
    toy_model: FaceModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layout = replace(W300_LP, published={"AFW": 6, "HELEN": 6, "AFW_Flip": 6, "HELEN_Flip": 6})
    monkeypatch.setattr(store_names, "find_layout", lambda *_, **__: layout)
    assert prepare_folder(lp[0], toy_model, tmp_path, PrepareOptions(strict=True)).findings == []


def test_a_copy_with_one_set_of_landmarks_for_all_views_is_refused(
    lp_copy: Path, toy_model: FaceModel, tmp_path: Path
) -> None:
    for mat in lp_copy.rglob("*_[12].mat"):
        shutil.copy(mat.with_name(mat.stem[:-1] + "0.mat"), mat)
    with pytest.raises(InputError, match=r"16 of 24 images carry the landmarks of another view") as caught:
        prepare_folder(lp_copy, toy_model, tmp_path, PrepareOptions())
    assert "faulty copy" in caught.value.hint
    assert not (tmp_path / "300w-lp.h5").exists()


def test_a_few_repeated_landmarks_are_left_out(
    lp_copy: Path, toy_model: FaceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptance, "_FAULTY_SHARE", 0.1)
    shutil.copy(lp_copy / "AFW" / "AFW_0_1_0.mat", lp_copy / "AFW" / "AFW_0_1_1.mat")
    report = prepare_folder(lp_copy, toy_model, tmp_path, PrepareOptions())
    assert report.dropped == [("AFW/AFW_0_1_1.jpg", "has the landmarks of another view of its face")]
    assert len(FaceStore(report.store)) == 23


def test_absurd_parameters_do_not_reach_the_store(lp_copy: Path, toy_model: FaceModel, tmp_path: Path) -> None:
    """Finite in the file, but their landmarks are not."""
    pose = scipy.io.loadmat(lp_copy / "AFW" / "AFW_0_1_0.mat")["Pose_Para"]
    for view, scale in enumerate((1e38, 1e3)):
        pose[0, 6] = scale
        spoil(lp_copy / "AFW" / f"AFW_0_1_{view}.mat", Pose_Para=pose)
    spoil(lp_copy / "AFW" / "AFW_0_1_2.mat", Shape_Para=np.full((199, 1), 1e300))
    report = prepare_folder(lp_copy, toy_model, tmp_path, PrepareOptions())
    reasons = {Path(name).name: reason for name, reason in report.dropped}
    assert set(reasons) == {f"AFW_0_1_{view}.jpg" for view in range(3)}
    assert "no pixel positions" in reasons["AFW_0_1_0.jpg"]
    assert "no pixel positions" in reasons["AFW_0_1_1.jpg"]
    assert "NaN or infinite numbers in its Shape_Para" in reasons["AFW_0_1_2.jpg"]
    assert np.abs(FaceStore(report.store).labels.landmarks).max() < 1000


def test_another_face_model_is_refused(lp_copy: Path, toy_model: FaceModel, tmp_path: Path) -> None:
    other = replace(toy_model, mean=toy_model.mean * 2, name="another.mat")
    with pytest.raises(InputError, match=r"the parameters do not fit another\.mat") as caught:
        prepare_folder(lp_copy, other, tmp_path, PrepareOptions())
    assert "3DDFA" in caught.value.hint


def spoil(mat: Path, **changes: object) -> None:
    """Change or (with None) remove fields of a .mat file."""
    fields = {k: v for k, v in scipy.io.loadmat(mat).items() if not k.startswith("__")} | changes
    scipy.io.savemat(mat, {k: v for k, v in fields.items() if v is not None})


def test_broken_faces_are_named_and_left_out(lp_copy: Path, toy_model: FaceModel, tmp_path: Path) -> None:
    afw = lp_copy / "AFW"
    spoil(afw / "AFW_0_1_0.mat", Pose_Para=np.full((1, 7), np.nan))
    spoil(afw / "AFW_0_1_1.mat", Shape_Para=None)
    spoil(afw / "AFW_0_1_2.mat", Exp_Para=np.zeros((10, 1)))
    (afw / "AFW_2_1_0.mat").write_bytes((afw / "AFW_2_1_0.mat").read_bytes()[:300])
    (afw / "AFW_2_1_1.mat").unlink()
    jpg = afw / "AFW_2_1_2.jpg"
    jpg.write_bytes(jpg.read_bytes()[:2000])
    report = prepare_folder(lp_copy, toy_model, tmp_path, PrepareOptions())
    reasons = {Path(name).name: reason for name, reason in report.dropped}
    assert set(reasons) == {f"AFW_{face}_1_{view}.jpg" for face in (0, 2) for view in range(3)}
    assert "NaN" in reasons["AFW_0_1_0.jpg"]
    assert "Shape_Para" in reasons["AFW_0_1_1.jpg"]
    assert "Exp_Para" in reasons["AFW_0_1_2.jpg"]
    assert "MATLAB" in reasons["AFW_2_1_0.jpg"]
    assert "no annotation" in reasons["AFW_2_1_1.jpg"]
    assert "truncated" in reasons["AFW_2_1_2.jpg"]
    assert len(FaceStore(report.store)) == 18
    assert all(reason.endswith(")") for reason in reasons.values())  # the next step
    assert checks(report)["unusable"] == "warning"
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["datasets"]["300w-lp"]
    assert len(written["dropped"]) == 6
    assert written["faces"] == 18


def test_aflw2000(aflw: tuple[Path, NDArray[np.float32]], toy_model: FaceModel, tmp_path: Path) -> None:
    root, truth = aflw
    report = prepare_folder(root, toy_model, tmp_path, PrepareOptions())
    assert report.store.name == "aflw2000-3d.h5"
    assert report.by_split == {"test": 4}
    labels = FaceStore(report.store).labels
    np.testing.assert_allclose(labels.landmarks[..., :2], truth[..., :2], atol=1e-4)
    assert report.figures["projection_px_max"] < 1e-3
    np.testing.assert_allclose(labels.yaw, [-75, -20, 3, 40], atol=1e-3)
    assert labels.reannotated is None
    assert labels.labelled_yaw is None


def test_second_labels_of_aflw2000(
    aflw: tuple[Path, NDArray[np.float32]], toy_model: FaceModel, tmp_path: Path
) -> None:
    root, truth = aflw
    again = truth[..., :2] + np.arange(4, dtype=np.float32)[:, None, None]
    np.save(tmp_path / "again.npy", np.moveaxis(again + 1, 1, 2))  # 1-based
    np.save(tmp_path / "yaw.npy", np.array([-70.0, -25.0, 0.0, 35.0]))
    second = tmp_path / "again.npy"
    options = PrepareOptions(reannotated=second, reannotated_origin=1, yaw_labels=tmp_path / "yaw.npy")
    # A face that cannot be used must not shift the labels of those after it.
    (root / "image00010.jpg").write_bytes(b"")
    store = FaceStore(prepare_folder(root, toy_model, tmp_path, options).store)
    assert store.attributes["reannotated_origin"] == 1
    labels = store.labels
    assert labels.reannotated is not None
    assert labels.labelled_yaw is not None
    np.testing.assert_allclose(labels.reannotated, again[[0, 2, 3]], atol=1e-4)
    assert labels.labelled_yaw.tolist() == [-70.0, 0.0, 35.0]
    np.save(tmp_path / "again.npy", np.zeros((3, 2, 68)))
    with pytest.raises(InputError, match=r"again\.npy: labels of 3 images, but the dataset has 4"):
        prepare_folder(root, toy_model, tmp_path, options)


def test_strict_refuses_and_says_why(
    aflw: tuple[Path, NDArray[np.float32]], toy_model: FaceModel, tmp_path: Path
) -> None:
    root, _ = aflw
    fields = scipy.io.loadmat(root / "image00020.mat")
    spoil(root / "image00020.mat", pt3d_68=fields["pt3d_68"] + 3)
    report = prepare_folder(root, toy_model, tmp_path / "a", PrepareOptions())
    assert checks(report) == {"projection": "error", "counts": "warning"}
    assert report.findings[0].names == ("image00020.jpg",)
    with pytest.raises(InputError, match=r"1 face whose landmarks are not the projection of p \(up to 3") as caught:
        prepare_folder(root, toy_model, tmp_path / "b", PrepareOptions(strict=True))
    assert "report.json" in caught.value.hint
    assert not (tmp_path / "b" / "aflw2000-3d.h5").exists()
    written = json.loads((tmp_path / "b" / "report.json").read_text(encoding="utf-8"))
    assert written["datasets"]["aflw2000-3d"]["written"] is False
    # Without --strict the work that was done is not done again, and the result is the same.
    prepare_folder(root, toy_model, tmp_path / "b", PrepareOptions())
    names = ("a/aflw2000-3d.h5", "b/aflw2000-3d.h5")
    first, second = ((tmp_path / name).read_bytes() for name in names)
    assert first == second


def test_a_yaw_beyond_a_turn_is_kept_and_noted(tmp_path: Path, toy_model: FaceModel) -> None:
    draw_aflw2000(tmp_path / "set", toy_model, (10.0, -351.2))
    report = prepare_folder(tmp_path / "set", toy_model, tmp_path, PrepareOptions())
    assert FaceStore(report.store).labels.yaw[1] == pytest.approx(-351.2, abs=1e-3)
    assert checks(report)["yaw-wrap"] == "note"
    assert report.by_yaw == {"0-30": 1, "30-60": 0, "60-90": 1}  # as the benchmark counts it


def write_ls3d(root: Path, landmarks: NDArray[np.float32]) -> None:
    for i, points in enumerate(landmarks):
        image = root / f"face {i}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(cv2.imencode(".png", np.full((SIDE, SIDE, 3), 90, np.uint8))[1].tobytes())
        write_t7(image.with_suffix(".t7"), (points[:, :2] + 1).astype(np.float32))


def test_ls3d_w_is_fitted_with_every_jaw_point(
    aflw: tuple[Path, NDArray[np.float32]], toy_model: FaceModel, tmp_path: Path
) -> None:
    """Its points are projections of 3D ones, so the far side of the jaw is no silhouette."""
    _, truth = aflw
    write_ls3d(tmp_path / "LS3D-W", truth)
    report = prepare_folder(tmp_path / "LS3D-W", toy_model, tmp_path, PrepareOptions(split="train"))
    labels = FaceStore(report.store).labels
    np.testing.assert_allclose(labels.points, truth[..., :2], atol=1e-3)
    error = np.linalg.norm((labels.landmarks - truth)[..., :2], axis=-1) / face_size(truth)[:, None]
    assert error[:, :17].mean() < 0.02
    assert error.mean() < 0.015
    assert np.abs(labels.yaw - [-75, -20, 3, 40]).max() < 12


def test_frames_of_a_video(tmp_path: Path, toy_model: FaceModel) -> None:
    folder = tmp_path / "300VW-3D" / "001"
    levels = write_video(folder / "vid.avi")
    points = toy_model.mean[:, :2].numpy() * [3e-4, -3e-4] + [60, 45]
    for number in (2, 3, 12, 40):
        write_t7(folder / "annot" / f"{number:06d}.t7", (points + 1).astype(np.float32))
    report = prepare_folder(tmp_path / "300VW-3D", toy_model, tmp_path, PrepareOptions(split="val", max_residual=50))
    store = FaceStore(report.store)
    assert [name.rpartition("#")[2] for name in store.labels.names] == ["000002", "000003", "000012"]
    assert set(store.labels.source) == {"001/vid.avi"}
    for image, number in zip(store.images(np.arange(3)), (2, 3, 12), strict=True):
        assert abs(image[..., 2].mean() - float(levels[number - 1])) < 4
    ((name, reason),) = report.dropped
    assert name.endswith("#000040")
    assert "ends after 12 frames" in reason


def copy_as_splits(drawn: SyntheticFaces, folder: Path, train: int, test: int) -> None:
    """The first drawn faces in folders testset and trainset."""
    for i, name in enumerate(drawn.names[: train + test]):
        for suffix in (Path(name).suffix, ".pts"):
            target = folder / ("testset" if i < test else "trainset") / f"{i}{suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy((drawn.folder / name).with_suffix(suffix), target)


def test_a_dataset_without_validation_faces_gets_some(
    drawn_faces: SyntheticFaces, toy_model: FaceModel, tmp_path: Path
) -> None:
    copy_as_splits(drawn_faces, tmp_path / "set", train=8, test=4)
    report = prepare_folder(tmp_path / "set", toy_model, tmp_path, PrepareOptions())
    assert report.by_split == {"train": 7, "val": 1, "test": 4}
    (tmp_path / "set" / "testset").rename(tmp_path / "set" / "val")
    report = prepare_folder(tmp_path / "set", toy_model, tmp_path, PrepareOptions())
    assert report.by_split == {"train": 8, "val": 4}


def test_names_of_stores(tmp_path: Path, toy_model: FaceModel, lp_copy: Path) -> None:
    shutil.copytree(lp_copy / "AFW", tmp_path / "b" / "AFW")
    folders = [lp_copy, tmp_path / "b", tmp_path / "absent"]
    jobs, failed = name_stores(folders, tmp_path, PrepareOptions())
    assert jobs == [(lp_copy, PrepareOptions())]
    assert "would write one store" in failed[0].message
    assert "absent: no such folder" in failed[1].message
    jobs, _ = name_stores(folders, tmp_path, PrepareOptions(), rename=True)
    assert [options.name for _, options in jobs] == [None, "300w-lp-2"]
    for name in ("..", "a/b", ".hidden"):
        _, (error,) = name_stores([lp_copy], tmp_path, PrepareOptions(name=name))
        assert "cannot be named" in error.message
    with pytest.raises(InputError, match="--name needs exactly one folder"):
        name_stores(folders, tmp_path, PrepareOptions(name="x"))


def test_an_unknown_folder(tmp_path: Path, toy_model: FaceModel) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "a.jpg").write_bytes(b"")
    (tmp_path / "odd" / "a.txt").write_text("1 2 3")
    with pytest.raises(InputError, match=r"1 \.jpg, 1 \.txt") as caught:
        prepare_folder(tmp_path / "odd", toy_model, tmp_path, PrepareOptions())
    assert "300w-lp" in caught.value.hint


def test_a_changed_image_is_read_again(lp_copy: Path, toy_model: FaceModel, tmp_path: Path) -> None:
    """Parts that were left by a stopped run are used only while their files are the same."""
    (lp_copy / "AFW" / "AFW_0_1_0.jpg").write_bytes(b"")
    with pytest.raises(InputError):  # strict: the parts stay
        prepare_folder(lp_copy, toy_model, tmp_path, PrepareOptions(strict=True))
    source = lp_copy / "AFW" / "AFW_0_1_1.jpg"
    shutil.copy(source, lp_copy / "AFW" / "AFW_0_1_0.jpg")
    report = prepare_folder(lp_copy, toy_model, tmp_path, PrepareOptions())
    assert report.dropped == []
    assert len(FaceStore(report.store)) == 24


def test_the_command_line_is_the_same_on_every_machine(tmp_path: Path, toy_model: FaceModel) -> None:
    options = PrepareOptions(table=tmp_path / "my table.csv", max_residual=3.0, strict=True)
    command = options.command(tmp_path / "a folder", toy_model)
    assert command == "dhm prepare 'a folder' --bfm toy --table 'my table.csv' --max-residual 3.0"


def test_the_number_of_workers_does_not_matter(
    drawn_faces: SyntheticFaces, toy_model: FaceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART", 5)
    stores = [
        prepare_folder(drawn_faces.folder, toy_model, tmp_path / str(n), PrepareOptions(), workers=n).store
        for n in (1, 3)
    ]
    first, second = (store.read_bytes() for store in stores)
    assert first == second


def test_parts_of_other_tables_are_not_used(drawn_faces: SyntheticFaces, toy_model: FaceModel, tmp_path: Path) -> None:
    """One file as human points, then as a prior: a stopped run with the one must not serve the other."""
    names = [Path(name).stem for name in drawn_faces.names]
    np.savez(tmp_path / "table.npz", names=np.array(names), points=drawn_faces.landmarks[..., :2])
    folder = tmp_path / "images"
    folder.mkdir()
    for name in drawn_faces.names:
        shutil.copy(drawn_faces.folder / name, folder)
    points, prior = (PrepareOptions(**{option: tmp_path / "table.npz"}) for option in ("points", "prior"))
    (folder / "broken.jpg").write_bytes(b"")
    with pytest.raises(InputError):  # strict leaves its parts behind
        prepare_folder(folder, toy_model, tmp_path, replace(points, strict=True))
    labels = FaceStore(prepare_folder(folder, toy_model, tmp_path, prior).store).labels
    assert (labels.visibility == 0).all()


def test_the_option_does_not_overrule_the_datasets_own_split(
    drawn_faces: SyntheticFaces, toy_model: FaceModel, tmp_path: Path
) -> None:
    copy_as_splits(drawn_faces, tmp_path / "set", train=6, test=3)
    for split, expected in (("test", {"train": 5, "val": 1, "test": 3}), ("train", {"train": 6, "test": 3})):
        assert prepare_folder(tmp_path / "set", toy_model, tmp_path, PrepareOptions(split=split)).by_split == expected


def test_points_of_the_photo_are_not_those_of_its_turned_views(
    lp_copy: Path, toy_model: FaceModel, tmp_path: Path
) -> None:
    """In 300W-LP as published pt2d repeats in all views of a face; its parameters are each view's own."""
    for mat in lp_copy.rglob("*_[12].mat"):
        first = scipy.io.loadmat(mat.with_name(mat.stem[:-1] + "0.mat"))
        spoil(mat, pt2d=first["pt2d"])
    report = prepare_folder(lp_copy, toy_model, tmp_path, PrepareOptions())
    assert report.dropped == []
    assert checks(report) == {"counts": "warning", "repeated-points": "note"}
    store = FaceStore(report.store)
    for name, visibility, points, residual in zip(
        store.labels.names, store.labels.visibility, store.labels.points, store.labels.residual, strict=True
    ):
        labelled = name.endswith("_0.jpg")
        assert (visibility == labelled).all()
        assert np.isnan(points).all() != labelled
        assert (residual > 0) == labelled
    assert [f for f in check_store(report.store)[1] if f.severity == "error"] == []


def test_tables_that_list_nobody_or_somebody_twice(
    aflw: tuple[Path, NDArray[np.float32]], toy_model: FaceModel, tmp_path: Path
) -> None:
    root, truth = aflw
    for names, message in (
        (["x", "y", "z", "w"], "lists none of the images"),
        (["image00000"] * 4, "'image00000' more than once"),
    ):
        np.savez(tmp_path / "table.npz", names=np.array(names), points=truth[..., :2])
        with pytest.raises(InputError, match=message):
            prepare_folder(root, toy_model, tmp_path, PrepareOptions(prior=tmp_path / "table.npz"))
    (tmp_path / "t.csv").write_text("name,split\nimage00000,val\nimage00000,train\n")
    with pytest.raises(InputError, match="more than once"):
        prepare_folder(root, toy_model, tmp_path, PrepareOptions(table=tmp_path / "t.csv"))


def test_profiles_in_large_photos_agree_with_their_parameters(toy_model: FaceModel, tmp_path: Path) -> None:
    """Near 90 degrees angles of a float32 rotation are off by a share that is pixels in a large photo."""
    truth = draw_aflw2000(tmp_path / "small", toy_model, tuple(np.linspace(87, 93, 13)))
    folder = tmp_path / "large"
    folder.mkdir()
    blank = cv2.imencode(".png", np.zeros((SIDE * 15, SIDE * 15), np.uint8))[1]
    for i, points in enumerate(truth * 15):
        (folder / f"{i}.png").write_bytes(blank.tobytes())
        write_t7(folder / f"{i}.t7", (points[:, :2] + 1).astype(np.float32))
    report = prepare_folder(folder, toy_model, tmp_path, PrepareOptions(split="train", max_residual=100))
    assert "projection" not in checks(report)
    labels = FaceStore(report.store).labels
    assert (np.abs(labels.yaw) > 80).all()
    projected = toy_model.project(labels.parameters, labels.image_size[:, 0])
    np.testing.assert_allclose(labels.landmarks[..., :2], projected[..., :2], atol=1e-3)


def test_points_with_depth(aflw: tuple[Path, NDArray[np.float32]], toy_model: FaceModel, tmp_path: Path) -> None:
    """3D points leave no doubt about the depth of the toy model's faces."""
    root, truth = aflw
    for mat in root.glob("*.mat"):
        mat.unlink()
    names = np.array([path.stem for path in sorted(root.glob("*.jpg"))])
    np.savez(tmp_path / "solid.npz", names=names, points=truth + np.float32([0, 0, 77]))
    options = PrepareOptions(points=tmp_path / "solid.npz", split="train")
    labels = FaceStore(prepare_folder(root, toy_model, tmp_path, options).store).labels
    depth = truth[..., 2] - truth[..., 2].mean(1, keepdims=True)
    np.testing.assert_allclose(labels.landmarks[..., :2], truth[..., :2], atol=0.5)
    np.testing.assert_allclose(labels.landmarks[..., 2], depth, atol=1.0)
    np.testing.assert_allclose(labels.yaw, [-75, -20, 3, 40], atol=0.5)


def test_the_report_says_what_is_in_the_store(lp_copy: Path, toy_model: FaceModel, tmp_path: Path) -> None:
    report = prepare_folder(lp_copy, toy_model, tmp_path, PrepareOptions())
    labels = FaceStore(report.store).labels
    (written,) = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["datasets"].values()
    assert written["by_split"] == {"train": 18, "val": 6}
    assert written["residual"]["p50"] == pytest.approx(np.median(labels.residual), abs=1e-3)
    assert written["residual"]["p100"] == pytest.approx(labels.residual.max(), abs=1e-3)
    assert [f["check"] for f in written["findings"]] == ["counts"]
    assert written["figures"]["images_per_second"] == pytest.approx(24 / written["figures"]["seconds"])
    assert written["face_model"] == {"name": "toy", "hash": toy_model.hash()}
    # A second dataset joins the first.
    draw_aflw2000(tmp_path / "set", toy_model)
    prepare_folder(tmp_path / "set", toy_model, tmp_path, PrepareOptions())
    datasets = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["datasets"]
    assert set(datasets) == {"300w-lp", "aflw2000-3d"}
