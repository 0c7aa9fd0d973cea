"""Stores with labels fitted again: what the network is asked, what is written, and that a stopped run goes on."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from dummy_network import make_mean_shape
from label_examples import NOWHERE, error, labels_of, noise, part, with_points, xy
from numpy.typing import NDArray
from synthetic_faces import random_parameters

from dhm_cli.data.store import FaceLabels, FaceStore, write_store
from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import MIRROR, face_size
from dhm_cli.inference.engines import Answer
from dhm_cli.morphable import fitting
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.location import FACE_MODEL
from dhm_cli.preparation import relabel as workflow
from dhm_cli.preparation.label_fusion import Relabelled, relabel
from dhm_cli.preparation.relabel import RelabelJob, relabel_stores
from dhm_cli.runtime import unfinished as unfinished_module

Array = NDArray[np.float64]
TRAIN, VAL, TEST = range(3)
HEIGHT, WIDTH = 114, 124


@pytest.fixture(scope="module", autouse=True)
def small_pictures() -> Iterator[None]:
    """Half of the time would go into drawing, see drawing/test_faces.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workflow, "_SHOWN", 2)
        yield


class SeeingEngine:
    """A network that knows every face of `write_ramps`: a crop's colours tell the face and where it was cut out.

    It answers in crops of mirror images as in others, so its answers mirror exactly, but for `lean`.

    Args:
        truth: by face, (N, 68, 3), image pixels.
        lean: how far it errs to the right in every crop, share of the crop.
        stop_after: calls after which Ctrl-C comes.
    """

    arch, input_size, mean_shape, weights_hash = "fast", 24, make_mean_shape(), "0123456789abcdef"
    doubts = False

    def __init__(self, truth: NDArray[np.floating], lean: float = 0.0, stop_after: int | None = None) -> None:
        self.truth, self.lean, self.stop_after = truth, lean, stop_after
        self.calls = 0

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        return np.stack([self._look(crop.astype(np.float64)) for crop in crops]).astype(np.float32)

    def answer(self, crops: NDArray[np.uint8]) -> Answer:
        return Answer(self(crops))

    def _look(self, crop: Array) -> Array:
        face = np.median(crop[..., 2])
        v, u = np.nonzero(crop[..., 2] == face)
        here = np.stack([u, v, np.ones(len(u))], axis=1)
        matrix = np.linalg.lstsq(here, crop[v, u, :2] / 2, rcond=None)[0].T  # crop pixels -> image pixels
        there = self.truth[int(face - 20) // 3].astype(np.float64)
        if np.linalg.det(matrix[:, :2]) < 0:
            there = there[MIRROR]
        zoom = np.sqrt(np.abs(np.linalg.det(matrix[:, :2])))
        answer = (there[:, :2] - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
        return np.column_stack([answer[:, 0] + self.lean * len(crop), answer[:, 1], there[:, 2] / zoom])


def write_ramps(path: Path, model: FaceModel, labels: FaceLabels, first: int = 0) -> Path:
    """A store whose images are 2 x in red, 2 y in green and the number of the face, from `first`, in blue.

    Not x: the mean of two neighbours must be an integer too, or all of them would be rounded up.
    """
    y, x = 2 * np.mgrid[:HEIGHT, :WIDTH].astype(np.uint8)
    pictures = [np.dstack([np.full_like(x, 20 + 3 * (first + k)), y, x]) for k in range(len(labels))]  # BGR
    encoded = [cv2.imencode(".png", picture)[1].tobytes() for picture in pictures]
    sizes = np.array([len(data) for data in encoded])
    about = {"dataset": "ramps", "layout": "pts", "face_model": model.hash(), "command": "dhm prepare ramps"}
    write_store(path, encoded, sizes, labels, about)
    return path


@pytest.fixture(scope="module")
def truth(toy_model: FaceModel) -> FaceLabels:
    """20 faces, all well inside their images: 14 training, 4 validation, 2 test."""
    split = np.zeros(20, int)
    split[2::5], split[[8, 14]] = VAL, TEST
    p = random_parameters(toy_model, np.linspace(-75, 70, 20), seed=11, scale=2.8e-4)
    p[:, 4:6] -= 40
    return labels_of(toy_model, p, split, (HEIGHT, WIDTH))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, toy_model: FaceModel, truth: FaceLabels) -> Path:
    """A folder of `dhm prepare`, not to be changed by tests: two stores, points of a prior, the face model.

    In faces.h5 people err by 2 % of the face size, and the fifth training face's points are another's; more.h5 holds
    six of the faces again, without a prior.
    """
    folder = tmp_path_factory.mktemp("prepared")
    human = xy(truth) + noise(truth, 0.02, 12)
    human[5] = human[5, ::-1]
    write_ramps(folder / "faces.h5", toy_model, with_points(truth, human))
    write_ramps(folder / "more.h5", toy_model, truth.take(np.arange(6, 12)), first=6)
    np.savez(folder / "prior.npz", names=truth.names, landmarks=xy(truth) + noise(truth, 0.005, 13))
    toy_model.save(folder / FACE_MODEL)
    return folder


def test_what_the_network_says_of_a_store(prepared: Path, truth: FaceLabels, tmp_path: Path) -> None:
    """Mean of images and mirror images, in pixels of the images: a network that errs to the right errs no more."""
    store = FaceStore(prepared / "faces.h5")
    for lean in (0.0, 0.05):
        engine = SeeingEngine(truth.landmarks, lean)
        mean, spread = workflow._ask_network(engine, store, tmp_path / f"{lean}.npz", lambda *_: None)
        np.testing.assert_allclose(mean, xy(truth), atol=0.15)
        sides = np.sqrt(2) * 1.05 * np.ptp(xy(truth), axis=1).max(1)  # of the crops, on average
        np.testing.assert_allclose(spread, 100 * lean * sides / face_size(xy(truth)), atol=0.25)


@pytest.fixture(scope="module")
def relabelled(prepared: Path, truth: FaceLabels, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """Both stores relabelled: the folder, the reports, and what was said of the progress."""
    out, said = tmp_path_factory.mktemp("relabelled") / "new", []
    jobs = [RelabelJob(prepared / "faces.h5", prepared / "prior.npz"), RelabelJob(prepared / "more.h5", trust=0.5)]
    engine, fits, found = SeeingEngine(truth.landmarks), [], []

    def fit(*arguments: Any, **named: Any) -> Relabelled:
        fits.append(arguments[4:6])
        result = relabel(*arguments, **named)
        # All stores deviate as the first one does.
        assert arguments[7] is (found[0] if found else None)
        found.append(result.deviations)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workflow, "relabel", fit)
        reports = relabel_stores(jobs, engine, out, ["jaw"], progress=lambda *args: said.append(args))
    # In the first store people are brought to the prior's convention where it is followed, in the other one everywhere.
    assert [trust for _, trust in fits] == [1.0, 0.5]
    np.testing.assert_array_equal([moved for moved, _ in fits], [part("jaw"), ~NOWHERE])
    return out, reports, said


def test_stores_are_written_with_new_labels_and_the_old_images(
    relabelled: tuple[Path, Any, Any], prepared: Path, truth: FaceLabels, toy_model: FaceModel
) -> None:
    out, (first, second), _ = relabelled
    assert sorted(p.name for p in out.iterdir()) == [
        "face_model.h5", "faces-moved.png", "faces.h5", "more-moved.png", "more.h5",
    ]  # fmt: skip
    assert FaceModel.load(out / FACE_MODEL).hash() == toy_model.hash()
    for report, name, trust in ((first, "faces", 1.0), (second, "more", 0.5)):
        old, new = FaceStore(prepared / f"{name}.h5"), FaceStore(out / f"{name}.h5")
        assert report.store == new.path
        everything = np.arange(len(old))
        assert list(new.encoded_images(everything)) == list(old.encoded_images(everything))
        for kept in ("dataset", "layout", "face_model", "command", "images_hash"):
            assert new.attributes[kept] == old.attributes[kept]
        assert new.attributes["contents"] == new.fingerprint() != old.fingerprint()
        record = json.loads(new.attributes["relabelled"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", record.pop("date"))
        assert record == {
            "name": "a network", "store": old.path.name,
            "network": SeeingEngine.weights_hash, "follow": ["jaw"], "trust": trust, "from": old.fingerprint(),
            "follow_human": True,
        }  # fmt: skip
        assert (new.labels.names == old.labels.names).all()
        assert (new.labels.split == old.labels.split).all()
        np.testing.assert_array_equal(new.labels.points, old.labels.points)
        picture = cv2.imread(str(report.picture))
        assert report.picture == out / f"{name}-moved.png"
        assert picture.std() > 10
    train = truth.split == TRAIN
    found = FaceStore(out / "faces.h5").labels
    assert np.flatnonzero(found.flagged).tolist() == [5]
    assert error(found, truth)[train & (found.flagged == 0)].max() < 2
    assert error(FaceStore(out / "more.h5").labels, truth.take(np.arange(6, 12))).max() < 1


def test_reports_of_stores(relabelled: tuple[Path, Any, Any], truth: FaceLabels) -> None:
    out, (first, second), _ = relabelled
    assert (first.faces, first.left_out, second.faces, second.left_out) == (20, 1, 6, 0)
    assert first.reasons == {"human points": 1, "prior": 0, "network": 0, "mirror images": 0}
    found = FaceStore(out / "faces.h5").labels
    moved = error(found, truth)[found.split == TRAIN]  # the old labels were the truth
    assert first.moved == pytest.approx((moved.mean(), np.percentile(moved, 95)), rel=1e-3)
    assert first.agreement.keys() == first.reasons.keys()
    assert 0.3 < first.agreement["prior"] < 1.0
    assert second.agreement["prior"] == 0
    assert second.bias == pytest.approx(0, abs=0.2)


def test_the_bar_moves_through_the_fit_too(
    prepared: Path, truth: FaceLabels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stood at 100 % from the network's last answer to the end, for minutes: the fit and the writing said nothing.

    Now the network's full bar makes room for the fit's at 0, and no bar is full before its work is done.
    """
    monkeypatch.setattr(fitting, "_CHUNK", 8)
    said: list[tuple[str, int, int]] = []
    jobs = [RelabelJob(prepared / "faces.h5"), RelabelJob(prepared / "more.h5")]
    descend, fits = fitting._to_fit, []

    def fit(*arguments: Any) -> fitting.Fit:
        fits.append(said[-1])
        return descend(*arguments)

    monkeypatch.setattr(fitting, "_to_fit", fit)
    relabel_stores(jobs, SeeingEngine(truth.landmarks), tmp_path, progress=lambda *call: said.append(call))
    whole = [
        (f"{name}: {stage}", faces) for name, faces in (("faces", 20), ("more", 6)) for stage in ("fit", "writing")
    ]
    stages = [("faces: network", 20), ("more: network", 6), *whole]
    assert [key for key, _ in groupby((stage, total) for stage, _, total in said)] == stages
    for stage, total in stages:
        done = [done for name, done, _ in said if name == stage]
        assert done[0] == 0
        assert done[-1] == total not in done[:-1]
    # What the bar shows when each chunk's fit ends: never that all of it is done.
    assert fits == [("faces: fit", 0, 20), ("faces: fit", 8, 20), ("faces: fit", 16, 20), ("more: fit", 0, 6)]


@pytest.fixture
def in_batches(monkeypatch: pytest.MonkeyPatch) -> int:
    """Faces.h5 in three batches, more.h5 in one; the calls of each."""
    monkeypatch.setattr(workflow, "_BATCH", 8)
    return 2 * len(workflow._CROP_SCALES)


def test_two_runs_into_one_folder(prepared: Path, truth: FaceLabels, tmp_path: Path) -> None:
    """The second is refused, by another process as locks are of processes, and the folder is as the first left it."""
    job = RelabelJob(prepared / "faces.h5")
    code = (
        "import sys; from pathlib import Path; from dhm_cli.runtime.lock import claim; "
        "lock = claim(Path(sys.argv[1]), '', ''); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / ".relabel.lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == b"held"
        with pytest.raises(InputError, match="another dhm relabel writes there"):
            relabel_stores([job], SeeingEngine(truth.landmarks), tmp_path)
        other.communicate(b"")
    assert not list(tmp_path.glob("*.h5"))
    relabel_stores([job], SeeingEngine(truth.landmarks), tmp_path)
    assert not (tmp_path / ".relabel.lock").exists()


def test_a_stopped_run_goes_on(
    relabelled: tuple[Path, Any, Any], prepared: Path, truth: FaceLabels, in_batches: int, tmp_path: Path
) -> None:
    """In the second batch of the first store, then in the second store."""
    jobs = [RelabelJob(prepared / "faces.h5", prepared / "prior.npz"), RelabelJob(prepared / "more.h5", trust=0.5)]

    def run(stop_after: int | None) -> int:
        engine = SeeingEngine(truth.landmarks, stop_after=stop_after)
        try:
            relabel_stores(jobs, engine, tmp_path / "new", ["jaw"])
        except KeyboardInterrupt:
            assert not list(tmp_path.glob("new/*.h5"))
        return engine.calls

    assert run(in_batches + 1) == in_batches + 1
    assert run(2 * in_batches + 2) == 2 * in_batches + 2  # the two batches that were left, and a call of the next store
    assert run(None) == in_batches
    for name in ("faces.h5", "more.h5", "face_model.h5", "faces-moved.png"):
        assert (tmp_path / "new" / name).read_bytes() == (relabelled[0] / name).read_bytes(), name
    assert not list((tmp_path / "new").glob(".*"))


def test_a_killed_run_loses_only_the_last_seconds(
    prepared: Path, truth: FaceLabels, in_batches: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers are kept while a store is at work, not only when it ends."""
    monkeypatch.setattr(unfinished_module, "_SAVE_EVERY", 0.0)
    kept: list[bool] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "faces: network":
            kept.append((tmp_path / ".faces-network.npz").exists())

    relabel_stores([RelabelJob(prepared / "faces.h5")], SeeingEngine(truth.landmarks), tmp_path, progress=progress)
    assert kept == [False, True, True, True]


def test_what_another_network_said_is_not_taken_over(
    prepared: Path, truth: FaceLabels, in_batches: int, tmp_path: Path
) -> None:
    jobs = [RelabelJob(prepared / "faces.h5")]
    with pytest.raises(KeyboardInterrupt):
        relabel_stores(jobs, SeeingEngine(truth.landmarks, stop_after=in_batches), tmp_path)
    other = SeeingEngine(truth.landmarks)
    other.weights_hash = "fedcba9876543210"
    relabel_stores(jobs, other, tmp_path)
    assert other.calls == 3 * in_batches


def npz(path: Path, names: list[str]) -> Path:
    np.savez(path, names=np.array(names), landmarks=np.ones((len(names), 68, 2), np.float32))
    return path


def other_model(path: Path, model: FaceModel, truth: FaceLabels) -> Path:
    return write_ramps(path, replace(model, mean=model.mean * 2), truth)


Refused = Callable[[Path, Path, FaceModel, FaceLabels], tuple[list[RelabelJob], Path, list[str]]]
REFUSED: dict[str, tuple[Refused, str]] = {
    "the same name": (
        lambda data, tmp, model, truth: (
            [RelabelJob(data / "faces.h5"), RelabelJob(write_ramps(tmp / "faces.h5", model, truth))], tmp / "o", []
        ),
        r"faces: two stores of this name",
    ),
    "the same store": (
        lambda data, tmp, *_: ([RelabelJob(data / "faces.h5")] * 2, tmp / "o", []), r"two stores of this name",
    ),
    "overwriting": (
        lambda data, tmp, *_: ([RelabelJob(data / "faces.h5")], data / "x" / "..", []),
        r"faces\.h5: would be overwritten",
    ),
    "unknown part": (
        lambda data, tmp, *_: ([RelabelJob(data / "faces.h5", data / "prior.npz")], tmp / "o", ["jaw", "ears"]),
        "--follow-prior ears: no part of the face",
    ),
    "no prior to follow": (
        lambda data, tmp, *_: (
            [RelabelJob(data / "faces.h5"), RelabelJob(data / "more.h5", data / "prior.npz")], tmp / "o", ["jaw"]
        ),
        "--follow-prior needs a prior of the first store",
    ),
    "another prior": (
        lambda data, tmp, *_: ([RelabelJob(data / "faces.h5", npz(tmp / "p.npz", ["a", "b"]))], tmp / "o", []),
        r"p\.npz: lists none of the images, such as face 0\.png",
    ),
    "no prior file": (
        lambda data, tmp, *_: ([RelabelJob(data / "faces.h5", tmp / "absent.npz")], tmp / "o", []), r"absent\.npz",
    ),
    "another face model": (
        lambda data, tmp, model, truth: (
            [RelabelJob(data / "faces.h5"), RelabelJob(other_model(tmp / "b.h5", model, truth))], tmp / "o", []
        ),
        r"b\.h5: prepared with face model [0-9a-f]+, but .*face_model\.h5 is [0-9a-f]+ \(toy\)",
    ),
    "no face model": (
        lambda data, tmp, *_: ([RelabelJob(Path(shutil.copy(data / "more.h5", tmp)))], tmp / "o", []),
        r"face_model\.h5: no such face model",
    ),
    "no store": (lambda data, tmp, *_: ([RelabelJob(tmp / "absent.h5")], tmp / "o", []), r"absent\.h5: no such store"),
    "another prior of the second store": (
        lambda data, tmp, *_: (
            [RelabelJob(data / "faces.h5"), RelabelJob(data / "more.h5", npz(tmp / "p.npz", ["a", "b"]))], tmp / "o", []
        ),
        r"p\.npz: lists none of the images, such as face 6\.png",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_before_the_network_is_asked(
    prepared: Path, tmp_path: Path, toy_model: FaceModel, truth: FaceLabels, what: str
) -> None:
    make, message = REFUSED[what]
    jobs, out, follow = make(prepared, tmp_path, toy_model, truth)
    engine, before = SeeingEngine(truth.landmarks), sorted(prepared.iterdir())
    with pytest.raises(InputError, match=message) as caught:
        relabel_stores(jobs, engine, out, follow)
    assert caught.value.hint
    assert engine.calls == 0
    assert not (tmp_path / "o").exists()
    assert sorted(prepared.iterdir()) == before


def test_a_disk_that_fills_is_an_error_and_a_later_run_gives_the_same_bytes(
    relabelled: tuple[Path, Any, Any],
    prepared: Path,
    truth: FaceLabels,
    small_disk: Path,
    filling_disk: Callable[[Callable[[], object], int], set[str]],
) -> None:
    """The message named the file that was copied in place of the one that had no room; HDF5 crashed."""
    jobs = [RelabelJob(prepared / "faces.h5", prepared / "prior.npz"), RelabelJob(prepared / "more.h5", trust=0.5)]
    out = small_disk / "new"
    full = filling_disk(lambda: relabel_stores(jobs, SeeingEngine(truth.landmarks), out, ["jaw"]), 60_000)
    assert {"face_model.h5", "faces.h5"} & full
    assert full <= {"face_model.h5", "faces.h5", "more.h5", "faces-moved.png", "more-moved.png",
                    ".faces-network.npz", ".more-network.npz"}  # fmt: skip
    for name in ("faces.h5", "more.h5", "face_model.h5", "faces-moved.png", "more-moved.png"):
        assert (out / name).read_bytes() == (relabelled[0] / name).read_bytes(), name
    assert not list(out.glob(".*"))
