"""Networks by the class of their settings; `config.recipes.ARCHITECTURES` has the settings by name.

A new network needs a line in `NETWORKS` here, and one in `ARCHITECTURES`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from dhm_cli.config.networks import DhmConfig, FastDhmConfig, NetworkConfig
from dhm_cli.config.recipes import find_recipe
from dhm_cli.errors import InputError
from dhm_cli.models.dhm import Dhm
from dhm_cli.models.fast_dhm import FastDhm
from dhm_cli.models.folded import FoldedFastDhm, LastStep
from dhm_cli.models.interface import Network
from dhm_cli.morphable.face_model import FaceModel


class Kind(NamedTuple):
    """How networks with settings of one class are made.

    Attributes:
        build: (settings, mean shape), and a face model for those that regress p -> the network.
        for_inference: a trained network -> the network as it runs.
    """

    build: Callable[..., Network]
    for_inference: Callable[[Any], nn.Module] = LastStep


NETWORKS: dict[type[NetworkConfig], Kind] = {
    DhmConfig: Kind(Dhm),
    FastDhmConfig: Kind(FastDhm, FoldedFastDhm),
}


def build_model(
    arch: str,
    mean_shape: Tensor,
    config: NetworkConfig | None = None,
    face_model: FaceModel | None = None,
) -> Network:
    """Make a network.

    Args:
        arch: one of `config.recipes.ARCHS`.
        mean_shape: (68, 3), see `Network`.
        config: settings; those of the recipe "best" when None.
        face_model: for networks that regress p.

    Raises:
        InputError: an unknown architecture, or a missing face model.
    """
    settings = find_recipe(arch).network if config is None else config
    build = NETWORKS[type(settings)].build
    if not settings.needs_face_model:
        return build(settings, mean_shape)
    if face_model is None:
        raise InputError(
            f"{arch} updates the parameters of a face model, and none was given", "pass --face-model data/face_model.h5"
        )
    return build(settings, mean_shape, face_model)


def inference_network(model: Network) -> nn.Module:
    """The network that gives in one call what `model` gives after its last step.

    Args:
        model: a trained network in evaluation mode; it is not changed.

    Returns:
        A module (B, S, S, 3) uint8 RGB -> (B, 68, 3) float32, 0-based crop pixels; with uncertainty, see
        `folded.LastStep.forward`.
    """
    return NETWORKS[type(model.config)].for_inference(model).eval()


def float32_bytes(model: nn.Module) -> int:
    """Size of all parameters and saved buffers in float32, bytes: everything that inference needs."""
    return sum(4 * tensor.numel() for tensor in model.state_dict().values() if tensor.is_floating_point())
