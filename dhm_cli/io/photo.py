"""A photo that is decoded only as finely as what is asked of it needs.

libjpeg decodes at 1/2, 1/4 and 1/8 by smaller inverse transforms of its blocks of 8 x 8 pixels: a phone's photo of 12
megapixels in a half, a third and a quarter of the time. Faces are looked for in a copy of 256 pixels, and landmarks
found in crops of a hundred.
"""

import math
import os
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dhm_cli.io.image_size import jpeg_orientation
from dhm_cli.io.images import MOST_PIXELS, check_image, decode_checked

_REDUCTIONS = (8, 4, 2, 1)
# A smaller JPEG is decoded whole at once, pixels on the longer side: looking twice would cost more than it saves.
_WHOLE_BELOW = 1536
# The coarsest that is decoded after the first.
_SECOND = 2
# EXIF orientations whose left edge, whose top edge is where the file ends; where a reduced copy rounds up.
_ENDS_LEFT, _ENDS_TOP, _TRANSPOSED = (2, 3, 6, 7), (3, 4, 7, 8), (5, 6, 7, 8)


class Copy(NamedTuple):
    """A photo, reduced by a whole factor.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        factor: photo pixels to a pixel of the copy.
        left, top: the copy's outer corner, photo pixels, at most 0: x_photo = (x + 0.5) factor - 0.5 + left.
    """

    image: NDArray[np.uint8]
    factor: int
    left: int
    top: int

    def matrix(self, to_crop: NDArray[np.floating]) -> NDArray[np.float64]:
        """Turn a map of photo pixels (2, 3) into one of the copy's."""
        if self.factor == 1:
            return np.asarray(to_crop, np.float64)
        corner = np.array([self.left, self.top]) + (self.factor - 1) / 2
        offset = to_crop[:, :2] @ corner + to_crop[:, 2]
        return np.concatenate([self.factor * to_crop[:, :2], offset[:, None]], axis=1)


class Photo:
    """An image file in memory, decoded when a copy is asked for. Not to be shared between threads.

    Args:
        data: the whole file.
        path: its name, for messages.
        most_pixels: as for `read_image`.
        least: pixels on the longer side of the first copy, which is decoded at once.

    Attributes:
        shape: of the whole photo, upright: (H, W, 3).

    Raises:
        InputError: as `read_image`.
    """

    def __init__(
        self, data: bytes, path: str | os.PathLike[str], most_pixels: int = MOST_PIXELS, least: int = 256
    ) -> None:
        kind, (width, height) = check_image(data, path, most_pixels)
        self._decode = partial(decode_checked, data, path, kind)
        self._is_reducible = kind == "JPEG" and max(width, height) >= _WHOLE_BELOW
        self._copies: dict[int, Copy] = {}
        self._orientation = jpeg_orientation(data) if self._is_reducible else 1
        self.shape = (width, height, 3) if self._orientation in _TRANSPOSED else (height, width, 3)
        first = self.copy(max(width, height) / least)
        expected = tuple(math.ceil(side / first.factor) for side in self.shape[:2])
        if first.image.shape[:2] != expected:  # turned or cut in a way that only the decoder knows of
            self._is_reducible, self._copies = False, {}
        if not self._is_reducible:
            self.shape = self.copy(1).image.shape

    def copy(self, reduction: float) -> Copy:
        """A copy that is reduced by at most `reduction`, the coarsest of them unless a finer one is at hand."""
        factor = next(k for k in _REDUCTIONS if k <= max(reduction, 1)) if self._is_reducible else 1
        at_hand = max((k for k in self._copies if k <= factor), default=0)
        if self._copies:  # where a second copy is wanted, a third often follows, and half the photo serves for both
            factor = min(factor, _SECOND)
        if not at_hand:
            image = self._decode(reduction=factor)
            height, width = image.shape[:2]
            left = self.shape[1] - factor * width if self._orientation in _ENDS_LEFT else 0
            top = self.shape[0] - factor * height if self._orientation in _ENDS_TOP else 0
            self._copies[factor] = Copy(image, factor, left, top)
        return self._copies[at_hand or factor]


# What faces are looked for in.
Pixels = NDArray[np.uint8] | Photo


def copy_of(photo: Pixels, reduction: float) -> Copy:
    """What `Photo.copy` gives; of an image (H, W, 3), the image itself."""
    return photo.copy(reduction) if isinstance(photo, Photo) else Copy(photo, 1, 0, 0)
