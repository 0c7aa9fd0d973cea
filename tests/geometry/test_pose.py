"""Angles of rotation matrices, their two awkward cases, and the pose of landmarks."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dhm_cli.geometry.crop import crop_matrix
from dhm_cli.geometry.pose import (
    align_rotation,
    angle_difference,
    estimate_pose,
    estimate_rotation,
    euler_to_matrix,
    geodesic_angle,
    in_plane_rotation,
    matrix_to_euler,
    matrix_to_yaw_pitch_roll,
    yaw_pitch_roll_to_matrix,
)
from dhm_cli.morphable.rotation import euler_to_matrix as torch_euler_to_matrix
from dhm_cli.morphable.toy import toy_face_model


def matrix(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """R_x R_y R_z of pitch, yaw, roll; each factor is the inverse of scipy's (see test_rotation)."""
    return Rotation.from_euler("XYZ", -degrees, degrees=True).as_matrix()


@pytest.mark.parametrize(
    "degrees",
    [
        (0.0, 0.0, 0.0),
        (10.0, 20.0, 30.0),
        (-35.0, -89.0, 40.0),
        (20.0, 60.0, -80.0),
        (5.0, 100.0, -7.0),  # turned beyond profile: no pitch of 180 degrees
        (-12.0, -135.0, 20.0),
        (3.0, 179.0, 4.0),
    ],
)
def test_angles_return_from_their_matrix(degrees: tuple[float, float, float]) -> None:
    angles = np.rad2deg(matrix_to_euler(matrix(np.array(degrees))))
    np.testing.assert_allclose(angles, degrees, atol=1e-6)


def test_angles_describe_the_same_rotation() -> None:
    """Whatever pair of angles is chosen, the matrix is the same, all round the circle."""
    rng = np.random.default_rng(0)
    rotations = Rotation.random(500, rng).as_matrix()
    again = matrix(np.rad2deg(matrix_to_euler(rotations)))
    np.testing.assert_allclose(again, rotations, atol=1e-7)


def test_a_full_turn_is_taken_off() -> None:
    # AFLW2000-3D has a yaw of -351.2 degrees.
    angles = np.rad2deg(matrix_to_euler(matrix(np.array([0.0, -351.2, 0.0]))))
    np.testing.assert_allclose(angles, [0.0, 8.8, 0.0], atol=1e-9)


@pytest.mark.parametrize("yaw", [90.0, -90.0])
def test_exact_profile_keeps_the_rotation_and_sets_roll_to_zero(yaw: float) -> None:
    rotation = matrix(np.array([25.0, yaw, 10.0]))
    angles = matrix_to_euler(rotation)
    assert angles[2] == 0
    # R_x(25) R_y(+-90) R_z(10): a roll acts as a pitch of the same (-90) or the opposite (+90) sign.
    np.testing.assert_allclose(np.rad2deg(angles[:2]), [25.0 - np.sign(yaw) * 10.0, yaw], atol=1e-5)
    np.testing.assert_allclose(matrix(np.rad2deg(angles)), rotation, atol=1e-7)


@pytest.mark.parametrize("offset", [1e-7, 1e-5, 1e-3, 0.1])
def test_near_profile_is_no_trap(offset: float) -> None:
    """Within 0.003 degrees of profile the roll counts as pitch, which moves no matrix entry by more than 5e-5."""
    rotation = matrix(np.array([8.0, 90.0 - offset, -15.0]))
    again = matrix(np.rad2deg(matrix_to_euler(rotation)))
    np.testing.assert_allclose(again, rotation, atol=5e-5 if offset < 0.003 else 1e-7)


def test_float32_rounding_above_one_is_no_nan() -> None:
    rotation = matrix(np.array([0.0, 90.0, 0.0]))
    rotation[0, 2] = -1.0000001
    assert np.isfinite(matrix_to_euler(rotation)).all()


