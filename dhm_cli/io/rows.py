"""Rows of tables of any kind that people have: CSV, JSON lines, JSON, Parquet, arrays in .npz files."""

import csv
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dhm_cli.errors import InputError
from dhm_cli.io.images import read_bytes
from dhm_cli.io.parquet import read_parquet

# Bytes of a file that is read as a whole.
_MOST_BYTES = 8_000_000_000


class Row(NamedTuple):
    """A row: where it stands, for messages, and its cells by column; a column that it lacks is missing."""

    where: str
    cells: dict[str, Any]


def read_rows(path: Path, columns: Sequence[str], optional: Sequence[str] = (), option: str = "") -> Iterator[Row]:
    """The rows of a table, by the ending of its name.

    .csv, .tsv: UTF-8 with a header; cells are text; so are files of any other name. .jsonl: an object a line. .json: a
    list of objects. .parquet. .npz: arrays of one length, one a column. But for .json and .npz memory does not grow
    with the rows.

    Args:
        path: the table.
        columns: those that it must have; objects of JSON may lack them.
        optional: those that are read where it has them.
        option: by which the user named it, such as "--boxes", for messages.

    Raises:
        InputError: the file cannot be read, or lacks a column; a row is malformed.
        DhmError: a Parquet file without pyarrow.
    """
    reader = READERS.get(path.suffix.lower(), _csv)
    try:
        yield from reader(path, columns, optional)
    except OSError as error:
        hint = f"check the name{f' given to {option}' if option else ''} and the permissions"
        raise InputError(f"{path}: cannot be read: {error.strerror or error}", hint) from error


def _check_columns(path: Path, columns: Sequence[str], found: Collection[str]) -> None:
    missing = [name for name in columns if name not in found]
    if missing:
        raise InputError(f"{path}: the header lacks {', '.join(missing)}", f"it must name {','.join(columns)}")


def _csv(path: Path, columns: Sequence[str], optional: Sequence[str], delimiter: str = ",") -> Iterator[Row]:
    # File names that are not valid UTF-8 keep their bytes.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        try:
            _check_columns(path, columns, reader.fieldnames or ())
            for cells in reader:
                yield Row(f"{path}, line {reader.line_num}", {k: v for k, v in cells.items() if v is not None})
        except csv.Error as error:
            raise InputError(f"{path}: not a CSV file: {error}", "save it as UTF-8 CSV") from error


def _tsv(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
    return _csv(path, columns, optional, "\t")


def _json_lines(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                where = f"{path}, line {number}"
                try:
                    yield _object(where, json.loads(line))
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{where}: not JSON: {error}", "write the file again") from error


def _json_list(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
    try:
        rows = json.loads(read_bytes(path, _MOST_BYTES))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a readable JSON file: {error}", "write the file again") from error
    if not isinstance(rows, list):
        raise InputError(f"{path}: not a list of objects", 'expected [{"path": "photo.jpg", …}, …]')
    for number, row in enumerate(rows):
        yield _object(f"{path}, object {number}", row)


def _object(where: str, value: Any) -> Row:
    if not isinstance(value, dict):
        raise InputError(f"{where}: not an object", 'expected {"path": "photo.jpg", …}')
    return Row(where, value)


def _parquet(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
    for number, cells in enumerate(read_parquet(path, columns, optional)):
        yield Row(f"{path}, row {number}", cells)


def _npz(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
    try:
        with np.load(path, allow_pickle=False) as packed:
            _check_columns(path, columns, packed.files)
            arrays = {name: packed[name] for name in packed.files if name in (*columns, *optional)}
    except (OSError, InputError):
        raise
    except Exception as error:  # numpy, zipfile and zlib raise a dozen kinds on damaged files
        raise InputError(f"{path}: not a readable .npz file: {error}", "write the file again") from error
    if len({array.shape[:1] for array in arrays.values()}) > 1:
        found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise InputError(f"{path}: arrays of different length, {found}", "expected one entry a row")
    for number, values in enumerate(zip(*(array.tolist() for array in arrays.values()), strict=True)):
        yield Row(f"{path}, row {number}", dict(zip(arrays, values, strict=True)))


READERS: dict[str, Callable[[Path, Sequence[str], Sequence[str]], Iterator[Row]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _json_lines,
    ".json": _json_list,
    ".parquet": _parquet,
    ".npz": _npz,
}
