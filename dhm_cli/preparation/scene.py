"""A photographed face as colours and depth in an upright crop, and the photo of it from another side.

The depth map joins the dense surface of the face with a rounded head, neck and body behind it; beyond their outlines
there is a background far away that stays where it is. The camera turns about the image's vertical axis, so every row of
pixels stays a row, and what is visible of it is the running minimum of the moved positions: there are neither holes nor
combs, whatever the angle below 90 degrees.

Part of view synthesis, which can be removed whole: see `view_synthesis`.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.geometry.crop import extract_crop

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

# Colours and depth have this many samples per pixel and axis, so that outlines come out smooth.
_FINER = 2
_TO_SAMPLES = np.array([[_FINER, 0, (_FINER - 1) / 2], [0, _FINER, (_FINER - 1) / 2], [0, 0, 1]])
# A column right of everything.
_BEYOND = np.float32(1e6)
# Head, neck and body as ellipsoids, in units of the face's width (jaw point 0 to 16) from the middle between these two
# points, x right, y up, z out of the face: centre, semi-axes, and out to how many radii the depth falls back to the far
# side. The outer part of the head is hair: it is what a profile shows of the back of the head.
_BODY = (
    ((0.0, 0.08, -0.18), (0.56, 0.80, 0.64), 1.30),
    ((0.0, -0.90, -0.20), (0.42, 0.75, 0.38), 1.10),
    ((0.0, -1.85, -0.30), (1.50, 0.70, 0.50), 1.10),
)
# Tuned by eye and by the depth gaps of landmarks on 80 photos; all in units of the face's width.
_BEHIND_OTHERS = 0.03  # vertices this far behind the foremost nearby have lost most of their weight
_SEAM = 0.02  # how far the seams between the parts are rounded off
_BEND_REACH = 0.07  # how far a landmark's depth bends its surroundings
_BEND_MOST = 0.06  # a landmark further off the surface than this is hidden there, or not worth following
_HIDDEN_BELOW = 0.06  # seen points lie within 0.02 of the turned surface, points of the far side 0.1 to 1 below


@dataclass(frozen=True)
class Scene:
    """Colours and depth of an upright crop of `size` pixels, n = size * finer samples a side.

    Attributes:
        colours: (n, n, 3) uint8.
        depth: (n, n) float32, pixels of the crop, z toward the viewer, -inf where there is only background.
        background: (n, n, 3) uint8, the picture without the person.
        size: pixels.
        width: of the face, pixels.
    """

    colours: Image
    depth: NDArray[np.float32]
    background: Image
    size: int
    width: float


@dataclass(frozen=True)
class SeenSurface:
    """What is seen of a turned scene.

    Attributes:
        depth: (n, n) float32, turned; -inf for background.
        centre: column in the middle of `depth`, in pixels of the turned scene.
        width: of the face, pixels.
    """

    depth: NDArray[np.float32]
    centre: float
    width: float


def build_scene(image: Image, crop: Array, size: int, points: Array, axes: Array, vertices: Array) -> Scene:
    """Colours and depth of a face in an upright crop.

    Args:
        image: (H, W, 3) uint8 RGB; beyond its border the picture is mirrored.
        crop: (2, 3), photo to crop pixels.
        size: side of the crop, pixels.
        points: (68, 3), landmarks, crop pixels, x right, y down, z toward the viewer.
        axes: (3, 3), columns are the head's x, y, z axes in the crop's space.
        vertices: (V, 3), the dense surface, as `points`.

    Returns:
        The scene.
    """
    samples = size * _FINER
    colours = extract_crop(image, (_TO_SAMPLES @ _square(crop))[:2], samples, border=cv2.BORDER_REFLECT_101)
    width = float(np.linalg.norm(points[0] - points[16]))
    face, sure = _face_depth(vertices, size, width)
    depth = np.where(sure, face, _body_depth(points, axes, size, width))
    depth = _bend_to_landmarks(_smooth_seams(depth, sure, width), points, width)
    known = np.isfinite(depth)
    fine = cv2.resize(np.where(known, depth, depth[known].min()).astype(np.float32), (samples, samples))
    person = cv2.resize(known.astype(np.float32), (samples, samples)) > 0.5
    background = cv2.resize(_without_person(colours, known), (samples, samples))
    return Scene(colours, np.where(person, fine, np.float32(-np.inf)), background, size, width)


def photograph(scene: Scene, angle: float, crop: Array) -> tuple[Image, SeenSurface]:
    """The picture after turning a scene about the vertical line through its middle and z = 0.

    Args:
        scene: colours and depth.
        angle: radians, from -pi / 2 to pi / 2; positive turns the nose to the left of the image.
        crop: (2, 3), from the pixels of the turned scene to those of the picture.

    Returns:
        The picture, (size, size, 3) uint8, and the turned surface.
    """
    middle = (scene.size - 1) / 2
    centre = float((np.linalg.inv(_square(crop)) @ [middle, middle, 1.0])[0])
    step = -1 if angle < 0 else 1  # a turn to the other side is the same in the mirror
    column, depth = _seen_columns(np.ascontiguousarray(scene.depth[:, ::step]), abs(angle), step * (centre - middle))
    column, depth = column[:, ::step], depth[:, ::step]
    samples = len(column)
    if step < 0:
        column = samples - 1 - column
    row = np.repeat(np.arange(samples, dtype=np.float32)[:, None], samples, axis=1)
    colours = cv2.remap(scene.colours, column, row, cv2.INTER_LINEAR)
    canvas = np.where(np.isfinite(depth)[..., None], colours, scene.background)
    shift = np.array([[1.0, 0.0, centre - middle], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    matrix = crop @ shift @ np.linalg.inv(_TO_SAMPLES)
    picture = cv2.warpAffine(
        canvas, matrix, (scene.size, scene.size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    return picture, SeenSurface(depth, centre, scene.width)


def hidden_landmarks(surface: SeenSurface, points: Array) -> NDArray[np.bool_]:
    """Which points (68, 3), pixels of the turned scene, lie behind the turned surface, (68,)."""
    samples = len(surface.depth)
    x = points[:, 0] - surface.centre + samples / _FINER / 2
    at = np.stack([x * _FINER - 0.5, (points[:, 1] + 0.5) * _FINER - 0.5])
    column, row = np.clip(np.rint(at), 0, samples - 1).astype(np.intp)
    around = _FINER + 1  # at an outline, the side of it that lies deeper decides
    lowest = cv2.erode(surface.depth, np.ones((around, around), np.uint8))
    return lowest[row, column] - points[:, 2] > _HIDDEN_BELOW * surface.width


def _square(matrix: Array) -> Array:
    return np.concatenate([matrix, [[0.0, 0.0, 1.0]]])


def _seen_columns(
    depth: NDArray[np.float32], angle: float, shift: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What each sample of a turned scene shows of the scene, row by row.

    A sample of column x, from the middle, and depth z moves to x cos - z sin. What lies further right is nearer to the
    camera then, so a sample is seen if none right of it has moved further left: the seen ones are the running minimum
    from the right, which only rises, and in which every new column is looked up. What reaches the right border of the
    scene goes on beyond it.

    Args:
        depth: (n, n), -inf for background.
        angle: radians, >= 0.
        shift: pixels by which the middle of the turned scene lies right of that of the scene.

    Returns:
        The column of the scene that is seen, and its turned depth, -inf for background, both (n, n).
    """
    samples = len(depth)
    sin, cos = np.float32(math.sin(angle)), np.float32(math.cos(angle))
    x = (np.arange(samples, dtype=np.float32) + 0.5) / _FINER - samples / _FINER / 2
    known = np.isfinite(depth)
    height = np.where(known, depth, np.float32(0.0))
    moved = np.where(known, cos * x - sin * height, _BEYOND)
    seen = np.minimum.accumulate(moved[:, ::-1], axis=1)[:, ::-1].copy()
    wanted = x + np.float32(shift)
    after = np.stack([np.searchsorted(row, wanted, side="right") for row in seen])

    rows = np.arange(0, depth.size, samples)[:, None]  # where a row starts in the flattened array
    left = np.clip(after - 1, 0, samples - 2)
    start, stop = seen.take(left + rows), seen.take(left + 1 + rows)
    hit = (after > 0) & (stop < _BEYOND)
    column = left.astype(np.float32) + np.clip((wanted - start) / np.maximum(stop - start, np.float32(1e-6)), 0, 1)
    nearest = np.rint(column).astype(np.intp)
    turned = sin * x.take(nearest) + cos * height.take(nearest + rows)
    return column, np.where(hit, turned, np.float32(-np.inf))


