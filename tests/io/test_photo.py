"""A photo that is decoded as finely as needed: its copies lie where they say, whatever the orientation."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from example_photos import STORED, encode, exif_segment
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.geometry.crop import crop_matrix, extract_crop
from dhm_cli.io.photo import Photo, copy_of


def scene(height: int, width: int) -> NDArray[np.uint8]:
    """Smooth, so that a copy and the whole photo show the same crop, and different in all corners."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(columns / 90 + rows / 400), np.sin(rows / 70), np.cos((rows + 2 * columns) / 130)]
    return (127 + 110 * np.stack(waves, axis=-1)).astype(np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(1203, 1601), (1600, 1208)])
def test_a_crop_of_a_copy_is_that_of_the_photo(orientation: int, shape: tuple[int, int]) -> None:
    """Sides that are no multiples of 8 leave a part of a block, which a turned photo has at its beginning."""
    upright = scene(*shape)
    data = encode(STORED[orientation](upright), ".jpg")
    photo = Photo(data[:2] + exif_segment(orientation) + data[2:], "a.jpg", least=200)
    assert photo.shape == upright.shape
    matrix = crop_matrix(np.array([500.0, 700.0]), 640.0, 64, roll=0.3)
    expected = extract_crop(upright, matrix, 64).astype(float)
    for factor in (8, 4, 2, 1):
        copy = Photo(data[:2] + exif_segment(orientation) + data[2:], "a.jpg", least=1600 // factor).copy(factor)
        assert copy.factor == factor
        found = extract_crop(copy.image, copy.matrix(matrix), 64).astype(float)
        assert np.abs(found - expected).mean() < 0.8  # an offset of a pixel of the copy costs 3


def test_no_more_is_decoded_than_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    real = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: decoded.append(real(data, flags)) or decoded[-1])
    photo = Photo(encode(scene(1536, 2048), ".jpg"), "a.jpg")
    assert [image.shape for image in decoded] == [(192, 256, 3)]
    assert photo.copy(8.9).factor == 8
    assert photo.copy(4).factor == 2
    assert photo.copy(7).factor == 2  # at hand
    assert photo.copy(0.3).factor == 1
    assert len(decoded) == 3


@pytest.mark.parametrize(("shape", "kind"), [((900, 1200), ".jpg"), ((1536, 2048), ".png")])
def test_what_cannot_be_decoded_smaller_or_is_small_is_decoded_whole(shape: tuple[int, int], kind: str) -> None:
    photo = Photo(encode(scene(*shape), kind), "a")
    assert photo.copy(8).factor == 1
    assert photo.shape == (*shape, 3)


def test_an_image_is_its_own_copy() -> None:
    image = scene(20, 30)
    copy = copy_of(image, 8)
    assert copy.image is image
    assert (copy.factor, copy.left, copy.top) == (1, 0, 0)


def test_damage_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.jpg: truncated JPEG"):
        Photo(encode(scene(1536, 2048), ".jpg")[:-20], "a.jpg")


def test_grey_photos_have_three_channels() -> None:
    assert Photo(encode(scene(1536, 2048)[..., 0], ".jpg"), "a.jpg").copy(8).image.shape == (192, 256, 3)


def test_copies_are_rgb() -> None:
    red = np.zeros((1536, 2048, 3), np.uint8)
    red[..., 0] = 255
    assert Photo(encode(red, ".jpg"), "a.jpg").copy(8).image[9, 9].tolist() == pytest.approx([255, 0, 0], abs=3)
