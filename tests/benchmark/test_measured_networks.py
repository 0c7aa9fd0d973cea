"""Networks are found by their names."""

import hashlib
from pathlib import Path

import pytest
import torch
from example_networks import small_checkpoint, small_recipe

from dhm_cli.benchmark import measured_networks
from dhm_cli.benchmark.baselines import BASELINES
from dhm_cli.benchmark.measured_networks import MeasuredNetwork, find_networks
from dhm_cli.config.recipes import ARCHS
from dhm_cli.errors import FormatError, InputError


def network_of(path: Path) -> MeasuredNetwork:
    return find_networks([str(path)])[0]


def test_default_networks_and_baselines() -> None:
    networks = find_networks(["fast", "3dcnn", "fast"])
    assert [network.name for network in networks] == ["fast", "3dcnn", *BASELINES]
    assert [network.kind for network in networks] == ["packaged", "random", "baseline", "baseline"]
    weights = Path(str(networks[0].onnx_file)).read_bytes()
    assert hashlib.sha256(weights).hexdigest()[:16] in networks[0].hashes
    assert "toy face model" in networks[1].note
    assert networks[0].inputs(3).shape == (3, 120, 120, 3)
    assert networks[2].inputs(3).shape == (3, 3, 120, 120)


def test_all_is_every_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def find(name: str, _: Path | None) -> MeasuredNetwork:
        made.append(name)
        return MeasuredNetwork(name, "random", 8)

    monkeypatch.setattr("dhm_cli.benchmark.measured_networks._find", find)
    find_networks(["fast", "all"])
    assert sorted(made) == sorted(ARCHS)


def test_random_weights_are_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured_networks, "find_recipe", small_recipe)
    first, second = (find_networks(["2drnn"])[0].model for _ in range(2))
    assert first is not None
    assert second is not None
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_weights_for_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured_networks, "find_recipe", small_recipe)
    packaged, checkpoint, random = find_networks(["fast", str(small_checkpoint(tmp_path / "a.safetensors")), "rhg"])[:3]
    assert (packaged.weights("cpu"), packaged.weights("cuda")) == (packaged.onnx_file, packaged.file)
    assert [str(packaged.weights(device)).rpartition(".")[2] for device in ("cpu", "cuda")] == ["onnx", "safetensors"]
    assert checkpoint.weights("cpu") == checkpoint.weights("cuda") == tmp_path / "a.safetensors"
    assert random.weights("cpu") is None


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [small_checkpoint(tmp_path / run / "best.safetensors") for run in ("a", "b")]
    assert [s.name for s in find_networks([str(p) for p in paths])[:2]] == [str(p) for p in paths]
    assert network_of(paths[0]).name == "best"


@pytest.mark.parametrize(
    ("name", "message"),
    [("fats", "unknown network 'fats'"), ("no.onnx", "no.onnx: no such file"), ("no.safetensors", "no such file")],
)
def test_what_is_not_there(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        find_networks(["fast", name])
    assert "fast" in caught.value.hint


def test_foreign_files(tmp_path: Path) -> None:
    for name in ("foreign.onnx", "foreign.safetensors"):
        (tmp_path / name).write_bytes(b"something else")
        with pytest.raises(FormatError, match=name):
            find_networks([str(tmp_path / name)])
