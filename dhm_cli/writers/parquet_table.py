"""A Parquet table with list columns, a row for each row of the other formats."""

from itertools import islice
from pathlib import Path
from typing import Any

from dhm_cli.datasets.folders import readable
from dhm_cli.inference.columns import Layout
from dhm_cli.io.parquet import load_pyarrow
from dhm_cli.writers.built_files import BuiltFile, Records

# Rows of one row group: what is held in memory at a time.
_ROWS = 1000


def open_parquet(out: Path, layout: Layout, resume: bool) -> BuiltFile:
    """Open the writer; pyarrow is needed at the end only, but its want is told at once.

    Raises:
        DhmError: pyarrow is not installed; see also `RowFile`.
    """
    load_pyarrow(out)
    return BuiltFile(out, layout, resume, build_parquet)


def build_parquet(records: Records, path: Path) -> None:
    """Write the table, compressed with zstd, group by group; memory does not grow with the number of faces.

    An array of points is a list of lists. Parquet holds text only: names of files that are none become `readable`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, rows = arrow_schema(records.layout), iter(records)
    with pq.ParquetWriter(path, schema, **compact(schema)) as writer:
        while group := list(islice(rows, _ROWS)):
            for record in group:
                for key in records.layout.keys:
                    if isinstance(record[key.name], str):
                        record[key.name] = readable(record[key.name])
            writer.write_table(pa.Table.from_pylist(group, schema))


def compact(schema: Any) -> dict[str, Any]:
    """How pyarrow is to write a table of that `pyarrow.Schema`.

    Dictionaries of numbers that are nearly all different cost a tenth; level 6 saves a quarter against the default.
    """
    texts = [field.name for field in schema if str(field.type) == "string"]
    return {"compression": "zstd", "compression_level": 6, "use_dictionary": texts}


def arrow_schema(layout: Layout) -> Any:
    """The columns of a layout as a `pyarrow.Schema`."""
    import pyarrow as pa

    kinds: dict[type, Any] = {float: pa.float64(), int: pa.int64(), str: pa.string()}
    fields = []
    for field in layout.fields:
        kind = kinds[field.kind]
        for _ in field.shape:
            kind = pa.list_(kind)
        fields.append((field.name, kind))
    return pa.schema(fields)


def is_parquet(path: Path) -> bool:
    """Whether a file is a table of `build_parquet`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
    except (OSError, ValueError, pa.ArrowException):
        return False
    return names[:1] == ["path"] and {"face", "status"} <= set(names)
