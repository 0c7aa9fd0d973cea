"""How well a network knows its own errors: confidence, visibility and sigma against the truth; numpy only."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Errors in x,y are told by the density C exp(-(d / s)^a), C = a / (2 pi s^2 G(2 / a)), with this a: its tail lies
# between those of Laplace's (1) and Gauss's (2), and is that of the networks' errors on validation faces.
SHAPE = 1.4
# One sigma, the radius that holds 68.27 % of it, is this many s; 1.79 sigma hold 95 %, two 97.2 %.
SCALES_OF_SIGMA = 1.4466
WIDE = 1.788
# What should lie within one sigma, `WIDE` sigma and two, percent.
RIGHT_SHARES = {"within_one": 68.27, "within_wide": 95.0, "within_two": 97.2}


class ReliabilityBin(NamedTuple):
    """What became of the claims of one tenth of the range of confidence.

    Attributes:
        number: how many claims.
        claimed: their mean, 0 to 1; NaN where there is none, as the next one.
        true: share of them that were right, 0 to 1.
    """

    number: int
    claimed: float
    true: float


def roc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The receiver operating characteristic (Fawcett 2006).

    Args:
        scores: (N,), higher for what is held to be positive.
        positive: (N,), the truth.

    Returns:
        False positive rate and true positive rate, both rising from 0 to 1, one point for each score that occurs and
        one more at the start.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    ranked, hits = np.asarray(scores, np.float64)[order], np.asarray(positive, bool)[order]
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    true, false = np.cumsum(hits)[ends], np.cumsum(~hits)[ends]
    return np.append(0.0, false / max(1, (~hits).sum())), np.append(0.0, true / max(1, hits.sum()))


def roc_auc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Area under the ROC: the chance that a positive has a higher score than a negative, ties counting half.

    Args:
        scores: (N,).
        positive: (N,).

    Returns:
        0 to 1, 0.5 for guessing; NaN where all are positive or none is.

    Example:
        >>> roc_auc(np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False]))
        0.75
    """
    positive = np.asarray(positive, bool)
    if positive.all() or not positive.any():
        return math.nan
    false, true = roc(scores, positive)
    return float(np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2))


def balanced_accuracy(claimed: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """Mean of the share of the true ones that are claimed and of the others that are not, 0 to 1.

    Args:
        claimed: (N,).
        true: (N,).

    Returns:
        NaN where all are true or none is.
    """
    claimed, true = np.asarray(claimed, bool), np.asarray(true, bool)
    if true.all() or not true.any():
        return math.nan
    return float((claimed[true].mean() + (~claimed[~true]).mean()) / 2)


def reliability(claims: NDArray[np.floating], right: NDArray[np.bool_], bins: int = 10) -> list[ReliabilityBin]:
    """Claims of a confidence against what became of them, by equal parts of the range 0 to 1 (Guo et al. 2017).

    Args:
        claims: (N,), 0 to 1.
        right: (N,), whether what was claimed holds.
        bins: how many parts.
    """
    part = np.minimum((np.asarray(claims, np.float64) * bins).astype(int), bins - 1)
    found = []
    for number in range(bins):
        inside = part == number
        count = int(inside.sum())
        claimed, true = (float(values[inside].mean()) if count else math.nan for values in (claims, right))
        found.append(ReliabilityBin(count, claimed, true))
    return found


def share_within(distances: NDArray[np.floating], sigma: NDArray[np.floating], times: float) -> float:
    """Share of errors within some times their sigma, 0 to 1.

    Args:
        distances: any shape, errors in x,y.
        sigma: the same shape and unit.
        times: how many sigma.
    """
    return float((np.asarray(distances) <= times * np.asarray(sigma)).mean())


def negative_log_likelihood(distances: NDArray[np.floating], sigma: NDArray[np.floating]) -> float:
    """Mean of -ln p of errors in the plane under the density above, s = sigma / `SCALES_OF_SIGMA`.

    Args:
        distances: any shape, errors in x,y, in percent of the face size or pixels.
        sigma: the same shape and unit.

    Returns:
        Nats; it depends on the unit.
    """
    scale = np.asarray(sigma, np.float64) / SCALES_OF_SIGMA
    constant = math.log(2 * math.pi * math.gamma(2 / SHAPE) / SHAPE)
    return float(((np.asarray(distances) / scale) ** SHAPE + 2 * np.log(scale) + constant).mean())


def kept_errors(errors: NDArray[np.floating], doubts: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean error of the faces that are kept when the most doubtful ones are dropped.

    Args:
        errors: (N,).
        doubts: (N,), higher where less sure.

    Returns:
        (N,): entry k - 1 is the mean over the k surest faces.
    """
    ordered = np.asarray(errors, np.float64)[np.argsort(doubts, kind="stable")]
    return np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
