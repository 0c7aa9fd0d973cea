"""Accuracy metrics of face alignment, numpy only, so that any method's points can be scored.

NME, its bins by yaw, the cumulative error distribution (CED) with its failure rate and area: definitions of the
AFLW2000-3D evaluation (Zhu et al. 2016; Sun et al. 2018, section 4), each in the docstring of its function. Intervals
and comparisons of methods are in `dhm_cli.metrics.bootstrap`.
"""

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import bounding_box, face_size

# What an error is divided by (`normaliser` says what each is), and what it is then printed in.
NORMALISERS = {"bbox": "% of face size", "interocular": "% of eye distance", "diagonal": "% of the box's diagonal"}
# Percent of the face size; a face whose NME is above has failed.
FAILURE = 6.0
# Outer corners of the eyes.
_EYE_CORNERS = (36, 45)

# |yaw| bins of AFLW2000-3D evaluation, degrees: upper ends, the last without end.
YAW_BINS: dict[str, tuple[float, float]] = {"0-30": (0.0, 30.0), "30-60": (30.0, 60.0), "60-90": (60.0, np.inf)}


def in_yaw_bin(yaw: NDArray[np.floating], name: str) -> NDArray[np.bool_]:
    """Which faces lie in a |yaw| bin: [0, 30], (30, 60] or beyond 60 degrees.

    Args:
        yaw: (N,), degrees.
        name: a key of `YAW_BINS`.
    """
    low, high = YAW_BINS[name]
    turned = np.abs(yaw)
    return (turned > low if low else turned >= low) & (turned <= high)


def normaliser(truth: NDArray[np.floating], kind: str = "bbox") -> NDArray[np.float64]:
    """Length in each image that errors are divided by.

    Args:
        truth: (N, 68, 2 or 3), pixels.
        kind: "bbox", sqrt(width * height) of the smallest box around the true points; "diagonal", the diagonal of that
            box; "interocular", the distance between the outer eye corners (36, 45) in the image, as in 300-W, which
            shrinks to nothing in profile views and suits frontal faces only.

    Returns:
        (N,), pixels.

    Raises:
        InputError: an unknown kind.
    """
    truth = np.asarray(truth, np.float64)
    if kind == "bbox":
        return face_size(truth).astype(np.float64)
    if kind == "diagonal":
        return np.linalg.norm(bounding_box(truth)[..., 2:], axis=-1)
    if kind == "interocular":
        left, right = _EYE_CORNERS
        return np.linalg.norm(truth[..., left, :2] - truth[..., right, :2], axis=-1)
    raise InputError(f"unknown normaliser {kind!r}", f"known are {', '.join(NORMALISERS)}")


def landmark_errors(
    predicted: NDArray[np.floating], truth: NDArray[np.floating], kind: str = "bbox", depth: bool = False
) -> NDArray[np.float64]:
    """Error of each landmark: its distance from the truth, over the normaliser.

    Weak perspective knows no absolute depth, so for distances in x, y and z both sets are first shifted in z to a mean
    of zero over their landmarks. x and y are never shifted.

    Args:
        predicted: (N, 68, 2 or 3), pixels; NaN for a face that the method did not find.
        truth: (N, 68, 2 or 3), pixels.
        kind: of `normaliser`.
        depth: measure in x, y and z; both must have them, in the same unit.

    Returns:
        (N, 68), percent.

    Raises:
        InputError: the shapes do not agree.
    """
    a, b = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    axes = 3 if depth else 2
    if a.shape[:-1] != b.shape[:-1] or min(a.shape[-1], b.shape[-1]) < axes:
        raise InputError(f"points of shape {a.shape} and {b.shape}", f"expected the same faces, x to {'xyz'[axes - 1]}")
    difference = a[..., :axes] - b[..., :axes]
    if depth:
        difference[..., 2] -= difference[..., 2].mean(axis=-1, keepdims=True)
    return 100 * np.linalg.norm(difference, axis=-1) / normaliser(b, kind)[..., None]


