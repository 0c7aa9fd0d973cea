"""Lines of text for a terminal of 80 columns, or for a pipe."""

import textwrap

import typer

WIDTH = 80


def printable(text: str) -> str:
    """A text whose control characters, such as a file name may hold, show as escapes instead of acting on the terminal.

    Line breaks stay. Letters of any language stay; marks that turn the direction of writing do not.
    """
    return "".join(sign if sign.isprintable() or sign == "\n" else _escaped(sign) for sign in text)


def _escaped(sign: str) -> str:
    if 0xDC80 <= ord(sign) <= 0xDCFF:  # a byte of a file name that is no UTF-8
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return sign.encode("unicode_escape").decode("ascii")


def wrapped(text: str, indent: str = "") -> str:
    """A text broken between words at 80 columns; names and numbers stay whole.

    Args:
        text: sentences; its own line breaks stay.
        indent: before every line but the first.
    """
    lines = printable(text).split("\n")
    return "\n".join(
        textwrap.fill(
            line, WIDTH, initial_indent="", subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
        for line in lines
    )


def say(text: str, indent: str = "", err: bool = False) -> None:
    """Print a text, `wrapped`.

    Args:
        text: sentences.
        indent: before every line but the first.
        err: to standard error.
    """
    typer.echo(wrapped(text, indent), err=err)
