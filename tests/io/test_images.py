"""Reading and finding photos: orientation, depth, damage, names."""

import io
import os
import re
import stat
import struct
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from example_photos import STORED, encode, exif_segment
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.io.image_size import declared_size, image_kind
from dhm_cli.io.images import MOST_PIXELS, read_image

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


@pytest.mark.parametrize(
    "name", ["A.JPG", "b.JpEg", "c.PNG", "d.webp", "e.BMP", "f.tiff", "h.GIF", "Größe 日本.jpg", "g.x"]
)
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


# --- what must not be read, or not decoded


def test_a_pipe_without_a_writer_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "photo.jpg")
    with pytest.raises(InputError, match=r"photo\.jpg: not a regular file but a pipe"):
        read_image(tmp_path / "photo.jpg")


def test_an_endless_device_is_not_read(tmp_path: Path) -> None:
    try:
        os.mknod(tmp_path / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        (tmp_path / "zero").open("rb").close()
    except OSError as error:
        pytest.skip(f"no device can be made here: {error}")
    (tmp_path / "photo.jpg").symlink_to(tmp_path / "zero")
    with pytest.raises(InputError, match=r"photo\.jpg: not a regular file but a device"):
        read_image(tmp_path / "photo.jpg")


def png_of(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds a few bytes of zeros."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(99)))]
    parts = [
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in [*chunks, (b"IEND", b"")]
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def webp_of(width: int, height: int) -> bytes:
    """34 bytes of a lossless WebP that declares a size."""
    bits = (width - 1) | (height - 1) << 14
    content = b"VP8L" + struct.pack("<I", 13) + b"\x2f" + struct.pack("<I", bits) + bytes(8)
    return b"RIFF" + struct.pack("<I", 4 + len(content)) + b"WEBP" + content


def jpeg_of(width: int, height: int) -> bytes:
    data = encode(quarters(), ".jpg")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


@pytest.mark.parametrize("make", [png_of, webp_of, jpeg_of])
def test_a_declared_size_beyond_the_limit_is_refused_before_decoding(
    tmp_path: Path, make: Callable[[int, int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bomb.img").write_bytes(make(16_000, 15_000))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"16,000 x 15,000 pixels, more than 120 megapixels") as caught:
        read_image(tmp_path / "bomb.img")
    assert "--max-pixels" in caught.value.hint


def test_the_limit_can_be_set(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode(quarters(), ".png"))
    assert read_image(tmp_path / "a.png", most_pixels=48 * 64).shape == (48, 64, 3)
    with pytest.raises(InputError, match=r"64 x 48 pixels, more than 0\.003"):
        read_image(tmp_path / "a.png", most_pixels=3000)


def test_the_largest_photos_of_phones_are_read() -> None:
    assert MOST_PIXELS > 12_000 * 9_000


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.tif").open("wb") as file:
        file.truncate(600_000_000)  # takes no room on the disk
    with pytest.raises(InputError, match=r"a\.tif: 600 MB, more than 480"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".bmp", ".tif", ".gif", ".ppm", ".jp2", ".avif"])
def test_the_declared_size_is_the_decoded_one(extension: str) -> None:
    try:
        data = encode(quarters(40, 72), extension)
    except cv2.error:
        pytest.skip(f"this OpenCV writes no {extension}")
    assert declared_size(data, image_kind(data)) == (72, 40)
    for length in range(0, len(data), 7):  # cut off anywhere, it says so
        with suppress(ValueError):
            declared_size(data[:length], image_kind(data))


# --- animations, AVIF, HEIC


def pillow_file(images: list[NDArray[np.uint8]], kind: str, **options: object) -> bytes:
    """Images as Pillow writes them, of which it has kinds and options that OpenCV has not."""
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    first, *others = map(pillow.fromarray, images)
    file = io.BytesIO()
    try:
        first.save(file, kind, **({"save_all": True, "append_images": others} if others else {}), **options)
    except (KeyError, OSError, ValueError) as error:
        pytest.skip(f"this Pillow writes no {kind}: {error}")
    return file.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "AVIF", "TIFF"])
def test_of_an_animation_the_first_image_is_read(tmp_path: Path, kind: str) -> None:
    black = np.zeros((48, 64, 3), np.uint8)
    data = pillow_file([quarters(), black, black + 255], kind)
    assert declared_size(data, image_kind(data)) == (64, 48)
    (tmp_path / "photo").write_bytes(data)
    assert_quarters(read_image(tmp_path / "photo"), tolerance=40)


def test_a_gif_with_few_colours_and_see_through_ones(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    image = pillow.fromarray(quarters()).convert("P")
    image.save(tmp_path / "a.gif", transparency=image.getpixel((0, 0)))
    assert read_image(tmp_path / "a.gif").shape == (48, 64, 3)


def test_an_avif_that_hides_its_size_from_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its decoder would make room for the size that the AV1 image in it declares: 2 kB took 1.9 GB."""
    for images in ([quarters(400, 600)], [quarters(400, 600)] * 3):  # a still picture, and an animation
        data = pillow_file(images, "AVIF")
        for box in re.finditer(b"ispe", data):
            data = data[: box.end() + 4] + struct.pack(">II", 8, 8) + data[box.end() + 12 :]
        assert declared_size(data, "AVIF") == (600, 400)
        (tmp_path / "a.avif").write_bytes(data)
        monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
        with pytest.raises(InputError, match="600 x 400 pixels, more than"):
            read_image(tmp_path / "a.avif", most_pixels=200_000)


def test_damaged_avif_files_tell_a_size_or_say_so() -> None:
    data = pillow_file([quarters()] * 2, "AVIF")
    rng = np.random.default_rng(0)
    for _ in range(500):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] = rng.integers(256)
        with suppress(ValueError):
            declared_size(bytes(damaged), "AVIF")


def heic(images: list[NDArray[np.uint8]], **options: object) -> bytes:
    plugin = pytest.importorskip("pillow_heif", reason="pillow-heif, the extra [heic], is not installed")
    plugin.register_heif_opener()
    return pillow_file(images, "HEIF", **options)


def test_heic(tmp_path: Path) -> None:
    path = tmp_path / "IMG_1.HEIC"
    path.write_bytes(heic([quarters()]))
    assert image_kind(path.read_bytes()) == "HEIC"
    assert_quarters(read_image(path))
    path.write_bytes(heic([quarters()[..., 0]]))
    assert read_image(path).shape == (48, 64, 3)
    path.write_bytes(heic([np.dstack([quarters(), quarters()[..., :1]])]))
    assert_quarters(read_image(path))
    with pytest.raises(InputError, match="64 x 64 pixels, more than"):  # in whole blocks, as it is decoded
        read_image(path, most_pixels=1000)


def test_heic_orientation_is_obeyed(tmp_path: Path) -> None:
    exif = exif_segment(6)[4:]
    (tmp_path / "a.heic").write_bytes(heic([STORED[6](quarters())], exif=exif))
    assert_quarters(read_image(tmp_path / "a.heic"))


def test_damaged_heic(tmp_path: Path) -> None:
    data = heic([quarters()])
    for cut in range(16, len(data) - 1, len(data) // 9):
        (tmp_path / "a.heic").write_bytes(data[:cut])
        with pytest.raises(InputError, match="damaged HEIC"):
            read_image(tmp_path / "a.heic")


def test_heic_without_its_plugin_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    size = b"\0\0\0\x14ispe" + struct.pack(">III", 0, 64, 48)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + size)
    with pytest.raises(InputError, match="HEIC photos need pillow-heif") as caught:
        read_image(tmp_path / "a.heic")
    assert "[heic]" in caught.value.hint
