"""Progress bars of commands, and what is said when they are interrupted."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from dhm_cli.cli.lines import say

if TYPE_CHECKING:
    from tqdm import tqdm

    from dhm_cli.runtime.progress import Progress


def shown_on(bar: "tqdm[NoReturn]") -> "Progress":
    """A `Progress` that shows the stages one after another on the same bar."""
    shown = ("", -1)

    def show(stage: str, done: int, total: int) -> None:
        nonlocal shown
        if shown != (stage, total):
            bar.reset(total)
            bar.set_description(stage)
            shown = (stage, total)
        bar.update(done - bar.n)

    return show


def counted_on(bar: "tqdm[NoReturn]") -> Callable[[int, int], None]:
    """A function of (done, in all or 0) that shows them on a bar, which begins with what was done before."""

    def show(done: int, total: int) -> None:
        if bar.n == 0:
            bar.total, bar.initial, bar.n = total or None, done, done
        bar.update(done - bar.n)

    return show


def interrupted(bar: "tqdm[NoReturn]", out: Sequence[str], things: str, rest: str = "") -> typer.Exit:
    """End a bar, and say where what was done so far is.

    Args:
        bar: of the run.
        out: the outputs of the run.
        things: what was done, as in "photos".
        rest: a further line of the hint.

    Returns:
        What the command then raises.
    """
    from dhm_cli.inference.results import partial_path
    from dhm_cli.runtime.interruption import INTERRUPTED
    from dhm_cli.runtime.outputs import is_stream

    bar.close()
    typer.echo("interrupted", err=True)
    partials = [partial_path(Path(os.path.realpath(name))) for name in out if not is_stream(Path(name))]
    if any(partial.exists() for partial in partials):
        kept = " and ".join(map(str, partials))
        say(f"hint: the {things} done so far are in {kept}; --resume goes on", "  ", err=True)
        if rest:
            say(rest, "  ", err=True)
    return typer.Exit(INTERRUPTED)
