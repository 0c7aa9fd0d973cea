"""The state of a run: what is saved comes back, in every optimiser, whatever the memory format."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from dhm_cli.config.training import TrainConfig
from dhm_cli.errors import FormatError, InputError
from dhm_cli.models.checkpoint import write_tensors
from dhm_cli.training.optimisation import make_optimiser, moving_average
from dhm_cli.training.resume import read_state, restore, save_state


def make_network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)).to(
        memory_format=torch.channels_last
    )


def batches() -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    while True:
        yield torch.randn(2, 3, 4, 4, generator=generator)


def step(model: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, images: torch.Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    model(images).square().sum().backward()
    optimiser.step()
    average.update_parameters(model)


@pytest.mark.parametrize("name", ["adamw", "adam", "rmsprop"])
def test_going_on_from_a_file_is_going_on(tmp_path: Path, name: str) -> None:
    config = TrainConfig(optimiser=name, learning_rate=0.05, weight_decay=0.1)
    model = make_network(0)
    average, optimiser = moving_average(model, 0.9), make_optimiser(model, config)
    images = batches()
    for _ in range(3):
        step(model, average, optimiser, next(images))
    save_state(tmp_path / "state", {"model": model, "average": average}, optimiser, {"step": 3, "best": None})

    tensors, record = read_state(tmp_path / "state")
    assert record == {"step": 3, "best": None}
    other = make_network(1)
    others = (other, moving_average(other, 0.9), make_optimiser(other, config))
    restore(tensors, {"model": others[0], "average": others[1]}, others[2])
    for parameter, moments in others[2].state.items():
        assert all(v.stride() == parameter.stride() for v in moments.values() if v.shape == parameter.shape)
    for _ in range(3):
        one = next(images)
        step(model, average, optimiser, one)
        step(*others, one)
    for a, b in ((model, others[0]), (average, others[1])):
        for key, value in a.state_dict().items():
            assert torch.equal(value, b.state_dict()[key]), key
    assert average.state_dict()["n_averaged"] == 6


def test_the_rate_is_not_restored(tmp_path: Path) -> None:
    """The schedule sets it at every step; a resumed run may have another one."""
    model = make_network(0)
    optimiser = make_optimiser(model, TrainConfig(learning_rate=0.5))
    step(model, moving_average(model, 0.0), optimiser, next(batches()))
    save_state(tmp_path / "state", {"model": model}, optimiser, {})
    again = make_optimiser(model, TrainConfig(learning_rate=0.25))
    restore(read_state(tmp_path / "state")[0], {"model": model}, again)
    assert again.param_groups[0]["lr"] == 0.25
    assert len(again.state) == len(list(model.parameters()))


def test_a_state_of_another_network_is_not_half_loaded(tmp_path: Path) -> None:
    model = make_network(0)
    optimiser = make_optimiser(model, TrainConfig())
    save_state(tmp_path / "state", {"model": nn.Linear(2, 2)}, optimiser, {})
    with pytest.raises(RuntimeError, match="Missing key"):
        restore(read_state(tmp_path / "state")[0], {"model": model}, optimiser)


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    model = make_network(0)
    path = tmp_path / "state.safetensors"
    save_state(path, {"model": model}, make_optimiser(model, TrainConfig()), {"step": 1})
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FormatError, match=r"state\.safetensors: not a readable") as raised:
        read_state(path)
    assert "--init" in raised.value.hint
    write_tensors(path, {}, {})
    with pytest.raises(FormatError, match=r"state\.safetensors: not the state of a training"):
        read_state(path)
    with pytest.raises(InputError, match="no such"):
        read_state(tmp_path / "missing")
