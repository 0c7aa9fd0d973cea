"""Networks on disk: the contract of their files, and the choice of the device."""

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from dummy_network import INPUT_SIZE, make_mean_shape, write_dummy_network
from example_networks import CASES, make_model, trained_a_little
from numpy.typing import NDArray

from dhm_cli.errors import DhmError, FormatError, InputError
from dhm_cli.inference import engines, weights
from dhm_cli.inference.engines import MAX_BATCH, Answer, BatchingEngine, OnnxEngine, TorchEngine, load_engine
from dhm_cli.models.checkpoint import save_checkpoint
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.toy import toy_face_model

GOOD: dict[str, Any] = {
    "format_version": 1,
    "arch": "fast",
    "input_size": INPUT_SIZE,
    "mean_shape": make_mean_shape().tolist(),
}


def test_onnx_engine(dummy_network: Path) -> None:
    engine = OnnxEngine(dummy_network)
    assert (engine.arch, engine.input_size) == ("fast", INPUT_SIZE)
    np.testing.assert_allclose(engine.mean_shape, make_mean_shape())
    crops = np.zeros((3, INPUT_SIZE, INPUT_SIZE, 3), np.uint8)
    crops[1] = 160  # shifts the answer right by 160 / 16 pixels
    landmarks = engine(crops)
    assert landmarks.shape == (3, 68, 3)
    assert landmarks.dtype == np.float32
    expected = make_mean_shape() * 30 + [59.5, 59.5, 0.0]
    for k, shift in enumerate((0.0, 10.0, 0.0)):
        np.testing.assert_allclose(landmarks[k], expected + np.array([shift, 0.0, 0.0]), atol=1e-4)


def test_batches_of_any_size(dummy_network: Path) -> None:
    engine = OnnxEngine(dummy_network, threads=2)
    assert engine(np.zeros((0, INPUT_SIZE, INPUT_SIZE, 3), np.uint8)).shape == (0, 68, 3)
    count = 2 * MAX_BATCH["cpu"] + 3
    crops = np.zeros((count, INPUT_SIZE, INPUT_SIZE, 3), np.uint8)
    crops += np.arange(count, dtype=np.uint8)[:, None, None, None]
    shift = engine(crops)[:, 0, 0] - engine(crops[:1])[0, 0, 0]
    np.testing.assert_allclose(shift, np.arange(count) / 16, atol=1e-4)


def test_garbage_is_not_a_network(tmp_path: Path) -> None:
    path = tmp_path / "odd.onnx"
    for content in (b"", b"plain text, no protobuf", bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"odd\.onnx") as caught:
            OnnxEngine(path)
        assert "a network that dhm wrote" in caught.value.hint


def test_truncated_network(tmp_path: Path, dummy_network: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(dummy_network.read_bytes()[:-700])
    with pytest.raises(FormatError, match=r"cut\.onnx"):
        OnnxEngine(path)


def test_missing_network(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.onnx: cannot be read") as caught:
        OnnxEngine(tmp_path / "absent.onnx")
    assert "a network that dhm wrote" in caught.value.hint


def test_missing_packaged_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "EMBEDDED", ("gone",))
    with pytest.raises(InputError, match=r"gone\.onnx: cannot be read") as caught:
        OnnxEngine()
    assert caught.value.hint == "install dhm-cli again"


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ("", "not one written by dhm"),
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ({**GOOD, "format_version": 2}, "format version 2"),
        ({key: value for key, value in GOOD.items() if key != "mean_shape"}, "mean_shape"),
        ({**GOOD, "mean_shape": [[0.0, 0.0, 0.0]] * 67}, r"\(67, 3\)"),
        ({**GOOD, "input_size": 112}, "112"),
    ],
)
def test_foreign_metadata(tmp_path: Path, metadata: dict[str, Any] | str, reason: str) -> None:
    path = write_dummy_network(tmp_path / "foreign.onnx", metadata)
    with pytest.raises(FormatError, match=rf"foreign\.onnx: .*{reason}") as caught:
        OnnxEngine(path)
    assert "dhm export" in caught.value.hint


