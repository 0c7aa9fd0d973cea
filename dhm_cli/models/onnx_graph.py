"""A network as an ONNX graph, without the exporter's notes."""

import logging
import warnings
from collections.abc import Mapping

import onnx
import onnxscript.optimizer
import torch
from onnx import helper
from torch import Tensor, nn

_OPSET = 18


def onnx_graph(
    network: nn.Module,
    example: Tensor,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Export a network with one input, `crops`, to a graph for any number of crops.

    Args:
        network: in evaluation mode; its attribute `outputs` names what it returns, "landmarks" where it has none.
        example: an input of at least two crops, (B, ...).
        metadata: texts to keep in the file.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the exporter's own use of torch
        program = torch.onnx.export(
            network,
            (example,),
            input_names=["crops"],
            output_names=list(getattr(network, "outputs", ["landmarks"])),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=_OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    onnxscript.optimizer.fold_constants(program.model)
    onnxscript.optimizer.remove_unused_nodes(program.model)
    graph = program.model_proto
    _strip(graph)
    if metadata:
        helper.set_model_props(graph, dict(metadata))
    onnx.checker.check_model(graph)
    return graph


def _strip(graph: onnx.ModelProto) -> None:
    """Drop the exporter's notes, which name source lines of this machine and would double the file."""
    graph.graph.ClearField("value_info")
    graph.graph.ClearField("metadata_props")
    graph.doc_string = graph.graph.doc_string = ""
    for node in graph.graph.node:
        node.ClearField("metadata_props")
        node.doc_string = ""
