"""The ONNX file says what torch says, for any network and for the weights that come with the package."""

import copy
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from dummy_network import make_mean_shape
from example_networks import make_model
from numpy.typing import NDArray
from printed import folded
from typer.testing import CliRunner, Result

from dhm_cli.cli.main import app
from dhm_cli.config.networks import FastDhmConfig
from dhm_cli.errors import DhmError, FormatError, InputError
from dhm_cli.export import export as exporting
from dhm_cli.export import parity
from dhm_cli.export.export import export_checkpoint, export_onnx
from dhm_cli.geometry.landmarks import face_size
from dhm_cli.inference.engines import OnnxEngine, TorchEngine
from dhm_cli.models.checkpoint import load_checkpoint, save_checkpoint, write_tensors
from dhm_cli.models.fast_dhm import FastDhm
from dhm_cli.models.interface import image_tensor
from dhm_cli.models.registry import inference_network
from dhm_cli.morphable.toy import toy_face_model

SMALL = FastDhmConfig(input_size=48, blocks=((32, 2), (32, 1)), recurrent_channels=32, steps=3, head_rank=16)


def random_crops(count: int, size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def largest_difference(checkpoint: Path, exported: Path, crops: NDArray[np.uint8]) -> float:
    """Largest distance between the two engines' landmarks, as a share of the face size."""
    ours, theirs = OnnxEngine(exported)(crops), TorchEngine(checkpoint, device="cpu")(crops)
    distance = np.linalg.norm(ours - theirs, axis=-1).max(axis=-1)
    return float((distance / face_size(theirs)).max())


def small_network(**changes: Any) -> FastDhm:
    """A small network with weights and batch norm statistics that are nothing special to batch norm."""
    torch.manual_seed(3)
    model = FastDhm(replace(SMALL, **changes), torch.from_numpy(make_mean_shape()))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.3)
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    torch.nn.init.normal_(model.head[-1].weight, std=0.05)
    return model.eval()


def export_traced(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the exports that follow take the graph of an export in float32: tracing the same network again is slow."""
    monkeypatch.setattr(exporting, "onnx_graph", lambda *_, **__: onnx.load(file))


@pytest.fixture(scope="module")
def network() -> FastDhm:
    return small_network()


@pytest.fixture(scope="module")
def exports(network: FastDhm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """The network's checkpoint and its export, in both precisions; not to be changed by tests."""
    folder = tmp_path_factory.mktemp("export")
    checkpoint, exact, half = folder / "net.safetensors", folder / "net.onnx", folder / "half.onnx"
    save_checkpoint(checkpoint, network, "fast", {"steps": 7})
    export_onnx(checkpoint, exact)
    with pytest.MonkeyPatch.context() as patch:
        export_traced(exact, patch)
        export_onnx(checkpoint, half, "float16")
    return {"float32": (checkpoint, exact), "float16": (checkpoint, half)}


# float16 has 11 bits: a part in 2,000 of numbers that move landmarks by half a crop.
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("float16", 3e-3)])
def test_export_agrees_with_torch(exports: dict[str, tuple[Path, Path]], precision: str, tolerance: float) -> None:
    checkpoint, exported = exports[precision]
    assert largest_difference(checkpoint, exported, random_crops(9, 48)) < tolerance
    # The heat map reaches the answer: without it the landmarks differ.
    model, _ = load_checkpoint(checkpoint)
    model.heatmap.zero_()
    with torch.inference_mode():
        images = torch.from_numpy(random_crops(9, 48)).permute(0, 3, 1, 2).float() / 127.5 - 1
        without = model(images).landmarks[:, -1].numpy()
    assert np.abs(without - OnnxEngine(exported)(random_crops(9, 48))).max() > 1e-2