def test_foreign_graph(tmp_path: Path) -> None:
    path = write_dummy_network(tmp_path / "foreign.onnx", output="points")
    with pytest.raises(FormatError, match="expected an output landmarks") as caught:
        OnnxEngine(path)
    assert "dhm export" in caught.value.hint


def test_the_fixture_is_a_valid_network(dummy_network: Path) -> None:
    model = onnx.load(dummy_network)
    onnx.checker.check_model(model)
    assert json.loads(model.metadata_props[0].value) == GOOD


@pytest.fixture(scope="module")
def regresses_p(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("net") / "dhm.safetensors"
    save_checkpoint(path, make_model("dhm"), "dhm", {})
    return path


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join([case[0], *map(str, case[1].values())]))
def test_every_network_that_can_be_trained(case: tuple[str, dict[str, Any]], tmp_path: Path, face_model: Path) -> None:
    model = trained_a_little(make_model(case[0], **case[1]))
    for layer in model.modules():
        # Large weights in the layer that tells landmarks or p, so that the answer depends on the crop.
        if isinstance(layer, torch.nn.Linear) and layer.out_features in (204, 234):
            torch.nn.init.normal_(layer.weight, std=0.02)
    save_checkpoint(tmp_path / "net.safetensors", model, case[0], {})
    engine = load_engine("cpu", tmp_path / "net.safetensors", face_model=face_model)
    size = model.config.input_size
    assert (engine.arch, engine.input_size) == (case[0], size)
    np.testing.assert_array_equal(engine.mean_shape, model.mean_shape.numpy())
    crops = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = model(torch.tensor(crops.transpose(0, 3, 1, 2) / 127.5 - 1).float()).landmarks[:, -1].numpy()
    landmarks = engine(crops)
    assert landmarks.dtype == np.float32
    np.testing.assert_allclose(landmarks, expected, atol=1e-3, rtol=1e-5)
    assert np.ptp(landmarks, axis=0).max() > 0.1


def test_a_network_that_regresses_p_needs_its_face_model(regresses_p: Path, face_model: Path, tmp_path: Path) -> None:
    ours = toy_face_model().hash()
    with pytest.raises(InputError, match=rf"dhm\.safetensors: was trained with face model {ours}") as caught:
        load_engine("cpu", regresses_p)
    assert "--face-model" in caught.value.hint
    stretched = replace(toy_face_model(), mean=toy_face_model().mean * 1.1, name="stretched")
    stretched.save(tmp_path / "other.h5")
    with pytest.raises(InputError, match=rf"{ours}, but .*other\.h5 is {stretched.hash()} \(stretched\)"):
        load_engine("cpu", regresses_p, face_model=tmp_path / "other.h5")
    with pytest.raises(InputError, match=r"absent\.h5: no such face model"):
        load_engine("cpu", regresses_p, face_model=tmp_path / "absent.h5")
    (tmp_path / "odd.h5").write_text("no face model")
    with pytest.raises(FormatError, match=r"odd\.h5: not a readable face model"):
        load_engine("cpu", regresses_p, face_model=tmp_path / "odd.h5")
    assert load_engine("cpu", regresses_p, face_model=str(face_model)).arch == "dhm"


def test_a_network_that_needs_no_face_model_reads_none(
    dummy_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FaceModel, "load", lambda *_: pytest.fail("a face model was read"))
    model = make_model("dhm", target="landmarks")
    save_checkpoint(tmp_path / "net.safetensors", model, "dhm", {})
    for file in (tmp_path / "net.safetensors", dummy_network, None):
        load_engine("cpu", file, face_model=tmp_path / "absent.h5")


