"""Small pictures of faces for a gallery."""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.geometry.crop import crop_matrix, landmark_crop_square, smooth_crop, transform_landmarks
from dhm_cli.inference.aligner import Face, Tile

# Side in pixels, and quality of the WebP.
SIDE, _QUALITY = 224, 70
# Side of what is seen over the longer side of the landmarks' box.
_MARGIN = 1.5


def with_tiles(image: NDArray[np.uint8], faces: Sequence[Face]) -> list[Face]:
    """The faces of a photo, each with a picture of it as it stands in the photo, not turned.

    Args:
        image: (H, W, 3) uint8 RGB.
        faces: its faces.

    Returns:
        The faces; one whose picture cannot be made stays without.
    """
    return [replace(face, tile=_tile(image, face)) for face in faces]


def _tile(image: NDArray[np.uint8], face: Face) -> Tile | None:
    centre, side = landmark_crop_square(face.landmarks, _MARGIN)
    matrix = crop_matrix(centre, max(side, 1.0), SIDE)
    try:
        bgr = cv2.cvtColor(smooth_crop(image, matrix, SIDE), cv2.COLOR_RGB2BGR)
    except (cv2.error, MemoryError):
        return None
    webp = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])[1].tobytes()
    # From pixels with integers at their centres to shares from the picture's edge.
    landmarks = transform_landmarks(face.landmarks, matrix)
    landmarks[:, :2] += 0.5
    return Tile(webp, landmarks / SIDE)
