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
