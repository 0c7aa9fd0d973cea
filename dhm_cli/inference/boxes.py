"""Face boxes given by the user: a CSV file with the columns path, left, top, width, height, one row per box."""

import csv
import math
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from dhm_cli.errors import InputError
from dhm_cli.inference.results import BAD_BOX, NO_FACE, UNREADABLE

BOX_COLUMNS = ("left", "top", "width", "height")

Box = tuple[float, float, float, float]

_FIX = "correct the line, or delete it"


def read_boxes(path: str | os.PathLike[str]) -> dict[str, list[Box]]:
    """Read a boxes file.

    A table written by `dhm align` will do: rows of status no_face, unreadable or bad_box are skipped, and so are rows
    whose four numbers are empty.

    Args:
        path: UTF-8 CSV with a header that names path, left, top, width, height in any order; other columns are ignored.

    Returns:
        For each path as written in the file, in file order, its boxes (left, top, width, height), 0-based photo pixels.

    Raises:
        InputError: the file cannot be read, lacks a column, or a line is malformed; names the line.
    """
    boxes: defaultdict[str, list[Box]] = defaultdict(list)
    try:
        with Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in ("path", *BOX_COLUMNS) if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{path}: the header lacks {', '.join(missing)}", hint="it must name path,left,top,width,height"
                )
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if _has_no_box(row):
                    continue
                boxes[_photo(row, where)].append(_box(row, where))
    except OSError as error:
        hint = "check the name given to --boxes and the permissions"
        raise InputError(f"{path}: cannot be read: {error.strerror or error}", hint=hint) from error
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV file: {error}", hint="save it as UTF-8 CSV") from error
    return dict(boxes)


def _has_no_box(row: dict[str, str]) -> bool:
    return row.get("status") in (NO_FACE, UNREADABLE, BAD_BOX) or all(row[name] == "" for name in BOX_COLUMNS)


def _photo(row: dict[str, str], where: str) -> str:
    if not row["path"]:
        raise InputError(f"{where}: the path is empty", hint="name the photo, or delete the line")
    return row["path"]


def _box(row: dict[str, str], where: str) -> Box:
    try:
        left, top, width, height = (float(row[name]) for name in BOX_COLUMNS)
    except (TypeError, ValueError) as error:
        found = ",".join(str(row[name]) for name in BOX_COLUMNS)
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
