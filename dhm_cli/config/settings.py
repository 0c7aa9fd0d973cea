"""Which names and values the settings of a training run may have, wherever they come from."""

import math
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from dhm_cli.config.networks import ARCHS, DHM_PRESETS, FAST_PRESETS
from dhm_cli.errors import InputError

RECIPES = ("best", "paper")


class Rule(NamedTuple):
    """What a setting may be.

    Attributes:
        expected: that in words.
        convert: a value as a user gives it -> as the settings hold it; raises ValueError.
    """

    expected: str
    convert: Callable[[Any], Any]


Rules = Mapping[str, Rule]


def checked(
    values: Mapping[str, Any], rules: Rules, place: str, label: Callable[[str], str], arch: str = ""
) -> dict[str, Any]:
    """Settings as a user gives them -> as the settings hold them, such as tuples for lists.

    Args:
        values: the settings by name.
        rules: the rule of every known name.
        place: where they stand, for messages, as in "run.toml: "; may be empty.
        label: a name -> how the user writes it, as in "--batch".
        arch: the architecture that the rules are for, where they are for one.

    Raises:
        InputError: an unknown name, or a value against its rule; says what would do.
    """
    result = {}
    for name, value in values.items():
        if name not in rules:
            if arch and (others := [other for other in (*FAST_PRESETS, *DHM_PRESETS) if name in network_rules(other)]):
                hint = f"it is a setting of {', '.join(others)}"
            elif near := get_close_matches(name, rules, 1):
                hint = f"did you mean {label(near[0])}?"
            else:
                hint = f"known are: {', '.join(map(label, rules))}"
            raise InputError(f"{place}{label(name)}: no such setting{f' of {arch}' if arch else ''}", hint)
        try:
            result[name] = rules[name].convert(value)
        except ValueError:
            raise InputError(f"{place}{label(name)} is {value!r}: expected {rules[name].expected}") from None
    return result


def _integer(low: int, high: int, multiple: int = 1) -> Rule:
    def convert(value: Any) -> int:
        if type(value) is not int or not low <= value <= high or value % multiple:  # bool is a kind of int
            raise ValueError
        return value

    return Rule(
        ("an integer" if multiple == 1 else f"a multiple of {multiple}") + f" from {low:,} to {high:,}", convert
    )


def _number(low: float, high: float = math.inf, above: bool = False, below: bool = False) -> Rule:
    """A finite number from `low` to `high`, without `low` if `above`, without `high` if `below`."""

    def convert(value: Any) -> float:
        inside = type(value) in (int, float) and low <= value <= min(high, sys.float_info.max)
        if not inside or (above and value == low) or (below and value == high):
            raise ValueError
        return float(value)

    expected = f"a number {'above' if above else 'of at least'} {low:g}"
    return Rule(expected + (f" and {'below' if below else 'at most'} {high:g}" if high < math.inf else ""), convert)


def _choice(*names: str) -> Rule:
    def convert(value: Any) -> str:
        if not isinstance(value, str) or value not in names:
            raise ValueError
        return value

    return Rule("one of " + ", ".join(names), convert)


