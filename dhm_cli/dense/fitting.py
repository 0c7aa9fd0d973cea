"""A dense face to 68 three-dimensional landmarks: pose, identity and expression, many faces at a time."""

from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dhm_cli.dense.face import DenseFace

Array = NDArray[np.float64]
_FLIP = np.array([1.0, -1.0, 1.0])
# The radius that holds 68 % of the errors in x and y, over their standard deviation on one axis (Rayleigh).
_RADIUS = 1.51
# What a landmark of this face may be off without an error of the network, millimetres: the face is not all faces.
_OWN_ERROR = 1.0
# Where a network tells no sigma: standard deviation over the longer side of the landmarks.
_USUAL_ERROR = 0.02
# Weight of a landmark that surely is hidden: where it lies is a guess.
_HIDDEN = 0.1
_ROUNDS = 3
# Of the bounded expression: steps in each round, the penalty on leaving the bounds, and the over-relaxation. After ten
# steps weights are within 0.001 of the minimum.
_STEPS, _PENALTY, _RELAXED = 10, 0.3, 1.6
# Faces at a time, so that their matrices stay in the processor's cache.
_BATCH = 64
# Errors of a network in photos of one person are alike: n of them tell as much as n / (1 + (n - 1) * this).
_ALIKE = 0.3
# The share of what is not known beforehand about a blend weight that the landmarks must tell; in profile, most of the
# hidden side has less.
SEEN = 0.15


class Fits(NamedTuple):
    """Faces fitted to landmarks: L = s R (S + offset) + t, weak perspective.

    Attributes:
        scale: s, (B,), pixels per millimetre.
        rotation: R, (B, 3, 3), y up (`geometry.pose`).
        translation: t, (B, 3), pixels of the photo, y down, z toward the viewer: where the model's origin lies.
        identity: a, (B, K).
        expression: b, (B, E).
        told: share of what is not known beforehand about each b that the landmarks tell, (B, E), 0 to 1, float32.
        normal: of pose, identity and expression, (B, 7 + K + E, ...); K is 0 where the identity was given.
    """

    scale: Array
    rotation: Array
    translation: Array
    identity: Array
    expression: Array
    told: Array
    normal: Array


def fit(
    face: DenseFace,
    landmarks: NDArray[np.floating],
    rotation: NDArray[np.floating],
    sigma: NDArray[np.floating] | None = None,
    visible: NDArray[np.floating] | None = None,
    identity: NDArray[np.floating] | None = None,
) -> Fits:
    """Maximum a posteriori fit of a dense face to landmarks.

    Minimises sum_k w_k |R^T (L_k - t) / s - S_k|^2 + |a / std_a|^2 + |b / std_b|^2 by Gauss-Newton steps whose
    Jacobian is that of the mean face, so that the normal matrix of a batch is one matrix product. Named expressions
    stay in 0 to 1, which is a problem of theirs alone when pose and identity are eliminated.

    Args:
        face: the model.
        landmarks: (B, 68, 3), pixels, y down, z toward the viewer.
        rotation: (B, 3, 3), the pose to start from, y up.
        sigma: (B, 68), pixels: the radius that should hold 68 % of a landmark's errors in x and y.
        visible: (B, 68), chance that a landmark can be seen.
        identity: (B, K), known identities; None to find them.
    """
    given = (landmarks, rotation, sigma, visible, identity)
    parts = [slice(i, i + _BATCH) for i in range(0, max(len(landmarks), 1), _BATCH)]
    fits = [_fit(face, *(None if array is None else array[part] for array in given)) for part in parts]  # type: ignore[arg-type]
    return Fits(*map(np.concatenate, zip(*fits, strict=True)))