def test_matrix_to_euler_keeps_leading_dimensions_and_input() -> None:
    rotations = matrix(np.array([[1.0, 2, 3], [4, 5, 6]])).reshape(2, 1, 3, 3)
    before = rotations.copy()
    angles = np.rad2deg(matrix_to_euler(rotations))
    np.testing.assert_allclose(angles, [[[1.0, 2, 3]], [[4, 5, 6]]], atol=1e-9)
    np.testing.assert_array_equal(rotations, before)


def test_align_rotation_undoes_a_similarity() -> None:
    rng = np.random.default_rng(2)
    source, rotations = rng.normal(size=(68, 3)), Rotation.random(20, rng).as_matrix()
    target = 3.7 * source @ rotations.transpose(0, 2, 1) + [5.0, -8.0, 11.0]
    np.testing.assert_allclose(align_rotation(source, target), rotations, atol=1e-12)


def test_align_rotation_agrees_with_scipy_on_noisy_points() -> None:
    rng = np.random.default_rng(3)
    source = rng.normal(size=(68, 3))
    target = source @ Rotation.from_euler("xyz", [30, 70, -20], degrees=True).as_matrix().T + rng.normal(
        0, 0.3, (68, 3)
    )
    expected, _ = Rotation.align_vectors(target - target.mean(0), source - source.mean(0))
    np.testing.assert_allclose(align_rotation(source, target), expected.as_matrix(), atol=1e-9)


def test_align_rotation_never_mirrors() -> None:
    source = np.random.default_rng(4).normal(size=(68, 3))
    assert np.linalg.det(align_rotation(source, source * [-1.0, 1.0, 1.0])) == pytest.approx(1.0)


@pytest.mark.parametrize("degrees", [(0, 0, 0), (10, 40, -20), (-15, -85, 30), (5, 110, 0)])
def test_estimate_pose_of_a_turned_face(degrees: tuple[float, float, float]) -> None:
    upright = np.array([1.0, -1.0, 1.0])  # pixels have y down, the model has y up
    mean = toy_face_model().mean.numpy().astype(np.float64)
    turned = 2e-4 * mean @ matrix(np.array(degrees, dtype=np.float64)).T * upright + [80.0, 60.0, 5.0]
    angles = estimate_pose(turned[None], mean * upright / 1e5)
    np.testing.assert_allclose(np.rad2deg(angles), [degrees], atol=1e-6)


def test_a_nose_on_the_left_of_the_image_is_a_positive_yaw() -> None:
    mean = toy_face_model().mean.numpy().astype(np.float64) * [1.0, -1.0, 1.0]
    # Seen from the top, x -> left: each point moves by its depth.
    sheared = mean @ Rotation.from_euler("y", -30, degrees=True).as_matrix().T
    assert sheared[30, 0] < sheared[:, 0].mean()
    assert np.rad2deg(estimate_pose(sheared[None], mean))[0, 1] == pytest.approx(30.0)


def test_euler_to_matrix_is_the_one_of_the_networks() -> None:
    angles = np.random.default_rng(5).uniform(-7, 7, (4, 50, 3))
    expected = torch_euler_to_matrix(torch.from_numpy(angles.reshape(-1, 3))).numpy().reshape(4, 50, 3, 3)
    np.testing.assert_allclose(euler_to_matrix(angles), expected, atol=1e-13)


def test_euler_to_matrix_is_undone_by_matrix_to_euler() -> None:
    limits = np.array([1.2, np.pi, 0.3])  # smaller than their second set of angles
    angles = np.random.default_rng(6).uniform(-limits, limits, (300, 3))
    np.testing.assert_allclose(matrix_to_euler(euler_to_matrix(angles)), angles, atol=1e-9)


def test_euler_to_matrix_of_one_pose_and_of_none() -> None:
    np.testing.assert_array_equal(euler_to_matrix(np.zeros(3, np.float32)), np.eye(3))
    assert euler_to_matrix(np.zeros((0, 3))).shape == (0, 3, 3)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-7, 1e-3, 1.0, np.pi / 2, 3.0, np.pi - 1e-7, np.pi - 1e-12, np.pi])
