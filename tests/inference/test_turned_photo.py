"""Boxes found in a turned photo, brought back to the photo as it is."""

import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dhm_cli.geometry.crop import crop_matrix, extract_crop
from dhm_cli.inference.face_box import FaceBox
from dhm_cli.inference.turned_photo import detect_turned

# A blob left of the middle and above it, with a bright part on its upper side.
HEIGHT, WIDTH = 90, 140


def photo() -> NDArray[np.uint8]:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    cv2.rectangle(image, (30, 20), (49, 59), (90, 90, 90), -1)
    cv2.rectangle(image, (30, 20), (49, 25), (255, 255, 255), -1)
    return image


class Boxes:
    """Finds the box of all that is not black."""

    def __init__(self) -> None:
        self.seen: list[NDArray[np.uint8]] = []

    def detect(self, image: NDArray[np.uint8]) -> list[FaceBox]:
        self.seen.append(image)
        y, x = np.nonzero(image[..., 0])
        return [FaceBox(x.min() - 0.5, y.min() - 0.5, np.ptp(x) + 1.0, np.ptp(y) + 1.0, 0.7)]


@pytest.mark.parametrize("quarters", range(4))
def test_boxes_and_crops_come_back(quarters: int) -> None:
    image, detector = photo(), Boxes()
    ((box, square),) = detect_turned(detector, image, [quarters * math.pi / 2])
    assert (box.left, box.top, box.width, box.height, box.score) == (
        *(pytest.approx(value, abs=1e-6) for value in (29.5, 19.5, 20.0, 40.0)),
        0.7,
    )
    np.testing.assert_array_equal(detector.seen[0], np.rot90(image, -quarters))  # clockwise as seen
    # The crop of the photo is the crop of the turned photo.
    crop = extract_crop(image, crop_matrix(square[0], square[1], 60, square[2]), 60)
    (found,) = detector.detect(detector.seen[0])
    side = 1.31 * found.mean_side
    middle = np.array([found.left + found.width / 2, found.top + found.height / 2 + 0.1 * found.mean_side])
    there = extract_crop(np.ascontiguousarray(detector.seen[0]), crop_matrix(middle, side, 60), 60)
    assert square[1] == pytest.approx(side)
    assert np.abs(crop.astype(int) - there).max() <= 2


@pytest.mark.parametrize("times", [1, 20])
def test_any_angle_and_large_photos(times: int) -> None:
    """The whole photo is in the turned copy, which is no larger than a detector needs."""
    image, detector = cv2.resize(photo(), None, fx=times, fy=times, interpolation=cv2.INTER_NEAREST), Boxes()
    roll = math.radians(30)
    ((box, square),) = detect_turned(detector, image, [roll])
    (seen,) = detector.seen
    assert max(seen.shape) <= 1280 * 1.42
    middle = np.array([box.left + box.width / 2, box.top + box.height / 2])
    np.testing.assert_allclose(middle, (np.array([39.5, 39.5]) + 0.5) * times - 0.5, atol=1.5 * times)
    assert square[2] == roll
