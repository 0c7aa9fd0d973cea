"""Face crops and their exact inverse.

A crop is described by one 2x3 affine matrix that maps photo pixels to crop pixels. Both sides are 0-based with integer
coordinates at pixel centres, so a square of side `side` around `centre` maps to a crop of `size` pixels as
x_crop = (x - centre_x) * size / side + (size - 1) / 2, which is the resize rule x -> (x + 0.5) * s - 0.5.
"""

import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.geometry.landmarks import bounding_box

# Test-time crop of the AFLW2000-3D protocol: the true box, squared on its longer side, enlarged by sqrt(2).
CROP_MARGIN = math.sqrt(2.0)
# Centre (2,) and side, photo pixels.
Square = tuple[NDArray[np.float64], float]
# The same, and the roll of `crop_matrix`, radians.
TurnedSquare = tuple[NDArray[np.float64], float, float]
# cv2.warpAffine counts source pixels in 16 bits.
_LONGEST_SOURCE = 32_766
# Side of the crop that `smooth_crop` averages down, pixels.
_LARGEST_SAMPLED = 2048


def landmark_crop_square(points: NDArray[np.floating], margin: float = CROP_MARGIN) -> Square:
    """Square around landmarks: their box, squared on its longer side, enlarged about its centre.

    Args:
        points: (N, 2 or 3), pixels.
        margin: enlargement factor.

    Returns:
        Centre (2,) and side, pixels.
    """
    left, top, width, height = bounding_box(np.asarray(points, dtype=np.float64))
    return np.array([left + width / 2, top + height / 2]), float(max(width, height) * margin)


def turned_square(points: NDArray[np.floating], roll: float, margin: float = CROP_MARGIN) -> TurnedSquare:
    """Square around landmarks as `landmark_crop_square` in an image that is turned first.

    Args:
        points: (N, 2 or 3), pixels.
        roll: how far the image is turned, as for `crop_matrix`.
        margin: enlargement factor.

    Returns:
        Centre (2,) in pixels of the image as it is, side and roll: what `crop_matrix` takes.
    """
    about_origin = crop_matrix(np.zeros(2), 1.0, 1, roll)
    centre, side = landmark_crop_square(transform_landmarks(points, about_origin), margin)
    return about_origin[:, :2].T @ centre, side, roll


def upright_squares(landmarks: NDArray[np.float64], mean_shape: NDArray[np.float64]) -> list[TurnedSquare]:
    """The squares in which heads stand upright, for a network's next pass: `turned_square` of all at once.

    Args:
        landmarks: (B, 68, 3), pixels.
        mean_shape: (68, 3), the upright head, x right, y down, z toward the viewer, any unit.

    Returns:
        B, centre, side and roll.
    """
    rolls = upright_rolls(landmarks, mean_shape)
    centres, sides = boxes_at(landmarks, rolls)
    return list(zip(centres, sides.tolist(), rolls.tolist(), strict=True))


