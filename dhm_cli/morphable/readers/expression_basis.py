"""Expression modes in a file of their own, and how they are joined with the shape that they belong to.

Kinds: 3DDFA's Model_Exp.mat (Zhu et al. 2016), and Exp_Pca.bin with std_exp.txt (Guo et al. 2018, Deng et al. 2019).
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.io.matlab import read_mat
from dhm_cli.morphable.readers.contents import Contents, expression_bin_modes, look_into, some
from dhm_cli.morphable.readers.ddfa import DDFA
from dhm_cli.morphable.readers.keypoint_files import read_numbers
from dhm_cli.morphable.readers.kinds import candidates, identify
from dhm_cli.morphable.readers.surface import Surface
from dhm_cli.morphable.readers.trim_tables import trim_tables
from dhm_cli.morphable.readers.vertex_arrays import COMPLETE, listed, mode_basis, standard_deviations, vertex_points

_FIELDS = ("mu_exp", "w_exp")


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


def is_expression_basis(contents: Contents) -> bool:
    """Whether a file that no reader takes for a model holds an expression basis."""
    return contents.kind == "Exp_Pca.bin" or contents.has_fields(*_FIELDS)


def join_expression(surface: Surface, place: Path | None) -> None:
    """Add the expression basis at `place`, or else the one beside the model, to a surface that has none."""
    main = surface.files[0]
    file = _expression_file(main.parent if place is None else place, required=place is not None)
    if file is None:
        if surface.format == DDFA.name:
            raise InputError(
                f"{main}: the shape half of a 3DDFA model, without an expression basis beside it",
                "put Model_Exp.mat or Model_Expression.mat (mu_exp, w_exp) beside it or name it with --expression",
            )
        return
    basis = _read_bin(file) if look_into(file).kind == "Exp_Pca.bin" else _read_mat(file)
    if len(basis.mean) != len(surface.mean):
        _trim(surface, basis)
    surface.mean = surface.mean + basis.mean
    surface.expression, surface.expression_std = basis.basis, basis.std
    surface.files += basis.files


def _expression_file(place: Path, required: bool) -> Path | None:
    """The one expression basis that `place` is or has in it."""
    if not place.exists():
        raise InputError(f"{place}: no such file or folder", "check --expression")
    kinds = {file: identify(file) for file in (candidates(place) if place.is_dir() else [place])}
    found = [file for file, (reader, contents) in kinds.items() if reader is None and is_expression_basis(contents)]
    if len(found) > 1:
        raise InputError(
            f"{place}: {len(found)} expression bases: {some([file.name for file in found])}",
            "name one of them with --expression",
        )
    if not found and required:
        seen = kinds[place][1].description if place in kinds else some([file.name for file in kinds])
        raise InputError(
            f"{place}: no expression basis: found {seen}",
            "expected a .mat file with mu_exp and w_exp, or an Exp_Pca.bin",
        )
    return found[0] if found else None


def _trim(surface: Surface, basis: ExpressionBasis) -> None:
    """Cut the shape down to the vertices that the expression basis has."""
    main, vertices = surface.files[0], len(surface.mean)
    folders = dict.fromkeys((basis.files[0].parent, main.parent))
    table = next((table for table in trim_tables(folders, vertices) if len(table.kept) == len(basis.mean)), None)
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


def _read_mat(path: Path) -> ExpressionBasis:
    """Read a 3DDFA Model_Exp.mat or Model_Expression.mat: mu_exp, w_exp and, where it is there, sigma_exp.

    Raises:
        InputError: a field is missing or has an unexpected shape.
    """
    fields = read_mat(path, (*_FIELDS, "sigma_exp"))
    missing = [name for name in _FIELDS if name not in fields]
    if missing:
        raise InputError(f"{path}: not an expression basis: no {', '.join(missing)}; found {listed(fields)}", COMPLETE)
    mean = vertex_points(path, "mu_exp", fields["mu_exp"])
    return ExpressionBasis(
        mean,
        mode_basis(path, "w_exp", fields["w_exp"], len(mean)),
        standard_deviations(path, "sigma_exp", fields.get("sigma_exp")),
        [path],
    )


def _read_bin(path: Path) -> ExpressionBasis:
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
    std = read_numbers(table)
    if len(std) != modes:
        raise InputError(
            f"{table}: expected {modes} numbers, one for each mode of {path.name}, found {len(std)}", COMPLETE
        )
    return ExpressionBasis(numbers[0].astype(np.float64), basis, std, [path, table])
