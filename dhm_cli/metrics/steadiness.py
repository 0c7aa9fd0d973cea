"""How steady landmarks are in a video: jitter, and lag behind the motion."""

import numpy as np
from numpy.typing import NDArray

# What is slower than this much of a second on either side is motion, what is faster jitter.
_REACH = 1 / 6
# Frames by which landmarks are looked for late or early, and the step.
_MOST, _STEP = 10.0, 0.05
# Motion below this share of the face size says nothing of a lag.
_LEAST_MOTION = 0.05


def jitter(
    predicted: NDArray[np.floating], truth: NDArray[np.floating], size: NDArray[np.floating], rate: float
) -> float:
    """How much landmarks tremble about their true places.

    The errors over time, without their mean over the frames around (Hann weights over a sixth of a second to both
    sides, so what is below some 3 Hz goes and a constant error too), root of their mean square.

    Args:
        predicted: (T, N, 2 or 3), pixels; NaN in frames without a prediction.
        truth: (T, N, 2 or 3), pixels; NaN in frames without labels.
        size: (T,), face size, pixels.
        rate: frames per second.

    Returns:
        Percent of the face size; NaN where no stretch of frames is long enough.
    """
    errors = _errors(predicted, truth) / size[:, None, None]
    half = max(2, round(_REACH * rate))
    weights = np.hanning(2 * half + 3)[1:-1]
    high = -weights / weights.sum()
    high[half] += 1.0
    if len(errors) < len(high):
        return float("nan")
    windows = np.lib.stride_tricks.sliding_window_view(errors, len(high), axis=0)
    squares = ((windows @ high) ** 2).sum(axis=2).mean(axis=1)
    known = squares[~np.isnan(squares)]
    return 100.0 * float(np.sqrt(known.mean())) if len(known) else float("nan")


def lag(predicted: NDArray[np.floating], truth: NDArray[np.floating], size: NDArray[np.floating]) -> float:
    """By how many frames landmarks come late: the delay of the truth that fits them best by least squares.

    Each point's mean error is left out, so that only the motion counts.

    Args:
        predicted, truth, size: as for `jitter`.

    Returns:
        Frames, in steps of 0.05, up to 10; negative where landmarks come early. NaN where the face rests.
    """
    steps = np.arange(-_MOST, _MOST + _STEP / 2, _STEP)
    known = ~np.isnan(_errors(predicted, truth)).any(axis=(1, 2))
    times = np.flatnonzero(known)
    inner = (times > times[0] + _MOST) & (times < times[-1] - _MOST) if len(times) else times
    if not len(times[inner]) or _motion(truth[known], size[known]) < _LEAST_MOTION:
        return float("nan")
    points, true = (values[known][..., :2].reshape(len(times), -1) for values in (predicted, truth))
    errors = []
    for delay in steps:
        late = np.stack([np.interp(times[inner] - delay, times, column) for column in true.T], axis=1)
        errors.append(float(((points[inner] - late) - (points[inner] - late).mean(axis=0)).var()))
    return round(float(steps[int(np.argmin(errors))]), 2) + 0.0


def _motion(truth: NDArray[np.floating], size: NDArray[np.floating]) -> float:
    """How far points move about their mean places, share of the face size."""
    return float(np.sqrt((truth[..., :2] - truth[..., :2].mean(axis=0)).var(axis=0).sum(axis=-1).mean()) / size.mean())


def _errors(predicted: NDArray[np.floating], truth: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(predicted[..., :2] - truth[..., :2], np.float64)
