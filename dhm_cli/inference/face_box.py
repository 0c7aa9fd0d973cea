"""Where a face is in a photo: the box of a detector, what every detector promises, and the crop of a box."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dhm_cli.geometry.crop import Square
from dhm_cli.io.photo import Pixels

# left, top, width, height in 0-based photo pixels.
Box = tuple[float, float, float, float]

# The square that a box calls for, in units of the box's mean side, so that it agrees with the landmarks' box squared on
# its longer side x sqrt(2): medians for YuNet over 500 AFLW training faces of all poses, spread 0.08 and 0.03.
CROP_SIDE = 1.31
CROP_SHIFT_DOWN = 0.10
# Least score of a face where none is given.
MIN_SCORE = 0.6
# The same where the network is asked about every box.
KEEN_SCORE = 0.3


@dataclass(frozen=True)
class FaceBox:
    """A face found in a photo; 0-based photo pixels, `left` and `top` at the box's edge, score 0 to 1."""

    left: float
    top: float
    width: float
    height: float
    score: float

    @property
    def mean_side(self) -> float:
        """Mean of width and height, pixels."""
        return (self.width + self.height) / 2


class Detector(Protocol):
    """A face detector, ready to run; safe to call from several threads.

    Its boxes lie as those of YuNet do, because `crop_square_from_box` cuts the crops by them. A detector that draws
    other boxes moves and scales them first.
    """

    def detect(self, image: Pixels) -> list[FaceBox]:
        """Find the faces of a photo.

        Args:
            image: (H, W, 3) uint8 RGB, at least 1 x 1, not changed; or a `Photo`, of which `io.photo.copy_of` gives an
                image of the size in which faces are looked for.

        Returns:
            Boxes in photo pixels, the largest first; empty when there is no face.

        Raises:
            MemoryError: the photo is too large for this machine.
            DhmError: the detector cannot run.
        """
        ...


def crop_square_from_box(box: FaceBox) -> Square:
    """Square that shows the face of a detector's box as the networks expect it.

    Args:
        box: as found by a `Detector`.

    Returns:
        Centre (2,) and side, photo pixels.
    """
    side = box.mean_side
    centre = [box.left + box.width / 2, box.top + box.height / 2 + CROP_SHIFT_DOWN * side]
    return np.array(centre, dtype=np.float64), CROP_SIDE * side