def test_geodesic_angle_keeps_its_digits(angle: float) -> None:
    rng = np.random.default_rng(7)
    axes = rng.normal(size=(20, 3))
    turn = Rotation.from_rotvec(angle * axes / np.linalg.norm(axes, axis=1, keepdims=True))
    start = Rotation.random(20, rng)
    found = geodesic_angle(start.as_matrix(), (start * turn).as_matrix())
    np.testing.assert_allclose(found, np.full(20, angle), atol=3e-15)


def test_geodesic_angle_agrees_with_scipy_is_symmetric_and_broadcasts() -> None:
    rng = np.random.default_rng(8)
    a, b = Rotation.random(100, rng), Rotation.random(100, rng)
    found = geodesic_angle(a.as_matrix(), b.as_matrix())
    np.testing.assert_allclose(found, (a.inv() * b).magnitude(), atol=1e-13)
    np.testing.assert_allclose(geodesic_angle(b.as_matrix(), a.as_matrix()), found, atol=1e-13)
    np.testing.assert_allclose(geodesic_angle(np.eye(3), b.as_matrix()[:, None]), b.magnitude()[:, None], atol=1e-13)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [(10, 4, 6), (4, 10, -6), (179, -179, -2), (-179, 179, 2), (-351.2, 8.8, 0), (180, 0, -180), (0, 180, -180),
     (725, 0, 5)],
)  # fmt: skip
def test_angle_difference_goes_the_short_way(a: float, b: float, expected: float) -> None:
    assert angle_difference(np.array([a]), np.array([b])) == pytest.approx([expected], abs=1e-9)


# Yaw, pitch and roll, degrees, and where the head's x, y (up) and z (nose) then point: x right, y up, z to the viewer.
HAND_WORKED = [
    ((0, 0, 0), [(1, 0, 0), (0, 1, 0), (0, 0, 1)]),
    ((90, 0, 0), [(0, 0, 1), (0, 1, 0), (-1, 0, 0)]),  # the nose to the left of the picture
    ((-90, 0, 0), [(0, 0, -1), (0, 1, 0), (1, 0, 0)]),
    ((0, 30, 0), [(1, 0, 0), (0, 0.75**0.5, -0.5), (0, 0.5, 0.75**0.5)]),  # the nose up
    ((0, 0, 90), [(0, -1, 0), (1, 0, 0), (0, 0, 1)]),  # the top of the head to the right
    ((90, 30, 0), [(0, 0, 1), (0.5, 0.75**0.5, 0), (-(0.75**0.5), 0.5, 0)]),  # a profile that looks up
    ((180, 0, 0), [(-1, 0, 0), (0, 1, 0), (0, 0, -1)]),  # the back of the head
]


@pytest.mark.parametrize(("degrees", "axes"), HAND_WORKED)
def test_yaw_pitch_roll_turn_the_head_as_documented(
    degrees: tuple[float, float, float], axes: list[tuple[float, float, float]]
) -> None:
    rotation = np.array(axes, dtype=np.float64).T
    np.testing.assert_allclose(yaw_pitch_roll_to_matrix(np.radians(degrees)), rotation, atol=1e-12)
    np.testing.assert_allclose(np.rad2deg(matrix_to_yaw_pitch_roll(rotation)), degrees, atol=1e-9)