def _fit(
    face: DenseFace,
    landmarks: NDArray[np.floating],
    rotation: NDArray[np.floating],
    sigma: NDArray[np.floating] | None,
    visible: NDArray[np.floating] | None,
    identity: NDArray[np.floating] | None,
) -> Fits:
    mean, modes = face.landmarks
    count, k = len(landmarks), face.identity.shape[2]
    jacobian, products = _linear(face, 0 if identity is None else k)
    points = np.asarray(landmarks, np.float64) * _FLIP
    scale, turn, place = _start(mean, points, np.asarray(rotation, np.float64))
    weights = _weights(points, scale, sigma, visible)
    prior_a, prior_b = 1 / face.identity_std**2, 1 / face.expression_std**2
    if identity is not None:  # known: part of the mean of each face
        known = np.einsum("nci,bi->bnc", modes[..., :k], np.asarray(identity, np.float64))
        prior_a = prior_a[:0]
    size, poses = jacobian.shape[2], 7
    normal = (weights @ products).reshape(count, size, size)
    free = poses + len(prior_a)  # pose and identity; the expression follows
    normal[:, range(poses, free), range(poses, free)] += prior_a
    inverse = np.linalg.inv(normal[:, :free, :free])
    solved = inverse @ normal[:, :free, free:]
    told_matrix = normal[:, free:, free:] - np.swapaxes(normal[:, :free, free:], 1, 2) @ solved
    quadratic = told_matrix + np.diag(prior_b)
    weighted = weights[..., None]
    expression = _Bounded(quadratic) if face.names else partial(_unbounded, quadratic)
    for _ in range(_ROUNDS):
        rest = _into_head(points, scale, turn, place) - mean
        if identity is not None:
            rest -= known
        right = (weighted * rest).reshape(count, -1) @ jacobian.reshape(-1, size)
        reduced = right[:, free:] - (right[:, None, :free] @ solved)[:, 0]
        b = expression(reduced)
        x = (inverse @ right[:, :free, None] - solved @ b[..., None])[..., 0]
        scale, turn, place = _moved(x[:, :poses], scale, turn, place)
    a = np.asarray(identity, np.float64) if identity is not None else x[:, poses:]
    unsure = np.linalg.inv(quadratic.astype(np.float32))
    told = 1 - np.diagonal(unsure, axis1=1, axis2=2) * prior_b
    return Fits(scale, turn, place * _FLIP, a, b, told, normal)


def _start(mean: Array, points: Array, rotation: Array) -> tuple[Array, Array, Array]:
    """Scale, rotation and place of the mean face, the rotation being known; y up."""
    turned = (mean - mean.mean(axis=0)) @ np.swapaxes(rotation, 1, 2)
    middle = points.mean(axis=1)
    scale = np.maximum(((points - middle[:, None]) * turned).sum(axis=(1, 2)) / (turned**2).sum(axis=(1, 2)), 1e-6)
    return scale, rotation, middle - scale[:, None] * (rotation @ mean.mean(axis=0))


def _weights(
    points: Array, scale: Array, sigma: NDArray[np.floating] | None, visible: NDArray[np.floating] | None
) -> Array:
    """Of each landmark, (B, 68), 1 / millimetre^2."""
    if sigma is None:
        spread = _USUAL_ERROR * np.ptp(points[..., :2], axis=1).max(axis=1)[:, None]
    else:
        spread = np.asarray(sigma, np.float64) / _RADIUS
    weights = 1 / ((spread / scale[:, None]) ** 2 + _OWN_ERROR**2)
    weights = np.broadcast_to(weights, points.shape[:2])
    shown = 1.0 if visible is None else _HIDDEN + (1 - _HIDDEN) * np.asarray(visible, np.float64)
    return weights * shown  # type: ignore[no-any-return]


@lru_cache(maxsize=4)
def _linear(face: DenseFace, left_out: int) -> tuple[Array, Array]:
    """How the landmarks move with pose and all but the first modes, (68, 3, 7 + M), and the products of that."""
    mean, modes = face.landmarks
    jacobian = np.concatenate([_pose_columns(mean), modes[..., left_out:]], axis=2)
    return jacobian, (np.swapaxes(jacobian, 1, 2) @ jacobian).reshape(len(mean), -1)


def _pose_columns(mean: Array) -> Array:
    """How landmarks move with a turn about x, y, z, with the logarithm of the scale, and with a shift: (68, 3, 7)."""
    x, y, z = mean.T
    none = np.zeros_like(x)
    turns = np.stack([np.stack(c, axis=1) for c in ((none, -z, y), (z, none, -x), (-y, x, none))], axis=2)
    shifts = np.broadcast_to(np.eye(3), (len(mean), 3, 3))
    return np.concatenate([turns, mean[..., None], shifts], axis=2)


