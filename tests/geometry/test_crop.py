"""The crop and its inverse agree with each other and with the pixels."""

import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dhm_cli.geometry.crop import (
    crop_matrix,
    extract_crop,
    invert_matrix,
    landmark_crop_square,
    smooth_crop,
    transform_landmarks,
)

SIZE = 120


def blob(height: int, width: int, centre: tuple[float, float], sigma: float) -> NDArray[np.uint8]:
    """A white Gaussian on black, grey levels 0 to 250, equal in all channels."""
    y, x = np.mgrid[:height, :width]
    value = 250 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2))
    return np.repeat(np.round(value)[..., None], 3, axis=2).astype(np.uint8)


def centroid(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    weight = image[..., 0].astype(np.float64)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("roll", [0.0, 0.6, -2.5])
def test_round_trip_is_exact(roll: float, mirror: bool) -> None:
    points = np.random.default_rng(0).uniform(0, 4000, (5, 68, 3))
    matrix = crop_matrix(np.array([1234.5, 987.25]), 345.6, SIZE, roll, mirror)
    back = transform_landmarks(transform_landmarks(points, matrix), invert_matrix(matrix))
    np.testing.assert_allclose(back, points, atol=1e-8)


def test_whole_image_crop_is_the_resize_rule() -> None:
    # A crop of the whole 480 x 480 image to 120: x -> (x + 0.5) / 4 - 0.5; depth is divided by 4.
    matrix = crop_matrix(np.array([239.5, 239.5]), 480.0, SIZE)
    points = np.array([[0.0, 479.0, 8.0], [239.5, 3.5, -4.0]])
    expected = np.array([[-0.375, 119.375, 2.0], [59.5, 0.5, -1.0]])
    np.testing.assert_allclose(transform_landmarks(points, matrix), expected, atol=1e-12)


def test_whole_pixel_crop_copies_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 280, 3), dtype=np.uint8)
    # Left edge of pixel 40 to right edge of pixel 159, and 70 to 189.
    matrix = crop_matrix(np.array([99.5, 129.5]), 120.0, SIZE)
    np.testing.assert_array_equal(extract_crop(image, matrix, SIZE), image[70:190, 40:160])


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("roll", [0.0, 0.5, -1.2, math.pi])
@pytest.mark.parametrize("reduction", [0.6, 1.0, 1.7, 2.0, 2.5, 3.3, 4.9, 7.0, 10.0])
def test_pixels_lie_where_the_matrix_says(reduction: float, roll: float, mirror: bool) -> None:
    side = reduction * SIZE
    centre = np.array([0.55 * side + 31.3, 0.5 * side + 17.8])
    target = centre + np.array([0.11, -0.07]) * side
    height, width = math.ceil(1.1 * side) + 40, math.ceil(1.2 * side) + 60
    image = blob(height, width, (target[0], target[1]), sigma=0.03 * side)
    matrix = crop_matrix(centre, side, SIZE, roll, mirror)
    expected = transform_landmarks(target[None], matrix)[0]
    np.testing.assert_allclose(centroid(extract_crop(image, matrix, SIZE)), expected, atol=0.03)


def test_roll_turns_clockwise_and_mirror_swaps_sides() -> None:
    right_of_centre = np.array([[110.0, 100.0]])
    centre = np.array([100.0, 100.0])
    middle = (SIZE - 1) / 2
    turned = transform_landmarks(right_of_centre, crop_matrix(centre, SIZE, SIZE, roll=math.pi / 2))
    np.testing.assert_allclose(turned, [[middle, middle + 10]], atol=1e-9)
    mirrored = transform_landmarks(right_of_centre, crop_matrix(centre, SIZE, SIZE, mirror=True))
    np.testing.assert_allclose(mirrored, [[middle - 10, middle]], atol=1e-9)


def test_mirrored_crop_is_the_mirrored_crop() -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    centre = np.array([100.5, 90.5])
    plain, mirrored = (extract_crop(image, crop_matrix(centre, SIZE, SIZE, mirror=m), SIZE) for m in (False, True))
    np.testing.assert_array_equal(mirrored, plain[:, ::-1])


