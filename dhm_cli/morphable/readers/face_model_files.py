"""Face model files and folders that users hold, whatever their kind, become a `FaceModel`.

A model may lie in several files: the shape of a BFM 2009 or of 3DDFA, an expression basis, the table that joins their
vertices, and the numbers of the 68 key vertices. What a file is shows in its fields, not in its name.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.morphable.face_model import FaceModel, is_face_model
from dhm_cli.morphable.readers.file_kinds import (
    BFM_HDF5,
    EXPRESSION_KINDS,
    EXPRESSION_MAT,
    ICT_NPZ,
    KNOWN,
    SUFFIXES,
    identify,
    some,
)
from dhm_cli.morphable.readers.formats import (
    ExpressionBasis,
    TrimTable,
    read_bfm_hdf5,
    read_expression_bin,
    read_expression_mat,
    read_keypoints,
    read_mat_surface,
    read_trim_table,
)
from dhm_cli.morphable.readers.ict_facekit import ict_folder, read_ict_folder, read_ict_npz
from dhm_cli.morphable.readers.surface import Surface, face_problem, to_face_model

# The 68 landmarks of the 53,215-vertex mesh that 3DDFA, 300W-LP and face3d share, 0-based: `keypoints` of 3DDFA's
# Model_Shape.mat and `kpt_ind` of face3d, as several public programs print them.
MESH_53215 = 53_215
KEYPOINTS_53215 = (
    21873, 22149, 21653, 21036, 43236, 44918, 46166, 47135, 47914, 48695, 49667, 50924, 52613,
    33678, 33005, 32469, 32709,
    38695, 39392, 39782, 39987, 40154, 40893, 41059, 41267, 41661, 42367,
    8161, 8177, 8187, 8192, 6515, 7243, 8204, 9163, 9883,
    2215, 3886, 4920, 5828, 4801, 3640, 10455, 11353, 12383, 14066, 12653, 11492,
    5522, 6025, 7495, 8215, 8935, 10395, 10795, 9555, 8836, 8236, 7636, 6915,
    5909, 7384, 8223, 9064, 10537, 8829, 8229, 7629,
)  # fmt: skip
_HALVES = ("BFM 2009", "3DDFA")  # formats that may keep their expression basis elsewhere
_KEYPOINTS_FROM = {
    "BFM 2009": "put BFM_exp_idx.mat or model_info.mat (trimIndex) beside it, or name a file with the 68 vertices of "
    "this mesh with --keypoints, such as Landmarks68_BFM.anl of A. Bas's BFMLandmarks",
    "BFM 2017/2019": "the landmarks inside the file are not the 68: put an .anl file of this very mesh beside it or "
    "name one with --keypoints, such as Landmarks68_model2017-1_face12_nomouth.anl for the face12 model",
}


def read_face_model(path: Path, expression: Path | None = None, keypoints: Path | None = None) -> FaceModel:
    """Read a morphable model of any known kind, in micrometres, with its dense mesh where the file has one.

    Args:
        path: a file, or a folder with the files of one model; `file_kinds.KNOWN` lists the kinds. A file that
            `FaceModel.save` wrote is read back as it is.
        expression: the expression basis of a BFM 2009 or of a 3DDFA shape, or the folder that it is in: Model_Exp.mat
            or Exp_Pca.bin with std_exp.txt. Looked for beside the model when not given.
        keypoints: text file of the 68 key vertices of the mesh in `path`, see `formats.read_keypoints`. Overrides those
            of the model; needed where it has none.

    Returns:
        The model; `origin` says what was read and what was assumed.

    Raises:
        InputError: a file is missing, damaged or of no known kind, files do not belong together, or the numbers are not
            those of a face. The message says what was expected and what was found.
        FormatError: the file is a face model of ours, but of another version.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder", "check the path")
    if path.is_file() and is_face_model(path):
        if expression or keypoints:
            raise InputError(
                f"{expression or keypoints}: not needed, {path} is a complete model",
                "leave out --expression and --keypoints, or name the original file with --bfm",
            )
        return FaceModel.load(path, mesh=True)
    surface = _read_surface(path)
    if keypoints is not None:
        surface.keypoints = read_keypoints(keypoints)
        surface.files.append(keypoints)
    if surface.format in _HALVES and not surface.expression.shape[-1]:
        _join_expression(surface, expression)
    elif expression is not None:
        raise InputError(
            f"{expression}: not needed, this {surface.format} model has an expression basis of its own",
            "leave out --expression",
        )
    if surface.keypoints is None:
        surface.keypoints = _known_keypoints(surface)
    return to_face_model(surface, path, tuple(_sha256(file) for file in surface.files))


