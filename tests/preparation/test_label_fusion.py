"""Labels fitted again from people, a prior and a network: their conventions, the fit, what is left out, the stores."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from dummy_network import make_mean_shape
from numpy.typing import NDArray
from synthetic_faces import SIDE, mirrored_parameters, random_parameters

from dhm_cli.data.store import FaceLabels, FaceStore, write_store
from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import GROUPS, JAW, MIRROR, MOUTH, bounding_box, face_size
from dhm_cli.geometry.pose import euler_to_matrix, matrix_to_euler
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.fitting import fit_parameters
from dhm_cli.morphable.location import FACE_MODEL
from dhm_cli.preparation import label_fusion as relabelling
from dhm_cli.preparation import relabel as workflow
from dhm_cli.preparation.label_fusion import Convention, FaceFrame, Relabelled, Sources, convention_of_prior, relabel
from dhm_cli.preparation.relabel import RelabelJob, relabel_stores
from dhm_cli.runtime import unfinished as unfinished_module

Array = NDArray[np.float64]
TRAIN, VAL, TEST = range(3)
COUNT = 33
NOWHERE = np.zeros(68, bool)


def part(*names: str) -> NDArray[np.bool_]:
    chosen = NOWHERE.copy()
    for name in names:
        chosen[GROUPS[name]] = True
    return chosen


def labels_of(
    model: FaceModel, p: torch.Tensor, split: NDArray[np.integer], size: tuple[int, int] = (SIDE, SIDE)
) -> FaceLabels:
    """Faces with these parameters in images of this height and width; all points visible and exact."""
    count, height = len(p), size[0]
    landmarks = model.project(p.numpy(), np.full(count, height))
    landmarks[..., 2] -= landmarks[..., 2].mean(axis=1, keepdims=True)
    names = np.array([f"face {k}.png" for k in range(count)])
    return FaceLabels(
        names=names,
        source=names,
        identity=names,
        split=split.astype(np.uint8),
        image_size=np.tile(np.array(size, np.int32), (count, 1)),
        landmarks=landmarks,
        points=landmarks[..., :2].copy(),
        visibility=np.ones((count, 68), np.uint8),
        parameters=p.numpy(),
        box=bounding_box(landmarks).astype(np.float32),
        yaw=np.rad2deg(p[:, 2].numpy()),
        residual=np.zeros(count, np.float32),
        flagged=np.zeros(count, np.uint8),
    )


@pytest.fixture(scope="module")
def faces(toy_model: FaceModel) -> FaceLabels:
    """27 training, 4 validation and 2 test faces of all yaws on both sides."""
    yaw, split = np.linspace(-80, 80, COUNT), np.zeros(COUNT, int)
    split[4::8], split[[8, 24]] = VAL, TEST
    return labels_of(toy_model, random_parameters(toy_model, yaw, seed=1), split)


def xy(labels: FaceLabels) -> Array:
    return labels.landmarks[..., :2].astype(np.float64)


def with_points(labels: FaceLabels, points: Array) -> FaceLabels:
    return replace(labels, points=points.astype(np.float32))


def shown(prior: Array | None, network: Array) -> Sources:
    return Sources(np.full_like(network, np.nan) if prior is None else prior, network, np.zeros(len(network)))


def of_size(labels: FaceLabels, *shares: float) -> Array:
    """Shares of the face size in x and y as pixels of every face, (N, 1, 2)."""
    return face_size(xy(labels))[:, None, None] * np.array(shares)


def noise(labels: FaceLabels, share: float, seed: int, points: int = 68) -> Array:
    """Gaussian errors of a share of the face size, (N, points, 2); of 1 point, the whole face is off."""
    return of_size(labels, share, share) * np.random.default_rng(seed).normal(size=(len(labels), points, 2))


def error(found: FaceLabels, truth: FaceLabels) -> Array:
    """Mean distance of every face's landmarks from the truth, percent of the face size, (N,)."""
    return 100 * np.linalg.norm(xy(found) - xy(truth), axis=-1).mean(1) / face_size(xy(truth))


# --- the frame of the face ---


