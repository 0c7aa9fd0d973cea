"""Metrics against hand-worked values."""

import math

import numpy as np
import pytest

from dhm_cli.metrics import area_under_ced, cumulative_error, failure_rate, nme_by_yaw, normalised_mean_error


def make_truth() -> np.ndarray:
    """One face whose box is 40 by 90 pixels: size 60."""
    points = np.random.default_rng(0).uniform([10, 10, -50], [50, 100, 50], (1, 68, 3))
    points[0, 0, :2], points[0, 1, :2] = (10, 10), (50, 100)
    return points


def test_nme_by_hand() -> None:
    truth = make_truth()
    predicted = truth.copy()
    predicted[..., 2] += 1000.0  # depth does not count
    predicted[0, :34, :2] += [3.0, 4.0]  # half of the points are off by 5 pixels
    before = (predicted.copy(), truth.copy())
    # 2.5 pixels on average over a size of 60
    assert normalised_mean_error(predicted, truth) == pytest.approx([100 * 2.5 / 60])
    np.testing.assert_array_equal((predicted, truth), before)


def test_nme_is_normalised_by_the_truth_not_the_prediction() -> None:
    truth = make_truth()
    predicted = truth * 2
    expected = 100 * np.linalg.norm(truth[0, :, :2], axis=1).mean() / 60
    assert normalised_mean_error(predicted, truth) == pytest.approx([expected])
    assert normalised_mean_error(predicted[..., :2], truth[..., :2]) == pytest.approx([expected])


def test_nme_of_float16_is_computed_in_double() -> None:
    truth = make_truth()
    predicted = truth.astype(np.float16)
    expected = np.linalg.norm((predicted.astype(float) - truth)[..., :2], axis=-1).mean() / 0.6
    assert normalised_mean_error(predicted, truth) == pytest.approx([expected], rel=1e-12)


def test_bins_by_hand() -> None:
    yaw = np.array([0.0, -30.0, 30.1, -60.0, 60.5, -100.0, 351.2])
    nme = np.array([1.0, 3.0, 4.0, 6.0, 7.0, 8.0, 12.0])
    result = nme_by_yaw(nme, yaw)
    assert result == {
        "0-30": 2.0,
        "30-60": 5.0,
        "60-90": 9.0,  # everything beyond 60 degrees counts here
        "mean_of_bins": pytest.approx(16 / 3),
        "mean_of_images": pytest.approx(41 / 7),
    }


def test_an_empty_bin_is_nan_and_left_out_of_the_mean() -> None:
    result = nme_by_yaw(np.array([2.0, 4.0, 9.0]), np.array([1.0, -2.0, 80.0]))
    assert math.isnan(result["30-60"])
    assert result["mean_of_bins"] == 6.0
    assert result["mean_of_images"] == 5.0


def test_no_faces() -> None:
    assert all(math.isnan(value) for value in nme_by_yaw(np.zeros(0), np.zeros(0)).values())


def test_ced_by_hand() -> None:
    nme = np.array([4.0, 1.0, np.nan, 1.0])
    errors, share = cumulative_error(nme)
    np.testing.assert_array_equal(errors, [1.0, 1.0, 4.0, np.inf])
    np.testing.assert_array_equal(share, [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_array_equal(nme, [4.0, 1.0, np.nan, 1.0])


def test_ced_at_any_error_is_a_count() -> None:
    nme = np.round(np.random.default_rng(1).gamma(3, 1.5, 200), 1)  # with equal ones
    errors, share = cumulative_error(nme)
    for t in (0.0, nme[7], 3.3, 4.0, 100.0):
        reached = np.searchsorted(errors, t, side="right")
        assert (share[reached - 1] if reached else 0.0) == np.mean(nme <= t)


def test_failure_rate_by_hand() -> None:
    nme = np.array([6.0, 6.01, 2.0, np.nan, np.inf])
    assert failure_rate(nme) == 60.0
    assert failure_rate(nme, threshold=1.0) == 100.0
    assert failure_rate(nme[:1]) == 0.0


def test_area_under_ced_by_hand() -> None:
    # CED: 0 until 1, 1/3 until 4, 2/3 from there on; over [0, 7] the area is 3 / 3 + 3 * 2 / 3 = 3
    assert area_under_ced(np.array([4.0, np.nan, 1.0]), 7.0) == pytest.approx(100 * 3 / 7)
    assert area_under_ced(np.zeros(4), 7.0) == 100.0
    assert area_under_ced(np.array([7.0, np.nan, np.inf]), 7.0) == 0.0


def test_area_under_ced_is_the_integral() -> None:
    nme = np.random.default_rng(2).gamma(3, 1.5, 300)
    width = 8.0 / 20_000
    middles = (np.arange(20_000) + 0.5) * width
    integral = sum(np.mean(nme <= t) for t in middles) * width
    assert area_under_ced(nme, 8.0) == pytest.approx(100 * integral / 8.0, abs=0.01)


def test_no_image_has_no_rate() -> None:
    nothing = np.zeros(0)
    assert math.isnan(failure_rate(nothing))
    assert math.isnan(area_under_ced(nothing, 7.0))
    assert [len(values) for values in cumulative_error(nothing)] == [0, 0]
