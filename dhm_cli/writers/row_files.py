"""Outputs that grow row by row, safe against interruption.

Rows go to `<out>.partial`, one photo at a time, and the file takes its final name when all photos are done. A run that
was cut off leaves the partial file, from which the next run can go on. Standard output, a pipe or a device gets the
rows as they come.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from dhm_cli.errors import InputError
from dhm_cli.inference.aligner import Face
from dhm_cli.inference.columns import Identity, Layout, Record
from dhm_cli.inference.results import PhotoResult, partial_path
from dhm_cli.runtime.atomic import move_into_place
from dhm_cli.runtime.lock import claim, release
from dhm_cli.runtime.outputs import open_stream

ELSEWHERE = "choose another --out"


class ReadRow(NamedTuple):
    """What a partial file says of one row: of which photo, its status, and the byte behind it."""

    identity: Identity
    status: str
    end: int


class OtherColumns(Exception):
    """A partial file has other columns than this run."""


class Encoding(Protocol):
    """Rows as bytes, and back."""

    def start(self, layout: Layout) -> bytes:
        """What stands before the rows."""
        ...

    def encode(self, layout: Layout, records: Sequence[Record]) -> bytes:
        """Rows of one photo."""
        ...

    def read(self, layout: Layout, file: IO[bytes]) -> Iterator[ReadRow]:
        """The rows of a file from its start, up to any damage.

        Raises:
            OtherColumns: the file has those of another layout.
        """
        ...

    def is_ours(self, path: Path) -> bool:
        """Whether a file is of this kind and of `dhm align`, finished or not, or holds nothing."""
        ...


class RowFile:
    """An output that grows row by row, a `Writer`.

    Args:
        out: the finished file; its folder is made when missing, a link is followed.
        layout: what is written of each face.
        resume: keep the photos that an interrupted run has finished; without such a run, start anew.
        encoding: how rows are written in the partial file.

    Attributes:
        finished: what became of each photo kept from the interrupted run, in order.

    Raises:
        InputError: `out` cannot be written, another process writes it, or an interrupted run would be lost because
            `resume` is not set.
    """

    def __init__(self, out: Path, layout: Layout, resume: bool, encoding: Encoding) -> None:
        self.layout, self.encoding = layout, encoding
        self.out = Path(os.path.realpath(out))
        self.partial = partial_path(self.out)
        self.finished: dict[Identity, PhotoResult] = {}
        self._ends: list[int] = []
        self._written = False
        try:
            self._lock = claim(
                self.out.with_name(f".{self.out.name}.lock"),
                f"{out}: another dhm align is writing this table",
                "wait for it, or choose another --out",
            )
        except OSError as error:
            raise InputError(f"{out}: cannot be written: {error.strerror or error}", hint=ELSEWHERE) from error
        try:
            self._read_finished(resume)
            self._file = self.partial.open("ab")
            self.keep(len(self.finished))
        except InputError:
            release(self._lock)
            raise
        except OSError as error:
            release(self._lock)
            raise InputError(f"{out}: cannot be written: {error.strerror or error}", hint=ELSEWHERE) from error

    def _read_finished(self, resume: bool) -> None:
        """Find every photo that an interrupted run surely finished."""
        if not self.partial.is_file():
            return
        if not self.encoding.is_ours(self.partial):
            raise InputError(
                f"{self.partial}: in the way, and not of an interrupted run",
                hint="move it away, or choose another --out",
            )
        with self.partial.open("rb") as file:
            try:
                for rows in _photos(self.encoding.read(self.layout, file)):
                    identity, statuses = rows[0].identity, [row.status for row in rows]
                    self.finished[identity] = self.layout.result(identity, statuses)
                    self._ends.append(rows[-1].end)
            except OtherColumns as error:
                raise InputError(
                    f"{self.partial}: of an interrupted run with other columns",
                    hint="give the same --columns and --angles as that run, or delete that file to start anew",
                ) from error
        if self.finished and not resume:
            raise InputError(
                f"{self.partial} holds {len(self.finished)} photos of an interrupted run",
                hint="go on with --resume, or delete that file to start anew",
            )

    def keep(self, count: int) -> None:
        """Go on after the first photos of the interrupted run; what follows them is written anew.

        Args:
            count: of photos, at most as many as are `finished`.
        """
        self.finished = dict(list(self.finished.items())[:count])
        self._file.truncate(self._ends[count - 1] if count else 0)
        if not count:
            self._file.write(self.encoding.start(self.layout))
            self._file.flush()

    def write(self, result: PhotoResult, faces: Sequence[Face]) -> None:
        """Add the rows of one photo: all, or only some of them when the machine stops just then.

        Args:
            result: what became of the photo.
            faces: its faces, a row each. A photo without a face has one row of its status; a useless box has a row too.

        Raises:
            InputError: the file cannot be written.
        """
        self._written = True
        try:
            self._file.write(self.encoding.encode(self.layout, self.layout.records(result, faces)))
            self._file.flush()
        except OSError as error:
            hint = "make room, then go on with --resume"
            raise InputError(f"{self.partial}: cannot be written: {error.strerror or error}", hint=hint) from error

    def complete(self) -> None:
        """End the file, so that it needs only its name."""
        try:
            self._file.close()
        except OSError as error:
            raise self._no_room(error) from error

    def finish(self) -> None:
        """Give the file its name, replacing an older one in a single step."""
        self.complete()
        try:
            self._give_name()
        except OSError as error:
            raise self._no_room(error) from error
        self.close()

    def _give_name(self) -> None:
        move_into_place(self.partial, self.out)

    def _no_room(self, error: OSError) -> InputError:
        hint = f"the rows are in {self.partial}; make room, then go on with --resume"
        return InputError(f"{self.out}: cannot be written: {error.strerror or error}", hint=hint)

    def close(self) -> None:
        """End the writing: the file stays partial, and goes away when it holds no photo."""
        with suppress(OSError):  # of a full disk, which was told already
            self._file.close()
        if not self._written and not self.finished:
            self.partial.unlink(missing_ok=True)
        release(self._lock)


def _photos(rows: Iterator[ReadRow]) -> Iterator[list[ReadRow]]:
    """The rows of each photo, without the last photo, which may lack rows."""
    photo: list[ReadRow] = []
    for row in rows:
        if photo and row.identity != photo[0].identity:
            yield photo
            photo = []
        photo.append(row)


class RowStream:
    """Rows that go to standard output, a pipe or a device as they come, a `Writer`; it cannot be resumed.

    Args:
        out: for which `outputs.is_stream` holds.
        layout: what is written of each face.
        resume: refused.
        encoding: how rows are written.

    Raises:
        InputError: `resume` is set, or `out` cannot be opened.
    """

    def __init__(self, out: Path, layout: Layout, resume: bool, encoding: Encoding) -> None:
        self._layout, self._encoding = layout, encoding
        self.finished: dict[Identity, PhotoResult] = {}
        if resume:
            raise InputError(f"{out}: what went into a stream is gone", hint="leave out --resume")
        self._open = ExitStack()
        self._out = out
        try:
            self._stream = self._open.enter_context(open_stream(out))
        except OSError as error:
            raise InputError(f"{out}: cannot be written: {error.strerror or error}", hint=ELSEWHERE) from error
        self._send(encoding.start(layout))

    def keep(self, count: int) -> None:
        """Nothing is kept."""

    def write(self, result: PhotoResult, faces: Sequence[Face]) -> None:
        """Send the rows of one photo; see `RowFile.write`."""
        self._send(self._encoding.encode(self._layout, self._layout.records(result, faces)))

    def complete(self) -> None:
        """Nothing is left to do."""

    def finish(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """Close the stream; standard output stays open."""
        self._open.close()

    def _send(self, data: bytes) -> None:
        try:
            self._stream.write(data)
            self._stream.flush()
        except BrokenPipeError:  # the reader went away: the command ends quietly
            raise
        except OSError as error:
            raise InputError(f"{self._out}: cannot be written: {error.strerror or error}", hint=ELSEWHERE) from error
