"""The table that `dhm align` writes: one row per face, photo by photo, safe against interruption.

Rows go to `<out>.partial`, one photo at a time, and the file takes its final name when all photos are done. A run that
was cut off leaves the partial table, from which the next run can go on. Standard output, a pipe or a device gets the
rows as they come.

The header alone says of which order the angles of the head pose are, so no table mixes the two.
"""

import csv
import io
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TextIO, cast

from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import NUM_LANDMARKS
from dhm_cli.geometry.pose import ANGLES, Angles
from dhm_cli.inference.aligner import Face
from dhm_cli.inference.results import DOUBTFUL, OK, PhotoResult, partial_path
from dhm_cli.runtime.atomic import move_into_place
from dhm_cli.runtime.lock import claim, release
from dhm_cli.runtime.outputs import open_stream

# What a table begins with, and the groups of columns that can follow, by name.
KEYS = ("path", "face", "status")
COLUMN_GROUPS: dict[str, tuple[str, ...]] = {
    "score": ("score",),
    "confidence": ("confidence",),
    "box": ("left", "top", "width", "height"),
    "pose": ("yaw", "pitch", "roll"),
    "pose_300w_lp": ("pitch_300w_lp", "yaw_300w_lp", "roll_300w_lp"),
    "landmarks": tuple(f"{axis}_{k}" for axis in "xyz" for k in range(NUM_LANDMARKS)),
    "sigma": tuple(f"sigma_{k}" for k in range(NUM_LANDMARKS)),
    "visible": tuple(f"visible_{k}" for k in range(NUM_LANDMARKS)),
}
DEFAULT_COLUMNS = ("score", "confidence", "box", "pose", "landmarks")

Row = list[str]
_BEGINNING = ",".join(KEYS) + ","
_ELSEWHERE = "choose another --out"


def check_columns(names: Sequence[str]) -> tuple[str, ...]:
    """Names of groups of columns, as given.

    Raises:
        InputError: one is not known, or given twice.
    """
    for name in names:
        if name not in COLUMN_GROUPS:
            raise InputError(f"--columns {name}: not known", hint=f"known are {', '.join(COLUMN_GROUPS)}")
    if len(set(names)) < len(names):
        raise InputError(f"--columns {','.join(names)}: a name is given twice", hint="give each once")
    return tuple(names)


def with_angles(columns: Sequence[str], angles: Angles) -> tuple[str, ...]:
    """Groups of columns with the head pose in an order of angles.

    Raises:
        InputError: an unknown order.
    """
    if angles not in ANGLES:
        raise InputError(f"--angles: expected {' or '.join(ANGLES)}, found {angles!r}")
    return tuple("pose_300w_lp" if name == "pose" and angles == "300w-lp" else name for name in columns)


def header(groups: Sequence[str] = DEFAULT_COLUMNS) -> Row:
    """Names of all columns of a table with some groups of columns."""
    return [*KEYS, *(column for name in groups for column in COLUMN_GROUPS[name])]


