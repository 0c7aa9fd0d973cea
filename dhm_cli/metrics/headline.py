"""The headline numbers of a report, each told once: name, title, unit, definition, and what each image adds to it.

The report, its page, the terminal and the bootstrap are filled from `HEADLINE`. A new number is one entry of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dhm_cli.metrics.landmark_error import YAW_BINS, in_yaw_bin

Values = NDArray[np.float64]


class Images(NamedTuple):
    """N images with the error of a method on each.

    Attributes:
        known: (N,), NME in percent, 0 where the method gave nothing.
        error: (N,), the same with infinity where it gave nothing: an error beyond every threshold.
        measured: (N,), images that count in means and median.
        inside: (N,) masks by the names of the yaw bins.
        threshold: of the failure rate, percent.
    """

    known: Values
    error: Values
    measured: NDArray[np.bool_]
    inside: Mapping[str, NDArray[np.bool_]]
    threshold: float


# What each image adds, and what it weighs, (N,) each: the number is their sums' ratio over the images drawn.
Term = Callable[[Images], tuple[Values, Values]]
# From the numbers found so far by name, (B,) each, the images and how often each is in each sample (B, N): (B,).
Rule = Callable[[Mapping[str, Values], Images, Values], Values]


@dataclass(frozen=True)
class HeadlineNumber:
    """One number of `HEADLINE`.

    Attributes:
        name: its key in code.
        place: its keys in `report.json`.
        title: for tables; `{threshold}` stands for that of the failure rate.
        short: the same for the head of a column.
        definition: one sentence; `{threshold}` as in the title.
        defined_as: its key among the definitions of a report; several numbers may share one sentence.
        count: how many images it rests on: an interval from too few would only look like one.
        term: where it is a mean over images.
        rule: where it is anything else; computed after all terms.
        scale: of the ratio of the sums: 100 makes a share a percentage.
        unit: of the number.
        higher_is_better: else a lower one is.
        saturates: at 0 and 100 % every draw is alike, which says nothing of how rare the other case is.
        section_ends: draw a line behind it in tables.
    """

    name: str
    place: tuple[str, ...]
    title: str
    short: str
    definition: str
    defined_as: str
    count: Callable[[Images], int]
    term: Term | None = None
    rule: Rule | None = None
    scale: float = 1.0
    unit: str = "%"
    higher_is_better: bool = False
    saturates: bool = False
    section_ends: bool = False


def _ratio(sums: Values, weights: Values) -> Values:
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums / weights


def _mean_in(name: str, images: Images) -> tuple[Values, Values]:
    mask = images.measured & images.inside[name]
    return np.where(mask, images.known, 0.0), mask.astype(np.float64)


def _count_in(name: str, images: Images) -> int:
    return int((images.inside[name] & images.measured).sum())


def _mean_of_bins(found: Mapping[str, Values], images: Images, counts: Values) -> Values:
    bins = np.stack([found[name] for name in YAW_BINS], axis=1)
    there = counts @ np.stack(list(images.inside.values()), axis=1).astype(np.float64) > 0
    return _ratio(np.where(there, bins, 0.0).sum(axis=1), there.sum(axis=1))


def _smallest_bin(images: Images) -> int:
    """Of the bins that have images: the mean of bins rests on every one of them."""
    return min((_count_in(name, images) for name, mask in images.inside.items() if mask.any()), default=0)


def _mean_of_images(images: Images) -> tuple[Values, Values]:
    return np.where(images.measured, images.known, 0.0), images.measured.astype(np.float64)


def _measured(images: Images) -> int:
    return int(images.measured.sum())


def _median(_: Mapping[str, Values], images: Images, counts: Values) -> Values:
    """The mean of the two middle values where their number is even."""
    values, counts = images.known[images.measured], counts[:, images.measured]
    if not len(values):
        return np.full(len(counts), np.nan)
    order = np.argsort(values)
    reached = counts[:, order].cumsum(axis=1)
    total = reached[:, -1:]
    # How many of the sorted values end before the lower and the upper middle one.
    lower, upper = ((reached < rank).sum(axis=1) for rank in ((total + 1) // 2, total // 2 + 1))
    ranked = np.append(values[order], np.nan)  # of an empty sample
    return np.where(total[:, 0] > 0, (ranked[lower] + ranked[upper]) / 2, np.nan)


def _failures(images: Images) -> tuple[Values, Values]:
    return (~(images.error <= images.threshold)).astype(np.float64), np.ones(len(images.error))


def _area(limit: float, images: Images) -> tuple[Values, Values]:
    return np.maximum(limit - images.error, 0.0) / limit, np.ones(len(images.error))


def _all(images: Images) -> int:
    return len(images.error)


def _bin(name: str) -> HeadlineNumber:
    return HeadlineNumber(
        name,
        ("nme", name),
        f"NME, |yaw| {name}",
        name.replace("-", "\N{EN DASH}") + "°",
        "by the absolute yaw of the fitted pose: up to 30 degrees, beyond 30 up to 60, beyond 60 (also beyond 90); "
        "nme_by_labelled_yaw has the same by the yaw of the dataset's own labels",
        "bins",
        partial(_count_in, name),
        term=partial(_mean_in, name),
        section_ends=name == "60-90",
    )


def _auc(limit: int) -> HeadlineNumber:
    return HeadlineNumber(
        f"auc_{limit}",
        ("auc", str(limit)),
        f"AUC@{limit}",
        f"AUC@{limit}",
        "exact integral of the CED from 0 to the threshold, over the threshold; in percent",
        "auc",
        _all,
        term=partial(_area, float(limit)),
        scale=100.0,
        higher_is_better=True,
    )


HEADLINE: tuple[HeadlineNumber, ...] = (
    *(_bin(name) for name in YAW_BINS),
    HeadlineNumber(
        "mean_of_bins",
        ("nme", "mean_of_bins"),
        "NME, mean of bins",
        "mean of bins",
        "mean of the NMEs of the bins that have faces; none where the method found no face of a bin",
        "mean_of_bins",
        _smallest_bin,
        rule=_mean_of_bins,
    ),
    HeadlineNumber(
        "mean_of_images",
        ("nme", "mean_of_images"),
        "NME, mean of images",
        "mean of images",
        "mean of the NMEs of all images",
        "mean_of_images",
        _measured,
        term=_mean_of_images,
    ),
    HeadlineNumber(
        "median",
        ("median",),
        "median NME",
        "median",
        "of the NMEs of the images",
        "median",
        _measured,
        rule=_median,
        section_ends=True,
    ),
    HeadlineNumber(
        "failure_rate",
        ("failure_rate",),
        "failures beyond {threshold:g} %",
        "FR@{threshold:g}",
        "share of the images with an NME above {threshold:g} %",
        "failure_rate",
        _all,
        term=_failures,
        scale=100.0,
        saturates=True,
    ),
    _auc(7),
    _auc(8),
)
AUC_THRESHOLDS = tuple(float(number.place[1]) for number in HEADLINE if number.place[0] == "auc")


def images_of(
    nme: NDArray[np.floating],
    yaw: NDArray[np.floating],
    threshold: float,
    measured: NDArray[np.bool_] | None = None,
) -> Images:
    """What `headline` needs to know of N images.

    Args:
        nme: (N,), percent; NaN where a method gave nothing.
        yaw: (N,), degrees.
        threshold: of the failure rate, percent.
        measured: (N,), images that count in means and median; None for those with an NME.
    """
    nme, yaw = np.asarray(nme, np.float64), np.asarray(yaw, np.float64)
    lost = np.isnan(nme)
    return Images(
        known=np.where(lost, 0.0, nme),
        error=np.where(lost, np.inf, nme),
        measured=~lost if measured is None else measured & ~lost,
        inside={name: in_yaw_bin(yaw, name) for name in YAW_BINS},
        threshold=threshold,
    )


def headline(images: Images, counts: NDArray[np.floating] | None = None) -> dict[str, Values]:
    """The numbers of `HEADLINE` on samples of images.

    Args:
        images: N images.
        counts: (B, N), how often each image is in each sample; None for one sample with every image once.

    Returns:
        Each (B,), percent, by name in the order of `HEADLINE`; NaN where there is no image.

    Example:
        >>> import numpy as np
        >>> from dhm_cli.metrics.headline import headline, images_of
        >>> images = images_of(np.array([2.0, 4.0, 9.0]), np.array([0.0, -40.0, 70.0]), threshold=6.0)
        >>> {name: round(float(value[0]), 2) for name, value in headline(images).items()}["mean_of_bins"]
        5.0
    """
    counts = np.ones((1, len(images.known))) if counts is None else np.asarray(counts, np.float64)
    means = [(number, *number.term(images)) for number in HEADLINE if number.term is not None]
    sums = counts @ np.stack([term for _, term, _ in means], axis=1)
    weights = counts @ np.stack([weight for _, _, weight in means], axis=1)
    found = {
        number.name: _ratio(number.scale * total, weight)
        for (number, _, _), total, weight in zip(means, sums.T, weights.T, strict=True)
    }
    for number in HEADLINE:
        if number.rule is not None:
            found[number.name] = number.rule(found, images, counts)
    return {number.name: found[number.name] for number in HEADLINE}


def nested(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Values by name -> the same at their places in `report.json`."""
    result: dict[str, Any] = {}
    for number in HEADLINE:
        *outer, last = number.place
        inside = result
        for key in outer:
            inside = inside.setdefault(key, {})
        inside[last] = numbers[number.name]
    return result
