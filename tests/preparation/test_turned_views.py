"""The store of profiled views: what is turned, what the labels say, and that a stopped run goes on."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dhm_cli.data.store import SPLITS, FaceStore, write_store
from dhm_cli.errors import InputError
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.preparation import shards as parts
from dhm_cli.preparation import turned_views
from dhm_cli.preparation.inspection import check_store
from dhm_cli.preparation.report import PrepareReport
from dhm_cli.preparation.turned_views import STEEPEST_PHOTO, load_surface, profile_store
from dhm_cli.preparation.view_synthesis import upright_yaw


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART", 4)


@pytest.fixture
def store(face_store: Path, toy_model: FaceModel, tmp_path: Path) -> Path:
    """The drawn faces, with the face model beside them."""
    toy_model.save(tmp_path / "face_model.h5")
    path = tmp_path / "faces.h5"
    path.write_bytes(face_store.read_bytes())
    return path


@pytest.fixture(scope="module")
def whole(
    face_store: Path, toy_model: FaceModel, dense_model: FaceModel, tmp_path_factory: pytest.TempPathFactory
) -> PrepareReport:
    """One view of every face of a copy of that store, made in one go; not to be changed."""
    copy = tmp_path_factory.mktemp("whole") / "faces.h5"
    copy.write_bytes(face_store.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "PART", 4)
        return profile_store(copy, toy_model, dense_model, 1)


def test_views_of_the_training_faces(store: Path, toy_model: FaceModel, dense_model: FaceModel) -> None:
    report = profile_store(store, toy_model, dense_model, 2)
    source, views = FaceStore(store), FaceStore(report.store)
    assert report.store.name == "faces-profile.h5"
    train = source.labels.in_split("train")
    flat = train[np.abs(upright_yaw(source.labels.parameters[train])) <= STEEPEST_PHOTO]
    assert 0 < len(flat) < len(train)
    assert set(views.labels.source) == set(source.labels.names[flat])
    assert len(views) == 2 * len(flat)
    assert report.by_split == {"train": len(views)}
    row = {name: i for i, name in enumerate(source.labels.names)}
    for i, name in enumerate(views.labels.source):
        assert views.labels.identity[i] == source.labels.identity[row[name]]
        # The same face, seen from further aside.
        np.testing.assert_array_equal(views.labels.parameters[i, 6:], source.labels.parameters[row[name], 6:])
        before = abs(upright_yaw(source.labels.parameters[row[name]][None])[0])
        assert abs(views.labels.yaw[i]) > before + 9.9
    assert np.abs(views.labels.yaw).max() <= 90.01


def test_labels_of_the_views_are_exact(whole: PrepareReport, toy_model: FaceModel) -> None:
    toy_model.save(whole.store.with_name("face_model.h5"))
    _, findings = check_store(whole.store)  # every image decodes, and p gives the landmarks
    assert [f for f in findings if f.severity != "note"] == []
    views = FaceStore(whole.store)
    points = toy_model.landmarks(torch.from_numpy(views.labels.parameters), 160).numpy()
    np.testing.assert_allclose(points[..., :2], views.labels.landmarks[..., :2], atol=1e-2)
    hidden = views.labels.visibility == 0
    assert 0.02 < hidden.mean() < 0.5
    assert np.isnan(views.labels.points[hidden]).all()
    np.testing.assert_array_equal(views.labels.points[~hidden], views.labels.landmarks[~hidden][:, :2])
    assert {image.shape for image in views.images(np.arange(len(views)))} == {(160, 160, 3)}
    assert cv2.imread(str(whole.pictures[0])) is not None


def test_a_stopped_run_goes_on(store: Path, whole: PrepareReport, toy_model: FaceModel, dense_model: FaceModel) -> None:
    views = store.with_name("faces-profile.h5")

    def stop(stage: str, done: int, total: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        profile_store(store, toy_model, dense_model, 1, stop, workers=1)
    assert not views.exists()
    seen: list[int] = []
    profile_store(store, toy_model, dense_model, 1, lambda _, done, __: seen.append(done), workers=1)
    assert seen[0] >= 8
    assert views.read_bytes() == whole.store.read_bytes()


def test_views_do_not_depend_on_the_other_faces(
    store: Path, whole: PrepareReport, toy_model: FaceModel, dense_model: FaceModel, tmp_path: Path
) -> None:
    full = FaceStore(whole.store)
    source = FaceStore(store)
    rows = source.labels.in_split("train")[::2]
    few = tmp_path / "few.h5"
    write_store(few, source.encoded_images(rows), source.sizes[rows], source.labels.take(rows), source.attributes)
    part = FaceStore(profile_store(few, toy_model, dense_model, 1).store)
    assert 0 < len(part) < len(full)
    for i, name in enumerate(part.labels.names):
        (j,) = np.flatnonzero(full.labels.names == name)
        np.testing.assert_allclose(part.labels.landmarks[i], full.labels.landmarks[j], atol=1e-4)


def test_nothing_to_turn(store: Path, toy_model: FaceModel, dense_model: FaceModel, tmp_path: Path) -> None:
    source = FaceStore(store)
    labels = replace(source.labels, split=np.full(len(source), SPLITS.index("test"), np.uint8))
    rows = np.arange(len(source))
    write_store(tmp_path / "test.h5", source.encoded_images(rows), source.sizes, labels, source.attributes)
    with pytest.raises(InputError, match=r"test\.h5: no training face within 60 degrees"):
        profile_store(tmp_path / "test.h5", toy_model, dense_model, 1)


def test_the_surface(store: Path, toy_model: FaceModel, dense_model: FaceModel, tmp_path: Path) -> None:
    """That of the face model, or else the one that comes with dhm; a file that is named must have one."""
    toy_model.save(tmp_path / "face_model.h5")
    with pytest.raises(InputError, match="only the 68 landmarks") as caught:
        load_surface(tmp_path, tmp_path / "face_model.h5")
    assert "--surface" in caught.value.hint
    packaged = load_surface(tmp_path, None)
    assert packaged.mesh is not None
    assert len(packaged.mesh.mean) == 6690
    assert packaged.name == "dhm/ict_face.npz"
    dense_model.save(tmp_path / "face_model.h5")
    surface = load_surface(tmp_path, None)
    assert surface.mesh is not None
    assert surface.hash() == dense_model.hash()


@pytest.mark.parametrize("origin", [None, 1])
def test_views_keep_how_pixels_were_counted(
    store: Path, toy_model: FaceModel, dense_model: FaceModel, tmp_path: Path, origin: int | None
) -> None:
    """The store of views lost the record of --reannotated-origin."""
    source = FaceStore(store)
    rows, record = np.arange(len(source)), {} if origin is None else {"reannotated_origin": origin}
    about = source.attributes | record
    write_store(tmp_path / "again.h5", source.encoded_images(rows), source.sizes, source.labels, about)
    views = turned_views._Maker(FaceStore(tmp_path / "again.h5"), toy_model, dense_model, 1)
    assert views.attributes().get("reannotated_origin") == origin
