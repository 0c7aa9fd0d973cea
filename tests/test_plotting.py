"""Overlays."""

import numpy as np
import pytest

from dhm_cli.plotting import GROUP_COLOURS, TILE, draw_landmarks, evolution_sheet

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


# Heights of a caption and of a face in an evolution sheet, pixels.
LINE, FACE = 14, 2 * TILE + 14


def make_evolution(size: int, count: int = 2, steps: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grey crops, landmarks that shrink towards the truth, and a heat map with one Gaussian of 1 pixel each."""
    crops = np.full((count, size, size, 3), 90, np.uint8)
    scales = 1 + np.arange(steps, -1, -1) / 4
    landmarks = np.stack([face(size * 0.2, size * 0.3, size * 0.4 * scale) for scale in scales])
    y, x = np.mgrid[:size, :size]
    spot = np.exp(-((x - size * 0.25) ** 2 + (y - size * 0.75) ** 2) / 2)
    heatmaps = np.zeros((count, steps + 1, 3, size, size), np.float32)
    for t in range(steps + 1):
        heatmaps[:, t, t % 3] = spot
    return crops, np.broadcast_to(landmarks, (count, *landmarks.shape)), heatmaps


@pytest.mark.parametrize("size", [64, 120, 224, 256])
def test_evolution_shows_each_step_and_its_heat_map(size: int) -> None:
    crops, landmarks, heatmaps = make_evolution(size)
    sheet = evolution_sheet(crops, landmarks, heatmaps, landmarks[:, -1], ["first", "second"])
    assert sheet.shape == (LINE + 2 * FACE, 4 * TILE, 3)
    rows = sheet[LINE:].reshape(2, FACE, 4, TILE, 3).swapaxes(1, 2)  # face, column, y, x, RGB
    drawn, captions, below = rows[:, :, :TILE], rows[:, :, TILE : TILE + LINE], rows[:, :, TILE + LINE :]
    assert (drawn[:, 0] == 90).all()
    assert (captions > 200).any(axis=(2, 3, 4)).all()
    np.testing.assert_array_equal(below[:, 0], drawn[:, 3])  # the truth is where the last step ended
    for t in range(3):
        x, y = ((landmarks[0, t, 67, :2] + 0.5) * TILE / size - 0.5).round().astype(int)
        assert (drawn[:, 1 + t, y, x] != 90).any(axis=-1).all()
        spot = below[0, 1 + t, :, :, t]
        bright = np.argwhere(spot > 0.6 * 255)
        assert len(bright) >= 4, "too small to be seen"
        np.testing.assert_allclose(bright.mean(axis=0), np.array([0.75, 0.25]) * TILE, atol=1.5)
        assert below[0, 1 + t].sum() == spot.astype(int).sum(), "a colour for each axis"


def test_evolution_without_truth_and_of_many_faces() -> None:
    crops, landmarks, heatmaps = make_evolution(64, count=9, steps=0)
    sheet = evolution_sheet(crops, landmarks, heatmaps, None, ["face"] * 9)
    assert sheet.shape == (LINE + 8 * FACE, 2 * TILE, 3)
    first = sheet[LINE : LINE + FACE]
    assert np.ptp(first[TILE + LINE :, :TILE]) == 0, "nothing where the truth would be"
    assert np.ptp(first[TILE : TILE + LINE, TILE:]) == 0, "no error without a truth"
