"""Training losses on landmarks."""

import math

import torch
from torch import Tensor


def wing(error: Tensor, width: float, curvature: float) -> Tensor:
    """Wing loss (Feng et al. 2018, Eq. 5): w ln(1 + x / e) up to x = w, then x - C, so that small errors count.

    Args:
        error: x >= 0, any shape.
        width: w, where the logarithm ends.
        curvature: e.

    Returns:
        Loss of each element, continuous at w.
    """
    constant = width - width * math.log(1 + width / curvature)
    return torch.where(error < width, width * torch.log1p(error / curvature), error - constant)


def landmark_loss(predicted: Tensor, truth: Tensor, width: float, curvature: float, depth_weight: float) -> Tensor:
    """Wing loss on landmark distances over face size; all steps supervised, later ones more (cf. Eq. 5, Sun et al.).

    Args:
        predicted: (B, T, 68, 3), crop pixels.
        truth: (B, 68, 3), crop pixels.
        width: w of the Wing loss, share of the face size.
        curvature: epsilon of the Wing loss, share of the face size.
        depth_weight: weight of the depth error.

    Returns:
        Scalar, mean over faces and landmarks; step t of T weighs t / T, normalised.
    """
    extent = truth[..., :2].amax(1) - truth[..., :2].amin(1)
    size = extent.prod(-1).sqrt().clamp_min(1.0)[:, None, None, None]
    error = (predicted - truth[:, None]) / size
    distance = (error[..., :2].square().sum(-1) + 1e-8).sqrt()
    loss = wing(distance, width, curvature) + depth_weight * wing(error[..., 2].abs(), width, curvature)
    steps = torch.arange(1, predicted.shape[1] + 1, dtype=loss.dtype, device=loss.device)
    return (loss.mean((0, 2)) * steps / steps.sum()).sum()