class LandmarkTable:
    """A table being written, a `Writer`.

    Args:
        out: the finished table; its folder is made when missing, a link is followed.
        resume: keep the photos that an interrupted run has finished; without such a run, start anew.
        columns: groups of columns after the first three, names of `COLUMN_GROUPS`.

    Attributes:
        finished: what became of each photo kept from the interrupted run, by path.

    Raises:
        InputError: `out` cannot be written, another process writes it, or an interrupted run would be lost because
            `resume` is not set.
    """

    def __init__(self, out: Path, resume: bool = False, columns: Sequence[str] = DEFAULT_COLUMNS) -> None:
        self._columns, self._head = check_columns(columns), header(columns)
        self.out = Path(os.path.realpath(out))
        self.finished: dict[str, PhotoResult] = {}
        self._partial = partial_path(self.out)
        self._written = False
        try:
            if out.is_dir():
                raise InputError(f"{out}: is a folder", hint=f"name a file, such as {out / 'landmarks.csv'}")
            self._lock = claim(
                self.out.with_name(f".{self.out.name}.lock"),
                f"{out}: another dhm align is writing this table",
                "wait for it, or choose another --out",
            )
        except OSError as error:
            raise InputError(f"{out}: cannot be written: {error.strerror or error}", hint=_ELSEWHERE) from error
        try:
            self._salvage(resume)
            self._file = _open(self._partial, "a")
        except InputError:
            release(self._lock)
            raise
        except OSError as error:
            release(self._lock)
            raise InputError(f"{out}: cannot be written: {error.strerror or error}", hint=_ELSEWHERE) from error

    def _salvage(self, resume: bool) -> None:
        """Start the partial table: a header and the rows of every photo that an interrupted run surely finished."""
        if self._partial.is_file() and not is_table(self._partial):
            raise InputError(
                f"{self._partial}: in the way, and not of an interrupted run",
                hint="move it away, or choose another --out",
            )
        fresh = self._partial.with_name(f".{self._partial.name}.new")
        with _open(fresh, "w") as file:
            file.write(_lines([self._head]))
            if self._partial.is_file():
                for rows in self._finished_photos():
                    file.write(_lines(rows))
                    path, statuses = rows[0][0], [row[2] for row in rows]
                    status = next((status for status in statuses if status not in (OK, DOUBTFUL)), OK)
                    doubtful = statuses.count(DOUBTFUL)
                    self.finished[path] = PhotoResult(path, status, statuses.count(OK) + doubtful, doubtful=doubtful)
        if self.finished and not resume:
            fresh.unlink()
            raise InputError(
                f"{self._partial} holds {len(self.finished)} photos of an interrupted run",
                hint="go on with --resume, or delete that file to start anew",
            )
        os.replace(fresh, self._partial)

    def write(self, result: PhotoResult, faces: Sequence[Face]) -> None:
        """Add the rows of one photo: all, or only some of them when the machine stops just then (see `_salvage`).

        Args:
            result: what became of the photo.
            faces: its faces, a row each. A photo without a face has one row of its status; a useless box has a row too.

        Raises:
            InputError: the file cannot be written.
        """
        self._written = True
        try:
            self._file.write(_lines(_rows(result, faces, self._columns)))
            self._file.flush()
        except OSError as error:
            hint = "make room, then go on with --resume"
            raise InputError(f"{self._partial}: cannot be written: {error.strerror or error}", hint=hint) from error

    def _finished_photos(self) -> Iterator[list[Row]]:
        """Rows of an interrupted run, photo by photo, up to any damage and without the last photo, maybe torn."""
        with _open(self._partial, "r") as file:
            reader = csv.reader(file)
            photo: list[Row] = []
            try:
                head = next(reader, [])
                if head != self._head and next(reader, None) is not None:  # else a crash cut off the header
                    raise InputError(
                        f"{self._partial}: of an interrupted run with other columns",
                        hint="give the same --columns and --angles as that run, or delete that file to start anew",
                    )
                for row in reader:
                    if photo and row[:1] != photo[0][:1]:
                        yield photo
                        photo = []
                    if len(row) != len(self._head):
                        return
                    photo.append(row)
            except csv.Error:
                return

    def finish(self) -> None:
        """Give the table its name, replacing an older one in a single step."""
        try:
            self._file.close()
            move_into_place(self._partial, self.out)
        except OSError as error:
            hint = f"the table is in {self._partial}; make room, then go on with --resume"
            raise InputError(f"{self.out}: cannot be written: {error.strerror or error}", hint=hint) from error
        self.close()

    def close(self) -> None:
        """End the writing: the table stays partial, and goes away when it holds no photo."""
        with suppress(OSError):  # of a full disk, which was told already
            self._file.close()
        if not self._written and not self.finished:
            self._partial.unlink(missing_ok=True)
        release(self._lock)


