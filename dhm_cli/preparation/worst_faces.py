"""The picture of a dataset's worst labels."""

from pathlib import Path

import numpy as np

from dhm_cli.data.store import FaceLabels
from dhm_cli.drawing.faces import comparison_sheet, comparison_tile, save_png
from dhm_cli.preparation.shards import Parts

_SHOWN = 24


def picture_of(store: Path) -> Path:
    """Where the picture of a store goes."""
    return store.with_name(f"{store.stem}-worst.png")


def draw_worst(labels: FaceLabels, parts: Parts, store: Path) -> Path:
    """Sheet of the faces whose landmarks, white, are farthest from the points of their source, orange."""
    tiles = []
    worst = np.argsort(-labels.residual, kind="stable")[:_SHOWN]
    for row, image in zip(worst, parts.images(worst), strict=True):
        caption = f"{labels.residual[row]:.1f}% {labels.yaw[row]:+.0f} {Path(labels.names[row]).name}"
        tiles.append(comparison_tile(image, labels.landmarks[row], labels.points[row], caption))
    picture = picture_of(store)
    save_png(picture, comparison_sheet(tiles, 6, "labels in the store", "points in the dataset"))
    return picture
