"""Looking for faces in a photo that is turned, for those that a detector finds upright only."""

import math
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from dhm_cli.geometry.crop import TurnedSquare, crop_matrix, invert_matrix, transform_landmarks
from dhm_cli.inference.face_box import Detector, FaceBox, crop_square_from_box
from dhm_cli.io.photo import Pixels, copy_of

# Longest side of the copy that is turned, pixels: a detector sees no more of it.
_LONGEST = 1280


def detect_turned(detector: Detector, image: Pixels, rolls: Iterable[float]) -> Iterator[tuple[FaceBox, TurnedSquare]]:
    """Find faces in turned copies of a photo.

    Args:
        detector: finds them.
        image: (H, W, 3) uint8 RGB, or a `Photo`.
        rolls: by how much to turn the photo for each look, radians, positive clockwise as seen.

    Yields:
        For each face the smallest upright box around its box in the turned copy, in pixels of the photo, and the square
        that shows it as the copy does.
    """
    height, width = image.shape[:2]
    scale = min(1.0, _LONGEST / max(height, width))
    copy = copy_of(image, 1 / scale)
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    for roll in rolls:
        cos, sin = abs(math.cos(roll)), abs(math.sin(roll))
        columns, rows = (math.ceil(scale * (a * cos + b * sin) - 1e-6) for a, b in ((width, height), (height, width)))
        matrix = crop_matrix(centre, 1 / scale, 1, roll)  # the photo's middle to 0
        matrix[:, 2] += [(columns - 1) / 2, (rows - 1) / 2]
        turned = cv2.warpAffine(copy.image, copy.matrix(matrix), (columns, rows), flags=cv2.INTER_LINEAR)
        back = invert_matrix(matrix)
        for box in detector.detect(turned):
            (x, y), side = crop_square_from_box(box)
            right, bottom = box.left + box.width, box.top + box.height
            corners = np.array([[box.left, box.top], [right, box.top], [right, bottom], [box.left, bottom], [x, y]])
            *outline, middle = transform_landmarks(corners, back)
            low, high = np.min(outline, axis=0), np.max(outline, axis=0)
            (left, top), (across, down) = low.tolist(), (high - low).tolist()
            yield FaceBox(left, top, across, down, box.score), (middle, side / scale, roll)
