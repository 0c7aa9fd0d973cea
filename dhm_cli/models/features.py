"""Feature extractors of the evolutionary networks: photo and heat map in, one vector out."""

import torch
from torch import Tensor, nn

from dhm_cli.config.networks import DhmConfig
from dhm_cli.models.layers import Hourglass, Residual, group_norm

# Side of the map that the hourglass features are reduced to before the recurrence.
_HOURGLASS_OUTPUT = 8


class Features(nn.Module):
    """A CNN over the photo stacked with its heat map, 6 channels; C_conv2([I, map]) of Eq. (4), Sun et al. 2018.

    The first convolution is linear and the photo is the same in every step, so its share is computed once
    (`photo_response`) and each step adds the heat map's.

    Args:
        config: which features, and how wide.

    Attributes:
        numbers: length of the feature vector.
    """

    def __init__(self, config: DhmConfig) -> None:
        super().__init__()
        self.stem, self.body = FEATURES[config.features](config)
        with torch.no_grad():
            side = config.input_size // self.stem.stride[0]
            self.numbers = self.body(torch.zeros(1, self.stem.out_channels, side, side)).numel()

    def photo_response(self, images: Tensor) -> Tensor:
        """The photo's share of the first convolution, (B, 3, S, S) -> (B, C, S / stride, S / stride)."""
        return self._convolve(images, self.stem.weight[:, :3])

    def forward(self, photo_response: Tensor, heatmap: Tensor) -> Tensor:
        """Features of a step.

        Args:
            photo_response: what `photo_response` gave.
            heatmap: (B or 1, 3, S, S).

        Returns:
            (B, numbers).
        """
        features: Tensor = self.body(photo_response + self._convolve(heatmap, self.stem.weight[:, 3:]))
        return features.flatten(1)

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        return nn.functional.conv2d(x, weight, stride=self.stem.stride, padding=self.stem.padding)


def _stem(channels: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(3 + 3, channels, kernel, stride, kernel // 2, bias=False)


def _plain(config: DhmConfig) -> tuple[nn.Conv2d, nn.Sequential]:
    """Two convolutions ("we only use two convolutional layers", section 3.2); 224 -> 56 -> 28 -> 14."""
    first, second = config.channels
    return _stem(first, 7, 4), nn.Sequential(
        group_norm(first), nn.ReLU(),
        nn.Conv2d(first, second, 5, 2, 2, bias=False), group_norm(second), nn.ReLU(),
        nn.MaxPool2d(2),
    )  # fmt: skip


def _vgg(config: DhmConfig) -> tuple[nn.Conv2d, nn.Sequential]:
    """A VGG (Simonyan and Zisserman 2014) with fewer channels and layers; 224 -> 112 -> 56 -> 28 -> 14 -> 7."""
    first, *others = config.channels
    layers: list[nn.Module] = [group_norm(first), nn.ReLU(), nn.MaxPool2d(2)]
    channels = first
    for block, outputs in enumerate(others):
        for _ in range(1 if block == 0 else 2):
            layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), group_norm(outputs), nn.ReLU()]
            channels = outputs
        layers.append(nn.MaxPool2d(2))
    return _stem(first, 3, 1), nn.Sequential(*layers)


def _hourglass(config: DhmConfig) -> tuple[nn.Conv2d, nn.Sequential]:
    """A 7x7 convolution, a residual module and max pooling from 256 to 64, then stacked hourglasses (section 4.1).

    After them residual modules and pooling down to 8, for the recurrence.
    """
    (channels,) = config.channels
    side = config.input_size // 4
    layers: list[nn.Module] = [group_norm(channels // 2), nn.ReLU(), Residual(channels // 2, channels), nn.MaxPool2d(2)]
    depth = max(1, min(4, side.bit_length() - 3))  # 64 -> 4, as in Newell et al. 2016
    layers += [_StackedHourglass(channels, depth) for _ in range(config.hourglasses)]
    while side > _HOURGLASS_OUTPUT:
        layers += [Residual(channels, channels), nn.MaxPool2d(2)]
        side //= 2
    return _stem(channels // 2, 7, 2), nn.Sequential(*layers, group_norm(channels), nn.ReLU())


class _StackedHourglass(nn.Module):
    """One hourglass of a stack, added to what it was given."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.hourglass = Hourglass(channels, depth)
        self.out = nn.Sequential(group_norm(channels), nn.ReLU(), nn.Conv2d(channels, channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.out(self.hourglass(x))
        return y


FEATURES = {"plain": _plain, "vgg": _vgg, "hourglass": _hourglass}
