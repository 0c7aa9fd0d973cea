"""Arrays of face model files as this package has them: vertices (V, 3), modes (V, 3, K), vertex numbers from 0."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError

# The hint where something is missing.
COMPLETE = "use a complete file"


def no_modes(vertices: int) -> NDArray[np.float32]:
    """A basis without modes, (V, 3, 0)."""
    return np.zeros((vertices, 3, 0), np.float32)


def vertex_points(path: Path, name: str, values: Any, vertices: int | None = None) -> NDArray[np.float64]:
    """A column of x, y, z, x, y, z, ... as (V, 3)."""
    numbers = _numeric(path, name, values)
    if numbers.size == 0 or numbers.size % 3 or max(numbers.shape) != numbers.size:
        raise InputError(f"{path}: {name} must hold x, y, z of each vertex, found shape {numbers.shape}", COMPLETE)
    if vertices is not None and numbers.size != 3 * vertices:
        raise InputError(
            f"{path}: expected {name} of {vertices} vertices ({3 * vertices} numbers), found {numbers.size} numbers",
            "use files that belong together",
        )
    return numbers.astype(np.float64).reshape(-1, 3)


def mode_basis(path: Path, name: str, values: Any, vertices: int) -> NDArray[np.float32]:
    """A matrix of 3 V rows and a column a mode as (V, 3, K)."""
    numbers = _numeric(path, name, values)
    if numbers.ndim != 2 or numbers.shape[0] != 3 * vertices or numbers.shape[1] == 0:
        raise InputError(
            f"{path}: {name} must have shape ({3 * vertices}, number of modes), found {numbers.shape}",
            COMPLETE,
        )
    return np.ascontiguousarray(numbers, dtype=np.float32).reshape(vertices, 3, -1)


def listed(fields: dict[str, Any]) -> str:
    """Names of fields, for a message."""
    return ", ".join(sorted(fields)) or "nothing"


def _numeric(path: Path, name: str, values: Any) -> NDArray[Any]:
    numbers = np.asarray(values)
    if numbers.dtype.kind not in "fiu":
        raise InputError(f"{path}: {name} must hold numbers, found {numbers.dtype}", COMPLETE)
    return numbers


def standard_deviations(path: Path, name: str, values: Any) -> NDArray[np.float64] | None:
    """Standard deviations as a flat array; an empty array is as good as none."""
    if values is None or np.size(values) == 0:
        return None
    return _numeric(path, name, values).astype(np.float64).ravel()


def vertex_numbers(path: Path, name: str, values: Any) -> NDArray[np.int64]:
    """Vertex numbers, which MATLAB keeps as floating point."""
    numbers = _numeric(path, name, values)
    if not np.all((numbers >= 0) & (numbers < 2**31) & (numbers == np.round(numbers))):
        raise InputError(f"{path}: {name} must hold vertex numbers", COMPLETE)
    return numbers.astype(np.int64)


def matlab_keypoints(path: Path, name: str, values: Any) -> NDArray[np.int64] | None:
    """Vertex numbers of a MATLAB file, 1-based; a file that names vertex 0 was written 0-based."""
    if values is None or np.size(values) == 0:
        return None
    numbers = vertex_numbers(path, name, values).ravel()
    return numbers if numbers.min() == 0 else numbers - 1


def triangle_corners(path: Path, name: str, values: Any, vertices: int, first: int) -> NDArray[np.int32]:
    """Triangles of shape (F, 3) or (3, F) whose vertex numbers begin at `first`."""
    if values is None or np.size(values) == 0:
        return np.zeros((0, 3), np.int32)
    numbers = vertex_numbers(path, name, values)
    if numbers.ndim != 2 or 3 not in numbers.shape:
        raise InputError(f"{path}: {name} must name three vertices a triangle, found shape {numbers.shape}", COMPLETE)
    numbers = (numbers if numbers.shape[1] == 3 else numbers.T) - first
    if numbers.min() < 0 or numbers.max() >= vertices:
        raise InputError(
            f"{path}: {name} must name vertices {first} to {vertices - 1 + first}, found {numbers.min() + first} to "
            f"{numbers.max() + first}",
            COMPLETE,
        )
    return np.ascontiguousarray(numbers, dtype=np.int32)
