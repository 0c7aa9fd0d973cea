"""Lines of text for a terminal of 80 columns, or for a pipe."""

import re
import textwrap

import typer

WIDTH = 80
# What a reader may want to copy: a command, or an option with its value, and the options and paths behind it.
_OPTION = r"--?[A-Za-z][\w-]*(?: [^\s-]\S*)?"
_WHOLE = re.compile(rf"(?:\b(?:dhm [a-z]+|pip install)|(?<!\S){_OPTION})(?: (?:{_OPTION}|\S*[./=]\S*))*")
# Longer than a line and no path: lists without blanks in messages of libraries.
_ENDLESS = re.compile(rf"(?<!\S)[^\s/]{{{WIDTH},}}(?!\S)")
# Stands for a blank that must not become a line break; no text that was made printable holds it.
_GLUE = "\0"


def printable(text: str) -> str:
    """A text whose control characters, such as a file name may hold, show as escapes instead of acting on the terminal.

    Line breaks stay. Letters of any language stay; marks that turn the direction of writing do not.
    """
    return "".join(sign if sign.isprintable() or sign == "\n" else _escaped(sign) for sign in text)


def _escaped(sign: str) -> str:
    if 0xDC80 <= ord(sign) <= 0xDCFF:  # a byte of a file name that is no UTF-8
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return sign.encode("unicode_escape").decode("ascii")


def wrapped(text: str, indent: str = "", start: str = "") -> str:
    """A text broken between words at 80 columns; names, numbers and commands stay whole.

    Args:
        text: sentences; its own line breaks stay.
        indent: before every line but the first.
        start: before the first line; the first word stays beside it.
    """
    broken = _ENDLESS.sub(lambda found: found[0].replace(",", ", "), printable(text))
    glued = _WHOLE.sub(lambda found: found[0].replace(" ", _GLUE), broken)
    lines = [
        textwrap.fill(
            line,
            WIDTH,
            initial_indent=indent if number else start,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for number, line in enumerate(glued.split("\n"))
    ]
    return "\n".join(lines).replace(_GLUE, " ")


def say(text: str, indent: str = "", err: bool = False, start: str = "") -> None:
    """Print a text, `wrapped`.

    Args:
        text: sentences.
        indent: before every line but the first.
        err: to standard error.
        start: before the first line.
    """
    typer.echo(wrapped(text, indent, start), err=err)


def count(number: int, noun: str) -> str:
    """A number of things, as in "1,000 photos"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
