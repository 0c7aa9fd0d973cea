"""Pictures of results."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.drawing.png_mark import marked
from dhm_cli.geometry.crop import crop_matrix, extract_crop, landmark_crop_square, transform_landmarks
from dhm_cli.geometry.landmarks import CURVES, GROUPS, NUM_LANDMARKS, face_size
from dhm_cli.metrics.landmark_error import normalised_mean_error
from dhm_cli.runtime.atomic import written_atomically

# RGB, told apart by people of all kinds of colour vision (after Okabe and Ito).
GROUP_COLOURS: dict[str, tuple[int, int, int]] = {
    "jaw": (86, 180, 233),
    "brows": (230, 159, 0),
    "nose": (240, 228, 66),
    "eyes": (0, 215, 150),
    "mouth": (255, 105, 150),
}
_OUTLINE = (25, 25, 25)
# Brightness of the landmark farthest from the viewer; the nearest has 1.
_FAR_BRIGHTNESS = 0.55
# How strongly a small face is drawn.
_SMALL_FACE_STRENGTH = 0.6
# Pixels; lines do not grow beyond it.
_LARGEST_FACE = 10_000.0
# OpenCV draws at 1/16 pixel.
_SHIFT = 4
# Side of a face in a contact sheet, pixels.
TILE = 160
# Height of a tile's caption, pixels.
_CAPTION = 14
# Rows of an evolution sheet.
_MOST_FACES = 8
# RGB of a comparison, told apart by people of all kinds of colour vision, and by brightness.
TRUTH_COLOUR, PREDICTION_COLOUR = (255, 255, 255), (255, 140, 0)
# Side of a comparison's crop over the longer side of the true box: without need, and at most for a far-off prediction.
_COMPARISON_MARGIN, _LARGEST_MARGIN = 1.35, 2.2
# Faces below this size, pixels, are drawn with finer lines.
_SMALL_FACE = 80.0
# Height of the legend of a comparison sheet, pixels.
_LEGEND = 30


def draw_landmarks(
    image: NDArray[np.uint8], faces: Sequence[NDArray[np.floating]] | NDArray[np.floating]
) -> NDArray[np.uint8]:
    """Draw 68-point landmarks as curves and points, one colour a group, nearer points brighter.

    Args:
        image: (H, W, 3) uint8 RGB; not changed.
        faces: landmarks of each face, (68, 3), photo pixels, z toward the viewer.

    Returns:
        A copy of the image with the drawing, (H, W, 3) uint8 RGB.
    """
    canvas = np.ascontiguousarray(image).copy()
    for points in faces:
        draw_face(canvas, np.asarray(points, dtype=np.float64))
    return canvas


def draw_face(
    canvas: NDArray[np.uint8],
    points: NDArray[np.float64],
    hidden: NDArray[np.bool_] | None = None,
    with_lines: bool = True,
    with_points: bool = True,
) -> None:
    """Draw one face on an image; see `draw_landmarks`.

    On small faces dots would cover the face: there it is curves alone, or finer dots alone, half transparent.

    Args:
        canvas: (H, W, 3) uint8 RGB; changed in place.
        points: (68, 3), pixels.
        hidden: which landmarks to draw hollow, (68,), or None.
        with_lines: draw the curves.
        with_points: draw the points.
    """
    size = min(float(face_size(points)), _LARGEST_FACE)
    if size < _SMALL_FACE:
        with blended(canvas, points, _SMALL_FACE_STRENGTH):
            if with_lines:
                _draw_curves(canvas, points, 1)
            elif with_points:
                _draw_points(canvas, points, None, 0.7, False)
        return
    thickness = max(1, round(size / 160))
    if with_lines:
        _draw_curves(canvas, points, thickness)
    if with_points:
        _draw_points(canvas, points, hidden, max(0.7, size / 90), thickness > 1)


@contextmanager
def blended(canvas: NDArray[np.uint8], points: NDArray[np.float64], strength: float) -> Iterator[None]:
    """What is drawn meanwhile, on and around some points, is blended with what was there before.

    Args:
        canvas: (H, W, 3) uint8; changed in place.
        points: (N, 2 or more), pixels; the blending reaches 0.1 times their size beyond them.
        strength: of what is drawn, 0 to 1.
    """
    limits = canvas.shape[1::-1]
    low, high = np.nan_to_num(points[:, :2].min(axis=0)), np.nan_to_num(points[:, :2].max(axis=0))
    reach = 4 + 0.1 * float((high - low).max())
    left, top = np.clip(low - reach, 0, limits).astype(int)
    right, bottom = np.clip(high + reach + 1, 0, limits).astype(int)
    region = canvas[top:bottom, left:right]
    before = region.copy()
    yield
    if region.size:
        region[:] = cv2.addWeighted(before, 1 - strength, region, strength, 0)


def _draw_curves(canvas: NDArray[np.uint8], points: NDArray[np.float64], thickness: int) -> None:
    colours = _colours(points)
    # Far to near, so that the near side of a turned face is drawn over the far side.
    segments = sorted(_segments(), key=lambda pair: points[pair[0], 2] + points[pair[1], 2])
    if thickness > 1:
        for a, b in segments:
            _line(canvas, points[a], points[b], _OUTLINE, thickness + 2)
    for a, b in segments:
        _line(canvas, points[a], points[b], _mix(colours[a], colours[b]), thickness)


def _draw_points(
    canvas: NDArray[np.uint8],
    points: NDArray[np.float64],
    hidden: NDArray[np.bool_] | None,
    radius: float,
    outlined: bool,
) -> None:
    colours = _colours(points)
    for k in np.argsort(points[:, 2]):
        if outlined:
            _dot(canvas, points[k], radius + 1, _OUTLINE)
        _dot(canvas, points[k], radius, colours[k])
        if hidden is not None and hidden[k]:
            _dot(canvas, points[k], 0.55 * radius, _OUTLINE)


def _colours(points: NDArray[np.float64]) -> list[tuple[int, int, int]]:
    z = points[:, 2]
    nearness = (z - z.min()) / max(float(np.ptp(z)), 1e-9)
    brightness = _FAR_BRIGHTNESS + (1 - _FAR_BRIGHTNESS) * nearness
    colours = [(0, 0, 0)] * NUM_LANDMARKS
    for name, group in GROUPS.items():
        for k in range(*group.indices(NUM_LANDMARKS)):
            red, green, blue = (round(value * brightness[k]) for value in GROUP_COLOURS[name])
            colours[k] = (red, green, blue)
    return colours


def _segments() -> list[tuple[int, int]]:
    pairs = [(k, k + 1) for first, last, _ in CURVES for k in range(first, last)]
    return pairs + [(last, first) for first, last, closed in CURVES if closed]


def _mix(a: tuple[int, int, int], b: tuple[int, int, int]) -> tuple[int, int, int]:
    return (a[0] + b[0]) // 2, (a[1] + b[1]) // 2, (a[2] + b[2]) // 2


def _fixed(point: NDArray[np.float64]) -> tuple[int, int]:
    # Far outside the canvas OpenCV's fixed-point numbers would overflow.
    x, y = np.clip(np.round(point[:2] * 2**_SHIFT), -(2**30), 2**30).astype(int)
    return int(x), int(y)


def _line(
    canvas: NDArray[np.uint8],
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    colour: tuple[int, int, int],
    thickness: int,
) -> None:
    cv2.line(canvas, _fixed(start), _fixed(end), colour, thickness, cv2.LINE_AA, _SHIFT)


def _dot(canvas: NDArray[np.uint8], point: NDArray[np.float64], radius: float, colour: tuple[int, int, int]) -> None:
    cv2.circle(canvas, _fixed(point), round(radius * 2**_SHIFT), colour, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def face_tile(
    image: NDArray[np.uint8],
    landmarks: NDArray[np.floating],
    caption: str,
    size: int = TILE,
    heatmap: NDArray[np.floating] | None = None,
) -> NDArray[np.uint8]:
    """One face for a contact sheet: its crop with the landmarks drawn, a caption below.

    Args:
        image: (H, W, 3) uint8 RGB.
        landmarks: (68, 3), image pixels.
        caption: printed in small letters; what is not ASCII becomes a question mark.
        size: side of the picture, pixels.
        heatmap: (3, size, size), 0 to 1, shown to the right of the crop.

    Returns:
        (size + 14, size or 2 size, 3) uint8 RGB.
    """
    matrix = crop_matrix(*landmark_crop_square(landmarks), size)
    canvas = draw_landmarks(extract_crop(image, matrix, size), [transform_landmarks(landmarks, matrix)])
    if heatmap is not None:
        shown = (255 * np.moveaxis(np.asarray(heatmap), 0, 2)).clip(0, 255).astype(np.uint8)
        canvas = np.hstack([canvas, shown])
    return _with_caption(canvas, caption)


def comparison_tile(
    image: NDArray[np.uint8],
    truth: NDArray[np.floating],
    predicted: NDArray[np.floating],
    caption: str | None,
    size: int = 200,
) -> NDArray[np.uint8]:
    """One face seen twice: truth as white curves, prediction as orange curves and dots, a caption below.

    The crop is around the true box and grows to hold a prediction beyond it, up to 2.2 times the box; an orange bar at
    the edge shows the side of what is farther off.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: (68, 2 or 3), image pixels; z is ignored.
        predicted: (68, 2 or 3), image pixels; points with NaN are not drawn, such as those that nobody labelled.
        caption: printed in small letters, about 35 characters, what is not ASCII a question mark; None for none.
        size: side of the picture, pixels.

    Returns:
        (size + 14, size, 3) uint8 RGB, without a caption (size, size, 3).
    """
    truth, predicted = np.asarray(truth, np.float64)[:, :2], np.asarray(predicted, np.float64)[:, :2]
    centre, side = landmark_crop_square(truth, _COMPARISON_MARGIN)
    reach = 2.1 * float(np.nanmax(np.abs(np.concatenate([truth, predicted]) - centre)))
    matrix = crop_matrix(centre, min(max(side, reach), side * _LARGEST_MARGIN / _COMPARISON_MARGIN), size)
    canvas = np.ascontiguousarray(extract_crop(image, matrix, size))
    _draw_outlined(canvas, transform_landmarks(truth, matrix), TRUTH_COLOUR, 0.0)
    if np.isfinite(predicted).any():
        placed = transform_landmarks(predicted, matrix)
        _draw_outlined(canvas, placed, PREDICTION_COLOUR, max(1.4, size / 130))
        _mark_edges(canvas, placed)
    return canvas if caption is None else _with_caption(canvas, caption)


def _draw_outlined(
    canvas: NDArray[np.uint8], points: NDArray[np.float64], colour: tuple[int, int, int], radius: float
) -> None:
    """Curves of one colour over darker ones, so that they are seen on any skin; dots where the radius is > 0.

    Points with NaN are left out, and the curves to them.
    """
    known = np.isfinite(points.sum(axis=1))
    segments = [(a, b) for a, b in _segments() if known[a] and known[b]]
    thickness = max(1, round(len(canvas) / 250))
    shade = canvas.copy()
    for a, b in segments:
        _line(shade, points[a], points[b], _OUTLINE, thickness + 2)
    canvas[:] = cv2.addWeighted(canvas, 0.45, shade, 0.55, 0)
    for a, b in segments:
        _line(canvas, points[a], points[b], colour, thickness)
    for point in points[known] if radius else ():
        _dot(canvas, point, radius, colour)


def _mark_edges(canvas: NDArray[np.uint8], points: NDArray[np.float64]) -> None:
    """An orange bar along each edge of the canvas beyond which at least half of the points lie."""
    size, bar = len(canvas), max(3, len(canvas) // 40)
    x, y = np.nanmedian(points, axis=0)
    for beyond, edge in (
        (x < 0, np.s_[:, :bar]),
        (x > size - 1, np.s_[:, -bar:]),
        (y < 0, np.s_[:bar]),
        (y > size - 1, np.s_[-bar:]),
    ):
        if beyond:
            canvas[edge] = PREDICTION_COLOUR


def comparison_sheet(tiles: Sequence[NDArray[np.uint8]], columns: int, white: str, orange: str) -> NDArray[np.uint8]:
    """Comparison tiles row by row below a line that says what their colours mean.

    Args:
        tiles: of one size, as `comparison_tile` makes them.
        columns: tiles in a row; wide enough for the line, some 600 pixels.
        white: what is drawn white, for the legend.
        orange: what is drawn orange.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    sheet = contact_sheet(tiles, columns)
    return np.vstack([_legend(sheet.shape[1], white, f"{orange} (a bar at an edge: beyond it)"), sheet])