def normalised_mean_error(
    predicted: NDArray[np.floating], truth: NDArray[np.floating], kind: str = "bbox"
) -> NDArray[np.float64]:
    """NME of each face: mean x,y distance over the 68 points, over sqrt(width * height) of the true points' box.

    Args:
        predicted: (N, 68, 2 or 3), pixels; NaN for a face that the method did not find.
        truth: (N, 68, 2 or 3), pixels.
        kind: of `normaliser`.

    Returns:
        (N,), percent.

    Example:
        Points on the corners of a box of 40 by 90 pixels, whose size is 60, each predicted 6 pixels too far right:

        >>> import numpy as np
        >>> from dhm_cli.metrics.landmark_error import normalised_mean_error
        >>> truth = np.array([[[0.0, 0.0], [40.0, 0.0], [0.0, 90.0], [40.0, 90.0]]])
        >>> round(float(normalised_mean_error(truth + [6.0, 0.0], truth)[0]), 6)
        10.0
    """
    return landmark_errors(predicted, truth, kind).mean(axis=-1)


def nme_by_yaw(
    nme: NDArray[np.floating], yaw: NDArray[np.floating], measured: NDArray[np.bool_] | None = None
) -> dict[str, float]:
    """Mean NME by |yaw| bin, of the bins, and of the images.

    Args:
        nme: (N,), percent; NaN makes every mean that it is in NaN.
        yaw: (N,), degrees; the bins are [0, 30], (30, 60] and beyond 60 in absolute value.
        measured: (N,), images that take part; None for all. The others are those for which a method gave nothing.

    Returns:
        Percent under the keys of `YAW_BINS`, NaN for an empty bin; "mean_of_bins", of the bins that have images, NaN
        where none of a bin's images is measured, which a mean of the others would hide; and "mean_of_images".

    Example:
        >>> import numpy as np
        >>> from dhm_cli.metrics.landmark_error import nme_by_yaw
        >>> found = nme_by_yaw(np.array([2.0, 4.0, 9.0]), yaw=np.array([0.0, 10.0, -70.0]))
        >>> found["0-30"], found["60-90"], found["mean_of_bins"], found["mean_of_images"]
        (3.0, 9.0, 6.0, 5.0)
    """
    measured = np.ones(len(nme), bool) if measured is None else measured
    inside = {name: in_yaw_bin(yaw, name) for name in YAW_BINS}
    result = {name: _mean(nme[mask & measured]) for name, mask in inside.items()}
    result["mean_of_bins"] = _mean(np.array([result[name] for name, mask in inside.items() if mask.any()]))
    result["mean_of_images"] = _mean(nme[measured])
    return result


def _mean(values: NDArray[np.floating]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def cumulative_error(nme: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cumulative error distribution (CED): CED(t) is the share of images with NME <= t, a step function.

    Args:
        nme: (N,), percent; NaN, where a method gave nothing, counts as an error beyond every t.

    Returns:
        Errors (N,) in rising order, percent, infinity for NaN; and the share (N,) that is reached at each of them, in
        (0, 1]. Among equal errors the last share is the CED.
    """
    errors = np.sort(np.nan_to_num(np.asarray(nme, np.float64), nan=np.inf, posinf=np.inf))
    return errors, np.arange(1, len(errors) + 1) / max(len(errors), 1)


def failure_rate(nme: NDArray[np.floating], threshold: float = FAILURE) -> float:
    """Failure rate, 1 - CED(threshold): percent of images with NME > threshold.

    Args:
        nme: (N,), percent; NaN counts as a failure.
        threshold: percent; an error of exactly this much is no failure.

    Returns:
        Percent; NaN without images.

    Example:
        >>> import numpy as np
        >>> from dhm_cli.metrics.landmark_error import failure_rate
        >>> failure_rate(np.array([2.0, 6.0, 9.0, np.nan]), threshold=6.0)
        50.0
    """
    return float(100 * np.mean(~(np.asarray(nme) <= threshold))) if len(nme) else float("nan")


def area_under_ced(nme: NDArray[np.floating], threshold: float) -> float:
    """Exact integral of the CED from 0 to threshold, over threshold.

    An image of error e is part of CED(t) from t = e on, so it adds max(threshold - e, 0) / N to the integral.

    Args:
        nme: (N,), percent, >= 0; NaN counts as an error beyond the threshold.
        threshold: percent, > 0.

    Returns:
        Percent: 100 where all errors are 0; NaN without images.

    Example:
        >>> import numpy as np
        >>> from dhm_cli.metrics.landmark_error import area_under_ced
        >>> area_under_ced(np.array([0.0, 3.5, 9.0, np.nan]), threshold=7.0)
        37.5
    """
    errors, _ = cumulative_error(nme)
    return float(100 * np.mean(np.maximum(threshold - errors, 0.0)) / threshold) if len(errors) else float("nan")
