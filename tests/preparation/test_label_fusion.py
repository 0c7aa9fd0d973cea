"""Labels fitted again from people, a prior and a network: their conventions, the fit, what is left out, the stores."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from label_examples import NOWHERE, error, labels_of, noise, of_size, part, with_points, xy
from numpy.typing import NDArray
from synthetic_faces import SIDE, mirrored_parameters, random_parameters

from dhm_cli.data.store import FaceLabels
from dhm_cli.geometry.landmarks import JAW, MIRROR, MOUTH, bounding_box, face_size
from dhm_cli.geometry.pose import euler_to_matrix, matrix_to_euler
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.fitting import fit_parameters
from dhm_cli.preparation import label_fusion as relabelling
from dhm_cli.preparation.label_fusion import Convention, FaceFrame, Relabelled, Sources, convention_of_prior, relabel

Array = NDArray[np.float64]
TRAIN, VAL, TEST = range(3)
COUNT = 33


@pytest.fixture(scope="module")
def faces(toy_model: FaceModel) -> FaceLabels:
    """27 training, 4 validation and 2 test faces of all yaws on both sides."""
    yaw, split = np.linspace(-80, 80, COUNT), np.zeros(COUNT, int)
    split[4::8], split[[8, 24]] = VAL, TEST
    return labels_of(toy_model, random_parameters(toy_model, yaw, seed=1), split)


def shown(prior: Array | None, network: Array) -> Sources:
    return Sources(np.full_like(network, np.nan) if prior is None else prior, network, np.zeros(len(network)))


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


def agreed(model: FaceModel, faces: FaceLabels, follow: bool = True, **changes: Any) -> Relabelled:
    """New labels where prior and network tell the truth of `faces`."""
    labels, sources = replace(faces, **changes), shown(xy(faces), xy(faces))
    return relabel(model, labels, sources, Convention(np.zeros((20, 68, 2))), NOWHERE, follow=follow)


def test_labels_come_back_to_the_truth_on_which_all_agree(faces: FaceLabels, toy_model: FaceModel) -> None:
    wrong = faces.landmarks.copy()
    wrong[..., :2] += noise(faces, 0.03, 5, points=1)
    result = agreed(toy_model, faces, follow=False, landmarks=wrong, residual=np.full(COUNT, 9, np.float32))
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


def test_what_people_see_and_the_face_model_cannot_show_is_followed(faces: FaceLabels, toy_model: FaceModel) -> None:
    """Mouths that each face has elsewhere; a point of the mouth that nobody saw goes with the others."""
    many = faces.take(np.tile(np.arange(COUNT), 20))
    offsets = np.zeros((len(many), 68, 2))
    offsets[:, MOUTH] = np.random.default_rng(3).normal(0, 0.02, (len(many), 1, 2))
    seen = xy(many) + FaceFrame(many).leave(offsets)
    labels = with_points(many, seen)
    visibility = labels.visibility.copy()
    visibility[:20, 50] = 0
    labels = replace(labels, visibility=visibility)
    nothing, sources = Convention(np.zeros((20, 68, 2))), shown(xy(many), xy(many))
    fit, followed = (
        relabel(toy_model, labels, sources, nothing, NOWHERE, follow=follow).labels for follow in (False, True)
    )
    far, near = (np.linalg.norm(xy(new) - seen, axis=-1) / face_size(xy(many))[:, None] for new in (fit, followed))
    train = many.split == TRAIN
    assert near[train][:, MOUTH].mean() < 0.3 * far[train][:, MOUTH].mean()
    unseen = np.flatnonzero(train[:20])
    assert near[unseen, 50].mean() < 0.4 * far[unseen, 50].mean()
    np.testing.assert_array_equal(followed.parameters, fit.parameters)
    np.testing.assert_allclose(followed.box, bounding_box(followed.landmarks), atol=1e-4)
    np.testing.assert_array_equal(xy(followed)[many.split == TEST], xy(many)[many.split == TEST])


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
        spread = np.where(np.arange(COUNT) == changed, 9.0, 0.1)
        sources = Sources(xy(faces), network, spread)
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

    300W-LP has such faces: a row that repeats another's points has no label of its own (`preparation.acceptance`), but
    landmarks by its parameters.
    """
    points, visibility = faces.points.copy(), faces.visibility.copy()
    row = int(np.flatnonzero(faces.split == VAL)[0])
    points[row], visibility[row] = np.nan, 0
    labels = replace(faces, points=points, visibility=visibility)
    new = relabel(toy_model, labels, shown(None, xy(faces)), Convention(np.zeros((20, 68, 2))), NOWHERE).labels
    assert np.isfinite(new.residual[row])
    assert error(new, faces)[row] < 1
