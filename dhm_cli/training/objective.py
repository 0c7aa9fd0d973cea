"""What a training minimises: the recipe's loss against the labels, a teacher's landmarks and the face model's prior."""

from pathlib import Path

import torch
from torch import Tensor, nn

from dhm_cli.config.training import TrainConfig
from dhm_cli.data.batches import Batch
from dhm_cli.models.checkpoint import load_checkpoint
from dhm_cli.models.interface import AlignmentOutput
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.training.losses import (
    LOSSES,
    coefficient_prior,
    confidence_loss,
    likelihood_loss,
    over_steps,
    visibility_loss,
)


class Teacher(nn.Module):
    """A trained network whose landmarks a smaller one learns (distillation, Hinton et al. 2015).

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
        """Predict landmarks (B, 68, 3), pixels, of the student's crops (B, 3, S, S) in [-1, 1]."""
        size, mine = images.shape[-1], self.network.config.input_size
        if size != mine:
            images = nn.functional.interpolate(images, (mine, mine), mode="bilinear", antialias=True)
        landmarks = self.network.eval()(images).landmarks[:, -1].float() * (size / mine)
        shift = (size / mine - 1) / 2  # x -> (x + 0.5) s - 0.5
        return landmarks + landmarks.new_tensor([shift, shift, 0.0])


class Objective(nn.Module):
    """The loss of a batch.

    Args:
        config: the loss and the weights of its terms.
        side: side of the crops, pixels.
        face_model: for networks that regress p; its standard deviations define the prior.
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

    def forward(self, output: AlignmentOutput, batch: Batch, images: Tensor) -> Tensor:
        """Scalar loss of a batch.

        Args:
            output: of the network.
            batch: the labels, on the network's device.
            images: (B, 3, S, S) in [-1, 1], the network's input; a teacher gets it too.
        """
        c = self._config
        extra = self._doubts(output, batch)
        truth = batch.landmarks
        if c.not_face_share:
            scale = None if output.log_scale is None else output.log_scale[batch.faces]
            output = AlignmentOutput(output.landmarks[batch.faces], log_scale=scale)
            truth, images = truth[batch.faces], images[batch.faces]
        loss = self._against(output, truth) + extra
        if self.teacher is not None:
            with torch.autocast(images.device.type, torch.bfloat16, enabled=c.precision == "bf16"):
                shown = self.teacher(images)
            loss = loss + c.distillation_weight * self._against(output, shown)
        if c.prior_weight and output.parameters is not None:
            prior = coefficient_prior(output.parameters, self.identity_std, self.expression_std)
            loss = loss + c.prior_weight * prior
        return loss

    def _doubts(self, output: AlignmentOutput, batch: Batch) -> Tensor | float:
        """Weighted losses of what a network says about its own answer; 0 where it says nothing."""
        if output.log_scale is None or output.visibility is None or output.confidence is None:
            return 0.0
        faces, last = batch.faces, output.landmarks[:, -1]
        loss = visibility_loss(output.visibility, batch.visibility)
        loss = loss + confidence_loss(output.confidence, faces, last, batch.landmarks)
        if self._config.loss != "likelihood":
            losses = likelihood_loss(
                output.landmarks.detach()[faces],
                batch.landmarks[faces],
                self._side,
                output.log_scale[faces],
                self._config.depth_weight,
            )
            loss = loss + losses[-1]
        return self._config.doubts_weight * loss

    def _against(self, output: AlignmentOutput, truth: Tensor) -> Tensor:
        losses = LOSSES[self._config.loss](output, truth, self._side, self._config)
        return over_steps(losses, self._config.step_weights)
