"""Face boxes given by the user: a table with the columns path, left, top, width, height, one row per box."""

import math
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dhm_cli.errors import InputError
from dhm_cli.inference.face_box import Box
from dhm_cli.inference.results import BAD_BOX, NO_FACE, UNREADABLE
from dhm_cli.io.rows import read_rows

BOX_COLUMNS = ("left", "top", "width", "height")

_FIX = "correct the line, or delete it"


def read_boxes(path: str | os.PathLike[str]) -> dict[str, list[Box]]:
    """Read a boxes file.

    A file written by `dhm align` will do: rows of status no_face, unreadable or bad_box are skipped, and so are rows
    whose four numbers are empty.

    Args:
        path: a table of any kind that `io.rows` reads, with the columns path, left, top, width, height in any order;
            others are ignored.

    Returns:
        For each path as written in the file, in file order, its boxes (left, top, width, height), 0-based photo pixels.

    Raises:
        InputError: the file cannot be read, lacks a column, or a row is malformed; names the row.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder", "pass a table that dhm align has written; .pts files have no boxes")
    boxes: defaultdict[str, list[Box]] = defaultdict(list)
    for where, cells in read_rows(path, ("path", *BOX_COLUMNS), ("status",), "--boxes"):
        if not _has_no_box(cells, where):
            boxes[_photo(cells, where)].append(_box(cells, where))
    return dict(boxes)


def _has_no_box(cells: dict[str, Any], where: str) -> bool:
    if cells.get("status") in (NO_FACE, UNREADABLE, BAD_BOX):
        return True
    if not set(BOX_COLUMNS) & set(cells):
        raise InputError(f"{where}: expected four numbers {','.join(BOX_COLUMNS)}, found none", hint=_FIX)
    # Text has empty cells, JSON and Parquet have null, arrays have NaN.
    return all(cells.get(name, 0) in ("", None) or cells[name] != cells[name] for name in BOX_COLUMNS)


def _photo(cells: dict[str, Any], where: str) -> str:
    if not cells.get("path"):
        raise InputError(f"{where}: the path is empty", hint="name the photo, or delete the line")
    return str(cells["path"])


def _box(cells: dict[str, Any], where: str) -> Box:
    try:
        left, top, width, height = (float(cells[name]) for name in BOX_COLUMNS)
    except (KeyError, TypeError, ValueError) as error:
        found = ",".join(str(cells.get(name)) for name in BOX_COLUMNS)
        raise InputError(f"{where}: expected four numbers left,top,width,height, found {found}", hint=_FIX) from error
    if not all(map(math.isfinite, (left, top, width, height))) or width <= 0 or height <= 0:
        raise InputError(f"{where}: expected a width and a height above 0, found {width:g} x {height:g}", hint=_FIX)
    return left, top, width, height


def match_boxes(
    photos: Sequence[Path], boxes: dict[str, list[Box]], folder: Path
) -> tuple[dict[Path, list[Box]], list[str]]:
    """Find the boxes of each photo.

    A path of the boxes file names a photo as given, else relative to `folder`, else, where that is unambiguous, by the
    file name alone.

    Args:
        photos: the photos.
        boxes: as read by `read_boxes`.
        folder: the folder of the boxes file.

    Returns:
        Boxes by photo, only for photos that have some, and the paths of the boxes file that name none of the photos.
    """
    by_place = {os.path.abspath(photo): photo for photo in photos}
    by_name: defaultdict[str, list[Path]] = defaultdict(list)
    for photo in photos:
        by_name[photo.name].append(photo)
    matched: defaultdict[Path, list[Box]] = defaultdict(list)
    left_over: defaultdict[str, list[str]] = defaultdict(list)
    for path, its_boxes in boxes.items():
        named = by_place.get(os.path.abspath(path)) or by_place.get(os.path.abspath(folder / path))
        if named is not None:
            matched[named] += its_boxes
        else:
            left_over[os.path.basename(path)].append(path)
    unused: list[str] = []
    for name, paths in left_over.items():
        candidates = [photo for photo in by_name[name] if photo not in matched] if len(by_name[name]) == 1 else []
        if candidates and len(paths) == 1:
            matched[candidates[0]] += boxes[paths[0]]
        else:
            unused += paths
    return dict(matched), unused
