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
# Where there are few photos, the first faces of each have tiles of as many pixels as the photo has, up to so many.
LARGE_SIDE, _FEW_PHOTOS, _FEW_FACES = 448, 500, 4
# Side of what is seen over the longer side of the landmarks' box.
_MARGIN = 1.5


def largest_side(photos: int) -> int:
    """Largest side of the tiles of so many photos, pixels: a page of 500 faces stays below some 20 MB."""
    return LARGE_SIDE if photos <= _FEW_PHOTOS else SIDE


def with_tiles(image: NDArray[np.uint8], faces: Sequence[Face], largest: int = SIDE) -> list[Face]:
    """The faces of a photo, each with a picture of it as it stands in the photo, not turned.

    Args:
        image: (H, W, 3) uint8 RGB.
        faces: its faces.
        largest: largest side of a tile, pixels, of the first faces; that of a small face is `SIDE`.

    Returns:
        The faces; one whose picture cannot be made stays without.
    """
    most = [largest if number < _FEW_FACES else SIDE for number in range(len(faces))]
    return [replace(face, tile=_tile(image, face, side)) for face, side in zip(faces, most, strict=True)]


def _tile(image: NDArray[np.uint8], face: Face, largest: int) -> Tile | None:
    centre, side = landmark_crop_square(face.landmarks, _MARGIN)
    pixels = min(max(SIDE, round(side)), largest)
    matrix = crop_matrix(centre, max(side, 1.0), pixels)
    try:
        bgr = cv2.cvtColor(smooth_crop(image, matrix, pixels), cv2.COLOR_RGB2BGR)
    except (cv2.error, MemoryError):
        return None
    webp = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])[1].tobytes()
    # From pixels with integers at their centres to shares from the picture's edge.
    landmarks = transform_landmarks(face.landmarks, matrix)
    landmarks[:, :2] += 0.5
    return Tile(webp, landmarks / pixels)
