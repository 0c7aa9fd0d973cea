"""Completion by the shell: names that an option knows, read from the list that the command itself reads."""

from collections.abc import Callable
from importlib import import_module


def completed(room: str, listed: str, *more: str, commas: bool = False) -> Callable[[str], list[str]]:
    """A completion that loads a list when a shell asks.

    Args:
        room: the module of the list, below `dhm_cli`; it must load no torch.
        listed: the list in it, or a mapping whose keys are the names.
        more: names that stand in no list.
        commas: whether the option takes several names with commas between them.
    """

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if commas else ("", "", incomplete)
        names = (*getattr(import_module(f"dhm_cli.{room}"), listed), *more)
        return [f"{before}{comma}{name}" for name in names if name.startswith(last)]

    return complete


networks = completed("inference.weights", "EMBEDDED")