def _into_head(points: Array, scale: Array, turn: Array, place: Array) -> Array:
    return (points - place[:, None]) @ turn / scale[:, None, None]


def _moved(step: Array, scale: Array, turn: Array, place: Array) -> tuple[Array, Array, Array]:
    """A pose after a small step in the head's axes: turn, logarithm of the scale, shift."""
    place = place + scale[:, None] * np.einsum("bij,bj->bi", turn, step[:, 4:])
    angle = np.linalg.norm(step[:, :3], axis=1)[:, None, None]
    x, y, z = step[:, :3].T
    none = np.zeros_like(x)
    cross = np.stack([none, -z, y, z, none, -x, -y, x, none], axis=1).reshape(-1, 3, 3)
    half = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    small = np.eye(3) + np.sinc(angle / np.pi) * cross + half * cross @ cross
    return scale * np.exp(np.clip(step[:, 3], -0.5, 0.5)), turn @ small, place


def _unbounded(quadratic: Array, linear: Array) -> Array:
    return np.linalg.solve(quadratic, linear[..., None])[..., 0]  # type: ignore[return-value]


class _Bounded:
    """Minimises b^T Q b / 2 - c^T b for b in 0 to 1 by ADMM with over-relaxation (Boyd et al. 2011).

    Args:
        quadratic: Q, (B, E, E); c comes call by call, (B, E), and each call begins where the last one ended.
    """

    def __init__(self, quadratic: Array) -> None:
        count, size = quadratic.shape[:2]
        self._unit = np.sqrt(np.diagonal(quadratic, axis1=1, axis2=2)).astype(np.float32)  # in which Q has ones there
        scaled = quadratic.astype(np.float32) / (self._unit[:, :, None] * self._unit[:, None])
        self._inverse = np.linalg.inv(scaled + _PENALTY * np.eye(size, dtype=np.float32))
        self._inside, self._dual = np.zeros((2, count, size), np.float32)

    def __call__(self, linear: Array) -> Array:
        linear32 = (linear / self._unit).astype(np.float32)
        for _ in range(_STEPS):
            free = (self._inverse @ (linear32 + _PENALTY * (self._inside - self._dual))[..., None])[..., 0]
            self._dual += _RELAXED * free + (1 - _RELAXED) * self._inside
            self._inside = np.clip(self._dual, 0, self._unit)
            self._dual -= self._inside
        return np.clip(self._inside.astype(np.float64) / self._unit, 0, 1)


def told_of_identity(face: DenseFace, fits: Fits) -> tuple[Array, Array]:
    """What landmarks tell of an identity: of the equation (H + P) a = g of a maximum a posteriori fit, H and g.

    Args:
        face: the model, whose prior is P = diag(1 / std_a^2).
        fits: without a known identity.

    Returns:
        H, (B, K, K), what is left of the normal matrix when pose and expression are eliminated; g, (B, K).
    """
    k = face.identity.shape[2]
    which = np.r_[7 : 7 + k]
    other = np.r_[:7, 7 + k : fits.normal.shape[1]]
    inner = fits.normal[:, other[:, None], other]
    inner[:, range(7, len(other)), range(7, len(other))] += 1 / face.expression_std**2
    cross = fits.normal[:, which[:, None], other]
    told = fits.normal[:, which[:, None], which] - cross @ np.linalg.solve(inner, np.swapaxes(cross, 1, 2))
    return told - np.diag(1 / face.identity_std**2), np.einsum("bij,bj->bi", told, fits.identity)


def shared_identity(face: DenseFace, h: Array, g: Array, count: int) -> Array:
    """One identity (K,) from the sums of what some photos of a person tell (`told_of_identity`).

    Errors are alike in all photos of a person, so that many tell less than their number.
    """
    share = 1 / (1 + (count - 1) * _ALIKE)
    prior = np.diag(1 / face.identity_std**2)
    return np.linalg.solve(share * h + prior, share * g)  # type: ignore[return-value]