def _read_surface(path: Path) -> Surface:
    folder = ict_folder(path)
    if folder is not None:
        return read_ict_folder(folder)
    file = _model_in_folder(path) if path.is_dir() else path
    kind, seen = identify(file)
    if kind == BFM_HDF5:
        return read_bfm_hdf5(file)
    if kind == ICT_NPZ:
        return read_ict_npz(file)
    if kind in EXPRESSION_KINDS:
        raise InputError(
            f"{file}: an expression basis ({seen}) without the shape that it belongs to",
            "name the file of the shape, and this one with --expression",
        )
    if not kind:
        raise InputError(f"{file}: not a face model: found {seen}", "expected one of: " + "; ".join(KNOWN))
    return read_mat_surface(file)


def _candidates(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())


def _model_in_folder(folder: Path) -> Path:
    """The one file in a folder that is a model, or the shape half of one."""
    kinds = {file: identify(file)[0] for file in _candidates(folder)}
    models = [file for file, kind in kinds.items() if kind and kind not in EXPRESSION_KINDS]
    if len(models) == 1:
        return models[0]
    if models:
        found = ", ".join(f"{file.name} ({kinds[file]})" for file in models)
        raise InputError(f"{folder}: {len(models)} face models in this folder: {found}", "name one of the files")
    halves = [file.name for file, kind in kinds.items() if kind in EXPRESSION_KINDS]
    if halves:
        raise InputError(
            f"{folder}: an expression basis ({', '.join(halves)}) without the shape that it belongs to",
            "put Model_Shape.mat (3DDFA) or 01_MorphableModel.mat (BFM 2009) into the folder",
        )
    raise InputError(
        f"{folder}: no face model in this folder: found {some([file.name for file in folder.iterdir()])}",
        "expected one of: " + "; ".join(KNOWN),
    )


def _join_expression(surface: Surface, place: Path | None) -> None:
    """Add the expression basis at `place`, or else the one beside the model, to a surface that has none."""
    main = surface.files[0]
    file = _expression_file(main.parent if place is None else place, required=place is not None)
    if file is None:
        if surface.format == "3DDFA":
            raise InputError(
                f"{main}: the shape half of a 3DDFA model, without an expression basis beside it",
                "put Model_Exp.mat or Model_Expression.mat (mu_exp, w_exp) beside it or name it with --expression",
            )
        return
    basis = read_expression_mat(file) if identify(file)[0] == EXPRESSION_MAT else read_expression_bin(file)
    if len(basis.mean) != len(surface.mean):
        _trim(surface, basis)
    surface.mean = surface.mean + basis.mean
    surface.expression, surface.expression_std = basis.basis, basis.std
    surface.files += basis.files


def _expression_file(place: Path, required: bool) -> Path | None:
    """The one expression basis that `place` is or has in it."""
    if not place.exists():
        raise InputError(f"{place}: no such file or folder", "check --expression")
    kinds = {file: identify(file) for file in (_candidates(place) if place.is_dir() else [place])}
    found = [file for file, (kind, _) in kinds.items() if kind in EXPRESSION_KINDS]
    if len(found) > 1:
        raise InputError(
            f"{place}: {len(found)} expression bases: {some([file.name for file in found])}",
            "name one of them with --expression",
        )
    if not found and required:
        seen = kinds[place][1] if place in kinds else some([file.name for file in kinds])
        raise InputError(
            f"{place}: no expression basis: found {seen}",
            "expected a .mat file with mu_exp and w_exp, or an Exp_Pca.bin",
        )
    return found[0] if found else None


