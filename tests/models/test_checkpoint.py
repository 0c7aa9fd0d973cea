"""Checkpoints: equal values, and a file that is not right says what is wrong."""

import json
import pickle
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dhm_cli.config.networks import DhmConfig
from dhm_cli.errors import FormatError, InputError
from dhm_cli.models.checkpoint import load_checkpoint, read_tensors, save_checkpoint, write_tensors
from dhm_cli.models.registry import build_model
from dhm_cli.morphable.face_model import FaceModel


def make_shape() -> Tensor:
    return torch.rand(68, 3, generator=torch.Generator().manual_seed(0)) - 0.5


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an untrained `fast` network."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("checkpoint") / "good.safetensors"
    save_checkpoint(path, build_model("fast", make_shape()), "fast", {"data": ["aflw.h5"], "step": 7})
    return path


def header(path: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file, read without the library."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length])


def rewrite(source: Path, target: Path, tensors: dict[str, Tensor] | None = None, **metadata: Any) -> Path:
    """A copy with other tensors or other metadata."""
    kept = json.loads(header(source)["__metadata__"]["dhm"])
    save_file(load_file(source) if tensors is None else tensors, target, {"dhm": json.dumps({**kept, **metadata})})
    return target


def test_the_record_is_plain_json(good: Path) -> None:
    metadata = json.loads(header(good)["__metadata__"]["dhm"])
    assert metadata["format_version"] == 1
    assert metadata["arch"] == "fast"
    assert metadata["training"] == {"data": ["aflw.h5"], "step": 7}
    assert metadata["config"]["input_size"] == 120
    assert not any(name.endswith("num_batches_tracked") for name in header(good))
    assert load_checkpoint(good)[1] == metadata


def test_equal_weights_are_equal_files(good: Path, tmp_path: Path) -> None:
    model, metadata = load_checkpoint(good)
    save_checkpoint(tmp_path / "again.safetensors", model, "fast", metadata["training"])
    assert (tmp_path / "again.safetensors").read_bytes() == good.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["again.safetensors"]


def test_float16_storage_loads_as_float32(good: Path, tmp_path: Path) -> None:
    model, _ = load_checkpoint(good)
    path = tmp_path / "half.safetensors"
    save_checkpoint(path, model, "fast", {}, dtype=torch.float16)
    stored = load_file(path)
    assert stored["mean_shape"].dtype == torch.float32
    assert {t.dtype for n, t in stored.items() if n != "mean_shape"} == {torch.float16}
    assert path.stat().st_size < 0.55 * good.stat().st_size
    again, _ = load_checkpoint(path)
    for name, tensor in again.state_dict().items():
        if tensor.is_floating_point():
            assert tensor.dtype == torch.float32
            torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-3, atol=1e-6)
    assert torch.equal(again.mean_shape, model.mean_shape)
    # The heat map is drawn from the loaded mean shape, not from a blank one.
    assert torch.equal(again.heatmap, model.heatmap)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.5, 0.999])
def test_truncated_files(good: Path, tmp_path: Path, share: float) -> None:
    content = good.read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(FormatError, match=r"cut\.safetensors: not a readable safetensors file"):
        load_checkpoint(path)


