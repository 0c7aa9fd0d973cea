"""Learning rates by hand, optimisers of the recipes, and the moving average in closed form."""

import math

import pytest
import torch
from torch import nn

from dhm_cli.config.recipes import find_recipe
from dhm_cli.config.training import TrainConfig
from dhm_cli.training.optimisation import learning_rate_at, make_optimiser, moving_average


def rates(config: TrainConfig, steps: tuple[int, ...], total: int = 1100, epoch: int = 10) -> list[float]:
    return [learning_rate_at(step, config, total, epoch) for step in steps]


def test_cosine_by_hand() -> None:
    config = TrainConfig(warmup=100, learning_rate=0.004)
    # 1/100 of the peak at once, the peak at the end of the warm-up, half of it half way down the cosine
    expected = [0.00004, 0.002, 0.004, 0.004, 0.002, 0.0, 0.0]
    assert rates(config, (0, 49, 99, 100, 600, 1100, 5000)) == pytest.approx(expected, abs=1e-12)


def test_cosine_without_warm_up() -> None:
    assert rates(TrainConfig(warmup=0, learning_rate=0.1), (0,), total=10) == [0.1]


def test_the_warm_up_takes_at_most_a_tenth_of_the_run() -> None:
    """A trial of 20 steps would else stay at next to nothing."""
    config = TrainConfig(warmup=100, learning_rate=0.1)
    assert rates(config, (0, 1, 2, 11, 20), total=20) == pytest.approx([0.05, 0.1, 0.1, 0.05, 0.0])


def test_exponential_falls_in_stairs_to_its_floor() -> None:
    config = TrainConfig(
        warmup=0, learning_rate=1.0, schedule="exponential", decay=0.5, decay_steps=10, final_learning_rate=0.2
    )
    assert rates(config, (0, 9, 10, 19, 20, 29, 30, 10_000)) == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2]


def test_milestones_are_ends_of_epochs() -> None:
    config = TrainConfig(warmup=0, learning_rate=1.0, schedule="milestones", decay=0.1, decay_epochs=(2, 5))
    assert rates(config, (0, 19, 20, 49, 50, 99)) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert rates(config, (59, 60), epoch=30) == pytest.approx([1, 0.1])


def test_warm_up_precedes_every_schedule() -> None:
    for schedule in ("exponential", "milestones"):
        config = TrainConfig(
            warmup=4, learning_rate=1.0, schedule=schedule, decay=0.5, decay_steps=4, decay_epochs=(1,)
        )
        assert rates(config, (0, 1, 3)) == [0.25, 0.5, 1.0]


def test_rates_of_the_papers() -> None:
    """B, section IV-B: 0.95 every 2000 iterations from 1e-3 to 1e-4; 5e-3, and 1e-5 after epoch 60. A: at 5, 15, 30."""
    dhm, fast, rhg = (find_recipe(arch, "paper").training for arch in ("dhm", "fast", "rhg"))
    assert rates(dhm, (0, 1999, 2000, 4000)) == pytest.approx([1e-3, 1e-3, 0.95e-3, 0.9025e-3])
    assert rates(dhm, (10**6,)) == [1e-4]
    assert rates(fast, (0, 599, 600, 1199)) == pytest.approx([5e-3, 5e-3, 1e-5, 1e-5])
    assert rates(rhg, (49, 50, 149, 150, 299, 300)) == pytest.approx([1e-3, 1e-4, 1e-4, 1e-5, 1e-5, 1e-6])


@pytest.mark.parametrize(
    ("name", "kind", "decoupled"),
    [("adamw", torch.optim.AdamW, True), ("adam", torch.optim.Adam, False), ("rmsprop", torch.optim.RMSprop, False)],
)
def test_optimisers(name: str, kind: type[torch.optim.Optimizer], decoupled: bool) -> None:
    layer = nn.Linear(2, 1, bias=False)
    nn.init.constant_(layer.weight, 2.0)
    optimiser = make_optimiser(layer, TrainConfig(optimiser=name, learning_rate=0.1, weight_decay=0.5))
    assert type(optimiser) is kind
    layer.weight.grad = torch.zeros_like(layer.weight)
    optimiser.step()
    # Without a gradient: decoupled decay shrinks by rate times decay; an L2 term of any size is a step of unit size
    # (Adam) or 1 / sqrt(1 - 0.99) units (RMSprop).
    expected = 2.0 * (1 - 0.1 * 0.5) if decoupled else 2.0 - 0.1 * (10 if name == "rmsprop" else 1)
    assert layer.weight.tolist() == [pytest.approx([expected] * 2, rel=1e-5)]


class Counting(nn.Module):
    """One weight, one running mean and one counter, as a batch norm has them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("batches", torch.tensor(0))

    def set(self, value: float) -> None:
        with torch.no_grad():
            self.weight.fill_(value)
        self.mean.fill_(-value)
        self.batches.fill_(int(10 * value))


def averages(decay: float, values: list[float]) -> list[float]:
    model = Counting()
    average = moving_average(model, decay)
    result = []
    for value in values:
        model.set(value)
        average.update_parameters(model)
        result.append(average.module.weight.item())
        assert average.module.mean.item() == -result[-1]  # buffers are averaged too ...
        assert average.module.batches.item() == int(10 * value)  # ... but a count is a count
    return result


def test_average_by_hand() -> None:
    """The first update copies; update n decays by n / (n + 9): 1/10, 2/11, 3/12, until the decay given is less."""
    a = 1 * 0.1 + 2 * 0.9
    b = a * 2 / 11 + 4 * 9 / 11
    c = b * 3 / 12 + 8 * 9 / 12
    assert averages(0.999, [1.0, 2.0, 4.0, 8.0]) == pytest.approx([1.0, a, b, c], rel=1e-6)
    d = b * 0.2 + 8 * 0.8
    assert averages(0.2, [1.0, 2.0, 4.0, 8.0]) == pytest.approx([1.0, a, b, d], rel=1e-6)


def test_no_average_is_a_copy() -> None:
    values = [0.3, math.pi, -1e-7, 1e9]
    assert averages(0.0, values) == torch.tensor(values).tolist()


def test_a_long_average_has_the_decay_given() -> None:
    model = Counting()
    average = moving_average(model, 0.9)
    model.set(1.0)
    for _ in range(100):
        average.update_parameters(model)
    model.set(2.0)
    average.update_parameters(model)
    assert average.module.weight.item() == pytest.approx(1.1, rel=1e-5)


def test_the_average_is_a_network_of_its_own() -> None:
    model = Counting()
    average = moving_average(model, 0.5)
    model.set(1.0)
    assert average.module.weight.item() == 0.0