def _trim(surface: Surface, basis: ExpressionBasis) -> None:
    """Cut the shape down to the vertices that the expression basis has."""
    main, vertices = surface.files[0], len(surface.mean)
    folders = dict.fromkeys((basis.files[0].parent, main.parent))
    table = next((table for table in _trim_tables(folders, vertices) if len(table.kept) == len(basis.mean)), None)
    if table is None:
        raise InputError(
            f"{basis.files[0]}: an expression basis of {len(basis.mean)} vertices, but {main.name} has {vertices}",
            f"put a .mat file with trimIndex, the {len(basis.mean)} vertices of the shape that it has (BFM_exp_idx.mat "
            "or model_info.mat), beside one of them",
        )
    number = np.full(vertices, -1)
    number[table.kept] = np.arange(len(table.kept))
    surface.mean, surface.identity = surface.mean[table.kept], surface.identity[table.kept]
    triangles = number[surface.triangles]
    surface.triangles = triangles[(triangles >= 0).all(axis=1)].astype(np.int32)
    if surface.keypoints is not None:  # those outside the mesh go to -1 too and are refused later
        surface.keypoints = np.append(number, -1)[np.minimum(surface.keypoints, vertices)]
    else:
        surface.keypoints = table.keypoints
    surface.files.append(table.path)
    surface.notes.append(f"{len(table.kept)} of {vertices} vertices are kept, by trimIndex of {table.path.name}")


def _trim_tables(folders: Iterable[Path], vertices: int) -> Iterable[TrimTable]:
    """The trimIndex tables in some folders that fit a mesh."""
    for folder in folders:
        for file in sorted(folder.glob("*.mat")):
            table = read_trim_table(file)
            if table is not None and len(table.kept) and table.kept.min() >= 0 and table.kept.max() < vertices:
                yield table


def _known_keypoints(surface: Surface) -> NDArray[np.int64]:
    """Key points that the model does not name: public ones of its mesh, or those of an .anl file beside it."""
    main, public = surface.files[0], np.array(KEYPOINTS_53215)
    if len(surface.mean) == MESH_53215:
        surface.notes.append("key points: the public ones of the 53,215-vertex mesh")
        return public
    if surface.format == "BFM 2009":
        for table in _trim_tables([main.parent], len(surface.mean)):
            if len(table.kept) == MESH_53215:
                surface.notes.append(f"key points: the public ones of the 53,215-vertex mesh, by {table.path.name}")
                surface.files.append(table.path)
                return table.kept[public]
    fitting = [file for file in sorted(main.parent.glob("*.anl")) if _fits(surface, file)]
    if len(fitting) == 1:
        surface.notes.append(f"key points: from {fitting[0].name} beside the model")
        surface.files.append(fitting[0])
        return read_keypoints(fitting[0])
    if fitting:
        raise InputError(
            f"{main}: {len(fitting)} files of key points beside it: {some([file.name for file in fitting])}",
            "name one of them with --keypoints",
        )
    raise InputError(
        f"{main}: this {surface.format} model of {len(surface.mean)} vertices does not say which are the 68 landmarks",
        _KEYPOINTS_FROM.get(surface.format, "name a file of 68 vertex numbers (0-based, one a line) with --keypoints"),
    )


def _fits(surface: Surface, file: Path) -> bool:
    """Whether the key points in a file are those of a face on this surface."""
    try:
        keypoints = read_keypoints(file)
    except InputError:  # 21 landmarks, say: not what is sought
        return False
    return keypoints.max() < len(surface.mean) and not face_problem(surface.mean[keypoints])


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
