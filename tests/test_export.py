"""The ONNX file says what torch says, for any network and for the weights that come with the package."""

import json
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import make_mean_shape
from numpy.typing import NDArray

from dhm_cli.checkpoint import load_checkpoint, save_checkpoint
from dhm_cli.config import FastDhmConfig
from dhm_cli.engines import OnnxEngine, TorchEngine
from dhm_cli.landmarks import face_size
from dhm_cli.models.fast_dhm import FastDhm
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_export_agrees_with_torch(network: FastDhm, tmp_path: Path, dtype: torch.dtype) -> None:
    checkpoint, exported = tmp_path / "net.safetensors", tmp_path / "net.onnx"
    save_checkpoint(checkpoint, network, "fast", {}, dtype)
    export_onnx(checkpoint, exported)
    assert largest_difference(checkpoint, exported, random_crops(9, 48)) < 1e-5
    # The heat map reaches the answer: without it the landmarks differ.
    model, _ = load_checkpoint(checkpoint)
    model.heatmap.zero_()
    with torch.inference_mode():
        images = torch.from_numpy(random_crops(9, 48)).permute(0, 3, 1, 2).float() / 127.5 - 1
        without = model(images).landmarks[:, -1].numpy()
    assert np.abs(without - OnnxEngine(exported)(random_crops(9, 48))).max() > 1e-2


def test_half_export_equals_the_export_of_a_half_checkpoint(network: FastDhm, tmp_path: Path) -> None:
    """`dhm export --half`, as the shipped files were made."""
    full, half = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    save_checkpoint(full, network, "fast", {"steps": 7})
    export_checkpoint(full, half, half=True)
    assert load_checkpoint(half)[1]["training"] == {"steps": 7}
    assert half.stat().st_size < 0.6 * full.stat().st_size
    export_onnx(full, tmp_path / "a.onnx", half=True)
    export_onnx(half, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_half_checkpoints_give_half_size_files(network: FastDhm, tmp_path: Path) -> None:
    sizes = []
    for dtype in (torch.float32, torch.float16):
        save_checkpoint(tmp_path / "net.safetensors", network, "fast", {}, dtype)
        export_onnx(tmp_path / "net.safetensors", tmp_path / "net.onnx")
        stored = onnx.load(tmp_path / "net.onnx").graph.initializer
        sizes.append(sum(len(i.raw_data) for i in stored if "heatmap_bias" not in i.name))
    assert 0.5 < sizes[1] / sizes[0] < 0.55


def test_export_carries_no_trace_of_the_machine(network: FastDhm, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "net.safetensors", network, "fast", {})
    export_onnx(tmp_path / "net.safetensors", tmp_path / "net.onnx")
    content = (tmp_path / "net.onnx").read_bytes()
    assert b"/dhm_cli" not in content
    assert b"site-packages" not in content
    (prop,) = onnx.load(tmp_path / "net.onnx").metadata_props
    description = json.loads(prop.value)
    assert (description["arch"], description["input_size"]) == ("fast", 48)
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


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
