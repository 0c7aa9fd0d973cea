"""What is written of each face: groups of columns, and the keys that say of which photo they are.

A new group of columns is one line of `GROUPS`, and then every format has it, and `Face.to_dict` (which is why `Face`
cannot be imported here). All formats hold equal numbers, rounded to
as many decimals as the group says.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dhm_cli.dense.expressions import SEEN_EXPRESSIONS
from dhm_cli.dense.face import MOST_EXPRESSION, MOST_IDENTITY
from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import NUM_LANDMARKS
from dhm_cli.geometry.pose import ANGLES, Angles
from dhm_cli.inference.results import DOUBTFUL, OK, PhotoResult

Cell = str | int | float | None
# A row of an output: keys, face, status, then cells and (nested) lists of cells by the names of `Layout.fields`. The
# row of a photo without a face ends with its status.
Record = dict[str, Any]
CellType = type[float] | type[int] | type[str]


class Field(NamedTuple):
    """One thing that formats with lists hold of a face: a cell, or where it has a shape, an array of cells."""

    name: str
    kind: CellType
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Group:
    """Columns that belong together.

    Attributes:
        name: as in `--columns`.
        columns: names in tables; without a `shape` also in formats with lists, where each is a cell.
        of: the values of a `Face` in the order of `columns`, or an array of `shape`; None, or NaN for a single value,
            where they are not known.
        shape: of the array that formats with lists hold under the group's name, such as (68, 3). In a table a second
            axis is the slower one: x_0 … x_67, then y_0 … y_67.
        kind: of every value.
        decimals: of every float.
        default: whether it is written unless other groups are asked for.
    """

    name: str
    columns: tuple[str, ...]
    of: Callable[[Any], Iterable[Any] | None]
    shape: tuple[int, ...] = ()
    kind: CellType = float
    decimals: int = 3
    default: bool = False

    @property
    def fields(self) -> list[Field]:
        """What formats with lists hold of it."""
        if self.shape:
            return [Field(self.name, self.kind, self.shape)]
        return [Field(name, self.kind) for name in self.columns]

    def record(self, face: Any, rounded: bool = True) -> Record:
        """Its part of the record of a `Face`, rounded as all formats have it, or as it is."""
        values = self.of(face)
        if values is None:
            return dict.fromkeys(field.name for field in self.fields)
        decimals = self.decimals if rounded else None
        if self.shape:
            return {self.name: _array(values, self.kind, decimals)}
        cells = [cell(value, self.kind, decimals) for value in values]
        return dict(zip(self.columns, cells, strict=True))

    def flat(self, record: Record) -> list[Cell]:
        """Its cells of a record, in the order of `columns`; None where the record does not know them."""
        if not self.shape:
            return [record.get(name) for name in self.columns]
        values = record.get(self.name)
        if values is None:
            return [None] * len(self.columns)
        return list(chain(*zip(*values, strict=True))) if len(self.shape) > 1 else values


def _array(values: Any, kind: CellType, decimals: int | None) -> list[Any]:
    """An array as nested lists of cells; all at once where it can be, since it is half the time of an output."""
    array = np.asarray(values)
    if kind is not float:
        return array.astype(kind).tolist()
    rounded: NDArray[Any] = array.astype(np.float64)
    if decimals is not None:
        rounded = np.round(rounded, decimals)
    unknown = np.isnan(rounded)
    if unknown.any():
        rounded = rounded.astype(object)
        rounded[unknown] = None
    return rounded.tolist()


def cell(value: Any, kind: CellType, decimals: int | None) -> Cell:
    """One value as all formats have it: rounded, unless `decimals` is None; None where it is not known."""
    if value is None or kind is not float:
        return None if value is None else kind(value)
    return None if math.isnan(value) else float(value) if decimals is None else round(float(value), decimals)


def _landmark_columns(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}_{k}" for name in names for k in range(NUM_LANDMARKS))


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}_{k}" for k in range(count))


def _of_crop(name: str) -> Callable[[Any], Any]:
    """A value of `Face.crop`; None where there is no crop."""
    return lambda face: face.crop and getattr(face.crop, name)


def _of_surface(name: str, length: int = 0) -> Callable[[Any], Any]:
    """A value of `Face.surface`, of a length where the model has fewer; None where there is no surface."""

    def value(face: Any) -> Any:
        found = face.surface and getattr(face.surface, name)
        return found if found is None or not length else np.pad(found, (0, length - len(found)), constant_values=np.nan)

    return value


def _blendshapes(face: Any) -> list[float] | None:
    weights = face.surface and face.surface.blendshapes
    return [*weights.values()] if weights else None


# Row and column of the affine map of a crop.
_MATRIX = tuple(f"crop_matrix_{row}{column}" for column in range(3) for row in range(2))
_ROTATION = tuple(f"rotation_{row}{column}" for column in range(3) for row in range(3))
_EXPRESSION = _numbered("expression", MOST_EXPRESSION)

GROUPS = (
    Group("track", ("track",), lambda face: [face.track], kind=int),
    Group("score", ("score",), lambda face: [face.score], default=True),
    Group("confidence", ("confidence",), lambda face: [face.confidence], default=True),
    Group("box", ("left", "top", "width", "height"), lambda face: face.box, default=True),
    Group("pose", ("yaw", "pitch", "roll"), lambda face: face.pose, default=True),
    Group("pose_300w_lp", ("pitch_300w_lp", "yaw_300w_lp", "roll_300w_lp"), lambda face: face.pose_300w_lp),
    Group("landmarks", _landmark_columns(*"xyz"), lambda face: face.landmarks, (NUM_LANDMARKS, 3), default=True),
    Group("sigma", _landmark_columns("sigma"), lambda face: face.sigma, (NUM_LANDMARKS,)),
    Group("visible", _landmark_columns("visible"), lambda face: face.visible, (NUM_LANDMARKS,)),
    Group("crop", ("crop",), lambda face: face.crop and [face.crop.path], kind=str),
    Group("crop_matrix", _MATRIX, _of_crop("matrix"), (2, 3), decimals=9),
    Group("scale", ("scale",), lambda face: face.surface and [face.surface.scale], decimals=6),
    Group("rotation", _ROTATION, _of_surface("rotation"), (3, 3), decimals=6),
    Group("translation", ("t_x", "t_y", "t_z"), _of_surface("translation")),
    Group("identity", _numbered("identity", MOST_IDENTITY), _of_surface("identity", MOST_IDENTITY), (MOST_IDENTITY,)),
    Group("expression", _EXPRESSION, _of_surface("expression", MOST_EXPRESSION), (MOST_EXPRESSION,)),
    Group("blendshapes", SEEN_EXPRESSIONS, _blendshapes),
    Group("crop_landmarks", _landmark_columns("crop_x", "crop_y", "crop_z"), _of_crop("landmarks"), (NUM_LANDMARKS, 3)),
)
COLUMN_GROUPS = {group.name: group for group in GROUPS}
# Known where crops are saved.
CROP_COLUMNS = ("crop", "crop_matrix", "crop_landmarks")
# Known where surfaces are fitted; "parameters" stands for the first five.
PARAMETERS = ("scale", "rotation", "translation", "identity", "expression")
SURFACE_COLUMNS = (*PARAMETERS, "blendshapes")
DEFAULT_COLUMNS = tuple(group.name for group in GROUPS if group.default)


class Key(NamedTuple):
    """A part of what tells photos, or frames, apart: an attribute of their `PhotoResult`."""

    name: str
    kind: CellType = str
    decimals: int = 3


PHOTO_KEYS = (Key("path"),)
FRAME_KEYS = (Key("path"), Key("frame", int), Key("time", float, 4))
# The values of the keys of one photo, as all formats have them.
Identity = tuple[Cell, ...]


@dataclass(frozen=True)
class Layout:
    """What an output holds: keys, face, status, then groups of columns.

    Attributes:
        names: of the groups, from `COLUMN_GROUPS`.
        keys: what tells photos apart.

    Raises:
        InputError: a name is not known, or given twice.
    """

    names: Sequence[str] = DEFAULT_COLUMNS
    keys: tuple[Key, ...] = PHOTO_KEYS

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in COLUMN_GROUPS:
                raise InputError(
                    f"--columns {name}: not known", hint=f"known are {', '.join(COLUMN_GROUPS)}, parameters"
                )
        if len(set(self.names)) < len(self.names):
            raise InputError(f"--columns {','.join(self.names)}: a name is given twice", hint="give each once")

    @property
    def groups(self) -> list[Group]:
        """The groups of columns."""
        return [COLUMN_GROUPS[name] for name in self.names]

    @property
    def fields(self) -> list[Field]:
        """All that formats with lists hold of a face."""
        keys = [Field(key.name, key.kind) for key in self.keys]
        groups = [field for group in self.groups for field in group.fields]
        return [*keys, Field("face", int), Field("status", str), *groups]

    @property
    def header(self) -> list[str]:
        """Names of all columns of a table."""
        keys = [key.name for key in self.keys]
        return [*keys, "face", "status", *(column for group in self.groups for column in group.columns)]

    def identity(self, result: PhotoResult) -> Identity:
        """What tells a photo apart."""
        return tuple(cell(getattr(result, key.name), key.kind, key.decimals) for key in self.keys)

    def records(self, result: PhotoResult, faces: Sequence[Any]) -> list[Record]:
        """The rows of one photo: one for each `Face` and for each useless box, else one of its status."""
        keys = dict(zip((key.name for key in self.keys), self.identity(result), strict=True))
        rows = [self._of_face(keys, number, face) for number, face in enumerate(faces)]
        rows += [{**keys, "face": None, "status": result.status} for _ in result.problems]
        return rows or [{**keys, "face": None, "status": result.status}]

    def _of_face(self, keys: Record, number: int, face: Any) -> Record:
        record = {**keys, "face": number, "status": DOUBTFUL if face.doubtful else OK}
        for group in self.groups:
            record |= group.record(face)
        return record

    def result(self, identity: Identity, statuses: Sequence[str]) -> PhotoResult:
        """What became of a photo, from the rows that were written of it."""
        doubtful = statuses.count(DOUBTFUL)
        status = next((status for status in statuses if status not in (OK, DOUBTFUL)), OK)
        keys: dict[str, Any] = dict(zip((key.name for key in self.keys), identity, strict=True))
        return PhotoResult(**keys, status=status, faces=statuses.count(OK) + doubtful, doubtful=doubtful)


def with_crops(columns: Sequence[str], are_cropped: bool) -> tuple[str, ...]:
    """Groups of columns, after the default ones those of the crops where there are some.

    Raises:
        InputError: columns of crops, and there are none.
    """
    missing = [name for name in CROP_COLUMNS if name in columns and not are_cropped]
    if missing:
        raise InputError(f"--columns {missing[0]}: no crops are asked for", hint="pass --crops and a folder")
    are_default = tuple(name for name in columns if name != "track") == DEFAULT_COLUMNS
    return (*columns, *CROP_COLUMNS) if are_cropped and are_default else tuple(columns)


def with_angles(columns: Sequence[str], angles: Angles) -> tuple[str, ...]:
    """Groups of columns, "parameters" being `PARAMETERS`, with the head pose in an order of angles.

    Raises:
        InputError: an unknown order.
    """
    if angles not in ANGLES:
        raise InputError(f"--angles: expected {' or '.join(ANGLES)}, found {angles!r}")
    spelled = chain(*(PARAMETERS if name == "parameters" else (name,) for name in columns))
    return tuple("pose_300w_lp" if name == "pose" and angles == "300w-lp" else name for name in spelled)
