"""Small networks of every architecture."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dhm_cli.config.networks import DhmConfig, FastDhmConfig, NetworkConfig
from dhm_cli.config.recipes import ARCHS, Recipe, find_recipe
from dhm_cli.models.checkpoint import save_checkpoint
from dhm_cli.models.interface import Network
from dhm_cli.models.registry import build_model
from dhm_cli.morphable.toy import toy_face_model


def make_mean_shape() -> Tensor:
    """The toy mean face as a network wants it: y down, box centre at the origin, longer side 1."""
    mean = toy_face_model().mean * torch.tensor([1.0, -1.0, 1.0])
    low, high = mean.amin(0), mean.amax(0)
    return (mean - (low + high) / 2) / (high - low)[:2].max()


def small(arch: str) -> NetworkConfig:
    """The recipe's network, with fewer pixels and channels: what a contract says does not depend on them."""
    settings = find_recipe(arch).network
    if isinstance(settings, DhmConfig):
        channels = tuple(max(16, c // 8) for c in settings.channels)
        settings = replace(settings, channels=channels, hidden=64)
    return replace(settings, input_size=64)


def small_recipe(arch: str) -> Recipe:
    return find_recipe(arch)._replace(network=small(arch))


def make_model(arch: str, **changes: Any) -> Network:
    torch.manual_seed(0)
    return build_model(arch, make_mean_shape(), replace(small(arch), **changes), toy_face_model())


# Every architecture, and those of the papers that may regress landmarks instead of p (paper A, section 4.3).
CASES = [(arch, {}) for arch in ARCHS]
CASES += [(arch, {"target": "landmarks"}) for arch in ("dhm", "dhm-vgg", "rhg", "3dcnn")]
CASES += [("dhm", {"rotation": "euler"}), ("dhm", {"heatmap": "initial"})]
# A few blocks are enough to see what becomes of a heat map.
FEW = {"blocks": ((32, 2), (64, 2, 5)), "feature_stride": 2, "recurrent_channels": 64}
CASES += [("fast", {"heatmap": "none", **FEW}), ("fast", {"uncertainty": True, **FEW})]
CASES += [("fast", {"closer_look": True, **FEW}), ("fast", {"closer_look": True, "uncertainty": True, **FEW})]


def make_batch(size: int, count: int = 4) -> tuple[Tensor, Tensor]:
    """Images in [-1, 1] and landmarks: the mean shape, moved and stretched as the image says."""
    rng = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, 5, 5, generator=rng) * 2 - 1  # smooth, so that the faces differ at every scale
    images = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear", align_corners=False)
    moved = make_mean_shape() * size / math.sqrt(2) * torch.tensor([[[1.1]], [[0.9]]] * (count // 2))
    truth = moved + torch.tensor([size / 2, size / 2, 0.0]) + 4 * torch.randn(count, 1, 3, generator=rng)
    return images, truth


def trained_a_little(model: Network) -> Network:
    """A network whose batch norm statistics are no longer the initial ones."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # take the statistics of the batch at once
    with torch.no_grad():
        model(make_batch(model.config.input_size)[0])
    return model.eval()


SMALL = FastDhmConfig(input_size=32, stem_channels=4, blocks=((4, 2),), recurrent_channels=4, head_rank=4, steps=1)


def small_checkpoint(path: Path, record: dict[str, Any] | None = None) -> Path:
    mean_shape = torch.rand(68, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    save_checkpoint(path, build_model("fast", mean_shape, SMALL), "fast", record or {})
    return path
