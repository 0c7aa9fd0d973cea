"""How long work tells what of it is done."""

from collections.abc import Callable

# Called with the name of a stage, what of it is done, and its total.
Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""