@pytest.fixture(scope="module")
def turned(toy_model: FaceModel) -> FaceLabels:
    """Faces of all yaws, turned in the image plane up to upside down."""
    p = random_parameters(toy_model, np.linspace(-85, 86, 24), seed=3)
    roll = np.random.default_rng(0).permutation(np.linspace(-3, 3, 24))
    in_plane = euler_to_matrix(np.stack([0 * roll, 0 * roll, roll], axis=1))
    p[:, 1:4] = torch.from_numpy(matrix_to_euler(in_plane @ euler_to_matrix(p[:, 1:4].numpy())))
    return labels_of(toy_model, p, np.zeros(24))


def test_leave_is_the_inverse_of_enter(turned: FaceLabels) -> None:
    frame, offsets = FaceFrame(turned), np.random.default_rng(0).normal(size=(24, 68, 2))
    np.testing.assert_allclose(frame.leave(frame.enter(offsets)), offsets, atol=1e-12)
    np.testing.assert_allclose(frame.enter(frame.leave(offsets)), offsets, atol=1e-12)
    length = np.linalg.norm(frame.enter(offsets), axis=-1) * face_size(xy(turned))[:, None]
    np.testing.assert_allclose(np.sort(length), np.sort(np.linalg.norm(offsets, axis=-1)))


def test_up_the_face_is_up_whatever_the_roll(turned: FaceLabels, toy_model: FaceModel) -> None:
    """The offsets are what the projection makes of a model whose points lie higher."""
    higher = replace(toy_model, mean=toy_model.mean + torch.tensor([0.0, 2e4, 0.0]))
    offsets = xy(labels_of(higher, torch.from_numpy(turned.parameters), turned.split)) - xy(turned)
    entered = FaceFrame(turned).enter(offsets)
    length = np.linalg.norm(offsets, axis=-1) / face_size(xy(turned))[:, None]
    assert length.min() > 0.1
    np.testing.assert_allclose(entered[..., 0], 0, atol=1e-5)
    np.testing.assert_allclose(entered[..., 1], -length, atol=1e-5)


def test_mirrored_faces_agree(toy_model: FaceModel) -> None:
    p = random_parameters(toy_model, np.array([-70.0, -20.0, 5.0, 40.0, 88.0]), seed=2)
    one, other = (labels_of(toy_model, q, np.zeros(5)) for q in (p, mirrored_parameters(p)))
    offsets = np.random.default_rng(1).normal(size=(5, 68, 2))
    in_mirror = offsets[:, MIRROR] * [-1, 1]
    np.testing.assert_allclose(FaceFrame(one).enter(offsets), FaceFrame(other).enter(in_mirror), atol=1e-4)
    np.testing.assert_allclose(FaceFrame(one).turn, FaceFrame(other).turn, atol=1e-3)
    # As a face of positive yaw has it: its nose points to the left of the image, and so does the frame's.
    upright = p.clone()
    upright[:, 1], upright[:, 3] = 0, 0
    labels = labels_of(toy_model, upright, np.zeros(5))
    left = FaceFrame(labels).enter(np.broadcast_to(of_size(labels, -0.1, 0), (5, 68, 2)))
    np.testing.assert_allclose(left[..., 0], np.where(labels.yaw > 0, -0.1, 0.1)[:, None].repeat(68, 1), atol=1e-5)


# --- conventions ---


def test_an_offset_that_depends_on_the_yaw_is_found() -> None:
    rng = np.random.default_rng(0)
    turn = rng.uniform(0, 90, 3000)
    at_front, at_side = rng.uniform(-0.04, 0.04, (2, 68, 2))
    offsets = at_front + (at_side - at_front) * (turn / 90)[:, None, None]
    measured = Convention.measure(offsets + rng.normal(0, 0.01, (3000, 68, 2)), turn)
    asked = np.array([12.0, 45.0, 71.5])
    expected = at_front + (at_side - at_front) * (asked / 90)[:, None, None]
    np.testing.assert_allclose(measured.at(asked), expected, atol=0.006)
    # Smooth: what holds at one yaw only is spread over its neighbours and not beyond.
    step = Convention.measure(np.where(turn[:, None, None] > 45, [0.04, 0.0], [0.0, 0.0]).repeat(68, 1), turn)
    before, middle, behind = step.at(np.array([20.0, 45.0, 70.0]))[:, 0, 0]
    assert before == pytest.approx(0, abs=0.002)
    assert middle == pytest.approx(0.02, abs=0.004)
    assert behind == pytest.approx(0.04, abs=0.004)


