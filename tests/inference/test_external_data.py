"""A network is one file: it cannot have other files read."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from printed import folded
from typer.testing import CliRunner

from dhm_cli.cli.main import app
from dhm_cli.errors import FormatError
from dhm_cli.inference.aligner import Aligner
from dhm_cli.inference.external_data import refuse_external_data
from dhm_cli.inference.onnx_session import onnx_session


@pytest.fixture
def split_network(dummy_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network of dhm whose numbers lie in another file of the working folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "split.onnx"
    onnx.save(onnx.load(dummy_network), path, save_as_external_data=True, location="outside.bin", size_threshold=200)
    return path


def test_nothing_outside_of_a_network_is_read(split_network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime read it."""
    onnxruntime.InferenceSession(split_network.read_bytes(), providers=["CPUExecutionProvider"])  # as before

    def session(*_: Any, **__: Any) -> None:
        raise AssertionError("ONNX Runtime saw the network")

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    for load in (
        lambda: Aligner(model=split_network),
        lambda: onnx_session(split_network.read_bytes(), "the network"),
    ):
        with pytest.raises(FormatError, match="keeps its numbers in another file"):
            load()
    result = CliRunner().invoke(app, ["benchmark", "--model", str(split_network)])
    assert result.exit_code == 1
    assert "split.onnx: keeps its numbers in another file" in folded(result.stderr)


def test_tensors_of_nested_graphs_are_seen() -> None:
    tensor = onnx.numpy_helper.from_array(np.zeros(3, np.float32), "hidden")
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["x"], value=tensor)],
        "branch",
        [],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])],
    )
    node = helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch)
    model = helper.make_model(helper.make_graph([node], "outer", [], []))
    refuse_external_data(model.SerializeToString(), "whole")
    inner = model.graph.node[0].attribute[1].g.node[0].attribute[0].t
    inner.data_location = TensorProto.EXTERNAL
    with pytest.raises(FormatError, match="keeps its numbers"):
        refuse_external_data(model.SerializeToString(), "split")


def test_what_is_no_onnx_file() -> None:
    with pytest.raises(FormatError, match="not an ONNX network"):
        refuse_external_data(b"no network", "file")
