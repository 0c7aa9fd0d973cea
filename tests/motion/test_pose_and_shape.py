"""Landmarks taken apart and put together again."""

import numpy as np
from dummy_network import make_mean_shape
from scipy.spatial.transform import Rotation

from dhm_cli.motion.pose_and_shape import join, rotation_vectors, rotations, split

SHAPE = make_mean_shape()


def test_rotation_vectors_are_those_of_scipy() -> None:
    vectors = np.random.default_rng(0).normal(0, 1, (50, 3))
    vectors *= (np.linspace(0, 3.1, 50) / np.linalg.norm(vectors, axis=1))[:, None]
    matrices = Rotation.from_rotvec(vectors).as_matrix()
    np.testing.assert_allclose(rotations(vectors), matrices, atol=1e-12)
    np.testing.assert_allclose(rotation_vectors(matrices), vectors, atol=1e-9)


def test_a_known_pose_is_found() -> None:
    turn = Rotation.from_rotvec([[0.4, -1.1, 0.3], [0, 0, 2.5]]).as_matrix()
    scales, places = np.array([80.0, 12.0]), np.array([[300.0, 200.0, 4.0], [-20.0, 5.0, 0.0]])
    landmarks = scales[:, None, None] * SHAPE @ turn.transpose(0, 2, 1) + places[:, None]
    parts = split(landmarks, SHAPE)
    np.testing.assert_allclose(np.exp(parts.log_scale), scales)
    np.testing.assert_allclose(parts.rotation, turn, atol=1e-9)
    np.testing.assert_allclose(parts.place, places, atol=1e-9)
    np.testing.assert_allclose(parts.shape, np.broadcast_to(SHAPE, (2, 68, 3)), atol=1e-9)


def test_join_undoes_split_whatever_the_weights() -> None:
    rng = np.random.default_rng(1)
    landmarks = 50 * SHAPE + rng.normal(0, 5, (6, 68, 3)) + [200, 100, 0]
    for sigma in (None, rng.uniform(0.5, 4, (6, 68))):
        np.testing.assert_allclose(join(split(landmarks, SHAPE, sigma)), landmarks, atol=1e-9)


def test_an_unsure_landmark_does_not_move_the_head() -> None:
    landmarks = np.repeat(50 * SHAPE[None] + [200.0, 100.0, 0.0], 2, axis=0)
    landmarks[1, 8] += 40
    sigma = np.ones((2, 68))
    sigma[:, 8] = 50
    parts = split(landmarks, SHAPE, sigma)
    assert np.abs(parts.place[1] - parts.place[0]).max() < 0.01
    assert np.abs(split(landmarks, SHAPE).place[1] - split(landmarks, SHAPE).place[0]).max() > 0.5
