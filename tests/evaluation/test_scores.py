"""All numbers of a method against values worked out by hand."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scored_faces import NAMES, YAW, make_labels, write_scored_store

from dhm_cli.evaluation.ground_truth import GroundTruth, load_ground_truth
from dhm_cli.evaluation.method import Method, Origin
from dhm_cli.evaluation.numbers import Scoring
from dhm_cli.evaluation.protocols import JITTERS, ROLLS
from dhm_cli.evaluation.scores import difference, noise_floor, pose_errors, score
from dhm_cli.geometry.landmarks import GROUPS, face_size
from dhm_cli.geometry.occlusion import self_occluded
from dhm_cli.geometry.pose import euler_to_matrix
from dhm_cli.metrics.landmark_error import normaliser
from dhm_cli.morphable.face_model import FaceModel

QUICK = Scoring(replicates=100)
# Percent of the face size that each face is off by, and what follows by hand: bins (0, -12, 25), (40, -55), (62, ...).
ERRORS = np.array([1.0, 2.0, 3.0, 4.0, 7.5, 5.5, 9.0, 12.0])
BINS = {"0-30": 2.0, "30-60": 5.75, "60-90": 26.5 / 3, "mean_of_bins": (7.75 + 26.5 / 3) / 3, "mean_of_images": 5.5}


def method(landmarks: NDArray[np.floating], pose: NDArray[np.float64] | None = None, **more: Any) -> Method:
    return Method("ours", Origin("predictions"), np.asarray(landmarks, np.float64), pose, **more)


def shifted(truth: GroundTruth, percent: NDArray[np.float64]) -> NDArray[np.float64]:
    """The truth with all points of each face moved by so many percent of its size, in a direction of its own."""
    direction = np.radians(np.arange(len(truth)) * 50.0)
    step = (percent / 100 * face_size(truth.landmarks))[:, None] * np.stack([np.cos(direction), np.sin(direction)], 1)
    moved = truth.landmarks.copy()
    moved[..., :2] += step[:, None]
    return moved


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, toy_model: FaceModel) -> Path:
    folder = tmp_path_factory.mktemp("store")
    labels = make_labels(toy_model)
    second = labels.landmarks[..., :2] + np.array([3.0, -4.0], np.float32)
    yaw = np.array([0, -35, 25, 40, math.nan, 62, -75, 20], np.float32)
    return write_scored_store(folder / "faces.h5", make_labels(toy_model, reannotated=second, labelled_yaw=yaw))


@pytest.fixture(scope="module")
def truth(store: Path) -> GroundTruth:
    return load_ground_truth(store)


def test_the_truth_itself_scores_nothing_at_all(truth: GroundTruth) -> None:
    numbers = score(method(truth.landmarks), truth, QUICK).numbers.to_json()
    zeros = [numbers["nme"], numbers["nme_3d"]["depth"], *numbers["regions"].values(), numbers["visibility"]["visible"]]
    for values in (*zeros, numbers["visibility"]["self_occluded"]):
        assert all(value == 0 for name, value in values.items() if name != "faces")
    assert (numbers["median"], numbers["failure_rate"]["value"], numbers["landmarks"]) == (0.0, 0.0, [0.0] * 68)
    assert numbers["auc"] == {"7": pytest.approx(100.0), "8": pytest.approx(100.0)}
    assert (numbers["missing"]["count"], numbers["mean_offset"]) == (0, [0.0, 0.0])
    assert all(numbers["pose"][name] == pytest.approx(0.0, abs=1e-6) for name in ("pitch", "yaw", "roll", "geodesic"))
    given = score(method(truth.landmarks, truth.pose), truth, QUICK).numbers.to_json()["pose"]
    assert given["mean"] == 0
    assert all(face["nme"] == 0 for face in numbers["worst"])


def test_known_errors_give_exactly_their_numbers(truth: GroundTruth) -> None:
    result = score(method(shifted(truth, ERRORS)), truth, QUICK)
    numbers = result.numbers.to_json()
    np.testing.assert_allclose(result.nme, ERRORS, rtol=1e-9)
    assert numbers["nme"] == pytest.approx(BINS)
    assert numbers["n"] == 8
    assert numbers["bins"] == {"0-30": 3, "30-60": 2, "60-90": 3}
    assert numbers["median"] == pytest.approx(4.75)
    assert numbers["failure_rate"] == {"threshold": 6.0, "value": pytest.approx(37.5)}  # 7.5, 9 and 12
    assert numbers["auc"]["7"] == pytest.approx(100 * (6 + 5 + 4 + 3 + 0 + 1.5) / 8 / 7)
    assert numbers["auc"]["8"] == pytest.approx(100 * (7 + 6 + 5 + 4 + 0.5 + 2.5) / 8 / 8)
    assert numbers["landmarks"] == pytest.approx([5.5] * 68)
    assert numbers["regions"].keys() == GROUPS.keys()
    for values in numbers["regions"].values():
        assert values == pytest.approx(BINS)  # all points are off alike
    assert [face["name"] for face in numbers["worst"][:3]] == [NAMES[7], NAMES[6], NAMES[4]]
    assert numbers["worst"][0]["nme"] == pytest.approx(12.0)


def test_a_threshold_of_ones_own(truth: GroundTruth) -> None:
    numbers = score(method(shifted(truth, ERRORS)), truth, Scoring(threshold=3.5, replicates=100)).numbers.to_json()
    assert numbers["failure_rate"] == {"threshold": 3.5, "value": pytest.approx(62.5)}


def test_the_second_split_leaves_out_faces_without_a_labelled_yaw(truth: GroundTruth) -> None:
    labelled = score(method(shifted(truth, ERRORS)), truth, QUICK).numbers.to_json()["nme_by_labelled_yaw"]
    assert labelled["bins"] == {"0-30": 3, "30-60": 2, "60-90": 2}
    assert labelled["0-30"] == pytest.approx((1 + 3 + 12) / 3)
    assert labelled["30-60"] == pytest.approx((2 + 4) / 2)
    assert labelled["60-90"] == pytest.approx((5.5 + 9) / 2)
    assert labelled["intervals"].keys() == BINS.keys()


def test_the_order_of_faces_changes_nothing(truth: GroundTruth) -> None:
    order = np.random.default_rng(0).permutation(8)
    again = GroundTruth(truth.store, truth.split, truth.label_set, truth.rows[order], truth.faces.take(order))
    points = shifted(truth, ERRORS)
    a, b = (score(method(p), t, QUICK).numbers.to_json() for p, t in ((points, truth), (points[order], again)))
    for name in ("nme", "regions", "auc", "nme_by_labelled_yaw"):
        for key in a[name].keys() - {"bins", "intervals"}:
            assert b[name][key] == pytest.approx(a[name][key], rel=1e-12)
    assert b["failure_rate"] == a["failure_rate"]
    assert [face["name"] for face in b["worst"]] == [face["name"] for face in a["worst"]]
    assert b["pose"]["geodesic"] == pytest.approx(a["pose"]["geodesic"], abs=1e-9)


def test_missing_faces_are_failures_without_an_error(truth: GroundTruth) -> None:
    points = shifted(truth, ERRORS)
    points[[1, 7]] = np.nan
    numbers = score(method(points), truth, QUICK).numbers.to_json()
    assert numbers["n"] == 8
    assert numbers["missing"] == {
        "policy": "fail",
        "count": 2,
        "by_bin": {"0-30": 1, "30-60": 0, "60-90": 1},
        "names": [NAMES[1], NAMES[7]],
    }
    assert numbers["nme"]["0-30"] == pytest.approx(2.0)
    assert numbers["nme"]["60-90"] == pytest.approx(7.25)
    assert numbers["failure_rate"]["value"] == pytest.approx(50.0)
    assert numbers["auc"]["7"] == pytest.approx(100 * (6 + 4 + 3 + 0 + 1.5) / 8 / 7)


def test_missing_faces_can_be_left_out(truth: GroundTruth) -> None:
    points = shifted(truth, ERRORS)
    points[[1, 7]] = np.nan
    numbers = score(method(points), truth, Scoring(skip_missing=True, replicates=100)).numbers.to_json()
    assert (numbers["n"], numbers["missing"]["count"], numbers["missing"]["policy"]) == (6, 2, "skip")
    assert numbers["bins"] == {"0-30": 2, "30-60": 2, "60-90": 2}
    assert numbers["failure_rate"]["value"] == pytest.approx(100 * 2 / 6)
    assert numbers["auc"]["7"] == pytest.approx(100 * (6 + 4 + 3 + 0 + 1.5) / 6 / 7)


def test_a_bin_that_was_not_found_leaves_no_mean_of_bins(truth: GroundTruth) -> None:
    points = shifted(truth, ERRORS)
    points[5:] = np.nan
    numbers = score(method(points), truth, QUICK).numbers.to_json()
    assert math.isnan(numbers["nme"]["60-90"])
    for values in (numbers["nme"], numbers["regions"]["jaw"], numbers["visibility"]["visible"], numbers["nme_3d"]):
        assert math.isnan(values["mean_of_bins"])
    assert numbers["nme"]["mean_of_images"] == pytest.approx(17.5 / 5)
    assert numbers["measured"] == {"0-30": 3, "30-60": 2, "60-90": 0, "mean_of_images": 5}
    left_out = score(method(points), truth, Scoring(skip_missing=True, replicates=100)).numbers.to_json()
    assert left_out["nme"]["mean_of_bins"] == pytest.approx((2 + 5.75) / 2)


def test_regions_landmarks_and_visibility_apart(truth: GroundTruth) -> None:
    size = face_size(truth.landmarks)[:, None]
    hidden = self_occluded(euler_to_matrix(np.radians(truth.pose)))
    points = truth.landmarks.copy()
    points[:, GROUPS["nose"], 0] += 0.05 * size
    nose = score(method(points), truth, QUICK).numbers.to_json()
    assert nose["regions"]["nose"]["mean_of_images"] == pytest.approx(5.0)
    assert nose["regions"]["mouth"]["mean_of_images"] == 0
    assert nose["nme"]["mean_of_images"] == pytest.approx(5.0 * 9 / 68)
    assert [k for k, error in enumerate(nose["landmarks"]) if error > 1] == list(range(27, 36))
    points = truth.landmarks.copy()
    points[..., 1] += np.where(hidden, 0.10, 0.02) * size
    parts = score(method(points), truth, QUICK).numbers.to_json()["visibility"]
    assert parts["visible"]["mean_of_bins"] == pytest.approx(2.0)
    assert (parts["visible"]["faces"], parts["self_occluded"]["faces"]) == (8, hidden.any(axis=1).sum())
    assert parts["self_occluded"]["60-90"] == pytest.approx(10.0)
    assert parts["share_self_occluded"] == pytest.approx(100 * hidden.mean())
    assert 5 < parts["share_self_occluded"] < 50


def test_depth_counts_after_centring_and_only_where_there_is_some(store: Path, truth: GroundTruth) -> None:
    points = truth.landmarks.copy()
    points[..., 2] += 40.0
    assert score(method(points), truth, QUICK).numbers.to_json()["nme_3d"]["mean_of_images"] == pytest.approx(
        0.0, abs=1e-9
    )
    sign = np.where(np.arange(68) % 2, 1.0, -1.0)
    points[..., 2] += 0.03 * face_size(truth.landmarks)[:, None] * sign
    points[..., 0] += 0.04 * face_size(truth.landmarks)[:, None]
    both = score(method(points), truth, QUICK).numbers.to_json()["nme_3d"]
    assert both["mean_of_bins"] == pytest.approx(5.0)
    assert both["depth"]["60-90"] == pytest.approx(3.0)
    assert score(method(points[..., :2]), truth, QUICK).numbers.to_json()["nme_3d"] is None
    again = load_ground_truth(store, "reannotated")
    assert score(method(points), again, QUICK).numbers.to_json()["nme_3d"] is None


def test_reannotated_labels_are_the_truth_and_the_normaliser(store: Path, truth: GroundTruth) -> None:
    again = load_ground_truth(store, "reannotated")
    # The second set is the first, moved by 5 pixels.
    expected = 500 / face_size(truth.landmarks)
    np.testing.assert_allclose(score(method(truth.landmarks), again, QUICK).nme, expected, rtol=1e-5)
    floor, by_diagonal = noise_floor(truth, QUICK), noise_floor(truth, Scoring("diagonal"))
    assert floor is not None
    assert by_diagonal is not None
    assert by_diagonal["mean_of_images"] == pytest.approx(
        (500 / normaliser(truth.landmarks, "diagonal")).mean(), rel=1e-5
    )
    assert floor["mean_of_images"] == pytest.approx(expected.mean(), rel=1e-5)
    assert floor["failure_rate"] == pytest.approx(100 * np.mean(expected > 6.0))


def test_pose_of_the_method(truth: GroundTruth) -> None:
    pose = truth.pose + np.array([3.0, -4.0, 361.0])
    found = score(method(truth.landmarks, pose), truth, QUICK).numbers.to_json()["pose"]
    assert (found["source"], found["n"], found["excluded"]) == ("predicted", 8, [])
    assert [found[name] for name in ("pitch", "yaw", "roll")] == pytest.approx([3.0, 4.0, 1.0])
    assert found["mean"] == pytest.approx(8 / 3)
    assert found["median"]["yaw"] == pytest.approx(4.0)
    angles = np.arccos([(np.trace(a.T @ b) - 1) / 2 for a, b in zip(*map(matrices, (pose, truth.pose)), strict=True)])
    assert found["geodesic"] == pytest.approx(np.degrees(angles).mean())
    # The number that no order of the angles distorts comes first.
    assert list(found)[4:] == ["geodesic", "pitch", "yaw", "roll", "mean", "median"]
    assert list(found["median"]) == ["geodesic", "pitch", "yaw", "roll"]


def matrices(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    return euler_to_matrix(np.radians(degrees))


def test_pose_from_points_is_how_they_are_turned(truth: GroundTruth) -> None:
    angle = np.radians(7.0)  # in the picture plane
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    found = score(method(truth.landmarks @ turn.T), truth, QUICK).numbers.to_json()["pose"]
    assert found["source"] == "aligned"
    assert found["geodesic"] == pytest.approx(7.0, abs=1e-4)
    assert score(method(truth.landmarks[..., :2]), truth, QUICK).numbers.to_json()["pose"] is None


def test_poses_beyond_the_limit_are_left_out_by_name(truth: GroundTruth) -> None:
    truth.faces.parameters[2, 2] = np.radians(-351.2)
    try:
        found = pose_errors(method(truth.landmarks, truth.pose), truth)
    finally:
        truth.faces.parameters[2, 2] = np.radians(YAW[2])
    assert found is not None
    assert (found.n, found.excluded, found.limit) == (7, [NAMES[2]], 99.0)


def test_a_shift_of_one_pixel_is_seen(truth: GroundTruth) -> None:
    numbers = score(method(truth.landmarks + np.array([1.0, 1.0, 0.0])), truth, QUICK).numbers.to_json()
    assert numbers["mean_offset"] == pytest.approx([1.0, 1.0])


def test_normalisers(truth: GroundTruth) -> None:
    points = truth.landmarks + np.array([3.0, 4.0, 0.0])
    corners = np.linalg.norm(truth.landmarks[:, 36, :2] - truth.landmarks[:, 45, :2], axis=1)
    found = score(method(points), truth, Scoring("interocular", replicates=100))
    np.testing.assert_allclose(found.nme, 500 / corners)
    assert found.numbers.to_json()["nme"]["mean_of_images"] == pytest.approx((500 / corners).mean())
    assert found.numbers.to_json()["landmarks"][0] == pytest.approx((500 / corners).mean())


def test_robustness_has_a_row_for_each_level_of_each_kind(truth: GroundTruth) -> None:
    variants = np.stack([shifted(truth, np.full(8, 10 * jitter.level + 1)) for jitter in JITTERS])
    rows = score(method(variants[0], variants=variants), truth, QUICK).numbers.to_json()["robustness"]
    assert [(row["kind"], row["level"]) for row in rows[:6]] == [
        ("shift", pytest.approx(level)) for level in (0, 5, 10, 15, 20, 30)
    ]
    assert [row["kind"] for row in rows] == ["shift"] * 6 + ["scale"] * 6 + ["both"] * 6
    for row in rows:
        assert row["mean_of_bins"] == pytest.approx(row["level"] / 10 + 1)
    assert score(method(variants[0]), truth, QUICK).numbers.to_json()["robustness"] is None


def test_difference_in_the_structure_of_the_report(truth: GroundTruth) -> None:
    rows = np.tile(np.arange(8), 10)
    many = GroundTruth(truth.store, truth.split, truth.label_set, truth.rows[rows], truth.faces.take(rows))
    ours, theirs = (score(method(shifted(many, np.tile(errors, 10))), many, QUICK) for errors in (ERRORS, ERRORS + 1.0))
    found = difference(ours, theirs, many, QUICK).to_json()
    for name in BINS:
        assert found["nme"][name]["value"] == pytest.approx(-1.0)
        assert found["nme"][name]["interval"] == pytest.approx([-1.0, -1.0])
        assert found["nme"][name]["verdict"] == "better"
    assert found["common"] == 80
    assert found["failure_rate"]["value"] == pytest.approx(-12.5)  # the face at 5.5 %
    assert found["auc"]["7"]["verdict"] == "better"


def test_a_method_that_found_nothing_has_no_numbers(truth: GroundTruth) -> None:
    numbers = score(method(np.full((8, 68, 3), np.nan)), truth, QUICK).numbers.to_json()
    assert math.isnan(numbers["nme"]["mean_of_images"])
    assert (numbers["failure_rate"]["value"], numbers["auc"]["7"]) == (100.0, 0.0)
    assert numbers["worst"] == []
    assert numbers["pose"]["n"] == 0


def told(truth: GroundTruth, percent: NDArray[np.float64], **more: Any) -> Method:
    """A method that tells sigma, visibility and confidence."""
    sigma = np.ones((8, 68)) * face_size(truth.landmarks)[:, None] * 0.05
    given = {"sigma": sigma, "visibility": np.full((8, 68, 3), 1 / 3), "confidence": np.full(8, 0.9), **more}
    return method(shifted(truth, percent), **given)


def test_sigma_by_yaw(truth: GroundTruth) -> None:
    """Sigma is 5 % everywhere; faces off by 1, 2, 3 and 4 are within one, 7.5 within 1.79 and 9 within two."""
    doubts = score(told(truth, ERRORS), truth, QUICK).numbers.doubts
    assert doubts is not None
    assert doubts.sigma["0-30"].within_one == 100
    assert (doubts.sigma["30-60"].within_one, doubts.sigma["30-60"].within_wide) == (50, 100)
    assert [round(value, 1) for value in (doubts.sigma["all"].within_one, doubts.sigma["all"].within_two)] == [50, 87.5]
    assert score(method(truth.landmarks), truth, QUICK).numbers.doubts is None


def test_confidence_against_failures_and_pictures_without_a_face(truth: GroundTruth) -> None:
    """Three faces fail at 6 %: those of 7.5, 9 and 12."""
    claims = np.array([0.9, 0.8, 0.95, 0.4, 0.85, 0.7, 0.2, 0.1])
    pictures = np.array([0.05, 0.3, 0.75])
    doubts = score(told(truth, ERRORS, confidence=claims, not_faces=pictures), truth, QUICK).numbers.doubts
    assert doubts is not None
    found = doubts.confidence
    right, wrong = claims[ERRORS < 6], claims[ERRORS > 6]
    assert found.failure_auc == pytest.approx((right[:, None] > wrong).mean())
    assert found.not_face_auc == pytest.approx((claims[:, None] > pictures).mean())
    assert found.doubted == pytest.approx(20)  # one of five
    assert found.believed == pytest.approx(100 / 3)
    assert sum(row["claims"] for row in found.reliability) == 11
    assert (found.kept[0]["percent"], found.kept[0]["failure_rate"]) == (100, 37.5)
    # Six percent are six percent, whatever the report's own threshold.
    other = score(told(truth, ERRORS, confidence=claims), truth, Scoring(threshold=1.0, replicates=100)).numbers.doubts
    assert other is not None
    assert other.confidence.failure_auc == found.failure_auc


def test_visibility_against_marks(truth: GroundTruth) -> None:
    codes = np.zeros((8, 68), np.uint8)
    codes[:, :30], codes[:, 30:40], codes[:, 40:50] = 1, 2, 3  # the rest has no mark
    marked = GroundTruth(truth.store, truth.split, truth.label_set, truth.rows, replace(truth.faces, visibility=codes))
    visibility = np.full((8, 68, 3), [0.8, 0.15, 0.05])
    visibility[:, 30:35], visibility[:, 40:48] = [0.3, 0.6, 0.1], [0.1, 0.1, 0.8]
    doubts = score(told(marked, ERRORS, visibility=visibility), marked, QUICK).numbers.doubts
    assert doubts is not None
    assert doubts.visibility is not None
    assert doubts.visibility.self_occluded_balanced == pytest.approx(90)  # eight of ten, and all others
    assert doubts.visibility.occluded_auc == pytest.approx(0.75)  # half above all visible ones, half level with them
    assert doubts.visibility.shares == pytest.approx({"visible": 60, "occluded": 20, "self_occluded": 20})
    unmarked = score(told(truth, ERRORS), truth, QUICK).numbers.doubts
    assert unmarked is not None
    assert unmarked.visibility is None


def test_rolls_have_a_row_each(truth: GroundTruth) -> None:
    variants = np.stack([shifted(truth, np.full(8, 1 + roll / 90)) for roll in ROLLS])
    rows = score(method(variants[0], variants=variants), truth, QUICK).numbers.rolls
    assert rows is not None
    assert [row.roll for row in rows] == list(range(0, 360, 15))
    assert [row.mean_of_images for row in rows] == pytest.approx([1 + roll / 90 for roll in ROLLS])
