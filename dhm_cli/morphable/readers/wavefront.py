"""Wavefront OBJ meshes: vertices and triangles, as fast as numpy reads text."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError


def read_obj_vertices(path: Path) -> NDArray[np.float64]:
    """Read the vertices of an OBJ file; everything else in it is skipped.

    Returns:
        (V, 3), in the order of the file, in its units.

    Raises:
        InputError: there is no such file, or it has no vertices of three numbers.
    """
    return _vertices(path, _read(path))


def read_obj(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Read the vertices and faces of an OBJ file; polygons become fans of triangles.

    Returns:
        Vertices (V, 3) and triangles (F, 3), 0-based vertex numbers.

    Raises:
        InputError: there is no such file, it has no vertices, or a face names a vertex that is not there.
    """
    content = _read(path)
    vertices = _vertices(path, content)
    triangles: list[tuple[int, int, int]] = []
    for line in re.findall(rb"^f[ \t]+(.*)$", content, re.MULTILINE):
        try:
            corners = [int(corner.split(b"/")[0]) for corner in line.split()]
        except ValueError as error:
            raise InputError(f"{path}: a face line cannot be read: {line[:80]!r}", "export the mesh again") from error
        triangles += [(corners[0], corners[i], corners[i + 1]) for i in range(1, len(corners) - 1)]
    faces = np.array(triangles, dtype=np.int64).reshape(-1, 3)
    faces = np.where(faces < 0, faces + len(vertices), faces - 1)  # negative numbers count from the end
    if faces.size and not (faces.min() >= 0 and faces.max() < len(vertices)):
        raise InputError(f"{path}: a face names a vertex beyond the {len(vertices)} in the file", "use a complete file")
    return vertices, faces.astype(np.int32)


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise InputError(f"{path}: no such file", "check the path")
    return path.read_bytes()


def _vertices(path: Path, content: bytes) -> NDArray[np.float64]:
    lines = re.findall(rb"^v[ \t]+(.*)$", content, re.MULTILINE)
    try:
        numbers = np.array(b" ".join(lines).split(), dtype=np.float64)
        vertices = numbers.reshape(max(1, len(lines)), -1)[:, :3]  # a colour may follow the position
    except ValueError as error:
        raise InputError(f"{path}: the vertices cannot be read ({error})", "export the mesh again") from error
    if vertices.shape[1] != 3:
        raise InputError(f"{path}: no vertices (lines 'v x y z') found", "use an OBJ mesh")
    return vertices
