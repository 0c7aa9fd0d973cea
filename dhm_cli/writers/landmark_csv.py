"""The table that `dhm align` writes: CSV with one row per face.

The header alone says of which order the angles of the head pose are, so no table mixes the two.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from dhm_cli.inference.columns import Cell, Group, Layout, Record
from dhm_cli.writers.row_files import OtherColumns, ReadRow

# A header of ours, and one that a crash cut off.
_OURS = re.compile(rb"path,(\w+,)*?face,status(,|\r?\n)")
_CUT_OFF = re.compile(rb"p?a?t?h?|path(,\w*)*")


class Csv:
    """CSV rows, an `Encoding`: numbers with their decimals, empty what is not known."""

    def start(self, layout: Layout) -> bytes:
        """The header."""
        return _lines([layout.header])

    def encode(self, layout: Layout, records: Sequence[Record]) -> bytes:
        """Rows of one photo."""
        return _lines([_row(layout, record) for record in records])

    def read(self, layout: Layout, file: IO[bytes]) -> Iterator[ReadRow]:
        """The rows of a file, up to any damage."""
        at = 0

        def lines() -> Iterator[str]:
            nonlocal at
            for line in file:
                at += len(line)
                yield line.decode("utf-8", "surrogateescape")

        head, keys = layout.header, layout.keys
        reader = csv.reader(lines())
        try:
            if next(reader, []) != head:
                if next(reader, None) is not None:  # else a crash cut off the header
                    raise OtherColumns
                return
            for row in reader:
                if len(row) != len(head):
                    return
                identity = tuple(key.kind(text) if text else None for key, text in zip(keys, row, strict=False))
                yield ReadRow(identity, row[len(keys) + 1], at)
        except (csv.Error, ValueError):
            return

    def is_ours(self, path: Path) -> bool:
        """Whether a file is a table of `dhm align`, finished or not, or holds nothing."""
        try:
            with path.open("rb") as file:
                start = file.read(200)
        except OSError:
            return False
        return bool(_OURS.match(start) or _CUT_OFF.fullmatch(start))


def _row(layout: Layout, record: Record) -> list[str]:
    row = [_text(record[key.name], key.decimals) for key in layout.keys]
    row += [_text(record["face"], 0), record["status"]]
    for group in layout.groups:
        row += _texts(group, record)
    return row


def _texts(group: Group, record: Record) -> list[str]:
    values = group.flat(record)
    if group.kind is float and None not in values:  # all at once, in half the time
        return (f"%.{group.decimals}f " * len(values) % tuple(values)).split()
    return [_text(value, group.decimals) for value in values]


def _text(value: Cell, decimals: int) -> str:
    return f"{value:.{decimals}f}" if isinstance(value, float) else "" if value is None else str(value)


def _lines(rows: list[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    plain, quoted = (csv.writer(text, lineterminator="\n", quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    for row in rows:
        # Readers take a lone carriage return, as in macOS's "Icon\r", for the end of a line unless it is quoted.
        (quoted if "\r" in row[0] else plain).writerow(row)
    # File names that are not valid UTF-8 keep their bytes.
    return text.getvalue().encode("utf-8", "surrogateescape")
