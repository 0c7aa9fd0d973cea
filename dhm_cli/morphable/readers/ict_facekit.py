"""The ICT-FaceKit model (Li et al. 2020, MIT licence): its folder of OBJ files, or its face area in an .npz file."""

import json
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.morphable.readers.contents import Contents
from dhm_cli.morphable.readers.reader import Reader
from dhm_cli.morphable.readers.surface import Surface
from dhm_cli.morphable.readers.vertex_arrays import vertex_numbers
from dhm_cli.morphable.readers.wavefront import read_obj, read_obj_vertices

_NEUTRAL = "generic_neutral_mesh.obj"
_NPZ_FIELDS = ("mean", "identity", "expression", "landmarks68")
# Of the 26,719 vertices the first 9,409 are the face (table in the README of ICT-FaceKit); the others are the back of
# the head, the mouth's inside, teeth, eyeballs and lashes.
_ALL_VERTICES = 26_719
_FACE_VERTICES = 9_409
# Expressions are blend weights from 0 to 1, mostly near 0, of no stated spread. With 0.17 the 53 of them move the
# landmarks by 5.0 mm rms together: a Basel Face Model says 3.8 mm, and the expression coefficients in 300W-LP and
# AFLW2000-3D files are 1.3 times as wide as it says (median of the rms of 26 files).
_EXPRESSION_STD = 0.17
_STD_NOTE = (
    f"expression weights are blend weights from 0 to 1; their standard deviation is taken to be {_EXPRESSION_STD}"
)


def _is_ict(contents: Contents) -> bool:
    in_npz = contents.kind == "zip" and contents.names.issuperset(_NPZ_FIELDS)
    return in_npz or _model_folder(contents.path) is not None


def _read_ict(path: Path) -> Surface:
    folder = _model_folder(path)
    return _read_npz(path) if folder is None else _read_folder(folder)


def _model_folder(path: Path) -> Path | None:
    """The folder of OBJ files that a path names: itself, its FaceXModel, or the folder of a file in it; else None."""
    places = (path, path / "FaceXModel") if path.is_dir() else (path.parent,) if path.suffix.lower() == ".obj" else ()
    return next((place for place in places if (place / _NEUTRAL).is_file()), None)


def _read_folder(folder: Path) -> Surface:
    """Read FaceXModel: generic_neutral_mesh.obj, identity000.obj and on, one OBJ an expression, vertex_indices.json.

    A mode is a file's vertices minus the neutral ones. Identity modes are scaled so that coefficients are N(0, 1).

    Raises:
        InputError: a file is missing or damaged, or has another number of vertices than the neutral mesh.
    """
    neutral, triangles = read_obj(folder / _NEUTRAL)
    indices = _vertex_indices(folder)
    named = [folder / f"{name}.obj" for name in indices.get("expressions", [])]
    others = sorted(p for p in folder.glob("*.obj") if p.name != _NEUTRAL)
    identities = [p for p in others if re.fullmatch(r"identity\d+\.obj", p.name)]
    expressions = named or [p for p in others if p not in identities]
    if not identities:
        raise InputError(f"{folder}: no identity000.obj, identity001.obj, ...", "use the whole folder FaceXModel")
    notes = []
    count = len(neutral)
    if count == _ALL_VERTICES:
        count = _FACE_VERTICES
        notes.append(f"only the face area is kept, the first {count} of {_ALL_VERTICES} vertices")
    landmarks = indices.get("idx_to_landmark_verts")
    return Surface(
        format="ICT-FaceKit",
        files=[folder / _NEUTRAL, *identities, *expressions, *folder.glob("vertex_indices.json")],
        usual_units="centimetre",
        mean=neutral[:count],
        identity=_modes(identities, neutral, count),
        expression=_modes(expressions, neutral, count),
        identity_std=np.ones(len(identities)),
        expression_std=np.full(len(expressions), _EXPRESSION_STD),
        keypoints=None
        if landmarks is None
        else vertex_numbers(folder / "vertex_indices.json", "idx_to_landmark_verts", landmarks).ravel(),
        triangles=triangles[(triangles < count).all(axis=1)],
        notes=[*notes, _STD_NOTE],
    )


def _read_npz(path: Path) -> Surface:
    """Read an .npz file with mean (V, 3), identity (K, V, 3), expression (K, V, 3) and landmarks68, centimetres.

    Raises:
        InputError: an array has an unexpected shape, or the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _NPZ_FIELDS}
            if "step" in file:  # the file that comes with dhm holds whole steps, and triangles
                arrays |= {name: arrays[name] * file["step"] for name in ("mean", "identity", "expression")}
            triangles = file["triangles"].astype(np.int32) if "triangles" in file else np.zeros((0, 3), np.int32)
    except Exception as error:  # zipfile and numpy raise many kinds on damaged files
        raise InputError(f"{path}: not a readable .npz file ({error})", "copy or download the file again") from error
    shape = arrays["mean"].shape
    for name in ("identity", "expression"):
        if len(shape) != 2 or shape[1] != 3 or arrays[name].ndim != 3 or arrays[name].shape[1:] != shape:
            raise InputError(
                f"{path}: expected mean (V, 3) and {name} (modes, V, 3), found {shape} and {arrays[name].shape}",
                "use a complete file",
            )
    identity, expression = (np.moveaxis(arrays[name], 0, -1).astype(np.float32) for name in ("identity", "expression"))
    return Surface(
        format="ICT-FaceKit",
        files=[path],
        usual_units="centimetre",
        mean=arrays["mean"].astype(np.float64),
        identity=np.ascontiguousarray(identity),
        expression=np.ascontiguousarray(expression),
        identity_std=np.ones(identity.shape[-1]),
        expression_std=np.full(expression.shape[-1], _EXPRESSION_STD),
        keypoints=vertex_numbers(path, "landmarks68", arrays["landmarks68"]).ravel(),
        triangles=triangles,
        notes=[_STD_NOTE],
    )


def _vertex_indices(folder: Path) -> dict[str, list[str]]:
    path = folder / "vertex_indices.json"
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not a readable JSON file ({error})", "copy or download the file again") from error
    return content if isinstance(content, dict) else {}


def _modes(files: list[Path], neutral: NDArray[np.float64], count: int) -> NDArray[np.float32]:
    """What each file adds to the neutral mesh, at its first `count` vertices, (count, 3, number of files)."""
    modes = np.zeros((count, 3, len(files)), np.float32)
    for index, file in enumerate(files):
        vertices = read_obj_vertices(file)
        if len(vertices) != len(neutral):
            raise InputError(
                f"{file}: expected {len(neutral)} vertices as in {_NEUTRAL}, found {len(vertices)}",
                "use files of one version of ICT-FaceKit",
            )
        modes[..., index] = (vertices - neutral)[:count]
    return modes


ICT_FACEKIT = Reader(
    name="ICT-FaceKit",
    description=f"ICT-FaceKit folder ({_NEUTRAL}) or .npz ({', '.join(_NPZ_FIELDS)})",
    recognise=_is_ict,
    read=_read_ict,
    suffixes=(".npz",),
)
