"""Muon (Jordan et al. 2024): an update of a matrix has nearly equal singular values, so rare directions learn too."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# Coefficients of the quintic iteration and their number, as its authors give them: singular values come to about 1.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_MOMENTUM = 0.95
# Rate of the matrices over the rate of the rest: 0.02 at AdamW's 0.002.
_RATE = 10.0


def orthogonalised(matrix: Tensor) -> Tensor:
    """Nearly U V^T of a matrix U S V^T, (M, N) float, by Newton-Schulz iterations."""
    a, b, c = _COEFFICIENTS
    x = matrix / (matrix.norm() + 1e-7)
    tall = len(x) > len(x.T)
    x = x.T if tall else x
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


def mixing_weights(model: nn.Module) -> list[Tensor]:
    """Weights of the convolutions that are not depthwise, without the first one, whose input is the image."""
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups == 1]
    return [m.weight for m in convolutions if m.in_channels > 6]


class Muon(torch.optim.AdamW):
    """Muon for the weights that mix channels, AdamW for all others.

    Args:
        model: the network.
        lr: rate of AdamW; that of the matrices is ten times it.
        weight_decay: decoupled, of both.
    """

    def __init__(self, model: nn.Module, lr: float, weight_decay: float) -> None:
        super().__init__(model.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
        self._matrices = mixing_weights(model)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step; the gradients of the matrices are used up."""
        rate, decay = (self.param_groups[0][name] for name in ("lr", "weight_decay"))
        for weight in self._matrices:
            gradient = weight.grad
            if gradient is None:
                continue
            state = self.state[weight]
            if not state:
                state["step"], state["momentum"] = torch.zeros(()), torch.zeros_like(weight)
            state["step"] += 1
            state["momentum"].lerp_(gradient, 1 - _MOMENTUM)
            ahead = gradient.lerp(state["momentum"], _MOMENTUM)  # Nesterov's
            update = orthogonalised(ahead.flatten(1)).view_as(weight)
            stretch = max(1.0, len(weight) / weight[0].numel()) ** 0.5
            weight.mul_(1 - rate * decay).add_(update, alpha=-rate * _RATE * stretch)
            weight.grad = None  # AdamW passes over it
        return super().step(closure)
