"""Local parabolas against the filter of Savitzky and Golay."""

import numpy as np
from scipy.signal import savgol_filter

from dhm_cli.motion.local_curve import fading, local_value


def test_even_times_and_weights_give_savitzky_and_golay() -> None:
    values = np.random.default_rng(0).normal(0, 1, (15, 3, 2))
    times = np.arange(-7, 8) / 7
    expected = savgol_filter(values, 15, 2, axis=0)[7]
    np.testing.assert_allclose(local_value(values, times, np.ones(15)), expected, atol=1e-6)
    np.testing.assert_allclose(local_value(values, times, np.full((15, 3), 5.0)), expected, atol=1e-6)


def test_a_parabola_passes_whatever_times_and_weights() -> None:
    rng = np.random.default_rng(1)
    times = np.sort(rng.uniform(-1, 1, 12))
    values = (3 - 2 * times + 5 * times**2)[:, None, None]
    np.testing.assert_allclose(local_value(values, times, rng.uniform(0.1, 1, (12, 1))), [[3.0]], atol=1e-6)


def test_few_measurements() -> None:
    np.testing.assert_allclose(local_value(np.full((1, 1, 2), 4.0), np.zeros(1), np.ones(1)), [[4.0, 4.0]], rtol=1e-6)
    line = np.array([1.0, 3.0])[:, None, None]
    np.testing.assert_allclose(local_value(line, np.array([-0.5, 0.5]), np.ones(2)), [[2.0]], rtol=1e-6)


def test_an_unsure_measurement_counts_little() -> None:
    values, weights = np.zeros((9, 1, 1)), np.ones((9, 1))
    values[4], weights[4] = 10.0, 1e-4
    assert abs(local_value(values, np.linspace(-1, 1, 9), weights)[0, 0]) < 0.01


def test_a_stiff_curve_is_a_line() -> None:
    times = np.linspace(-1, 1, 11)
    values = np.repeat((2 + times + 3 * times**2)[:, None, None], 2, axis=1)
    found = local_value(values, times, np.ones((11, 2)), np.array([1.0, 1e9]))
    np.testing.assert_allclose(found[:, 0], [2.0, values[:, 0, 0].mean()], atol=1e-5)


def test_fading() -> None:
    np.testing.assert_allclose(fading(np.array([-1.5, -1, -0.5, 0, 0.5, 1])), [0, 0, 0.5, 1, 0.5, 0], atol=1e-12)
