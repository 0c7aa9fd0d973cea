"""`dhm prepare` on drawn faces whose truth is known."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from model_files import write_face_model_mat
from places import SAMPLE_DATA
from synthetic_faces import HIDDEN, OCCLUDED, VISIBLE, SyntheticFaces, write_pts

from dhm_cli.data.store import SPLITS, FaceStore
from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import face_size
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.toy import toy_face_model
from dhm_cli.preparation import shards
from dhm_cli.preparation.options import PrepareOptions
from dhm_cli.preparation.prepare import prepare_face_model, prepare_folder

# Four faces between half profile and front, enough for what does not measure accuracy.
FEW = (8, 10, 12, 14)


def copy_few(drawn: SyntheticFaces, folder: Path, pick: tuple[int, ...] = FEW) -> list[str]:
    """Copy some images with their .pts files, flat; returns their names."""
    folder.mkdir(exist_ok=True)
    names = []
    for i in pick:
        source = drawn.folder / drawn.names[i]
        shutil.copy(source, folder)
        shutil.copy(source.with_suffix(".pts"), folder)
        names.append(source.name)
    return sorted(names)


def order(drawn: SyntheticFaces, store: FaceStore) -> list[int]:
    """Rows of the truth in the order of the store."""
    return [drawn.names.index(name) for name in store.labels.names]


def test_every_face_arrives(face_store: Path, drawn_faces: SyntheticFaces) -> None:
    store = FaceStore(face_store)
    assert face_store.name == "drawn faces.h5"
    assert sorted(store.labels.names) == sorted(drawn_faces.names)
    made = sorted(p.name for p in face_store.parent.iterdir())
    assert made == ["drawn faces-worst.png", "drawn faces.h5", "report.json"]


def test_human_labels_are_kept_as_given(face_store: Path, drawn_faces: SyntheticFaces) -> None:
    store = FaceStore(face_store)
    rows = order(drawn_faces, store)
    np.testing.assert_array_equal(store.labels.visibility, drawn_faces.visibility[rows])
    labelled = store.labels.visibility != HIDDEN
    truth = drawn_faces.landmarks[rows][..., :2]
    np.testing.assert_allclose(store.labels.points[labelled], truth[labelled], atol=1e-3)
    assert np.isnan(store.labels.points[~labelled]).all()
    assert {HIDDEN, VISIBLE, OCCLUDED} == set(np.unique(store.labels.visibility))


def test_fitted_landmarks_are_near_the_truth(face_store: Path, drawn_faces: SyntheticFaces) -> None:
    labels = FaceStore(face_store).labels
    truth = drawn_faces.landmarks[order(drawn_faces, FaceStore(face_store))]
    error = np.linalg.norm((labels.landmarks - truth)[..., :2], axis=-1) / face_size(truth)[:, None]
    visible = labels.visibility == VISIBLE
    visible[:, :17] = False  # the far side of the jaw is left to the model
    assert error[visible].mean() < 0.01
    assert (error * visible).sum(1).max() / visible.sum(1).min() < 0.03
    assert error.mean() < 0.03  # hidden ones included
    # Depth is there as well, zero mean, larger z nearer to the viewer.
    np.testing.assert_allclose(labels.landmarks[..., 2].mean(1), 0, atol=1e-3)
    depth = truth[..., 2] - truth[..., 2].mean(1, keepdims=True)
    assert np.corrcoef(labels.landmarks[..., 2].ravel(), depth.ravel())[0, 1] > 0.97


def test_fitted_pose_is_near_the_truth(face_store: Path, drawn_faces: SyntheticFaces) -> None:
    store = FaceStore(face_store)
    error = np.abs(store.labels.yaw - drawn_faces.yaw[order(drawn_faces, store)])
    assert np.median(error) < 3
    assert error.max() < 12
    np.testing.assert_allclose(np.rad2deg(store.labels.parameters[:, 2]), store.labels.yaw, atol=1e-4)


def test_parameters_give_the_landmarks(face_store: Path, toy_model: FaceModel) -> None:
    """p holds for the image in the store, in the convention of the 300W-LP files."""
    import torch

    store = FaceStore(face_store)
    heights = torch.tensor([len(image) for image in store.images(np.arange(len(store)))])
    points = toy_model.landmarks(torch.from_numpy(store.labels.parameters), heights).numpy()
    np.testing.assert_allclose(points[..., :2], store.labels.landmarks[..., :2], atol=5e-3)


def test_images_are_the_very_files(face_store: Path, drawn_faces: SyntheticFaces) -> None:
    import cv2

    store = FaceStore(face_store)
    for row in (0, 7, 23):
        expected = cv2.imdecode(np.fromfile(drawn_faces.folder / store.labels.names[row], np.uint8), cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(store.images(np.array([row]))[0], expected[..., ::-1])


def test_splits_of_the_table(face_store: Path, drawn_faces: SyntheticFaces) -> None:
    labels = FaceStore(face_store).labels
    said = dict(line.split(",")[::2] for line in drawn_faces.table.read_text().splitlines()[1:])
    for name, identity, split in zip(labels.names, labels.identity, labels.split, strict=True):
        assert identity == said[Path(name).stem]
        assert SPLITS[split] == ("val" if int(identity.removeprefix("person ")) % 4 == 1 else "train")
    assert (labels.split == 1).sum() == 6


def test_the_face_model_is_recorded(face_store: Path, toy_model: FaceModel) -> None:
    attributes = FaceStore(face_store).attributes
    assert attributes["face_model"] == toy_model.hash()
    assert attributes["source"] == "drawn faces"


def test_broken_files_are_reported_and_left_out(
    drawn_faces: SyntheticFaces, toy_model: FaceModel, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    good = copy_few(drawn_faces, folder)
    jpg, png = (next(folder.glob(f"*.{kind}")) for kind in ("jpg", "png"))
    pts = jpg.with_suffix(".pts").read_text()
    broken = {
        "cut.jpg": jpg.read_bytes()[: jpg.stat().st_size // 2],
        "cut too.png": png.read_bytes()[: png.stat().st_size // 2],
        "empty.jpg": b"",
        "text.jpg": b"not an image",
    }
    for name, content in broken.items():
        (folder / name).write_bytes(content)
        (folder / name).with_suffix(".pts").write_text(pts)
    for name in ("malformed.jpg", "few lines.jpg", "nothing labelled.jpg", "no points.jpg"):
        shutil.copy(jpg, folder / name)
    (folder / "malformed.pts").write_text(pts.replace("}", ""))
    (folder / "few lines.pts").write_text("n_points: 68\n{\n1 2\n}")
    write_pts(folder / "nothing labelled.pts", np.ones((68, 2)), np.full(68, HIDDEN))

    report = prepare_folder(folder, toy_model, tmp_path / "out", PrepareOptions(split="train"))
    assert sorted(FaceStore(report.store).labels.names) == good
    assert report.faces == len(good)
    reasons = dict(report.dropped)
    assert set(reasons) == {
        "cut.jpg", "cut too.png", "empty.jpg", "text.jpg", "malformed.jpg", "few lines.jpg", "nothing labelled.jpg",
        "no points.jpg",
    }  # fmt: skip
    assert "1 points" in reasons["few lines.jpg"]
    assert "not a .pts file" in reasons["malformed.jpg"]
    assert "fewer than 8 labelled landmarks" in reasons["no points.jpg"]
    assert "fewer than 8 labelled landmarks" in reasons["nothing labelled.jpg"]


def test_absurd_points_do_not_stop_the_others(
    drawn_faces: SyntheticFaces, toy_model: FaceModel, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    good = copy_few(drawn_faces, folder, (10, 12))
    for name, value in (("same place", np.full((68, 2), 40.0)), ("far away", np.full((68, 2), 1e300))):
        shutil.copy(folder / good[0], folder / f"{name}{Path(good[0]).suffix}")
        write_pts(folder / f"{name}.pts", value, np.full(68, VISIBLE))
    report = prepare_folder(folder, toy_model, tmp_path / "out", PrepareOptions(split="train"))
    labels = FaceStore(report.store).labels
    assert set(good) <= set(labels.names)
    assert np.isfinite(labels.landmarks).all()
    assert any("far away" in name for name, _ in report.dropped)


def test_max_residual(drawn_faces: SyntheticFaces, toy_model: FaceModel, tmp_path: Path) -> None:
    folder = tmp_path / "faces"
    good = copy_few(drawn_faces, folder)
    scrambled = Path(good[0])
    index = drawn_faces.names.index(next(n for n in drawn_faces.names if n.endswith(good[0])))
    points = np.random.default_rng(0).permutation(drawn_faces.landmarks[index])
    write_pts((folder / scrambled).with_suffix(".pts"), points, np.full(68, VISIBLE))
    report = prepare_folder(folder, toy_model, tmp_path / "out", PrepareOptions(split="train"))
    assert [name for name, _ in report.dropped] == [good[0]]
    assert "residual" in report.dropped[0][1]
    labels = FaceStore(report.store).labels
    assert sorted(labels.names) == good[1:]
    assert labels.residual.max() <= 4.0
    assert report.residual["p50"] == pytest.approx(np.median(labels.residual), abs=1e-4)
    assert [f.check for f in report.findings if f.check == "residual"] == ["residual"]
    with pytest.raises(InputError, match=r"every fit is worse than 1e-06 %"):
        prepare_folder(folder, toy_model, tmp_path / "out2", PrepareOptions(split="train", max_residual=1e-6))
    assert not list((tmp_path / "out2").glob("*.h5"))
    # Kept with a flag, the face is not trained on.
    flagging = PrepareOptions(split="train", over_residual="flag", name="flagged")
    flagged = prepare_folder(folder, toy_model, tmp_path / "out", flagging)
    labels = FaceStore(flagged.store).labels
    assert flagged.dropped == []
    assert flagged.flagged == 1
    assert labels.names[labels.flagged == 1].tolist() == [good[0]]
    assert labels.names[labels.in_split("train")].tolist() == good[1:]
    # Faces of other splits are kept in any case.
    tested = prepare_folder(folder, toy_model, tmp_path / "out", PrepareOptions(split="test", name="test"))
    assert tested.faces == 4


def test_automatic_split_keeps_a_person_together(
    drawn_faces: SyntheticFaces, toy_model: FaceModel, tmp_path: Path
) -> None:
    folder = tmp_path / "faces"
    names = copy_few(drawn_faces, folder, (9, 10, 11, 12, 13, 14))
    rows = [f"{Path(n).stem},{('one', 'two', 'three')[i % 3]}" for i, n in enumerate(names)]
    (tmp_path / "table.csv").write_text("name,identity\n" + "\n".join(rows))
    report = prepare_folder(folder, toy_model, tmp_path, PrepareOptions(table=tmp_path / "table.csv"))
    labels = FaceStore(report.store).labels
    assert report.by_split == {"train": 4, "val": 2}
    assert len(set(labels.identity[labels.split == SPLITS.index("val")])) == 1


def test_an_unknown_split_is_named(drawn_faces: SyntheticFaces, toy_model: FaceModel, tmp_path: Path) -> None:
    names = copy_few(drawn_faces, tmp_path / "faces", (10,))
    (tmp_path / "table.csv").write_text(f"name,split\n{Path(names[0]).stem},training\n")
    with pytest.raises(InputError, match=r"table\.csv: split 'training'"):
        prepare_folder(tmp_path / "faces", toy_model, tmp_path, PrepareOptions(table=tmp_path / "table.csv"))


def test_points_and_prior_from_tables(drawn_faces: SyntheticFaces, toy_model: FaceModel, tmp_path: Path) -> None:
    folder = tmp_path / "faces"
    pick = (4, 12, 20)
    copy_few(drawn_faces, folder, pick)
    for pts in folder.glob("*.pts"):
        pts.unlink()
    stems = [Path(drawn_faces.names[i]).stem for i in pick]
    truth = drawn_faces.landmarks[list(pick)]
    human = truth[..., :2].copy()
    human[:, ::2] = np.nan
    np.savez(tmp_path / "points.npz", names=np.array(stems), pts68=human)
    np.savez(tmp_path / "prior.npz", names=np.array(stems), pts68=truth[..., :2] + 0.3)
    for options in (
        PrepareOptions(points=tmp_path / "points.npz", split="val"),
        PrepareOptions(prior=tmp_path / "prior.npz", split="val"),
        PrepareOptions(points=tmp_path / "points.npz", prior=tmp_path / "prior.npz", split="val"),
    ):
        labels = FaceStore(prepare_folder(folder, toy_model, tmp_path, options).store).labels
        assert len(labels) == 3
        assert (labels.split == 1).all()
        error = np.linalg.norm((labels.landmarks - truth)[..., :2], axis=-1).mean(1) / face_size(truth)
        assert error.max() < 0.03
        labelled = (labels.visibility == VISIBLE).mean()
        assert labelled == (0.5 if options.points else 0.0)


def test_no_usable_face(drawn_faces: SyntheticFaces, toy_model: FaceModel, tmp_path: Path) -> None:
    names = copy_few(drawn_faces, tmp_path / "faces", (10,))
    write_pts((tmp_path / "faces" / names[0]).with_suffix(".pts"), np.ones((68, 2)), np.full(68, HIDDEN))
    with pytest.raises(InputError, match=rf"no usable face \({names[0]}: .*fewer than 8"):
        prepare_folder(tmp_path / "faces", toy_model, tmp_path / "out", PrepareOptions())
    assert not list((tmp_path / "out").glob("*.h5"))


def test_progress_reaches_the_total(drawn_faces: SyntheticFaces, toy_model: FaceModel, tmp_path: Path) -> None:
    copy_few(drawn_faces, tmp_path / "faces", (10, 12))
    seen: list[tuple[str, int, int]] = []
    report = lambda *state: seen.append(state)  # noqa: E731
    prepare_folder(tmp_path / "faces", toy_model, tmp_path, PrepareOptions(split="train"), report)
    assert seen == [("faces", 0, 2), ("faces", 2, 2)]


def test_the_face_model_is_converted(toy_model: FaceModel, tmp_path: Path) -> None:
    write_face_model_mat(toy_model, tmp_path / "toy.mat")
    model = prepare_face_model(tmp_path / "toy.mat", tmp_path / "data")
    assert FaceModel.load(tmp_path / "data" / "face_model.h5").hash() == model.hash() == toy_model.hash()


def test_a_table_that_names_no_image_is_refused(
    drawn_faces: SyntheticFaces, toy_model: FaceModel, tmp_path: Path
) -> None:
    copy_few(drawn_faces, tmp_path / "faces")
    (tmp_path / "table.csv").write_text("name,split\nsomebody else,val\n")
    with pytest.raises(InputError, match=r"table\.csv: lists none of the images, such as face_"):
        prepare_folder(tmp_path / "faces", toy_model, tmp_path, PrepareOptions(table=tmp_path / "table.csv"))


def test_tables_name_images_by_path_or_by_stem(
    drawn_faces: SyntheticFaces, toy_model: FaceModel, tmp_path: Path
) -> None:
    """Two images of one file name in two folders; a table with a byte order mark, as spreadsheets write it."""
    first, second = (drawn_faces.folder / drawn_faces.names[i] for i in (8, 11))
    assert first.suffix == second.suffix
    for folder, source in (("a", first), ("b", second)):
        (tmp_path / "faces" / folder).mkdir(parents=True)
        shutil.copy(source, tmp_path / "faces" / folder / f"same{source.suffix}")
        shutil.copy(source.with_suffix(".pts"), tmp_path / "faces" / folder / "same.pts")
    table = tmp_path / "table.csv"
    table.write_text(f"name,split,identity\na/same{first.suffix},val,one\nb/same,train,two\n", encoding="utf-8-sig")
    report = prepare_folder(tmp_path / "faces", toy_model, tmp_path, PrepareOptions(table=table))
    labels = FaceStore(report.store).labels
    assert list(labels.identity) == ["one", "two"]
    assert [SPLITS[i] for i in labels.split] == ["val", "train"]


def test_automatic_splits_always_leave_someone_to_validate_on(
    drawn_faces: SyntheticFaces, toy_model: FaceModel, tmp_path: Path
) -> None:
    copy_few(drawn_faces, tmp_path / "faces")
    report = prepare_folder(tmp_path / "faces", toy_model, tmp_path, PrepareOptions())
    assert report.by_split == {"train": 3, "val": 1}


def test_a_store_cannot_take_the_face_models_name(
    drawn_faces: SyntheticFaces, toy_model: FaceModel, tmp_path: Path
) -> None:
    copy_few(drawn_faces, tmp_path / "face_model")
    with pytest.raises(InputError, match="cannot be named face_model"):
        prepare_folder(tmp_path / "face_model", toy_model, tmp_path, PrepareOptions())


def test_the_results_may_lie_in_the_dataset(drawn_faces: SyntheticFaces, toy_model: FaceModel, tmp_path: Path) -> None:
    """As with `dhm prepare .`: the contact sheet of the first run is no face of the second."""
    good = copy_few(drawn_faces, tmp_path / "faces")
    for _ in range(2):
        report = prepare_folder(tmp_path / "faces", toy_model, tmp_path / "faces" / "data", PrepareOptions())
        assert report.dropped == []
        assert sorted(FaceStore(report.store).labels.names) == good


def test_a_disk_that_fills_is_an_error_and_a_later_run_gives_the_same_bytes(
    drawn_faces: SyntheticFaces,
    toy_model: FaceModel,
    small_disk: Path,
    filling_disk: Callable[[Callable[[], object], int], set[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever it happens, in the face model, a part, the picture, the report or the store; HDF5 crashed there."""
    monkeypatch.setattr(shards, "PART", 2)
    copy_few(drawn_faces, tmp_path / "faces")
    write_face_model_mat(toy_model, tmp_path / "BFM.mat")

    def prepare(out: Path) -> None:
        model = prepare_face_model(tmp_path / "BFM.mat", out)
        prepare_folder(tmp_path / "faces", model, out, PrepareOptions(), workers=1)

    prepare(tmp_path / "whole")
    full = filling_disk(lambda: prepare(small_disk / "out"), 60_000)
    assert {"face_model.h5", "faces.h5"} <= full
    for name in ("face_model.h5", "faces.h5", "faces-worst.png"):
        assert (small_disk / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not list((small_disk / "out").glob(".*"))


def test_points_without_a_position_may_mean_self_occluded(tmp_path: Path) -> None:
    """As in MERL-RAV: the mark is kept for networks to learn, and the fit is the same."""
    stores = []
    for self_occlusion in (False, True):
        options = PrepareOptions(table=SAMPLE_DATA / "faces.csv", self_occlusion=self_occlusion)
        report = prepare_folder(SAMPLE_DATA / "faces", toy_face_model(), tmp_path / str(self_occlusion), options)
        stores.append(FaceStore(report.store))
        assert not [finding for finding in report.findings if finding.severity == "error"]
    plain, marked = (store.labels for store in stores)
    assert (plain.visibility == 0).any()
    np.testing.assert_array_equal(marked.visibility, np.where(plain.visibility == 0, 3, plain.visibility))
    np.testing.assert_array_equal(marked.landmarks, plain.landmarks)
    assert "--self-occlusion" in str(stores[1].attributes["command"])
    assert "--self-occlusion" not in str(stores[0].attributes["command"])
