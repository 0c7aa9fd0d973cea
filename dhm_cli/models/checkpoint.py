"""Checkpoints: weights in safetensors with plain JSON in the header. Nothing is unpickled."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dhm_cli.config.networks import NetworkConfig
from dhm_cli.config.recipes import find_recipe
from dhm_cli.errors import FormatError, InputError
from dhm_cli.geometry.landmarks import NUM_LANDMARKS
from dhm_cli.models.interface import Network
from dhm_cli.models.registry import build_model
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.runtime.atomic import written_atomically

FORMAT_VERSION = 1
_KEY = "dhm"


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> int:
    """Write tensors and JSON metadata to a safetensors file, atomically.

    Returns:
        Its size, bytes.
    """
    # Same order for the same content, so that equal weights are equal files.
    ordered = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    header = {_KEY: json.dumps({"format_version": FORMAT_VERSION, **metadata}, sort_keys=True)}
    with written_atomically(path) as partial:
        return partial.write_bytes(save(ordered, header))


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a network of `save_checkpoint`, as far as its header says."""
    try:
        with safe_open(path, framework="pt") as file:
            return "arch" in json.loads((file.metadata() or {}).get(_KEY, "{}"))
    except (SafetensorError, OSError, ValueError, TypeError):
        return False


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
    path: Path, model: Network, arch: str, record: dict[str, Any], dtype: torch.dtype = torch.float32
) -> None:
    """Write a network: weights, mean shape, settings, training record, and the hash of p's face model.

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
    description = {"arch": arch, "config": model.config.to_json(), "training": record}
    if model.face_model_hash:
        description["face_model"] = model.face_model_hash
    write_tensors(path, tensors, description)


def load_checkpoint(path: Path, face_model: Path | None = None) -> tuple[Network, dict[str, Any]]:
    """Read a network.

    Args:
        path: the checkpoint.
        face_model: file of the face model, for networks that regress p; `FaceModel.save` wrote it.

    Returns:
        The model in evaluation mode, float32, and the metadata: arch, config, training.

    Raises:
        InputError: no such file, an unknown architecture, or a face model that is missing or another one.
        FormatError: a foreign or partial file, or settings out of range; the message names the settings or tensors.

    Example:
        >>> from pathlib import Path
        >>> import torch
        >>> from dhm_cli import load_checkpoint
        >>> model, metadata = load_checkpoint(Path("dhm_cli/weights/fast.safetensors"))
        >>> metadata["arch"], model.config.input_size
        ('fast', 120)
        >>> with torch.no_grad():
        ...     output = model(torch.zeros(1, 3, 120, 120))  # RGB, -1 to 1
        >>> output.landmarks.shape  # face, step, landmark, x y z
        torch.Size([1, 4, 68, 3])
    """
    tensors, metadata = read_tensors(path)
    if not {"arch", "config"} <= metadata.keys() or "mean_shape" not in tensors:
        raise FormatError(
            f"{path}: not a network but another kind of dhm file", "use best.safetensors of a training run"
        )
    if tensors["mean_shape"].shape != (NUM_LANDMARKS, 3):
        raise FormatError(f"{path}: mean_shape has shape {tuple(tensors['mean_shape'].shape)}", "copy the file again")
    config = _network_settings(path, metadata["arch"], metadata["config"])
    basis = _face_model(path, metadata["face_model"], face_model) if "face_model" in metadata else None
    model = build_model(metadata["arch"], tensors["mean_shape"], config, basis)
    load_weights(model, tensors, path)
    return model.eval(), metadata


def load_weights(model: Network, tensors: dict[str, Tensor], path: Path, may_lack: tuple[str, ...] = ()) -> None:
    """Put a checkpoint's tensors into a network, all of them.

    Args:
        model: the network.
        tensors: by name.
        path: where they come from, for messages.
        may_lack: how the names of weights begin of which the checkpoint may have none; they stay as they are then.
            Those of each beginning are there all or none.

    Raises:
        FormatError: tensors are missing, too many, or of another shape; the message names them.
    """
    expected = {n: t for n, t in model.state_dict().items() if not n.endswith("num_batches_tracked")}
    for part in may_lack:
        if not any(name.startswith(part) for name in tensors):
            expected = {name: tensor for name, tensor in expected.items() if not name.startswith(part)}
    wrong = sorted(set(expected) ^ set(tensors))
    wrong += sorted(n for n in expected.keys() & tensors.keys() if expected[n].shape != tensors[n].shape)
    if wrong:
        raise FormatError(
            f"{path}: tensors that do not fit the network: {', '.join(wrong[:5])}",
            "give a checkpoint of the same architecture and settings, or copy the file again",
        )
    model.load_state_dict(tensors, strict=False)


def _network_settings(checkpoint: Path, arch: str, values: dict[str, Any]) -> NetworkConfig:
    try:
        preset = find_recipe(arch).network
    except InputError as error:
        raise InputError(f"{checkpoint}: {error.message}", error.hint) from error
    try:
        return type(preset).from_json(values)
    except InputError as error:
        raise FormatError(
            f"{checkpoint}: not the settings of a network of {arch}: {error.message}",
            "use a checkpoint of this version, or copy the file again",
        ) from error


def _face_model(checkpoint: Path, expected: str, file: Path | None) -> FaceModel:
    if file is None:
        raise InputError(
            f"{checkpoint}: was trained with face model {expected}, which it needs and does not hold",
            "pass --face-model data/face_model.h5, as dhm prepare wrote it",
        )
    model = FaceModel.load(file)
    hint = "pass the file that dhm prepare wrote for the training, or train again with this one"
    model.require(expected, file, f"{checkpoint}: was trained", hint)
    return model
