"""Fixtures: a dummy network that depends on no weights, and the sample photo."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from dhm_cli.io.images import read_image

if TYPE_CHECKING:
    from synthetic_faces import SyntheticFaces

    from dhm_cli.morphable.face_model import FaceModel

INPUT_SIZE = 120
ASTRONAUT = Path(__file__).parent.parent / "sample_data" / "photos" / "astronaut.png"
# Where the eyes, the nose tip and the mouth of the astronaut are, 0-based pixels, read off the photo: for checks that
# allow for several pixels.
ASTRONAUT_FACE_CENTRE = (225.0, 128.0)


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


@pytest.fixture(scope="session")
def dummy_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ONNX file with dhm's metadata; see `write_dummy_network`."""
    return write_dummy_network(tmp_path_factory.mktemp("network") / "dummy.onnx")


@pytest.fixture(scope="session")
def astronaut() -> NDArray[np.uint8]:
    """The sample photo, (512, 512, 3) RGB, one face."""
    return read_image(ASTRONAUT)


@pytest.fixture(scope="session", autouse=True)
def single_torch_thread() -> None:
    """One thread, so that sums are added in the same order on every machine and in every run."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def toy_model() -> "FaceModel":
    """The made-up face model."""
    from dhm_cli.morphable.face_model import toy_face_model

    return toy_face_model()


@pytest.fixture(scope="session")
def face_model(tmp_path_factory: pytest.TempPathFactory, toy_model: "FaceModel") -> Path:
    """File of the made-up face model."""
    path = tmp_path_factory.mktemp("model") / "face_model.h5"
    toy_model.save(path)
    return path


@pytest.fixture(scope="session")
def dense_model(toy_model: "FaceModel") -> "FaceModel":
    """The toy model with a mask-like surface through its 68 points; the modes of a vertex are smooth in x and y."""
    import torch
    from scipy.interpolate import RBFInterpolator

    from dhm_cli.morphable.face_model import FaceModel, Mesh

    points = toy_model.mean.double().numpy()
    modes = torch.cat([toy_model.identity, toy_model.expression], dim=-1).double().numpy()
    x, y = np.meshgrid(np.linspace(-80e3, 80e3, 130), np.linspace(-90e3, 75e3, 130))
    grid = np.stack([x.ravel(), y.ravel()], axis=1)
    around = cv2.convexHull(points[:, :2].astype(np.float32))[:, 0]
    inside = [cv2.pointPolygonTest(around, (float(a), float(b)), False) > 0 for a, b in grid]
    grid = grid[inside]
    values = np.concatenate([points[:, 2:], modes.reshape(68, -1)], axis=1)
    spread = RBFInterpolator(points[:, :2], values, kernel="thin_plate_spline")(grid)
    mean = np.concatenate([points, np.concatenate([grid, spread[:, :1]], axis=1)])
    fields = np.concatenate([modes, spread[:, 1:].reshape(len(grid), 3, -1)]).astype(np.float32)
    split = toy_model.identity.shape[-1]
    mesh = Mesh(
        mean=mean.astype(np.float32),
        identity=fields[..., :split],
        expression=fields[..., split:],
        keypoints=np.arange(68),
        triangles=np.zeros((0, 3), np.int32),
    )
    parts = (toy_model.mean, toy_model.identity, toy_model.expression, toy_model.identity_std, toy_model.expression_std)
    return FaceModel(*parts, name="toy mask", mesh=mesh)


@pytest.fixture(scope="session")
def drawn_faces(tmp_path_factory: pytest.TempPathFactory, toy_model: "FaceModel") -> "SyntheticFaces":
    """A dataset of 24 drawn faces on disk; not to be changed by tests."""
    from synthetic_faces import draw_dataset

    return draw_dataset(tmp_path_factory.mktemp("dataset"), toy_model)


@pytest.fixture(scope="session")
def face_store(tmp_path_factory: pytest.TempPathFactory, toy_model: "FaceModel", drawn_faces: "SyntheticFaces") -> Path:
    """The drawn faces, prepared with the splits of their table; not to be changed by tests."""
    from dhm_cli.workflows.preparation import PrepareOptions, prepare_folder

    out = tmp_path_factory.mktemp("prepared")
    return prepare_folder(drawn_faces.folder, toy_model, out, PrepareOptions(table=drawn_faces.table)).store
