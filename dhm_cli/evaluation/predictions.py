"""Landmarks that any method has predicted, read from the kinds of files that people have."""

import csv
import io
import json
import os
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhm_cli.datasets.folders import readable, split_suffix, survey, walk
from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import NUM_LANDMARKS
from dhm_cli.geometry.pose import matrix_to_euler, yaw_pitch_roll_to_matrix
from dhm_cli.inference.columns import COLUMN_GROUPS
from dhm_cli.inference.results import BAD_BOX, NO_FACE, UNREADABLE
from dhm_cli.io.images import read_bytes
from dhm_cli.io.pts import FARTHEST, read_pts
from dhm_cli.io.rows import read_rows
from dhm_cli.writers.pts_folder import INDEX, read_index

_KINDS = "expected a file that `dhm align` writes, a .csv, .json, .npy or .npz file, or a folder of .pts files"
_CSV = "expected UTF-8 CSV with a header as `dhm align` writes: path, x_0 … x_67, y_0 … y_67 and, if known, z_0 … z_67"
_JSON = 'expected {"photo.jpg": points} or [{"path": "photo.jpg", "landmarks": points}], points being 68 lists of x, y'
_ARRAYS = "expected points (N, 68, 2 or 3); in an .npz also `names` (N,) and, if known, `pose` (N, 3) in degrees"
_CONVERT = "convert the points to the order of 300-W, jaw 0-16 to inner lips 60-67"
_OTHER_FILES = {
    (".h5", ".hdf5"): ("a store, not predictions", "pass it with --data"),
    (".safetensors", ".onnx", ".pt", ".pth", ".ckpt"): ("a network, not predictions", "pass it without --predictions"),
    (".pts",): ("a single .pts file", "pass the folder of all of them"),
}  # fmt: skip
_NAME_KEYS = ("path", "name", "image", "file")
_POINT_KEYS = ("landmarks", "points")
_POSE = ("pitch", "yaw", "roll")
# What a table of `dhm align` has beside its points, whatever else was added or left out.
_OF_ALIGN = ("face", "status")
# What it says of a row that is no face.
_WITHOUT_FACE = (NO_FACE, UNREADABLE, BAD_BOX)


@dataclass(frozen=True, eq=False)
class Predictions:
    """One row a predicted face.

    Attributes:
        names: the photos' paths as written in the file (bytes that are no text as escapes), repeated for several faces
            of one photo; None for an .npy file, which has none.
        landmarks: (M, 68, 2 or 3), 0-based photo pixels.
        pose: (M, 3) pitch, yaw, roll in degrees, in the convention of 300W-LP (`geometry.pose.matrix_to_euler`), a row
            of NaN for a face without; None where the file gives none.
    """

    names: tuple[str, ...] | None
    landmarks: NDArray[np.float64]
    pose: NDArray[np.float64] | None


