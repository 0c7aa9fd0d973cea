"""JSON lines: one face a line, an object of the fields of `columns.Layout`."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from dhm_cli.inference.columns import Layout, Record
from dhm_cli.writers.row_files import OtherColumns, ReadRow

_BEGINNING = b'{"path": '


class JsonLines:
    """JSON lines, an `Encoding`: null what is not known; the line of a photo without a face ends with its status."""

    def start(self, layout: Layout) -> bytes:
        """Nothing."""
        return b""

    def encode(self, layout: Layout, records: Sequence[Record]) -> bytes:
        """Lines of one photo."""
        return b"".join(json_text(record) + b"\n" for record in records)

    def read(self, layout: Layout, file: IO[bytes]) -> Iterator[ReadRow]:
        """The lines of a file, up to any damage."""
        names, keys, at = [field.name for field in layout.fields], [key.name for key in layout.keys], 0
        short = names[: len(keys) + 2]
        for line in file:
            at += len(line)
            try:
                record = json.loads(line)
                found = list(record)
                identity, status = tuple(record[key] for key in keys), record["status"]
            except (ValueError, TypeError, KeyError):  # torn or damaged
                return
            if found not in (names, short):
                raise OtherColumns
            yield ReadRow(identity, status, at)

    def is_ours(self, path: Path) -> bool:
        """Whether a file begins as those of `dhm align`, or holds nothing."""
        return begins_with(path, _BEGINNING)


def begins_with(path: Path, beginning: bytes) -> bool:
    """Whether a file begins so, or holds less than that."""
    try:
        with path.open("rb") as file:
            return beginning.startswith(file.read(len(beginning)))
    except OSError:
        return False


def json_text(record: Record) -> bytes:
    """A record as JSON on one line, in UTF-8; bytes of file names that are not become escapes that JSON reads back."""
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace")
