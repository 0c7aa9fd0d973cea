"""What a training minimises: the recipe's loss against the labels, a teacher's landmarks and the face model's prior."""

from pathlib import Path

import torch
from torch import Tensor, nn

from dhm_cli.checkpoint import load_checkpoint
from dhm_cli.config import TrainConfig
from dhm_cli.losses import coefficient_prior, over_steps, squared_loss, wing_loss
from dhm_cli.models.output import AlignmentOutput
from dhm_cli.morphable.face_model import FaceModel


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
        """Landmarks of the student's crops, (B, 3, S, S) in [-1, 1] -> (B, 68, 3), pixels of the student's crop."""
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
        loss = self._against(output.landmarks, truth)
        if self.teacher is not None:
            with torch.autocast(images.device.type, torch.bfloat16, enabled=self._config.precision == "bf16"):
                shown = self.teacher(images)
            loss = loss + self._config.distillation_weight * self._against(output.landmarks, shown)
        if self._config.prior_weight and output.parameters is not None:
            prior = coefficient_prior(output.parameters, self.identity_std, self.expression_std)
            loss = loss + self._config.prior_weight * prior
        return loss

    def _against(self, predicted: Tensor, truth: Tensor) -> Tensor:
        c = self._config
        if c.loss == "squared":
            losses = squared_loss(predicted, truth, self._side, c.depth_weight)
        else:
            losses = wing_loss(predicted, truth, c.wing_width, c.wing_curvature, c.depth_weight)
        return over_steps(losses, c.step_weights)
