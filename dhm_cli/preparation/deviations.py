"""How human points deviate from a 3DMM fit, and what that says about the points that nobody saw.

A fit with a prior is stiff: on MERL-RAV it lies 2 % of the face size from the visible points of the inner face. Most of
that is no noise. Neighbours deviate alike: the deviation of a point that is left out is foretold by those of the others
to 0.7 %. So labels are the fit plus the expected deviation of each point given those that are known, under a Gaussian
whose covariance is learned from all faces (a Gaussian process on the 68 points; Rasmussen and Williams 2006, Eq. 2.23).
What the other points do not foretell of a point, on average over the faces, is taken for its noise; so where people err
independently of each other in every point, nothing is followed, and along the jaw less than inside the face.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dhm_cli.geometry.landmarks import MIRROR, NUM_LANDMARKS

Array = NDArray[np.float64]

# A deviation this many times farther from what the others foretell counts half.
_OUTLIER = 4.0
_ROUNDS = 3
# Points that few faces show together are taken to deviate independently.
_FEW_FACES = 200.0
# No point is placed more finely, share of the face size.
_FINEST = 0.001
# Larger deviations are accidents, shares of the face size.
_ACCIDENT = 0.12
# Faces at a time.
_CHUNK = 256


@dataclass(frozen=True)
class Deviations:
    """The distribution of human points around a fit, in the frame of the face (`label_fusion.FaceFrame`).

    Attributes:
        covariance: (136, 136), of x and y of landmark after landmark without noise, shares of the face size squared.
        noise: (68,), standard deviation of the noise of a point's coordinates, shares of the face size.
    """

    covariance: Array
    noise: Array

    @classmethod
    def measure(cls, offsets: Array) -> "Deviations":
        """Second moments over faces and their mirror images, of the points that are known together.

        Args:
            offsets: (N, 68, 2), frame of the face, shares of the face size, NaN where there is no point.
        """
        both = np.concatenate([offsets, offsets[:, MIRROR] * [-1.0, 1.0]])
        known = (np.linalg.norm(both, axis=-1) < _ACCIDENT).repeat(2, axis=1)  # False for NaN
        values = np.where(known, np.nan_to_num(both).reshape(known.shape), 0.0)
        together = known.astype(np.float64).T @ known
        moments = values.T @ values / (together + _FEW_FACES)
        np.fill_diagonal(moments, (values**2).sum(axis=0) / together.diagonal().clip(1))
        moments = _positive(moments, _FINEST**2)
        unforetold = (1 / np.linalg.inv(moments).diagonal()).reshape(NUM_LANDMARKS, 2).mean(axis=1)
        return cls(_positive(moments - np.diag(unforetold.repeat(2)), 0.0), np.sqrt(unforetold))

    def with_noise(self, other: "Deviations") -> "Deviations":
        """These deviations of points as noisy as those of another dataset, where these are noisier."""
        return replace(self, noise=np.maximum(self.noise, other.noise))

    def expected(self, offsets: Array, trust: Array) -> Array:
        """The deviation of every point, given those that are known.

        Args:
            offsets: (N, 68, 2), frame of the face, shares of the face size; not read where there is no trust.
            trust: (N, 68), 1 for a careful point, 0 for none: the noise is taken to be 1 / sqrt(trust) times as large.

        Returns:
            (N, 68, 2), frame of the face.
        """
        weight = trust / np.square(self.noise)
        parts = [slice(k, k + _CHUNK) for k in range(0, len(offsets), _CHUNK)]
        found = [self._expected(np.nan_to_num(offsets[part]), weight[part]) for part in parts]
        return np.concatenate(found) if found else np.zeros_like(offsets)

    def _expected(self, offsets: Array, weight: Array) -> Array:
        """For offsets (B, 68, 2) with inverse variances (B, 68): again and again, each time with outliers weakened."""
        values, size = offsets.reshape(len(offsets), -1), 2 * NUM_LANDMARKS
        robust = weight
        for _ in range(_ROUNDS):
            root = np.sqrt(robust).repeat(2, axis=1)
            inner = np.eye(size) + root[:, :, None] * self.covariance * root[:, None]
            solved = np.linalg.solve(inner, (root * values)[..., None])[..., 0]
            mean = (root * solved) @ self.covariance
            off = np.linalg.norm((values - mean).reshape(offsets.shape), axis=-1)
            robust = weight / (1 + np.square(off) * weight / _OUTLIER**2)
        return mean.reshape(offsets.shape)


def _positive(symmetric: Array, least: float) -> Array:
    """The nearest matrix without eigenvalues below the least."""
    strength, axes = np.linalg.eigh(symmetric)
    result: Array = (axes * strength.clip(least)) @ axes.T
    return result
