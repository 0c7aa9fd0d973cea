"""Face model files and folders that users hold, whatever their kind, become a `FaceModel`.

A model may lie in several files: the shape of a BFM 2009 or of 3DDFA, an expression basis, the table that joins their
vertices, and the numbers of the 68 key vertices. What a file is shows in its fields, not in its name.
"""

from pathlib import Path

from dhm_cli.errors import InputError
from dhm_cli.morphable.face_model import FaceModel, is_face_model
from dhm_cli.morphable.readers.contents import some
from dhm_cli.morphable.readers.expression_basis import is_expression_basis, join_expression
from dhm_cli.morphable.readers.keypoint_files import known_keypoints, read_keypoints
from dhm_cli.morphable.readers.kinds import candidates, identify, known
from dhm_cli.morphable.readers.reader import Reader
from dhm_cli.morphable.readers.surface import to_face_model
from dhm_cli.runtime.hashing import file_hash


def read_face_model(path: Path, expression: Path | None = None, keypoints: Path | None = None) -> FaceModel:
    """Read a morphable model of any known kind, in micrometres, with its dense mesh where the file has one.

    Args:
        path: a file, or a folder with the files of one model; `kinds.READERS` lists the kinds. A file that
            `FaceModel.save` wrote is read back as it is.
        expression: the expression basis of a BFM 2009 or of a 3DDFA shape, or the folder that it is in: Model_Exp.mat
            or Exp_Pca.bin with std_exp.txt. Looked for beside the model when not given.
        keypoints: text file of the 68 key vertices of the mesh in `path`, see `read_keypoints`. Overrides those
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
    reader, file = _find(path)
    surface = reader.read(file)
    if keypoints is not None:
        surface.keypoints = read_keypoints(keypoints)
        surface.files.append(keypoints)
    if reader.expression_apart and not surface.expression.shape[-1]:
        join_expression(surface, expression)
    elif expression is not None:
        raise InputError(
            f"{expression}: not needed, this {surface.format} model has an expression basis of its own",
            "leave out --expression",
        )
    if surface.keypoints is None:
        surface.keypoints = known_keypoints(surface, reader.keypoints_hint)
    return to_face_model(surface, path, tuple(file_hash(file) for file in surface.files))


def _find(path: Path) -> tuple[Reader, Path]:
    """The reader of what the user named, and the file or folder that it reads."""
    reader, contents = identify(path)
    if reader is not None:
        return reader, path
    if path.is_dir():
        return _find_in_folder(path)
    if is_expression_basis(contents):
        raise InputError(
            f"{path}: an expression basis ({contents.description}) without the shape that it belongs to",
            "name the file of the shape, and this one with --expression",
        )
    raise InputError(f"{path}: not a face model: found {contents.description}", known())


def _find_in_folder(folder: Path) -> tuple[Reader, Path]:
    """The one file in a folder that is a model, or the shape half of one."""
    kinds = {file: identify(file) for file in candidates(folder)}
    models = [(reader, file) for file, (reader, _) in kinds.items() if reader is not None]
    if len(models) == 1:
        return models[0]
    if models:
        found = ", ".join(f"{file.name} ({reader.name})" for reader, file in models)
        raise InputError(f"{folder}: {len(models)} face models in this folder: {found}", "name one of the files")
    halves = [file.name for file, (_, contents) in kinds.items() if is_expression_basis(contents)]
    if halves:
        raise InputError(
            f"{folder}: an expression basis ({', '.join(halves)}) without the shape that it belongs to",
            "put Model_Shape.mat (3DDFA) or 01_MorphableModel.mat (BFM 2009) into the folder",
        )
    raise InputError(
        f"{folder}: no face model in this folder: found {some([file.name for file in folder.iterdir()])}", known()
    )
