"""Labels without a fault, of points drawn at random and of the toy model's faces; and what goes wrong with them."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from synthetic_faces import SIDE

from dhm_cli.data.store import FaceLabels
from dhm_cli.geometry.landmarks import GROUPS, bounding_box, face_size
from dhm_cli.morphable.face_model import FaceModel

Array = NDArray[np.float64]
NOWHERE = np.zeros(68, bool)


def good_labels(count: int = 6) -> FaceLabels:
    """Faces in the middle of 200 x 150 images (width x height), two of each identity."""
    rng = np.random.default_rng(0)
    landmarks = np.concatenate([rng.uniform(40, 110, (count, 68, 2)), rng.normal(0, 20, (count, 68, 1))], axis=-1)
    landmarks = landmarks.astype(np.float32)
    return FaceLabels(
        names=np.array([f"face {i}" for i in range(count)]),
        source=np.array([f"face {i}" for i in range(count)]),
        identity=np.array([f"person {i // 2}" for i in range(count)]),
        split=(np.arange(count) // 2 % 3).astype(np.uint8),
        image_size=np.tile(np.array([150, 200], np.int32), (count, 1)),
        landmarks=landmarks,
        points=landmarks[..., :2].copy(),
        visibility=np.ones((count, 68), np.uint8),
        parameters=rng.normal(size=(count, 234)).astype(np.float32),
        box=bounding_box(landmarks).astype(np.float32),
        yaw=np.linspace(-80, 80, count).astype(np.float32),
        residual=np.ones(count, np.float32),
        flagged=np.zeros(count, np.uint8),
    )


def labels_of(
    model: FaceModel, p: torch.Tensor, split: NDArray[np.integer], size: tuple[int, int] = (SIDE, SIDE)
) -> FaceLabels:
    """Faces with these parameters in images of this height and width; all points visible and exact."""
    count, height = len(p), size[0]
    landmarks = model.project(p.numpy(), np.full(count, height))
    landmarks[..., 2] -= landmarks[..., 2].mean(axis=1, keepdims=True)
    names = np.array([f"face {k}.png" for k in range(count)])
    return FaceLabels(
        names=names,
        source=names,
        identity=names,
        split=split.astype(np.uint8),
        image_size=np.tile(np.array(size, np.int32), (count, 1)),
        landmarks=landmarks,
        points=landmarks[..., :2].copy(),
        visibility=np.ones((count, 68), np.uint8),
        parameters=p.numpy(),
        box=bounding_box(landmarks).astype(np.float32),
        yaw=np.rad2deg(p[:, 2].numpy()),
        residual=np.zeros(count, np.float32),
        flagged=np.zeros(count, np.uint8),
    )


def xy(labels: FaceLabels) -> Array:
    return labels.landmarks[..., :2].astype(np.float64)


def with_points(labels: FaceLabels, points: Array) -> FaceLabels:
    return replace(labels, points=points.astype(np.float32))


def of_size(labels: FaceLabels, *shares: float) -> Array:
    """Shares of the face size in x and y as pixels of every face, (N, 1, 2)."""
    return face_size(xy(labels))[:, None, None] * np.array(shares)


def noise(labels: FaceLabels, share: float, seed: int, points: int = 68) -> Array:
    """Gaussian errors of a share of the face size, (N, points, 2); of 1 point, the whole face is off."""
    return of_size(labels, share, share) * np.random.default_rng(seed).normal(size=(len(labels), points, 2))


def error(found: FaceLabels, truth: FaceLabels) -> Array:
    """Mean distance of every face's landmarks from the truth, percent of the face size, (N,)."""
    return 100 * np.linalg.norm(xy(found) - xy(truth), axis=-1).mean(1) / face_size(xy(truth))


def part(*names: str) -> NDArray[np.bool_]:
    """Which landmarks belong to some parts of the face, (68,)."""
    chosen = NOWHERE.copy()
    for name in names:
        chosen[GROUPS[name]] = True
    return chosen
