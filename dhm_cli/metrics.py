"""Accuracy metrics, numpy only, so that any method's points can be scored."""

import numpy as np
from numpy.typing import NDArray

from dhm_cli.landmarks import face_size

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


def normalised_mean_error(predicted: NDArray[np.floating], truth: NDArray[np.floating]) -> NDArray[np.float64]:
    """NME of each face: mean x,y distance over the 68 points, over sqrt(width * height) of the true points' box.

    Args:
        predicted: (N, 68, 2 or 3), pixels.
        truth: (N, 68, 2 or 3), pixels.

    Returns:
        (N,), percent.
    """
    difference = np.asarray(predicted, np.float64)[..., :2] - np.asarray(truth, np.float64)[..., :2]
    return 100 * np.linalg.norm(difference, axis=-1).mean(axis=-1) / face_size(np.asarray(truth, np.float64))


def nme_by_yaw(nme: NDArray[np.floating], yaw: NDArray[np.floating]) -> dict[str, float]:
    """Mean NME by |yaw| bin, of the bins, and of the images.

    Args:
        nme: (N,), percent.
        yaw: (N,), degrees; the bins are [0, 30], (30, 60] and beyond 60 in absolute value.

    Returns:
        Percent under the keys of `YAW_BINS`, "mean_of_bins" (of the bins that have faces) and "mean_of_images"; NaN for
        an empty bin.
    """
    result = {}
    for name in YAW_BINS:
        inside = in_yaw_bin(yaw, name)
        result[name] = float(nme[inside].mean()) if inside.any() else float("nan")
    result["mean_of_bins"] = float(np.nanmean(list(result.values()))) if len(nme) else float("nan")
    result["mean_of_images"] = float(nme.mean()) if len(nme) else float("nan")
    return result


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


def failure_rate(nme: NDArray[np.floating], threshold: float = 6.0) -> float:
    """Failure rate, 1 - CED(threshold): percent of images with NME > threshold.

    Args:
        nme: (N,), percent; NaN counts as a failure.
        threshold: percent; an error of exactly this much is no failure.

    Returns:
        Percent; NaN without images.
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
    """
    errors, _ = cumulative_error(nme)
    return float(100 * np.mean(np.maximum(threshold - errors, 0.0)) / threshold) if len(errors) else float("nan")
