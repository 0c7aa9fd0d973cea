"""The dense face: its file, and its fit to landmarks of known faces."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from dhm_cli.dense.expressions import EXPRESSIONS, SEEN_EXPRESSIONS
from dhm_cli.dense.face import DenseFace, packaged_face
from dhm_cli.dense.fitting import Fits, _Bounded, fit, shared_identity, told_of_identity
from dhm_cli.dense.surface import surfaces_of, vertex_normals
from dhm_cli.geometry.pose import geodesic_angle, yaw_pitch_roll_to_matrix
from dhm_cli.morphable.readers.surface import face_problem

Array = NDArray[np.float64]
COUNT = 12


@pytest.fixture(scope="module")
def known() -> tuple[Array, Array, Array, Array]:
    """Identities, expressions, rotations and landmarks of faces, 1.5 pixels a millimetre at (300, 200)."""
    face, rng = packaged_face(), np.random.default_rng(3)
    a = rng.normal(size=(COUNT, 40))
    b = rng.uniform(0, 1, (COUNT, len(face.names))) * (rng.random((COUNT, len(face.names))) < 0.1)
    angles = np.radians(np.stack([rng.uniform(-70, 70, COUNT), rng.uniform(-15, 15, COUNT), np.zeros(COUNT)], axis=1))
    return a, b, yaw_pitch_roll_to_matrix(angles), photographed(face, a, b, yaw_pitch_roll_to_matrix(angles))


def photographed(face: DenseFace, a: Array, b: Array, rotation: Array) -> Array:
    shapes = np.stack([face.shape(*row)[face.keypoints] + face.offsets for row in zip(a, b, strict=True)])
    return 1.5 * shapes @ np.swapaxes(rotation, 1, 2) * [1, -1, 1] + [300, 200, 0]


def fitted_landmarks(face: DenseFace, fits: Fits) -> Array:
    again = photographed(face, fits.identity, fits.expression, fits.rotation) - [300, 200, 0]
    return again * (fits.scale / 1.5)[:, None, None] + fits.translation[:, None]


def test_the_packaged_face_is_a_face() -> None:
    face = packaged_face()
    assert face.mean.shape == (6690, 3)
    assert face.identity.shape[2], face.expression.shape[2] == (40, 45)
    assert face_problem(face.mean[face.keypoints]) == ""
    assert 130 < np.ptp(face.mean[:, 0]) < 180  # millimetres
    assert len(EXPRESSIONS) == 53
    # `face.mirror` is a mirror, and an expression on the left is that on the right mirrored.
    np.testing.assert_allclose(face.mean[face.mirror] * [-1, 1, 1], face.mean, atol=0.1)
    left, right = (face.expression[..., face.names.index(f"mouthSmile_{side}")] for side in "LR")
    np.testing.assert_allclose(left[face.mirror] * [-1, 1, 1], right, atol=0.2)
    assert left[face.keypoints[54], 0] > 3  # the person's left, on the right of the picture


def test_every_edge_of_the_surface_joins_two_triangles_turned_one_way_or_is_a_border() -> None:
    triangles = packaged_face().triangles
    ways = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    assert len(np.unique(ways, axis=0)) == len(ways)
    edges, uses = np.unique(np.sort(ways, axis=1), axis=0, return_counts=True)
    assert uses.max() == 2
    # V - E + F of a disc is 1, and each hole takes 1 away: eyes and mouth.
    assert 6690 - len(edges) + len(triangles) == -2
    assert (uses == 1).sum() < 250
    assert vertex_normals(packaged_face().mean, triangles)[:, 2].mean() > 0.3  # they look forward


def test_a_fit_to_exact_landmarks(known: tuple[Array, Array, Array, Array]) -> None:
    a, b, rotation, landmarks = known
    face = packaged_face()
    fits = fit(face, landmarks, rotation, sigma=np.full((COUNT, 68), 0.1))
    off = np.linalg.norm(fitted_landmarks(face, fits) - landmarks, axis=2) / 1.5
    assert off.mean() < 0.6  # mm; the mean face is off by 5
    assert np.degrees(geodesic_angle(fits.rotation, rotation)).max() < 4
    assert np.corrcoef(fits.identity[:, :5].ravel(), a[:, :5].ravel())[0, 1] > 0.85
    seen = [face.names.index(name) for name in SEEN_EXPRESSIONS]
    assert np.corrcoef(fits.expression[:, seen].ravel(), b[:, seen].ravel())[0, 1] > 0.8
    assert fits.expression.min() >= 0
    assert fits.expression.max() <= 1


def test_bounded_weights_are_those_of_scipy() -> None:
    rng = np.random.default_rng(2)
    matrix, target = rng.normal(size=(3, 20, 8)), rng.normal(size=(3, 20))
    bounded = _Bounded(np.swapaxes(matrix, 1, 2) @ matrix)
    for _ in range(2):  # it goes on where it was
        found = bounded(np.einsum("bij,bi->bj", matrix, target))
    for k in range(3):
        expected = lsq_linear(matrix[k], target[k], (0, 1)).x
        assert (expected < 1e-3).any()
        np.testing.assert_allclose(found[k], expected, atol=1e-3)


def test_a_wrong_start_and_a_batch_change_nothing(known: tuple[Array, Array, Array, Array]) -> None:
    _, _, rotation, landmarks = known
    turn = yaw_pitch_roll_to_matrix(np.radians([8.0, -5.0, 4.0]))
    one = fit(packaged_face(), landmarks[3:4], rotation[3:4])
    other = fit(packaged_face(), landmarks, rotation @ turn)
    np.testing.assert_allclose(
        fitted_landmarks(packaged_face(), other)[3:4], fitted_landmarks(packaged_face(), one), atol=2
    )


def test_what_is_hidden_or_unsure_counts_less(known: tuple[Array, Array, Array, Array]) -> None:
    """A mouth corner 15 mm off pulls the fit, unless it is told to be doubtful."""
    _, _, rotation, landmarks = known
    wrong, sigma, visible = landmarks.copy(), np.full((COUNT, 68), 1.5), np.ones((COUNT, 68))
    wrong[:, 48, 0] += 22.5
    face = packaged_face()
    doubtful, hidden = sigma.copy(), visible.copy()
    doubtful[:, 48], hidden[:, 48] = 40, 0

    def off(fits: Fits) -> float:
        return float(np.linalg.norm(fitted_landmarks(face, fits) - landmarks, axis=2)[:, 48].mean())

    pulled = off(fit(face, wrong, rotation, sigma, visible))
    assert off(fit(face, wrong, rotation, doubtful, visible)) < 0.5 * pulled
    assert off(fit(face, wrong, rotation, sigma, hidden)) < 0.9 * pulled


def test_hidden_sides_are_not_invented() -> None:
    face, visible = packaged_face(), np.ones((2, 68))
    shape = photographed(face, np.zeros((2, 40)), np.zeros((2, 45)), np.stack([np.eye(3)] * 2))
    visible[1, [*range(8), *range(17, 22), *range(36, 42), 31, 32, 48, 49, 59, 60, 67]] = 0  # the person's right
    seen, half = (s.blendshapes for s in surfaces_of(face, fit(face, shape, np.stack([np.eye(3)] * 2), None, visible)))
    assert tuple(seen) == SEEN_EXPRESSIONS
    assert not np.isnan(list(seen.values())).any()
    assert np.isnan(half["browDown_R"])
    assert not np.isnan(half["browDown_L"])
    assert not np.isnan(half["jawOpen"])


def test_one_identity_of_many_faces_is_nearer(known: tuple[Array, Array, Array, Array]) -> None:
    a, b, rotation, _ = known
    face, rng = packaged_face(), np.random.default_rng(5)
    same = np.repeat(a[:1], COUNT, axis=0)
    landmarks = photographed(face, same, b, rotation) + rng.normal(scale=3, size=(COUNT, 68, 3))
    fits = fit(face, landmarks, rotation, np.full((COUNT, 68), 4.5))
    h, g = told_of_identity(face, fits)
    np.testing.assert_allclose(shared_identity(face, h[0], g[0], 1), fits.identity[0], atol=0.3)
    shared = shared_identity(face, h.sum(axis=0), g.sum(axis=0), COUNT)
    alone = np.linalg.norm(fits.identity - a[0], axis=1).mean()
    assert np.linalg.norm(shared - a[0]) < 0.85 * alone
    again = fit(face, landmarks, rotation, identity=np.repeat(shared[None], COUNT, axis=0))
    np.testing.assert_array_equal(again.identity[4], shared)


def test_a_model_without_names_has_free_coefficients(known: tuple[Array, Array, Array, Array]) -> None:
    _, b, rotation, _ = known
    face = replace(packaged_face(), names=())
    landmarks = photographed(face, np.zeros((COUNT, 40)), -b, rotation)
    fits = fit(face, landmarks, rotation, np.full((COUNT, 68), 0.1))
    assert np.corrcoef(fits.expression.ravel(), -b.ravel())[0, 1] > 0.6
    assert surfaces_of(face, fits)[0].blendshapes == {}
