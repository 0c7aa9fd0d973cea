"""Random augmentation of training crops: placement, rotation, mirroring, colours, sharpness, noise, occlusion."""

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.config.training import AugmentationConfig
from dhm_cli.geometry.crop import (
    crop_matrix,
    extract_crop,
    invert_matrix,
    landmark_crop_square,
    transform_landmarks,
)
from dhm_cli.geometry.landmarks import MIRROR, NUM_LANDMARKS

Image = NDArray[np.uint8]


class Sample(NamedTuple):
    """A training crop.

    Attributes:
        crop: (S, S, 3) uint8 RGB.
        landmarks: (68, 3), crop pixels; index order follows a mirrored image.
        mirrored: whether it shows the image mirrored.
        covered: (68,) bool, landmarks behind something that was put in front of the face.
    """

    crop: Image
    landmarks: NDArray[np.float64]
    mirrored: bool
    covered: NDArray[np.bool_]


# Left, top, width and height in crop pixels.
Rectangle = tuple[int, int, int, int]

_BORDERS = (cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT_101)
_BORDER_SHARES = (0.6, 0.2, 0.2)


def augmented_crop(
    image: Image,
    landmarks: NDArray[np.floating],
    size: int,
    config: AugmentationConfig,
    rng: np.random.Generator,
    another: Callable[[], Image] | None = None,
    misplaced: bool = False,
) -> Sample:
    """Cut out a training crop, randomly placed, turned, mirrored and degraded.

    With all ranges 0 it is the crop of the test protocol. Pixels beyond the image are black. In crops that are placed
    at random, they may instead repeat the last pixels or mirror the image. A crop that is turned by any angle and
    reaches beyond its image shows another image around the largest circle of its own, whose rim tells no angle.

    Args:
        image: (H, W, 3) uint8 RGB.
        landmarks: (68, 3), pixels of the image, z in the same unit.
        size: side of the crop, pixels.
        config: ranges and probabilities.
        rng: source of all randomness.
        another: gives the image to lay the circle on, (H, W, 3) uint8 RGB; None for a black one.
        misplaced: cut out a crop that shows no face as a network expects it: a piece, far off, far too large a
            part of the photo, or turned by more than 60 degrees.
    """
    centre, side = landmark_crop_square(landmarks)
    times = config.wide_placement if rng.random() < config.wide_placement_share else 1.0
    centre = centre + rng.normal(0, times * config.shift, 2).clip(-0.2, 0.2) * side
    side *= float(np.exp(np.clip(rng.normal(0, times * config.scale), -0.35, 0.35)))
    roll = rng.normal(0, config.rotation)
    if rng.random() < config.wide_rotation_share:
        roll = rng.uniform(-config.wide_rotation, config.wide_rotation)
    surrounded = bool(config.surround) and rng.random() < config.surround
    if config.any_rotation_share and rng.random() < config.any_rotation_share:
        roll, surrounded = rng.uniform(-180, 180), True
    if misplaced:
        centre, side, roll, surrounded = *_misplaced(centre, side, roll, rng), True
    mirror = bool(rng.random() < config.mirror)
    matrix = crop_matrix(centre, side, size, np.deg2rad(roll), mirror)
    moved = config.shift or config.scale or config.rotation or config.wide_rotation_share
    border = int(rng.choice(_BORDERS, p=_BORDER_SHARES)) if moved else cv2.BORDER_CONSTANT
    crop = extract_crop(image, matrix, size, border)
    if surrounded and not _lies_within(image, matrix, size):
        crop = _on_another(crop, image, matrix, another, rng)
    points = transform_landmarks(landmarks, matrix)
    points = points[MIRROR] if mirror else points
    covers: list[Rectangle | None] = []
    if config.cover and rng.random() < config.cover:
        crop, hidden = _cover(crop, another, rng)
        covers.append(hidden)
    crop, occluded = degrade(crop, config, rng)
    covered = np.zeros(NUM_LANDMARKS, bool)
    for x, y, width, height in filter(None, (*covers, occluded)):
        covered |= ((points[:, :2] >= [x, y]) & (points[:, :2] < [x + width, y + height])).all(axis=1)
    return Sample(crop, points, mirror, covered)


def _misplaced(
    centre: NDArray[np.float64], side: float, roll: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], float, float]:
    """Centre, side and roll of a crop that shows no face as a network expects it."""
    kind, angle = rng.integers(4), rng.uniform(0, 2 * math.pi)
    way = np.array([math.cos(angle), math.sin(angle)])
    if kind == 0:
        return centre, side, rng.uniform(60, 300)
    if kind == 1:
        return centre + way * side * rng.uniform(0.05, 0.35), side * rng.uniform(0.2, 0.5), roll
    if kind == 2:
        return centre + way * side * rng.uniform(0.4, 0.8), side * rng.uniform(0.8, 1.3), roll
    return centre + way * side * rng.uniform(0.0, 0.5), side * rng.uniform(2.2, 4.0), roll


def _lies_within(image: Image, matrix: NDArray[np.float64], size: int) -> bool:
    """Whether a crop shows nothing beyond its image."""
    corners = np.array([[0, 0], [0, size - 1], [size - 1, 0], [size - 1, size - 1]], np.float64)
    seen = transform_landmarks(corners, invert_matrix(matrix))
    return bool((seen >= 0).all() and (seen <= [image.shape[1] - 1, image.shape[0] - 1]).all())