def read_predictions(path: Path) -> Predictions:
    """Read the 68 points that a method has predicted for each face.

    Points are x, y and, for all faces or none, z (same unit, toward the viewer), in 0-based photo pixels, but 1-based
    in .pts files, whose coordinates are taken as they are. By the suffix of the file:

    - CSV as `dhm align` writes, rows without a face left out. The path may also stand under name, image or file; z_*
      and the pose may be missing; other columns are ignored. The pose is pitch_300w_lp, yaw_300w_lp, roll_300w_lp, or
      pitch, yaw, roll, taken for the angles of 300W-LP too, but for a table of `dhm align` with yaw before pitch:
      those are the angles as people see them (`geometry.pose.matrix_to_yaw_pitch_roll`) and are converted.
    - JSON: {name: points or list of points}, or a list of objects with path (or name, image, file), landmarks (or
      points) and, if known, pose [pitch, yaw, roll], or the angles one by one as in CSV. No points (null, []) are no
      face.
    - JSON lines and Parquet: such objects, one a line or row.
    - .npy (N, 68, 2 or 3) without names.
    - .npz: `names` (or `path`) (N,), one array of points (N, 68, 2 or 3), of several that called `landmarks`, and, if
      known, `pose` (N, 3), or the angles one by one.
    - a folder of .pts files at any depth; a face's name is the path below the folder, or the photo's in `faces.csv`.

    `pose` is pitch, yaw, roll of 300W-LP. Points may be transposed, (2 or 3, 68), but in CSV. Rows without a face in
    files that `dhm align` wrote are left out.

    Raises:
        InputError: not such a file, not 68 points, no face, or numbers that are no pixels or degrees, NaN included.
    """
    if os.path.isdir(path):
        return _checked(path, *_read_pts_folder(path))
    suffix = split_suffix(path.name)[1]
    for suffixes, (what, hint) in _OTHER_FILES.items():
        if suffix in suffixes:
            raise InputError(f"{path}: {what}", hint)
    readers = {".csv": _read_csv, ".json": _read_json, ".npy": _read_arrays, ".npz": _read_arrays}
    if suffix in (".jsonl", ".parquet"):
        return _checked(path, *_read_objects(path))
    if suffix not in readers:
        raise InputError(f"{path}: not a kind of file that predictions come in", _KINDS)
    content = read_bytes(path)
    if not content:
        raise InputError(f"{path}: the file is empty", _KINDS)
    return _checked(path, *readers[suffix](path, content))


_Faces = tuple[Sequence[str] | None, NDArray[np.float64], NDArray[np.float64] | None]


def _checked(
    path: Path, names: Sequence[str] | None, landmarks: NDArray[np.float64], pose: NDArray[np.float64] | None
) -> Predictions:
    """Predictions whose every name, landmark and angle can be used."""
    if not len(landmarks):
        raise InputError(f"{path}: no face", "give the predictions of at least one face")
    if names is not None:
        names = tuple(_as_text(path, row, name) for row, name in enumerate(names))
    _refuse_bad(path, names, ~(np.abs(landmarks) < FARTHEST).reshape(len(landmarks), -1), "pixel positions")
    if pose is not None:
        pose = None if _unknown_pose(path, names, pose).all() else pose
    return Predictions(names, landmarks, pose)


