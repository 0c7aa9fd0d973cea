"""MobileNet-V1 as 3DDFA runs it, the baseline that stands beside every measurement."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# 3DDFA (Guo et al. 2018): crops of 120 x 120, 62 numbers: pose 12, identity 40, expression 10.
INPUT_SIZE = 120
OUTPUTS = 62
BASELINES = {"MobileNet-V1 x1": 1.0, "MobileNet-V1 x0.5": 0.5}
# The network that the ratios of a report are against.
REFERENCE = "MobileNet-V1 x0.5"
# Table 1 of Howard et al. 2017: (channels out, stride) of the depthwise-separable blocks.
_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1),
    (1024, 2), (1024, 1),
)  # fmt: skip


class MobileNetV1(nn.Module):
    """MobileNet-V1 (Howard et al. 2017, Table 1): batch norm and ReLU after every convolution, global average pool.

    Args:
        width: the paper's alpha, multiplies all channels.
        outputs: numbers of the last layer.
    """

    def __init__(self, width: float = 1.0, outputs: int = OUTPUTS) -> None:
        super().__init__()
        channels = round(32 * width)
        layers = _convolution(3, channels, 3, 2)
        for wide, stride in _BLOCKS:
            wider = round(wide * width)
            layers += _convolution(channels, channels, 3, stride, groups=channels)
            layers += _convolution(channels, wider, 1, 1)
            channels = wider
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) float32 -> (B, outputs)."""
        result: Tensor = self.classifier(self.features(images).mean((2, 3)))
        return result

    def folded(self) -> "MobileNetV1":
        """A copy in evaluation mode with every batch norm inside its convolution, as our networks run too."""
        folded = copy.deepcopy(self).eval()
        layers: list[nn.Module] = []
        children = list(folded.features)
        for convolution, norm, activation in zip(children[::3], children[1::3], children[2::3], strict=True):
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            layers += [fuse_conv_bn_eval(convolution, norm), activation]
        folded.features = nn.Sequential(*layers)
        return folded.eval()


def baseline(name: str) -> MobileNetV1:
    """A baseline with random weights, the same on every call, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MobileNetV1(BASELINES[name]).eval()


def _convolution(inputs: int, outputs: int, size: int, stride: int, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
