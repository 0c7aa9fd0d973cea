"""What a training minimises: the recipe's loss against the labels, a teacher's landmarks and the face model's prior."""

from pathlib import Path

import torch
from torch import Tensor, nn

from dhm_cli.config.training import TrainConfig
from dhm_cli.models.checkpoint import load_checkpoint
from dhm_cli.models.interface import AlignmentOutput
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.training.losses import (
    coefficient_prior,
    likelihood_loss,
    over_steps,
    robust_loss,
    squared_loss,
    wing,
)


class Teacher(nn.Module):
    """A trained network that shows a smaller one its landmarks (distillation, Hinton et al. 2015).

    Args:
        checkpoint: its file, of any architecture and input size.
        face_model: file of the face model, where the teacher regresses p.
    """

    def __init__(self, checkpoint: Path, face_model: Path | None) -> None:
        super().__init__()
        self.network, _ = load_checkpoint(checkpoint, face_model)
        self.network.requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Its landmarks of the student's crops (B, 3, S, S) in [-1, 1]: (B, 68, 3), pixels of those crops."""
        size, mine = images.shape[-1], self.network.config.input_size
        if size != mine:
            images = nn.functional.interpolate(images, (mine, mine), mode="bilinear", antialias=True)
        landmarks = self.network.eval()(images).landmarks[:, -1].float() * (size / mine)
        shift = (size / mine - 1) / 2  # x -> (x + 0.5) s - 0.5
        return landmarks + landmarks.new_tensor([shift, shift, 0.0])


class Objective(nn.Module):
    """The loss of a batch.

    Args:
        config: which loss, and its weights.
        side: side of the crops, pixels.
        face_model: of networks that regress p; its standard deviations make the prior.
        teacher: None without distillation.
    """

    identity_std: Tensor
    expression_std: Tensor

    def __init__(self, config: TrainConfig, side: int, face_model: FaceModel | None, teacher: Teacher | None) -> None:
        super().__init__()
        self._config, self._side, self.teacher = config, side, teacher
        if face_model is not None:
            for name in ("identity_std", "expression_std"):
                self.register_buffer(name, getattr(face_model, name).float().clone())

    def forward(self, output: AlignmentOutput, truth: Tensor, images: Tensor) -> Tensor:
        """Scalar loss.

        Args:
            output: of the network.
            truth: (B, 68, 3), crop pixels.
            images: (B, 3, S, S), what the network saw.
        """
        c = self._config
        loss = self._against(output, truth)
        if self.teacher is not None:
            with torch.autocast(images.device.type, torch.bfloat16, enabled=c.precision == "bf16"):
                shown = self.teacher(images)
            loss = loss + c.distillation_weight * self._against(output, shown)
        if c.prior_weight and output.parameters is not None:
            prior = coefficient_prior(output.parameters, self.identity_std, self.expression_std)
            loss = loss + c.prior_weight * prior
        return loss

    def _against(self, output: AlignmentOutput, truth: Tensor) -> Tensor:
        c, predicted = self._config, output.landmarks
        if c.loss == "squared":
            losses = squared_loss(predicted, truth, self._side, c.depth_weight)
        elif c.loss == "likelihood":
            assert output.log_scale is not None
            losses = likelihood_loss(predicted, output.log_scale, truth, c.depth_weight)
        else:
            losses = robust_loss(predicted, truth, self._penalty, c.depth_weight)
        return over_steps(losses, c.step_weights)

    def _penalty(self, error: Tensor) -> Tensor:
        c = self._config
        return wing(error, c.wing_width, c.wing_curvature) if c.loss == "wing" else error
