"""The table that `dhm align` writes: one row per face, photo by photo, safe against interruption.

Rows go to `<out>.partial`, one photo at a time, and the file takes its final name when all photos are done. A run that
was cut off leaves the partial table, from which the next run can go on.
"""

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, cast

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import NUM_LANDMARKS

OK, NO_FACE, UNREADABLE, BAD_BOX = "ok", "no_face", "unreadable", "bad_box"

COLUMNS: tuple[str, ...] = (
    *("path", "face", "status", "score", "left", "top", "width", "height", "pitch", "yaw", "roll"),
    *(f"{axis}_{k}" for axis in "xyz" for k in range(NUM_LANDMARKS)),
)

Row = list[str]


def face_row(
    path: str,
    face: int,
    score: float,
    box: tuple[float, float, float, float],
    pose: tuple[float, float, float],
    landmarks: NDArray[np.floating],
) -> Row:
    """Row of a face that was aligned.

    Args:
        path: the photo.
        face: index of the face in its photo, from 0.
        score: the detector's score, NaN where there was none (left empty).
        box: left, top, width, height, photo pixels.
        pose: pitch, yaw, roll, degrees.
        landmarks: (68, 3), 0-based photo pixels.
    """
    numbers = [*box, *pose, *np.asarray(landmarks, dtype=np.float64).T.ravel().tolist()]
    return [path, str(face), OK, "" if np.isnan(score) else f"{score:.3f}", *(f"{value:.3f}" for value in numbers)]


def empty_row(path: str, status: str) -> Row:
    """Row of a photo without a face (`NO_FACE`) or that cannot be read (`UNREADABLE`), or of a `BAD_BOX`."""
    return [path, "", status] + [""] * (len(COLUMNS) - 3)


def partial_path(out: Path) -> Path:
    """Where the rows are until the table is finished."""
    return out.with_name(out.name + ".partial")


class LandmarkTable:
    """A table being written.

    Args:
        out: the finished table; its folder is made when missing.
        resume: keep the photos that an interrupted run has finished; without such a run, start anew.

    Attributes:
        finished: status of each photo kept from the interrupted run, by path.
        faces: number of faces of each of those photos.

    Raises:
        InputError: `out` cannot be written, or an interrupted run would be lost because `resume` is not set.
    """

    def __init__(self, out: Path, resume: bool = False) -> None:
        self.out = out
        self.finished: dict[str, str] = {}
        self.faces: dict[str, int] = {}
        self._partial = partial_path(out)
        self._written = False
        try:
            if out.is_dir():
                raise InputError(f"{out}: is a folder", hint=f"name a file, such as {out / 'landmarks.csv'}")
            out.parent.mkdir(parents=True, exist_ok=True)
            self._salvage(resume)
            self._file = _open(self._partial, "a")
        except OSError as error:
            hint = "choose another place for --out"
            raise InputError(f"{out}: cannot be written: {error.strerror or error}", hint=hint) from error

    def _salvage(self, resume: bool) -> None:
        """Start the partial table: a header and the rows of every photo that an interrupted run surely finished."""
        fresh = self._partial.with_name(self._partial.name + ".new")
        with _open(fresh, "w") as file:
            file.write(_lines([list(COLUMNS)]))
            if self._partial.is_file():
                for rows in _finished_photos(self._partial):
                    file.write(_lines(rows))
                    statuses = [row[2] for row in rows]
                    self.finished[rows[0][0]] = next((status for status in statuses if status != OK), OK)
                    self.faces[rows[0][0]] = statuses.count(OK)
        if self.finished and not resume:
            fresh.unlink()
            raise InputError(
                f"{self._partial} holds {len(self.finished)} photos of an interrupted run",
                hint="go on with --resume, or delete that file to start anew",
            )
        os.replace(fresh, self._partial)

    def write(self, rows: list[Row]) -> None:
        """Add the rows of one photo, all or, when the machine stops at the wrong moment, in part (see `_salvage`)."""
        self._written = True
        try:
            self._file.write(_lines(rows))
            self._file.flush()
        except OSError as error:
            hint = "make room, then go on with --resume"
            raise InputError(f"{self._partial}: cannot be written: {error.strerror or error}", hint=hint) from error

    def finish(self) -> None:
        """Give the table its name, replacing an older one in a single step."""
        self._file.close()
        try:
            os.replace(self._partial, self.out)
        except OSError as error:
            hint = f"the whole table is in {self._partial}"
            raise InputError(f"{self.out}: cannot be written: {error.strerror or error}", hint=hint) from error

    def close(self) -> None:
        """Leave the table partial, or remove it when it holds no photo."""
        self._file.close()
        if not self._written and not self.finished:
            self._partial.unlink(missing_ok=True)


def _open(path: Path, mode: str) -> TextIO:
    # File names that are not valid UTF-8 keep their bytes.
    return cast(TextIO, path.open(mode, encoding="utf-8", errors="surrogateescape", newline=""))


def _lines(rows: list[Row]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _finished_photos(partial: Path) -> Iterator[list[Row]]:
    """Rows of an interrupted run, photo by photo, up to any damage and without the last photo, which may be torn."""
    with _open(partial, "r") as file:
        reader = csv.reader(file)
        photo: list[Row] = []
        try:
            if tuple(next(reader, ())) != COLUMNS:
                return
            for row in reader:
                if photo and row[:1] != photo[0][:1]:
                    yield photo
                    photo = []
                if len(row) != len(COLUMNS):
                    return
                photo.append(row)
        except csv.Error:
            return
