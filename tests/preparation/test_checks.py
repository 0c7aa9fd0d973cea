"""Each check finds its fault, names the face, and is silent on good labels."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from label_examples import good_labels

from dhm_cli.data.store import FaceLabels
from dhm_cli.geometry.landmarks import bounding_box
from dhm_cli.preparation import checks as verification


def moved(labels: FaceLabels, row: int, offset: tuple[float, float, float]) -> FaceLabels:
    landmarks = labels.landmarks.copy()
    landmarks[row] += np.float32(offset)
    return replace(labels, landmarks=landmarks, box=bounding_box(landmarks).astype(np.float32))


def with_cell(labels: FaceLabels, name: str, index: tuple[int, ...], value: float) -> FaceLabels:
    array = getattr(labels, name).copy()
    array[index] = value
    return replace(labels, **{name: array})


def test_good_labels_have_no_findings() -> None:
    assert verification.check_labels(good_labels()) == []


FAULTS: dict[str, tuple[str, str, Callable[[FaceLabels], FaceLabels]]] = {
    "NaN landmark": ("not-finite", "error", lambda x: with_cell(x, "landmarks", (3, 5, 1), np.nan)),
    "infinite parameter": ("not-finite", "error", lambda x: with_cell(x, "parameters", (3, 200), np.inf)),
    "box of another face": ("box", "error", lambda x: with_cell(x, "box", (3, 2), 3.0)),
    "unknown split": ("codes", "error", lambda x: with_cell(x, "split", (3,), 9)),
    "unknown visibility": ("codes", "error", lambda x: with_cell(x, "visibility", (3, 60), 7)),
    "visible without a point": ("codes", "error", lambda x: with_cell(x, "points", (3, 60, 0), np.nan)),
    "outside the image": ("outside-image", "warning", lambda x: moved(x, 3, (150, 0, 0))),
    "cut off": ("cut-off", "note", lambda x: moved(x, 3, (0, -45, 0))),
    "whole turn": ("yaw-wrap", "note", lambda x: with_cell(x, "yaw", (3,), -351.2)),
}


@pytest.mark.parametrize(("check", "severity", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_found_and_named(check: str, severity: str, fault: Callable[[FaceLabels], FaceLabels]) -> None:
    (finding, *_) = [f for f in verification.check_labels(fault(good_labels())) if f.check == check]
    assert finding.severity == severity
    assert finding.names == ("face 3",)
    assert finding.message.startswith("1 face with") or finding.message.startswith("1 face whose")


def test_a_face_smaller_than_a_pixel() -> None:
    labels = good_labels()
    landmarks = labels.landmarks.copy()
    landmarks[2] = landmarks[2, 0]
    shrunk = replace(labels, landmarks=landmarks, box=bounding_box(landmarks).astype(np.float32))
    assert [f.names for f in verification.check_labels(shrunk)] == [("face 2",)]


def test_names_that_stand_twice() -> None:
    names = np.array(["a", "b", "a", "c", "d", "e"])
    (finding,) = verification.check_labels(replace(good_labels(), names=names))
    assert (finding.check, finding.names) == ("names", ("a",))


def test_identities_in_two_splits() -> None:
    assert verification.check_identities(good_labels()) is None
    finding = verification.check_identities(with_cell(good_labels(), "split", (3,), 0))
    assert finding is not None
    assert (finding.check, finding.severity, finding.names) == ("identity-leak", "warning", ("person 1",))


def test_unusable_faces() -> None:
    assert verification.check_unusable([]) is None
    finding = verification.check_unusable([f"face {i}" for i in range(30)])
    assert finding is not None
    assert finding.message == "30 faces that cannot be used"
    assert len(finding.names) == 20


def test_bad_fits() -> None:
    labels, none = good_labels(), np.zeros(6, bool)
    assert verification.check_residual(labels, none, none, 4.0) is None
    bad = np.array([0, 1, 0, 1, 0, 0], bool)
    finding = verification.check_residual(labels, bad, bad & (np.arange(6) < 2), 4.0)
    assert finding is not None
    assert finding.message == "2 fits are worse than 4 % of the face size; 1 left out"
    assert finding.names == ("face 1", "face 3")


def test_findings_come_with_the_gravest_first() -> None:
    labels = with_cell(with_cell(good_labels(), "yaw", (1,), 200.0), "parameters", (2, 0), np.nan)
    labels = moved(labels, 4, (500, 0, 0))
    assert [f.severity for f in verification.check_labels(labels)] == ["error", "warning", "note", "note"]


def test_projection() -> None:
    labels = good_labels()
    projected = labels.landmarks + np.float32([0, 0, 500])  # depth has another origin
    assert verification.check_projection(labels, projected, 0.01) is None
    projected[4, 10, 1] += 0.5
    finding = verification.check_projection(labels, projected, 0.01)
    assert finding is not None
    assert finding.names == ("face 4",)
    assert "0.5 px" in finding.message
    projected[1, 0, 0] = np.nan
    both = verification.check_projection(labels, projected, 0.01)
    assert both is not None
    assert both.names == ("face 1", "face 4")


def test_repeated_landmarks_are_looked_for_among_the_views_of_one_face() -> None:
    labels = good_labels()
    landmarks = labels.landmarks.copy()
    landmarks[1] = landmarks[0] + 0.01  # the same person
    landmarks[4] = landmarks[0]  # another person
    assert verification.repeated_rows(labels.identity, landmarks).tolist() == [False, True] + [False] * 4
    landmarks[1] = landmarks[0] + 0.5
    assert not verification.repeated_rows(labels.identity, landmarks).any()
    landmarks[2:4] = np.nan  # without labels
    assert not verification.repeated_rows(labels.identity, landmarks).any()


def test_counts() -> None:
    published = {"AFW": 10, "AFW_Flip": 10}
    assert verification.check_counts({"AFW": 10, "AFW_Flip": 10}, published) is None
    assert verification.check_counts({"anything": 5}, {}) is None
    finding = verification.check_counts({"AFW": 9}, published)
    assert finding is not None
    assert "AFW 9 of 10" in finding.message
    assert "AFW_Flip 0 of 10" in finding.message
