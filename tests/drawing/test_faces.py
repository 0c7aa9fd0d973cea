"""Overlays."""

import numpy as np
import pytest

from dhm_cli.drawing.faces import (
    GROUP_COLOURS,
    PREDICTION_COLOUR,
    TILE,
    TRUTH_COLOUR,
    comparison_sheet,
    comparison_tile,
    draw_landmarks,
    evolution_sheet,
)

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


def near(image: np.ndarray, colour: tuple[int, int, int], places: np.ndarray) -> np.ndarray:
    """Whether the colour is found within a pixel of each place (N, 2), x and y."""
    found = (np.abs(image.astype(int) - colour).max(axis=2) < 110).astype(np.uint8)
    found = np.pad(found, 1)
    around = sum(
        found[1 + dy : found.shape[0] - 1 + dy, 1 + dx : found.shape[1] - 1 + dx]
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    )
    x, y = places.round().astype(int).T
    return around[y, x] > 0


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_comparison_marks_truth_and_prediction(dimensions: int) -> None:
    truth = face(150, 100, 100)
    predicted = truth + np.array([9, 9, 0])
    tile = comparison_tile(GREY, truth[:, :dimensions], predicted[:, :dimensions], "caption", 200)
    assert tile.shape == (200 + LINE, 200, 3)
    # the crop is 1.35 times the box around its centre; crop pixel centres are at (x + 0.5) * scale - 0.5
    scale = 200 / 135
    at = lambda points: (points[:, :2] - (200, 150)) * scale + 99.5  # noqa: E731
    assert near(tile, PREDICTION_COLOUR, at(predicted)).all()
    assert near(tile, TRUTH_COLOUR, at(truth)).mean() > 0.8, "the prediction is drawn over some"
    assert near(tile, PREDICTION_COLOUR, at(truth)).mean() < 0.3, "but where its curves cross"
    assert not (tile[:200, -8:] != 90).any(), "nothing beyond both"


def test_a_prediction_far_off_is_hinted_at() -> None:
    truth = face(150, 100, 100)
    beside = comparison_tile(GREY, truth, truth + np.array([50, 0, 0]), "", 200)
    scale = 200 / (2.1 * 100)  # the crop grew to hold it
    assert near(beside, PREDICTION_COLOUR, (truth[:, :2] + [50, 0] - (200, 150)) * scale + 99.5).all()
    away = comparison_tile(GREY, truth, truth + np.array([900, 0, 0]), "", 200)[:200]
    np.testing.assert_array_equal(away[:, -5:], np.broadcast_to(PREDICTION_COLOUR, (200, 5, 3)))
    assert not near(away[:, :-7], PREDICTION_COLOUR, np.argwhere(np.ones((200, 193)))[:, ::-1]).any()
    side = 200 / (2.2 * 100)
    assert near(away, TRUTH_COLOUR, (truth[:, :2] - (200, 150)) * side + 99.5).all(), "not smaller than 1 / 2.2"


def test_a_face_that_was_not_found_shows_the_truth_alone() -> None:
    truth = face(150, 100, 100)
    tile = comparison_tile(GREY, truth, np.full((68, 3), np.nan), "", 200)
    assert near(tile, TRUTH_COLOUR, (truth[:, :2] - (200, 150)) * 200 / 135 + 99.5).all()
    assert not near(tile, PREDICTION_COLOUR, np.argwhere(np.ones((200, 200)))[:, ::-1]).any()


def test_points_that_nobody_labelled_are_left_out_of_a_comparison() -> None:
    """A face of AFLW has up to 21 of the 68: they were not drawn at all, nor could they be."""
    truth = face(150, 100, 100)
    some = truth + np.array([9, 9, 0])
    some[1::2] = np.nan
    tile = comparison_tile(GREY, truth, some, None, 200)
    at = (some[:, :2] - (200, 150)) * 200 / 135 + 99.5
    assert near(tile, PREDICTION_COLOUR, at[::2]).all()
    between = ((at[:-2:2] + at[2::2]) / 2)[:5]  # of the jaw: no curve over a gap
    assert not near(tile, PREDICTION_COLOUR, between).any()
    assert near(tile, TRUTH_COLOUR, (truth[:, :2] - (200, 150)) * 200 / 135 + 99.5).mean() > 0.8


def test_a_comparison_sheet_has_a_legend() -> None:
    """Pictures of moved labels had none: only the terminal said what white and orange are."""
    red, blue = (np.full((TILE + LINE, 2 * TILE, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    sheet = comparison_sheet([red, red, blue], 2, "old labels", "new labels")
    legend, row = 30, TILE + LINE
    assert sheet.shape == (legend + 2 * row, 4 * TILE, 3)
    colours = sheet[:legend].reshape(-1, 3).tolist()
    assert list(TRUTH_COLOUR) in colours
    assert list(PREDICTION_COLOUR) in colours
    assert (sheet[legend : legend + row] == (255, 0, 0)).all()
    assert (sheet[-row:, : 2 * TILE] == (0, 0, 255)).all()
    assert np.ptp(sheet[-row:, 2 * TILE :]) == 0, "filled up with dark"
    other = comparison_sheet([red, red, blue], 2, "old labels", "another meaning")
    assert (other[:legend] != sheet[:legend]).any()
    assert (sheet[:legend, -20:] == sheet[0, 0]).all(), "the text is not cut"


@pytest.mark.parametrize("place", [(100, 100), (-8, -8), (285, 195), (5000, 5000)])
def test_small_faces_are_drawn_finely_and_only_where_they_are(place: tuple[int, int]) -> None:
    canvas = np.full((200, 300, 3), 60, np.uint8)
    points = np.random.default_rng(0).uniform(0, 24, (68, 3)) + np.array([*place, 0])
    drawn = draw_landmarks(canvas, [points])
    y, x = np.nonzero((drawn != canvas).any(axis=2))
    assert (len(y) > 0) == (place[0] < 1000)
    inside = (x >= place[0] - 4) & (x <= place[0] + 28) & (y >= place[1] - 4) & (y <= place[1] + 28)
    assert inside.all()
