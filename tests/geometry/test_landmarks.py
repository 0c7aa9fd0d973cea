"""The 68-point scheme: groups, mirror order, boxes."""

import numpy as np
import pytest

from dhm_cli.geometry.landmarks import CURVES, GROUPS, MIRROR, NUM_LANDMARKS, bounding_box, face_size
from dhm_cli.morphable.toy import toy_face_model


def test_mirror_is_an_involution() -> None:
    assert sorted(MIRROR) == list(range(68))
    np.testing.assert_array_equal(MIRROR[MIRROR], np.arange(68))


def test_mirror_keeps_the_midline_only() -> None:
    # Chin, nose bridge and tip, nose base, and the middle of the four lip lines.
    assert np.flatnonzero(np.arange(68) == MIRROR).tolist() == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]


@pytest.mark.parametrize(
    ("left", "right"),
    [(0, 16), (7, 9), (17, 26), (21, 22), (31, 35), (32, 34), (36, 45), (39, 42), (37, 44), (41, 46), (48, 54),
     (60, 64), (49, 53), (59, 55), (67, 65), (61, 63)],
)  # fmt: skip
def test_known_pairs(left: int, right: int) -> None:
    assert MIRROR[left] == right
    assert MIRROR[right] == left


def test_mirror_of_the_toy_mean_face_is_itself() -> None:
    """On a symmetric face the mirrored points, reordered, are the points."""
    mean = toy_face_model().mean.numpy()
    np.testing.assert_allclose(mean[MIRROR] * [-1, 1, 1], mean, atol=1e-2)  # micrometres
    paired = np.flatnonzero(np.arange(68) != MIRROR)
    assert (np.abs(mean[paired, 0]) > 1000).all()  # left and right are apart, so the check above means something


def test_mirror_stays_within_its_group() -> None:
    for part in GROUPS.values():
        inside = np.arange(68)[part]
        assert set(MIRROR[inside]) == set(inside)


def test_groups_and_curves_cover_every_landmark_once() -> None:
    assert np.concatenate([np.arange(68)[part] for part in GROUPS.values()]).tolist() == list(range(68))
    assert [i for first, last, _ in CURVES for i in range(first, last + 1)] == list(range(NUM_LANDMARKS))


def test_box_and_size_by_hand() -> None:
    points = np.array([[[3.0, 10.0, 99.0], [12.0, 14.0, -99.0]], [[0.0, 0.0, 0.0], [1.0, 25.0, 0.0]]])
    np.testing.assert_array_equal(bounding_box(points), [[3.0, 10.0, 9.0, 4.0], [0.0, 0.0, 1.0, 25.0]])
    np.testing.assert_array_equal(face_size(points), [6.0, 5.0])
    np.testing.assert_array_equal(bounding_box(points[0, :, :2]), [3.0, 10.0, 9.0, 4.0])
