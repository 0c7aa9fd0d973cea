"""Reading and finding photos: orientation, depth, damage, names."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from example_photos import STORED, encode, exif_segment
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.io.images import find_images, read_image

# Top left, top right, bottom left, bottom right of the upright photo: red, green, blue, white.
CORNERS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]])


def quarters(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = CORNERS[0], CORNERS[1]
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = CORNERS[2], CORNERS[3]
    return image


def assert_quarters(image: NDArray[np.uint8], shape: tuple[int, ...] = (48, 64, 3), tolerance: int = 12) -> None:
    assert image.dtype == np.uint8
    assert image.shape == shape
    found = image[[5, 5, -5, -5], [5, -5, 5, -5]].astype(int)
    np.testing.assert_allclose(found, CORNERS, atol=tolerance)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_orientation_is_obeyed(tmp_path: Path, orientation: int) -> None:
    data = encode(STORED[orientation](quarters()), ".jpg")
    path = tmp_path / "photo.jpg"
    path.write_bytes(data[:2] + exif_segment(orientation) + data[2:])
    assert_quarters(read_image(path))


@pytest.mark.parametrize("name", ["A.JPG", "b.JpEg", "c.PNG", "d.webp", "e.BMP", "f.tiff", "Größe (1) 日本.jpg", "g.x"])
def test_any_name_and_format(tmp_path: Path, name: str) -> None:
    suffix = Path(name).suffix.lower()
    path = tmp_path / name
    path.write_bytes(encode(quarters(), ".png" if suffix == ".x" else suffix))
    assert_quarters(read_image(path))


def test_grey_becomes_rgb(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(64, dtype=np.uint8), (48, 1))
    path = tmp_path / "grey.png"
    path.write_bytes(encode(ramp, ".png"))
    np.testing.assert_array_equal(read_image(path), np.stack([ramp] * 3, axis=-1))


@pytest.mark.parametrize("alpha", [0, 255])
def test_alpha_is_dropped(tmp_path: Path, alpha: int) -> None:
    path = tmp_path / "rgba.png"
    path.write_bytes(encode(np.dstack([quarters(), np.full((48, 64), alpha, np.uint8)]), ".png"))
    assert_quarters(read_image(path), tolerance=0)


def test_16_bit_png_is_scaled(tmp_path: Path) -> None:
    wide = np.linspace(0, 65535, 48 * 64 * 3).reshape(48, 64, 3).astype(np.uint16)
    path = tmp_path / "deep.png"
    path.write_bytes(encode(wide, ".png"))
    assert np.abs(read_image(path) - wide / 257.0).max() < 1.0


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
def test_truncated_jpeg(tmp_path: Path, astronaut: NDArray[np.uint8], share: float) -> None:
    data = encode(astronaut, ".jpg")
    path = tmp_path / "cut.jpg"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r"cut\.jpg: truncated JPEG"):
        read_image(path)


def test_truncated_jpeg_with_a_thumbnail_or_zeros(tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    data, thumbnail = encode(astronaut, ".jpg"), encode(quarters(), ".jpg")
    note = b"\xff\xe2" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    path = tmp_path / "cut.jpg"
    for tail in (b"", bytes(5000)):
        path.write_bytes(data[:2] + note + data[2 : len(data) // 2] + tail)
        with pytest.raises(InputError, match="truncated JPEG"):
            read_image(path)


def test_bytes_after_the_end_of_a_jpeg_are_fine(tmp_path: Path) -> None:
    data = encode(quarters(), ".jpg")
    path = tmp_path / "trailing.jpg"
    for tail in (b"\x00" * 100, data, data[:50], b"camera notes"):
        path.write_bytes(data + tail)
        assert_quarters(read_image(path))


def test_progressive_jpeg(tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    _, data = cv2.imencode(".jpg", astronaut, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 4])
    path = tmp_path / "progressive.jpg"
    path.write_bytes(data.tobytes())
    assert read_image(path).shape == (512, 512, 3)
    path.write_bytes(data.tobytes()[: data.size * 2 // 3])
    with pytest.raises(InputError, match="truncated JPEG"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"these are not pixels\n" * 9, "not an image"),
        (encode(quarters(), ".png")[:90], "truncated PNG"),
        (b"\xff\xd8\xff\xdb\x00\x04ab\xff\xd9", "damaged JPEG"),
    ],
)
def test_unreadable_content(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "odd.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"odd\.jpg: .*{reason}"):
        read_image(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.jpg", tmp_path):
        with pytest.raises(InputError, match="cannot be read") as caught:
            read_image(path)
        assert caught.value.hint


def test_extreme_sizes(tmp_path: Path) -> None:
    path = tmp_path / "size.png"
    for shape in ((1, 1), (2, 70_000), (70_000, 2), (4000, 6000)):
        path.write_bytes(encode(np.full(shape, 77, np.uint8), ".png"))
        image = read_image(path)
        assert image.shape == (*shape, 3)
        assert image[0, 0].tolist() == image[-1, -1].tolist() == [77, 77, 77]


def test_find_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["b.JPG", "a/z.png", "a/c/x.Jpeg", "a/notes.txt", "a/._z.png", ".hidden/q.jpg", "a b é.webp", "raw.dat"]
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    expected = ["a/c/x.Jpeg", "a/z.png", "a b é.webp", "b.JPG"]
    assert find_images(["."]) == [Path(name) for name in expected]
    assert find_images(["raw.dat", "a", tmp_path / "b.JPG", "./a/z.png", "b.JPG"]) == [
        Path("raw.dat"),
        Path("a/c/x.Jpeg"),
        Path("a/z.png"),
        tmp_path / "b.JPG",
    ]


def test_find_images_refuses(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="no photos") as caught:
        find_images([tmp_path])
    assert ".jpeg" in caught.value.hint
    with pytest.raises(InputError, match=r"absent: no such file or folder"):
        find_images([tmp_path / "absent"])
    with pytest.raises(InputError, match="cannot be read: File name too long") as caught:
        find_images(["a" * 300])
    assert caught.value.hint


def test_find_images_in_a_locked_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **options: bool) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(InputError, match=r"a\.jpg: cannot be read: Permission denied") as caught:
        find_images([tmp_path / "a.jpg"])
    assert "permissions" in caught.value.hint