def test_silence_and_accidents_are_no_convention() -> None:
    rng = np.random.default_rng(1)
    turn, offsets = rng.uniform(0, 90, 500), rng.normal(0.02, 0.01, (500, 68, 2))
    spoiled = offsets.copy()
    spoiled[::2, :40] = np.nan
    spoiled[1::2, 40:] = [0.1, 0.1]  # farther than any convention
    found = Convention.measure(spoiled, turn).offsets
    np.testing.assert_allclose(found[:, :40], Convention.measure(offsets[1::2], turn[1::2]).offsets[:, :40])
    np.testing.assert_allclose(found[:, 40:], Convention.measure(offsets[::2], turn[::2]).offsets[:, 40:])


def test_a_convention_of_few_faces_fades() -> None:
    said = []
    for count in (0, 1, 40, 4000):
        convention = Convention.measure(np.full((count, 68, 2), 0.05), np.full(count, 30.0))
        said.append(convention.at(np.array([30.0]))[0, 0, 0] / 0.05)
    assert said[0] == 0
    assert 0 < said[1] < 0.05
    assert 0.3 < said[2] < 0.7
    assert said[3] > 0.98
    assert abs(convention.at(np.array([80.0]))).max() < 1e-3  # seven standard deviations off, nobody speaks


def test_conventions_between_the_knots_and_beyond() -> None:
    knots = np.arange(0.0, 96.0, 5.0)
    slope = np.random.default_rng(2).normal(size=(68, 2))
    convention = Convention(knots[:, None, None] ** 2 * slope)
    np.testing.assert_allclose(convention.at(knots), convention.offsets)
    asked = np.array([0.0, 12.0, 90.0, 94.0, 95.0, 120.0, 180.0])
    expected = np.interp(asked, knots, knots**2)
    np.testing.assert_allclose(convention.at(asked), expected[:, None, None] * slope)


def test_a_convention_of_some_landmarks_only() -> None:
    jaw = Convention(np.ones((20, 68, 2))).only(part("jaw")).at(np.array([33.0]))[0]
    assert (jaw[JAW] == 1).all()
    assert not jaw[JAW.stop :].any()


# --- relabelling ---


def agreed(model: FaceModel, faces: FaceLabels, **changes: Any) -> Relabelled:
    """New labels where prior and network tell the truth of `faces`."""
    labels = replace(faces, **changes)
    return relabel(model, labels, shown(xy(faces), xy(faces)), Convention(np.zeros((20, 68, 2))), NOWHERE)


def test_labels_come_back_to_the_truth_on_which_all_agree(faces: FaceLabels, toy_model: FaceModel) -> None:
    wrong = faces.landmarks.copy()
    wrong[..., :2] += noise(faces, 0.03, 5, points=1)
    result = agreed(toy_model, faces, landmarks=wrong, residual=np.full(COUNT, 9, np.float32))
    new, train = result.labels, faces.split != TEST
    assert error(new, faces)[train].max() < 0.5
    assert result.bias == pytest.approx(0, abs=1e-4)
    assert not new.flagged.any()
    assert result.reasons == dict.fromkeys(result.disagreement, 0)
    np.testing.assert_allclose(result.moved[train], error(replace(faces, landmarks=wrong), faces)[train], rtol=0.2)
    # What a store says of a face fits together, and what is not fitted stays.
    projected = toy_model.project(new.parameters, new.image_size[:, 0])
    np.testing.assert_allclose(new.landmarks[train][..., :2], projected[train][..., :2], atol=1e-3)
    np.testing.assert_allclose(new.landmarks[..., 2].mean(1), 0, atol=1e-3)
    np.testing.assert_allclose(new.box[train], bounding_box(new.landmarks)[train], atol=1e-3)
    np.testing.assert_allclose(new.yaw[train], np.rad2deg(new.parameters[train, 2]), atol=1e-4)
    assert new.residual[train].max() < 1
    for name, values in faces.arrays().items():
        assert new.arrays()[name].dtype == values.dtype, name
        if name not in ("landmarks", "parameters", "box", "yaw", "residual", "flagged"):
            np.testing.assert_array_equal(new.arrays()[name], values, err_msg=name)


