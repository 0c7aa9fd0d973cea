"""The list of architectures: the papers' recipes and ours."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from dhm_cli.config.networks import FastDhmConfig
from dhm_cli.config.recipes import ARCHITECTURES, ARCHS, RECIPES, find_recipe, network_rules
from dhm_cli.config.run import RunSettings
from dhm_cli.config.training import TrainConfig
from dhm_cli.errors import InputError
from dhm_cli.models.dhm import RECURRENCES
from dhm_cli.models.fast_dhm import FastDhm
from dhm_cli.models.features import FEATURES
from dhm_cli.models.registry import float32_bytes


@pytest.mark.parametrize(("name", "known"), [("features", FEATURES), ("recurrence", RECURRENCES)])
def test_choices_are_those_of_the_networks(name: str, known: tuple[str, ...]) -> None:
    for value in known:
        assert network_rules("dhm")[name].convert(value) == value
    assert network_rules("dhm")[name].expected.count(",") == len(known) - 1


def test_best_is_the_recipe_of_the_shipped_weights() -> None:
    c = find_recipe("fast", "best").training
    assert (c.steps, c.epochs, c.batch, c.optimiser, c.learning_rate) == (40_000, None, 64, "muon", 2e-3)
    assert (c.schedule, c.warmup, c.weight_decay, c.ema, c.gradient_norm) == ("cosine", 500, 0.01, 0.999, 5.0)
    assert (c.loss, c.step_weights, c.depth_weight, c.wing_width, c.wing_curvature) == (
        "wing",
        "rising",
        0.5,
        0.08,
        0.02,
    )
    assert (c.yaw_shares, c.precision, c.prior_weight) == ((0.4, 0.3, 0.3), "float32", 0.0)
    assert c == TrainConfig()
    dhm = find_recipe("dhm", "best").training
    assert (dhm.steps, dhm.epochs, dhm.batch, dhm.learning_rate, dhm.prior_weight) == (None, 60, 32, 5e-4, 1e-4)
    assert (dhm.warmup, dhm.optimiser, dhm.augmentation) == (500, "adamw", c.augmentation)


# Optimiser, initial rate, batch, validation batch, epochs: table "Training recipes the papers print".
@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("dhm", ("adam", 1e-3, 50, 128, 40)),
        ("dhm-vgg", ("adam", 1e-3, 50, 128, 40)),
        ("3dcnn", ("adam", 1e-3, 50, 128, 40)),
        ("2drnn", ("adam", 1e-3, 50, 128, 40)),
        ("rhg", ("rmsprop", 1e-3, 32, 16, 40)),
        ("fast", ("adam", 5e-3, 50, 128, 120)),
        ("fast-x2", ("adam", 5e-3, 50, 128, 120)),
    ],
)
def test_paper_is_what_the_papers_print(arch: str, expected: tuple[Any, ...]) -> None:
    c = find_recipe(arch, "paper").training
    assert (c.optimiser, c.learning_rate, c.batch, c.validation_batch, c.epochs) == expected
    assert c.steps is None
    assert (c.loss, c.step_weights, c.depth_weight, c.precision) == ("squared", "equal", 1.0, "float32")
    assert (c.ema, c.gradient_norm, c.warmup, c.weight_decay, c.prior_weight, c.yaw_shares) == (0, 0, 0, 0, 0, None)
    assert not any(vars(c.augmentation).values())


def test_paper_schedules() -> None:
    dhm, rhg, fast = (find_recipe(arch, "paper").training for arch in ("dhm", "rhg", "fast"))
    assert (dhm.schedule, dhm.decay, dhm.decay_steps, dhm.final_learning_rate) == ("exponential", 0.95, 2000, 1e-4)
    assert (rhg.schedule, rhg.decay, rhg.decay_epochs) == ("milestones", 0.1, (5, 15, 30))
    assert (fast.schedule, fast.decay_epochs) == ("milestones", (60,))
    assert fast.learning_rate * fast.decay == pytest.approx(1e-5)


def test_paper_networks() -> None:
    for arch in ("dhm", "dhm-vgg", "rhg", "3dcnn", "2drnn"):
        best, paper = (recipe.network for recipe in ARCHITECTURES[arch])
        assert paper == replace(best, rotation="euler")
    # 0.9 MB (976 KB) and 2.2 MB, Table I of "Fast DHM".
    for arch, limit in (("fast", 950_000), ("fast-x2", 2_200_000)):
        config = find_recipe(arch, "paper").network
        assert isinstance(config, FastDhmConfig)
        assert config.input_size == 224
        assert 0.9 * limit < float32_bytes(FastDhm(config, torch.zeros(68, 3))) <= limit


def test_unknown_names() -> None:
    with pytest.raises(InputError, match="unknown recipe") as caught:
        find_recipe("dhm", "")
    assert "best, paper" in caught.value.hint
    with pytest.raises(InputError, match="unknown architecture") as caught:
        find_recipe("", "best")
    assert "fast, fast-x2" in caught.value.hint


@pytest.mark.parametrize("arch", ARCHS)
def test_every_recipe_follows_its_rules(arch: str) -> None:
    """And both networks of an architecture have settings of one class, which tells what a checkpoint's are."""
    kinds = set()
    for name, recipe in zip(RECIPES, ARCHITECTURES[arch], strict=True):
        if recipe is not None:
            RunSettings(arch, name, *recipe)
            kinds.add(type(recipe.network))
    assert len(kinds) == 1


def test_an_architecture_of_no_paper_has_no_recipe_of_one() -> None:
    with pytest.raises(InputError, match="no paper has tiny"):
        find_recipe("tiny", "paper")
