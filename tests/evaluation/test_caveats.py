"""Sentences about results that would otherwise mislead."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scored_faces import make_labels, write_scored_store

from dhm_cli.evaluation.caveats import caveats
from dhm_cli.evaluation.ground_truth import GroundTruth, load_ground_truth
from dhm_cli.evaluation.method import Method, Origin
from dhm_cli.evaluation.numbers import Scoring
from dhm_cli.evaluation.scores import score
from dhm_cli.geometry.pose import euler_to_matrix, matrix_to_yaw_pitch_roll
from dhm_cli.morphable.face_model import FaceModel


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory, toy_model: FaceModel) -> GroundTruth:
    path = tmp_path_factory.mktemp("store") / "faces.h5"
    return load_ground_truth(write_scored_store(path, make_labels(toy_model)))


def notes(truth: GroundTruth, landmarks: NDArray[np.floating], pose: Any = None) -> list[str]:
    method = Method("X", Origin("predictions"), np.asarray(landmarks, np.float64), pose)
    return caveats(truth, [method], [score(method, truth, Scoring(replicates=100))])


def test_good_points_need_no_words(truth: GroundTruth) -> None:
    assert notes(truth, truth.landmarks, truth.pose) == []
    assert notes(truth, truth.landmarks + np.array([1.0, -1.0, 0.0])) == []  # no convention puts them there


def test_points_of_other_pixels(truth: GroundTruth) -> None:
    assert "are they 1-based?" in notes(truth, truth.landmarks + np.array([1.1, 0.8, 0]))[0]
    assert "are they 1 too small?" in notes(truth, truth.landmarks - np.array([1.0, 1.0, 0]))[0]
    assert "of another image size or of a crop?" in notes(truth, truth.landmarks + np.array([0, 40.0, 0]))[0]
    assert "of another image size or of a crop?" in notes(truth, truth.landmarks * 3)[0]


def test_a_pose_in_radians(truth: GroundTruth) -> None:
    assert notes(truth, truth.landmarks, np.radians(truth.pose)) == [
        "X: its pose seems to be in radians; degrees are expected"
    ]
    pose = np.full((8, 3), np.nan)
    assert notes(truth, truth.landmarks, pose) == []
    pose[0] = 0.5  # a frontal face may well have small angles
    assert notes(truth, truth.landmarks, pose) == []


def test_a_pose_that_is_yaw_first(truth: GroundTruth) -> None:
    """Angles as people see them, under the names and in the order of 300W-LP's."""
    angles = truth.pose + np.array([25.0, 0.0, 20.0])
    parameters = truth.faces.parameters.copy()
    parameters[:, 1:4] = np.radians(angles)
    tilted = replace(truth, faces=replace(truth.faces, parameters=parameters))
    people = np.degrees(matrix_to_yaw_pitch_roll(euler_to_matrix(np.radians(angles))))
    assert notes(tilted, truth.landmarks, people[:, [1, 0, 2]]) == [
        "X: its pose seems to be yaw first, R = R_y R_x R_z; pitch, yaw, roll of R = R_x R_y R_z are expected"
    ]
    assert notes(tilted, truth.landmarks, angles) == []


def test_faces_without_points(truth: GroundTruth) -> None:
    points = truth.landmarks.copy()
    points[[0, 3]] = np.nan
    (note,) = notes(truth, points)
    assert note == (
        "X: no points for 2 of 8 faces (1 at 0-30 degrees, 1 at 30-60 degrees; such as sub/face 0.png, "
        "sub/face 3.png), which are failures, and no part of means and medians"
    )
    points[:] = np.nan
    assert len(notes(truth, points)) == 1


def test_boxes_of_different_origin(truth: GroundTruth) -> None:
    methods = [Method(kind, Origin(kind), truth.landmarks) for kind in ("network", "predictions", "network")]
    scores = [score(method, truth, Scoring(replicates=100)) for method in methods]
    (note,) = caveats(truth, methods, scores)
    assert note.startswith("predictions: networks get the boxes of the protocol")
    assert caveats(truth, methods[:1], scores[:1]) == []


def test_faces_that_networks_may_have_seen(truth: GroundTruth) -> None:
    seen = replace(truth, split="val")
    network, predictions = (Method(kind, Origin(kind), truth.landmarks) for kind in ("network", "predictions"))
    result = score(network, seen, Scoring(replicates=100))
    assert caveats(seen, [network], [result]) == [
        "network: a network may have learned from val faces, or been chosen on them, so its numbers may be too good"
    ]
    assert caveats(seen, [predictions], [result]) == []
    assert caveats(truth, [network], [result]) == []


def test_depth_away_from_the_viewer(truth: GroundTruth) -> None:
    assert "away from the viewer" in notes(truth, truth.landmarks * [1, 1, -1])[0]
    assert notes(truth, truth.landmarks * [1, 1, 0.8] + [0, 0, 30]) == []
    assert notes(truth, truth.landmarks[..., :2]) == []
