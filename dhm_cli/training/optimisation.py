"""Optimisers and learning rates of the recipes."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dhm_cli.config.training import TrainConfig
from dhm_cli.training.muon import Muon


def make_optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser of a recipe: Muon, or AdamW, Adam or RMSprop with torch's default hyperparameters."""
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimiser == "muon":
        return Muon(model, rate, decay)
    if config.optimiser == "rmsprop":
        return torch.optim.RMSprop(model.parameters(), lr=rate, weight_decay=decay)
    kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam
    return kind(model.parameters(), lr=rate, weight_decay=decay, fused=True)


def learning_rate_at(step: int, config: TrainConfig, total: int, steps_per_epoch: int) -> float:
    """Learning rate of a step: a linear warm-up over at most a tenth of the run, then the schedule of the recipe.

    Args:
        step: steps done before.
        config: rate and schedule.
        total: steps of the whole run.
        steps_per_epoch: for schedules that count epochs.
    """
    rate, warmup = config.learning_rate, min(config.warmup, total // 10)
    if step < warmup:
        return rate * (step + 1) / warmup
    if config.schedule == "exponential":
        return max(config.final_learning_rate, rate * config.decay ** (step // config.decay_steps))
    if config.schedule == "milestones":
        return rate * config.decay ** sum(step >= epoch * steps_per_epoch for epoch in config.decay_epochs)
    done = (step - warmup) / max(1, total - warmup)
    return rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of a network's weights and buffers.

    Args:
        model: the network in training.
        decay: of the average, in [0, 1); 0 gives a copy. Update n decays by n / (n + 9) where that is less, or the
            random weights of the start would weigh on a short run.
    """

    @torch.no_grad()
    def update(average: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        if not average[0].is_floating_point():
            torch._foreach_copy_(average, current)  # counters of batch norms
            return
        done = int(count)
        torch._foreach_lerp_(average, current, 1 - min(decay, done / (done + 9)))

    kind: Callable[..., None] = update
    return AveragedModel(model, multi_avg_fn=kind, use_buffers=True)
