"""What every architecture takes."""

from torch import Tensor


def image_tensor(crops: Tensor) -> Tensor:
    """Network input of crops: (B, S, S, 3) uint8 RGB -> (B, 3, S, S) float32 in [-1, 1], channels last in memory."""
    return crops.permute(0, 3, 1, 2).float() / 127.5 - 1.0
