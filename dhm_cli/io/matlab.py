"""MATLAB files of every version, read into plain dictionaries. Loads no torch, so that light modules may import it."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.io.hdf5 import open_hdf5
from dhm_cli.io.mat_structure import check_mat_structure

_AGAIN = "copy or download the file again"


def read_mat(path: Path, names: Collection[str] | None = None) -> dict[str, Any]:
    """Read a MATLAB file of any version (4 to 7.3; a 7.3 file is HDF5).

    Args:
        path: the .mat file.
        names: read these variables only, where they are there; None reads all.

    Returns:
        Variables by name: numbers as arrays in MATLAB's axis order, at least 2D; a 1x1 struct as a dictionary, text as
        a string, a cell as an object array, or as its content when it has one element.

    Raises:
        InputError: the file is missing, or is no MATLAB file, or is damaged.
    """
    _require_file(path)
    try:
        if h5py.is_hdf5(path):
            with open_hdf5(path) as file:
                return {name: _from_hdf5(file[name]) for name in _variables(file, names)}
        check_mat_structure(path)
        variables = scipy.io.loadmat(path, variable_names=None if names is None else list(names))
    except Exception as error:  # scipy raises a dozen kinds on damaged files
        raise InputError(f"{path}: not a readable MATLAB file ({error})", _AGAIN) from error
    return {name: _plain(value) for name, value in variables.items() if not name.startswith("__")}


def mat_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the variables in a MATLAB file, without reading them; a struct of a 7.3 file has shape ().

    Raises:
        InputError: as `read_mat`.
    """
    _require_file(path)
    try:
        if h5py.is_hdf5(path):
            with open_hdf5(path) as file:
                return {name: tuple(getattr(file[name], "shape", ()))[::-1] for name in _variables(file, None)}
        check_mat_structure(path)
        return {name: tuple(shape) for name, shape, _ in scipy.io.whosmat(path)}
    except Exception as error:  # as above
        raise InputError(f"{path}: not a readable MATLAB file ({error})", _AGAIN) from error


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: no such file", "check the path")


def _variables(file: h5py.File, names: Collection[str] | None) -> list[str]:
    """Variables of a 7.3 file; `#refs#` and the like hold what cells point to."""
    return [name for name in file if not name.startswith("#") and (names is None or name in names)]


def _plain(value: Any) -> Any:
    """What scipy gives for versions 4 to 7.2, without MATLAB's wrappings."""
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.names:
        structs = [{name: _plain(item[name]) for name in value.dtype.names} for item in value.ravel()]
        return structs[0] if len(structs) == 1 else structs
    if value.dtype == object:
        return _cell([_plain(item) for item in value.ravel()], value.shape)
    if value.dtype.kind == "U" and value.size == 1:
        return str(value.item())
    return value


def _from_hdf5(item: h5py.Group | h5py.Dataset) -> Any:
    """The same for version 7.3, which stores arrays with their axes reversed and cells as references."""
    if isinstance(item, h5py.Group):
        return {name: _from_hdf5(item[name]) for name in item}
    values = item[()]
    if item.attrs.get("MATLAB_empty", 0):  # the dataset then holds the sizes of the array
        return np.zeros(tuple(int(size) for size in np.ravel(values)))
    if h5py.check_ref_dtype(item.dtype) is not None:
        references = np.asarray(values).T
        return _cell([_from_hdf5(item.file[reference]) for reference in references.ravel()], references.shape)
    if item.attrs.get("MATLAB_class", b"") in (b"char", "char"):
        return "".join(chr(code) for code in np.asarray(values).T.ravel())
    return np.asarray(values).T


def _cell(items: list[Any], shape: tuple[int, ...]) -> Any:
    if len(items) == 1:
        return items[0]
    cell: NDArray[np.object_] = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        cell[index] = item
    return cell.reshape(shape)
