"""A page of all faces, for looking at: one self-contained HTML file that runs offline under a strict policy.

The file is written as a table is, face by face: first the page, its style and its script, then a data block with a line
of JSON for each face, picture included. So memory does not grow, and an interrupted run goes on. Names of files are
text of strangers: `<` is escaped in the data, and the script puts text into the page as text alone.
"""

import base64
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

import numpy as np

from dhm_cli.dense.face import packaged_face
from dhm_cli.drawing.faces import GROUP_COLOURS
from dhm_cli.geometry.landmarks import CURVES, GROUPS, NUM_LANDMARKS, face_size
from dhm_cli.inference.aligner import Face
from dhm_cli.inference.columns import Layout, Record, cell
from dhm_cli.writers.row_files import OtherColumns, ReadRow, RowFile

# The ending of a page's name.
ENDING = ".html"
_TEMPLATE, _STYLE, _SCRIPTS = "face_page.html.j2", "face_page.css", ("turning_face.js", "face_page.js")
_BEGINNING = (
    b'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="generator" content="dhm gallery">'
)
# Where the lines of the faces go, and the model of dense faces; no part of the page has such text.
_SPLIT = "%% data %%"
# Landmarks in a tile are whole numbers up to this.
_GRID = 1000
# The model of dense faces has its vertices in steps of so many millimetres.
_STEP = 0.02


def is_page(out: str | os.PathLike[str]) -> bool:
    """Whether an output of this name is such a page."""
    return os.fspath(out).lower().endswith(ENDING)


class FacePage(RowFile):
    """The page being written, a `Writer`; see `RowFile`. Its columns are its own.

    Each face of a photo needs its `Face.tile`; of a video those faces are shown that have one. A `Face.surface` of the
    model that comes with dhm can be turned on the page; others are not passed on, for they may have other licences.
    """

    def __init__(self, out: Path, layout: Layout, resume: bool) -> None:
        self._lines = PageLines()
        super().__init__(out, _TileLayout((), layout.keys), resume, self._lines)

    def complete(self) -> None:
        """End the page."""
        try:
            if not self._file.closed:
                _, middle, end = _page()
                self._file.write(middle + (_model() if self._lines.have_meshes else b"") + end)
        except OSError as error:
            raise self._no_room(error) from error
        super().complete()


class PageLines:
    """The lines of the page, an `Encoding`.

    Attributes:
        have_meshes: whether some of those written or read are of a face that can be turned.
    """

    have_meshes = False

    def start(self, layout: Layout) -> bytes:
        """The page up to the first face."""
        return _page()[0]

    def encode(self, layout: Layout, records: Sequence[Record]) -> bytes:
        """A line for each face of a photo, or for what became of it."""
        self.have_meshes |= any("mesh" in record for record in records)
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
            self.have_meshes |= "mesh" in record
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
            **_mesh(face),
        }


def _mesh(face: Face) -> Record:
    """Its dense face, where it can be turned: pose in the tile, a matrix of rows and a place; hundredths of weights."""
    surface, tile = face.surface, face.tile
    if surface is None or tile is None or surface.face is not packaged_face():
        return {}
    scale = _GRID * np.ptp(tile.landmarks[:, 0]) / max(np.ptp(face.landmarks[:, 0]), 1e-6)
    shift = _GRID * tile.landmarks[0, :2] - scale * face.landmarks[0, :2]
    matrix = scale * surface.scale * surface.rotation * [[1], [-1], [1]]
    pose = np.concatenate([matrix.ravel(), scale * surface.translation + [*shift, 0]])
    weights = np.concatenate([surface.identity, surface.expression])
    return {"mesh": [np.nan_to_num(pose).round(4).tolist(), np.nan_to_num(100 * weights).round().astype(int).tolist()]}


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
def _model() -> bytes:
    """The model of the faces that can be turned: its mean and its modes, and the triangles."""
    face = packaged_face()
    modes = np.concatenate([face.mean[..., None], face.identity, face.expression], axis=2).T
    packed = zlib.compress((modes / _STEP).round().astype("<i2").tobytes() + face.triangles.astype("<u2").tobytes())
    model = {
        "licence": files("dhm_cli").joinpath("dense/ict_face.LICENSE.txt").read_text(encoding="utf-8"),
        "vertices": len(face.mean),
        "modes": len(modes),
        "step": _STEP,
        "data": base64.b64encode(packed).decode(),
    }
    return b'<script type="application/json" id="model">' + _json(model) + b"</script>\n"


@cache
def _page() -> tuple[bytes, bytes, bytes]:
    """The page before the lines of the faces, between them and the model, and after it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    folder = Path(__file__).parent
    style, *scripts = ((folder / name).read_text(encoding="utf-8") for name in (_STYLE, *_SCRIPTS))
    script = "\n".join(scripts)
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
    before, middle, after = text.encode().split(_SPLIT.encode())
    return before, middle, after


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
