"""Trained networks for inference: uint8 crops in, landmarks of the last step out, constants folded."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dhm_cli.geometry.landmarks import NUM_LANDMARKS
from dhm_cli.geometry.occlusion import STATES
from dhm_cli.models.closer_look import CloserLook
from dhm_cli.models.fast_dhm import FastDhm
from dhm_cli.models.interface import Network, image_tensor
from dhm_cli.models.layers import Doubts, SeparableBlock


def _outputs(uncertainty: bool) -> tuple[str, ...]:
    """Names of what a network for inference returns, in its order."""
    return ("landmarks", "sigma", "visibility", "confidence") if uncertainty else ("landmarks",)


def _answers(
    landmarks: Tensor, log_scale: Tensor, sigma_of_scale: Tensor, visibility: Tensor, confidence: Tensor
) -> tuple[Tensor, ...]:
    """What `_outputs` names; see `LastStep.forward`."""
    return landmarks, torch.exp(log_scale) * sigma_of_scale, visibility.softmax(-1), confidence.sigmoid()


class LastStep(nn.Module):
    """Any network with its pre-processing inside; nothing is folded.

    Args:
        model: a trained network in evaluation mode.
    """

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.model = model
        self.outputs = _outputs(model.config.uncertainty)

    def forward(self, crops: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The answer after the last step.

        Args:
            crops: (B, S, S, 3) uint8 RGB.

        Returns:
            Landmarks (B, 68, 3), crop pixels. From networks with uncertainty besides: sigma (B, 68), a share of the
            landmarks' face size (`geometry.landmarks.face_size`; `engines` gives pixels), the
            radius around each landmark that should hold 68 % of its errors; visibility (B, 68, 3),
            probabilities of the states of `geometry.occlusion`; confidence (B,), 0 to 1.
        """
        output = self.model(image_tensor(crops))
        landmarks: Tensor = output.landmarks[:, -1]
        if output.log_scale is None:
            return landmarks
        factor = self.model.get_buffer("doubts.sigma_of_scale")
        return _answers(landmarks, output.log_scale[:, -1], factor, output.visibility, output.confidence)


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
            self.doubts, self.earlier = model.doubts, model.earlier
            self.told = None if model.doubts is None else _one_layer(model.doubts)
            self.closer_look = None if model.closer_look is None else _folded_look(model.closer_look)
        self.outputs = _outputs(model.config.uncertainty)

    def forward(self, crops: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The answer after the last step; see `LastStep.forward`."""
        x = torch.relu(self.stem(crops.permute(0, 3, 1, 2).float()) + self.stem_bias)
        earlier = self.cnn[: self.earlier](x)
        features = self.recurrent(self.cnn[self.earlier :](earlier), self.steps)[-1].reshape(
            -1, self.narrow.in_features
        )
        landmarks: Tensor = self.wide(self.narrow(features)).reshape(-1, NUM_LANDMARKS, 3)
        change = None
        if self.closer_look is not None:
            moves, change = self.closer_look(crops, landmarks)
            landmarks = landmarks + moves
        if self.doubts is None or self.told is None:
            return landmarks
        told = self.told(self.doubts(features, earlier))
        log_sigma, visibility, confidence = torch.split(told, [NUM_LANDMARKS, STATES * NUM_LANDMARKS, 1], dim=1)
        if change is not None:
            log_sigma = log_sigma + change
        states = visibility.reshape(-1, NUM_LANDMARKS, STATES).softmax(-1)
        return landmarks, log_sigma.exp(), states, confidence.reshape(-1).sigmoid()


def _one_layer(doubts: Doubts) -> nn.Linear:
    """The layers of scale, visibility and confidence as one, the factor from scale to sigma in its biases."""
    parts = (doubts.scale, doubts.visibility, doubts.confidence)
    layer = nn.Linear(doubts.scale.in_features, sum(part.out_features for part in parts))
    layer.weight = nn.Parameter(torch.cat([part.weight for part in parts]))
    scale, *others = (part.bias for part in parts)
    layer.bias = nn.Parameter(torch.cat([scale + torch.log(doubts.sigma_of_scale), *others]))
    return layer


def _folded_look(closer_look: CloserLook) -> CloserLook:
    """A copy that takes uint8, with the batch norms and the pixels' scale and offset inside its convolutions."""
    assert isinstance(closer_look.stem_norm, nn.BatchNorm2d)
    folded = copy.deepcopy(closer_look)
    stem = fuse_conv_bn_eval(closer_look.stem, closer_look.stem_norm)
    assert stem.bias is not None
    stem.bias = nn.Parameter(stem.bias - stem.weight.sum((1, 2, 3)))
    stem.weight = nn.Parameter(stem.weight / 127.5)
    folded.stem, folded.stem_norm = stem, nn.Identity()
    folded.cnn = nn.Sequential(*(_folded(block) for block in closer_look.cnn))
    return folded


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
