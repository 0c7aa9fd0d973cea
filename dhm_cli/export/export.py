"""`dhm export`: from a trained checkpoint to the ONNX file that `dhm align` runs, or to a copy in float16."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray

from dhm_cli.data.batches import load_faces, validation_crops
from dhm_cli.data.store import FaceStore
from dhm_cli.errors import FormatError, InputError
from dhm_cli.export.parity import ExportReport, check_parity, compare, comparison_faces
from dhm_cli.export.storage import quantised, store_half
from dhm_cli.inference.weights import FORMAT_VERSION, METADATA_KEY
from dhm_cli.models.checkpoint import is_checkpoint, load_checkpoint, read_tensors, write_tensors
from dhm_cli.models.interface import Network
from dhm_cli.models.onnx_graph import onnx_graph
from dhm_cli.models.registry import inference_network
from dhm_cli.runtime.atomic import written_atomically

# Faces whose values set the ranges of int8, spread over the train split.
_CALIBRATION_FACES = 256


def export_onnx(checkpoint: Path, out: Path, precision: str = "float32", data: Path | None = None) -> ExportReport:
    """Write a checkpoint as an ONNX file that carries its own pre-processing, and compare it with the checkpoint.

    Batch norm, heat map, the pixels' scale and the mean shape are folded into the weights (`models.folded`).

    Args:
        checkpoint: a network of `dhm train`.
        out: the ONNX file, written atomically, or a stream, see `runtime.outputs`.
        precision: "float32", "float16" or "int8". "float16" stores the weights in float16 and widens them when the
            file is loaded; the arithmetic is float32. "int8" computes the separable blocks in 8 bits, the rest as
            "float16".
        data: a store of `dhm prepare`. The NME is of its split val, the ranges for int8 are of its split train.

    Raises:
        InputError: no such file, a network that regresses the parameters of a face model, or int8 without data or of
            another network than Fast DHM.
        FormatError: a foreign or partial file.
        DhmError: the file does not agree with the checkpoint, see `check_parity`.
    """
    if "face_model" in read_tensors(checkpoint)[1]:
        raise InputError(
            f"{checkpoint}: regresses the parameters of a face model, which the ONNX file would have to hold; its "
            "licence forbids to pass it on",
            f"run the checkpoint itself: dhm align --model {checkpoint}, or train with --target landmarks",
        )
    model, metadata = load_checkpoint(checkpoint)
    if precision == "int8" and not model.int8_weights:
        raise InputError(f"{checkpoint}: int8 is made for the networks of Fast DHM", "export float32 or float16")
    if precision == "int8" and data is None:
        raise InputError("int8 needs faces to measure the ranges of its numbers", "pass --data FILE.h5")
    store = None if data is None else FaceStore(data)
    faces = comparison_faces(store, model.config.input_size)
    exact = _exact_graph(model, metadata["arch"])
    graph = exact
    if precision == "int8":
        assert store is not None
        graph = quantised(exact, model.int8_weights, _calibration_crops(store, model.config.input_size))
    if precision != "float32":
        graph = store_half(graph)
    with written_atomically(out) as partial:
        partial.write_bytes(graph.SerializeToString())
        report = compare(partial, model, exact, faces)
        check_parity(out, report, precision)
    return report


def export_checkpoint(checkpoint: Path, out: Path, precision: str = "float32") -> ExportReport:
    """Copy a checkpoint of any network, with its training record; needs no face model.

    Args:
        checkpoint: a network of `dhm train`.
        out: the copy.
        precision: "float16" stores the weights so, which halves the file; float32 otherwise. The mean shape stays
            float32.

    Raises:
        InputError: no such file, or int8, which only ONNX files have.
        FormatError: a foreign file.
    """
    if precision == "int8":
        raise InputError(f"{out}: checkpoints are float32 or float16", "choose a file name that ends in .onnx")
    tensors, metadata = read_tensors(checkpoint)
    if "arch" not in metadata:
        raise FormatError(
            f"{checkpoint}: not a network but another kind of dhm file", "use best.safetensors of a training run"
        )
    for name, tensor in tensors.items():
        tensors[name] = tensor.half() if precision == "float16" and name != "mean_shape" else tensor.float()
    return ExportReport(write_tensors(out, tensors, metadata), 0.0)


def is_network_of_dhm(path: Path) -> bool:
    """Whether a file is a checkpoint of dhm, or an ONNX file with its metadata.

    Raises:
        OSError: it cannot be read.
    """
    if is_checkpoint(path):
        return True
    try:
        graph = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError):
        return False
    return any(entry.key == METADATA_KEY for entry in graph.metadata_props)


def _exact_graph(model: Network, arch: str) -> onnx.ModelProto:
    """The graph in float32, with the metadata that `OnnxEngine` reads."""
    size = model.config.input_size
    description: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "arch": arch,
        "input_size": size,
        "mean_shape": np.round(model.mean_shape.numpy().astype(float), 6).tolist(),
    }
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    return onnx_graph(inference_network(model), example, {METADATA_KEY: json.dumps(description)})


def _calibration_crops(store: FaceStore, size: int) -> NDArray[np.uint8]:
    """Crops of faces spread over the train split, (N, S, S, 3)."""
    faces = load_faces([(store, 1.0)], "train")
    if not len(faces):
        raise InputError(f"{store.path}: no train faces to measure the ranges of int8 on", "pass another --data")
    return validation_crops(faces, size, 0, max(1, len(faces) // _CALIBRATION_FACES))[0][:_CALIBRATION_FACES]