def test_what_people_cannot_know_is_not_asked_of_them(faces: FaceLabels, toy_model: FaceModel) -> None:
    """Points without a label, and the far side of the jaw, which they draw along the outline."""
    points, visibility = faces.points.copy(), faces.visibility.copy()
    visibility[:, 50::3] = 0
    points[:, 50::3] = 1e4
    points[faces.yaw > 20, :8] += 15
    points[faces.yaw < -20, 9:17] += 15
    clean, spoiled = (agreed(toy_model, faces, points=p, visibility=visibility).labels for p in (faces.points, points))
    np.testing.assert_array_equal(spoiled.landmarks, clean.landmarks)
    assert not spoiled.flagged.any()
    points[faces.yaw > 20, 9:17] += 15  # the near side is asked
    assert np.abs(agreed(toy_model, faces, points=points).labels.landmarks - clean.landmarks).max() > 1


def test_labels_are_better_than_people_alone(faces: FaceLabels, toy_model: FaceModel) -> None:
    human = xy(faces) + noise(faces, 0.03, 6)
    prior, network = (xy(faces) + noise(faces, 0.01, seed, points=1) for seed in (7, 8))
    alone = fit_parameters(toy_model, torch.from_numpy(human).float(), torch.ones(COUNT, 68), float(SIDE))
    train = faces.split == TRAIN
    people = error(replace(faces, landmarks=alone.landmarks.numpy()), faces)[train].mean()
    result = relabel(
        toy_model, with_points(faces, human), shown(prior, network), Convention(np.zeros((20, 68, 2))), NOWHERE
    )
    assert error(result.labels, faces)[train].mean() < 0.9 * people


def test_photos_counted_from_another_pixel_are_found(faces: FaceLabels, toy_model: FaceModel) -> None:
    """People's points lie 1.5 % of the face size to the right in the photo, whichever way the face looks."""
    human = xy(faces) + of_size(faces, 0.015, 0) + noise(faces, 0.005, 9)
    result = agreed(toy_model, faces, points=human.astype(np.float32))
    assert result.bias == pytest.approx(1.5, abs=0.1)
    known = faces.split != TEST
    right = (xy(result.labels) - xy(faces))[known, :, 0] / face_size(xy(faces))[known, None]
    assert 100 * right.mean() == pytest.approx(0, abs=0.15)


@pytest.mark.parametrize("times", [1, 2])
def test_a_convention_of_the_face_is_no_wrong_pixel(faces: FaceLabels, toy_model: FaceModel, times: int) -> None:
    """People draw faces 1.5 % of their size too far to where the nose points, that is, some to each side.

    Where twice as many faces look to the one side, the median over all would take 0.6 % of that for a bias.
    """
    right, left = np.flatnonzero(faces.yaw < 0), np.flatnonzero(faces.yaw > 0)
    labels = faces.take(np.concatenate([right[::times], left]))
    to_the_nose = np.where(labels.yaw > 0, -1.0, 1.0)[:, None, None] * of_size(labels, 0.015, 0)
    points = xy(labels) + to_the_nose + noise(labels, 0.02, 9)
    assert agreed(toy_model, labels, points=points.astype(np.float32)).bias == pytest.approx(0, abs=0.3)


@pytest.fixture
def lower_mouth(faces: FaceLabels, monkeypatch: pytest.MonkeyPatch) -> Array:
    """A prior that sees mouths lower by 3 % of the face size, and toward the nose's side by 2 %."""
    monkeypatch.setattr(relabelling, "_FEW_FACES", 0.1)  # what so few faces say is enough here
    offsets = np.zeros((len(faces), 68, 2))
    offsets[:, MOUTH] = [-0.02, 0.03]
    return FaceFrame(faces).leave(offsets)


@pytest.mark.parametrize("followed", [True, False])
def test_followed_parts_are_where_the_prior_has_them(
    faces: FaceLabels, toy_model: FaceModel, lower_mouth: Array, followed: bool
) -> None:
    """Seen by people, the network and validation faces too, whose prior is silent here."""
    prior = xy(faces) + lower_mouth
    prior[faces.split == VAL] = np.nan
    chosen = part("mouth") if followed else NOWHERE
    sources = shown(prior, xy(faces))
    result = relabel(toy_model, faces, sources, convention_of_prior(faces, sources, chosen), chosen)
    wanted = fit_parameters(
        toy_model, torch.from_numpy(xy(faces) + lower_mouth).float(), torch.ones(COUNT, 68), float(SIDE)
    )
    there = replace(faces, landmarks=wanted.landmarks.numpy())
    assert error(there, faces).mean() > 0.7
    for split in (TRAIN, VAL):
        rows = faces.split == split
        near, far = (error(result.labels, labels)[rows].mean() for labels in (there, faces))
        assert (near < 0.4 * far) if followed else (far < 0.5 * near)
    assert not result.labels.flagged.any()