def _on_another(
    crop: Image,
    image: Image,
    matrix: NDArray[np.float64],
    another: Callable[[], Image] | None,
    rng: np.random.Generator,
) -> Image:
    """A crop whose image is cut to about its largest circle and lies on a part of another one, turned at random."""
    size, (height, width) = len(crop), image.shape[:2]
    middle, rim = transform_landmarks(
        np.array([[(width - 1) / 2, (height - 1) / 2], [(width - 1) / 2, (height - 1) / 2 - min(height, width) / 2]]),
        matrix,
    )
    radius = float(np.linalg.norm(rim - middle)) * rng.uniform(0.88, 1.0)
    softness = rng.uniform(0.5, 6.0)
    y, x = np.ogrid[:size, :size]
    distance = np.hypot(x - middle[0], y - middle[1])
    share = np.clip((radius - distance) / softness, 0, 1).astype(np.float32)[..., None]
    around = _piece(another, size, rng)
    return (crop * share + around * (1 - share) + 0.5).astype(np.uint8)


def degrade(crop: Image, config: AugmentationConfig, rng: np.random.Generator) -> tuple[Image, Rectangle | None]:
    """Change colours, sharpness and noise of a crop, and cover a part of it.

    Args:
        crop: (S, S, 3) uint8 RGB.
        config: probabilities and strengths.
        rng: source of all randomness.

    Returns:
        A new crop of the same shape, and what was covered.
    """
    covered: Rectangle | None = None
    size = len(crop)
    if config.colour:
        crop = _change_colours(crop, config.colour, rng)
    if rng.random() < config.grey:
        crop = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if rng.random() < config.occlusion:
        crop, covered = _occlude(crop, rng)
    if rng.random() < config.low_resolution:
        small = max(16, int(size / rng.uniform(1.4, 5.0)))
        crop = cv2.resize(crop, (small, small), interpolation=cv2.INTER_AREA)
        crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_LINEAR)
    if rng.random() < config.blur:
        crop = _blur(crop, rng)
    if rng.random() < config.noise:
        noise = rng.standard_normal(crop.shape, dtype=np.float32) * np.float32(rng.uniform(2, 18))
        crop = np.clip(crop + noise, 0, 255).astype(np.uint8)
    if rng.random() < config.jpeg:
        _, encoded = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 60))])
        crop = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), dtype=np.uint8)
    return crop, covered


def _change_colours(crop: Image, strength: float, rng: np.random.Generator) -> Image:
    """Gamma, contrast, brightness and white balance through one table per channel; saturation by mixing with grey."""
    ramp = np.linspace(0, 1, 256) ** np.exp(rng.normal(0, 0.25 * strength))
    contrast = np.exp(rng.normal(0, 0.2 * strength))
    brightness = rng.normal(0, 0.08 * strength)
    gains = np.exp(rng.normal(0, 0.06 * strength, 3))
    table = ((ramp[:, None] - 0.5) * contrast + 0.5 + brightness) * gains
    table = np.clip(255 * table + 0.5, 0, 255).astype(np.uint8)
    crop = cv2.LUT(crop, table.reshape(1, 256, 3))
    saturation = float(np.exp(rng.normal(0, 0.25 * strength)))
    grey = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(crop, saturation, grey, 1 - saturation, 0)


def _occlude(crop: Image, rng: np.random.Generator) -> tuple[Image, Rectangle]:
    """Cover a random rectangle with a flat colour, noise, or another part of the crop."""
    size = len(crop)
    width, height = rng.integers(size // 8, size // 2, 2)
    x, y = rng.integers(0, size - width), rng.integers(0, size - height)
    crop = crop.copy()
    kind = rng.random()
    if kind < 0.5:
        crop[y : y + height, x : x + width] = rng.integers(0, 256, 3)
    elif kind < 0.7:
        crop[y : y + height, x : x + width] = rng.integers(0, 256, (height, width, 3))
    else:
        from_x, from_y = rng.integers(0, size - width), rng.integers(0, size - height)
        crop[y : y + height, x : x + width] = crop[from_y : from_y + height, from_x : from_x + width].copy()
    return crop, (int(x), int(y), int(width), int(height))


def _cover(crop: Image, another: Callable[[], Image] | None, rng: np.random.Generator) -> tuple[Image, Rectangle]:
    """Hide up to nearly all of a crop behind a piece of another image."""
    size = len(crop)
    width, height = (int(n) for n in rng.integers(size // 3, int(size * 0.9), 2))
    x, y = int(rng.integers(0, size - width)), int(rng.integers(0, size - height))
    crop = crop.copy()
    crop[y : y + height, x : x + width] = _piece(another, max(width, height), rng)[:height, :width]
    return crop, (x, y, width, height)


def _piece(another: Callable[[], Image] | None, size: int, rng: np.random.Generator) -> Image:
    """A square of another image, turned by a multiple of 90 degrees, (size, size, 3); black where there is none."""
    if another is None:
        return np.zeros((size, size, 3), np.uint8)
    image = another()
    side = max(1, int(min(image.shape[:2]) * rng.uniform(0.4, 1.0)))
    top, left = (int(rng.integers(0, length - side + 1)) for length in image.shape[:2])
    part = np.rot90(image[top : top + side, left : left + side], int(rng.integers(4)))
    return cv2.resize(np.ascontiguousarray(part), (size, size), interpolation=cv2.INTER_LINEAR)


def _blur(crop: Image, rng: np.random.Generator) -> Image:
    """Gaussian blur or motion blur in a random direction."""
    if rng.random() < 0.5:
        return cv2.GaussianBlur(crop, (0, 0), float(rng.uniform(0.5, 2.0)))
    length = 2 * int(rng.integers(1, 5)) + 1  # odd, or the crop would shift by half a pixel
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1
    turn = cv2.getRotationMatrix2D(((length - 1) / 2, (length - 1) / 2), float(rng.uniform(0, 180)), 1)
    kernel = cv2.warpAffine(kernel, turn, (length, length))
    return cv2.filter2D(crop, -1, kernel / kernel.sum())