def _legend(width: int, white: str, orange: str) -> NDArray[np.uint8]:
    """A line of text, (30, width, 3) uint8 RGB, with a sample of each colour before its meaning."""
    canvas = np.full((_LEGEND, width, 3), _OUTLINE, np.uint8)
    left, middle, baseline = 8, _LEGEND // 2, _LEGEND - 10
    for text, colour, dots in ((white, TRUTH_COLOUR, ()), (orange, PREDICTION_COLOUR, (4, 16, 28))):
        cv2.line(canvas, (left, middle), (left + 32, middle), colour, 2, cv2.LINE_AA)
        for x in dots:
            cv2.circle(canvas, (left + x, middle), 4, colour, cv2.FILLED, cv2.LINE_AA)
        _write(canvas, text, (left + 40, baseline), 0.5)
        left += 70 + cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)[0][0]
    return canvas


def _write(canvas: NDArray[np.uint8], text: str, place: tuple[int, int], scale: float) -> None:
    """Write on the canvas, the baseline starting at the place; what is not ASCII becomes a question mark."""
    ascii_text = text.encode("ascii", "replace").decode()
    cv2.putText(canvas, ascii_text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (235, 235, 235), 1, cv2.LINE_AA)


def _with_caption(image: NDArray[np.uint8], caption: str) -> NDArray[np.uint8]:
    """The image with a line of small text below; what is too long is cut off."""
    canvas = cv2.copyMakeBorder(image, 0, _CAPTION, 0, 0, cv2.BORDER_CONSTANT, value=_OUTLINE)
    _write(canvas, caption, (3, len(canvas) - 4), 0.33)  # type: ignore[arg-type]
    return canvas  # type: ignore[return-value]


