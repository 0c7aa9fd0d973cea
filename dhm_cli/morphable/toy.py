"""A made-up face model for tests, samples and speed measurements; no measured face is in it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dhm_cli.geometry.landmarks import MIRROR, NUM_LANDMARKS
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.parameters import NUM_EXPRESSION, NUM_IDENTITY


def toy_face_model() -> FaceModel:
    """A made-up face model with the sizes and units of the Basel Face Model, free to share.

    The mean is drawn from a few curves on an ellipsoid; the modes are smooth random fields, symmetric for most identity
    modes, decaying like real ones. Good for tests and samples; no measured face is in it.

    Returns:
        A model with 199 identity and 29 expression modes, micrometres, the same on every call.
    """
    rng = np.random.default_rng(68)
    mean = _toy_mean()
    modes = [_smooth_mode(mean, rng, symmetric=k % 4 != 3) for k in range(NUM_IDENTITY)]
    moving = np.ones(NUM_LANDMARKS)
    moving[27:36] = 0.1  # a nose hardly moves with the expression
    gestures = [_smooth_mode(mean, rng, symmetric=k % 3 != 2) * moving[:, None] for k in range(NUM_EXPRESSION)]
    return FaceModel(
        mean=_tensor(mean),
        identity=_tensor(np.stack(modes, axis=-1)),
        expression=_tensor(np.stack(gestures, axis=-1)),
        identity_std=_tensor(9e4 * 0.95 ** np.arange(NUM_IDENTITY)),
        expression_std=_tensor(5e4 * 0.85 ** np.arange(NUM_EXPRESSION)),
        name="toy",
    )


def _tensor(array: NDArray[np.floating]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _toy_mean() -> NDArray[np.float64]:
    """68 frontal points, micrometres: x right, y up, z out of the face."""

    def row(x0: float, x1: float, y0: float, y1: float, bend: float, count: int) -> NDArray[np.float64]:
        t = np.linspace(0, 1, count)
        return np.stack([x0 + (x1 - x0) * t, y0 + (y1 - y0) * t + bend * np.sin(np.pi * t)], axis=-1)

    def ring(x: float, y: float, rx: float, ry: float, turns: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([x - rx * np.cos(turns), y + ry * np.sin(turns)], axis=-1)

    jaw = np.linspace(0, np.pi, 17)
    eye = np.deg2rad([0, 60, 120, 180, 240, 300])
    xy = np.concatenate(
        [
            np.stack([-72 * np.cos(jaw), 30 - 105 * np.sin(jaw)], axis=-1),
            row(-58, -16, 48, 50, 10, 5),
            row(16, 58, 50, 48, 10, 5),
            row(0, 0, 32, -4, 0, 4),
            row(-14, 14, -14, -14, -4, 5),
            ring(-33, 30, 14, 6, eye),
            ring(33, 30, 14, 6, eye),
            ring(0, -40, 26, 11, np.deg2rad(np.arange(0, 360, 30))),
            ring(0, -40, 20, 3, np.deg2rad(np.arange(0, 360, 45))),
        ]
    )
    z = 75 * np.sqrt(np.clip(1 - (xy[:, 0] / 82) ** 2 - ((xy[:, 1] - 10) / 130) ** 2, 0, 1))
    z[27:31] += np.linspace(6, 28, 4)
    z[31:36] += 10
    z[:17] -= 15
    mean = np.concatenate([xy, z[:, None]], axis=-1) * 1000.0
    mirrored = mean[MIRROR] * [-1, 1, 1]
    return (mean + mirrored) / 2


def _smooth_mode(mean: NDArray[np.float64], rng: np.random.Generator, symmetric: bool) -> NDArray[np.float64]:
    """A smooth displacement field at the landmarks, (68, 3), unit norm."""
    waves = rng.normal(0, 1.2, (3, 4, 3)) / 8e4
    phase = rng.uniform(0, 2 * np.pi, (3, 4))
    field = np.sin(np.einsum("acd,nd->nac", waves, mean) + phase).sum(axis=-1)
    if symmetric:
        field = (field + field[MIRROR] * [-1, 1, 1]) / 2
    return field / np.linalg.norm(field)