def test_another_store_is_brought_to_the_convention(
    faces: FaceLabels, toy_model: FaceModel, lower_mouth: Array
) -> None:
    """People of another dataset draw mouths lower; the network says where the first one's did."""
    labels, sources = with_points(faces, xy(faces) + lower_mouth), shown(None, xy(faces))
    nothing = Convention(np.zeros((20, 68, 2)))
    as_they_are, brought = (
        error(relabel(toy_model, labels, sources, nothing, moved).labels, faces)[faces.split != TEST].mean()
        for moved in (NOWHERE, ~NOWHERE)
    )
    assert brought < 0.5 * as_they_are


def test_less_trust_in_people_moves_labels_to_the_others(faces: FaceLabels, toy_model: FaceModel) -> None:
    labels, sources = with_points(faces, xy(faces) + noise(faces, 0.03, 6)), shown(xy(faces), xy(faces))
    train = faces.split == TRAIN
    full, half, none = (
        error(relabel(toy_model, labels, sources, Convention(np.zeros((20, 68, 2))), NOWHERE, trust).labels, faces)
        for trust in (1.0, 0.3, 0.0)
    )
    assert none[train].max() < 0.6
    assert none[train].mean() < 0.8 * half[train].mean() < 0.8 * full[train].mean()


def test_faces_whose_sources_disagree_are_left_out(faces: FaceLabels, toy_model: FaceModel) -> None:
    """For four reasons; a validation face never is, whatever is said of it, nor a test face."""
    human, prior, network = xy(faces), xy(faces), xy(faces)
    spread = np.zeros(COUNT)
    train = np.flatnonzero(faces.split == TRAIN)[::5]
    others = faces.split != TRAIN
    nonsense = of_size(faces, 0.25, -0.2)
    human[train[0]] = human[train[0], ::-1]
    prior[train[1]] += nonsense[train[1]]
    network[train[2]] += nonsense[train[2]]
    spread[train[3]] = 5
    human[others] += nonsense[others]
    prior[others] -= nonsense[others]
    spread[others] = 9
    labels = replace(with_points(faces, human), flagged=(faces.split == TRAIN).astype(np.uint8))
    result = relabel(toy_model, labels, Sources(prior, network, spread), Convention(np.zeros((20, 68, 2))), NOWHERE)
    np.testing.assert_array_equal(np.flatnonzero(result.labels.flagged), train[:4])
    said = {name: set(np.flatnonzero(values[train[:4]] > 2.6)) for name, values in result.disagreement.items()}
    assert said["human points"] >= {0}
    assert said["prior"] == {1, 2}
    assert 2 in said["network"]
    assert said["mirror images"] == {3}
    assert result.reasons["mirror images"] == 1
    assert result.reasons["prior"] == 2
    assert all(0 < count < 4 for count in result.reasons.values())


def test_no_validation_label_hears_the_network_that_will_be_measured_on_it(
    faces: FaceLabels, toy_model: FaceModel
) -> None:
    labels = with_points(faces, xy(faces) + noise(faces, 0.02, 6))
    row, learned = (int(np.flatnonzero(faces.split == split)[1]) for split in (VAL, TRAIN))

    def new(changed: int | None) -> FaceLabels:
        network = xy(faces) + noise(faces, 0.01, 8)
        if changed is not None:
            network[changed, :, 1] += 0.04 * face_size(xy(faces))[changed]
        sources = Sources(xy(faces), network, np.full(COUNT, 9.0 if changed == row else 0.1))
        wanted = convention_of_prior(labels, sources, part("jaw"))
        return relabel(toy_model, labels, sources, wanted, part("jaw")).labels

    before, after = new(None), new(row)
    for name, values in before.take(faces.split == VAL).arrays().items():
        np.testing.assert_array_equal(after.take(faces.split == VAL).arrays()[name], values, err_msg=name)
    assert np.abs(new(learned).landmarks[learned] - before.landmarks[learned]).max() > 0.5  # a training label does


