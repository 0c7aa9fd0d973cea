"""Smoothing: less jitter, no lag for files, blinks stay, states go on, odd times."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from dummy_network import make_mean_shape
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.metrics.steadiness import jitter, lag
from dhm_cli.motion.pose_and_shape import rotations
from dhm_cli.motion.smoothing import make_smoother

SHAPE, RATE, FRAMES = make_mean_shape(), 30.0, 150
SIZE = np.full(FRAMES, 100.0)


def path(moving: bool) -> NDArray[np.float64]:
    """True landmarks of a head, (T, 68, 3), some 100 pixels: at rest, or shaken, moved and scaled."""
    a = 2 * np.pi * np.arange(FRAMES)[:, None] / RATE * moving
    turn = rotations(np.concatenate([0.2 * np.sin(0.5 * a), 0.7 * np.sin(0.6 * a), 0.1 * np.sin(a)], axis=1))
    scale, place = 50 * (1 + 0.1 * np.sin(0.4 * a)), np.concatenate([200 + 40 * np.sin(0.5 * a), 150 + 0 * a, 0 * a], 1)
    return scale[..., None] * SHAPE @ turn.transpose(0, 2, 1) + place[:, None]


def noisy(truth: NDArray[np.float64], seed: int = 0, spread: float = 0.5) -> NDArray[np.float64]:
    return truth + np.random.default_rng(seed).normal(0, spread, truth.shape)


def smoothed(
    how: Any, landmarks: NDArray[np.float64], sigma: NDArray[np.float64] | None = None, times: Sequence[float] = ()
) -> NDArray[np.float64]:
    smoother, found = make_smoother(how, SHAPE, RATE), []
    for row in range(len(landmarks)):
        time = times[row] if times else row / RATE
        found += smoother.add(time, [3], landmarks[row : row + 1], None if sigma is None else sigma[row : row + 1])
    return np.concatenate([*found, *smoother.finish()])


@pytest.mark.parametrize(("how", "share"), [("file", 0.2), ("live", 1 / 3)])
def test_a_face_at_rest_trembles_less(how: str, share: float) -> None:
    truth = path(False)
    raw, after = noisy(truth), smoothed(how, noisy(truth))
    assert jitter(after, truth, SIZE, RATE) < share * jitter(raw, truth, SIZE, RATE)
    assert np.abs(after - truth).mean() < 0.6 * np.abs(raw - truth).mean()


@pytest.mark.parametrize(("how", "latest"), [("none", 0.0), ("file", 0.0), ("live", 1.0)])
def test_lag_behind_a_face_that_moves(how: str, latest: float) -> None:
    truth = path(True)
    found = smoothed(how, noisy(truth))
    assert abs(lag(found, truth, SIZE)) <= latest
    if how == "file":
        assert np.abs(found - truth).mean() < np.abs(noisy(truth) - truth).mean()


def test_no_smoothing_leaves_landmarks_alone() -> None:
    raw = noisy(path(True))
    np.testing.assert_array_equal(smoothed("none", raw), raw)


def test_a_blink_stays() -> None:
    """Both lids of an eye meet for four frames, by a tenth of the face."""
    truth = path(False)
    truth[70:74, 37:39, 1] += 5.0
    truth[70:74, 40:42, 1] -= 5.0
    found = smoothed("file", noisy(truth, spread=0.25))
    apart = (found[:, 37, 1] - found[:, 41, 1]) - (found[60, 37, 1] - found[60, 41, 1])
    assert apart[70:74].min() > 7.0
    assert np.abs(apart[40:60]).max() < 1.0


def test_an_unsure_landmark_is_smoothed_more() -> None:
    truth = path(False)
    sigma = np.ones((FRAMES, 68))
    sigma[:, 30] = 3.0
    raw = noisy(truth)
    for how in ("file", "live"):
        plain, told = (smoothed(how, raw, given)[:, 30] - truth[:, 30] for given in (None, sigma))
        assert np.std(np.diff(told, axis=0)) < 0.9 * np.std(np.diff(plain, axis=0))


def test_frames_come_in_order_and_in_time() -> None:
    smoother, landmarks = make_smoother("file", SHAPE, RATE), path(True)
    counts = [len(list(smoother.add(row / RATE, [1], landmarks[row : row + 1], None))) for row in range(40)]
    assert counts == [0] * 9 + [1] * 31
    assert len(list(smoother.finish())) == 9


def test_faces_that_come_and_go_and_frames_without_any() -> None:
    truth = path(True)
    for how in ("none", "file", "live"):
        smoother, found = make_smoother(how, SHAPE, RATE), []
        for row in range(60):
            numbers = [] if row < 5 or row == 30 else [2] if row < 20 else [2, 7]
            faces = np.repeat(truth[row : row + 1], len(numbers), axis=0)
            found += smoother.add(row / RATE, numbers, faces, None)
        found += smoother.finish()
        assert [len(faces) for faces in found] == [0] * 5 + [1] * 15 + [2] * 10 + [0] + [2] * 29
        for row in (25, 50):
            assert np.abs(found[row] - truth[row]).mean() < 1.5


@pytest.mark.parametrize("how", ["file", "live"])
@pytest.mark.parametrize("times", ["backwards", "same", "gaps", "huge"])
def test_times_that_no_clock_shows(how: str, times: str) -> None:
    ticks = np.arange(60) / RATE
    ticks[30:] += {"backwards": -100.0, "same": 0.0, "gaps": 1e4, "huge": 1e12}[times]
    if times == "same":
        ticks[:] = 0.0
    truth = path(True)[:60]
    found = smoothed(how, truth, times=ticks.tolist())
    assert found.shape == truth.shape
    assert np.abs(found - truth).mean() < 1.5


@pytest.mark.parametrize("how", ["none", "file", "live"])
@pytest.mark.parametrize("stop", [3, 40])
def test_a_state_goes_on_to_the_bit(how: Any, stop: int) -> None:
    landmarks, sigma = np.stack([noisy(path(True), k) for k in (0, 1)], axis=1), np.ones((FRAMES, 2, 68))
    expected, found = [], []
    first, second = (make_smoother(how, SHAPE, RATE) for _ in range(2))
    whole = make_smoother(how, SHAPE, RATE)
    for row in range(60):
        expected += whole.add(row / RATE, [1, 4], landmarks[row], sigma[row])
        if row == stop:
            second.restore({name: value.copy() for name, value in first.state().items()})
            first = second
        found += first.add(row / RATE, [1, 4], landmarks[row], sigma[row])
    np.testing.assert_array_equal([*found, *first.finish()], [*expected, *whole.finish()])


def test_unknown() -> None:
    with pytest.raises(InputError, match="--smooth"):
        make_smoother("median", SHAPE, RATE)  # type: ignore[arg-type]
