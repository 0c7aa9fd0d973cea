"""Networks by the names of their architectures (`config.PRESETS`)."""

from typing import Any

from torch import Tensor, nn

from dhm_cli.config.networks import DhmConfig, FastDhmConfig, preset
from dhm_cli.errors import InputError
from dhm_cli.models.dhm import Dhm
from dhm_cli.models.fast_dhm import FastDhm
from dhm_cli.morphable.face_model import FaceModel

Network = FastDhm | Dhm


def needs_face_model(config: FastDhmConfig | DhmConfig) -> bool:
    """Whether a network regresses p, and so works with one face model only."""
    return isinstance(config, DhmConfig) and config.target == "params"


def build_model(
    arch: str,
    mean_shape: Tensor,
    config: FastDhmConfig | DhmConfig | dict[str, Any] | None = None,
    face_model: FaceModel | None = None,
) -> Network:
    """Make a network.

    Args:
        arch: one of `config.ARCHS`.
        mean_shape: (68, 3), see `FastDhm`.
        config: settings, also as JSON as a checkpoint holds them; the preset when None.
        face_model: for networks that regress p.

    Raises:
        InputError: an unknown architecture, unknown settings, or a missing face model.
    """
    settings = preset(arch)
    if isinstance(config, dict):
        settings = type(settings).from_json(config)
    elif config is not None:
        settings = config
    if isinstance(settings, FastDhmConfig):
        return FastDhm(settings, mean_shape)
    if needs_face_model(settings) and face_model is None:
        raise InputError(
            f"{arch} updates the parameters of a face model, and none was given", "pass --face-model data/face_model.h5"
        )
    return Dhm(settings, mean_shape, face_model)


def float32_bytes(model: nn.Module) -> int:
    """Size of all parameters and saved buffers in float32, bytes: everything that inference needs."""
    return sum(4 * tensor.numel() for tensor in model.state_dict().values() if tensor.is_floating_point())
