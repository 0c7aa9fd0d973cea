"""The table that `dhm align` writes: one row per face, photo by photo, safe against interruption.

Rows go to `<out>.partial`, one photo at a time, and the file takes its final name when all photos are done. A run that
was cut off leaves the partial table, from which the next run can go on. Standard output, a pipe or a device gets the
rows as they come.

The head pose is in the columns yaw, pitch, roll (`Face.pose`) or pitch_300w_lp, yaw_300w_lp, roll_300w_lp
(`Face.pose_300w_lp`), so that the header alone says of which order the angles are, and no table mixes the two.
"""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TextIO, cast

import numpy as np

from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import NUM_LANDMARKS
from dhm_cli.geometry.pose import Angles
from dhm_cli.inference.aligner import Face
from dhm_cli.inference.results import OK, PhotoResult, partial_path
from dhm_cli.runtime.atomic import move_into_place
from dhm_cli.runtime.lock import claim, release
from dhm_cli.runtime.outputs import open_stream

# The columns of the head pose; earlier versions wrote "pitch", "yaw", "roll" with the angles of 300W-LP.
POSE_COLUMNS: dict[Angles, tuple[str, str, str]] = {
    "yaw-pitch-roll": ("yaw", "pitch", "roll"),
    "300w-lp": ("pitch_300w_lp", "yaw_300w_lp", "roll_300w_lp"),
}
_OLD_POSE_COLUMNS = ("pitch", "yaw", "roll")


def _columns(pose: tuple[str, str, str]) -> tuple[str, ...]:
    points = (f"{axis}_{k}" for axis in "xyz" for k in range(NUM_LANDMARKS))
    return ("path", "face", "status", "score", "left", "top", "width", "height", *pose, *points)


COLUMNS_OF: dict[Angles, tuple[str, ...]] = {angles: _columns(pose) for angles, pose in POSE_COLUMNS.items()}
COLUMNS = COLUMNS_OF["yaw-pitch-roll"]
_HEADERS = (*COLUMNS_OF.values(), _columns(_OLD_POSE_COLUMNS))
_HEADER_LINES = [",".join(columns) for columns in _HEADERS]
_BEFORE_POSE, _WIDTH = 8, len(_HEADERS[0])

Row = list[str]
_ELSEWHERE = "choose another --out"


