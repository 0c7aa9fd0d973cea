"""Training losses on landmarks and on the parameters of the face model."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dhm_cli.geometry.landmarks import PARTS
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


def soft_wing(error: Tensor, start: float, width: float, curvature: float) -> Tensor:
    """Soft Wing loss (Lin et al. 2021, Eq. 5): x up to x = start, then w ln(1 + x / e) + C: tiny errors count less.

    Args:
        error: x >= 0, any shape.
        start: where the logarithm begins.
        width: w.
        curvature: e.

    Returns:
        Loss of each element, continuous at `start`.
    """
    constant = start - width * math.log(1 + start / curvature)
    return torch.where(error < start, error, width * torch.log1p(error / curvature) + constant)


def _errors(predicted: Tensor, truth: Tensor) -> Tensor:
    """Errors of landmarks over the face size, (B, T, 68, 3)."""
    extent = truth[..., :2].amax(1) - truth[..., :2].amin(1)
    size = extent.prod(-1).sqrt().clamp_min(1.0)[:, None, None, None]
    return (predicted - truth[:, None]) / size


def _lengths(errors: Tensor) -> tuple[Tensor, Tensor]:
    """Distance in x,y and absolute error in z of errors (B, T, 68, 3), each (B, T, 68)."""
    return (errors[..., :2].square().sum(-1) + 1e-8).sqrt(), errors[..., 2].abs()


def _within_parts(errors: Tensor) -> Tensor:
    """Errors of landmarks (B, T, 68, 3) relative to the mean error of their part: what is wrong with its shape."""
    parts = (errors[..., part, :] for part in PARTS)
    return torch.cat([part - part.mean(-2, keepdim=True) for part in parts], dim=-2)


def robust_loss(
    predicted: Tensor,
    truth: Tensor,
    penalty: Callable[[Tensor], Tensor],
    depth_weight: float,
    part_weight: float = 0.0,
) -> Tensor:
    """A function of the landmarks' distances over the face size, for every step.

    Args:
        predicted: (B, T, 68, 3), crop pixels.
        truth: (B, 68, 3), crop pixels.
        penalty: of an error >= 0, a share of the face size, such as `wing`.
        depth_weight: weight of the depth error.
        part_weight: weight of the same loss on the shapes of the parts alone (jaw, brows, nose, eyes, mouth), each
            placed at its true centroid. Pose makes most of a landmark's error, so it would drown an open mouth.

    Returns:
        (T,), means over faces and landmarks.
    """

    def penalised(errors: Tensor) -> Tensor:
        distance, depth = _lengths(errors)
        return (penalty(distance) + depth_weight * penalty(depth)).mean((0, 2))

    errors = _errors(predicted, truth)
    return penalised(errors) + part_weight * penalised(_within_parts(errors)) if part_weight else penalised(errors)


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


def similarity_loss(features: Tensor, shown: Tensor) -> Tensor:
    """Distance between two networks' tables of how alike the faces of a batch are (Tung and Mori 2019, Eq. 2-4).

    Args:
        features: of the student, (B, ...).
        shown: of the teacher, (B, ...), of any other shape.

    Returns:
        Scalar, mean square difference of the two (B, B) tables of inner products with rows of length 1, times B.
    """
    mine, theirs = (
        torch.nn.functional.normalize(x.flatten(1) @ x.flatten(1).T, dim=1) for x in (features.float(), shown.float())
    )
    return (mine - theirs).square().sum() / len(features)


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
