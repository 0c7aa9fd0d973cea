"""`dhm docs`: the documentation, in the terminal."""

import os
import re
import sys
from typing import Annotated

import typer

from dhm_cli.cli.lines import say
from dhm_cli.cli.names import completed
from dhm_cli.docs.topics import TOPICS, page, summary

_WIDEST = 100


def docs(
    topic: Annotated[
        str | None,
        typer.Argument(
            metavar="[TOPIC]", help="What to read about.", autocompletion=completed("docs.topics", "TOPICS")
        ),
    ] = None,
) -> None:
    """Show the documentation: the list of its topics, or one of them.

    In a pipe or a file a topic is plain Markdown.
    """
    if topic is None:
        for name in TOPICS:
            say(summary(name), indent=" " * 14, start=f"{name:<14}")
    elif sys.stdout.isatty():
        _show(page(topic))
    else:
        typer.echo(page(topic), nl=False)


def _show(text: str) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    console.width = min(console.width, _WIDEST)
    os.environ.setdefault("LESS", "-R")  # the pager shows colours
    with console.pager(styles=True):
        console.print(Markdown(for_terminal(text)))


def for_terminal(text: str) -> str:
    """A page without what a terminal cannot show: a picture is left out, a link to a page becomes its command."""
    text = re.sub(r"^!\[[^]]*\]\([^)]*\)\n\n?", "", text, flags=re.M)
    text = re.sub(r"\[([^]]+)\]\((\w+)\.md\)", r"\1 (`dhm docs \2`)", text)
    return re.sub(r"\[([^]]+)\]\((?!https?:)[^)]*\)", r"\1", text)