class LandmarkTable:
    """A table being written, a `Writer`.

    Args:
        out: the finished table; its folder is made when missing, a link is followed.
        resume: keep the photos that an interrupted run has finished; without such a run, start anew.
        angles: of the head pose.

    Attributes:
        finished: what became of each photo kept from the interrupted run, by path.

    Raises:
        InputError: `out` cannot be written, another process writes it, an interrupted run would be lost because
            `resume` is not set, or it has other angles.
    """

    def __init__(self, out: Path, resume: bool = False, angles: Angles = "yaw-pitch-roll") -> None:
        self._angles = angles
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
        kept_columns = _header(self._partial) if self._partial.is_file() else ()
        fresh = self._partial.with_name(f".{self._partial.name}.new")
        with _open(fresh, "w") as file:
            file.write(_lines([list(COLUMNS_OF[self._angles])]))
            if kept_columns:
                for rows in _finished_photos(self._partial):
                    file.write(_lines(rows))
                    path, statuses = rows[0][0], [row[2] for row in rows]
                    status = next((status for status in statuses if status != OK), OK)
                    self.finished[path] = PhotoResult(path, status, statuses.count(OK))
        if self.finished and not resume:
            fresh.unlink()
            raise InputError(
                f"{self._partial} holds {len(self.finished)} photos of an interrupted run",
                hint="go on with --resume, or delete that file to start anew",
            )
        if self.finished and kept_columns != COLUMNS_OF[self._angles]:
            fresh.unlink()
            raise _other_angles(self._partial, kept_columns, self._angles)
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
            self._file.write(_lines(_rows(result, faces, self._angles)))
            self._file.flush()
        except OSError as error:
            hint = "make room, then go on with --resume"
            raise InputError(f"{self._partial}: cannot be written: {error.strerror or error}", hint=hint) from error

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
        angles: of the head pose.

    Raises:
        InputError: `resume` is set, or `out` cannot be opened.
    """

    def __init__(self, out: Path, resume: bool = False, angles: Angles = "yaw-pitch-roll") -> None:
        self._angles = angles
        self.finished: dict[str, PhotoResult] = {}
        if resume:
            raise InputError(f"{out}: what went into a stream is gone", hint="leave out --resume")
        self._open = ExitStack()
        self._out = out
        try:
            self._stream = self._open.enter_context(open_stream(out))
        except OSError as error:
            raise InputError(f"{out}: cannot be written: {error.strerror or error}", hint=_ELSEWHERE) from error
        self._send([list(COLUMNS_OF[angles])])

    def write(self, result: PhotoResult, faces: Sequence[Face]) -> None:
        """Send the rows of one photo; see `LandmarkTable.write`."""
        self._send(_rows(result, faces, self._angles))

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
            start = file.read(max(map(len, _HEADER_LINES)))
    except OSError:
        return False
    # A crash may have cut off the header.
    return any(line.startswith(start) or start.startswith(line) for line in _HEADER_LINES)


def _header(partial: Path) -> tuple[str, ...]:
    """The columns of an interrupted run's table; none where its header was cut off."""
    with _open(partial, "r") as file:
        columns = tuple(file.readline().rstrip("\r\n").split(","))
    return columns if columns in _HEADERS else ()


def _other_angles(partial: Path, found: tuple[str, ...], wanted: Angles) -> InputError:
    """Why a run cannot go on with the table of a run that had other angles."""
    its = next((angles for angles, columns in COLUMNS_OF.items() if columns == found), None)
    go_on = "finish it with the version of dhm that began it" if its is None else f"go on with --angles {its}"
    return InputError(
        f"{partial} has the angles {', '.join(found[_BEFORE_POSE : _BEFORE_POSE + 3])}, and this run would write "
        f"{', '.join(POSE_COLUMNS[wanted])}: one table cannot hold both",
        hint=f"{go_on}, or delete that file to start anew",
    )


def _rows(result: PhotoResult, faces: Sequence[Face], angles: Angles) -> list[Row]:
    rows = [_face_row(result.path, number, face, angles) for number, face in enumerate(faces)]
    rows += [_empty_row(result.path, result.status) for _ in result.problems]
    return rows or [_empty_row(result.path, result.status)]


def _face_row(path: str, number: int, face: Face, angles: Angles) -> Row:
    """Row of a face that was aligned: score empty where the box was given, numbers with three decimals."""
    pose = face.pose if angles == "yaw-pitch-roll" else face.pose_300w_lp
    numbers = [*face.box, *pose, *face.landmarks.T.ravel().tolist()]
    score = "" if np.isnan(face.score) else f"{face.score:.3f}"
    return [path, str(number), OK, score, *(f"{value:.3f}" for value in numbers)]


def _empty_row(path: str, status: str) -> Row:
    """Row of a photo without a face, of one that cannot be read, or of a useless box."""
    return [path, "", status] + [""] * (_WIDTH - 3)


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


def _finished_photos(partial: Path) -> Iterator[list[Row]]:
    """Rows of an interrupted run, photo by photo, up to any damage and without the last photo, which may be torn."""
    with _open(partial, "r") as file:
        reader = csv.reader(file)
        photo: list[Row] = []
        try:
            if tuple(next(reader, ())) not in _HEADERS:
                return
            for row in reader:
                if photo and row[:1] != photo[0][:1]:
                    yield photo
                    photo = []
                if len(row) != _WIDTH:
                    return
                photo.append(row)
        except csv.Error:
            return
