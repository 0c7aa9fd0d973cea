"""Readers of face model files, on files written here."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from dhm_cli.errors import InputError
from dhm_cli.morphable.face_model import toy_face_model
from dhm_cli.morphable.readers import read_face_model, read_mat, write_face_model_mat


def dense_fields(vertices: int = 100) -> dict[str, Any]:
    """A 3DDFA-style dense model whose numbers tell their place."""
    rng = np.random.default_rng(0)
    keypoints = rng.permutation(vertices)[:68]
    return {
        "mu_shape": rng.normal(size=(3 * vertices, 1)),
        "w": rng.normal(size=(3 * vertices, 199)),
        "sigma": rng.uniform(1, 2, (199, 1)),
        "mu_exp": rng.normal(size=(3 * vertices, 1)),
        "w_exp": rng.normal(size=(3 * vertices, 29)),
        "sigma_exp": rng.uniform(1, 2, (29, 1)),
        "keypoints": (keypoints + 1)[None].astype(np.float64),
    }


def save(path: Path, fields: dict[str, Any]) -> Path:
    scipy.io.savemat(path, fields)
    return path


def test_keypoints_of_a_dense_model_are_1_based(tmp_path: Path) -> None:
    fields = dense_fields()
    model = read_face_model(save(tmp_path / "model.mat", fields))
    for row, vertex in enumerate(fields["keypoints"][0].astype(int) - 1):
        for axis in range(3):  # x, y, z of a vertex follow each other
            at = 3 * vertex + axis
            assert model.mean[row, axis].item() == pytest.approx(fields["mu_shape"][at, 0] + fields["mu_exp"][at, 0])
            np.testing.assert_allclose(model.identity[row, axis], fields["w"][at], rtol=1e-6)
            np.testing.assert_allclose(model.expression[row, axis], fields["w_exp"][at], rtol=1e-6)
    np.testing.assert_allclose(model.identity_std, fields["sigma"][:, 0], rtol=1e-6)
    np.testing.assert_allclose(model.expression_std, fields["sigma_exp"][:, 0], rtol=1e-6)
    assert model.mean.dtype == torch.float32


def test_the_toy_model_comes_back_from_its_mat_file(tmp_path: Path) -> None:
    model = toy_face_model()
    write_face_model_mat(model, tmp_path / "toy.mat")
    assert read_face_model(tmp_path / "toy.mat").hash() == model.hash()


@pytest.mark.parametrize("field", ["sigma", "keypoints", "w_exp"])
def test_missing_fields_are_named(tmp_path: Path, field: str) -> None:
    fields = dense_fields()
    del fields[field]
    with pytest.raises(InputError, match=rf"model\.mat: not a known face model: missing {field}; found"):
        read_face_model(save(tmp_path / "model.mat", fields))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("keypoints", np.arange(0, 68)[None], "keypoints"),  # 0-based
        ("keypoints", np.arange(50, 118)[None], "keypoints"),  # beyond the last vertex
        ("keypoints", np.arange(1, 52)[None], "68 vertex numbers"),
        ("w", np.ones((299, 199)), r"w must have shape \(300, 1 to 199\), found \(299, 199\)"),
        ("w", np.ones((300, 200)), "w must have shape"),
        ("w_exp", np.ones((300, 64)), "w_exp must have shape"),
        ("sigma", np.ones((198, 1)), "sigma must hold 199 positive numbers"),
        ("sigma_exp", np.zeros((29, 1)), "sigma_exp must hold 29 positive numbers"),
        ("sigma_exp", np.full((29, 1), np.nan), "sigma_exp must hold 29 positive numbers"),
    ],
)
def test_wrong_fields_are_named(tmp_path: Path, field: str, value: Any, message: str) -> None:
    fields = {**dense_fields(), field: value}
    with pytest.raises(InputError, match=message):
        read_face_model(save(tmp_path / "model.mat", fields))


def test_not_a_mat_file(tmp_path: Path) -> None:
    path = tmp_path / "model.mat"
    with pytest.raises(InputError, match="no such file"):
        read_mat(path)
    for content in (b"", b"plain text", b"MATLAB 5.0 MAT-file" + bytes(200)):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a readable MATLAB file"):
            read_mat(path)


def test_a_truncated_mat_file(tmp_path: Path) -> None:
    path = save(tmp_path / "model.mat", dense_fields())
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(InputError, match="not a readable MATLAB file"):
        read_face_model(path)


def test_version_73_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["mu_shape"] = np.zeros(3)
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    with path.open("r+b") as raw:
        raw.write(header)
    with pytest.raises(InputError, match=r"v7\.3"):
        read_mat(path)