def spread_over(values: NDArray[np.floating], count: int = 24) -> NDArray[np.int64]:
    """Rows for a contact sheet: at most `count`, evenly from the smallest to the largest of the values (N,)."""
    places = np.unique(np.linspace(0, len(values) - 1, min(count, len(values))).astype(int))
    return np.argsort(values, kind="stable")[places]


def contact_sheet(tiles: Sequence[NDArray[np.uint8]], columns: int) -> NDArray[np.uint8]:
    """Tiles of one size row by row, (H, W, 3) uint8 RGB; the last row is filled up with dark."""
    blank = np.full_like(tiles[0], _OUTLINE[0])
    filled = [*tiles, *[blank] * (-len(tiles) % columns)]
    return np.vstack([np.hstack(filled[i : i + columns]) for i in range(0, len(filled), columns)])


def evolution_sheet(
    crops: NDArray[np.uint8],
    landmarks: NDArray[np.floating],
    heatmaps: NDArray[np.floating],
    truth: NDArray[np.floating] | None,
    captions: Sequence[str],
) -> NDArray[np.uint8]:
    """How the landmarks and their heat map evolve over the steps of a network, as in Fig. 5 of Sun et al. 2018.

    Two rows of tiles a face. Above: the crop, then the crop with the landmarks of each step and their NME. Below: the
    crop with the truth, then the heat maps drawn from the landmarks above them, red, green and blue for x, y and z.

    Args:
        crops: (n, S, S, 3) uint8 RGB; of more than 8 the first 8 are shown.
        landmarks: (n, T + 1, 68, 3), crop pixels, from the mean face (step 0) to the last step.
        heatmaps: (n, T + 1, 3, S, S), 0 to 1.
        truth: (n, 68, 3), crop pixels, or None where it is not known.
        captions: n, of about 25 characters.

    Returns:
        (14 + n * 334, (T + 2) * 160, 3) uint8 RGB.
    """
    steps = range(landmarks.shape[1])
    headers = ["input", *(f"step {t}" if t else "step 0 (mean face)" for t in steps)]
    rows = [np.hstack([_with_caption(np.empty((0, TILE, 3), np.uint8), header) for header in headers])]
    for i in range(min(len(crops), _MOST_FACES)):
        known = [] if truth is None else [truth[i]]
        below = _crop_tile(crops[i], known) if known else np.full((TILE, TILE, 3), _OUTLINE[0], np.uint8)
        columns = [[_with_caption(_crop_tile(crops[i], []), captions[i]), below]]
        for t in steps:
            nme = f"NME {normalised_mean_error(landmarks[i, t], known[0]):.2f} %" if known else ""
            tile = _with_caption(_crop_tile(crops[i], [landmarks[i, t]]), nme)
            columns.append([tile, _heatmap_tile(heatmaps[i, t])])
        rows.append(np.hstack([np.vstack(column) for column in columns]))
    return np.vstack(rows)


