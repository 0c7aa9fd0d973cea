"""Storage of an ONNX graph's weights in fewer bits: float16, and int8 with its arithmetic."""

import copy
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from onnxruntime.quantization import CalibrationDataReader


def store_half(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the weights rounded to float16, each with a cast that ONNX Runtime folds when it loads the file.

    The arithmetic stays float32, because CPUs have no fast one in float16. Biases stay float32 too: they are few, and
    some are in pixels.
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
    """A copy that computes a chain of convolutions in 8 bits, with a scale for each channel of the weights.

    Args:
        graph: with one input, `crops`.
        prefix: the names of these convolutions' weights begin so.
        crops: (N, S, S, 3) uint8 RGB, typical inputs of the network; they set the ranges of its values.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder, _advice_silenced():
        onnx.save(graph, f"{folder}/float32.onnx")  # given the graph itself, it would empty it
        quantize_static(
            f"{folder}/float32.onnx",
            f"{folder}/int8.onnx",
            _calibration(crops),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=_chain(graph, prefix),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(f"{folder}/int8.onnx")


def _chain(graph: onnx.ModelProto, prefix: str) -> list[str]:
    """Names of the convolutions and of the additions and activations between and behind them.

    Quantisation merges these with the rounding.
    """
    nodes = graph.graph.node
    places = [k for k, node in enumerate(nodes) if any(name.startswith(prefix) for name in node.input)]
    near = range(places[0], min(places[-1] + 3, len(nodes)))
    return [nodes[k].name for k in near if k in places or nodes[k].op_type in ("Relu", "Add")]


def _calibration(crops: NDArray[np.uint8]) -> "CalibrationDataReader":
    """The crops one after another, as ONNX Runtime reads them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Crops(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._crops = iter(crops)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            crop = next(self._crops, None)
            return None if crop is None else {"crops": crop[None]}

    return Crops()


@contextmanager
def _advice_silenced() -> Iterator[None]:
    """Keep ONNX Runtime from advising, in the root logger, a preparation that the graph has had already."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
