"""The kinds of face model file that users hold, recognised by their fields, each read into a `Surface`.

Sources of the layouts: the Basel Face Model 2009, 2017 and 2019 as distributed by the University of Basel; 3DDFA's
Model_Shape.mat and Model_Exp.mat (Zhu et al. 2016); face3d's BFM.mat; Deep3DFaceReconstruction's BFM_model_front.mat
and Exp_Pca.bin with std_exp.txt (Deng et al. 2019, Guo et al. 2018).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import NUM_LANDMARKS
from dhm_cli.io.matlab import mat_shapes, read_mat
from dhm_cli.morphable.readers.surface import Surface

_COMPLETE = "use a complete file"


@dataclass(frozen=True)
class MatFormat:
    """A kind of .mat file.

    Attributes:
        name: as it is called in messages and records.
        required: the fields that it is recognised by.
        optional: other fields that are read.
        read: makes a `Surface` of the fields.
    """

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    read: Callable[[Path, dict[str, Any]], Surface]


@dataclass
class ExpressionBasis:
    """Expression modes in a file of their own, in the units of the model that they belong to.

    Attributes:
        mean: mean offset to add to the mean face, (V, 3).
        basis: (V, 3, K) float32.
        std: (K,), or None where the files do not say.
        files: the files that were read.
    """

    mean: NDArray[np.float64]
    basis: NDArray[np.float32]
    std: NDArray[np.float64] | None
    files: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class TrimTable:
    """Which vertices of the BFM 2009 an expression basis has.

    Attributes:
        path: the file.
        kept: vertex numbers, 0-based.
        keypoints: the 68 key points, 0-based in the numbering after the cut, where the file has them.
    """

    path: Path
    kept: NDArray[np.int64]
    keypoints: NDArray[np.int64] | None


def _read_face3d(path: Path, fields: dict[str, Any]) -> Surface:
    """face3d: shape and expression in a struct `model`, or in plain fields of the same names."""
    model = fields.get("model", fields)
    if not isinstance(model, dict):
        raise InputError(f"{path}: expected a struct in the field model, found {type(model).__name__}", _COMPLETE)
    needed = ("shapeMU", "shapePC", "expPC")
    missing = [name for name in needed if name not in model]
    if missing:
        raise InputError(
            f"{path}: not a face3d model: its struct model has no {', '.join(missing)}; found {_listed(model)}",
            _COMPLETE,
        )
    mean = _points(path, "shapeMU", model["shapeMU"])
    if "expMU" in model:
        mean = mean + _points(path, "expMU", model["expMU"], len(mean))
    return Surface(
        format="face3d",
        files=[path],
        usual_units="micrometre",
        mean=mean,
        identity=_basis(path, "shapePC", model["shapePC"], len(mean)),
        expression=_basis(path, "expPC", model["expPC"], len(mean)),
        identity_std=_numbers(path, "shapeEV", model.get("shapeEV")),
        expression_std=_numbers(path, "expEV", model.get("expEV")),
        keypoints=_keypoints(path, "kpt_ind", model.get("kpt_ind")),
        triangles=_triangles(path, "tri", model.get("tri"), len(mean), 1),
    )


def _read_bfm2009(path: Path, fields: dict[str, Any]) -> Surface:
    mean = _points(path, "shapeMU", fields.pop("shapeMU"))
    return Surface(
        format="BFM 2009",
        files=[path],
        usual_units="micrometre",
        mean=mean,
        identity=_basis(path, "shapePC", fields.pop("shapePC"), len(mean)),
        expression=no_modes(len(mean)),
        identity_std=_numbers(path, "shapeEV", fields["shapeEV"]),
        expression_std=None,
        triangles=_triangles(path, "tl", fields.get("tl"), len(mean), 1),
    )


def _read_3ddfa(path: Path, fields: dict[str, Any]) -> Surface:
    """3DDFA: the shape half (mu_exp and w_exp absent), or both halves merged in one file."""
    mean = _points(path, "mu_shape", fields["mu_shape"])
    if "mu_exp" in fields:
        mean = mean + _points(path, "mu_exp", fields["mu_exp"], len(mean))
    merged = "w_exp" in fields
    return Surface(
        format="3DDFA",
        files=[path],
        usual_units="micrometre",
        mean=mean,
        identity=_basis(path, "w", fields.pop("w"), len(mean)),
        expression=_basis(path, "w_exp", fields.pop("w_exp"), len(mean)) if merged else no_modes(len(mean)),
        identity_std=_numbers(path, "sigma", fields.get("sigma")),
        expression_std=_numbers(path, "sigma_exp", fields.get("sigma_exp")),
        keypoints=_keypoints(path, "keypoints", fields.get("keypoints")),
        triangles=_triangles(path, "tri", fields.get("tri"), len(mean), 1),
    )


def _read_deep3d(path: Path, fields: dict[str, Any]) -> Surface:
    """Deep3DFaceReconstruction: bases multiplied by their standard deviations, decimetres."""
    mean = _points(path, "meanshape", fields["meanshape"])
    identity = _basis(path, "idBase", fields["idBase"], len(mean))
    expression = _basis(path, "exBase", fields["exBase"], len(mean))
    return Surface(
        format="Deep3DFaceRecon",
        files=[path],
        usual_units="decimetre",
        mean=mean,
        identity=identity,
        expression=expression,
        identity_std=np.ones(identity.shape[-1]),
        expression_std=np.ones(expression.shape[-1]),
        keypoints=_keypoints(path, "keypoints", fields.get("keypoints")),
        triangles=_triangles(path, "tri", fields.get("tri"), len(mean), 1),
    )


# The first whose required fields are all there. face3d's fields without the struct include those of the BFM 2009.
MAT_FORMATS = (
    MatFormat("face3d", ("model",), (), _read_face3d),
    MatFormat("face3d", ("shapeMU", "shapePC", "expPC"), ("shapeEV", "expMU", "expEV", "tri", "kpt_ind"), _read_face3d),
    MatFormat("BFM 2009", ("shapeMU", "shapePC", "shapeEV"), ("tl",), _read_bfm2009),
    MatFormat("3DDFA", ("mu_shape", "w"), ("sigma", "tri", "keypoints", "mu_exp", "w_exp", "sigma_exp"), _read_3ddfa),
    MatFormat("Deep3DFaceRecon", ("meanshape", "idBase", "exBase"), ("tri", "keypoints"), _read_deep3d),
)
EXPRESSION_FIELDS = ("mu_exp", "w_exp")


def mat_format(fields: set[str]) -> MatFormat | None:
    """The kind of face model that has these fields, or None."""
    return next((known for known in MAT_FORMATS if set(known.required) <= fields), None)


def read_mat_surface(path: Path) -> Surface:
    """Read a .mat file of a kind in `MAT_FORMATS`.

    Raises:
        InputError: it is of none of them, or a field has an unexpected shape.
    """
    known = mat_format(set(mat_shapes(path)))
    if known is None:
        raise InputError(f"{path}: no fields of a known face model", _COMPLETE)
    return known.read(path, read_mat(path, known.required + known.optional))


def read_bfm_hdf5(path: Path) -> Surface:
    """Read a Basel Face Model of 2017 or 2019 (statismo HDF5): the variances become standard deviations.

    Raises:
        InputError: a part is missing or has an unexpected shape, or the file is damaged.
    """
    parts: dict[str, Any] = {}
    try:
        with h5py.File(path, "r") as file:
            for which in ("shape", "expression"):
                for name in ("mean", "pcaBasis", "pcaVariance"):
                    parts[f"{which}/model/{name}"] = file[f"{which}/model/{name}"][()]
            cells = file.get("shape/representer/cells")
            parts["cells"] = None if cells is None else cells[()]
            landmarks = file.get("metadata/landmarks/json")
            named = None if landmarks is None else _json_text(landmarks[()])
    except Exception as error:  # h5py raises half a dozen kinds on damaged files
        raise InputError(f"{path}: not a readable Basel Face Model of 2017 or 2019 ({error})", _COMPLETE) from error
    template = _points(path, "shape/model/mean", parts["shape/model/mean"])
    mean = template + _points(path, "expression/model/mean", parts["expression/model/mean"], len(template))
    return Surface(
        format="BFM 2017/2019",
        files=[path],
        usual_units="millimetre",
        mean=mean,
        identity=_basis(path, "shape/model/pcaBasis", parts.pop("shape/model/pcaBasis"), len(mean)),
        expression=_basis(path, "expression/model/pcaBasis", parts.pop("expression/model/pcaBasis"), len(mean)),
        identity_std=np.sqrt(parts["shape/model/pcaVariance"].astype(np.float64)),
        expression_std=np.sqrt(parts["expression/model/pcaVariance"].astype(np.float64)),
        keypoints=_numbered_landmarks(named, template),
        triangles=_triangles(path, "shape/representer/cells", parts["cells"], len(mean), 0),
    )


def read_expression_mat(path: Path) -> ExpressionBasis:
    """Read a 3DDFA Model_Exp.mat or Model_Expression.mat: mu_exp, w_exp and, where it is there, sigma_exp.

    Raises:
        InputError: a field is missing or has an unexpected shape.
    """
    fields = read_mat(path, (*EXPRESSION_FIELDS, "sigma_exp"))
    missing = [name for name in EXPRESSION_FIELDS if name not in fields]
    if missing:
        raise InputError(
            f"{path}: not an expression basis: no {', '.join(missing)}; found {_listed(fields)}", _COMPLETE
        )
    mean = _points(path, "mu_exp", fields["mu_exp"])
    return ExpressionBasis(
        mean,
        _basis(path, "w_exp", fields["w_exp"], len(mean)),
        _numbers(path, "sigma_exp", fields.get("sigma_exp")),
        [path],
    )


def read_expression_bin(path: Path) -> ExpressionBasis:
    """Read an Exp_Pca.bin (int32 K, then float32: mean offset 3 V, then K modes of 3 V) with std_exp.txt beside it.

    Raises:
        InputError: the size does not fit its number of modes, or std_exp.txt does not hold one number for each.
    """
    modes = expression_bin_modes(path)
    if not modes:
        raise InputError(
            f"{path}: not an Exp_Pca.bin: expected an int32 number of modes K, then (K + 1) times 3 V float32",
            "copy or download the file again",
        )
    numbers = np.fromfile(path, dtype="<f4", offset=4).reshape(modes + 1, -1, 3)
    basis = np.ascontiguousarray(np.moveaxis(numbers[1:], 0, -1))
    table = path.with_name("std_exp.txt")
    if not table.is_file():
        return ExpressionBasis(numbers[0].astype(np.float64), basis, None, [path])
    std = _read_numbers(table)
    if len(std) != modes:
        raise InputError(
            f"{table}: expected {modes} numbers, one for each mode of {path.name}, found {len(std)}", _COMPLETE
        )
    return ExpressionBasis(numbers[0].astype(np.float64), basis, std, [path, table])


def expression_bin_modes(path: Path) -> int:
    """The number of modes of an Exp_Pca.bin, by its first number and its size; 0 for another file."""
    size = path.stat().st_size
    if size < 4:
        return 0
    modes = int(np.fromfile(path, dtype="<i4", count=1)[0])
    return modes if 0 < modes < 1000 and size > 4 and (size - 4) % (12 * (modes + 1)) == 0 else 0


def read_trim_table(path: Path) -> TrimTable | None:
    """Read the field trimIndex of a .mat file (BFM_exp_idx.mat, 3DDFA's model_info.mat); None where it has none."""
    if "trimIndex" not in mat_shapes(path):
        return None
    fields = read_mat(path, ("trimIndex", "keypoints"))
    keypoints = _keypoints(path, "keypoints", fields.get("keypoints"))
    return TrimTable(
        path,
        vertex_numbers(path, "trimIndex", fields["trimIndex"]).ravel() - 1,
        keypoints if keypoints is not None and len(keypoints) == NUM_LANDMARKS else None,
    )


def read_keypoints(path: Path) -> NDArray[np.int64]:
    """Read an .anl or text file of 68 vertex numbers, 0-based, separated by white space or commas.

    A file with a MATLAB comment (%), such as the Landmarks68_BFM.anl of BFMLandmarks, is 1-based.

    Raises:
        InputError: there is no such file, or it does not hold 68 whole numbers.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file", "check the path")
    numbers = _read_numbers(path)
    if len(numbers) != NUM_LANDMARKS or np.any(numbers != np.round(numbers)) or numbers.min() < 0:
        raise InputError(
            f"{path}: expected {NUM_LANDMARKS} vertex numbers, found {len(numbers)} numbers",
            "use the 68 landmarks of 300-W in their order, 0-based, one a line",
        )
    return numbers.astype(np.int64) - (1 if b"%" in path.read_bytes() else 0)


def no_modes(vertices: int) -> NDArray[np.float32]:
    """A basis without modes, (V, 3, 0)."""
    return np.zeros((vertices, 3, 0), np.float32)


def _listed(fields: dict[str, Any]) -> str:
    return ", ".join(sorted(fields)) or "nothing"


def _points(path: Path, name: str, values: Any, vertices: int | None = None) -> NDArray[np.float64]:
    """A column of x, y, z, x, y, z, ... as (V, 3)."""
    numbers = _numeric(path, name, values)
    if numbers.size == 0 or numbers.size % 3 or max(numbers.shape) != numbers.size:
        raise InputError(f"{path}: {name} must hold x, y, z of each vertex, found shape {numbers.shape}", _COMPLETE)
    if vertices is not None and numbers.size != 3 * vertices:
        raise InputError(
            f"{path}: expected {name} of {vertices} vertices ({3 * vertices} numbers), found {numbers.size} numbers",
            "use files that belong together",
        )
    return numbers.astype(np.float64).reshape(-1, 3)


def _basis(path: Path, name: str, values: Any, vertices: int) -> NDArray[np.float32]:
    numbers = _numeric(path, name, values)
    if numbers.ndim != 2 or numbers.shape[0] != 3 * vertices or numbers.shape[1] == 0:
        raise InputError(
            f"{path}: {name} must have shape ({3 * vertices}, number of modes), found {numbers.shape}",
            "use a complete file",
        )
    return np.ascontiguousarray(numbers, dtype=np.float32).reshape(vertices, 3, -1)


def _numeric(path: Path, name: str, values: Any) -> NDArray[Any]:
    numbers = np.asarray(values)
    if numbers.dtype.kind not in "fiu":
        raise InputError(f"{path}: {name} must hold numbers, found {numbers.dtype}", _COMPLETE)
    return numbers


def _numbers(path: Path, name: str, values: Any) -> NDArray[np.float64] | None:
    """Standard deviations as a flat array; an empty array is as good as none."""
    if values is None or np.size(values) == 0:
        return None
    return _numeric(path, name, values).astype(np.float64).ravel()


def vertex_numbers(path: Path, name: str, values: Any) -> NDArray[np.int64]:
    """Vertex numbers, which MATLAB keeps as floating point."""
    numbers = _numeric(path, name, values)
    if not np.all((numbers >= 0) & (numbers < 2**31) & (numbers == np.round(numbers))):
        raise InputError(f"{path}: {name} must hold vertex numbers", _COMPLETE)
    return numbers.astype(np.int64)


def _keypoints(path: Path, name: str, values: Any) -> NDArray[np.int64] | None:
    """Vertex numbers of a MATLAB file, 1-based; a file that names vertex 0 was written 0-based."""
    if values is None or np.size(values) == 0:
        return None
    numbers = vertex_numbers(path, name, values).ravel()
    return numbers if numbers.min() == 0 else numbers - 1


def _triangles(path: Path, name: str, values: Any, vertices: int, first: int) -> NDArray[np.int32]:
    """Triangles of shape (F, 3) or (3, F) whose vertex numbers begin at `first`."""
    if values is None or np.size(values) == 0:
        return np.zeros((0, 3), np.int32)
    numbers = vertex_numbers(path, name, values)
    if numbers.ndim != 2 or 3 not in numbers.shape:
        raise InputError(f"{path}: {name} must name three vertices a triangle, found shape {numbers.shape}", _COMPLETE)
    numbers = (numbers if numbers.shape[1] == 3 else numbers.T) - first
    if numbers.min() < 0 or numbers.max() >= vertices:
        raise InputError(
            f"{path}: {name} must name vertices {first} to {vertices - 1 + first}, found {numbers.min() + first} to "
            f"{numbers.max() + first}",
            _COMPLETE,
        )
    return np.ascontiguousarray(numbers, dtype=np.int32)


def _json_text(value: Any) -> Any:
    """JSON in an HDF5 dataset, which is a string or an array of bytes; None where it cannot be read."""
    try:
        return json.loads(value.tobytes() if isinstance(value, np.ndarray) else value)
    except ValueError:
        return None


def _numbered_landmarks(named: Any, mean: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """The vertices nearest to 68 landmarks with the ids 0 to 67 or 1 to 68; None for other landmarks.

    The landmarks that Basel ships have names such as "center.nose.tip" and are not the 68.
    """
    try:
        places = {int(entry["id"]): np.asarray(entry["coordinates"], dtype=np.float64) for entry in named}
    except (TypeError, KeyError, ValueError):
        return None
    first = min(places, default=0)
    if first not in (0, 1) or sorted(places) != list(range(first, NUM_LANDMARKS + first)):
        return None
    return np.array([((mean - places[index + first]) ** 2).sum(axis=1).argmin() for index in range(NUM_LANDMARKS)])


def _read_numbers(path: Path) -> NDArray[np.float64]:
    """The numbers of a small text file; a comment runs from % or # to the end of the line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        words = [word for line in lines for word in line.split("%")[0].split("#")[0].replace(",", " ").split()]
        return np.array(words, dtype=np.float64)
    except ValueError as error:  # not text, or not numbers
        raise InputError(f"{path}: expected a text file of numbers ({error})", _COMPLETE) from error
