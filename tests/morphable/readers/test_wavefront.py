"""OBJ files: vertices, polygons, oddities."""

from pathlib import Path

import numpy as np
import pytest

from dhm_cli.errors import InputError
from dhm_cli.morphable.readers.wavefront import read_obj, read_obj_vertices

SQUARE = "# a square\nmtllib a.mtl\nv 0 0 0\nv 1 0 0.5\nv  1\t1 0\nv 0 1 0\nvn 0 0 1\nvt 0 0\n"


def write(path: Path, faces: str, vertices: str = SQUARE) -> Path:
    path.write_text(vertices + faces, newline="")
    return path


@pytest.mark.parametrize(
    ("faces", "triangles"),
    [
        pytest.param("f 1 2 3\n", [[0, 1, 2]], id="triangle"),
        pytest.param("f 1/1/1 2/1/1 3/1/1 4/1/1\n", [[0, 1, 2], [0, 2, 3]], id="quad"),
        pytest.param("f 1//1 2//1 3//1\r\nf 1 3 4\r\n", [[0, 1, 2], [0, 2, 3]], id="windows lines"),
        pytest.param("f -4 -3 -1\n", [[0, 1, 3]], id="from the end"),
        pytest.param("", np.zeros((0, 3)), id="points only"),
    ],
)
def test_faces(tmp_path: Path, faces: str, triangles: list[list[int]]) -> None:
    vertices, found = read_obj(write(tmp_path / "a.obj", faces))
    np.testing.assert_array_equal(vertices, [[0, 0, 0], [1, 0, 0.5], [1, 1, 0], [0, 1, 0]])
    np.testing.assert_array_equal(found, triangles)
    assert found.dtype == np.int32


def test_colours_after_the_position_are_left_out(tmp_path: Path) -> None:
    coloured = "v 0 1 2 0.5 0.5 0.5\nv 3 4 5 0.1 0.2 0.3\n"
    np.testing.assert_array_equal(read_obj_vertices(write(tmp_path / "a.obj", "", coloured)), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("faces", "vertices", "message"),
    [
        pytest.param("f 1 2 5\n", None, "beyond the 4", id="no such vertex"),
        pytest.param("f 1 2 x\n", None, "face line", id="no number"),
        pytest.param("", "v 1 2 three\n", "cannot be read", id="text"),
        pytest.param("", "v 1 2 3\nv 1 2\n", "cannot be read", id="cut off"),
        pytest.param("", "# nothing\n", "no vertices", id="empty"),
        pytest.param("", "v 1 2\nv 3 4\n", "no vertices", id="two coordinates"),
    ],
)
def test_refusals(tmp_path: Path, faces: str, vertices: str | None, message: str) -> None:
    path = write(tmp_path / "a.obj", faces, vertices or SQUARE)
    with pytest.raises(InputError, match=message) as caught:
        read_obj(path)
    assert "a.obj" in caught.value.message


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_obj_vertices(tmp_path / "absent.obj")
