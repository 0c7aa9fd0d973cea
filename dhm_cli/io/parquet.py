"""Parquet files, read where pyarrow is installed."""

import os
from collections.abc import Collection, Iterator
from types import ModuleType
from typing import Any

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


def read_parquet(path: str | os.PathLike[str], columns: Collection[str]) -> Iterator[dict[str, Any]]:
    """Rows of a Parquet file, some at a time.

    Args:
        path: the file.
        columns: those to read, as far as the file has them.

    Raises:
        DhmError: pyarrow is not installed.
        InputError: the file cannot be read.
    """
    parquet = load_pyarrow(path)
    import pyarrow as pa

    try:
        with parquet.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if name in columns]
            for batch in file.iter_batches(_ROWS, columns=names):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a readable Parquet file: {error}", "check the name and the file") from error
