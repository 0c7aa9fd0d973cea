"""A network as an ONNX graph, without the exporter's notes, its weights in float32 or stored as float16."""

import copy
import logging
import tempfile
import warnings
from collections.abc import Mapping

import numpy as np
import onnx
import onnxscript.optimizer
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

_OPSET = 18


def onnx_graph(
    network: nn.Module,
    example: Tensor,
    input_name: str = "crops",
    output_name: str = "landmarks",
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """The graph of a network with one input and one output, for any number of crops.

    Args:
        network: in evaluation mode.
        example: an input of at least two crops, (B, ...).
        input_name: name of the graph's input.
        output_name: name of its output.
        metadata: texts to keep in the file.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the exporter's own use of torch
        program = torch.onnx.export(
            network,
            (example,),
            input_names=[input_name],
            output_names=[output_name],
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


def store_half(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the weights rounded to float16, each with a cast that ONNX Runtime folds when it loads the file.

    The arithmetic stays float32: CPUs have no fast one in float16. Biases, few and some of them in pixels, stay too.
    """
    graph = copy.deepcopy(graph)
    casts = []
    for initializer in graph.graph.initializer:
        values = numpy_helper.to_array(initializer)
        if values.dtype != np.float32 or values.ndim < 2:
            continue
        name = initializer.name
        initializer.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + ".half"))
        casts.append(helper.make_node("Cast", [name + ".half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.graph.node]
    graph.graph.ClearField("node")
    graph.graph.node.extend(nodes)
    return graph


def quantised(graph: onnx.ModelProto, prefix: str, crops: NDArray[np.uint8]) -> onnx.ModelProto:
    """A copy that computes a chain of convolutions in 8 bits, weights with a scale for each channel.

    Args:
        graph: of one input, `crops`.
        prefix: what the names of these convolutions' weights begin with.
        crops: (N, S, S, 3) uint8 RGB, inputs as the network will see them; they set the ranges.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Crops(CalibrationDataReader):  # type: ignore[misc]
        """One crop after another."""

        def __init__(self) -> None:
            self._crops = iter(crops)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            crop = next(self._crops, None)
            return None if crop is None else {"crops": crop[None]}

    nodes = graph.graph.node
    places = [k for k, node in enumerate(nodes) if any(name.startswith(prefix) for name in node.input)]
    # With what lies between and behind them: additions, and the activations, which become a part of the rounding.
    near = range(places[0], min(places[-1] + 3, len(nodes)))
    chain = [nodes[k].name for k in near if k in places or nodes[k].op_type in ("Relu", "Add")]
    # It logs an advice to the root logger, about a preparation that the graph has had.
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            onnx.save(graph, f"{folder}/float32.onnx")  # given the graph itself, it would empty it
            quantize_static(
                f"{folder}/float32.onnx",
                f"{folder}/int8.onnx",
                Crops(),
                quant_format=QuantFormat.QDQ,
                nodes_to_quantize=chain,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            return onnx.load(f"{folder}/int8.onnx")
    finally:
        logging.disable(before)


def _strip(graph: onnx.ModelProto) -> None:
    """Drop the exporter's notes (source lines of this machine among them), which would double the file."""
    graph.graph.ClearField("value_info")
    graph.graph.ClearField("metadata_props")
    graph.doc_string = graph.graph.doc_string = ""
    for node in graph.graph.node:
        node.ClearField("metadata_props")
        node.doc_string = ""