def test_outside_the_photo_is_black_and_the_photo_is_untouched() -> None:
    image = np.full((400, 400, 3), 200, np.uint8)
    before = image.copy()
    for side in (120.0, 600.0):
        crop = extract_crop(image, crop_matrix(np.array([0.0, 200.0]), side, SIZE), SIZE)
        assert not crop[:, : SIZE // 2 - 2].any()
        assert (crop[SIZE // 2, SIZE // 2 + 2 : SIZE // 2 + 20] == 200).all()
    assert not extract_crop(image, crop_matrix(np.array([-9000.0, 200.0]), 600.0, SIZE), SIZE).any()
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("side", [60.0, 150.0, 700.0])
def test_a_panorama_is_cut_like_its_part(side: float) -> None:
    # cv2.warpAffine refuses 32767 pixels and more on a side.
    panorama = np.random.default_rng(0).integers(0, 256, (40_000, 300, 3), dtype=np.uint8)
    for image, centre in ((panorama, [150.25, 39_000.5]), (panorama.transpose(1, 0, 2), [39_000.5, 150.25])):
        middle = np.array(centre)
        start = (middle > 1000) * 35_000
        part = np.ascontiguousarray(image[start[1] :, start[0] :])
        expected = extract_crop(part, crop_matrix(middle - start, side, SIZE), SIZE)
        found = extract_crop(np.ascontiguousarray(image), crop_matrix(middle, side, SIZE), SIZE)
        # The averages of the strongest reduction may begin at another pixel.
        assert np.abs(found.astype(int) - expected).mean() < 2.0


def test_fine_texture_does_not_alias() -> None:
    stripes = np.zeros((1000, 1000, 3), np.uint8)
    stripes[:, ::2] = 200
    crop = extract_crop(stripes, crop_matrix(np.array([499.5, 499.5]), 900.0, SIZE), SIZE)
    assert np.abs(crop[5:-5, 5:-5].astype(int) - 100).max() <= 16


def test_landmark_crop_square() -> None:
    points = np.array([[10.0, 20.0, 5.0], [50.0, 40.0, -900.0], [30.0, 100.0, 0.0]])
    centre, side = landmark_crop_square(points)
    np.testing.assert_allclose(centre, [30.0, 60.0])
    assert side == pytest.approx(80 * math.sqrt(2))


@pytest.mark.parametrize("shrink", [1.7, 2.6, 3.7, 5.3, 17.2])
def test_a_smooth_crop_has_no_moire(shrink: float) -> None:
    """A pattern too fine for the crop becomes nearly even grey; sampling it leaves waves."""
    stripes = np.repeat(np.tile(np.array([0, 255], np.uint8), 1000)[None, :, None], 2000, axis=0).repeat(3, axis=2)
    matrix = crop_matrix(np.array([999.5, 999.5]), 100 * shrink, 100, 0.4)
    inside = smooth_crop(stripes, matrix, 100)[5:-5, 5:-5].astype(float)
    assert inside.mean() == pytest.approx(127.5, abs=2)
    assert inside.std() < 25
    if shrink < 2:
        assert extract_crop(stripes, matrix, 100)[5:-5, 5:-5].astype(float).std() > 60


def test_a_smooth_crop_lies_where_its_matrix_says() -> None:
    image = np.zeros((300, 300, 3), np.uint8)
    cv2.circle(image, (180, 120), 9, (255, 255, 255), cv2.FILLED)
    for side in (60.0, 170.0, 290.0):
        matrix = crop_matrix(np.array([170.0, 130.0]), side, 100, 0.3)
        weight = smooth_crop(image, matrix, 100)[..., 0].astype(float)
        y, x = np.mgrid[:100, :100]
        found = np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()
        np.testing.assert_allclose(found, transform_landmarks(np.array([[180.0, 120.0]]), matrix)[0], atol=0.1)