def upright_rolls(landmarks: NDArray[np.float64], mean_shape: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much images must be turned for their heads to stand upright.

    What all landmarks say of the head's down axis in the image, by least squares, since a line through the eyes means
    nothing in profile. It is `pose.in_plane_rotation` without the rotation, in a fraction of its time.

    Args:
        landmarks: (B, 68, 3), pixels.
        mean_shape: (68, 3), as for `upright_squares`.

    Returns:
        (B,), radians, the roll of `crop_matrix`.
    """
    down = _down_weights(mean_shape.tobytes())
    rolls: NDArray[np.float64] = np.arctan2(landmarks[..., 0] @ down, landmarks[..., 1] @ down)
    return rolls


@lru_cache(maxsize=16)  # of a few networks
def _down_weights(mean_shape: bytes) -> NDArray[np.float64]:
    """How much each landmark says of the head's down axis, (68,): the least-squares solution's row."""
    head = np.frombuffer(mean_shape, np.float64).reshape(-1, 3)
    head = head - head.mean(axis=0)
    # landmarks' x, y = their mean + head @ axes
    weights: NDArray[np.float64] = np.linalg.solve(head.T @ head + 1e-12 * np.eye(3), head.T)[1]
    return weights


def boxes_at(
    landmarks: NDArray[np.float64], rolls: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (B, 2) and sides (B,) of the squares around landmarks (B, 68, 3) in images turned by rolls (B,)."""
    cos, sin = np.cos(rolls), np.sin(rolls)
    turns = np.array([[cos, -sin], [sin, cos]]).transpose(2, 0, 1)
    turned = landmarks[..., :2] @ turns.transpose(0, 2, 1)
    low, high = turned.min(axis=1), turned.max(axis=1)
    centres = ((low + high) / 2)[:, None] @ turns
    return centres[:, 0], (high - low).max(axis=1) * CROP_MARGIN


def crop_matrix(
    centre: NDArray[np.floating], side: float, size: int, roll: float = 0.0, mirror: bool = False
) -> NDArray[np.float64]:
    """Affine map from photo pixels to the pixels of a square crop.

    Args:
        centre: (2,), centre of the square, photo pixels.
        side: side of the square, photo pixels, > 0.
        size: side of the crop, crop pixels.
        roll: in-plane rotation of the content, radians, positive turns it clockwise as seen.
        mirror: mirror the content left to right (after the rotation).

    Returns:
        (2, 3) matrix A with crop = A[:, :2] @ photo + A[:, 2].
    """
    scale = size / side
    cos, sin = scale * math.cos(roll), scale * math.sin(roll)
    linear = np.array([[cos, -sin], [sin, cos]])
    if mirror:
        linear[0] = -linear[0]
    offset = (size - 1) / 2 - linear @ np.asarray(centre, dtype=np.float64)
    return np.concatenate([linear, offset[:, None]], axis=1)


def transform_landmarks(points: NDArray[np.floating], matrix: NDArray[np.floating]) -> NDArray[np.float64]:
    """Apply a crop matrix to landmarks; depth is scaled with the image.

    Args:
        points: (..., N, 2 or 3), photo pixels; z in the same unit.
        matrix: (2, 3), as made by `crop_matrix`.

    Returns:
        The points in crop pixels, same shape.

    Example:
        A square of 40 pixels becomes a crop of 20: its centre is the crop's, and depth is halved too.

        >>> import numpy as np
        >>> matrix = crop_matrix(np.array([100.0, 50.0]), side=40, size=20)
        >>> transform_landmarks(np.array([[100.0, 50.0, 6.0], [110.0, 50.0, 0.0]]), matrix).tolist()
        [[9.5, 9.5, 3.0], [14.5, 9.5, 0.0]]
    """
    points = np.asarray(points, dtype=np.float64)
    xy = points[..., :2] @ matrix[:, :2].T + matrix[:, 2]
    if points.shape[-1] == 2:
        return xy
    return np.concatenate([xy, points[..., 2:] * crop_scale(matrix)], axis=-1)


def invert_matrix(matrix: NDArray[np.floating]) -> NDArray[np.float64]:
    """The crop-to-photo map of a photo-to-crop matrix, (2, 3) -> (2, 3)."""
    # Written out, because it takes a fifth of the time of np.linalg.inv on so small a matrix.
    (a, b, x), (c, d, y) = matrix.tolist()
    return np.array([[d, -b, b * y - d * x], [-c, a, c * x - a * y]]) / (a * d - b * c)


def crop_scale(matrix: NDArray[np.floating]) -> float:
    """Crop pixels to a photo pixel of a matrix (2, 3) that maps photo to crop pixels."""
    (a, b, _), (c, d, _) = matrix.tolist()
    return math.sqrt(abs(a * d - b * c))


def extract_crop(
    image: NDArray[np.uint8], matrix: NDArray[np.floating], size: int, border: int = cv2.BORDER_CONSTANT
) -> NDArray[np.uint8]:
    """Cut a crop out of a photo with sub-pixel precision.

    Where the photo is reduced by more than two, it is first averaged down by a whole factor, so that fine texture does
    not alias.

    Args:
        image: (H, W, 3) uint8.
        matrix: (2, 3), photo to crop pixels.
        size: side of the crop, pixels.
        border: OpenCV border mode for what lies outside the photo (default: black).

    Returns:
        (size, size, 3) uint8.
    """
    factor = int(1.0 / crop_scale(matrix))
    if factor >= 2 or max(image.shape[:2]) > _LONGEST_SOURCE:
        image, matrix = _reduce(image, matrix, size, max(factor, 1))
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)


def smooth_crop(image: NDArray[np.uint8], matrix: NDArray[np.floating], size: int) -> NDArray[np.uint8]:
    """Cut a crop for people, or for other networks: as `extract_crop`, but free of aliasing at any scale.

    Where the photo shrinks, a crop that is larger by a whole factor is averaged down, so that every pixel of the photo
    counts. What lies outside the photo is black.

    Args:
        image: (H, W, 3) uint8.
        matrix: (2, 3), photo to crop pixels.
        size: side of the crop, pixels.

    Returns:
        (size, size, 3) uint8.
    """
    shrink = 1 / crop_scale(matrix)
    if shrink <= 1:
        return extract_crop(image, matrix, size)
    factor = max(2, min(math.ceil(shrink), _LARGEST_SAMPLED // size))
    larger = factor * np.asarray(matrix, np.float64)
    larger[:, 2] += (factor - 1) / 2
    return cv2.resize(extract_crop(image, larger, factor * size), (size, size), interpolation=cv2.INTER_AREA)


def _reduce(
    image: NDArray[np.uint8], matrix: NDArray[np.floating], size: int, factor: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Average the part of the photo that the crop sees down by `factor`; returns it with the adjusted matrix."""
    corners = np.array([[-0.5, -0.5], [size - 0.5, -0.5], [-0.5, size - 0.5], [size - 0.5, size - 0.5]])
    seen = transform_landmarks(corners, invert_matrix(matrix))
    height, width = image.shape[:2]
    left, top = np.clip(np.floor(seen.min(axis=0)).astype(int) - factor, 0, [width - 1, height - 1])
    right, bottom = np.clip(np.ceil(seen.max(axis=0)).astype(int) + factor + 1, 1, [width, height])
    columns = max(1, math.ceil((right - left) / factor))
    rows = max(1, math.ceil((bottom - top) / factor))
    part = image[top:bottom, left:right]
    pad_y, pad_x = rows * factor - part.shape[0], columns * factor - part.shape[1]
    if pad_y > 0 or pad_x > 0:
        part = cv2.copyMakeBorder(part, 0, pad_y, 0, pad_x, cv2.BORDER_REPLICATE)
    small = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
    # photo x = (small x + 0.5) * factor - 0.5 + left
    to_photo = np.array([[factor, 0.0, (factor - 1) / 2 + left], [0.0, factor, (factor - 1) / 2 + top]])
    linear = matrix[:, :2] @ to_photo[:, :2]
    offset = matrix[:, :2] @ to_photo[:, 2] + matrix[:, 2]
    return small, np.concatenate([linear, offset[:, None]], axis=1)
