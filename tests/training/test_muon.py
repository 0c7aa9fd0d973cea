"""Muon: orthogonal steps for weights that mix channels, AdamW for the rest, and a state that survives."""

import pytest
import torch
from torch import Tensor, nn

from dhm_cli.training.muon import Muon, mixing_weights, orthogonalised


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1), nn.Flatten(), nn.Linear(16, 2)
    )  # fmt: skip


def set_gradients(network: nn.Module, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    for p in network.parameters():
        p.grad = torch.randn(p.shape, generator=rng)


@pytest.mark.parametrize("shape", [(16, 8), (8, 16), (40, 40)])
def test_singular_values_come_to_about_one(shape: tuple[int, int]) -> None:
    """The quintic iteration of its authors leaves them between 0.68 and 1.14 and turns no singular vector."""
    left, _, right = torch.linalg.svd(torch.randn(shape, generator=torch.Generator().manual_seed(1)), False)
    values = torch.linspace(1.0, 0.05, min(shape))
    result = orthogonalised(left * values @ right)
    found = left.T @ result @ right.T
    assert ((found.diagonal() > 0.6) & (found.diagonal() < 1.2)).all()
    assert (found - found.diagonal().diag()).abs().max() < 1e-3


def test_weights_that_mix_channels() -> None:
    network = make_network()
    assert mixing_weights(network) == [network[2].weight]


def test_a_step_by_hand() -> None:
    network = make_network()
    before = network[2].weight.detach().clone()
    set_gradients(network, 1)
    gradient = network[2].weight.grad
    assert gradient is not None
    ahead = gradient * (1 - 0.95) + 0.95 * 0.05 * gradient  # the momentum starts from zero
    expected = before * (1 - 0.01 * 0.1) - 0.01 * 10 * 2**0.5 * orthogonalised(ahead.flatten(1)).view_as(before)
    Muon(network, lr=0.01, weight_decay=0.1).step()
    torch.testing.assert_close(network[2].weight.detach(), expected)


def test_the_rest_goes_by_adamw() -> None:
    ours, theirs = make_network(), make_network()
    optimisers = [Muon(ours, 0.01, 0.1), torch.optim.AdamW(theirs.parameters(), 0.01, weight_decay=0.1)]
    for seed in range(3):
        for network, optimiser in zip((ours, theirs), optimisers, strict=True):
            set_gradients(network, seed)
            optimiser.step()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6) == (name != "2.weight"), name


def test_a_loaded_state_goes_on_alike() -> None:
    def run(network: nn.Module, optimiser: Muon, seeds: range) -> list[Tensor]:
        for seed in seeds:
            set_gradients(network, seed)
            optimiser.step()
        return [p.detach().clone() for p in network.parameters()]

    whole = make_network()
    expected = run(whole, Muon(whole, 0.01, 0.1), range(4))
    first = make_network()
    optimiser = Muon(first, 0.01, 0.1)
    run(first, optimiser, range(2))
    second = make_network()
    second.load_state_dict(first.state_dict())
    again = Muon(second, 0.01, 0.1)
    again.load_state_dict(optimiser.state_dict())
    for a, b in zip(run(second, again, range(2, 4)), expected, strict=True):
        assert torch.equal(a, b)


def test_a_weight_without_a_gradient_stays() -> None:
    network = make_network()
    before = network[2].weight.detach().clone()
    Muon(network, 0.01, 0.1).step()
    assert torch.equal(network[2].weight, before)
