"""Tables about many faces: points in .npz files, and what a CSV file says of split, identity and yaw."""

import csv
import re
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import NUM_LANDMARKS

# The landmarks that AFLW's 21-point scheme shares with the 68-point one, (index in 21, index in 68). Left out: eye and
# mouth centres and ears, which have no counterpart, and the nose wings, which AFLW marks further out.
AFLW21_TO_68 = ((0, 17), (1, 19), (2, 21), (3, 22), (4, 24), (5, 26), (6, 36), (8, 39), (9, 42), (11, 45), (14, 30),
                (17, 48), (19, 54), (20, 8))  # fmt: skip


class FaceRow(NamedTuple):
    """What a table of faces says about one image: empty, or NaN, where it says nothing; yaw in degrees."""

    split: str
    identity: str
    yaw: float


class PointTable:
    """Points of many faces from one .npz file: `names` (N,) and one array of shape (N, 68, 2 or 3) or (N, 21, 2).

    x and y are 0-based image pixels. An array whose name ends in `_in_<number>` is in pixels of the image resized
    to a square of that side. z, toward the viewer from any origin, is in the unit of x. NaN means no label.

    Raises:
        InputError: the file is not of that kind.
    """

    def __init__(self, path: Path) -> None:
        try:
            if path.is_file() and not zipfile.is_zipfile(path):  # numpy would speak of pickles
                raise ValueError("no archive of arrays")
            data = np.load(path, allow_pickle=False)
            if not isinstance(data, np.lib.npyio.NpzFile):
                raise ValueError("a single array")
            with data:
                arrays = {key: np.asarray(data[key]) for key in data.files}
        except Exception as error:  # numpy, zipfile and zlib raise a dozen kinds on damaged files
            raise InputError(f"{path}: not a readable .npz file ({error})", "check the path") from error
        shapes = ((21, 2), (NUM_LANDMARKS, 2), (NUM_LANDMARKS, 3))
        found = [k for k, a in arrays.items() if a.ndim == 3 and a.shape[1:] in shapes]
        if "names" not in arrays or len(found) != 1 or len(arrays[found[0]]) != len(arrays["names"]):
            raise InputError(
                f"{path}: holds {', '.join(f'{k} {a.shape}' for k, a in arrays.items())}",
                "expected names (N,) and one array of points (N, 68, 2), (N, 68, 3) or (N, 21, 2)",
            )
        self.path = path
        self._points = _to_68(arrays[found[0]].astype(np.float32))
        names = [n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in arrays["names"]]
        self._rows = {name: i for i, name in enumerate(names)}
        _refuse_twice(path, names)
        side = re.search(r"_in_(\d+)$", found[0])
        self._side = int(side.group(1)) if side else None

    def __contains__(self, path: str) -> bool:
        """Whether the table lists an image, by its path (`lookup`)."""
        return any(name in self._rows for name in lookup(path))

    def get(self, path: str, width: int, height: int) -> NDArray[np.float32]:
        """Points of an image by its path (`lookup`), (68, 2 or 3), pixels of that size; NaN if not known."""
        row = next((self._rows[name] for name in lookup(path) if name in self._rows), None)
        if row is None:
            return np.full(self._points.shape[1:], np.nan, dtype=np.float32)
        points = self._points[row].copy()
        if self._side is not None:
            scale = np.array([width, height], dtype=np.float32) / self._side
            points[:, :2] = (points[:, :2] + 0.5) * scale - 0.5
            points[:, 2:] *= scale[0]
        return points


def _refuse_twice(path: Path, names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f"{path}: lists {twice[0]!r} more than once", "name images by their paths below the folder, each once"
        )


def _to_68(points: NDArray[np.float32]) -> NDArray[np.float32]:
    if points.shape[1] == NUM_LANDMARKS:
        return points
    full = np.full((len(points), NUM_LANDMARKS, 2), np.nan, dtype=np.float32)
    for source, target in AFLW21_TO_68:
        full[:, target] = points[:, source]
    return full


def read_face_table(path: Path) -> dict[str, FaceRow]:
    """Read a table of faces: CSV with a column `name` and, as far as known, `split`, `identity` and `yaw` (degrees,
    also as `aflw_yaw_deg`).

    A name is the image's path below its folder, with or without its suffix (see `lookup`).

    Raises:
        InputError: the file is missing, has no column `name`, or a yaw is not a number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if "name" not in (reader.fieldnames or []):
                raise InputError(f"{path}: no column `name`, found {reader.fieldnames}", "add a header line")
            rows = [(row["name"], _face_row(path, row)) for row in reader]
            _refuse_twice(path, [name for name, _ in rows])
            return dict(rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable CSV file ({error})", "check the path") from error


def _face_row(path: Path, row: dict[str, str]) -> FaceRow:
    yaw = row.get("yaw") or row.get("aflw_yaw_deg") or "nan"
    try:
        if np.isinf(float(yaw)):
            raise ValueError
        return FaceRow(row.get("split") or "", row.get("identity") or "", float(yaw))
    except ValueError as error:
        raise InputError(f"{path}: yaw {yaw!r} of {row['name']}", "expected degrees, or nothing") from error


def lookup(path: str) -> tuple[str, str, str]:
    """Names under which tables may list an image, most precise first.

    Args:
        path: the image's path below its folder, with forward slashes.

    Returns:
        That path, the path without its suffix, and the file's name without its suffix.
    """
    pure = PurePosixPath(path)
    return path, pure.with_suffix("").as_posix(), pure.stem
