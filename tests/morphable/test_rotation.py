"""Rotation matrices against the three written-out factors, scipy and numerical gradients."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dhm_cli.morphable.rotation import euler_to_matrix, rotation_vector_to_matrix


def factors(pitch: float, yaw: float, roll: float) -> NDArray[np.float64]:
    """R_x R_y R_z with the matrices of the 300W-LP convention typed out."""
    (cx, cy, cz), (sx, sy, sz) = np.cos([pitch, yaw, roll]), np.sin([pitch, yaw, roll])
    r_x = np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
    r_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    r_z = np.array([[cz, sz, 0], [-sz, cz, 0], [0, 0, 1]])
    return r_x @ r_y @ r_z


def random_angles(count: int) -> NDArray[np.float64]:
    return np.random.default_rng(0).uniform(-np.pi, np.pi, (count, 3))


def test_euler_is_the_product_of_the_three_factors() -> None:
    angles = random_angles(50)
    expected = np.stack([factors(*a) for a in angles])
    np.testing.assert_allclose(euler_to_matrix(torch.from_numpy(angles)).numpy(), expected, atol=1e-14)


def test_euler_agrees_with_scipy() -> None:
    # Each factor is the inverse of scipy's rotation about that axis; scipy's upper case means R_x R_y R_z.
    angles = random_angles(50)
    expected = Rotation.from_euler("XYZ", -angles).as_matrix()
    np.testing.assert_allclose(euler_to_matrix(torch.from_numpy(angles)).numpy(), expected, atol=1e-14)


@pytest.mark.parametrize(
    ("angles", "nose"),
    [
        ((0.0, np.pi / 2, 0.0), (-1.0, 0.0, 0.0)),  # positive yaw: to the left of the image
        ((np.pi / 2, 0.0, 0.0), (0.0, 1.0, 0.0)),  # positive pitch: up
        ((0.0, 0.0, np.pi / 2), (0.0, 0.0, 1.0)),
    ],
)
def test_where_the_nose_points(angles: tuple[float, ...], nose: tuple[float, ...]) -> None:
    rotation = euler_to_matrix(torch.tensor([angles], dtype=torch.float64))[0]
    np.testing.assert_allclose(rotation.numpy() @ [0.0, 0.0, 1.0], nose, atol=1e-15)


def test_euler_gradient() -> None:
    angles = torch.from_numpy(random_angles(4)).requires_grad_()
    assert torch.autograd.gradcheck(euler_to_matrix, (angles,))


@pytest.mark.parametrize("length", [0.0, 1e-9, 1e-5, 1e-4, 0.3, 2.0, 3.1])
def test_rotation_vector_agrees_with_scipy(length: float) -> None:
    directions = np.random.default_rng(1).normal(size=(20, 3))
    vectors = length * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    expected = Rotation.from_rotvec(vectors).as_matrix()
    np.testing.assert_allclose(rotation_vector_to_matrix(torch.from_numpy(vectors)).numpy(), expected, atol=1e-14)


@pytest.mark.parametrize("length", [0.0, 0.7])
def test_rotation_vector_gradient_also_at_zero(length: float) -> None:
    vectors = torch.full((2, 3), length, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rotation_vector_to_matrix, (vectors,))


def test_float32_rotations_stay_proper() -> None:
    vectors = torch.from_numpy(random_angles(50)).float()
    for rotations in (euler_to_matrix(vectors), rotation_vector_to_matrix(vectors)):
        identity = rotations @ rotations.transpose(1, 2)
        np.testing.assert_allclose(identity.numpy(), np.broadcast_to(np.eye(3), identity.shape), atol=2e-6)
        np.testing.assert_allclose(torch.linalg.det(rotations).numpy(), 1.0, atol=2e-6)
