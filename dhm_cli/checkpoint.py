"""Checkpoints: weights in safetensors with plain JSON in the header. Nothing is unpickled."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dhm_cli.errors import FormatError, InputError
from dhm_cli.files import written_atomically
from dhm_cli.landmarks import NUM_LANDMARKS
from dhm_cli.models.fast_dhm import FastDhm
from dhm_cli.models.registry import build_model

FORMAT_VERSION = 1
_KEY = "dhm"


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write tensors and JSON metadata to a safetensors file, atomically."""
    # Same order for the same content, so that equal weights are equal files.
    ordered = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    header = {_KEY: json.dumps({"format_version": FORMAT_VERSION, **metadata}, sort_keys=True)}
    with written_atomically(path) as partial:
        partial.write_bytes(save(ordered, header))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises:
        InputError: no such file.
        FormatError: not a file of ours, or of another version.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint", "train one with: dhm train --arch fast")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise FormatError(f"{path}: not a readable safetensors file ({error})", "copy the file again") from error
    found = metadata.get("format_version")
    if found != FORMAT_VERSION:
        raise FormatError(
            f"{path}: expected a dhm file of format version {FORMAT_VERSION}, found {found}",
            "use a checkpoint of dhm train",
        )
    return tensors, metadata


def save_checkpoint(
    path: Path, model: FastDhm, arch: str, record: dict[str, Any], dtype: torch.dtype = torch.float32
) -> None:
    """Write a network: weights, mean shape, settings and training record.

    Args:
        path: the file.
        model: a network of `build_model`.
        arch: its name.
        record: training record, plain JSON: data, hashes of stores and face model, accuracy.
        dtype: storage type of the weights; loading always gives float32. The mean shape stays float32.
    """
    state = model.state_dict()
    tensors = {
        name: tensor.to(dtype) if tensor.is_floating_point() and name != "mean_shape" else tensor
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }
    write_tensors(path, tensors, {"arch": arch, "config": model.config.to_json(), "training": record})


def load_checkpoint(path: Path) -> tuple[FastDhm, dict[str, Any]]:
    """Read a network.

    Returns:
        The model in evaluation mode, float32, and the metadata: arch, config, training.

    Raises:
        InputError: no such file, or an unknown architecture.
        FormatError: a foreign or partial file; the message names the differing tensors.
    """
    tensors, metadata = read_tensors(path)
    if not {"arch", "config"} <= metadata.keys() or "mean_shape" not in tensors:
        raise FormatError(
            f"{path}: not a network but another kind of dhm file", "use best.safetensors of a training run"
        )
    if tensors["mean_shape"].shape != (NUM_LANDMARKS, 3):
        raise FormatError(f"{path}: mean_shape has shape {tuple(tensors['mean_shape'].shape)}", "copy the file again")
    model = build_model(metadata["arch"], tensors["mean_shape"], metadata["config"])
    expected = {n: t for n, t in model.state_dict().items() if not n.endswith("num_batches_tracked")}
    wrong = sorted(set(expected) ^ set(tensors))
    wrong += sorted(n for n in expected.keys() & tensors.keys() if expected[n].shape != tensors[n].shape)
    if wrong:
        raise FormatError(
            f"{path}: tensors that do not fit {metadata['arch']}: {', '.join(wrong[:5])}", "copy the file again"
        )
    model.load_state_dict(tensors, strict=False)
    model.redraw_heatmap()
    return model.eval(), metadata
