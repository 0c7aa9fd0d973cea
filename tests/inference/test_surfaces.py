"""Dense faces of tracks: one identity, and expressions that neither tremble nor lag."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhm_cli.dense.face import load_dense_face
from dhm_cli.geometry.pose import yaw_pitch_roll_to_matrix
from dhm_cli.inference.aligner import Aligner, Face
from dhm_cli.inference.surfaces import TrackSurfaces
from dhm_cli.metrics.steadiness import jitter, lag
from dhm_cli.motion.smoothing import make_smoother

RATE, FRAMES, SETTLED = 30.0, 120, 15


def test_a_track_has_one_identity_that_settles(astronaut: NDArray[np.uint8]) -> None:
    dense = load_dense_face()
    frames = list(Aligner("cpu").track([astronaut] * 4))
    whole = TrackSurfaces(dense)
    found = [whole(faces)[0].surface for faces in frames]
    halves = TrackSurfaces(dense)
    halves(frames[0])
    halves(frames[1])
    rest = TrackSurfaces(dense)
    rest.restore(halves.state())
    again = [rest(faces)[0].surface for faces in frames[2:]]
    for one, other in zip(found[2:], again, strict=True):
        assert one is not None
        assert other is not None
        np.testing.assert_allclose(one.identity, other.identity)
    assert math.isclose(found[3].identity[0], found[2].identity[0], abs_tol=0.1)  # type: ignore[union-attr]


def weights(smooth: Any, landmarks: NDArray[np.float64], rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """`jawOpen` and `mouthSmile_L` of a track, (T, 1, 2)."""
    dense = load_dense_face()
    smoother, smoothed = make_smoother(smooth, dense.landmarks[0] * [1, -1, 1], RATE), []
    for frame, points in enumerate(landmarks):
        smoothed += smoother.add(frame / RATE, [0], points[None], None)
    surfaces = TrackSurfaces(dense)
    found = []
    for points, turn in zip(np.concatenate([*smoothed, *smoother.finish()]), rotation, strict=True):
        (face,) = surfaces([Face(points, (0, 0, 1, 1), 1.0, turn, track=0)])
        assert face.surface is not None
        found.append([[face.surface.blendshapes[name] for name in ("jawOpen", "mouthSmile_L")]])
    return np.array(found)[SETTLED:]


def test_expressions_of_a_smoothed_track_neither_tremble_nor_lag() -> None:
    dense, rng = load_dense_face(), np.random.default_rng(1)
    time = np.arange(FRAMES) / RATE
    mean, modes = dense.landmarks
    coefficients = np.zeros((FRAMES, modes.shape[2]))
    coefficients[:, :5] = rng.normal(size=5)
    jaw, smile = 0.35 - 0.3 * np.cos(2 * np.pi * 0.8 * time), 0.5 - 0.4 * np.cos(2 * np.pi * 0.4 * time)
    for name, weight in (("jawOpen", jaw), ("mouthSmile_L", smile), ("mouthSmile_R", smile)):
        coefficients[:, dense.identity.shape[2] + dense.names.index(name)] = weight
    turns = np.radians(np.stack([20 * np.sin(time), 0 * time, 0 * time], axis=1))
    rotation = yaw_pitch_roll_to_matrix(turns)
    shapes = mean + np.einsum("nci,bi->bnc", modes, coefficients)
    truth = 1.5 * shapes @ np.swapaxes(rotation, 1, 2) * [1, -1, 1] + [300, 200, 0]
    seen = truth + rng.normal(scale=1.5, size=truth.shape)  # 0.7 % of the face
    true, one = np.stack([jaw, smile], axis=1)[SETTLED:, None], np.ones(FRAMES - SETTLED)
    raw, file = (weights(smooth, seen, rotation) for smooth in ("none", "file"))
    assert jitter(file, true, one, RATE) < 0.4 * jitter(raw, true, one, RATE)
    assert abs(lag(file, true, one)) < 0.25  # frames
    for k in range(2):
        assert np.corrcoef(file[:, 0, k], true[:, 0, k])[0, 1] > 0.98
