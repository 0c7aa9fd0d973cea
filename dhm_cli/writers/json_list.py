"""A JSON file: a list of the objects that JSON lines have a line each, one face an object."""

from pathlib import Path

from dhm_cli.writers.built_files import Records
from dhm_cli.writers.json_lines import begins_with, json_text

_BEGINNING = b'[\n{"path": '


def build_json(records: Records, path: Path) -> None:
    """Write the file; memory does not grow with the number of faces."""
    with path.open("wb") as file:
        before = b"[\n"
        for record in records:
            file.write(before + json_text(record))
            before = b",\n"
        file.write(b"\n]\n")


def is_json(path: Path) -> bool:
    """Whether a file begins as those of `build_json`, or holds nothing."""
    return begins_with(path, _BEGINNING)
