"""How a setting is declared, with its default, its rule and one sentence, and how given values are checked against it.

All that is known of a setting stands in its line:

    batch: int = setting(64, integer(2, 1_000_000), "Faces per step, over all processes.")
"""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from typing import Any, NamedTuple

from dhm_cli.errors import InputError


class Rule(NamedTuple):
    """What a setting may be.

    Attributes:
        expected: that in words.
        convert: a value as a user gives it -> as the settings hold it; raises ValueError.
        choices: all values, where they are a few names.
    """

    expected: str
    convert: Callable[[Any], Any]
    choices: tuple[str, ...] = ()


Rules = Mapping[str, Rule]


def setting(default: Any, rule: Rule, sentence: str) -> Any:
    """A field of a frozen dataclass derived from `Settings`.

    Args:
        default: `dataclasses.MISSING` for none.
        rule: what values it may have.
        sentence: what it is; the help of its flag, where it has one.
    """
    return field(default=default, metadata={"rule": rule, "sentence": sentence})


@dataclass(frozen=True)
class Settings:
    """Base of the frozen dataclasses whose fields are declared with `setting`."""

    @classmethod
    def rules(cls) -> dict[str, Rule]:
        """The rule of every setting by name, in the order of their declaration."""
        return {declared.name: declared.metadata["rule"] for declared in fields(cls)}

    @classmethod
    def sentences(cls) -> dict[str, str]:
        """The sentence of every setting by name, in the order of their declaration."""
        return {declared.name: declared.metadata["sentence"] for declared in fields(cls)}

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON."""
        return asdict(self)


def checked(
    values: Mapping[str, Any],
    rules: Rules,
    place: str,
    label: Callable[[str], str] = str,
    arch: str = "",
    others: Mapping[str, Rules] | None = None,
) -> dict[str, Any]:
    """Check settings as a user gives them, and convert them to what the settings hold, such as lists to tuples.

    Args:
        values: the settings by name.
        rules: the rule of every known name.
        place: where they stand, for messages, as in "run.toml: "; may be empty.
        label: a name -> how the user writes it, as in "--batch".
        arch: the architecture that the rules are for, where they are for one.
        others: the rules of other architectures by name, to tell where an unknown setting belongs.

    Raises:
        InputError: an unknown name, or a value against its rule; the message says what would do.
    """
    result = {}
    for name, value in values.items():
        if name not in rules:
            if known := [other for other, theirs in (others or {}).items() if name in theirs]:
                hint = f"it is a setting of {', '.join(known)}"
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


def without_retired(
    values: Mapping[str, Any], retired: Mapping[str, float], place: str, label: Callable[[str], str] = str
) -> dict[str, Any]:
    """Drop settings of an older dhm that this one no longer has.

    Args:
        values: the settings by name.
        retired: names of retired settings -> the values at which they changed nothing.
        place: where they stand, for messages.
        label: a name -> how the user writes it.

    Raises:
        InputError: a retired setting has a value that changed something.
    """
    for name, nothing in retired.items():
        if name in values and (type(values[name]) not in (int, float) or values[name] != nothing):
            raise InputError(
                f"{place}{label(name)} is {values[name]!r}: this setting was removed; only {nothing:g}, which changed "
                "nothing, is still read",
                "leave it out; to train with it, use the version of dhm that wrote the file",
            )
    return {name: value for name, value in values.items() if name not in retired}


def integer(low: int, high: int, multiple: int = 1) -> Rule:
    """An integer from `low` to `high` that `multiple` divides."""

    def convert(value: Any) -> int:
        if type(value) is not int or not low <= value <= high or value % multiple:  # bool is a kind of int
            raise ValueError
        return value

    kind = "an integer" if multiple == 1 else f"a multiple of {multiple}"
    return Rule(f"{kind} from {low:,} to {high:,}", convert)


def number(low: float, high: float = math.inf, above: bool = False, below: bool = False) -> Rule:
    """A finite number from `low` to `high`, without `low` if `above`, without `high` if `below`."""

    def convert(value: Any) -> float:
        inside = type(value) in (int, float) and low <= value <= min(high, sys.float_info.max)
        if not inside or (above and value == low) or (below and value == high):
            raise ValueError
        return float(value)

    expected = f"a number {'above' if above else 'of at least'} {low:g}"
    return Rule(expected + (f" and {'below' if below else 'at most'} {high:g}" if high < math.inf else ""), convert)


def choice(*names: str, expected: str = "") -> Rule:
    """One of some names; `expected` replaces the list in messages."""

    def convert(value: Any) -> str:
        if not isinstance(value, str) or value not in names:
            raise ValueError
        return value

    return Rule(expected or "one of " + ", ".join(names), convert, names)


def several(expected: str, rule: Rule, low: int, high: int) -> Rule:
    """A list of `low` to `high` values, each of which follows `rule`."""

    def convert(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or not low <= len(value) <= high:
            raise ValueError
        return tuple(rule.convert(item) for item in value)

    return Rule(expected, convert)


def _truth(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError
    return value


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError
    return value


TRUTH = Rule("true or false", _truth)
TABLE = Rule("a table", _table)  # of further settings, as the tables of a TOML file
POSITIVE, NOT_NEGATIVE, PROBABILITY = number(0, above=True), number(0), number(0, 1)
