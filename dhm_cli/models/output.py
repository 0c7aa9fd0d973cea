"""What every architecture returns."""

from typing import NamedTuple

from torch import Tensor


class AlignmentOutput(NamedTuple):
    """Landmarks after every recurrent step.

    Attributes:
        landmarks: (B, T, 68, 3), 0-based crop pixels, x right, y down, z toward the viewer in the same unit with zero
            mean in the training data; the last step is the answer.
    """

    landmarks: Tensor
