"""Jitter and lag of known paths."""

import numpy as np
import pytest

from dhm_cli.metrics.steadiness import jitter, lag

FRAMES = 200
SIZE = np.full(FRAMES, 100.0)
TIMES = np.arange(FRAMES)


def wave(times: np.ndarray, period: float, height: float = 1.0) -> np.ndarray:
    """(T, 4, 2), pixels."""
    return np.repeat(height * np.sin(2 * np.pi * times / period)[:, None, None], 4, axis=1) * [1.0, 0.5] + 50.0


# What white noise of 1 pixel in x and y gives: the length of (1 less the weights' middle, the other weights).
_WEIGHTS = np.sin(np.pi * np.arange(1, 12) / 12) ** 2 / 6
OF_NOISE = np.sqrt(2) * np.linalg.norm(np.eye(11)[5] - _WEIGHTS)


def test_jitter_of_white_noise_is_its_spread_less_what_is_slow() -> None:
    noise = np.random.default_rng(0).normal(0, 1, (FRAMES, 68, 2))
    assert jitter(50 + noise, np.full_like(noise, 50), SIZE, 30.0) == pytest.approx(OF_NOISE, rel=0.02)
    assert 0.85 * np.sqrt(2) < OF_NOISE < np.sqrt(2)


@pytest.mark.parametrize(("period", "share", "limit"), [(3, 0.95, 1.1), (60, 0.0, 0.05), (1e9, 0.0, 1e-9)])
def test_jitter_is_what_is_fast(period: float, share: float, limit: float) -> None:
    found = jitter(wave(TIMES, period), np.full((FRAMES, 4, 2), 50.0), SIZE, 30.0)
    whole = np.sqrt((1 + 0.25) / 2)
    assert share * whole <= found <= limit * whole


def test_jitter_of_a_motion_that_is_followed() -> None:
    assert jitter(wave(TIMES, 8) + 3, wave(TIMES, 8), SIZE, 30.0) == pytest.approx(0, abs=1e-9)


def test_frames_without_faces() -> None:
    noise = np.random.default_rng(0).normal(0, 1, (FRAMES, 68, 2))
    noise[50] = np.nan
    assert jitter(noise, np.zeros_like(noise), SIZE, 30.0) == pytest.approx(OF_NOISE, rel=0.02)
    assert np.isnan(jitter(noise[:8], np.zeros_like(noise[:8]), SIZE[:8], 30.0))
    assert np.isnan(jitter(noise * np.nan, np.zeros_like(noise), SIZE, 30.0))
    assert np.isnan(lag(wave(TIMES, 40, 20) * np.nan, wave(TIMES, 40, 20), SIZE))


@pytest.mark.parametrize("late", [-1.5, 0.0, 0.4, 3.0])
def test_lag(late: float) -> None:
    truth, found = wave(TIMES, 40, 20), wave(TIMES - late, 40, 20) + 2.0
    found[77] = np.nan
    noise = np.random.default_rng(0).normal(0, 0.2, truth.shape)
    assert lag(found + noise, truth, SIZE) == pytest.approx(late, abs=0.06)


def test_a_face_at_rest_has_no_lag() -> None:
    assert np.isnan(lag(wave(TIMES, 40, 1), wave(TIMES, 40, 1), SIZE))