def _unknown_pose(path: Path, names: Sequence[str] | None, pose: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which faces have no pose, (M,); one that has must have three angles."""
    unknown: NDArray[np.bool_] = np.asarray(np.isnan(pose).all(axis=1))
    # Angles beyond half a turn occur: one yaw of AFLW2000-3D is -351 degrees.
    _refuse_bad(path, names, ~(np.abs(pose) <= 360) & ~unknown[:, None], "angles in degrees")
    return unknown


def _as_text(path: Path, row: int, name: str) -> str:
    try:
        text = readable(name)
    except UnicodeEncodeError:
        text = ""
    if not text:
        raise InputError(f"{path}: face {row}, counted from 0, has no readable name", "name the photo by its path")
    return text


def _refuse_bad(path: Path, names: Sequence[str] | None, bad: NDArray[np.bool_], kind: str) -> None:
    """Name the first of the faces with bad numbers, (M, numbers of a face), if there are some."""
    rows = np.flatnonzero(bad.any(axis=1))
    if len(rows):
        face = f"row {rows[0]}, counted from 0" if names is None else repr(names[rows[0]])
        raise InputError(
            f"{path}: {bad[rows[0]].sum()} of the {bad.shape[1]} numbers of {face} are no {kind} (empty, NaN, infinite "
            f"or absurd), as in {len(rows)} of {len(bad)} faces",
            "in an .npz file with `names`, leave out the faces that the method did not find"
            if names is None
            else "leave out the rows of faces that the method did not find",
        )


def _as_68(points: NDArray[Any], where: str, expected: str) -> NDArray[np.float64]:
    """Points as (..., 68, 2 or 3), from that or from the transposed."""
    if points.ndim >= 2 and points.shape[-1] not in (2, 3):
        points = points.swapaxes(-1, -2)
    if points.dtype.kind not in "fiu" or points.ndim < 2 or points.shape[-1] not in (2, 3):
        raise InputError(f"{where}: {points.dtype} of shape {points.shape}, not points", expected)
    if points.shape[-2] != NUM_LANDMARKS:
        raise _other_scheme(where, points.shape[-2])
    return points.astype(np.float64)


def _other_scheme(where: str, count: int) -> InputError:
    return InputError(f"{where}: {count} points a face, but the 68-point scheme of 300-W is needed", _CONVERT)


def _read_csv(path: Path, content: bytes) -> _Faces:
    if b"\0" in content:
        raise InputError(f"{path}: not a text file in UTF-8", _CSV)
    rows = _csv_rows(path, content.decode("utf-8-sig", "surrogateescape"))
    header = [cell.strip() for cell in next(rows, (0, []))[1]]
    axes = "xyz" if any(re.fullmatch(r"z_\d+", cell) for cell in header) else "xy"
    name = next((key for key in _NAME_KEYS if key in header), "path")
    points = [f"{axis}_{k}" for axis in axes for k in range(NUM_LANDMARKS)]
    pose = list(_pose_names(header))
    _check_header(path, header, [name, *points, *pose])
    name_at, status_at = header.index(name), header.index("status") if "status" in header else None
    pick = itemgetter(*(header.index(cell) for cell in points + pose))
    names, numbers = [], []
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {line}: {len(row)} cells under a header of {len(header)}",
                "write the file again, it may be cut off; put names with commas in quotes",
            )
        if status_at is None or row[status_at] not in _WITHOUT_FACE:
            names.append(row[name_at])
            numbers.append(_numbers(pick(row), f"{path}, line {line}"))
    table = np.array(numbers).reshape(len(numbers), len(points) + len(pose))
    landmarks = table[:, : len(points)].reshape(-1, len(axes), NUM_LANDMARKS).transpose(0, 2, 1)
    angles = table[:, len(points) :] if pose else None
    if angles is not None and _as_people_see(header):
        angles = _as_300w_lp(path, names, angles)
    return names, np.ascontiguousarray(landmarks), angles


def _pose_names(columns: Collection[str]) -> tuple[str, ...]:
    """The columns of pitch, yaw, roll among others; none where they lack one."""
    known = (COLUMN_GROUPS["pose_300w_lp"].columns, _POSE)
    return next((names for names in known if set(names) <= set(columns)), ())


def _as_people_see(columns: Sequence[str]) -> bool:
    """Whether the angles are those of `dhm align` with yaw first; other tables, also its own of old, are of 300W-LP."""
    ours = _pose_names(columns) == _POSE and set(_OF_ALIGN) <= set(columns)
    return ours and columns.index("yaw") < columns.index("pitch")


def _as_300w_lp(path: Path, names: Sequence[str] | None, angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pitch, yaw, roll (M, 3) of 300W-LP, degrees, from those as people see them."""
    _unknown_pose(path, names, angles)
    pitch, yaw, roll = np.radians(angles).T
    return np.degrees(matrix_to_euler(yaw_pitch_roll_to_matrix(np.stack([yaw, pitch, roll], axis=1))))


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, with the numbers of their last lines."""
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV file: {error}", _CSV) from error


def _check_header(path: Path, header: list[str], wanted: list[str]) -> None:
    counts = Counter(header)
    points = sum(bool(re.fullmatch(r"x_\d+", name)) for name in header)
    if points not in (0, NUM_LANDMARKS):
        raise _other_scheme(str(path), points)
    missing = [name for name in wanted if not counts[name]]
    if missing:
        more = f" and {len(missing) - 3} more columns" if len(missing) > 3 else ""
        raise InputError(f"{path}: the header lacks {', '.join(missing[:3])}{more}", _CSV)
    twice = [name for name in wanted if counts[name] > 1]
    if twice:
        raise InputError(f"{path}: {counts[twice[0]]} columns are named {twice[0]}", "leave one of them")


def _numbers(cells: Sequence[str], where: str) -> NDArray[np.float64]:
    """The numbers in some cells of a row, NaN in an empty one."""
    try:
        return np.array([float(cell or "nan") for cell in cells])
    except ValueError as error:
        raise InputError(f"{where}: expected numbers: {error}", "correct or delete the line") from error


def _read_json(path: Path, content: bytes) -> _Faces:
    try:
        data = json.loads(content, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a readable JSON file: {error}", _JSON) from error
    if not isinstance(data, dict | list):
        raise InputError(f"{path}: neither an object nor a list", _JSON)
    if isinstance(data, list):
        return _faces_of(path, data)
    return _stacked(path, list(_json_object(path, data)))


def _read_objects(path: Path) -> _Faces:
    wanted = (*_NAME_KEYS, *_POINT_KEYS, *_OF_ALIGN, "pose", *_POSE, *COLUMN_GROUPS["pose_300w_lp"].columns)
    return _faces_of(path, [row.cells for row in read_rows(path, (), wanted, "--predictions")])


def _faces_of(path: Path, objects: list[Any]) -> _Faces:
    """Faces from objects, each of a photo or a face."""
    objects = [entry for entry in objects if not (isinstance(entry, dict) and entry.get("status") in _WITHOUT_FACE)]
    names, landmarks, pose = _stacked(path, list(_json_list(path, objects)))
    if objects and all(_as_people_see(list(entry)) and "pose" not in entry for entry in objects):
        pose = None if pose is None else _as_300w_lp(path, names, pose)
    return names, landmarks, pose


def _stacked(path: Path, faces: list["_JsonFace"]) -> _Faces:
    three = [points.shape[-1] for _, points, _ in faces]
    if len(set(three)) > 1:
        odd = next(name for (name, points, _), first in zip(faces, three, strict=True) if first != three[0])
        raise InputError(f"{path}: {odd!r} has other coordinates than {faces[0][0]!r}", "give all faces a z, or none")
    landmarks = np.array([points for _, points, _ in faces], dtype=np.float64)
    return [name for name, _, _ in faces], landmarks, np.array([pose for _, _, pose in faces], dtype=np.float64)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        name = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{name!r} stands twice in an object; give the faces of one photo as a list")
    return values


_JsonFace = tuple[str, NDArray[np.float64], NDArray[np.float64]]
_NO_POSE = np.full(3, np.nan)
# Points of a photo in which the method found no face.
_NOTHING: tuple[Any, ...] = (None, [])


def _json_object(path: Path, data: dict[str, Any]) -> Iterator[_JsonFace]:
    for name, value in data.items():
        if value in _NOTHING:
            continue
        where = f"{path}: {name!r}"
        points = _as_68(_json_numbers(value, where), where, _JSON)
        if points.ndim > 3:
            raise InputError(f"{where}: lists {points.ndim} deep", _JSON)
        for face in points if points.ndim == 3 else points[None]:
            yield name, face, _NO_POSE


def _json_list(path: Path, data: list[Any]) -> Iterator[_JsonFace]:
    for row, entry in enumerate(data):
        keys = entry if isinstance(entry, dict) else {}
        name = next((entry[key] for key in _NAME_KEYS if key in keys), None)
        key = next((key for key in _POINT_KEYS if key in keys), None)
        if not isinstance(name, str) or key is None:
            lacks = "landmarks" if isinstance(name, str) else "name"
            raise InputError(f"{path}: face {row}, counted from 0, has no {lacks}", _JSON)
        if entry[key] in _NOTHING:
            continue
        where = f"{path}: {name!r}"
        points = _as_68(_json_numbers(entry[key], where), where, _JSON)
        angles = entry.get("pose") or [entry[name] for name in _pose_names(entry)]
        pose = _json_numbers(angles, where) if angles else _NO_POSE
        if points.ndim != 2 or pose.shape != (3,):
            found = f"points {points.shape} and a pose {pose.shape}"
            raise InputError(f"{where}: {found}, not (68, 2 or 3) and (3,)", _JSON)
        yield name, points, pose


def _json_numbers(value: Any, where: str) -> NDArray[np.float64]:
    try:
        return np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where}: not nested lists of numbers", _JSON) from error


def _read_arrays(path: Path, content: bytes) -> _Faces:
    packed = zipfile.is_zipfile(io.BytesIO(content))
    if not packed and not content.startswith(b"\x93NUMPY"):  # numpy would speak of pickles
        raise InputError(f"{path}: not a file of NumPy arrays, or cut off", _ARRAYS)
    try:
        data: Any = np.load(io.BytesIO(content), allow_pickle=False)
        arrays = {key: np.asarray(data[key]) for key in data.files} if packed else {}
    except Exception as error:  # zipfile and numpy raise many kinds at damaged files
        raise InputError(f"{path}: damaged, or holds other things than numbers and text", _ARRAYS) from error
    if not packed:
        return None, _points_array(path, data), None
    if "names" not in arrays and "path" in arrays:
        arrays = {"names": arrays.pop("path"), **arrays}
    names, status = arrays.pop("names", None), arrays.get("status")
    if status is not None and names is not None and status.shape == names.shape and set(_OF_ALIGN) <= set(arrays):
        arrays = {key: array[~np.isin(status, _WITHOUT_FACE)] for key, array in {"names": names, **arrays}.items()}
        names = arrays.pop("names")
    pose = arrays.pop("pose", None)
    angles = [arrays[name] for name in _pose_names(arrays)]
    points = _points_array(path, _only_points(path, arrays))
    if names is None or names.shape != (len(points),) or names.dtype.kind not in "US":
        found = "no `names`" if names is None else f"`names` {names.dtype} {names.shape}"
        raise InputError(f"{path}: {found} for {len(points)} faces", _ARRAYS)
    texts = [name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else str(name) for name in names]
    if pose is None and angles and all(array.shape == names.shape and array.dtype.kind in "fiu" for array in angles):
        pose = np.stack(angles, axis=1).astype(np.float64)
        pose = _as_300w_lp(path, texts, pose) if _as_people_see(list(arrays)) else pose
    if pose is not None and (pose.shape != (len(points), 3) or pose.dtype.kind not in "fiu"):
        raise InputError(f"{path}: `pose` {pose.dtype} {pose.shape} for {len(points)} faces", _ARRAYS)
    return texts, points, None if pose is None else pose.astype(np.float64)


def _points_array(path: Path, array: NDArray[Any]) -> NDArray[np.float64]:
    if array.ndim != 3:
        raise InputError(f"{path}: an array of shape {array.shape}, not points of faces", _ARRAYS)
    return _as_68(array, str(path), _ARRAYS)


def _only_points(path: Path, arrays: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The array of points: the one of that shape, else, so that it can be named, the one of other points."""
    shaped = {k: a for k, a in arrays.items() if a.ndim == 3 and {2, 3} & set(a.shape[1:])}
    fitting = {k: a for k, a in shaped.items() if NUM_LANDMARKS in a.shape[1:]} or shaped
    if len(fitting) > 1 and "landmarks" in fitting:
        return fitting["landmarks"]
    if len(fitting) != 1:
        found = ", ".join(f"{k} {a.shape}" for k, a in arrays.items()) or "nothing"
        raise InputError(f"{path}: {len(fitting)} arrays of points, found {found}", _ARRAYS)
    ((key, array),) = fitting.items()
    if re.search(r"_in_\d+$", key):  # as `dhm prepare` reads them
        raise InputError(f"{path}: {key} is in pixels of a resized image", "give the points in pixels of the photo")
    return array


def _read_pts_folder(folder: Path) -> _Faces:
    if (folder / INDEX).is_file():
        rows = [row for row in read_index(folder) if row["file"]]
        names, files = [row["path"] for row in rows], [folder / row["file"] for row in rows]
        points = [read_pts(path, merl_signs=False)[0] for path in files]
        return names, np.array(points, dtype=np.float64), None
    files = [parent / name for parent, names in walk(folder) for name in names if split_suffix(name)[1] == ".pts"]
    if not files:
        raise InputError(f"{folder}: a folder without .pts files, found {survey(folder)}", _KINDS)
    points = [read_pts(path, merl_signs=False)[0] for path in files]
    return [path.relative_to(folder).as_posix() for path in files], np.array(points, dtype=np.float64), None