def test_test_faces_stay_as_they_are(faces: FaceLabels, toy_model: FaceModel) -> None:
    """To the bit, odd things too."""
    test = faces.split == TEST
    changes = {name: values.copy() for name, values in faces.arrays().items()}
    changes["points"][test] = np.nan
    changes["visibility"][test] = 0
    changes["flagged"][test] = 1
    changes["yaw"][test] += 360
    changes["landmarks"][test] *= 1.1
    changes["residual"][test] = np.inf
    labels = replace(FaceLabels(**changes), reannotated=xy(faces).astype(np.float32) + 1)
    result = agreed(toy_model, labels, landmarks=labels.landmarks)
    for name, values in labels.take(test).arrays().items():
        np.testing.assert_array_equal(result.labels.take(test).arrays()[name], values, err_msg=name)
    assert not result.moved[test].any()
    assert result.moved[~test].all()


def test_a_validation_face_of_which_nothing_is_known_keeps_its_label(faces: FaceLabels, toy_model: FaceModel) -> None:
    """Fitted to nothing, its landmarks would fall together in a corner.

    300W-LP has such faces: a row that repeats another's points has no label of its own (`workflows.preparation`), but
    landmarks by its parameters.
    """
    points, visibility = faces.points.copy(), faces.visibility.copy()
    row = int(np.flatnonzero(faces.split == VAL)[0])
    points[row], visibility[row] = np.nan, 0
    labels = replace(faces, points=points, visibility=visibility)
    new = relabel(toy_model, labels, shown(None, xy(faces)), Convention(np.zeros((20, 68, 2))), NOWHERE).labels
    assert np.isfinite(new.residual[row])
    assert error(new, faces)[row] < 1


# --- stores ---

HEIGHT, WIDTH = 114, 124


@pytest.fixture(scope="module", autouse=True)
def small_pictures() -> Iterator[None]:
    """Half of the time would go into drawing, see test_plotting.py."""
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

    def __init__(self, truth: NDArray[np.floating], lean: float = 0.0, stop_after: int | None = None) -> None:
        self.truth, self.lean, self.stop_after = truth, lean, stop_after
        self.calls = 0

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        return np.stack([self._look(crop.astype(np.float64)) for crop in crops]).astype(np.float32)

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
    engine, fits = SeeingEngine(truth.landmarks), []

    def fit(*arguments: Any) -> Relabelled:
        fits.append(arguments[-2:])
        return relabel(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workflow, "relabel", fit)
        reports = relabel_stores(jobs, engine, out, ["jaw"], lambda *args: said.append(args))
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
        assert json.loads(new.attributes["relabelled"]) == {
            "network": SeeingEngine.weights_hash, "follow": ["jaw"], "trust": trust, "from": old.fingerprint(),
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
    out, (first, second), said = relabelled
    assert (first.faces, first.left_out, second.faces, second.left_out) == (20, 1, 6, 0)
    assert first.reasons == {"human points": 1, "prior": 0, "network": 0, "mirror images": 0}
    found = FaceStore(out / "faces.h5").labels
    moved = error(found, truth)[found.split == TRAIN]  # the old labels were the truth
    assert first.moved == pytest.approx((moved.mean(), np.percentile(moved, 95)), rel=1e-3)
    assert first.agreement.keys() == first.reasons.keys()
    assert 0.3 < first.agreement["prior"] < 1.0
    assert second.agreement["prior"] == 0
    assert second.bias == pytest.approx(0, abs=0.2)
    assert said[0] == ("faces", 0, 20)
    assert ("faces", 20, 20) in said
    assert said[-1] == ("more", 6, 6)


@pytest.fixture
def in_batches(monkeypatch: pytest.MonkeyPatch) -> int:
    """Faces.h5 in three batches, more.h5 in one; the calls of each."""
    monkeypatch.setattr(workflow, "_BATCH", 8)
    return 2 * len(workflow._CROP_SCALES)


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

    def progress(name: str, done: int, total: int) -> None:
        kept.append((tmp_path / f".{name}-network.npz").exists())

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