def yaw_first(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """R_y R_x R_z of yaw, pitch, roll; each factor is the inverse of scipy's."""
    return Rotation.from_euler("YXZ", -degrees, degrees=True).as_matrix()


def test_yaw_pitch_roll_agree_with_scipy_all_round_the_circle() -> None:
    limits = np.array([180.0, 89.9, 180.0])
    degrees = np.random.default_rng(9).uniform(-limits, limits, (4, 100, 3))
    rotations = yaw_first(degrees.reshape(-1, 3)).reshape(4, 100, 3, 3)
    np.testing.assert_allclose(yaw_pitch_roll_to_matrix(np.radians(degrees)), rotations, atol=1e-12)
    np.testing.assert_allclose(np.rad2deg(matrix_to_yaw_pitch_roll(rotations)), degrees, atol=1e-6)


def test_yaw_pitch_roll_of_any_rotation_give_it_back() -> None:
    rotations = Rotation.random(500, np.random.default_rng(10)).as_matrix()
    np.testing.assert_allclose(yaw_pitch_roll_to_matrix(matrix_to_yaw_pitch_roll(rotations)), rotations, atol=1e-7)


def test_an_upright_profile_reads_upright() -> None:
    """Of shared measurements: 300W-LP's angles of one upright head in profile, and the ones that a person sees."""
    profile = euler_to_matrix(np.radians([73.0, -77.0, -68.0]))
    np.testing.assert_allclose(np.rad2deg(matrix_to_yaw_pitch_roll(profile)), [-86, 12, 5], atol=1.0)


@pytest.mark.parametrize("yaw", [-90.0, 90.0])
def test_profile_is_no_lock_when_yaw_comes_first(yaw: float) -> None:
    degrees = np.array([yaw, 20.0, -10.0])
    np.testing.assert_allclose(np.rad2deg(matrix_to_yaw_pitch_roll(yaw_first(degrees))), degrees, atol=1e-9)


@pytest.mark.parametrize("pitch", [90.0, -90.0])
def test_looking_straight_up_or_down_keeps_the_rotation_and_sets_roll_to_zero(pitch: float) -> None:
    rotation = yaw_first(np.array([25.0, pitch, 10.0]))
    angles = matrix_to_yaw_pitch_roll(rotation)
    assert angles[2] == 0
    # R_y(25) R_x(+-90) R_z(10): a roll acts as a yaw of the same (90) or the opposite (-90) sign.
    np.testing.assert_allclose(np.rad2deg(angles[:2]), [25.0 + np.sign(pitch) * 10.0, pitch], atol=1e-5)
    np.testing.assert_allclose(yaw_pitch_roll_to_matrix(angles), rotation, atol=1e-7)
    assert np.isfinite(matrix_to_yaw_pitch_roll(rotation * 1.0000001)).all()


def test_estimate_pose_is_the_300w_lp_reading_of_estimate_rotation() -> None:
    mean = toy_face_model().mean.numpy().astype(np.float64) * [1.0, -1.0, 1.0]
    points = mean + np.random.default_rng(11).normal(0, 0.05 * mean.std(), (5, 68, 3))
    rotation = estimate_rotation(points, mean)
    assert rotation.shape == (5, 3, 3)
    np.testing.assert_array_equal(estimate_pose(points, mean), matrix_to_euler(rotation))


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        ((0, 0, 0), 0),
        ((0, 0, 30), -30),  # its top has tilted to the right: back to the left
        ((0, 0, -100), 100),
        ((70, 0, 0), 0),
        ((0, 60, 0), 0),  # frontal and looking up: upright as it is
        ((90, 20, 0), -20),  # in profile to the left, looking up: its top lies to the right
        ((-90, 20, 0), 20),
        ((0, 90, 0), 0),  # the up axis points away from the viewer
    ],
)  # fmt: skip
def test_in_plane_rotation_by_hand(degrees: tuple[float, float, float], expected: float) -> None:
    found = in_plane_rotation(yaw_pitch_roll_to_matrix(np.radians(degrees)))
    assert np.rad2deg(found) == pytest.approx(expected, abs=1e-9)


def test_in_plane_rotation_as_the_roll_of_a_crop_sets_the_head_upright() -> None:
    """A crop turned by it has the head's up axis straight up, and the rotation of the turned head agrees."""
    rotations = Rotation.random(50, np.random.default_rng(12)).as_matrix()
    rolls = in_plane_rotation(rotations)
    assert rolls.shape == (50,)
    for rotation, roll in zip(rotations, rolls, strict=True):
        up = rotation[:2, 1] * [1.0, -1.0]  # in pixels, y down
        seen = crop_matrix(np.zeros(2), 1.0, 1, roll=float(roll))[:, :2] @ up
        assert seen[0] == pytest.approx(0.0, abs=1e-12)
        assert seen[1] < 0
        turned = euler_to_matrix(np.array([0.0, 0.0, roll])) @ rotation
        assert in_plane_rotation(turned) == pytest.approx(0.0, abs=1e-9)