class LandmarkStream:
    """A table that goes to standard output, a pipe or a device as it comes, a `Writer`; it cannot be resumed.

    Args:
        out: for which `outputs.is_stream` holds.
        resume: refused.
        columns: as for `LandmarkTable`.

    Raises:
        InputError: `resume` is set, or `out` cannot be opened.
    """

    def __init__(self, out: Path, resume: bool = False, columns: Sequence[str] = DEFAULT_COLUMNS) -> None:
        self._columns = check_columns(columns)
        self.finished: dict[str, PhotoResult] = {}
        if resume:
            raise InputError(f"{out}: what went into a stream is gone", hint="leave out --resume")
        self._open = ExitStack()
        self._out = out
        try:
            self._stream = self._open.enter_context(open_stream(out))
        except OSError as error:
            raise InputError(f"{out}: cannot be written: {error.strerror or error}", hint=_ELSEWHERE) from error
        self._send([header(columns)])

    def write(self, result: PhotoResult, faces: Sequence[Face]) -> None:
        """Send the rows of one photo; see `LandmarkTable.write`."""
        self._send(_rows(result, faces, self._columns))

    def finish(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """Close the stream; standard output stays open."""
        self._open.close()

    def _send(self, rows: list[Row]) -> None:
        try:
            self._stream.write(_lines(rows).encode("utf-8", "surrogateescape"))
            self._stream.flush()
        except BrokenPipeError:  # the reader went away: the command ends quietly
            raise
        except OSError as error:
            raise InputError(f"{self._out}: cannot be written: {error.strerror or error}", hint=_ELSEWHERE) from error


def is_table(path: Path) -> bool:
    """Whether a file is a table of `dhm align`, finished or not, or holds nothing."""
    try:
        with _open(path, "r") as file:
            start = file.read(len(_BEGINNING))
    except OSError:
        return False
    return _BEGINNING.startswith(start)  # a crash may have cut off the header


def _rows(result: PhotoResult, faces: Sequence[Face], columns: Sequence[str]) -> list[Row]:
    rows = [_face_row(result.path, number, face, columns) for number, face in enumerate(faces)]
    rows += [_empty_row(result.path, result.status, columns) for _ in result.problems]
    return rows or [_empty_row(result.path, result.status, columns)]


def _face_row(path: str, number: int, face: Face, columns: Sequence[str]) -> Row:
    """Row of a face that was aligned: numbers with three decimals, empty what is not known."""
    row = [path, str(number), DOUBTFUL if face.doubtful else OK]
    for name in columns:
        values = _VALUES[name](face)
        row += [""] * len(COLUMN_GROUPS[name]) if values is None else [_cell(value) for value in values]
    return row


# The numbers of each group of columns; None where the network does not tell them.
_VALUES: dict[str, Callable[[Face], Iterable[float] | None]] = {
    "score": lambda face: [face.score],
    "confidence": lambda face: [face.confidence],
    "box": lambda face: face.box,
    "pose": lambda face: face.pose,
    "pose_300w_lp": lambda face: face.pose_300w_lp,
    "landmarks": lambda face: face.landmarks.T.ravel().tolist(),
    "sigma": lambda face: face.sigma,
    "visible": lambda face: face.visible,
}


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _empty_row(path: str, status: str, columns: Sequence[str]) -> Row:
    """Row of a photo without a face, of one that cannot be read, or of a useless box."""
    return [path, "", status] + [""] * (len(header(columns)) - 3)


def _open(path: Path, mode: str) -> TextIO:
    # File names that are not valid UTF-8 keep their bytes.
    return cast(TextIO, path.open(mode, encoding="utf-8", errors="surrogateescape", newline=""))


def _lines(rows: list[Row]) -> str:
    text = io.StringIO(newline="")
    plain, quoted = (csv.writer(text, lineterminator="\n", quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    for row in rows:
        # Readers take a lone carriage return, as in macOS's "Icon\r", for the end of a line unless it is quoted.
        (quoted if "\r" in row[0] else plain).writerow(row)
    return text.getvalue()
