"""The flags of `dhm train` that are settings: what they say comes from the settings' declarations."""

from typing import Any

import pytest
import typer

from dhm_cli.cli.main import app
from dhm_cli.config.networks import DhmConfig, FastDhmConfig
from dhm_cli.config.recipes import ARCHS, RECIPES
from dhm_cli.config.run import RunSettings
from dhm_cli.config.training import TrainConfig

GROUP: Any = typer.main.get_command(app)
FLAGS = {parameter.name: parameter for parameter in GROUP.commands["train"].params}
SETTINGS = [
    *((RunSettings, name) for name in ("recipe",)),
    *((DhmConfig, name) for name in ("target", "input_size")),
    *((FastDhmConfig, name) for name in ("input_size", "cnn_width", "recurrent_width")),
    *((TrainConfig, name) for name in ("epochs", "steps", "batch", "learning_rate", "validate_every", "precision")),
    (TrainConfig, "seed"),
]


@pytest.mark.parametrize(("settings", "name"), SETTINGS)
def test_help_is_the_sentence_of_the_setting(settings: Any, name: str) -> None:
    assert FLAGS[name].help == settings.sentences()[name]
    choices = settings.rules()[name].choices
    assert FLAGS[name].metavar == (f"[{'|'.join(choices)}]" if choices else None)


@pytest.mark.parametrize(
    ("name", "start", "expected"),
    [
        ("arch", "", ARCHS),
        ("arch", "fast", ("fast", "fast-x2")),
        ("recipe", "", RECIPES),
        ("recipe", "pa", ("paper",)),
        ("target", "", ("params", "landmarks")),
        ("precision", "b", ("bf16",)),
    ],
)
def test_names_are_completed(name: str, start: str, expected: tuple[str, ...]) -> None:
    context = typer.Context(GROUP.commands["train"])
    assert tuple(item.value for item in FLAGS[name].shell_complete(context, start)) == expected


@pytest.mark.parametrize("command", GROUP.commands)
def test_no_list_of_values_is_too_broad_for_80_columns(command: str) -> None:
    """Help broke `aflw2000-3d` and `dhm-vgg|fast` within a name."""
    for parameter in GROUP.commands[command].params:
        assert len(parameter.metavar or "") <= 30, parameter.name


def test_architectures_are_in_the_help_of_their_flag() -> None:
    assert FLAGS["arch"].help.endswith(f"One of {', '.join(ARCHS)}.")
