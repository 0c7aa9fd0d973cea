"""Choices that an option offers are those of the one list that knows them."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, get_args, get_type_hints

import pytest

from dhm_cli.cli.align import align
from dhm_cli.cli.evaluate import evaluate
from dhm_cli.data.store import SPLITS
from dhm_cli.evaluation.ground_truth import LABEL_SETS
from dhm_cli.evaluation.protocols import PROTOCOLS
from dhm_cli.geometry.pose import ANGLES
from dhm_cli.metrics.landmark_error import NORMALISERS


def choices(command: Callable[..., Any], option: str) -> list[str]:
    """The values of a Literal option, also where it may be None."""
    hint = get_type_hints(command)[option]
    return [value for part in (hint, *get_args(hint)) for value in get_args(part) if isinstance(value, str)]


@pytest.mark.parametrize(
    ("command", "option", "known"),
    [
        (align, "angles", ANGLES),
        (evaluate, "labels", LABEL_SETS),
        (evaluate, "split", (*SPLITS, "all")),
        (evaluate, "protocol", PROTOCOLS),
        (evaluate, "normaliser", tuple(NORMALISERS)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_choices_of_an_option(command: Callable[..., Any], option: str, known: Sequence[str]) -> None:
    assert option in inspect.signature(command).parameters
    assert tuple(choices(command, option)) == tuple(known)
