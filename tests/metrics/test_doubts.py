"""How well a network knows its own errors: against scikit-learn's definitions worked by hand, and drawn errors."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

from dhm_cli.metrics.doubts import (
    RIGHT_SHARES,
    SCALES_OF_SIGMA,
    SHAPE,
    WIDE,
    balanced_accuracy,
    kept_errors,
    negative_log_likelihood,
    reliability,
    roc,
    roc_auc,
    share_within,
)


def test_roc_by_hand() -> None:
    scores, positive = np.array([0.9, 0.8, 0.8, 0.3]), np.array([True, True, False, False])
    false, true = roc(scores, positive)
    assert false.tolist() == [0.0, 0.0, 0.5, 1.0]
    assert true.tolist() == [0.0, 0.5, 1.0, 1.0]
    assert roc_auc(scores, positive) == pytest.approx(0.875)  # of four pairs three are right and one is a tie


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 20, 200) / 20, rng.random(200) < 0.3
    above = scores[positive][:, None] - scores[~positive]
    assert roc_auc(scores, positive) == pytest.approx(((above > 0) + 0.5 * (above == 0)).mean())
    assert roc_auc(-scores, positive) == pytest.approx(1 - roc_auc(scores, positive))
    assert math.isnan(roc_auc(scores, np.ones(200, bool)))


def test_balanced_accuracy_does_not_favour_the_many() -> None:
    true = np.array([True] + [False] * 9)
    assert balanced_accuracy(np.zeros(10, bool), true) == 0.5
    assert balanced_accuracy(true, true) == 1.0
    assert math.isnan(balanced_accuracy(true, np.zeros(10, bool)))


def test_reliability_by_tenths() -> None:
    rows = reliability(np.array([0.05, 0.93, 0.97, 1.0]), np.array([False, True, False, True]))
    assert [row.number for row in rows] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 3]
    assert (rows[9].claimed, rows[9].true) == (pytest.approx(2.9 / 3), pytest.approx(2 / 3))
    assert math.isnan(rows[1].claimed)


def test_the_density_holds_what_sigma_says() -> None:
    """C exp(-(d / s)^a) integrates to 1 in the plane, and to the shares that are called right within the radii."""
    constant = SHAPE / (2 * math.pi * math.gamma(2 / SHAPE))

    def inside(radius: float) -> float:
        return quad(lambda d: 2 * math.pi * d * constant * math.exp(-(d**SHAPE)), 0, radius)[0]

    assert inside(60) == pytest.approx(1, abs=1e-6)
    for times, share in zip((1, WIDE, 2), RIGHT_SHARES.values(), strict=True):
        assert 100 * inside(times * SCALES_OF_SIGMA) == pytest.approx(share, abs=0.05)
    # And its likelihood is that density: at d = 0 and one sigma it is - ln C + 2 ln s and as much more as the power.
    at_zero = negative_log_likelihood(np.zeros(1), np.array([3 * SCALES_OF_SIGMA]))
    assert at_zero == pytest.approx(-math.log(constant) + 2 * math.log(3))
    one = negative_log_likelihood(np.array([3.0]), np.array([3 * SCALES_OF_SIGMA]))
    assert one - at_zero == pytest.approx(1.0)


def test_a_true_sigma_has_the_best_likelihood() -> None:
    # d^a / s^a follows a gamma distribution of shape 2 / a.
    rng = np.random.default_rng(1)
    sigma = rng.uniform(0.5, 4, 20_000)
    distances = sigma / SCALES_OF_SIGMA * rng.gamma(2 / SHAPE, size=20_000) ** (1 / SHAPE)
    assert share_within(distances, sigma, 1) == pytest.approx(0.6827, abs=0.01)
    best = negative_log_likelihood(distances, sigma)
    for other in (0.8 * sigma, 1.25 * sigma, np.full_like(sigma, 2.25)):
        assert negative_log_likelihood(distances, other) > best


def test_kept_errors_are_means_over_the_surest() -> None:
    kept = kept_errors(np.array([4.0, 1.0, 7.0]), np.array([0.2, 0.1, 0.3]))
    assert kept.tolist() == [1.0, 2.5, 4.0]
