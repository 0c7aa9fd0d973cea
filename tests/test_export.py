"""The ONNX file says what torch says, for any network and for the weights that come with the package."""

import json
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import make_mean_shape
from numpy.typing import NDArray
from test_models import make_model
from typer.testing import CliRunner

from dhm_cli.checkpoint import load_checkpoint, save_checkpoint, write_tensors
from dhm_cli.cli.main import app
from dhm_cli.config import FastDhmConfig
from dhm_cli.engines import OnnxEngine, TorchEngine
from dhm_cli.errors import FormatError, InputError
from dhm_cli.landmarks import face_size
from dhm_cli.models.fast_dhm import FastDhm
from dhm_cli.morphable.face_model import toy_face_model
from dhm_cli.workflows.export import export_checkpoint, export_onnx

SMALL = FastDhmConfig(input_size=48, blocks=((32, 2), (32, 1)), recurrent_channels=32, steps=3, head_rank=16)


def random_crops(count: int, size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def largest_difference(checkpoint: Path, exported: Path, crops: NDArray[np.uint8]) -> float:
    """Largest distance between the two engines' landmarks, as a share of the face size."""
    ours, theirs = OnnxEngine(exported)(crops), TorchEngine(checkpoint, device="cpu")(crops)
    distance = np.linalg.norm(ours - theirs, axis=-1).max(axis=-1)
    return float((distance / face_size(theirs)).max())


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> FastDhm:
    """A small network with weights and batch norm statistics that are nothing special to batch norm."""
    torch.manual_seed(3)
    model = FastDhm(SMALL, torch.from_numpy(make_mean_shape()))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.3)
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    torch.nn.init.normal_(model.head[-1].weight, std=0.05)
    return model.eval()


@pytest.fixture(scope="module")
def exports(network: FastDhm, tmp_path_factory: pytest.TempPathFactory) -> dict[torch.dtype, tuple[Path, Path]]:
    """The network's checkpoint and its export, in both precisions; not to be changed by tests."""
    made = {}
    for dtype in (torch.float32, torch.float16):
        folder = tmp_path_factory.mktemp("export")
        checkpoint, exported = folder / "net.safetensors", folder / "net.onnx"
        save_checkpoint(checkpoint, network, "fast", {"steps": 7}, dtype)
        export_onnx(checkpoint, exported)
        made[dtype] = checkpoint, exported
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_export_agrees_with_torch(exports: dict[torch.dtype, tuple[Path, Path]], dtype: torch.dtype) -> None:
    checkpoint, exported = exports[dtype]
    assert largest_difference(checkpoint, exported, random_crops(9, 48)) < 1e-5
    # The heat map reaches the answer: without it the landmarks differ.
    model, _ = load_checkpoint(checkpoint)
    model.heatmap.zero_()
    with torch.inference_mode():
        images = torch.from_numpy(random_crops(9, 48)).permute(0, 3, 1, 2).float() / 127.5 - 1
        without = model(images).landmarks[:, -1].numpy()
    assert np.abs(without - OnnxEngine(exported)(random_crops(9, 48))).max() > 1e-2


# Small, since tracing is slow: what is exported depends on the operators, not on how often they come.
@pytest.mark.parametrize(
    ("arch", "changes"),
    [
        ("dhm", {"steps": 2, "recurrence": "lstm"}),
        ("rhg", {"steps": 1, "hourglasses": 1, "input_size": 32}),
        ("3dcnn", {"features": "vgg", "channels": (8, 16)}),
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
    result = CliRunner().invoke(app, ["export", str(checkpoint)])
    assert result.exit_code == 1
    assert "dhm.safetensors: regresses the parameters of a face model" in result.stderr
    assert f"hint: run the checkpoint itself: dhm align --weights {checkpoint}" in result.stderr
    assert not (tmp_path / "dhm.onnx").exists()
    # A copy needs no face model to be made, and the same one to be used.
    result = CliRunner().invoke(app, ["export", str(checkpoint), "--half", "--out", str(half)])
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


def test_half_export_equals_the_export_of_a_half_checkpoint(
    exports: dict[torch.dtype, tuple[Path, Path]], tmp_path: Path
) -> None:
    """`dhm export --half`, as the shipped files were made."""
    full, half = exports[torch.float32][0], tmp_path / "half.safetensors"
    export_checkpoint(full, half, half=True)
    assert load_checkpoint(half)[1]["training"] == {"steps": 7}
    assert half.stat().st_size < 0.6 * full.stat().st_size
    export_onnx(full, tmp_path / "a.onnx", half=True)
    assert (tmp_path / "a.onnx").read_bytes() == exports[torch.float16][1].read_bytes()


def test_half_checkpoints_give_half_size_files(exports: dict[torch.dtype, tuple[Path, Path]]) -> None:
    sizes = []
    for _, exported in exports.values():
        stored = onnx.load(exported).graph.initializer
        sizes.append(sum(len(i.raw_data) for i in stored if "heatmap_bias" not in i.name))
    assert 0.5 < sizes[1] / sizes[0] < 0.55


def test_export_carries_no_trace_of_the_machine(exports: dict[torch.dtype, tuple[Path, Path]]) -> None:
    exported = exports[torch.float32][1]
    content = exported.read_bytes()
    assert b"/dhm_cli" not in content
    assert b"site-packages" not in content
    (prop,) = onnx.load(exported).metadata_props
    description = json.loads(prop.value)
    assert (description["arch"], description["input_size"]) == ("fast", 48)
    assert [p.name for p in exported.parent.iterdir() if "partial" in p.name] == []


def test_shipped_weights_agree_between_engines_and_fit_the_paper() -> None:
    folder = files("dhm_cli") / "weights"
    with as_file(folder / "fast.safetensors") as checkpoint, as_file(folder / "fast.onnx") as exported:
        # Table I of Fast DHM prints 0.9 MB.
        assert checkpoint.stat().st_size <= 950_000
        assert exported.stat().st_size <= 950_000
        model, metadata = load_checkpoint(checkpoint)
        assert metadata["arch"] == "fast"
        size = model.config.input_size
        assert largest_difference(checkpoint, exported, random_crops(100, size)) < 1e-4
    assert (folder / "fast.md").is_file()
