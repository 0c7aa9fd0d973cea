"""Self-occluded landmarks by head pose: sides, mirror images, what does not matter."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dhm_cli.geometry.landmarks import MIRROR
from dhm_cli.geometry.occlusion import self_occluded
from dhm_cli.geometry.pose import euler_to_matrix
from dhm_cli.morphable.toy import toy_face_model

MIDLINE = {8, 27, 28, 29, 30, 33, 51, 57, 62, 66}
# The far side at profile, by name; 42 is the near eye's inner corner, behind the bridge of the nose.
FAR_SIDE = {*range(8), *range(17, 22), 31, 32, *range(36, 42), 42, 48, 49, 50, 58, 59, 60, 61, 67}


def hidden(*degrees: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Self-occlusion at pitch, yaw, roll."""
    return self_occluded(euler_to_matrix(np.deg2rad(np.array(degrees, dtype=np.float64))))


def indices(row: NDArray[np.bool_]) -> set[int]:
    return set(np.flatnonzero(row).tolist())


def test_a_frontal_face_hides_nothing_whatever_its_pitch_and_roll() -> None:
    result = hidden((0, 0, 0), (40, 0, 0), (-40, 0, 0), (15, 10, -15), (0, -19, 0))
    assert result.shape == (5, 68)
    assert result.dtype == bool
    assert not result.any()


def test_profile_hides_the_far_side() -> None:
    left, right = hidden((0, 90, 0), (0, -90, 0))
    assert indices(left) == FAR_SIDE
    assert indices(right) == {int(MIRROR[i]) for i in FAR_SIDE}


def test_the_hidden_side_is_the_far_one_in_depth() -> None:
    """At a yaw of 75 degrees the hidden landmarks of a face lie behind their mirror images, seen from the viewer."""
    rotation = euler_to_matrix(np.deg2rad([[5.0, 75.0, -4.0], [5.0, -75.0, 4.0]]))
    depth = (toy_face_model().mean.numpy().astype(np.float64) @ rotation.transpose(0, 2, 1))[..., 2]
    far = np.setdiff1d(np.arange(68), [42, MIRROR[42]])
    for row, z in zip(self_occluded(rotation), depth, strict=True):
        assert row[far].sum() == 28
        assert not (row & row[MIRROR])[far].any()
        assert (z < z[MIRROR])[far][row[far]].all()


@pytest.mark.parametrize("yaw", [10, 22, 33, 47, 58, 66, 85, 100, 150])
def test_the_mirrored_pose_hides_the_mirrored_landmarks(yaw: int) -> None:
    one, other = hidden((12, yaw, -7), (12, -yaw, 7))
    np.testing.assert_array_equal(one[MIRROR], other)


def test_turning_away_hides_ever_more() -> None:
    rows = hidden(*((0, yaw, 0) for yaw in range(0, 119)))
    assert (rows[:-1] <= rows[1:]).all()
    assert indices(hidden((0, 25, 0))[0]) == {17}
    assert indices(hidden((0, 33, 0))[0]) == {17, 18, 31, 32, 39}
    assert not rows[:, sorted(MIDLINE)].any()


def test_nothing_is_seen_from_behind() -> None:
    assert hidden((0, 180, 0), (0, -180, 0), (20, 150, 5), (180, 0, 0)).all()


def test_turning_the_image_changes_nothing() -> None:
    head = euler_to_matrix(np.deg2rad([[10.0, 52.0, 5.0], [-20.0, -37.0, 8.0]]))
    turns = np.deg2rad(np.arange(-180.0, 180.0, 30.0))
    in_plane = euler_to_matrix(np.stack([0 * turns, 0 * turns, turns], axis=-1))
    for turn in in_plane:
        np.testing.assert_array_equal(self_occluded(turn @ head), self_occluded(head))


def test_no_faces_and_input_untouched() -> None:
    assert self_occluded(np.zeros((0, 3, 3))).shape == (0, 68)
    rotation = euler_to_matrix(np.array([[0.1, 0.8, -0.2]])).astype(np.float32)
    before = rotation.copy()
    assert indices(self_occluded(rotation)[0]) >= {17, 18, 36, 39}
    np.testing.assert_array_equal(rotation, before)
