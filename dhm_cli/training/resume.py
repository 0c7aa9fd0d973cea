"""All that an exact resume needs, in one file: weights, averaged weights, optimiser moments, counters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dhm_cli.errors import FormatError
from dhm_cli.models.checkpoint import read_tensors, write_tensors


def save_state(path: Path, modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer, record: Any) -> None:
    """Write the state of a run, atomically.

    Batches are pure functions of the seed and the step and no layer draws random numbers, so the step is all that is
    to be known about randomness.

    Args:
        path: the file.
        modules: networks by name.
        optimiser: the optimiser.
        record: counters and what the run is, plain JSON.
    """
    tensors = {f"{name}.{key}": value for name, m in modules.items() for key, value in m.state_dict().items()}
    for index, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": value for key, value in moments.items()}
    write_tensors(path, tensors, {"state": record})


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a saved state by name, and its record.

    Raises:
        InputError: no such file.
        FormatError: it is damaged, or holds something else.
    """
    hint = "copy the file again, or start a new run from the last network: --init last.safetensors"
    try:
        tensors, metadata = read_tensors(path)
    except FormatError as error:
        raise FormatError(error.message, hint) from error
    if "state" not in metadata:
        raise FormatError(f"{path}: not the state of a training but another kind of dhm file", hint)
    return tensors, metadata["state"]


def restore(tensors: dict[str, Tensor], modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer) -> None:
    """Put the tensors of `read_state` back."""
    for name, module in modules.items():
        module.load_state_dict(_below(tensors, name))
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in _below(tensors, "optimiser").items():
        index, name = key.split(".")
        moments.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    for parameter, loaded in optimiser.state.items():
        for name, value in loaded.items():
            if value.shape == parameter.shape:
                # Files hold plain order; fused optimisers walk memory, so the moments must lie as the weights do.
                loaded[name] = torch.empty_like(parameter).copy_(value)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
