"""A page of all faces, for looking at: one self-contained HTML file that runs offline under a strict policy.

The file is written as a table is, face by face: first the page, its style and its script, then a data block with a line
of JSON for each face, picture included. So memory does not grow, and an interrupted run goes on. Names of files are
text of strangers: `<` is escaped in the data, and the script puts text into the page as text alone.
"""

import base64
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from dhm_cli.drawing.faces import GROUP_COLOURS
from dhm_cli.geometry.landmarks import CURVES, GROUPS, NUM_LANDMARKS, face_size
from dhm_cli.inference.aligner import Face
from dhm_cli.inference.columns import Layout, Record, cell
from dhm_cli.writers.row_files import OtherColumns, ReadRow, RowFile

# The ending of a page's name.
ENDING = ".html"
_TEMPLATE, _STYLE, _SCRIPT = "face_page.html.j2", "face_page.css", "face_page.js"
_BEGINNING = (
    b'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="generator" content="dhm gallery">'
)
# Where the lines of the faces go; no part of the page has such text.
_SPLIT = "%% faces %%"
# Landmarks in a tile are whole numbers up to this.
_GRID = 1000


def is_page(out: str | os.PathLike[str]) -> bool:
    """Whether an output of this name is such a page."""
    return os.fspath(out).lower().endswith(ENDING)


class FacePage(RowFile):
    """The page being written, a `Writer`; see `RowFile`. Its columns are its own.

    Each face of a photo needs its `Face.tile`; of a video those faces are shown that have one.
    """

    def __init__(self, out: Path, layout: Layout, resume: bool) -> None:
        super().__init__(out, _TileLayout((), layout.keys), resume, PageLines())

    def complete(self) -> None:
        """End the page."""
        try:
            if not self._file.closed:
                self._file.write(_page()[1])
        except OSError as error:
            raise self._no_room(error) from error
        super().complete()


class PageLines:
    """The lines of the page, an `Encoding`."""

    def start(self, layout: Layout) -> bytes:
        """The page up to the first face."""
        return _page()[0]

    def encode(self, layout: Layout, records: Sequence[Record]) -> bytes:
        """A line for each face of a photo, or for what became of it."""
        return b"".join(_json(record) + b"\n" for record in records)

    def read(self, layout: Layout, file: IO[bytes]) -> Iterator[ReadRow]:
        """The lines of a page, up to any damage."""
        start = _page()[0]
        found, at = file.read(len(start)), len(start)
        if found != start:
            if start.startswith(found):  # torn
                return
            raise OtherColumns
        for line in file:
            at += len(line)
            try:
                record = json.loads(line)
                identity, status = tuple(record[key.name] for key in layout.keys), record["status"]
            except (ValueError, TypeError, KeyError):  # torn, or the end of the page
                return
            yield ReadRow(identity, status, at)

    def is_ours(self, path: Path) -> bool:
        """Whether a file begins as such a page, or holds nothing."""
        try:
            with path.open("rb") as file:
                return _BEGINNING.startswith(file.read(len(_BEGINNING)))
        except OSError:
            return False


class _TileLayout(Layout):
    """What the page knows of a face."""

    def _of_face(self, keys: Record, number: int, face: Face) -> Record:
        yaw, pitch, roll = face.pose
        record = super()._of_face(keys, number, face)
        if face.track is not None:
            record["track"] = face.track
            if face.tile is None:
                return record
        return {
            **record,
            "confidence": cell(face.confidence, float, 3),
            "score": cell(face.score, float, 3),
            "yaw": cell(yaw, float, 1),
            "pitch": cell(pitch, float, 1),
            "roll": cell(roll, float, 1),
            "size": cell(float(face_size(face.landmarks)), float, 1),
            "sigma": None if face.sigma is None else cell(float(face.sigma.mean()), float, 2),
            "box": [cell(value, float, 1) for value in face.box],
            "hidden": None if face.visible is None else np.flatnonzero(face.visible < 0.5).tolist(),
            "points": None if face.tile is None else _whole(face.tile.landmarks),
            "webp": None if face.tile is None else base64.b64encode(face.tile.webp).decode(),
        }


def _whole(landmarks: Any) -> list[int]:
    """x and y of the landmarks in turns, in thousandths of the tile."""
    flat: list[int] = (
        np.nan_to_num(_GRID * landmarks[:, :2]).clip(-_GRID, 2 * _GRID).round().astype(int).ravel().tolist()
    )
    return flat


def _json(value: Any) -> bytes:
    """JSON on one line, in ASCII, that cannot end the script element it stands in."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c").encode()


@cache
def _page() -> tuple[bytes, bytes]:
    """The page before and after the lines of the faces."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    folder = Path(__file__).parent
    style, script = ((folder / name).read_text(encoding="utf-8") for name in (_STYLE, _SCRIPT))
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(_TEMPLATE).render(
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        scheme=Markup(_json(_scheme()).decode()),
        split=_SPLIT,
    )
    before, after = text.split(_SPLIT)
    return before.encode(), after.encode()


def _hash(text: str) -> str:
    """By which a Content-Security-Policy lets a style or a script pass."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _scheme() -> list[dict[str, Any]]:
    """How landmarks are drawn: of each group its colour, its landmarks, and its curves."""
    scheme = []
    for name, group in GROUPS.items():
        first, stop, _ = group.indices(NUM_LANDMARKS)
        curves = [curve for curve in CURVES if first <= curve[0] < stop]
        colour = "#{:02x}{:02x}{:02x}".format(*GROUP_COLOURS[name])
        scheme.append({"colour": colour, "first": first, "stop": stop, "curves": curves})
    return scheme
