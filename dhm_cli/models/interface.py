"""What every architecture takes and returns."""

from typing import NamedTuple

from torch import Tensor


class AlignmentOutput(NamedTuple):
    """Landmarks after every recurrent step.

    Attributes:
        landmarks: (B, T, 68, 3), 0-based crop pixels, x right, y down, z toward the viewer in the same unit with zero
            mean in the training data; the last step is the answer.
        parameters: (B, T, 234), p of every step for the crop as an image (`morphable.parameters.LAYOUT`), its angles as
            `DhmConfig.rotation` says, from networks that regress p; None from those that regress landmarks.
        log_scale: (B, T, 68), logarithm of each landmark's expected error as a share of the face size, from networks
            with `FastDhmConfig.uncertainty`; else None.
    """

    landmarks: Tensor
    parameters: Tensor | None = None
    log_scale: Tensor | None = None


def image_tensor(crops: Tensor) -> Tensor:
    """Network input of crops: (B, S, S, 3) uint8 RGB -> (B, 3, S, S) float32 in [-1, 1], channels last in memory."""
    return crops.permute(0, 3, 1, 2).float() / 127.5 - 1.0
