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

from dhm_cli.checkpoint import load_checkpoint, save_checkpoint
from dhm_cli.engines import FORMAT_VERSION, METADATA_KEY
from dhm_cli.files import written_atomically
from dhm_cli.models.fast_dhm import FastDhm
from dhm_cli.models.input import image_tensor

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


def export_onnx(checkpoint: Path, out: Path, half: bool = False) -> None:
    """Write a checkpoint as an ONNX file that carries its own pre-processing.

    Args:
        checkpoint: a network of `dhm train`.
        out: the ONNX file; written atomically. Weights that the checkpoint holds as float16 are float16 in it too and
            widened when it is loaded; the arithmetic is float32.
        half: round the weights to float16 first, which halves the file.
    """
    model, metadata = load_checkpoint(checkpoint)
    if half:
        _round_to_half(model)
    size = model.config.input_size
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the exporter's own use of torch
        program = torch.onnx.export(
            InferenceFastDhm(model).eval(),
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
    """Copy a checkpoint, with its training record.

    Args:
        checkpoint: a network of `dhm train`.
        out: the copy.
        half: store the weights as float16, which halves the file.
    """
    model, metadata = load_checkpoint(checkpoint)
    dtype = torch.float16 if half else torch.float32
    save_checkpoint(out, model, metadata["arch"], metadata["training"], dtype)


def _round_to_half(model: FastDhm) -> None:
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