def _face_depth(vertices: Array, size: int, width: float) -> tuple[Array, NDArray[np.bool_]]:
    """Depth of the foremost vertices (V, 3), spread over the pixels between them.

    Vertices behind others, as in mouth and eye sockets, count the less the deeper they lie.

    Returns:
        Depth (size, size), and where there are vertices enough to trust it, (size, size).
    """
    side = size + 2  # a rim for what lies outside
    column, row = (np.clip(np.rint(vertices[:, axis]), -1, size).astype(np.intp) + 1 for axis in (0, 1))
    coarse = (row // 3) * side + column // 3
    foremost = np.full(side * side, -np.inf)
    np.maximum.at(foremost, coarse, vertices[:, 2])
    weight = np.exp((vertices[:, 2] - foremost[coarse]) / (_BEHIND_OTHERS * width))
    weights, depths = (
        np.bincount(row * side + column, values, side * side).reshape(side, side)[1:-1, 1:-1]
        for values in (weight, weight * vertices[:, 2])
    )
    depth, trust = np.zeros((size, size)), np.zeros((size, size))
    for sigma in (4.0, 2.0, 1.0):  # a narrower average replaces a wider one where three vertices or more are in it
        near, total = cv2.GaussianBlur(weights, (0, 0), sigma), cv2.GaussianBlur(depths, (0, 0), sigma)
        share = np.clip(near * 2 * np.pi * sigma**2 / 3, 0, 1)
        depth += share * (total / np.maximum(near, 1e-12) - depth)
        trust = np.maximum(trust, share)
    return depth, trust > 0.5


def _body_depth(points: Array, axes: Array, size: int, width: float) -> Array:
    """Depth of head, neck and body behind a face, (size, size); -inf beyond their outlines."""
    grid = np.arange(size, dtype=np.float64)
    depth = np.full((size, size), -np.inf)
    for centre, semi_axes, reach in _BODY:
        middle = (points[0] + points[16]) / 2 + width * (axes @ centre)
        spread = axes @ np.diag(np.square(semi_axes)) @ axes.T * width**2
        outline = np.linalg.inv(spread[:2, :2])
        tilt = outline @ spread[:2, 2]  # the outline's points lie in the plane z = tilt . (x, y)
        half = math.sqrt(spread[2, 2] - spread[2, :2] @ tilt)
        x, y = grid[None, :] - middle[0], grid[:, None] - middle[1]
        radius = np.sqrt(outline[0, 0] * x**2 + 2 * outline[0, 1] * x * y + outline[1, 1] * y**2)
        rise = np.sqrt(np.clip(1 - radius**2, 0, 1)) - np.clip((radius - 1) / (reach - 1), 0, 1)
        part = middle[2] + (tilt[0] * x + tilt[1] * y) / np.maximum(radius, 1) + half * rise
        depth = np.where(radius < reach, np.maximum(depth, part), depth)
    return depth


def _smooth_seams(depth: Array, face: NDArray[np.bool_], width: float) -> Array:
    """Round off the seams between the parts of the body and the face, and leave the inner face as it is."""
    known = np.isfinite(depth)
    filled = np.where(known, depth, 0.0)
    near = cv2.GaussianBlur(known.astype(np.float64), (0, 0), _SEAM * width)
    smooth = cv2.GaussianBlur(filled, (0, 0), _SEAM * width) / np.maximum(near, 1e-12)
    keep = cv2.GaussianBlur(face.astype(np.float64), (0, 0), _SEAM * width)
    return np.where(known, keep * filled + (1 - keep) * smooth, -np.inf)


def _bend_to_landmarks(depth: Array, points: Array, width: float) -> Array:
    """Bend the depth a little to meet the landmarks that lie on it; those hidden in the photo have no say."""
    column, row = (np.clip(np.rint(points[:, axis]), 0, len(depth) - 1).astype(np.intp) for axis in (0, 1))
    sigma = _BEND_REACH * width
    for _ in range(3):
        gap = points[:, 2] - depth[row, column]
        weight = 1.0 / (1.0 + (gap / (_BEND_MOST * width)) ** 4)
        marks, gaps = np.zeros_like(depth), np.zeros_like(depth)
        np.add.at(marks, (row, column), weight)
        np.add.at(gaps, (row, column), weight * np.where(weight > 0, gap, 0.0))  # infinite before the background
        near = cv2.GaussianBlur(marks, (0, 0), sigma) * 2 * np.pi * sigma**2
        depth = depth + cv2.GaussianBlur(gaps, (0, 0), sigma) * 2 * np.pi * sigma**2 / (near + 0.05)
    return depth


def _without_person(colours: Image, person: NDArray[np.bool_]) -> Image:
    """The picture (size, size, 3), with the person replaced by ever wider averages of what surrounds them."""
    size = len(person)
    picture = cv2.resize(colours, (size, size), interpolation=cv2.INTER_AREA)
    small = (size // 2, size // 2)
    known = cv2.resize((~person).astype(np.float32), small, interpolation=cv2.INTER_AREA)
    known = (known > 0.99).astype(np.float32)
    image = cv2.resize(picture, small, interpolation=cv2.INTER_AREA).astype(np.float32)
    filled = np.empty_like(image)
    filled[:] = image.mean(axis=(0, 1))
    for sigma in (size / 5, size / 10, size / 20, size / 40, size / 80):
        near = cv2.GaussianBlur(known, (0, 0), sigma)[..., None]
        total = cv2.GaussianBlur(image * known[..., None], (0, 0), sigma)
        filled += np.clip(near * 4, 0, 1) * (total / np.maximum(near, 1e-6) - filled)
    hole = person.astype(np.float32)
    mix = np.maximum(cv2.GaussianBlur(hole, (0, 0), 2.0), hole)[..., None]
    filled = cv2.resize(filled, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.clip(picture + mix * (filled - picture) + 0.5, 0, 255).astype(np.uint8)
