"""Trained networks for inference: uint8 crops in, landmarks of the last step out, constants folded."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dhm_cli.models.fast_dhm import FastDhm
from dhm_cli.models.interface import Network, image_tensor
from dhm_cli.models.layers import SeparableBlock


class LastStep(nn.Module):
    """Any network with its pre-processing inside; nothing is folded.

    Args:
        model: a trained network in evaluation mode.
    """

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.model = model

    def forward(self, crops: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 RGB -> (B, 68, 3) crop pixels, after the last step."""
        landmarks: Tensor = self.model(image_tensor(crops)).landmarks
        return landmarks[:, -1]


class FoldedFastDhm(nn.Module):
    """Fast DHM with everything constant folded into its weights; equal to the network up to rounding.

    Batch norm goes into the convolutions before it, the pixels' scale into the stem, the pixels' offset and the heat
    map into a map of biases behind the stem, crop pixels and the mean shape into the head.

    Args:
        model: a trained network in evaluation mode.
    """

    stem_bias: Tensor

    def __init__(self, model: FastDhm) -> None:
        super().__init__()
        stem, norm, size = model.stem, model.stem_norm, model.config.input_size
        assert norm.running_var is not None
        assert norm.running_mean is not None
        with torch.no_grad():
            gain = (norm.weight / torch.sqrt(norm.running_var + norm.eps))[:, None, None]
            # A crop enters as pixel / 127.5 - 1. The -1 is a black picture: a constant, but for the padding at the rim.
            black = nn.functional.conv2d(
                torch.full((1, 3, size, size), -1.0), stem.weight[:, :3], stride=stem.stride, padding=stem.padding
            )
            offset = norm.bias[:, None, None] - gain * norm.running_mean[:, None, None]
            self.register_buffer("stem_bias", gain * (model.heatmap_response(model.heatmap) + black) + offset)
            self.stem = nn.Conv2d(3, stem.out_channels, 3, 2, 1, bias=False)
            self.stem.weight = nn.Parameter(stem.weight[:, :3] * gain[..., None] / 127.5)

            self.cnn = nn.Sequential(*(_folded(block) for block in model.cnn))
            self.recurrent, self.steps = model.recurrent, model.config.steps
            narrow, wide = model.head[1], model.head[2]
            assert isinstance(narrow, nn.Linear)
            assert isinstance(wide, nn.Linear)
            self.narrow, self.wide = narrow, nn.Linear(wide.in_features, wide.out_features)
            self.wide.weight = nn.Parameter(wide.weight * size)
            self.wide.bias = nn.Parameter(wide.bias * size + model.initial_landmarks.flatten())

    def forward(self, crops: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 RGB -> (B, 68, 3) crop pixels, after the last step."""
        x = torch.relu(self.stem(crops.permute(0, 3, 1, 2).float()) + self.stem_bias)
        features = self.recurrent(self.cnn(x), self.steps)[-1]
        return self.wide(self.narrow(features.reshape(-1, self.narrow.in_features))).reshape(-1, 68, 3)


def _folded(block: nn.Module) -> SeparableBlock:
    """A copy of a block, with the batch norms inside its convolutions."""
    assert isinstance(block, SeparableBlock)
    folded = copy.deepcopy(block)
    for name in ("depthwise", "pointwise"):
        norm = getattr(block, f"{name}_norm")
        if isinstance(norm, nn.BatchNorm2d):
            setattr(folded, name, fuse_conv_bn_eval(getattr(block, name), norm))
            setattr(folded, f"{name}_norm", nn.Identity())
    return folded
