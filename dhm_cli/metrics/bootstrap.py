"""Intervals of the headline numbers by bootstrap over images, and paired comparisons of two methods; numpy only.

Images are drawn with replacement as often as there are images, and every number is computed again from the drawn ones
(Efron and Tibshirani 1993). A replicate is an (N,) count of how often each image was drawn, so that all numbers but the
median are one product of counts with per-image terms.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dhm_cli.metrics.landmark_error import YAW_BINS, in_yaw_bin

AUC_THRESHOLDS = (7.0, 8.0)
# Numbers of `headline` that are better when larger.
HIGHER_IS_BETTER = tuple(f"auc_{threshold:g}" for threshold in AUC_THRESHOLDS)
# Percent; the interval ends at the percentiles 2.5 and 97.5 of the replicates.
LEVEL = 95
# An interval from fewer images would only look like one: two images drawn again and again never differ much. With 10 to
# 20 images 95 % intervals were seen to hold the truth 88 times in 100.
FEWEST_IMAGES = 20
# Counts of replicates in memory at a time.
_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Difference:
    """A number of one method minus that of another on the same images.

    Attributes:
        value: the difference.
        interval: low and high end at the level `LEVEL`; NaN with fewer than `FEWEST_IMAGES`.
        verdict: "better" or "worse" where the interval excludes zero, for the first method, else "level"; "too few
            images" where there is no interval.
    """

    value: float
    interval: tuple[float, float]
    verdict: str


def headline(
    nme: NDArray[np.floating],
    yaw: NDArray[np.floating],
    threshold: float = 6.0,
    counts: NDArray[np.floating] | None = None,
    measured: NDArray[np.bool_] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """The headline numbers of samples of images.

    Args:
        nme: (N,), percent; NaN where a method gave nothing.
        yaw: (N,), degrees.
        threshold: of the failure rate, percent.
        counts: (B, N), how often each image is in each sample; None for one sample with every image once.
        measured: (N,), images that count in means and median; None for those with an NME.

    Returns:
        Each (B,), percent: the keys of `metrics.nme_by_yaw`, with its rule for bins without a measured image, and
        "median" over the measured images; "failure_rate", "auc_7" and "auc_8" over all, an image without NME being an
        error beyond every threshold. NaN where there is no image.
    """
    nme, yaw = np.asarray(nme, np.float64), np.asarray(yaw, np.float64)
    counts = np.ones((1, len(nme))) if counts is None else np.asarray(counts, np.float64)
    measured = ~np.isnan(nme) if measured is None else measured & ~np.isnan(nme)
    known = np.where(np.isnan(nme), 0.0, nme)
    error = np.where(np.isnan(nme), np.inf, nme)
    inside = np.stack([in_yaw_bin(yaw, name) for name in YAW_BINS])
    masks = [*(measured & inside), measured]
    terms = [np.where(mask, known, 0.0) for mask in masks] + [mask.astype(np.float64) for mask in masks]
    terms.append((~(error <= threshold)).astype(np.float64))
    terms += [np.maximum(limit - error, 0.0) / limit for limit in AUC_THRESHOLDS]
    sums = counts @ np.stack(terms, axis=1)
    images = counts.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums[:, :4] / sums[:, 4:8]
        rates = 100 * sums[:, 8:] / images[:, None]
    bins = means[:, :3]
    there = counts @ inside.T.astype(np.float64) > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_of_bins = np.where(there, bins, 0.0).sum(axis=1) / there.sum(axis=1)
    return {
        **dict(zip(YAW_BINS, bins.T, strict=True)),
        "mean_of_bins": mean_of_bins,
        "mean_of_images": means[:, 3],
        "median": _medians(known[measured], counts[:, measured]),
        "failure_rate": rates[:, 0],
        **{name: rates[:, 1 + k] for k, name in enumerate(HIGHER_IS_BETTER)},
    }


def _medians(values: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median of each sample, (B,): the mean of the two middle values where their number is even."""
    if not len(values):
        return np.full(len(counts), np.nan)
    order = np.argsort(values)
    reached = counts[:, order].cumsum(axis=1)
    total = reached[:, -1:]
    # How many of the sorted values end before the lower and the upper middle one.
    lower, upper = ((reached < rank).sum(axis=1) for rank in ((total + 1) // 2, total // 2 + 1))
    ranked = np.append(values[order], np.nan)  # of an empty sample
    return np.where(total[:, 0] > 0, (ranked[lower] + ranked[upper]) / 2, np.nan)


def resampled_counts(images: int, replicates: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each image is drawn in each replicate, in pieces (b, images) that add up to `replicates` rows.

    Equal seeds give equal draws, which pairs the replicates of two methods.
    """
    rng = np.random.default_rng(seed)
    at_once = max(1, _AT_ONCE // max(images, 1))
    for start in range(0, replicates, at_once):
        rows = min(at_once, replicates - start)
        drawn = rng.integers(0, images, (rows, images)) + images * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)


def headline_intervals(
    nme: NDArray[np.floating],
    yaw: NDArray[np.floating],
    threshold: float = 6.0,
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals of the numbers of `headline`, at the level `LEVEL`.

    Args:
        nme: (N,), percent; NaN where a method gave nothing.
        yaw: (N,), degrees.
        threshold: of the failure rate, percent.
        replicates: how many times the images are drawn.
        seed: of the draws.

    Returns:
        Low and high end of each, percent; NaN where it rests on fewer than `FEWEST_IMAGES`, and for a failure rate of
        0 or 100 %.
    """
    pieces = [headline(nme, yaw, threshold, counts) for counts in resampled_counts(len(nme), replicates, seed)]
    unknown = _too_small(yaw, ~np.isnan(nme))
    if headline(nme, yaw, threshold)["failure_rate"][0] in (0.0, 100.0):
        unknown.add("failure_rate")  # every draw is alike, which says nothing of how rare the other case is
    return _intervals(pieces, unknown)


def compare(
    ours: NDArray[np.floating],
    theirs: NDArray[np.floating],
    yaw: NDArray[np.floating],
    threshold: float = 6.0,
    replicates: int = 2000,
    seed: int = 0,
) -> dict[str, Difference]:
    """Paired bootstrap of two methods on the same images: ours minus theirs.

    Both are computed on the same draws, so that what makes an image hard for both cancels out. Means and medians are
    over the images that both methods gave points for, rates and areas over all.

    Args:
        ours: (N,), percent; NaN where the method gave nothing.
        theirs: (N,), percent, of the same images in the same order.
        yaw: (N,), degrees.
        threshold: of the failure rate, percent.
        replicates: how many times the images are drawn.
        seed: of the draws.

    Returns:
        By the names of `headline`.
    """
    both = ~np.isnan(ours) & ~np.isnan(theirs)

    def difference(counts: NDArray[np.float64] | None) -> dict[str, NDArray[np.float64]]:
        a, b = (headline(nme, yaw, threshold, counts, both) for nme in (ours, theirs))
        return {name: a[name] - b[name] for name in a}

    values = difference(None)
    draws = [difference(counts) for counts in resampled_counts(len(both), replicates, seed)]
    intervals = _intervals(draws, _too_small(yaw, both))
    return {
        name: Difference(float(values[name][0]), intervals[name], _verdict(name, *intervals[name])) for name in values
    }


def _verdict(name: str, low: float, high: float) -> str:
    if np.isnan(low):
        return "too few images"
    if low <= 0 <= high:
        return "level"
    return "better" if (low > 0) == (name in HIGHER_IS_BETTER) else "worse"


def _too_small(yaw: NDArray[np.floating], measured: NDArray[np.bool_]) -> set[str]:
    """The numbers of `headline` that rest on too few images for an interval; the mean of bins rests on every bin."""
    inside = {name: in_yaw_bin(yaw, name) for name in YAW_BINS}
    few = {name for name, mask in inside.items() if (mask & measured).sum() < FEWEST_IMAGES}
    if any(inside[name].any() for name in few):
        few.add("mean_of_bins")
    if measured.sum() < FEWEST_IMAGES:
        few |= {"mean_of_bins", "mean_of_images", "median"}
    if len(measured) < FEWEST_IMAGES:
        few |= {"failure_rate", *HIGHER_IS_BETTER}
    return few


def _intervals(pieces: list[dict[str, NDArray[np.float64]]], too_small: set[str]) -> dict[str, tuple[float, float]]:
    """Percentiles of the replicates of every number."""
    ends = ((100 - LEVEL) / 2, (100 + LEVEL) / 2)
    result = {}
    for name in pieces[0]:
        values = np.concatenate([piece[name] for piece in pieces])
        values = values[~np.isnan(values)]
        low, high = (np.nan, np.nan) if name in too_small or not len(values) else np.percentile(values, ends)
        result[name] = (float(low), float(high))
    return result
