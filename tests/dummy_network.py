"""A network that depends on no weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

INPUT_SIZE = 120


def make_mean_shape() -> NDArray[np.float64]:
    """A stand-in for a frontal face, (68, 3): fixed, rigid, zero mean, -1 to 1."""
    shape = np.random.default_rng(68).uniform(-1.0, 1.0, (68, 3)) * [1.0, 1.0, 0.5]
    return np.asarray(shape - shape.mean(axis=0))


def write_dummy_network(path: Path, metadata: dict[str, Any] | str | None = None, output: str = "landmarks") -> Path:
    """Write a network that answers each crop with the mean shape in its middle, shifted right by the crop's mean grey.

    landmarks = 30 * mean_shape + (59.5 + mean / 16, 59.5, 0), so that the answer depends on its own crop only.
    """
    mean_shape = make_mean_shape()
    base = (mean_shape * 30 + [(INPUT_SIZE - 1) / 2, (INPUT_SIZE - 1) / 2, 0.0]).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["crops"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["grey"], keepdims=1),
        helper.make_node("Squeeze", ["grey", "last"], ["grey_"]),
        helper.make_node("Mul", ["grey_", "direction"], ["shift"]),
        helper.make_node("Add", ["shift", "base"], [output]),
    ]
    constants = {
        "axes": np.array([1, 2, 3], np.int64),
        "last": np.array([3], np.int64),
        "direction": np.array([[[1 / 16, 0, 0]]], np.float32),
        "base": base[None],
    }
    graph = helper.make_graph(
        nodes,
        "dummy",
        [helper.make_tensor_value_info("crops", TensorProto.UINT8, ["batch", INPUT_SIZE, INPUT_SIZE, 3])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", 68, 3])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if metadata is None:
        metadata = {
            "format_version": 1,
            "arch": "fast",
            "input_size": INPUT_SIZE,
            "mean_shape": mean_shape.tolist(),
        }
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    helper.set_model_props(model, {"dhm": text} if text else {})
    onnx.save(model, path)
    return path


def answer_in_black(centre: NDArray[np.float64], side: float) -> NDArray[np.float64]:
    """The dummy network's landmarks (68, 3) of a black square of a photo, in photo pixels, by the resize rule."""
    return make_mean_shape() * 30 * side / INPUT_SIZE + [*centre, 0.0]