def test_load_engine_on_the_cpu(dummy_network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_nvidia_driver_present", lambda: False)
    monkeypatch.setitem(sys.modules, "torch", None)  # makes `import torch` fail
    for device in ("auto", "cpu"):
        assert isinstance(load_engine(device, dummy_network), OnnxEngine)


def test_auto_falls_back_where_torch_has_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_nvidia_driver_present", lambda: True)
    monkeypatch.setattr(engines, "cuda_problem", lambda: "torch is not installed")
    monkeypatch.setattr(engines, "OnnxEngine", lambda weights, threads: ("onnx", weights, threads))
    monkeypatch.setattr(engines, "TorchEngine", lambda weights, device, _: ("torch", weights, device))
    assert load_engine("auto", threads=3) == ("onnx", None, 3)
    assert load_engine("auto", "a.safetensors") == ("torch", "a.safetensors", "cpu")
    with pytest.raises(DhmError, match="torch is not installed") as caught:
        load_engine("cuda")
    assert "--device cpu" in caught.value.hint
    monkeypatch.setattr(engines, "cuda_problem", lambda: "")
    monkeypatch.setattr(engines, "BatchingEngine", lambda engine: ("together", *engine))
    assert load_engine("auto") == ("together", "torch", None, "cuda")
    assert load_engine("cuda", "a.safetensors") == ("together", "torch", "a.safetensors", "cuda")
    assert load_engine("auto", "a.onnx") == ("onnx", "a.onnx", None)
    assert load_engine("cpu") == ("onnx", None, None)


def test_load_engine_refuses(dummy_network: Path) -> None:
    with pytest.raises(InputError, match="unknown device 'tpu'"):
        load_engine("tpu")
    with pytest.raises(InputError, match="runs on the CPU"):
        load_engine("cuda", dummy_network)


def test_embedded_networks_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    default = load_engine("cpu")
    assert isinstance(default, OnnxEngine)
    hashes = {name: load_engine("cpu", name).weights_hash for name in weights.EMBEDDED}
    assert hashes[weights.EMBEDDED[0]] == default.weights_hash
    assert len(set(hashes.values())) == len(weights.EMBEDDED)
    for name in weights.EMBEDDED:
        assert load_engine("cpu", name).arch == TorchEngine(name, "cpu").arch == name


class GatedEngine:
    """Waits in its first call until it is told to go on; crops of value 13 are bad luck."""

    arch, input_size, mean_shape, weights_hash, doubts = "fast", 2, make_mean_shape(), "none", False

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.busy, self.go_on = threading.Event(), threading.Event()

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(crops))
        self.busy.set()
        assert self.go_on.wait(30)
        if (crops == 13).any():
            raise MemoryError
        return np.broadcast_to(crops[:, :1, :1, :1].astype(np.float32)[..., 0], (len(crops), 68, 3)).copy()

    def answer(self, crops: NDArray[np.uint8]) -> Answer:
        return Answer(self(crops))


def crops_of(value: int, count: int) -> NDArray[np.uint8]:
    return np.full((count, 2, 2, 3), value, np.uint8)


@pytest.mark.parametrize("bad", [False, True])
def test_crops_of_several_threads_go_together(bad: bool) -> None:
    """What waits while the network works is its next batch; each thread gets its own landmarks, or its own error."""
    inner = GatedEngine()
    engine = BatchingEngine(inner)
    requests = {5: 2, 6: 1, 7: 0, 13 if bad else 8: 3}
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(engine, crops_of(1, 1))
        assert inner.busy.wait(30)
        answers = {value: pool.submit(engine, crops_of(value, count)) for value, count in requests.items()}
        while len(engine._waiting) < len(requests):
            time.sleep(0.001)
        inner.go_on.set()
        assert first.result().shape == (1, 68, 3)
        for value, count in requests.items():
            if value == 13:
                with pytest.raises(MemoryError):
                    answers[value].result()
            else:
                assert answers[value].result().shape == (count, 68, 3)
                assert (answers[value].result() == value).all()
    assert inner.batches[:2] == [1, 6]
    assert len(inner.batches) == (2 if not bad else 6)


def test_an_interrupt_leaves_no_thread_waiting() -> None:
    class Interrupted(GatedEngine):
        def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
            super().__call__(crops)
            raise KeyboardInterrupt

    inner = Interrupted()
    inner.go_on.set()
    engine = BatchingEngine(inner)
    with pytest.raises(KeyboardInterrupt):
        engine(crops_of(1, 1))
    with pytest.raises(KeyboardInterrupt):  # and the next call finds it in order
        engine(crops_of(2, 3))
    assert inner.batches == [1, 3]
