"""The list of architectures."""

from typing import Any

from torch import Tensor, nn

from dhm_cli.config import FAST_PRESETS, FastDhmConfig
from dhm_cli.errors import InputError
from dhm_cli.models.fast_dhm import FastDhm

ARCHS = tuple(FAST_PRESETS)


def preset(arch: str) -> FastDhmConfig:
    """Settings of an architecture by name.

    Raises:
        InputError: unknown name; the message lists the known ones.
    """
    if arch not in FAST_PRESETS:
        raise InputError(f"unknown architecture {arch!r}", f"known architectures: {', '.join(ARCHS)}")
    return FAST_PRESETS[arch]


def build_model(arch: str, mean_shape: Tensor, config: dict[str, Any] | None = None) -> FastDhm:
    """Make a network.

    Args:
        arch: one of `ARCHS`.
        mean_shape: (68, 3), see `FastDhm`.
        config: settings as JSON, as a checkpoint holds them; the preset when None.
    """
    settings = preset(arch)
    return FastDhm(FastDhmConfig.from_json(config) if config else settings, mean_shape)


def float32_bytes(model: nn.Module) -> int:
    """Size of all parameters and saved buffers in float32, bytes: everything that inference needs."""
    return sum(4 * tensor.numel() for tensor in model.state_dict().values() if tensor.is_floating_point())
