"""Random augmentation of training crops: placement, rotation, mirroring, colours, sharpness, noise, occlusion."""

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.config.training import AugmentationConfig
from dhm_cli.geometry.crop import crop_matrix, extract_crop, landmark_crop_square, transform_landmarks
from dhm_cli.geometry.landmarks import MIRROR

Image = NDArray[np.uint8]
_BORDERS = (cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT_101)
_BORDER_SHARES = (0.6, 0.2, 0.2)


def augmented_crop(
    image: Image,
    landmarks: NDArray[np.floating],
    size: int,
    config: AugmentationConfig,
    rng: np.random.Generator,
) -> tuple[Image, NDArray[np.float64]]:
    """Cut out a training crop, randomly placed, turned, mirrored and degraded.

    With all ranges 0 it is the crop of the test protocol. Pixels beyond the image are black. In crops that are placed
    at random, they may instead repeat the last pixels or mirror the image.

    Args:
        image: (H, W, 3) uint8 RGB.
        landmarks: (68, 3), pixels of the image, z in the same unit.
        size: side of the crop, pixels.
        config: ranges and probabilities.
        rng: source of all randomness.

    Returns:
        The crop (size, size, 3) uint8 and its landmarks (68, 3), crop pixels; index order follows a mirrored image.
    """
    centre, side = landmark_crop_square(landmarks)
    times = config.wide_placement if rng.random() < config.wide_placement_share else 1.0
    centre = centre + rng.normal(0, times * config.shift, 2).clip(-0.2, 0.2) * side
    side *= float(np.exp(np.clip(rng.normal(0, times * config.scale), -0.35, 0.35)))
    roll = rng.normal(0, config.rotation)
    if rng.random() < config.wide_rotation_share:
        roll = rng.uniform(-config.wide_rotation, config.wide_rotation)
    mirror = rng.random() < config.mirror
    matrix = crop_matrix(centre, side, size, np.deg2rad(roll), mirror)
    moved = config.shift or config.scale or config.rotation or config.wide_rotation_share
    border = int(rng.choice(_BORDERS, p=_BORDER_SHARES)) if moved else cv2.BORDER_CONSTANT
    crop = extract_crop(image, matrix, size, border)
    points = transform_landmarks(landmarks, matrix)
    return degrade(crop, config, rng), points[MIRROR] if mirror else points


def degrade(crop: Image, config: AugmentationConfig, rng: np.random.Generator) -> Image:
    """Change colours, sharpness and noise of a crop, and cover a part of it; same shape, a new array."""
    size = len(crop)
    if config.colour:
        crop = _change_colours(crop, config.colour, rng)
    if rng.random() < config.grey:
        crop = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if rng.random() < config.occlusion:
        crop = _occlude(crop, rng)
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
    return crop


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


def _occlude(crop: Image, rng: np.random.Generator) -> Image:
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
    return crop


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
