"""A trained checkpoint becomes the ONNX file that `dhm align` runs: uint8 crops in, landmarks in crop pixels out."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxscript.optimizer
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from dhm_cli.checkpoint import load_checkpoint, read_tensors, write_tensors
from dhm_cli.engines import FORMAT_VERSION, METADATA_KEY
from dhm_cli.errors import FormatError, InputError
from dhm_cli.files import written_atomically
from dhm_cli.models.dhm import Dhm
from dhm_cli.models.fast_dhm import FastDhm
from dhm_cli.models.input import image_tensor
from dhm_cli.models.registry import Network

_OPSET = 18


class InferenceFastDhm(nn.Module):
    """Fast DHM for inference: pre-processing inside, the heat map's share a constant map, last step only.

    Batch norm is left to ONNX Runtime, which folds it into the convolutions when it loads the file; so the file holds
    the very numbers of the checkpoint.

    Args:
        model: a trained network in evaluation mode.
    """

    heatmap_bias: Tensor
    initial: Tensor

    def __init__(self, model: FastDhm) -> None:
        super().__init__()
        norm = model.stem_norm
        assert norm.running_var is not None
        # norm(conv(image) + response) = norm(conv(image)) + gain * response
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        self.register_buffer("heatmap_bias", (model.heatmap_response() * gain[:, None, None]).detach())
        self.register_buffer("initial", model.initial_landmarks.detach().clone())
        self.stem = nn.Conv2d(3, model.stem.out_channels, 3, 2, 1, bias=False)
        self.stem.weight = nn.Parameter(model.stem.weight[:, :3].detach().clone())
        self.stem_norm, self.cnn = model.stem_norm, model.cnn
        self.recurrent, self.head, self.config = model.recurrent, model.head, model.config

    def forward(self, crops: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 RGB -> (B, 68, 3) crop pixels, after the last step."""
        x = torch.relu(self.stem_norm(self.stem(image_tensor(crops))) + self.heatmap_bias)
        moved = self.head(self.recurrent(self.cnn(x), self.config.steps)[-1])
        return self.initial + moved.reshape(-1, *self.initial.shape) * self.config.input_size


class InferenceDhm(nn.Module):
    """A network that regresses landmarks step by step, for inference: pre-processing inside, last step only.

    Args:
        model: a trained network in evaluation mode.
    """

    def __init__(self, model: Dhm) -> None:
        super().__init__()
        self.model = model

    def forward(self, crops: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 RGB -> (B, 68, 3) crop pixels, after the last step."""
        landmarks: Tensor = self.model(image_tensor(crops)).landmarks
        return landmarks[:, -1]


def export_onnx(checkpoint: Path, out: Path, half: bool = False) -> None:
    """Write a checkpoint as an ONNX file that carries its own pre-processing.

    Args:
        checkpoint: a network of `dhm train`.
        out: the ONNX file; written atomically. Weights that the checkpoint holds as float16 are float16 in it too and
            widened when it is loaded; the arithmetic is float32.
        half: round the weights to float16 first, which halves the file.

    Raises:
        InputError: no such file, or a network that regresses the parameters of a face model.
        FormatError: a foreign or partial file.
    """
    if "face_model" in read_tensors(checkpoint)[1]:
        raise InputError(
            f"{checkpoint}: regresses the parameters of a face model, which the ONNX file would have to hold; its "
            "licence forbids to pass it on",
            f"run the checkpoint itself: dhm align --weights {checkpoint}, or train with --target landmarks",
        )
    model, metadata = load_checkpoint(checkpoint)
    if half:
        _round_to_half(model)
    size = model.config.input_size
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    network = InferenceFastDhm(model) if isinstance(model, FastDhm) else InferenceDhm(model)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the exporter's own use of torch
        program = torch.onnx.export(
            network.eval(),
            (example,),
            input_names=["crops"],
            output_names=["landmarks"],
            dynamic_shapes={"crops": {0: torch.export.Dim("batch")}},
            opset_version=_OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    # The exporter's own optimiser would fold batch norm into the weights, which would no longer be the checkpoint's.
    onnxscript.optimizer.fold_constants(program.model)
    onnxscript.optimizer.remove_unused_nodes(program.model)
    graph = program.model_proto
    _strip(graph)
    _store_half(graph)
    description: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "arch": metadata["arch"],
        "input_size": size,
        "mean_shape": np.round(model.mean_shape.numpy().astype(float), 6).tolist(),
    }
    helper.set_model_props(graph, {METADATA_KEY: json.dumps(description)})
    onnx.checker.check_model(graph)
    with written_atomically(out) as partial:
        partial.write_bytes(graph.SerializeToString())


def export_checkpoint(checkpoint: Path, out: Path, half: bool = False) -> None:
    """Copy a checkpoint of any network, with its training record; needs no face model.

    Args:
        checkpoint: a network of `dhm train`.
        out: the copy.
        half: store the weights as float16, which halves the file; float32 otherwise. The mean shape stays float32.

    Raises:
        InputError: no such file.
        FormatError: a foreign file.
    """
    tensors, metadata = read_tensors(checkpoint)
    if "arch" not in metadata:
        raise FormatError(
            f"{checkpoint}: not a network but another kind of dhm file", "use best.safetensors of a training run"
        )
    for name, tensor in tensors.items():
        tensors[name] = tensor.half() if half and name != "mean_shape" else tensor.float()
    write_tensors(out, tensors, metadata)


def _round_to_half(model: Network) -> None:
    """What `save_checkpoint` in float16 and loading would do to the weights."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and name != "mean_shape":
            tensor.copy_(tensor.half())


def _strip(graph: onnx.ModelProto) -> None:
    """Drop the exporter's notes (source lines of this machine among them), which would double the file."""
    graph.graph.ClearField("value_info")
    graph.graph.ClearField("metadata_props")
    graph.doc_string = graph.graph.doc_string = ""
    for node in graph.graph.node:
        node.ClearField("metadata_props")
        node.doc_string = ""


def _store_half(graph: onnx.ModelProto) -> None:
    """Store what float16 holds exactly as float16, with a cast that ONNX Runtime folds when it loads the file."""
    casts = []
    for initializer in graph.graph.initializer:
        values = numpy_helper.to_array(initializer)
        if values.dtype != np.float32 or not np.array_equal(values.astype(np.float16).astype(np.float32), values):
            continue
        name = initializer.name
        initializer.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + ".half"))
        casts.append(helper.make_node("Cast", [name + ".half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.graph.node]
    graph.graph.ClearField("node")
    graph.graph.node.extend(nodes)
