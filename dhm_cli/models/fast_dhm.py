"""Fast DHM (Sun et al., "Fast DHM"): a separable network under 1 MB whose heat map is the same for all images."""

import math

import torch
from torch import Tensor, nn

from dhm_cli.config.networks import FastDhmConfig
from dhm_cli.geometry.landmarks import NUM_LANDMARKS
from dhm_cli.geometry.occlusion import STATES
from dhm_cli.models.closer_look import CloserLook
from dhm_cli.models.heatmaps import draw_heatmap
from dhm_cli.models.interface import AlignmentOutput, Network
from dhm_cli.models.layers import Doubts, FastRecurrentModule, SeparableBlock
from dhm_cli.models.recurrent_state import place_in_crop

# Expected error, as a share of the face size, that a network with `uncertainty` starts from.
_FIRST_SCALE = 0.05


def _widen(channels: int, width: float) -> int:
    """Channels times width, to a multiple of 16, the vector length of AVX-512 in float32."""
    return max(16, 16 * round(channels * width / 16))


class FastDhm(Network):
    """Image and fixed mean heat map -> separable CNN -> fast recurrent module -> 204 numbers after every step.

    The heat map is the same for every image, so its share of the first convolution is one constant map, computed once
    per forward pass for a whole batch here and folded into a bias for inference (`heatmap_response`).

    Args:
        config: layers and sizes.
        mean_shape: (68, 3), see `Network`.

    Attributes:
        heatmap: the heat map of the mean shape, (1, 3, S, S); zeros where the network takes none.
    """

    # The stem sees few channels, the recurrence and the head are small and add up their rounding: all in int8, `fast`
    # lost 0.17 of its NME, the blocks alone 0.02.
    int8_weights = "cnn."
    added_weights = ("closer_look.",)
    config: FastDhmConfig
    heatmap: Tensor

    def __init__(self, config: FastDhmConfig, mean_shape: Tensor) -> None:
        super().__init__(config, mean_shape)
        stem_channels = _widen(config.stem_channels, config.cnn_width)
        recurrent_channels = round(config.recurrent_channels * config.recurrent_width)

        self.stem = nn.Conv2d(3 + 3, stem_channels, 3, 2, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(stem_channels)
        channels, side = stem_channels, math.ceil(config.input_size / 2)
        maps = [(channels, side)]
        layers = []
        widened = ((_widen(block[0], config.cnn_width), *block[1:]) for block in config.blocks)
        for block in (*widened, (recurrent_channels, config.feature_stride)):
            outputs, stride = block[:2]
            kernel = block[2] if len(block) > 2 else 3
            layers.append(SeparableBlock(channels, outputs, stride, kernel, config.middle_activation))
            channels, side = outputs, math.ceil(side / stride)
            maps.append((channels, side))
        # Blocks before the earlier map that `doubts` sees: the last one that is larger than the features.
        self.earlier = max(k for k, (_, its_side) in enumerate(maps) if its_side > side or k == 0)
        self.cnn = nn.Sequential(*layers)
        self.recurrent = FastRecurrentModule(recurrent_channels)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(recurrent_channels * side * side, config.head_rank, bias=False),
            nn.Linear(config.head_rank, NUM_LANDMARKS * 3),
        )
        self.doubts = (
            Doubts(
                recurrent_channels * side * side,
                *maps[self.earlier],
                config.uncertainty_channels,
                config.uncertainty_rank,
                NUM_LANDMARKS,
                _FIRST_SCALE,
            )
            if config.uncertainty
            else None
        )
        self.closer_look = CloserLook(config.input_size) if config.closer_look else None
        self.register_buffer("heatmap", torch.zeros(1, 3, config.input_size, config.input_size), persistent=False)
        self.redraw_heatmap()
        self.register_load_state_dict_post_hook(_draw_loaded_shape)
        self._initialise()

    @property
    def initial_landmarks(self) -> Tensor:
        """The mean shape as the test protocol places a face, (68, 3), crop pixels."""
        return place_in_crop(self.mean_shape, self.config.input_size)

    def redraw_heatmap(self) -> None:
        """Draw the fixed heat map of the mean shape again; needed after `mean_shape` has changed."""
        with torch.no_grad():
            if self.config.heatmap != "none":
                self.heatmap.copy_(draw_heatmap(self.initial_landmarks[None], self.config.input_size))

    def heatmap_response(self, heatmap: Tensor) -> Tensor:
        """What a heat map (B, 3, S, S) adds to the first convolution, (B, C, S / 2, S / 2)."""
        weight = self.stem.weight[:, 3:]
        return nn.functional.conv2d(heatmap, weight, stride=self.stem.stride, padding=self.stem.padding)

    def forward(self, images: Tensor) -> AlignmentOutput:
        """Landmarks after every step, and what is doubtful about them with `uncertainty`; see `Network`."""
        self._check_shape(images)
        x = nn.functional.conv2d(images, self.stem.weight[:, :3], stride=self.stem.stride, padding=self.stem.padding)
        stem = self.stem_norm(x + self.heatmap_response(self.heatmap))
        earlier = self.cnn[: self.earlier](torch.relu(stem))
        states = self.recurrent(self.cnn[self.earlier :](earlier), self.config.steps)
        with torch.autocast(images.device.type, enabled=False):  # pixels need more than the 8 bits of bfloat16
            features = torch.stack([state.float().flatten(1) for state in states], dim=1)
            moved = self.head(features.flatten(0, 1)).reshape(*features.shape[:2], NUM_LANDMARKS, 3)
            landmarks = self.initial_landmarks + moved * self.config.input_size
            change = None
            if self.closer_look is not None:
                moves, change = self.closer_look(images.permute(0, 2, 3, 1), landmarks[:, -1])
                landmarks = _and_one_more(landmarks, moves)
            if self.doubts is None:
                return AlignmentOutput(landmarks)
            inner = self.doubts(features, earlier.float())
            log_scale = self.doubts.scale(inner)
            return AlignmentOutput(
                landmarks,
                log_scale=log_scale if change is None else _and_one_more(log_scale, change),
                visibility=self.doubts.visibility(inner[:, -1]).unflatten(-1, (NUM_LANDMARKS, STATES)),
                confidence=self.doubts.confidence(inner[:, -1]).squeeze(-1),
            )

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=0.01)  # start at the mean shape
        nn.init.zeros_(last.bias)


def _and_one_more(steps: Tensor, change: Tensor) -> Tensor:
    """What was told after every step, (B, T, ...), and after the last one what a change (B, ...) makes of it."""
    return torch.cat([steps, (steps[:, -1] + change)[:, None]], dim=1)


def _draw_loaded_shape(network: FastDhm, _: object) -> None:  # not a lambda, so that networks can be pickled
    network.redraw_heatmap()
