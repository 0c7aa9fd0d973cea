"""Shaded surfaces on photos."""

import cv2
import numpy as np
from numpy.typing import NDArray

# RGB of a surface that faces the light, and the light's direction: x right, y down, z toward the viewer.
_COLOUR = np.array([205, 214, 226.0])
_LIGHT = np.array([-0.35, -0.45, 0.82])
_AMBIENT = 0.3
# OpenCV draws at 1/16 pixel, and its numbers overflow far outside the canvas.
_SHIFT, _FAR = 4, 2**26


def draw_surface(
    canvas: NDArray[np.uint8], vertices: NDArray[np.floating], triangles: NDArray[np.integer], strength: float = 0.85
) -> None:
    """Draw a surface as it is seen from the front, shaded, far triangles first; what is turned away is left out.

    Args:
        canvas: (H, W, 3) uint8 RGB; changed in place.
        vertices: (V, 3), pixels, y down, z toward the viewer.
        triangles: (F, 3), counter-clockwise as seen from outside.
        strength: how much of the photo it covers, 0 to 1.
    """
    corners = np.asarray(vertices, np.float64)[triangles]
    # With y down the space is left-handed: this order of the factors points outwards.
    normals = np.cross(corners[:, 2] - corners[:, 0], corners[:, 1] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    front = np.flatnonzero(normals[:, 2] > 0)
    order = front[np.argsort(corners[front, :, 2].mean(axis=1))]
    light = _AMBIENT + (1 - _AMBIENT) * np.clip(normals[order] @ _LIGHT, 0, 1)
    colours = (light[:, None] * _COLOUR).tolist()
    flat = np.nan_to_num(corners[order, :, :2] * 2**_SHIFT).clip(-_FAR, _FAR).round().astype(np.int32)
    low, high = (function(corners[..., :2].reshape(-1, 2), axis=0) for function in (np.min, np.max))
    left, top = np.clip(np.nan_to_num(low) - 1, 0, canvas.shape[1::-1]).astype(int)
    right, bottom = np.clip(np.nan_to_num(high) + 2, 0, canvas.shape[1::-1]).astype(int)
    region = canvas[top:bottom, left:right]
    if not region.size:
        return
    before = region.copy()
    for points, colour in zip(flat, colours, strict=True):
        cv2.fillConvexPoly(canvas, points, colour, cv2.LINE_8, _SHIFT)
    region[:] = cv2.addWeighted(before, 1 - strength, region, strength, 0)
