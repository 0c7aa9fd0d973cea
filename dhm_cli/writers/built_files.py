"""Outputs that are built as a whole from the rows of a run, when all photos are done.

Until then the rows lie in `<out>.partial` as JSON lines, so that these outputs too survive an interruption at any byte,
and a run with several outputs goes on from one photo in all of them.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dhm_cli.inference.columns import Layout, Record
from dhm_cli.runtime.atomic import move_into_place
from dhm_cli.writers.json_lines import JsonLines
from dhm_cli.writers.row_files import RowFile


@dataclass(frozen=True)
class Records:
    """All rows of a run, read from its JSON lines as often as they are asked for; each has every field.

    Attributes:
        file: the JSON lines.
        layout: of the rows.
    """

    file: Path
    layout: Layout

    def __iter__(self) -> Iterator[Record]:
        blank: Record = dict.fromkeys(field.name for field in self.layout.fields)
        with self.file.open("rb") as lines:
            for line in lines:
                yield blank | json.loads(line)

    def __len__(self) -> int:
        with self.file.open("rb") as lines:
            return sum(1 for _ in lines)


class BuiltFile(RowFile):
    """An output that is built from all rows at once, a `Writer`; see `RowFile`.

    Args:
        out: the finished file.
        layout: what is written of each face.
        resume: keep the photos that an interrupted run has finished.
        build: writes the output to a path.
    """

    def __init__(self, out: Path, layout: Layout, resume: bool, build: Callable[[Records, Path], None]) -> None:
        super().__init__(out, layout, resume, JsonLines())
        self._build = build
        self._whole = self.out.with_name(f".{self.out.name}.whole")
        self._built = False

    def complete(self) -> None:
        """Build the output beside its place."""
        super().complete()
        if self._built:
            return
        try:
            remove(self._whole)  # of a killed run
            self._build(Records(self.partial, self.layout), self._whole)
        except OSError as error:
            raise self._no_room(error) from error
        self._built = True

    def _give_name(self) -> None:
        move_into_place(self._whole, self.out)
        self.partial.unlink()

    def close(self) -> None:
        """End the writing: the rows stay for the next run, if there are some."""
        with suppress(OSError):
            remove(self._whole)
        super().close()


def remove(path: Path) -> None:
    """Remove a file or a folder of ours, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