# Small and few, since tracing is slow: what is exported depends on the operators, not on how often they come. Each
# kind of features, recurrence and heat map is in one of them.
@pytest.mark.parametrize(
    ("arch", "changes"),
    [
        ("dhm-vgg", {"steps": 2, "recurrence": "lstm", "channels": (16, 16)}),
        ("rhg", {"steps": 1, "recurrence": "none", "hourglasses": 1, "input_size": 32}),
        ("2drnn", {"steps": 2}),
    ],
)
def test_networks_that_regress_landmarks(arch: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model = make_model(arch, **{"target": "landmarks", **changes}).eval()
    torch.nn.init.normal_(model.update.weight, std=0.1)  # several pixels a step
    checkpoint, exported = tmp_path / "net.safetensors", tmp_path / "net.onnx"
    save_checkpoint(checkpoint, model, arch, {})
    export_onnx(checkpoint, exported)
    engine, size = OnnxEngine(exported), model.config.input_size
    assert (engine.arch, engine.input_size) == (arch, size)
    np.testing.assert_allclose(engine.mean_shape, model.mean_shape.numpy(), atol=1e-6)
    for count in (1, 5):
        assert largest_difference(checkpoint, exported, random_crops(count, size)) < 1e-5
    assert np.ptp(engine(random_crops(5, size)), axis=0).max() > 1


def test_networks_that_regress_p_stay_checkpoints(tmp_path: Path) -> None:
    """An ONNX file would hold the face model."""
    checkpoint, half, basis = tmp_path / "dhm.safetensors", tmp_path / "half.safetensors", tmp_path / "face_model.h5"
    toy_face_model().save(basis)
    model = make_model("dhm").eval()
    save_checkpoint(checkpoint, model, "dhm", {"steps": 7})
    result = CliRunner().invoke(app, ["export", "--model", str(checkpoint)])
    assert result.exit_code == 1
    assert "dhm.safetensors: regresses the parameters of a face model" in folded(result.stderr)
    assert f"hint: run the checkpoint itself: dhm align --model {checkpoint}" in folded(result.stderr)
    assert not (tmp_path / "dhm.onnx").exists()
    # A copy needs no face model to be made, and the same one to be used.
    result = CliRunner().invoke(app, ["export", "--model", str(checkpoint), "--precision", "float16", "-o", str(half)])
    assert result.exit_code == 0, result.output
    copied, metadata = load_checkpoint(half, basis)
    assert metadata == load_checkpoint(checkpoint, basis)[1]
    assert torch.equal(copied.update.weight, model.update.weight.half().float())
    assert torch.equal(copied.mean_shape, model.mean_shape)
    assert half.stat().st_size < 0.6 * checkpoint.stat().st_size


@pytest.mark.parametrize("export", [export_onnx, export_checkpoint])
def test_a_file_that_is_no_network(export: Callable[[Path, Path], None], tmp_path: Path) -> None:
    write_tensors(tmp_path / "state.safetensors", {"model.weight": torch.zeros(2)}, {"state": {}})
    with pytest.raises(FormatError, match=r"state\.safetensors: not a network"):
        export(tmp_path / "state.safetensors", tmp_path / "out")
    with pytest.raises(InputError, match=r"absent\.safetensors: no such checkpoint"):
        export(tmp_path / "absent.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_half_copy_of_a_checkpoint(exports: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    full, half = exports["float32"][0], tmp_path / "half.safetensors"
    export_checkpoint(full, half, "float16")
    assert load_checkpoint(half)[1]["training"] == {"steps": 7}
    assert half.stat().st_size < 0.6 * full.stat().st_size


def test_float16_files_have_half_the_size(exports: dict[str, tuple[Path, Path]]) -> None:
    sizes = {
        precision: sum(len(i.raw_data) for i in onnx.load(exported).graph.initializer)
        for precision, (_, exported) in exports.items()
    }
    assert 0.5 < sizes["float16"] / sizes["float32"] < 0.55


def test_everything_constant_is_folded(exports: dict[str, tuple[Path, Path]], network: FastDhm) -> None:
    """No batch norm, no arithmetic on pixels, and one graph for any number of crops."""
    operators = Counter(node.op_type for node in onnx.load(exports["float32"][1]).graph.node)
    assert operators.keys() <= {
        *("Transpose", "Cast", "Conv", "Relu", "Add", "Tanh", "Reshape", "Gemm", "MatMul"),
        *("Shape", "Squeeze", "Concat", "Constant"),  # of the number of crops
    }
    convolutions = sum(isinstance(m, torch.nn.Conv2d) for m in network.cnn.modules())
    # The stem, the blocks, h_0 and three convolutions a step.
    assert operators["Conv"] == 1 + convolutions + 1 + 3 * network.config.steps
    # The heat map, the sums of Eq. (7), and the skip of the second block.
    assert operators["Add"] == 1 + 2 * network.config.steps + 1


def test_the_network_is_left_as_it_was(network: FastDhm) -> None:
    before = copy.deepcopy(network.state_dict())
    crops = torch.from_numpy(random_crops(3, 48))
    with torch.inference_mode():
        expected = network(image_tensor(crops)).landmarks[:, -1]
        torch.testing.assert_close(inference_network(network)(crops), expected, atol=1e-3, rtol=0)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("closer_look", [False, True])
@pytest.mark.parametrize("uncertainty", [False, True])
def test_inference_is_the_last_guess_of_every_kind(uncertainty: bool, closer_look: bool) -> None:
    network = small_network(heatmap="none", uncertainty=uncertainty, closer_look=closer_look)
    mean = small_network(closer_look=closer_look)
    with torch.no_grad():
        network.stem.weight[:, 3:] *= 10  # a heat map moves landmarks by tenths of a pixel
    mean.load_state_dict(network.state_dict(), strict=False)
    crops = torch.from_numpy(random_crops(3, 48))
    with torch.inference_mode():
        every, answer = network(image_tensor(crops)).landmarks, inference_network(network)(crops)
        found = answer[0] if uncertainty else answer
        with_mean = mean(image_tensor(crops)).landmarks[:, -1]
    torch.testing.assert_close(found, every[:, -1], atol=1e-3, rtol=0)
    # The step before, and what the mean heat map gives, lie elsewhere.
    for other in (every[:, -2], with_mean):
        assert (found - other).abs().max() > 0.05


def test_onnx_files_run_without_torch(exports: dict[str, tuple[Path, Path]]) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"  # an import of it raises
        "import numpy as np; from dhm_cli.inference.engines import load_engine\n"
        "print(load_engine('cpu', sys.argv[1])(np.zeros((2, 48, 48, 3), np.uint8)).shape)"
    )
    for _, exported in exports.values():
        done = subprocess.run(
            [sys.executable, "-c", code, str(exported)], capture_output=True, text=True, check=True, timeout=120
        )
        assert done.stdout.strip() == "(2, 68, 3)"


@pytest.fixture(scope="module")
def stored_checkpoint(network: FastDhm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`network` with the landmarks' uncertainty beside them."""
    path = tmp_path_factory.mktemp("int8") / "net.safetensors"
    model = small_network(uncertainty=True)
    model.load_state_dict(network.state_dict(), strict=False)
    save_checkpoint(path, model, "fast", {})
    return path


@pytest.fixture(scope="module")
def uncertain_export(stored_checkpoint: Path) -> Path:
    path = stored_checkpoint.with_suffix(".onnx")
    export_onnx(stored_checkpoint, path)
    return path


def test_uncertainty_stays_in_the_checkpoint(
    stored_checkpoint: Path, uncertain_export: Path, exports: dict[str, tuple[Path, Path]]
) -> None:
    """And comes along in the ONNX file, whose landmarks are those of the network without."""
    crops = random_crops(5, 48)
    assert largest_difference(stored_checkpoint, uncertain_export, crops) < 1e-5
    told, expected = OnnxEngine(uncertain_export).answer(crops), TorchEngine(stored_checkpoint, "cpu").answer(crops)
    for ours, theirs in zip(told, expected, strict=True):
        assert ours is not None
        assert theirs is not None
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    assert told.visibility is not None
    np.testing.assert_allclose(told.visibility.sum(axis=-1), 1, atol=1e-5)
    assert OnnxEngine(exports["float32"][1]).answer(crops).sigma is None


def test_int8(
    stored_checkpoint: Path, uncertain_export: Path, face_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "MOST_LOST", 100.0)  # these weights were never trained
    export_traced(uncertain_export, monkeypatch)
    out = tmp_path / "int8.onnx"
    result = CliRunner().invoke(
        app,
        ["export", "--model", str(stored_checkpoint), "-o", str(out), "--precision=int8", "--data", str(face_store)],
    )
    assert result.exit_code == 0, result.output
    assert "int8), landmarks within" in folded(result.stdout)
    assert "\ncheckpoint  " in result.stdout
    assert max(map(len, result.stdout.splitlines()[1:])) <= 80
    stored = {i.name: i.data_type for i in onnx.load(out).graph.initializer}
    eight = {name for name, kind in stored.items() if kind == onnx.TensorProto.INT8}
    assert {f"cnn.{k}.{part}.weight_quantized" for k in range(3) for part in ("depthwise", "pointwise")} <= eight
    assert not any(name.startswith(("stem", "recurrent", "narrow", "wide")) for name in eight)
    # Eight bits are seen, and do no more than eight bits do.
    crops = random_crops(20, 48)
    apart = np.linalg.norm(OnnxEngine(out)(crops) - OnnxEngine(uncertain_export)(crops), axis=-1)
    assert 1e-3 < apart.mean() < 1.0


def test_int8_is_refused_when_it_costs_accuracy(
    stored_checkpoint: Path, uncertain_export: Path, face_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "MOST_LOST", -100.0)
    export_traced(uncertain_export, monkeypatch)
    out = tmp_path / "int8.onnx"
    out.write_text("an older file")
    with pytest.raises(DhmError, match=r"int8\.onnx: not written, int8 worsens the NME from [\d.]+ to [\d.]+ %"):
        export_onnx(stored_checkpoint, out, "int8", face_store)
    assert out.read_text() == "an older file"
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]


def test_int8_needs_data_and_fast_dhm(stored_checkpoint: Path, face_store: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="int8 needs faces") as caught:
        export_onnx(stored_checkpoint, tmp_path / "a.onnx", "int8")
    assert "--data" in caught.value.hint
    other = tmp_path / "other.safetensors"
    save_checkpoint(other, make_model("2drnn", steps=1).eval(), "2drnn", {})
    with pytest.raises(InputError, match=r"other\.safetensors: int8 is made for the networks of Fast DHM"):
        export_onnx(other, tmp_path / "a.onnx", "int8", face_store)
    with pytest.raises(InputError, match="checkpoints are float32 or float16"):
        export_checkpoint(stored_checkpoint, tmp_path / "a.safetensors", "int8")


def test_a_file_that_disagrees_is_not_kept(
    stored_checkpoint: Path, uncertain_export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = onnx.load(uncertain_export)
    (bias,) = (values for values in graph.graph.initializer if values.name == "wide.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.1), bias.name))
    onnx.save(graph, tmp_path / "wrong.onnx")
    export_traced(tmp_path / "wrong.onnx", monkeypatch)
    with pytest.raises(DhmError, match=r"not written, its landmarks lie 0\.1\d* pixels from"):
        export_onnx(stored_checkpoint, tmp_path / "a.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.onnx"]


def test_export_carries_no_trace_of_the_machine(exports: dict[str, tuple[Path, Path]]) -> None:
    exported = exports["float32"][1]
    content = exported.read_bytes()
    assert b"/dhm_cli" not in content
    assert b"site-packages" not in content
    (prop,) = onnx.load(exported).metadata_props
    description = json.loads(prop.value)
    assert (description["arch"], description["input_size"]) == ("fast", 48)
    assert [p.name for p in exported.parent.iterdir() if "partial" in p.name] == []


# The closer look of fast-x2 cuts its patches at whole pixels: a guess half-way between two may fall to either side.
@pytest.mark.parametrize(("name", "megabytes", "apart"), [("fast", 0.95, 5e-3), ("fast-x2", 2.2, 0.05)])
def test_shipped_weights_agree_between_engines_and_fit_the_paper(name: str, megabytes: float, apart: float) -> None:
    folder = files("dhm_cli") / "weights"
    with as_file(folder / f"{name}.safetensors") as checkpoint, as_file(folder / f"{name}.onnx") as exported:
        # Table I of Fast DHM prints 0.9 and 2.2 MB.
        assert checkpoint.stat().st_size <= megabytes * 1e6
        assert exported.stat().st_size <= megabytes * 1e6
        model, metadata = load_checkpoint(checkpoint)
        assert metadata["arch"] == name
        # Both are float16, the ONNX file after folding.
        assert largest_difference(checkpoint, exported, random_crops(50, model.config.input_size)) < apart
    assert (folder / f"{name}.md").is_file()


def test_what_export_refuses(stored_checkpoint: Path, face_store: Path, tmp_path: Path) -> None:
    before = stored_checkpoint.read_bytes()
    link, model = tmp_path / "link.onnx", ["--model", str(stored_checkpoint)]
    link.symlink_to(face_store)
    for arguments, words in (
        ([*model, "--out", str(stored_checkpoint)], "is read by this command too"),
        ([*model, "--out", str(link), "--data", str(face_store), "--force"], "is read by this command too"),
        ([*model, "--out", str(tmp_path)], "is a folder"),
        ([*model, "--out", str(tmp_path / "a.pt")], "known are .onnx and .safetensors"),
        (["--model", "."], ".: no such checkpoint"),
        ([], "pass --model FILE"),
        ([str(stored_checkpoint)], f"pass --model {stored_checkpoint}"),
        ([*model, "--out", str(tmp_path / "a.SAFETENSORS"), "--data", "x.h5"], "--data compares"),
    ):
        result = CliRunner().invoke(app, ["export", *arguments])
        assert result.exit_code == 1
        assert words in folded(result.stderr)
    assert stored_checkpoint.read_bytes() == before
    assert list(tmp_path.iterdir()) == [link]


def export_quickly(checkpoint: Path, export: Path, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Result:
    export_traced(export, monkeypatch)
    return CliRunner().invoke(app, ["export", "--model", str(checkpoint), *map(str, arguments)])


def test_a_file_that_export_did_not_write_is_kept(
    exports: dict[str, tuple[Path, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was replaced. A network of dhm is, and with --force any file."""
    checkpoint, exported = exports["float32"]
    out, foreign, state = tmp_path / "out.onnx", tmp_path / "foreign.onnx", tmp_path / "state.safetensors"
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "foreign", [], [])), foreign)
    write_tensors(state, {"model.weight": torch.zeros(2)}, {"state": {}})
    for precious in (b"my thesis", foreign.read_bytes(), state.read_bytes()):
        out.write_bytes(precious)
        result = export_quickly(checkpoint, exported, monkeypatch, "--out", out)
        assert result.exit_code == 1
        assert "out.onnx: exists and is not a network that dhm wrote" in folded(result.stderr)
        assert out.read_bytes() == precious
    assert export_quickly(checkpoint, exported, monkeypatch, "--out", out, "--force").exit_code == 0
    for ours in (checkpoint, exported):
        out.write_bytes(ours.read_bytes())
        assert export_quickly(checkpoint, exported, monkeypatch, "--out", out).exit_code == 0


def test_links_pipes_and_standard_output(
    exports: dict[str, tuple[Path, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link was replaced instead of followed, a pipe became a file, and - was a file of that name."""
    checkpoint, exported = exports["float32"]
    link, pipe = tmp_path / "link.onnx", tmp_path / "pipe"
    link.symlink_to(tmp_path / "real.onnx")
    assert export_quickly(checkpoint, exported, monkeypatch, "--out", link).exit_code == 0
    assert link.is_symlink()
    assert OnnxEngine(tmp_path / "real.onnx").arch == "fast"

    monkeypatch.chdir(tmp_path)
    result = export_quickly(checkpoint, exported, monkeypatch, "--out", "-")
    assert result.exit_code == 0
    assert result.stdout_bytes == (tmp_path / "real.onnx").read_bytes()
    assert "wrote to standard output" in folded(result.stderr)

    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    assert export_quickly(checkpoint, exported, monkeypatch, "--out", pipe).exit_code == 0
    reader.join(60)
    assert received == [result.stdout_bytes]
    assert pipe.is_fifo()
