"""Parquet files, read where pyarrow is installed."""

import os
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import IO, Any

from dhm_cli.errors import DhmError, InputError

# Rows held in memory at a time.
_ROWS = 4096


def load_pyarrow(path: str | os.PathLike[str]) -> ModuleType:
    """The module `pyarrow.parquet`, which is loaded only where a Parquet file is read or written.

    Args:
        path: the file, for the message.

    Raises:
        DhmError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DhmError(
            f"{path}: Parquet files need pyarrow, which is not installed", hint="pip install 'dhm-cli[parquet]'"
        ) from error
    return pyarrow.parquet


def read_parquet(
    path: str | os.PathLike[str],
    columns: Sequence[str],
    optional: Sequence[str] = (),
    file: IO[bytes] | None = None,
    rows: int = _ROWS,
) -> Iterator[dict[str, Any]]:
    """Rows of a Parquet file, some at a time.

    Args:
        path: the file.
        columns: those that it must have.
        optional: those that are read where it has them.
        file: the file opened, where `path` is only its name.
        rows: held in memory at a time.

    Raises:
        DhmError: pyarrow is not installed.
        InputError: the file cannot be read, or lacks a column.
    """
    parquet = load_pyarrow(path)
    import pyarrow as pa

    try:
        with parquet.ParquetFile(file or path) as table:
            names = table.schema_arrow.names
            missing = [name for name in columns if name not in names]
            if missing:
                raise InputError(f"{path}: the header lacks {', '.join(missing)}", f"it has {', '.join(names)}")
            wanted = [name for name in names if name in (*columns, *optional)]
            for batch in table.iter_batches(rows, columns=wanted):
                yield from batch.to_pylist()
    except (ValueError, pa.ArrowException) as error:  # text may be damaged too
        raise InputError(f"{path}: not a readable Parquet file: {error}", "write the file again") from error