def _several(expected: str, rule: Rule, low: int, high: int) -> Rule:
    """A list of `low` to `high` values, each of which follows `rule`."""

    def convert(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or not low <= len(value) <= high:
            raise ValueError
        return tuple(rule.convert(item) for item in value)

    return Rule(expected, convert)


def _shares(value: Any) -> tuple[float, ...] | None:
    if isinstance(value, list | tuple) and not value:  # TOML has no word for None
        return None
    shares: tuple[float, ...] = _several("", _number(0), 3, 3).convert(value)
    if not any(shares):
        raise ValueError
    return shares


def _epochs(value: Any) -> tuple[int, ...]:
    epochs: tuple[int, ...] = _several("", _integer(1, 1_000_000), 0, 1000).convert(value)
    if list(epochs) != sorted(set(epochs)):
        raise ValueError
    return epochs


def _block(value: Any) -> tuple[int, ...]:
    block: tuple[int, ...] = _several("", _integer(1, 4096), 2, 3).convert(value)
    if block[1] > 2 or any(kernel % 2 == 0 or kernel > 15 for kernel in block[2:]):
        raise ValueError
    return block


def _file_name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    value.encode()  # a ValueError where the name has bytes that no TOML file can hold
    return value


def _truth(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError
    return value


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError
    return value


_TABLE = Rule("a table", _table)
_POSITIVE, _NOT_NEGATIVE, _PROBABILITY = _number(0, above=True), _number(0), _number(0, 1)
_STEPS = _integer(1, 1_000_000_000)

DATA = _several("a list of FILE or FILE=WEIGHT, names in UTF-8", Rule("", _file_name), 0, 1000)
FILE: Rules = {
    "arch": _choice(*ARCHS),
    "recipe": _choice(*RECIPES),
    "data": DATA,
    "network": _TABLE,
    "training": _TABLE,
}
TRAINING: Rules = {
    "steps": _STEPS,
    "epochs": _number(0, 1_000_000, above=True),
    "batch": _integer(2, 1_000_000),  # batch norm needs two
    "optimiser": _choice("muon", "adamw", "adam", "rmsprop"),
    "learning_rate": _POSITIVE,
    "schedule": _choice("cosine", "exponential", "milestones"),
    "decay": _number(0, 1, above=True),
    "decay_steps": _STEPS,
    "decay_epochs": Rule("a list of rising epochs, each an integer from 1", _epochs),
    "final_learning_rate": _NOT_NEGATIVE,
    "warmup": _integer(0, 1_000_000_000),
    "weight_decay": _NOT_NEGATIVE,
    "ema": _number(0, 1, below=True),
    "gradient_norm": _NOT_NEGATIVE,
    "loss": _choice("wing", "l1", "likelihood", "squared"),
    "step_weights": _choice("rising", "equal", "last"),
    "depth_weight": _NOT_NEGATIVE,
    "wing_width": _POSITIVE,
    "wing_curvature": _POSITIVE,
    "prior_weight": _NOT_NEGATIVE,
    "distillation_weight": _NOT_NEGATIVE,
    "yaw_shares": Rule("three numbers of at least 0, not all 0, or an empty list for no balancing", _shares),
    "validate_every": _STEPS,
    "validation_batch": _integer(1, 1_000_000),
    "precision": _choice("float32", "bf16"),
    "seed": _integer(0, 2**63 - 1),  # what TOML can hold
}
TRAINING_IN_FILE: Rules = {**TRAINING, "augmentation": _TABLE}
AUGMENTATION: Rules = {
    "rotation": _number(0, 180),
    "wide_rotation": _number(0, 180),
    "wide_rotation_share": _PROBABILITY,
    "scale": _number(0, 1),
    "shift": _number(0, 1),
    "wide_placement": _number(0, 100),
    "wide_placement_share": _PROBABILITY,
    "mirror": _PROBABILITY,
    "colour": _number(0, 10),
    "grey": _PROBABILITY,
    "low_resolution": _PROBABILITY,
    "blur": _PROBABILITY,
    "noise": _PROBABILITY,
    "jpeg": _PROBABILITY,
    "occlusion": _PROBABILITY,
}

_INPUT_SIZE, _RECURRENT_STEPS = _integer(32, 512, multiple=8), _integer(1, 32)
_CHANNELS = _integer(16, 4096, multiple=16)  # group norm takes 8 at a time, in an hourglass of half the channels
_FAST: Rules = {
    "input_size": _INPUT_SIZE,
    "stem_channels": _integer(1, 4096),
    "blocks": _several(
        "a list of [channels from 1 to 4096, stride 1 or 2] or [channels, stride, odd kernel up to 15]",
        *(Rule("", _block), 1, 100),
    ),
    "middle_activation": Rule("true or false", _truth),
    "feature_stride": _integer(1, 2),
    "recurrent_channels": _integer(4, 4096),
    "steps": _RECURRENT_STEPS,
    "head_rank": _integer(1, 4096),
    "heatmap": _choice("mean", "none"),
    "uncertainty": Rule("true or false", _truth),
    "cnn_width": _number(0.25, 8),
    "recurrent_width": _number(0.25, 8),
}
_DHM: Rules = {
    "input_size": _INPUT_SIZE,
    "target": _choice("params", "landmarks"),
    "features": _choice("plain", "vgg", "hourglass"),
    "heatmap": _choice("evolving", "initial", "points"),
    "recurrence": _choice("rnn", "lstm", "none"),
    "rotation": _choice("vector", "euler"),
    "steps": _RECURRENT_STEPS,
    "channels": _several(f"a list of 1 to 5 numbers, each {_CHANNELS.expected}", _CHANNELS, 1, 5),
    "hidden": _integer(1, 65_536),
    "hourglasses": _integer(1, 16),
}


def network_rules(arch: str) -> Rules:
    """Rules of an architecture's network; `target` can be given for all, but only some can regress p."""
    rules = _FAST if arch in FAST_PRESETS else _DHM
    if arch in FAST_PRESETS or DHM_PRESETS[arch].target == "landmarks":
        # Section III-C of "Fast DHM"; section 4.2 of Sun et al. 2018 for 2drnn.
        expected = f"landmarks, which is all that {arch} regresses in its paper"
        rules = {**rules, "target": Rule(expected, _choice("landmarks").convert)}
    return rules
