"""Landmarks as a head's place, size and turn, and the shape that these leave."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class PoseAndShape(NamedTuple):
    """Landmarks L = s R S + t of T frames, under weak perspective.

    Attributes:
        place: t, (T, 3), pixels: the middle of the landmarks, the surer ones counting more.
        log_scale: log s, (T,), pixels per unit of the reference shape.
        rotation: R, (T, 3, 3), proper rotations, from the reference's axes to the image's.
        shape: S, (T, 68, 3), what the head's pose leaves of the landmarks, in the unit of the reference.
    """

    place: NDArray[np.float64]
    log_scale: NDArray[np.float64]
    rotation: NDArray[np.float64]
    shape: NDArray[np.float64]


def split(
    landmarks: NDArray[np.floating], reference: NDArray[np.floating], sigma: NDArray[np.floating] | None = None
) -> PoseAndShape:
    """The similarity that best carries a reference shape onto landmarks, and the shape that it leaves (Umeyama 1991).

    Args:
        landmarks: (T, 68, 3), pixels; z in the same unit.
        reference: (68, 3), in the same axes, any unit.
        sigma: (T, 68), pixels; a landmark weighs 1 / sigma^2. None for equal weights.

    Returns:
        The parts; `join` makes the landmarks of them again.
    """
    points, model = np.asarray(landmarks, np.float64), np.asarray(reference, np.float64)
    weights = np.ones(points.shape[:2]) if sigma is None else 1.0 / np.maximum(np.asarray(sigma, np.float64), 1e-6) ** 2
    weights /= weights.sum(axis=1, keepdims=True)
    place, middle = np.einsum("tk,tki->ti", weights, points), weights @ model
    a, b = model - middle[:, None], points - place[:, None]
    u, singular, vt = np.linalg.svd(np.swapaxes(b, 1, 2) @ (weights[..., None] * a))
    sign = np.ones_like(singular)
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign[:, None]) @ vt
    spread = (weights[..., None] * a * a).sum(axis=(1, 2))
    scale = np.maximum((singular * sign).sum(axis=1) / spread, 1e-9)
    return PoseAndShape(place, np.log(scale), rotation, b @ rotation / scale[:, None, None])


def join(parts: PoseAndShape) -> NDArray[np.float64]:
    """The landmarks of parts, (T, 68, 3): the inverse of `split`."""
    turned = parts.shape @ np.swapaxes(parts.rotation, 1, 2)
    return turned * np.exp(parts.log_scale)[:, None, None] + parts.place[:, None]  # type: ignore[no-any-return]


def rotation_vectors(rotation: NDArray[np.floating]) -> NDArray[np.float64]:
    """Axis times angle of rotations.

    Args:
        rotation: (..., 3, 3), proper rotations by less than half a turn.

    Returns:
        (..., 3), radians.
    """
    r = np.asarray(rotation, np.float64)
    # sin(angle) * axis
    v = np.stack([r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]], axis=-1) / 2
    sine = np.linalg.norm(v, axis=-1)
    angle = np.arctan2(sine, (np.trace(r, axis1=-2, axis2=-1) - 1) / 2)
    return v * np.where(sine > 1e-9, angle / np.maximum(sine, 1e-9), 1.0)[..., None]  # type: ignore[no-any-return]


def rotations(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rotations of axis times angle, (..., 3) radians -> (..., 3, 3), by the formula of Rodrigues."""
    v = np.asarray(vectors, np.float64)
    angle = np.linalg.norm(v, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(v, -1, 0)
    none = np.zeros_like(x)
    cross = np.stack([none, -z, y, z, none, -x, -y, x, none], axis=-1).reshape(*v.shape[:-1], 3, 3)
    return np.eye(3) + np.sinc(angle / np.pi) * cross + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * cross @ cross
