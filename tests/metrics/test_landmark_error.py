"""Metrics against hand-worked values."""

import itertools
import math

import numpy as np
import pytest

from dhm_cli.errors import InputError
from dhm_cli.metrics.landmark_error import (
    NORMALISERS,
    area_under_ced,
    cumulative_error,
    failure_rate,
    landmark_errors,
    nme_by_yaw,
    normalised_mean_error,
    normaliser,
)


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


def test_a_bin_without_any_error_is_not_hidden_in_the_mean() -> None:
    nme, yaw = np.array([2.0, 4.0, np.nan, np.nan]), np.array([1.0, 45.0, -40.0, 80.0])
    measured = ~np.isnan(nme)
    result = nme_by_yaw(nme, yaw, measured)
    assert (result["0-30"], result["30-60"], result["mean_of_images"]) == (2.0, 4.0, 3.0)
    assert math.isnan(result["60-90"])
    assert math.isnan(result["mean_of_bins"])
    assert nme_by_yaw(nme[:3], yaw[:3], measured[:3])["mean_of_bins"] == 3.0
    assert math.isnan(nme_by_yaw(nme, yaw)["mean_of_images"])  # a network that diverged must not look good


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


def test_normalisers_by_hand() -> None:
    truth = make_truth()
    truth[0, 36], truth[0, 45] = (20, 30, 9), (44, 62, -9)
    assert normaliser(truth, "bbox") == pytest.approx([60.0])
    assert normaliser(truth, "diagonal") == pytest.approx([np.hypot(40, 90)])
    assert normaliser(truth, "interocular") == pytest.approx([40.0])  # sqrt(24^2 + 32^2); depth does not count
    predicted = truth + np.array([3.0, 4.0, 0.0])
    for kind, size in (("bbox", 60.0), ("diagonal", np.hypot(40, 90)), ("interocular", 40.0)):
        assert normalised_mean_error(predicted, truth, kind) == pytest.approx([500 / size])


def test_an_unknown_normaliser_is_named() -> None:
    with pytest.raises(InputError, match="'pupils'") as caught:
        normaliser(make_truth(), "pupils")
    assert all(kind in caught.value.hint for kind in NORMALISERS)


def test_landmark_errors_by_hand() -> None:
    truth = make_truth()
    predicted = truth.copy()
    predicted[0, 5, :2] += [0.0, -6.0]
    predicted[0, 7, 2] += 50.0
    errors = landmark_errors(predicted, truth)
    assert errors.shape == (1, 68)
    assert errors[0, 5] == pytest.approx(10.0)
    assert np.delete(errors[0], 5) == pytest.approx(0.0)


def test_depth_is_compared_after_both_are_centred() -> None:
    truth = make_truth()
    assert landmark_errors(truth + np.array([0.0, 0.0, 77.0]), truth, depth=True) == pytest.approx(0.0, abs=1e-9)
    predicted = truth.copy()
    predicted[0, 0, 2] += 68.0  # moves the mean by 1
    errors = landmark_errors(predicted, truth, depth=True)[0]
    assert errors[0] == pytest.approx(100 * 67 / 60)
    assert errors[1:] == pytest.approx(100 / 60)
    predicted[0, 3, :2] += [4.0, 8.0]  # x and y are not centred
    assert landmark_errors(predicted, truth, depth=True)[0, 3] == pytest.approx(100 * 9 / 60)


def test_points_that_are_not_of_the_same_faces_are_refused() -> None:
    truth = np.repeat(make_truth(), 3, axis=0)
    for predicted in (truth[:1], truth[0], truth[:, :51]):  # numpy would spread the first two over all faces
        with pytest.raises(InputError, match="shape"):
            normalised_mean_error(predicted, truth)
    with pytest.raises(InputError, match="shape"):
        landmark_errors(truth[..., :2], truth, depth=True)


def test_a_face_that_was_not_found_has_no_error() -> None:
    truth = np.repeat(make_truth(), 2, axis=0)
    predicted = truth.copy()
    predicted[0] = np.nan
    nme = normalised_mean_error(predicted, truth)
    assert math.isnan(nme[0])
    assert nme[1] == 0.0


def test_ced_rises_from_its_exact_start_to_its_exact_end() -> None:
    nme = np.random.default_rng(4).gamma(3, 1.5, 500)
    nme[::50] = np.nan
    errors, share = cumulative_error(nme)
    assert (np.diff(errors[:490]) >= 0).all()
    assert (np.diff(share) > 0).all()
    assert share[0] == 1 / 500
    assert share[-1] == 1.0
    assert np.isinf(errors[490:]).all()
    assert 100 - 100 * share[np.searchsorted(errors, 6.0, side="right") - 1] == pytest.approx(failure_rate(nme))


@pytest.mark.parametrize("threshold", [0.5, 6.0, 7.0, 8.0])
def test_area_and_rate_agree_with_a_step_by_step_integral(threshold: float) -> None:
    nme = np.round(np.random.default_rng(6).gamma(3, 1.5, 777), 2)  # with equal ones
    nme[5] = np.nan
    edges = sorted({0.0, threshold, *(float(e) for e in nme if e < threshold)})
    # Between two neighbouring errors the CED is the share of the images up to the lower one.
    area = sum((b - a) * sum(1 for e in nme if e <= a) / 777 for a, b in itertools.pairwise(edges))
    assert area_under_ced(nme, threshold) == pytest.approx(100 * area / threshold, abs=1e-9)
    good = sum(1 for e in nme if e <= threshold)
    assert failure_rate(nme, threshold) == pytest.approx(100 - 100 * good / 777, abs=1e-9)
