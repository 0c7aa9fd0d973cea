"""MATLAB files of versions 5 and 7.3 give the same dictionaries."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from model_files import Save, save_v5, save_v73

from dhm_cli.errors import InputError
from dhm_cli.io.matlab import mat_shapes, read_mat

VERSIONS = pytest.mark.parametrize("save", [pytest.param(save_v5, id="v5"), pytest.param(save_v73, id="v7.3")])
MATRIX = np.arange(6.0).reshape(2, 3)


@VERSIONS
def test_numbers_keep_matlab_axis_order(tmp_path: Path, save: Save) -> None:
    save(tmp_path / "a.mat", {"matrix": MATRIX, "row": MATRIX[:1], "number": 7.0})
    fields = read_mat(tmp_path / "a.mat")
    assert set(fields) == {"matrix", "row", "number"}
    np.testing.assert_array_equal(fields["matrix"], MATRIX)
    assert fields["row"].shape == (1, 3)
    assert fields["number"].shape == (1, 1)
    assert mat_shapes(tmp_path / "a.mat") == {"matrix": (2, 3), "row": (1, 3), "number": (1, 1)}


@VERSIONS
def test_structs_cells_text_and_empty_arrays(tmp_path: Path, save: Save) -> None:
    cell = np.empty((1, 2), dtype=object)
    cell[0, 0], cell[0, 1] = MATRIX, "two"
    one = np.empty((1, 1), dtype=object)
    one[0, 0] = MATRIX
    model = {"shape": MATRIX, "deep": {"text": "hello"}}
    save(tmp_path / "a.mat", {"model": model, "cell": cell, "one": one, "none": np.zeros((0, 3))})
    fields = read_mat(tmp_path / "a.mat")
    np.testing.assert_array_equal(fields["model"]["shape"], MATRIX)
    assert fields["model"]["deep"]["text"] == "hello"
    assert fields["cell"].shape == (1, 2)
    np.testing.assert_array_equal(fields["cell"][0, 0], MATRIX)
    assert fields["cell"][0, 1] == "two"
    np.testing.assert_array_equal(fields["one"], MATRIX)
    assert fields["none"].shape == (0, 3)


def test_an_array_of_structs_is_a_list(tmp_path: Path) -> None:
    people = np.array([(1.0,), (2.0,)], dtype=[("age", object)])
    scipy.io.savemat(tmp_path / "a.mat", {"people": people})
    assert [person["age"].item() for person in read_mat(tmp_path / "a.mat")["people"]] == [1.0, 2.0]


@VERSIONS
def test_some_variables_only(tmp_path: Path, save: Save) -> None:
    save(tmp_path / "a.mat", {"wanted": MATRIX, "large": MATRIX})
    assert set(read_mat(tmp_path / "a.mat", ("wanted", "absent"))) == {"wanted"}


def test_no_such_file(tmp_path: Path) -> None:
    for read in (read_mat, mat_shapes):
        with pytest.raises(InputError, match=r"absent\.mat: no such file"):
            read(tmp_path / "absent.mat")


@VERSIONS
def test_damaged_files(tmp_path: Path, save: Save) -> None:
    path = tmp_path / "a.mat"
    save(path, {"matrix": np.random.default_rng(0).normal(size=(50, 50))})
    content = path.read_bytes()
    for damaged in (b"", b"not MATLAB", content[: len(content) // 2], content[:130]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.mat: not a readable MATLAB file") as caught:
            read_mat(path)
        assert caught.value.hint


def test_reading_mat_files_loads_no_torch() -> None:
    code = "import dhm_cli.io.matlab, sys; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "False"
