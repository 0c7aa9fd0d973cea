"""Lists of photos: a path a line, from a file or standard input, or a column of a table."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from dhm_cli.errors import InputError
from dhm_cli.io.remote import is_url
from dhm_cli.io.rows import READERS, read_rows

# The name of standard input.
STDIN = Path("-")
COLUMN = "path"


def read_list(file: Path, column: str = COLUMN) -> Iterator[Path | str]:
    """The paths in a list; addresses (`io.remote`) are text.

    Args:
        file: a table by its ending (`io.rows.READERS`), any other file with one path a line, or `-` for standard input
            with one path a line, or with zero bytes between them as `find -print0` writes. A path is as seen from the
            working folder or, where there is nothing of that name, from the folder of the list.
        column: of the paths in a table.

    Raises:
        InputError: the list cannot be read, names no photo, or is a table without that column.
    """
    names = _column(file, column) if file.suffix.lower() in READERS else _lines(file)
    empty = True
    for name in names:
        empty = False
        if is_url(name):
            yield name
            continue
        nearby = file.parent / name
        yield nearby if file != STDIN and not os.path.lexists(name) and os.path.lexists(nearby) else Path(name)
    if empty:
        raise InputError(f"{_called(file)}: names no photo", "a path a line, or a table with paths in --path-column")


def _lines(file: Path) -> Iterator[str]:
    try:
        data = sys.stdin.buffer.read() if file == STDIN else file.read_bytes()
    except OSError as error:
        raise InputError(f"{_called(file)}: cannot be read: {error.strerror or error}", "check the name") from error
    data = data.removeprefix(b"\xef\xbb\xbf")
    pieces = data.split(b"\0") if b"\0" in data and file == STDIN else data.replace(b"\r\n", b"\n").split(b"\n")
    if b"\0" in data and file != STDIN:
        raise InputError(f"{file}: not a list of paths", f"a path a line, or a table: {', '.join(READERS)}")
    return (os.fsdecode(piece) for piece in pieces if piece)


def _column(file: Path, column: str) -> Iterator[str]:
    for where, cells in read_rows(file, (), (column,), "--from"):
        name = cells.get(column)
        if not isinstance(name, str) or not name or "\0" in name:
            found = f"column {column!r}: {name!r}" if column in cells else f"no column {column!r}"
            raise InputError(f"{where}: {found}, not a path", "name the column of the paths with --path-column")
        yield name


def _called(file: Path) -> str:
    return "standard input" if file == STDIN else str(file)
