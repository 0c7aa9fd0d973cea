"""Passes over upright crops, with networks whose answers are known."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from dhm_cli.geometry.crop import crop_matrix, transform_landmarks, turned_square, upright_rolls, upright_squares
from dhm_cli.geometry.pose import estimate_rotation, in_plane_rotation, yaw_pitch_roll_to_matrix
from dhm_cli.inference.engines import Answer
from dhm_cli.inference.passes import find_landmarks

SIZE = 64
# A frontal head, x right, y down, z toward the viewer.
MEAN = np.random.default_rng(3).uniform(-0.5, 0.5, (68, 3)) * [0.9, 1.0, 0.6]
MEAN -= MEAN.mean(axis=0)


class Seer:
    """A network that reads where it looks from the crop: pixels hold the photo's x and y.

    Args:
        truth: (68, 3), photo pixels.
        blind_beyond: it answers the mean face where the head is turned by more than this in its crop, radians, and says
            so in its confidence.
    """

    arch, input_size, mean_shape, weights_hash, doubts = "fast", SIZE, MEAN, "0", True

    def __init__(self, truth: NDArray[np.float64], blind_beyond: float = math.pi) -> None:
        self.truth, self.blind_beyond = truth, blind_beyond
        self.turns: list[float] = []

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.answer(crops).landmarks

    def answer(self, crops: NDArray[np.uint8]) -> Answer:
        landmarks, confidence = [], []
        for crop in crops.astype(np.float64):
            v, u = np.nonzero(crop[..., 2] == 255)
            here = np.stack([u, v, np.ones(len(u))], axis=1)
            back = np.linalg.lstsq(here, crop[v, u, :2], rcond=None)[0].T  # crop -> photo pixels
            turn = math.atan2(back[0, 1], back[0, 0])  # of the crop; the head stands upright in the photo
            self.turns.append(turn)
            there = np.linalg.inv(back[:, :2])
            seen = abs(turn) <= self.blind_beyond
            points = np.column_stack(
                [(self.truth[:, :2] - back[:, 2]) @ there.T, self.truth[:, 2] * abs(np.linalg.det(there)) ** 0.5]
            )
            landmarks.append(points if seen else MEAN * SIZE / 1.5 + [SIZE / 2, SIZE / 2, 0])
            confidence.append(0.96 if seen else 0.1)
        many = len(crops)
        return Answer(
            np.array(landmarks, np.float32), np.ones((many, 68), np.float32), np.ones((many, 68, 3), np.float32) / 3,
            np.array(confidence, np.float32),
        )  # fmt: skip


def photo_and_truth() -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    y, x = np.mgrid[:250, :250].astype(np.uint8)
    return np.dstack([x, y, np.full_like(x, 255)]), MEAN * 90 + [120.0, 130.0, 0.0]


@pytest.mark.parametrize("roll", [0.0, 30.0, -75.0, 90.0, 150.0, 180.0])
def test_the_network_sees_an_upright_crop_whatever_the_roll(roll: float) -> None:
    """It knows heads up to 60 degrees, as the real ones do; beyond, the scout is asked."""
    photo, truth = photo_and_truth()
    scout, engine = Seer(truth), Seer(truth, math.radians(60))
    found = find_landmarks(scout, engine, [photo], [turned_square(truth, math.radians(roll))], 1)
    assert abs(math.remainder(engine.turns[0] - math.radians(roll), 2 * math.pi)) < 0.02
    assert abs(engine.turns[-1]) < 0.02
    assert bool(scout.turns) == (abs(roll) > 60)
    np.testing.assert_allclose(found.landmarks[0], truth, atol=0.7)  # colours are whole numbers
    assert found.sigma is not None
    side = turned_square(truth, 0.0)[1]
    np.testing.assert_allclose(found.sigma, side / SIZE, rtol=0.02)  # photo pixels


@pytest.mark.parametrize("roll", [0.0, 30.0, 100.0, 180.0])
def test_a_network_without_confidence_is_shown_heads_within_45_degrees(roll: float) -> None:
    photo, truth = photo_and_truth()
    scout, engine = Seer(truth), Seer(truth)
    engine.doubts = False
    find_landmarks(scout, engine, [photo], [turned_square(truth, math.radians(roll))], 1)
    assert abs(engine.turns[0]) == pytest.approx(math.radians(roll if roll < 45 else 0), abs=0.02)
    assert abs(engine.turns[1]) < 0.02


def test_without_refining_the_network_looks_at_the_square_itself() -> None:
    photo, truth = photo_and_truth()
    scout, engine = Seer(truth), Seer(truth)
    find_landmarks(scout, engine, [photo], [turned_square(truth, math.radians(90))], 0)
    assert not scout.turns
    assert engine.turns == [pytest.approx(math.pi / 2, abs=0.02)]


def test_a_doubted_face_is_looked_at_in_four_turns() -> None:
    """The scout is blind to heads turned by more than 60 degrees too; one of the turns shows it."""
    photo, truth = photo_and_truth()
    scout, engine = Seer(truth, math.radians(60)), Seer(truth, math.radians(60))
    squares = [turned_square(truth, math.radians(roll)) for roll in (0, 100, 190)]
    found = find_landmarks(scout, engine, [photo] * 3, squares, 1)
    np.testing.assert_allclose(found.landmarks, np.broadcast_to(truth, (3, 68, 3)), atol=0.7)
    np.testing.assert_allclose(found.confidence, 0.96)
    assert 4 <= len(scout.turns) <= 8  # of the two that were doubted, each until it is sure


def test_a_crop_that_was_not_upright_is_followed_by_one_that_is() -> None:
    """A network that is 20 degrees off where a head is turned, and right where it is upright."""
    photo, truth = photo_and_truth()

    class Rough(Seer):
        def answer(self, crops: NDArray[np.uint8]) -> Answer:
            found = super().answer(crops)
            off = math.radians(20) if abs(self.turns[-1]) > math.radians(40) else 0.0
            middle = found.landmarks[..., :2].mean(axis=1, keepdims=True)
            cos, sin = math.cos(off), math.sin(off)
            turned = (found.landmarks[..., :2] - middle) @ np.array([[cos, sin], [-sin, cos]], np.float32) + middle
            return found._replace(landmarks=np.concatenate([turned, found.landmarks[..., 2:]], axis=-1))

    engine = Rough(truth)
    find_landmarks(engine, engine, [photo], [turned_square(truth, math.radians(50))], 1)
    assert [round(abs(math.degrees(turn))) for turn in engine.turns] == [50, 20, 0]


@pytest.mark.parametrize("roll", [0.0, 40.0, -110.0])
def test_upright_squares_turn_the_head_up(roll: float) -> None:
    matrix = crop_matrix(np.array([3.0, 4.0]), 50.0, 50, math.radians(roll))
    turned = transform_landmarks(MEAN * 40, matrix)
    (square,) = upright_squares(turned[None], MEAN)
    centre, side, angle = turned_square(turned, square[2])
    np.testing.assert_allclose(square[0], centre, atol=1e-9)
    assert square[1:] == (pytest.approx(side), angle)
    again = transform_landmarks(turned, crop_matrix(square[0], square[1], SIZE, square[2]))
    upright, flat = (points[:, :2] - points[:, :2].mean(axis=0) for points in (MEAN, again))
    np.testing.assert_allclose(flat / flat.std(), upright / upright.std(), atol=1e-6)
    centre = (again[:, :2].min(axis=0) + again[:, :2].max(axis=0)) / 2
    np.testing.assert_allclose(centre, (SIZE - 1) / 2, atol=1e-6)


def test_upright_rolls_are_those_of_the_rotation() -> None:
    """Of heads turned every way, with noise, the least squares of the axis and the rotation agree."""
    rng = np.random.default_rng(5)
    angles = np.radians(
        np.column_stack([rng.uniform(-80, 80, 40), rng.uniform(-25, 25, 40), rng.uniform(-180, 180, 40)])
    )
    flip = np.diag([1.0, -1.0, 1.0])
    heads = np.stack([MEAN @ flip @ rotation.T @ flip for rotation in yaw_pitch_roll_to_matrix(angles)]) * 80
    heads += rng.normal(0, 1.5, heads.shape)
    expected = in_plane_rotation(estimate_rotation(heads, MEAN))
    off = (upright_rolls(heads, MEAN) - expected + math.pi) % (2 * math.pi) - math.pi
    assert np.degrees(np.abs(off)).max() < 3
