"""Aligned crops: the upright square in which each style shows a face, at any pose.

The recipes of others are made for frontal faces. They measure the eyes and the mouth in the picture, and in profile,
where both eyes lie on one spot, they enlarge and turn the face at will. Here every recipe is applied to the head turned
to the front, which the 3D landmarks and the pose allow:

    P = R^T (L - mean L)        the head seen from the front, in pixels of the photo (`seen_from_front`)

Sizes are measured in P. The square is turned so that the head's up axis points up (`pose.in_plane_rotation`). Its
centre is a point of the head, and lies where that point lies in the photo. On a frontal face this is the original
recipe; elsewhere the head keeps its size, and its place in the square, however it is turned.

A new style is a function and a line of `CROP_STYLES`.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dhm_cli.geometry.crop import TurnedSquare, crop_matrix, turned_square
from dhm_cli.geometry.pose import in_plane_rotation

_FLIP_Y = np.diag([1.0, -1.0, 1.0])
_RIGHT_EYE, _LEFT_EYE, _NOSE_TIP, _MOUTH_CORNERS = slice(36, 42), slice(42, 48), 30, (48, 54)
# Least side of a square, pixels, for landmarks that are no face at all.
_LEAST_SIDE = 1.0
# Eyes, nose tip and mouth corners in a crop of 112 x 112, 0-based pixels: the template of the ArcFace family (Deng et
# al., "ArcFace", CVPR 2019), as in `arcface_dst` of the authors' package insightface.
ARCFACE_TEMPLATE: NDArray[np.float64] = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
ARCFACE_SIZE = 112


def seen_from_front(landmarks: NDArray[np.floating], rotation: NDArray[np.floating]) -> NDArray[np.float64]:
    """The landmarks of a head turned to the front, P = R^T (L - mean L).

    Args:
        landmarks: L, (68, 3), photo pixels, x right, y down, z toward the viewer.
        rotation: R, (3, 3), the head's pose, y up (`geometry.pose`).

    Returns:
        (68, 3), pixels about their mean, same axes.
    """
    points = np.asarray(landmarks, np.float64)
    return (points - points.mean(axis=0)) @ (_FLIP_Y @ np.asarray(rotation, np.float64) @ _FLIP_Y)


def five_points(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """The five points of face recognition: the eye on the left of a frontal picture, the other, nose, mouth corners.

    Args:
        landmarks: (68, D); an eye is the mean of its six landmarks.

    Returns:
        (5, D).
    """
    points = np.asarray(landmarks, np.float64)
    eyes = [points[_RIGHT_EYE].mean(axis=0), points[_LEFT_EYE].mean(axis=0)]
    return np.stack([*eyes, points[_NOSE_TIP], *points[list(_MOUTH_CORNERS)]])


def face_square(landmarks: NDArray[np.floating], rotation: NDArray[np.floating]) -> TurnedSquare:
    """The square that dhm's own networks see: the box of the upright landmarks, squared, enlarged by sqrt(2).

    Args:
        landmarks: (68, 3), photo pixels.
        rotation: (3, 3), the head's pose.

    Returns:
        Centre (2,) and side, photo pixels, and the roll of `crop.crop_matrix`.
    """
    centre, side, roll = turned_square(landmarks, _roll(rotation))
    return centre, max(side, _LEAST_SIDE), roll


def ffhq_square(landmarks: NDArray[np.floating], rotation: NDArray[np.floating]) -> TurnedSquare:
    """The square of the dataset FFHQ (Karras et al., "A Style-Based Generator Architecture for GANs", CVPR 2019).

    With e the distance of the eyes and m that of the eyes' middle from the middle of the mouth's corners, both seen
    from the front, the side is 2 max(2 e, 1.8 m). The centre lies a tenth of the way from the eyes' to the mouth's.

    Args:
        landmarks: (68, 3), photo pixels.
        rotation: (3, 3), the head's pose.

    Returns:
        As `face_square`.
    """
    right, left, _, *corners = five_points(seen_from_front(landmarks, rotation))[:, :2]
    between_eyes = float(np.linalg.norm(left - right))
    to_mouth = float(np.linalg.norm(np.mean(corners, axis=0) - (right + left) / 2))
    right, left, _, *corners = five_points(landmarks)[:, :2]
    eyes, mouth = (right + left) / 2, np.mean(corners, axis=0)
    side = 2 * max(2.0 * between_eyes, 1.8 * to_mouth)
    return eyes + 0.1 * (mouth - eyes), max(side, _LEAST_SIDE), _roll(rotation)


def arcface_square(landmarks: NDArray[np.floating], rotation: NDArray[np.floating]) -> TurnedSquare:
    """The square in which five points of the face lie on `ARCFACE_TEMPLATE`, which face recognition expects.

    The scale k minimises |k P5 - T|^2 of the five points P5, seen from the front, and the template T, both about their
    means (Umeyama 1991, the rotation being known). The middle of the five points in the photo goes to the template's.

    Args:
        landmarks: (68, 3), photo pixels.
        rotation: (3, 3), the head's pose.

    Returns:
        As `face_square`; a crop of S pixels holds the template t at (t + 0.5) S / 112 - 0.5.
    """
    front = five_points(seen_from_front(landmarks, rotation))[:, :2]
    front -= front.mean(axis=0)
    middle = ARCFACE_TEMPLATE.mean(axis=0)
    scale = float((front * (ARCFACE_TEMPLATE - middle)).sum()) / max(float((front**2).sum()), 1e-12)
    # A false alarm's landmarks may be a knot that fits the template inside out.
    side = ARCFACE_SIZE / scale if scale > 0 else _LEAST_SIDE
    roll = _roll(rotation)
    about_middle = crop_matrix(np.zeros(2), side, ARCFACE_SIZE, roll)[:, :2]
    centre = five_points(landmarks)[:, :2].mean(axis=0) + np.linalg.solve(about_middle, (ARCFACE_SIZE - 1) / 2 - middle)
    return centre, max(side, _LEAST_SIDE), roll


# Squares of a face by the name of their style.
CROP_STYLES: dict[str, Callable[[NDArray[np.floating], NDArray[np.floating]], TurnedSquare]] = {
    "face": face_square,
    "ffhq": ffhq_square,
    "arcface": arcface_square,
}


def _roll(rotation: NDArray[np.floating]) -> float:
    return float(in_plane_rotation(rotation))
