"""Heads drawn on photos, in parts to choose from."""

import math
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.drawing.faces import blended, draw_face
from dhm_cli.drawing.surfaces import draw_surface
from dhm_cli.geometry.landmarks import face_size

# RGB of the head's axes x, y and z, told apart by people of all kinds of colour vision (after Okabe and Ito).
AXIS_COLOURS = ((230, 90, 20), (0, 190, 130), (60, 150, 255))
# What can be drawn; `draw_heads` draws it.
PARTS = ("mesh", "points", "lines", "axes", "box", "number", "confidence")
_WHITE, _OUTLINE = (255, 255, 255), (25, 25, 25)
# How strongly a doubtful face is drawn.
_FAINT = 0.4
# Far outside the canvas OpenCV's numbers would overflow.
_FAR = 1e6


@dataclass(frozen=True)
class Head:
    """What can be drawn of a head; pixels.

    Attributes:
        landmarks: (68, 3), z toward the viewer.
        rotation: (3, 3), its pose (`geometry.pose`).
        box: left, top, width, height.
        confidence: 0 to 1, or NaN where none is known.
        hidden: which landmarks cannot be seen, (68,), or None; they are drawn hollow.
        faint: whether to draw it faintly.
        number: its number in the photo, or None.
        surface: vertices (V, 3), pixels, z toward the viewer, and triangles (F, 3) of its surface, or None.
    """

    landmarks: NDArray[np.float64]
    rotation: NDArray[np.float64]
    box: tuple[float, float, float, float]
    confidence: float = float("nan")
    hidden: NDArray[np.bool_] | None = None
    faint: bool = False
    number: int | None = None
    surface: tuple[NDArray[np.float64], NDArray[np.int32]] | None = None


def draw_heads(image: NDArray[np.uint8], heads: Sequence[Head], parts: Collection[str]) -> NDArray[np.uint8]:
    """Draw heads on a photo.

    Args:
        image: (H, W, 3) uint8 RGB; not changed.
        heads: drawn one over the other, in order.
        parts: which of `PARTS` to draw.

    Returns:
        A copy of the image with the drawing, (H, W, 3) uint8 RGB.
    """
    canvas = np.ascontiguousarray(image).copy()
    for head in heads:
        left, top, width, height = head.box
        around = np.vstack([head.landmarks[:, :2], [[left, top], [left + width, top + height]]])
        if "mesh" in parts and head.surface is not None:
            around = np.vstack([around, head.surface[0][:, :2]])
        with blended(canvas, around, _FAINT) if head.faint else nullcontext():
            if "mesh" in parts and head.surface is not None:
                draw_surface(canvas, *head.surface)
            if "box" in parts:
                _draw_box(canvas, head)
            draw_face(canvas, head.landmarks, head.hidden, "lines" in parts, "points" in parts)
            if "axes" in parts:
                _draw_axes(canvas, head)
    for head in heads:  # over all heads, and never faint
        number = "" if "number" not in parts or head.number is None else str(head.number)
        sure = "" if "confidence" not in parts or math.isnan(head.confidence) else f"{100 * head.confidence:.0f}%"
        corner = head.box[:2] if "box" in parts else head.landmarks[:, :2].min(axis=0)
        _write(canvas, head, "  ".join(filter(None, (number, sure))), np.asarray(corner))
    return canvas


def _draw_axes(canvas: NDArray[np.uint8], head: Head) -> None:
    """Arrows from the middle of the head: x to the right of a frontal head, y up, z where the nose points."""
    middle = head.landmarks.mean(axis=0)
    length = 1.2 * math.sqrt(float(((head.landmarks - middle) ** 2).sum(axis=1).mean()))
    thickness = max(1, round(length / 40))
    for k in np.argsort(head.rotation[2]):  # far to near
        end = middle[:2] + length * head.rotation[:2, k] * [1, -1]  # the picture's y is down
        for colour, wider in ((_OUTLINE, 2), (AXIS_COLOURS[k], 0)):
            cv2.arrowedLine(canvas, _pixel(middle), _pixel(end), colour, thickness + wider, cv2.LINE_AA, tipLength=0.15)


def _draw_box(canvas: NDArray[np.uint8], head: Head) -> None:
    left, top, width, height = head.box
    thickness = max(1, round(max(width, height) / 200))
    for colour, wider in ((_OUTLINE, 2), (_WHITE, 0)):
        corners = _pixel(np.array([left, top])), _pixel(np.array([left + width, top + height]))
        cv2.rectangle(canvas, *corners, colour, thickness + wider, cv2.LINE_AA)


def _write(canvas: NDArray[np.uint8], head: Head, text: str, corner: NDArray[np.float64]) -> None:
    """A text above a corner, the larger the larger the head."""
    if not text:
        return
    left, top = np.nan_to_num(corner).clip(-_FAR, _FAR).astype(int)
    scale = float(np.clip(face_size(head.landmarks) / 160, 0.45, 2.0))
    place = (max(2, int(left) - round(10 * scale)), max(round(22 * scale) + 2, int(top) - round(4 * scale)))
    for colour, thickness in ((_OUTLINE, 3 + round(2 * scale)), (_WHITE, 1 + round(scale / 2))):
        cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA)


def _pixel(point: NDArray[np.float64]) -> tuple[int, int]:
    x, y = np.nan_to_num(point[:2]).clip(-_FAR, _FAR).round().astype(int)
    return int(x), int(y)
