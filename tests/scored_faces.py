"""A small store whose truth is known, for scoring: faces of the toy model, with a blob of light in each image."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.data.store import SPLITS, FaceLabels, write_store
from dhm_cli.geometry.landmarks import bounding_box
from dhm_cli.geometry.pose import euler_to_matrix
from dhm_cli.morphable.face_model import FaceModel

YAW = (0.0, -12.0, 25.0, 40.0, -55.0, 62.0, -75.0, 88.0)
NAMES = tuple(f"sub/face {k}.png" for k in range(8))
SIZE = 200


def make_labels(model: FaceModel, split: str = "test", **optional: NDArray[Any]) -> FaceLabels:
    """Eight faces at the yaws of `YAW`, each at another place and scale."""
    count = len(YAW)
    angles = np.radians(np.stack([np.linspace(-10, 15, count), YAW, np.linspace(20, -15, count)], axis=1))
    shape = model.mean.double().numpy()
    turned = shape @ np.swapaxes(euler_to_matrix(angles), 1, 2) * np.array([1.0, -1.0, 1.0])
    turned = 100 * (turned - turned.mean(axis=1, keepdims=True)) / np.ptp(shape[:, 1])
    scale = np.linspace(0.6, 1.1, count)[:, None, None]
    place = np.random.default_rng(3).uniform(85, 115, (count, 1, 2))
    landmarks = turned * scale
    landmarks[..., :2] += place
    parameters = np.zeros((count, 234), np.float32)
    parameters[:, 1:4] = angles
    return FaceLabels(
        names=np.array(NAMES),
        source=np.array(NAMES),
        identity=np.array(NAMES),
        split=np.full(count, SPLITS.index(split), np.uint8),
        image_size=np.full((count, 2), SIZE, np.int32),
        landmarks=landmarks.astype(np.float32),
        points=landmarks[..., :2].astype(np.float32),
        visibility=np.ones((count, 68), np.uint8),
        parameters=parameters,
        box=bounding_box(landmarks).astype(np.float32),
        yaw=np.array(YAW, np.float32),
        residual=np.zeros(count, np.float32),
        flagged=np.zeros(count, np.uint8),
        **optional,
    )


def blob_centres(labels: FaceLabels) -> NDArray[np.float64]:
    """Where the blob of each image is: somewhere off the face's middle, (N, 2), pixels."""
    offset = np.random.default_rng(8).uniform(-8, 8, (len(labels), 2))
    return np.asarray(labels.landmarks[..., :2].mean(axis=1) + offset)


def write_scored_store(path: Path, labels: FaceLabels, **attributes: Any) -> Path:
    """Write the faces with an image each: a smooth blob of light around `blob_centres`."""
    y, x = np.mgrid[:SIZE, :SIZE]
    encoded = []
    for cx, cy in np.nan_to_num(blob_centres(labels)):
        light = (250 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 7.0**2))).round().astype(np.uint8)
        encoded.append(cv2.imencode(".png", cv2.merge([light] * 3))[1].tobytes())
    sizes = np.array([len(data) for data in encoded])
    write_store(path, encoded, sizes, labels, {"dataset": "toy", "layout": "pts", "face_model": "toy", **attributes})
    return path
