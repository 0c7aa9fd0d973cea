"""Overlays."""

import numpy as np

from dhm_cli.plotting import GROUP_COLOURS, draw_landmarks

GREY = np.full((300, 400, 3), 90, np.uint8)


def face(left: float, top: float, size: float) -> np.ndarray:
    """68 points on a grid, 9 columns by 8 rows, depth rising with the index."""
    k = np.arange(68)
    return np.stack([left + k % 9 * size / 8, top + k // 9 * size / 7, k * 1.0], axis=1)


def test_every_face_is_drawn_and_the_photo_is_untouched() -> None:
    before = GREY.copy()
    drawn = draw_landmarks(GREY, [face(20, 20, 100), face(250, 150, 100)])
    np.testing.assert_array_equal(GREY, before)
    assert drawn.shape == GREY.shape
    changed = (drawn != GREY).any(axis=2)
    for x, y, _ in np.concatenate([face(20, 20, 100), face(250, 150, 100)]).round().astype(int):
        assert changed[y, x]
    assert not changed[:, 150:220].any()
    assert not changed[140:, :150].any()


def test_nothing_to_draw() -> None:
    np.testing.assert_array_equal(draw_landmarks(GREY, []), GREY)


def test_near_points_are_brighter() -> None:
    points = face(50, 50, 200)
    x, y = points[60, :2].round().astype(int)
    brightness = {}
    for name, depth in (("near", 900.0), ("far", -900.0)):
        points[60, 2] = depth
        brightness[name] = draw_landmarks(GREY, [points])[y, x].astype(float)
    np.testing.assert_allclose(brightness["near"], GROUP_COLOURS["mouth"], atol=3)
    assert (brightness["far"] < 0.7 * brightness["near"]).all()


def test_points_far_outside_the_photo() -> None:
    draw_landmarks(GREY, [face(-1e7, 1e7, 1e8), face(100, 100, 0.0)])
