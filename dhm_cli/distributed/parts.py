"""A folder of Parquet files that grows file by file, each of which appears whole or not at all."""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dhm_cli.errors import InputError
from dhm_cli.io.parquet import load_pyarrow
from dhm_cli.io.remote import is_url, list_urls, open_file, upload
from dhm_cli.runtime.atomic import written_atomically
from dhm_cli.writers.parquet_table import compact

_PREFIX, _ENDING = "part-", ".parquet"


class Parts:
    """The parts of one output.

    A part's name comes from the photos in it, so that one which a worker writes again after an accident takes the
    place of the first. Picklable.

    Args:
        folder: of this machine, or the address of one elsewhere; made when missing.
        schema: of all parts, a `pyarrow.Schema`.
    """

    def __init__(self, folder: str, schema: Any) -> None:
        self.folder, self.schema = folder, schema

    def finished(self, resume: bool) -> set[str]:
        """The photos in the parts that are there.

        Args:
            resume: go on from there.

        Raises:
            InputError: there are some but `resume` is not set, or they have other columns; or the folder is a file.
            DhmError: pyarrow is not installed.
        """
        parquet = load_pyarrow(self.folder)
        paths = set[str]()
        for part in self._list():
            if not resume:
                raise InputError(
                    f"{self.folder}: holds parts of an earlier run", "go on with --resume, or choose another --out"
                )
            try:
                with open_file(part) as file, parquet.ParquetFile(file) as table:
                    if table.schema_arrow != self.schema:
                        hint = "give the same --columns and --angles as that run, or choose another --out"
                        raise InputError(f"{part}: of a run with other columns", hint)
                    paths.update(table.read(["path"]).column("path").to_pylist())
            except (OSError, ValueError) as error:  # pyarrow's are both
                hint = "delete it: its photos are then aligned again"
                raise InputError(f"{part}: not a readable part: {error}", hint) from error
        return paths

    def write(self, photos: Iterable[str], rows: Sequence[dict[str, Any]]) -> None:
        """Write a part.

        Args:
            photos: all that it is of.
            rows: theirs.

        Raises:
            InputError: it cannot be written.
        """
        import pyarrow

        parquet = load_pyarrow(self.folder)
        digest = hashlib.sha256("\0".join(photos).encode(errors="surrogateescape")).hexdigest()
        place = f"{self.folder.rstrip('/')}/{_PREFIX}{digest[:16]}{_ENDING}"
        table = pyarrow.Table.from_pylist(list(rows), self.schema)
        try:
            if is_url(place):
                with tempfile.TemporaryDirectory(prefix="dhm-") as folder:
                    parquet.write_table(table, Path(folder) / "part", **compact(self.schema))
                    upload(Path(folder) / "part", place)
            else:
                with written_atomically(Path(place)) as partial:
                    parquet.write_table(table, partial, **compact(self.schema))
        except OSError as error:
            raise InputError(f"{place}: cannot be written: {error.strerror or error}", "then --resume") from error

    def _list(self) -> list[str]:
        if is_url(self.folder):
            found = list_urls(f"{self.folder.rstrip('/')}/", (_ENDING,))
        elif os.path.isdir(self.folder):
            found = sorted(map(str, Path(self.folder).glob(f"*{_ENDING}")))
        elif os.path.lexists(self.folder):
            raise InputError(f"{self.folder}: is a file", "name a folder with --out, for parts of the table")
        else:
            found = []
        return [name for name in found if name.rpartition("/")[2].startswith(_PREFIX)]
