"""Looking for faces in a photo that is turned by quarters, for those that a detector finds upright only."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from dhm_cli.geometry.crop import TurnedSquare
from dhm_cli.inference.face_box import Detector, FaceBox, crop_square_from_box


def detect_turned(
    detector: Detector, image: NDArray[np.uint8], turns: Iterable[int]
) -> Iterator[tuple[FaceBox, TurnedSquare]]:
    """Find faces in a photo that is turned.

    Args:
        detector: finds them.
        image: (H, W, 3) uint8 RGB.
        turns: by how many quarters, counterclockwise as seen, 0 to 3 each.

    Yields:
        Each box, in pixels of the photo as it is, and the square in which its face is upright.
    """
    height, width = image.shape[:2]
    for quarters in turns:
        turned = np.ascontiguousarray(np.rot90(image, quarters))
        for box in detector.detect(turned):
            (x, y), side = crop_square_from_box(box)
            corner = (box.left + box.width / 2, box.top + box.height / 2)
            across, down = (box.width, box.height) if quarters % 2 == 0 else (box.height, box.width)
            middle = _turned_back(*corner, quarters, width, height)
            upright = FaceBox(middle[0] - across / 2, middle[1] - down / 2, across, down, box.score)
            # `np.rot90` turns counterclockwise, a crop's roll clockwise.
            yield upright, (np.array(_turned_back(x, y, quarters, width, height)), side, -quarters * math.pi / 2)


def _turned_back(x: float, y: float, quarters: int, width: int, height: int) -> tuple[float, float]:
    """Where a pixel of `np.rot90(image, quarters)` lies in the image of that width and height."""
    if quarters == 0:
        return x, y
    if quarters == 1:
        return width - 1 - y, x
    if quarters == 2:
        return width - 1 - x, height - 1 - y
    return y, height - 1 - x
