"""Training losses on landmarks and on the parameters of the face model."""

import math

import torch
from torch import Tensor

from dhm_cli.morphable.parameters import LAYOUT


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


def wing_loss(predicted: Tensor, truth: Tensor, width: float, curvature: float, depth_weight: float) -> Tensor:
    """Wing loss on landmark distances over face size, for every step.

    Args:
        predicted: (B, T, 68, 3), crop pixels.
        truth: (B, 68, 3), crop pixels.
        width: w of the Wing loss, share of the face size.
        curvature: epsilon of the Wing loss, share of the face size.
        depth_weight: weight of the depth error.

    Returns:
        (T,), means over faces and landmarks.
    """
    extent = truth[..., :2].amax(1) - truth[..., :2].amin(1)
    size = extent.prod(-1).sqrt().clamp_min(1.0)[:, None, None, None]
    error = (predicted - truth[:, None]) / size
    distance = (error[..., :2].square().sum(-1) + 1e-8).sqrt()
    loss = wing(distance, width, curvature) + depth_weight * wing(error[..., 2].abs(), width, curvature)
    return loss.mean((0, 2))


def squared_loss(predicted: Tensor, truth: Tensor, side: int, depth_weight: float) -> Tensor:
    """Squared distance of landmarks, Eq. (5) of Sun et al. 2018, for every step.

    Args:
        predicted: (B, T, 68, 3), crop pixels.
        truth: (B, 68, 3), crop pixels.
        side: side of the crop, pixels: the unit of length.
        depth_weight: weight of the squared depth error.

    Returns:
        (T,), means over faces and landmarks.
    """
    error = ((predicted - truth[:, None]) / side).square()
    return (error[..., :2].sum(-1) + depth_weight * error[..., 2]).mean((0, 2))


def over_steps(losses: Tensor, weights: str) -> Tensor:
    """One loss from that of every step.

    Args:
        losses: (T,).
        weights: "equal", or "rising": step t of T weighs t / T.

    Returns:
        Scalar, a weighted mean.
    """
    if weights == "equal":
        return losses.mean()
    steps = torch.arange(1, len(losses) + 1, dtype=losses.dtype, device=losses.device)
    return (losses * steps / steps.sum()).sum()


def coefficient_prior(parameters: Tensor, identity_std: Tensor, expression_std: Tensor) -> Tensor:
    """Mean square of identity and expression coefficients in standard deviations (Blanz and Vetter 2003).

    Args:
        parameters: p, (..., 234).
        identity_std: standard deviation of each identity coefficient of the face model, (K_id,).
        expression_std: the same of the expression coefficients, (K_exp,).

    Returns:
        Scalar.
    """
    identity = parameters[..., LAYOUT["identity"]][..., : len(identity_std)] / identity_std
    expression = parameters[..., LAYOUT["expression"]][..., : len(expression_std)] / expression_std
    return torch.cat([identity, expression], dim=-1).square().mean()
