"""Labels without a fault."""

import numpy as np

from dhm_cli.data.store import FaceLabels
from dhm_cli.geometry.landmarks import bounding_box


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
