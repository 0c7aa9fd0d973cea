"""Local curves through measurements over time: the smoothing of Savitzky and Golay, for any times and weights."""

import numpy as np
from numpy.typing import NDArray

# The degree of the curves.
_DEGREE = 2


def local_value(
    values: NDArray[np.floating],
    times: NDArray[np.floating],
    weights: NDArray[np.floating],
    stiffness: NDArray[np.floating] | float = 1.0,
) -> NDArray[np.float64]:
    """The value at time 0 of the parabola that fits measurements best by weighted least squares.

    With equal weights and even times it is the filter of Savitzky and Golay (1964), `scipy.signal.savgol_filter` of
    degree 2; where the weights fade to the ends, what lies above its pass band is held back far better (Schmid, Rath
    and Diebold 2022).

    Args:
        values: (n, K, D), K series of measurements of vectors.
        times: (n,), increasing, any unit; of about 1, so that the sums are well behaved.
        weights: (n,) or (n, K), at least 0.
        stiffness: (K,), at least 1, above which a curve bends less than the measurements call for: one of a large
            stiffness is a straight line.

    Returns:
        (K, D). Of a parabola; of a straight line from two measurements, and one measurement as it is.
    """
    values = np.asarray(values, np.float64)
    powers = np.asarray(times, np.float64)[:, None] ** np.arange(min(_DEGREE, len(values) - 1) + 1)
    # Row 0 of (P' W P)^-1 P' W, for every series
    weighted = powers[..., None] * np.asarray(weights, np.float64).reshape(len(values), 1, -1)
    normal = np.einsum("npk,nq->kpq", weighted, powers) + 1e-9 * np.eye(powers.shape[1])
    normal[:, -1, -1] *= stiffness if len(values) > _DEGREE else 1.0
    first = np.linalg.solve(normal, np.eye(powers.shape[1])[:, :1])[..., 0]  # (K or 1, p)
    kernel = np.einsum("npk,kp->nk", weighted, first)
    return (kernel[..., None] * values).sum(axis=0)  # type: ignore[no-any-return]


def fading(times: NDArray[np.floating]) -> NDArray[np.float64]:
    """Weights that fade from 1 at time 0 to 0 at times -1 and 1 and beyond: cos^2(pi t / 2)."""
    return np.cos(np.pi / 2 * np.clip(times, -1.0, 1.0)) ** 2  # type: ignore[no-any-return]
