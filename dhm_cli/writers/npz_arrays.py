"""Arrays in an .npz file, a row for each row of the other formats."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhm_cli.writers.built_files import Records

# What stands for unknown numbers and texts.
_UNKNOWN: dict[type, Any] = {float: np.nan, int: -1, str: ""}


def build_npz(records: Records, path: Path) -> None:
    """Write one array for each field: float64, NaN where not known; int64, -1; or text.

    All arrays are held in memory, with the default columns 1.8 kB for each face.
    """
    count, fields = len(records), records.layout.fields
    numbers: dict[str, NDArray[Any]] = {
        field.name: np.full((count, *field.shape), _UNKNOWN[field.kind], field.kind)
        for field in fields
        if field.kind is not str
    }
    texts: dict[str, list[str]] = {field.name: [] for field in fields if field.kind is str}
    for row, record in enumerate(records):
        for name, array in numbers.items():
            if record[name] is not None:
                array[row] = record[name]
        for name, values in texts.items():
            values.append(record[name] or "")
    arrays: dict[str, Any] = {field.name: numbers.get(field.name, texts.get(field.name)) for field in fields}
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def is_npz(path: Path) -> bool:
    """Whether a file holds the arrays of `build_npz`."""
    try:
        with zipfile.ZipFile(path) as packed:
            return {"path.npy", "face.npy", "status.npy"} <= set(packed.namelist())
    except (OSError, zipfile.BadZipFile):
        return False
