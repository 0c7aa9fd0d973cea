"""What every network takes, returns and tells about itself."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from dhm_cli.config.networks import NetworkConfig


class AlignmentOutput(NamedTuple):
    """Landmarks after every recurrent step.

    Attributes:
        landmarks: (B, T, 68, 3), 0-based crop pixels, x right, y down, z toward the viewer in the same unit with zero
            mean in the training data; the last step is the answer.
        parameters: (B, T, 234), p of every step for the crop as an image (`morphable.parameters.LAYOUT`), its angles as
            `DhmConfig.rotation` says, from networks that regress p; None from those that regress landmarks.
        log_scale: (B, T, 68), logarithm of each landmark's expected error as a share of the face size, from networks
            with `NetworkConfig.uncertainty`, as are the next two; else None.
        visibility: (B, 68, 3), logits of the states VISIBLE, OCCLUDED and SELF_OCCLUDED (`geometry.occlusion`) after
            the last step.
        confidence: (B,), logit of the chance that the crop shows a face and the NME of the last step is below 6 %.
    """

    landmarks: Tensor
    parameters: Tensor | None = None
    log_scale: Tensor | None = None
    visibility: Tensor | None = None
    confidence: Tensor | None = None


class Network(nn.Module, ABC):
    """Base of every network: crops in, the landmarks of every step out.

    Args:
        config: layers and sizes.
        mean_shape: (68, 3), frontal mean shape, x right, y down, z toward the viewer; the centre of its box at the
            origin, the longer side of its box 1.

    Attributes:
        config: the same.
        mean_shape: the buffer of that shape.
        doubts_weights: how the names of those weights begin that a network with uncertainty has besides; a checkpoint
            to start from may lack them.
        added_weights: the same of other parts that a setting adds.
        int8_weights: how the names of those weights of the inference form begin that `dhm export` may compute in 8
            bits; empty for none.
        face_model_hash: hash of the face model that p belongs to; None where the network regresses landmarks.
    """

    config: NetworkConfig
    mean_shape: Tensor
    int8_weights: str = ""
    doubts_weights: str = "doubts."
    added_weights: tuple[str, ...] = ()

    def __init__(self, config: NetworkConfig, mean_shape: Tensor) -> None:
        super().__init__()
        self.config = config
        self.face_model_hash: str | None = None
        self.register_buffer("mean_shape", mean_shape.float().clone())

    @property
    @abstractmethod
    def initial_landmarks(self) -> Tensor:
        """Landmarks before the first step, (68, 3), crop pixels: a face as the test protocol places it."""

    @abstractmethod
    def forward(self, images: Tensor) -> AlignmentOutput:
        """Landmarks after every step.

        Args:
            images: (B, 3, S, S) RGB crops scaled to [-1, 1], S as `config.input_size`.

        Returns:
            All steps.

        Raises:
            ValueError: images of another shape.
        """

    def unused_parameters(self, loss: str) -> tuple[str, ...]:
        """Names of the parameters that get no gradient in a training with a loss (`TrainConfig.loss`)."""
        return ()

    def _check_shape(self, images: Tensor) -> None:
        size = self.config.input_size
        if images.shape[1:] != (3, size, size):
            raise ValueError(f"this network takes images of shape (B, 3, {size}, {size}), got {tuple(images.shape)}")


def image_tensor(crops: Tensor) -> Tensor:
    """Network input of crops: (B, S, S, 3) uint8 RGB -> (B, 3, S, S) float32 in [-1, 1], channels last in memory."""
    return crops.permute(0, 3, 1, 2).float() / 127.5 - 1.0