def _crop_tile(crop: NDArray[np.uint8], faces: Sequence[NDArray[np.floating]]) -> NDArray[np.uint8]:
    """A crop (S, S, 3) at the size of a tile, with faces (68, 3), crop pixels, drawn at that size."""
    side = len(crop)
    matrix = crop_matrix(np.full(2, (side - 1) / 2), side, TILE)
    return draw_landmarks(_to_tile(crop), [transform_landmarks(points, matrix) for points in faces])


def _heatmap_tile(heatmap: NDArray[np.floating]) -> NDArray[np.uint8]:
    """A heat map (3, S, S), 0 to 1, at the size of a tile."""
    shown = (255 * np.moveaxis(np.asarray(heatmap), 0, 2)).round().clip(0, 255).astype(np.uint8)
    if len(shown) > TILE:  # a Gaussian of 1 pixel is a speck that shrinking would darken: it becomes a spot first
        spot = 2 * math.ceil(len(shown) / TILE) + 1
        shown = cv2.dilate(shown, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (spot, spot)))  # type: ignore[assignment]
    return _to_tile(shown)


def _to_tile(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    interpolation = cv2.INTER_AREA if len(image) > TILE else cv2.INTER_LINEAR
    return cv2.resize(image, (TILE, TILE), interpolation=interpolation)  # type: ignore[return-value]


def save_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image (H, W, 3) uint8 RGB as PNG, atomically, with the mark of dhm."""
    data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    with written_atomically(path) as partial:
        partial.write_bytes(marked(data.tobytes()))
