"""From a dense face in any unit to a face model: the parts that no file format has to do with."""

from pathlib import Path

import numpy as np
import pytest
from model_files import DenseToy, dense_toy

from dhm_cli.errors import InputError
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.readers.surface import UNITS, Surface, face_problem, principal_modes, to_face_model
from dhm_cli.morphable.toy import toy_face_model

TOY = dense_toy(120, 4, 3)


def surface_of(toy: DenseToy, scale: float = 1.0, usual: str = "micrometre") -> Surface:
    return Surface(
        format="made up",
        files=[Path("a.mat")],
        usual_units=usual,
        mean=toy.mean * scale,
        identity=(toy.identity * scale).astype(np.float32),
        expression=(toy.expression * scale).astype(np.float32),
        identity_std=toy.identity_std,
        expression_std=toy.expression_std,
        keypoints=toy.keypoints,
        triangles=toy.triangles.astype(np.int32),
    )


def convert(surface: Surface) -> FaceModel:
    return to_face_model(surface, Path("a.mat"), ("0" * 64,))


@pytest.mark.parametrize("units", UNITS)
def test_units_are_found_from_the_size_of_the_face(units: str) -> None:
    model, plain = convert(surface_of(TOY, 1 / UNITS[units], units)), convert(surface_of(TOY))
    np.testing.assert_allclose(model.mean, plain.mean, rtol=1e-6)
    np.testing.assert_allclose(model.identity, plain.identity, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(model.expression, plain.expression, rtol=1e-5, atol=1e-9)
    np.testing.assert_array_equal(model.identity_std, plain.identity_std)
    assert model.origin is not None
    assert model.origin.units == units
    assert model.origin.notes == ()


def test_an_unusual_unit_is_noted() -> None:
    origin = convert(surface_of(TOY, 1e-3)).origin
    assert origin is not None
    assert origin.notes == ("the file is in millimetres by the size of the face; micrometres are usual",)


@pytest.mark.parametrize("width", [0.05, 0.4])
def test_no_unit_fits(width: float) -> None:
    with pytest.raises(InputError, match=r"expected 0\.08 to 0\.25 m"):
        convert(surface_of(TOY, width / 0.144))


def test_the_toy_is_a_face_and_random_vertices_are_not() -> None:
    mean = toy_face_model().mean.numpy()
    assert face_problem(mean) == ""
    assert "x must grow" in face_problem(mean * [-1, 1, 1])
    astray = mean.copy()
    astray[17:22] = mean[:5]  # one brow at the ear
    assert "mirror each other" in face_problem(astray)


def test_triangles_turn_outwards() -> None:
    """A tetrahedron behind the face, wound both ways: the normals of the result point away from its middle."""
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 2e5
    outward = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
    for triangles in (outward, outward[:, ::-1]):
        toy = dense_toy(120, 2, 2)
        toy.mean[others := np.setdiff1d(np.arange(120), toy.keypoints)[:4]] = corners
        surface = surface_of(toy)
        surface.triangles = others[triangles].astype(np.int32)
        mesh = convert(surface).mesh
        assert mesh is not None
        a, b, c = (mesh.mean[mesh.triangles[:, k]].astype(np.float64) for k in range(3))
        assert (np.einsum("nc,nc->n", np.cross(b - a, c - a), (a + b + c) / 3) > 0).all()


def test_principal_modes_of_orthonormal_modes_are_the_first() -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(150, 10)))[0].reshape(50, 3, 10)
    basis *= np.sign(basis.reshape(150, 10).sum(axis=0))
    std = np.linspace(10, 1, 10)
    modes, lengths, share = principal_modes(basis.astype(np.float32), std, 4)
    np.testing.assert_allclose(modes, basis[..., :4], atol=1e-6)
    np.testing.assert_allclose(lengths, std[:4], rtol=1e-6)
    assert share == pytest.approx((std[:4] ** 2).sum() / (std**2).sum())


def test_principal_modes_agree_with_the_singular_value_decomposition() -> None:
    rng = np.random.default_rng(1)
    basis, std = rng.normal(size=(40, 3, 12)), rng.uniform(1, 3, 12)
    modes, lengths, _ = principal_modes(basis.astype(np.float32), std, 5)
    left, values, _ = np.linalg.svd(basis.reshape(120, 12) * std, full_matrices=False)
    np.testing.assert_allclose(lengths, values[:5], rtol=1e-6)
    agreement = np.abs((modes.reshape(120, 5) * left[:, :5]).sum(axis=0))
    np.testing.assert_allclose(agreement, 1, atol=1e-5)


def test_principal_modes_leave_out_what_is_nothing() -> None:
    rng = np.random.default_rng(2)
    basis = np.repeat(rng.normal(size=(40, 3, 2)), 20, axis=-1).astype(np.float32)
    modes, lengths, share = principal_modes(basis, np.ones(40), 29)
    assert modes.shape == (40, 3, 2)
    assert len(lengths) == 2
    assert share == pytest.approx(1)
