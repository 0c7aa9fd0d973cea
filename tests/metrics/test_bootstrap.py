"""Bootstrap intervals and paired comparisons against counts made by hand and against the plain metrics."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from dhm_cli.metrics.bootstrap import compare, headline_intervals, resampled_counts
from dhm_cli.metrics.headline import headline, images_of
from dhm_cli.metrics.landmark_error import area_under_ced, failure_rate, nme_by_yaw


def make_errors(count: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return rng.gamma(3.0, 1.2, count), rng.uniform(-95.0, 95.0, count)


def expected(nme: NDArray[np.float64], yaw: NDArray[np.float64], threshold: float = 6.0) -> dict[str, float]:
    """The same numbers by the functions of `metrics` on a plain list of images."""
    known = ~np.isnan(nme)
    return {
        **nme_by_yaw(nme, yaw, known),
        "median": float(np.median(nme[known])) if known.any() else math.nan,
        "failure_rate": failure_rate(nme, threshold),
        "auc_7": area_under_ced(nme, 7.0),
        "auc_8": area_under_ced(nme, 8.0),
    }


@pytest.mark.parametrize("count", [1, 2, 7, 400])
def test_headline_is_what_the_metrics_say(count: int) -> None:
    nme, yaw = make_errors(count)
    nme[3::5] = np.nan
    found = headline(images_of(nme, yaw, 5.5))
    for name, value in expected(nme, yaw, 5.5).items():
        assert found[name] == pytest.approx([value], abs=1e-9, nan_ok=True), name


def test_counts_are_repetitions() -> None:
    nme, yaw = make_errors(60)
    nme[[4, 9]] = np.nan
    counts = next(resampled_counts(60, 25, seed=3))
    found = headline(images_of(nme, yaw, 4.0), counts)
    for b, count in enumerate(counts.astype(int)):
        for name, value in expected(np.repeat(nme, count), np.repeat(yaw, count), 4.0).items():
            assert found[name][b] == pytest.approx(value, abs=1e-9), (b, name)


def test_every_replicate_draws_as_many_images_as_there_are() -> None:
    counts = np.concatenate(list(resampled_counts(5000, 1200, seed=1)))  # more than one piece
    assert counts.shape == (1200, 5000)
    np.testing.assert_array_equal(counts.sum(axis=1), 5000)
    assert counts.mean(axis=0) == pytest.approx(np.ones(5000), abs=0.2)
    assert counts.var() == pytest.approx(1.0, abs=0.01)  # Poisson, nearly
    np.testing.assert_array_equal(np.concatenate(list(resampled_counts(5000, 1200, seed=1))), counts)
    assert (next(resampled_counts(5000, 1, seed=2)) != counts[:1]).any()


def test_interval_of_a_mean_is_that_of_the_central_limit() -> None:
    nme, yaw = make_errors(2000)
    low, high = headline_intervals(nme, yaw)["mean_of_images"]
    half = 1.96 * nme.std() / np.sqrt(2000)
    assert (low, high) == pytest.approx((nme.mean() - half, nme.mean() + half), abs=0.1 * half)
    low, high = headline_intervals(nme, yaw)["failure_rate"]
    rate = failure_rate(nme)
    half = 1.96 * np.sqrt(rate * (100 - rate) / 2000)
    assert (low, high) == pytest.approx((rate - half, rate + half), abs=0.15 * half)


def test_the_order_of_images_and_the_number_of_pieces_do_not_matter() -> None:
    nme, yaw = make_errors(300)
    order = np.random.default_rng(5).permutation(300)
    shuffled = headline(images_of(nme[order], yaw[order], 6.0))
    for name, value in headline(images_of(nme, yaw, 6.0)).items():
        np.testing.assert_allclose(shuffled[name], value, rtol=1e-12)


def test_a_constant_error_has_no_spread() -> None:
    yaw = np.array([0.0, 10.0, 40.0, 50.0, 70.0, 80.0] * 20)
    intervals = headline_intervals(np.full(120, 3.0), yaw, replicates=200)
    for name, value in (("mean_of_bins", 3.0), ("median", 3.0), ("auc_7", 100 * 4 / 7)):
        assert intervals[name] == pytest.approx((value, value))
    assert np.isnan(intervals["failure_rate"]).all()  # that none of 120 failed does not say that none ever will


def test_no_interval_and_no_verdict_from_a_handful_of_images() -> None:
    nme = 2 * make_errors(50)[0]  # some of them large, so that no rate is 0
    yaw = np.repeat([0.0, 70.0], 25)  # the bin between is empty
    intervals = headline_intervals(nme, yaw, replicates=200)
    assert np.isnan(intervals.pop("30-60")).all()
    assert np.isfinite(list(intervals.values())).all()
    yaw[:3] = 40.0
    intervals = headline_intervals(nme, yaw, replicates=200)
    assert np.isnan([intervals.pop("30-60"), intervals.pop("mean_of_bins")]).all()
    assert np.isfinite(list(intervals.values())).all()
    found = compare(nme, nme + 1, yaw, replicates=200)
    assert (found["30-60"].verdict, found["30-60"].value) == ("too few images", pytest.approx(-1.0))
    assert (found["0-30"].verdict, found["mean_of_bins"].verdict) == ("better", "too few images")
    assert all(change.verdict == "too few images" for change in compare(nme[:19], nme[:19] + 1, yaw[:19]).values())


def test_pairing_finds_a_difference_that_two_intervals_hide() -> None:
    theirs, yaw = make_errors(400)
    ours = theirs - 0.05 + np.random.default_rng(1).normal(0, 0.05, 400)
    apart = [headline_intervals(nme, yaw)["mean_of_bins"] for nme in (ours, theirs)]
    assert apart[0][1] > apart[1][0]  # the intervals overlap
    found = compare(ours, theirs, yaw)["mean_of_bins"]
    assert found.verdict == "better"
    assert found.value == pytest.approx(-0.05, abs=0.01)
    assert found.interval[0] < found.value < found.interval[1] < 0
    assert compare(theirs, ours, yaw)["mean_of_bins"].verdict == "worse"


def test_a_larger_area_is_better_and_a_larger_failure_rate_worse() -> None:
    yaw = np.linspace(-90, 90, 200)
    good, bad = np.full(200, 2.0), np.full(200, 6.5)
    found = compare(good, bad, yaw)
    assert (found["auc_7"].value, found["auc_7"].verdict) == (pytest.approx(100 * 4.5 / 7), "better")
    assert (found["failure_rate"].value, found["failure_rate"].verdict) == (-100.0, "better")
    assert compare(bad, good, yaw)["auc_7"].verdict == "worse"
    assert compare(bad, good, yaw)["failure_rate"].verdict == "worse"


def test_a_method_is_level_with_itself_and_noise_is_no_difference() -> None:
    nme, yaw = make_errors(500)
    for change in compare(nme, nme, yaw, replicates=100).values():
        assert (change.value, change.interval, change.verdict) == (0.0, (0.0, 0.0), "level")
    noisy = nme + np.random.default_rng(3).normal(0, 0.5, 500)
    noisy += nme.mean() - noisy.mean()
    assert compare(noisy, nme, yaw)["mean_of_images"].verdict == "level"


def test_means_are_over_images_that_both_found_and_rates_over_all() -> None:
    yaw = np.zeros(4)
    ours, theirs = np.array([1.0, 2.0, np.nan, 4.0]), np.array([2.0, np.nan, 3.0, 6.5])
    found = compare(ours, theirs, yaw, replicates=100)
    assert found["mean_of_images"].value == pytest.approx(2.5 - 4.25)
    assert found["median"].value == pytest.approx(2.5 - 4.25)
    assert found["failure_rate"].value == pytest.approx(25.0 - 50.0)
    assert found["auc_7"].value == pytest.approx(100 * ((6 + 5 + 0 + 3) - (5 + 0 + 4 + 0.5)) / 7 / 4)
