"""The One Euro filter against the scalar algorithm of the paper."""

import math

import numpy as np
import pytest

from dhm_cli.motion.one_euro import OneEuro


class LowPass:
    """Algorithm 2 of Casiez et al. 2012: the exponential smoothing that the filter is made of."""

    def __init__(self) -> None:
        self.before: float | None = None

    def filter(self, x: float, alpha: float) -> float:
        if self.before is None:
            self.before = x
        else:
            self.before = alpha * x + (1 - alpha) * self.before
        return self.before


def reference(values: list[float], periods: list[float], mincutoff: float, beta: float, dcutoff: float) -> list[float]:
    """Algorithm 1, one number at a time; tau = 1 / (2 pi fc) and alpha = 1 / (1 + tau / Te)."""

    def alpha(cutoff: float, period: float) -> float:
        tau = 1.0 / (2 * math.pi * cutoff)
        return 1.0 / (1.0 + tau / period)

    x_filter, dx_filter, out = LowPass(), LowPass(), []
    for x, period in zip(values, periods, strict=True):
        dx = 0.0 if x_filter.before is None else (x - x_filter.before) / period
        edx = dx_filter.filter(dx, alpha(dcutoff, period))
        out.append(x_filter.filter(x, alpha(mincutoff + beta * abs(edx), period)))
    return out


def test_many_signals_at_once_are_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    values, periods = rng.normal(0, 1, (50, 7, 1)).cumsum(axis=0), rng.uniform(0.01, 0.1, 50)
    one_euro = OneEuro(1.2, 0.5, 1.5)
    found = np.array([one_euro(value, period) for value, period in zip(values, periods, strict=True)])
    for k in range(7):
        expected = reference(values[:, k, 0].tolist(), periods.tolist(), 1.2, 0.5, 1.5)
        np.testing.assert_allclose(found[:, k, 0], expected, rtol=1e-12)


def test_speeds_below_the_least_one_count_as_rest() -> None:
    """Noise below it is filtered by the least cut-off alone, and a jump well above it as in the paper's filter."""
    noise = np.random.default_rng(5).normal(0, 0.01, (100, 3, 2))
    quiet, rest, lively = OneEuro(1.0, 50.0, least_speed=0.3), OneEuro(1.0, 0.0), OneEuro(1.0, 50.0)
    for value in noise:
        expected = rest(value, 0.03)
        np.testing.assert_array_equal(quiet(value, 0.03), expected)
        lively(value, 0.03)
    jump = np.full((3, 2), 5.0)
    for _ in range(3):
        quiet(jump, 0.03)
        rest(jump, 0.03)
        lively(jump, 0.03)
    late = [float(5.0 - one_euro(jump, 0.03).mean()) for one_euro in (quiet, lively, rest)]
    assert late[0] == pytest.approx(late[1], abs=0.01)
    assert late[2] > 1.0


def test_the_speed_of_a_vector_is_its_length() -> None:
    """A vector that is turned is filtered alike."""
    rng, turn = np.random.default_rng(1), np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    plain, turned = OneEuro(1.0, 2.0), OneEuro(1.0, 2.0)
    for value in rng.normal(0, 1, (20, 4, 3)).cumsum(axis=0):
        np.testing.assert_allclose(turned(value @ turn, 0.03), plain(value, 0.03) @ turn, atol=1e-12)


def test_a_state_goes_on_to_the_bit() -> None:
    values = np.random.default_rng(3).normal(0, 1, (20, 5, 2)).cumsum(axis=0)
    whole, first, second = OneEuro(1.0, 2.0), OneEuro(1.0, 2.0), OneEuro(1.0, 2.0)
    expected = [whole(value, 0.04, 2.0) for value in values]
    for value in values[:9]:
        first(value, 0.04, 2.0)
    second.restore(first.state())
    np.testing.assert_array_equal([second(value, 0.04, 2.0) for value in values[9:]], expected[9:])


@pytest.mark.parametrize(("slower", "steadier"), [(1.0, False), (3.0, True)])
def test_what_is_unsure_moves_less(slower: float, steadier: bool) -> None:
    noise = np.random.default_rng(4).normal(0, 0.01, (200, 1, 1))
    usual, other = OneEuro(1.0, 0.0), OneEuro(1.0, 0.0)
    spread = np.std([usual(value, 0.03) for value in noise]), np.std([other(value, 0.03, slower) for value in noise])
    assert (spread[1] < 0.8 * spread[0]) == steadier
