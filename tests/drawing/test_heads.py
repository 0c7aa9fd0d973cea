"""Heads drawn on photos."""

from dataclasses import replace

import numpy as np
import pytest

from dhm_cli.drawing.heads import AXIS_COLOURS, Head, draw_heads
from dhm_cli.geometry.pose import yaw_pitch_roll_to_matrix

GREY = np.full((400, 600, 3), 60, np.uint8)
SHAPE = np.random.default_rng(0).uniform(0, 100, (68, 3))


def head(left: float, top: float, **what: object) -> Head:
    return replace(Head(SHAPE + np.array([left, top, 0]), np.eye(3), (left - 10, top - 10, 120, 120)), **what)  # type: ignore[arg-type]


def changed(*heads: Head, parts: tuple[str, ...]) -> np.ndarray:
    return np.argwhere((draw_heads(GREY, heads, parts) != GREY).any(axis=2))


def test_numbers_and_confidences_stand_above_the_faces() -> None:
    for what, parts in (({"number": 1}, ("number",)), ({"confidence": 0.87}, ("confidence",))):
        places = changed(head(60, 150, **what), parts=parts)
        assert len(places) > 20
        assert (places[:, 0] < 155).all()
    boxed = changed(head(60, 150, number=1), parts=("number", "box"))
    assert (boxed[:, 0] < 138).any(), "above the box, where there is one"
    assert not len(changed(head(60, 150), parts=("number", "confidence")))


@pytest.mark.parametrize(
    ("angles", "ends"),
    [
        ((0, 0, 0), [(1, 0), (0, -1), (0, 0)]),
        ((90, 0, 0), [(0, 0), (0, -1), (-1, 0)]),  # a positive yaw turns the nose to the left of the picture
        ((0, 90, 0), [(1, 0), (0, 0), (0, -1)]),  # it looks up
        ((0, 0, 90), [(0, 1), (1, 0), (0, 0)]),  # its top to the right
    ],
)
def test_axes_point_where_the_head_does(angles: tuple[int, int, int], ends: list[tuple[int, int]]) -> None:
    turned = head(200, 150, rotation=yaw_pitch_roll_to_matrix(np.radians(angles)))
    drawn = draw_heads(GREY, [turned], ("axes",))
    middle = turned.landmarks.mean(axis=0)[:2]
    for colour, end in zip(AXIS_COLOURS, ends, strict=True):
        y, x = np.nonzero((np.abs(drawn.astype(int) - colour) < 12).all(axis=2))
        if end == (0, 0):  # it points at the viewer or away
            assert len(x) < 40
            continue
        assert len(x) > 40
        along = np.array([x.mean(), y.mean()]) - middle
        np.testing.assert_allclose(along / np.linalg.norm(along), end, atol=0.1)


def test_a_faint_head_is_the_drawing_and_the_photo_blended() -> None:
    photo = np.random.default_rng(1).integers(0, 256, GREY.shape, dtype=np.uint8)
    bold, faint = (draw_heads(photo, [head(60, 150, faint=on)], ("lines", "points")) for on in (False, True))
    mixed = np.round(0.6 * photo.astype(float) + 0.4 * bold)
    assert np.abs(faint - mixed).max() <= 1
    assert (bold != photo).any()


def test_hidden_landmarks_are_hollow() -> None:
    shown = head(60, 150)
    drawn = draw_heads(GREY, [replace(shown, hidden=np.ones(68, bool))], ("points",))
    plain = draw_heads(GREY, [shown], ("points",))
    near = np.argmax(shown.landmarks[:, 2])  # drawn last
    x, y = shown.landmarks[near, :2].round().astype(int)
    assert drawn[y, x].max() < 60 < plain[y, x].max()


@pytest.mark.parametrize("place", [1e7, -1e7])
def test_heads_far_outside(place: float) -> None:
    far = head(place, place, faint=True, number=3, confidence=0.2)
    np.testing.assert_array_equal(draw_heads(GREY, [far], ("points", "lines", "axes", "box")), GREY)
    draw_heads(GREY, [far], ("number", "confidence"))
