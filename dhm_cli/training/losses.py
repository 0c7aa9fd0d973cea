"""Training losses on landmarks and on the parameters of the face model."""

import math
from collections.abc import Callable

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


def _errors(predicted: Tensor, truth: Tensor) -> Tensor:
    """Errors of landmarks over the face size, (B, T, 68, 3)."""
    extent = truth[..., :2].amax(1) - truth[..., :2].amin(1)
    size = extent.prod(-1).sqrt().clamp_min(1.0)[:, None, None, None]
    return (predicted - truth[:, None]) / size


def _lengths(errors: Tensor) -> tuple[Tensor, Tensor]:
    """Distance in x,y and absolute error in z of errors (B, T, 68, 3), each (B, T, 68)."""
    return (errors[..., :2].square().sum(-1) + 1e-8).sqrt(), errors[..., 2].abs()


def robust_loss(
    predicted: Tensor,
    truth: Tensor,
    penalty: Callable[[Tensor], Tensor],
    depth_weight: float,
) -> Tensor:
    """A function of the landmarks' distances over the face size, for every step.

    Args:
        predicted: (B, T, 68, 3), crop pixels.
        truth: (B, 68, 3), crop pixels.
        penalty: of an error >= 0, a share of the face size, such as `wing`.
        depth_weight: weight of the depth error.

    Returns:
        (T,), means over faces and landmarks.
    """
    distance, depth = _lengths(_errors(predicted, truth))
    return (penalty(distance) + depth_weight * penalty(depth)).mean((0, 2))


def likelihood_loss(predicted: Tensor, log_scale: Tensor, truth: Tensor, depth_weight: float) -> Tensor:
    """Negative log-likelihood of landmarks under Laplace distributions whose scales the network tells.

    In x,y the density is exp(-d / s) / (2 pi s^2), in z exp(-d / s) / (2 s), as in Kumar et al. 2020 ("LUVLi", Eq. 9)
    but with the same scale in all directions.

    Args:
        predicted: (B, T, 68, 3), crop pixels.
        log_scale: ln s, (B, T, 68), s a share of the face size.
        truth: (B, 68, 3), crop pixels.
        depth_weight: weight of the depth's likelihood.

    Returns:
        (T,), means over faces and landmarks, without constants.
    """
    distance, depth = _lengths(_errors(predicted, truth))
    loss = (distance + depth_weight * depth) * torch.exp(-log_scale) + (2 + depth_weight) * log_scale
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
        weights: "equal"; "rising", step t of T weighs t / T; or "last", the last step alone.

    Returns:
        Scalar, a weighted mean.
    """
    if weights == "equal":
        return losses.mean()
    if weights == "last":
        return losses[-1]
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
