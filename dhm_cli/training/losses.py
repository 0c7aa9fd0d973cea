"""Training losses on landmarks, in one list, and the prior on the parameters of the face model.

To add a loss, write its function, add a line to `LOSSES`, and name it among the choices of the setting `loss`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dhm_cli.config.training import TrainConfig
from dhm_cli.io.pts import VISIBLE
from dhm_cli.metrics.landmark_error import FAILURE
from dhm_cli.models.interface import AlignmentOutput
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


def _penalised(predicted: Tensor, truth: Tensor, penalty: Callable[[Tensor], Tensor], depth_weight: float) -> Tensor:
    """Mean penalty of the distances in x,y and, weighted, in z, as shares of the face size: (T,)."""
    distance, depth = _lengths(_errors(predicted, truth))
    return (penalty(distance) + depth_weight * penalty(depth)).mean((0, 2))


def wing_loss(
    predicted: Tensor, truth: Tensor, side: int, depth_weight: float, wing_width: float, wing_curvature: float
) -> Tensor:
    """Wing loss of the landmarks' distances over the face size, for every step.

    Args:
        predicted: (B, T, 68, 3), crop pixels.
        truth: (B, 68, 3), crop pixels.
        side: not read.
        depth_weight: weight of the depth error.
        wing_width: w of `wing`, share of the face size.
        wing_curvature: e of `wing`, share of the face size.

    Returns:
        (T,), means over faces and landmarks.
    """
    return _penalised(predicted, truth, lambda error: wing(error, wing_width, wing_curvature), depth_weight)


def l1_loss(predicted: Tensor, truth: Tensor, side: int, depth_weight: float) -> Tensor:
    """The landmarks' distances over the face size, for every step; arguments and result as in `wing_loss`."""
    return _penalised(predicted, truth, lambda error: error, depth_weight)


def likelihood_loss(predicted: Tensor, truth: Tensor, side: int, log_scale: Tensor, depth_weight: float) -> Tensor:
    """Negative log-likelihood of landmarks under Laplace distributions whose scales the network predicts.

    In x,y the density is exp(-d / s) / (2 pi s^2), in z exp(-d / s) / (2 s), as in Kumar et al. 2020 ("LUVLi", Eq. 9)
    but with the same scale in all directions.

    Args:
        predicted: (B, T, 68, 3), crop pixels.
        truth: (B, 68, 3), crop pixels.
        side: not read.
        log_scale: ln s, (B, T, 68), s a share of the face size.
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


def visibility_loss(logits: Tensor, codes: Tensor) -> Tensor:
    """Cross-entropy of the landmarks' states.

    Args:
        logits: (B, 68, 3), of the states of `geometry.occlusion`.
        codes: (B, 68), human labels as codes of `io.pts`; landmarks without one do not count.

    Returns:
        Scalar, a mean over the labelled landmarks; 0 where there is none.
    """
    states = codes.long() - VISIBLE  # the codes after NO_LABEL have the order of the states
    total = nn.functional.cross_entropy(logits.flatten(0, 1), states.flatten(), ignore_index=-VISIBLE, reduction="sum")
    return total / (states >= 0).sum().clamp_min(1)


def confidence_loss(logits: Tensor, faces: Tensor, landmarks: Tensor, truth: Tensor) -> Tensor:
    """Binary cross-entropy of the claim that a crop shows a face and its landmarks' NME is below 6 %.

    Args:
        logits: (B,).
        faces: (B,) bool, whether there is a face.
        landmarks: (B, 68, 3), the network's, crop pixels; they get no gradient.
        truth: (B, 68, 3), crop pixels; not read where there is no face.

    Returns:
        Scalar, a mean.
    """
    distance, _ = _lengths(_errors(landmarks.detach()[:, None], truth))
    right = faces & (distance.mean((1, 2)) < FAILURE / 100)
    return nn.functional.binary_cross_entropy_with_logits(logits, right.float())


@dataclass(frozen=True)
class Loss:
    """A loss of the list.

    Attributes:
        function: (predicted (B, T, 68, 3), truth (B, 68, 3), side of the crop), all in crop pixels, and by name all of
            `settings` and `needs` -> (T,), the loss of each step.
        settings: fields of `TrainConfig` that the function takes.
        needs: optional fields of `AlignmentOutput` that the function takes; the network must give them.
    """

    function: Callable[..., Tensor]
    settings: tuple[str, ...]
    needs: tuple[str, ...] = ()

    def __call__(self, output: AlignmentOutput, truth: Tensor, side: int, config: TrainConfig) -> Tensor:
        """Loss of every step, (T,).

        Args:
            output: of the network; must have what the loss needs.
            truth: (B, 68, 3), crop pixels.
            side: side of the crop, pixels.
            config: holds the settings of the loss.
        """
        given = {name: getattr(output, name) for name in self.needs}
        assert all(value is not None for value in given.values()), f"the network gives no {', '.join(given)}"
        settings = {name: getattr(config, name) for name in self.settings}
        return self.function(output.landmarks, truth, side, **given, **settings)


# By the name that the setting `loss` has.
LOSSES = {
    "wing": Loss(wing_loss, ("depth_weight", "wing_width", "wing_curvature")),
    "l1": Loss(l1_loss, ("depth_weight",)),
    "likelihood": Loss(likelihood_loss, ("depth_weight",), needs=("log_scale",)),
    "squared": Loss(squared_loss, ("depth_weight",)),
}


def over_steps(losses: Tensor, weights: str) -> Tensor:
    """Combine the losses of all steps into one.

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