class Bomb:
    """Fails the test when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a checkpoint was unpickled",)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "bomb.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(FormatError):
        load_checkpoint(path)
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(FormatError):
        load_checkpoint(path)


def test_foreign_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(FormatError, match="expected a dhm file of format version 1, found None"):
        load_checkpoint(path)
    save_file({"weight": torch.zeros(3)}, path, {"dhm": "not JSON"})
    with pytest.raises(FormatError, match="not a readable"):
        load_checkpoint(path)


def test_another_version(good: Path, tmp_path: Path) -> None:
    path = rewrite(good, tmp_path / "new.safetensors", format_version=2)
    with pytest.raises(FormatError, match="version 1, found 2"):
        load_checkpoint(path)


def test_another_kind_of_file(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    write_tensors(path, {"model.weight": torch.zeros(2)}, {"state_of": "fast"})
    assert read_tensors(path)[1]["state_of"] == "fast"
    with pytest.raises(FormatError, match="another kind of dhm file"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["stem.weight", "head.2.bias", "stem_norm.running_var"])
def test_a_missing_tensor_is_named(good: Path, tmp_path: Path, name: str) -> None:
    tensors = load_file(good)
    del tensors[name]
    with pytest.raises(FormatError, match=rf"do not fit the network: {name}"):
        load_checkpoint(rewrite(good, tmp_path / "partial.safetensors", tensors))


def test_a_surplus_tensor_is_named(good: Path, tmp_path: Path) -> None:
    tensors = {**load_file(good), "extra.weight": torch.zeros(1)}
    with pytest.raises(FormatError, match=r"extra\.weight"):
        load_checkpoint(rewrite(good, tmp_path / "more.safetensors", tensors))


def test_a_tensor_of_another_shape_is_named(good: Path, tmp_path: Path) -> None:
    tensors = {**load_file(good), "head.2.bias": torch.zeros(203)}
    with pytest.raises(FormatError, match=r"head\.2\.bias"):
        load_checkpoint(rewrite(good, tmp_path / "shape.safetensors", tensors))


def test_a_mean_shape_of_another_scheme_is_refused(good: Path, tmp_path: Path) -> None:
    tensors = {**load_file(good), "mean_shape": torch.zeros(51, 3)}
    with pytest.raises(FormatError, match="mean_shape"):
        load_checkpoint(rewrite(good, tmp_path / "shape.safetensors", tensors))


def test_settings_of_another_network(good: Path, tmp_path: Path) -> None:
    config = build_model("fast-x2", make_shape()).config.to_json()
    path = rewrite(good, tmp_path / "wide.safetensors", arch="fast-x2", config=config)
    with pytest.raises(FormatError, match=r"do not fit the network: closer_look"):
        load_checkpoint(path)


def test_an_unknown_architecture_lists_the_known_ones(good: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"net\.safetensors: unknown architecture 'alexnet'") as caught:
        load_checkpoint(rewrite(good, tmp_path / "net.safetensors", arch="alexnet"))
    assert "fast-x2" in caught.value.hint


def changed_config(source: Path, target: Path, change: dict[str, Any]) -> Path:
    """A copy with other settings of the network; None for none."""
    config = {**json.loads(header(source)["__metadata__"]["dhm"])["config"], **change}
    return rewrite(source, target, config={name: value for name, value in config.items() if value is not None})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depth": 3}, "depth: no such setting"),
        ({"blocks": None}, "blocks is missing"),
        ({"blocks": 7}, "blocks is 7: expected a list of"),
        ({"blocks": [[1, 2, 3, 4]]}, "blocks is [[1, 2, 3, 4]]: expected a list of [channels from 1 to 4096, stride"),
        ({"blocks": [[1]]}, "blocks is [[1]]: expected a list of"),
        ({"blocks": [["x", 1]]}, "blocks is [['x', 1]]: expected a list of"),
        ({"steps": 10**7}, "steps is 10000000: expected an integer from 1 to 32"),  # would run for hours
        ({"head_rank": 10**9}, "head_rank is 1000000000: expected an integer from 1 to 4,096"),  # would fill the memory
        ({"input_size": 121}, "input_size is 121: expected a multiple of 8 from 32 to 512"),
        ({"heatmap": "predicted"}, "heatmap is 'predicted': expected one of mean, none"),
        ({"uncertainty": 1}, "uncertainty is 1: expected true or false"),
    ],
)
def test_settings_that_no_network_has(good: Path, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = changed_config(good, tmp_path / "net.safetensors", change)
    with pytest.raises(FormatError) as caught:
        load_checkpoint(path)
    assert caught.value.message.startswith(f"{path}: not the settings of a network of fast: {words}")
    assert caught.value.hint


def test_settings_that_contradict_each_other(regressor: Path, tmp_path: Path) -> None:
    path = changed_config(regressor, tmp_path / "net.safetensors", {"channels": [16]})
    with pytest.raises(FormatError, match=r"net\.safetensors: .* network.channels \[16\]: features plain take 2"):
        load_checkpoint(path)


@pytest.mark.parametrize("config", [None, [], "fast"])
def test_settings_that_are_no_table(good: Path, tmp_path: Path, config: Any) -> None:
    path = rewrite(good, tmp_path / "net.safetensors", config=config)
    with pytest.raises(FormatError, match=r"net\.safetensors: not the settings of a network of fast"):
        load_checkpoint(path)


def test_missing_settings(good: Path, tmp_path: Path) -> None:
    metadata = json.loads(header(good)["__metadata__"]["dhm"])
    del metadata["config"]
    path = tmp_path / "net.safetensors"
    save_file(load_file(good), path, {"dhm": json.dumps(metadata)})
    with pytest.raises(FormatError, match="another kind of dhm file"):
        load_checkpoint(path)


def test_a_failed_write_keeps_the_older_file(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(good.read_bytes())
    with pytest.raises(TypeError):
        write_tensors(path, {"a": torch.zeros(2)}, {"record": object()})
    assert path.read_bytes() == good.read_bytes()


@pytest.fixture
def regressor(tmp_path: Path, toy_model: FaceModel) -> Path:
    """A checkpoint of a network that regresses p of the toy model."""
    torch.manual_seed(3)
    network = build_model("dhm", make_shape(), DhmConfig(input_size=32, channels=(16, 16), hidden=16), toy_model)
    save_checkpoint(tmp_path / "dhm.safetensors", network, "dhm", {})
    return tmp_path / "dhm.safetensors"


def test_a_network_of_parameters_names_its_face_model_and_does_not_hold_it(
    regressor: Path, toy_model: FaceModel, tmp_path: Path
) -> None:
    toy_model.save(tmp_path / "face_model.h5")
    model, metadata = load_checkpoint(regressor, tmp_path / "face_model.h5")
    assert metadata["face_model"] == toy_model.hash()
    assert model.config == DhmConfig(input_size=32, channels=(16, 16), hidden=16)
    assert not any("state" in name for name in load_file(regressor))  # its licence forbids to share it
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.manual_seed(3)
    original = build_model("dhm", make_shape(), model.config, toy_model).eval()
    assert torch.equal(model(images).landmarks, original(images).landmarks)


def test_a_network_of_parameters_needs_its_face_model(regressor: Path, toy_model: FaceModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"trained with face model {toy_model.hash()}, which it needs") as caught:
        load_checkpoint(regressor)
    assert "--face-model" in caught.value.hint
    other = replace(toy_model, mean=toy_model.mean * 2)
    other.save(tmp_path / "other.h5")
    with pytest.raises(InputError, match=rf"face model {toy_model.hash()}, but .*other\.h5 is {other.hash()}"):
        load_checkpoint(regressor, tmp_path / "other.h5")
    with pytest.raises(InputError, match=r"absent\.h5: no such face model"):
        load_checkpoint(regressor, tmp_path / "absent.h5")
