"""Photos on disk, read as upright 8-bit RGB."""

import errno
import os
import stat

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.io.heic import decode_heic
from dhm_cli.io.image_size import declared_size, image_kind
from dhm_cli.io.remote import is_url, read_url

# A larger photo is refused unless the caller allows it: each worker holds it several times, at 3 bytes a pixel. The
# largest sensors of phones that write whole photos have 108 million.
MOST_PIXELS = 120_000_000
# Of the file itself, for each pixel allowed: TIFFs of 8 bits with an alpha channel just pass.
_MOST_BYTES_A_PIXEL = 4

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".gif")
# Photos that only an extra reads.
HEIC_EXTENSIONS = (".heic", ".heif")

# Flags of OpenCV by the reduction; those named GRAYSCALE tell the reduction alone.
_COLOUR = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2 | cv2.IMREAD_COLOR_RGB,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4 | cv2.IMREAD_COLOR_RGB,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_COLOR_RGB,
}
_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", 0xDA, b"\xff\xd9"
# High enough that a network cannot tell the copy from the original, a tenth of the bytes of a PNG.
_STORE_QUALITY = 95
_CHECK_PATH = "check the name and the permissions"
_COPY_AGAIN = "copy or download the file again"
_PNG_END = b"IEND"
_SMALLER = "save the photo smaller, or pass --max-pixels"


def read_image(path: str | os.PathLike[str], most_pixels: int = MOST_PIXELS) -> NDArray[np.uint8]:
    """Read a photo as upright RGB.

    The EXIF orientation is obeyed, so pixel (0, 0) is the top left corner as a viewer shows it. Grey and palette images
    become RGB, 16 bits become 8, and an alpha channel is dropped: transparent pixels keep the colour that is stored. Of
    several images in a file, such as an animation, the first is read. HEIC needs the extra [heic].

    Args:
        path: file name; any characters, any extension (the content decides). Or, with the extra [remote], an address
            such as s3://bucket/photo.jpg (`io.remote`).
        most_pixels: a photo that declares more is refused before it is decoded.

    Returns:
        (H, W, 3) uint8, RGB, 0 to 255.

    Raises:
        InputError: the file cannot be read, is empty, truncated, damaged, too large, not an image or not a file at all.

    Example:
        >>> from dhm_cli import read_image
        >>> image = read_image("sample_data/photos/astronaut.png")
        >>> image.shape, image.dtype
        ((512, 512, 3), dtype('uint8'))
    """
    return decode_image(read_bytes(path, most_bytes(most_pixels)), path, most_pixels=most_pixels)


def most_bytes(most_pixels: int) -> int:
    """Bytes of a file beyond which its photo must have more pixels than are allowed, or is not worth reading."""
    return _MOST_BYTES_A_PIXEL * most_pixels


def read_bytes(path: str | os.PathLike[str], most: int = _MOST_BYTES_A_PIXEL * MOST_PIXELS) -> bytes:
    """The whole content of a file; never of a pipe or a device, which may have no end.

    Args:
        path: the file, or an address (`io.remote`).
        most: bytes; a larger file is refused.

    Raises:
        InputError: it cannot be read, is too large, or is no regular file.
    """
    if is_url(path):
        return read_url(str(path), most)
    try:
        # A pipe without a writer would block an ordinary open.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{path}: not a regular file but {_kind_of_file(status.st_mode)}", hint=_CHECK_PATH)
            if status.st_size > most:
                raise InputError(f"{path}: {status.st_size / 1e6:,.0f} MB, more than {most / 1e6:,.0f}", hint=_SMALLER)
            return file.read()
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise InputError(f"{path}: not a regular file but a socket or a device", hint=_CHECK_PATH) from error
        raise InputError(f"{path}: cannot be read: {error.strerror or error}", hint=_CHECK_PATH) from error


def _kind_of_file(mode: int) -> str:
    return "a pipe" if stat.S_ISFIFO(mode) else "a folder" if stat.S_ISDIR(mode) else "a device"


def decode_image(
    data: bytes, path: str | os.PathLike[str], upright: bool = True, most_pixels: int = MOST_PIXELS
) -> NDArray[np.uint8]:
    """Decode the content of an image file; `read_image` says how.

    Args:
        data: the whole file.
        path: its name, for messages.
        upright: obey the EXIF orientation; False keeps the stored pixels, to which a dataset's landmarks belong.
        most_pixels: as for `read_image`.

    Raises:
        InputError: as `read_image`.
    """
    kind, _ = check_image(data, path, most_pixels)
    return decode_checked(data, path, kind, upright)


def decode_checked(
    data: bytes, path: str | os.PathLike[str], kind: str, upright: bool = True, reduction: int = 1
) -> NDArray[np.uint8]:
    """Decode the content of an image file that `check_image` has seen.

    Args:
        data, path, upright: as for `decode_image`.
        kind: as `check_image` says.
        reduction: 2, 4 or 8 decodes a JPEG at 1/2, 1/4 or 1/8 of its width and height, rounded up, in less time.

    Raises:
        InputError: as `read_image`.
    """
    if kind == "HEIC":
        return decode_heic(data, path)
    try:
        flags = _COLOUR[reduction] | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        reason = " ".join(str(error).split()) or "not enough memory"
        raise InputError(f"{path}: cannot be decoded: {reason}", hint="save the photo smaller") from error
    if image is None:
        raise InputError(f"{path}: damaged {kind}", hint=f"readable are {_readable()}")
    return image  # type: ignore[return-value]


def check_image(data: bytes, path: str | os.PathLike[str], most_pixels: int) -> tuple[str, tuple[int, int]]:
    """What can be told of an image file without decoding it.

    Args:
        data: the whole file.
        path: its name, for messages.
        most_pixels: as for `read_image`.

    Returns:
        Its kind, as `image_kind` says, and its width and height as they are stored.

    Raises:
        InputError: as `read_image`.
    """
    if not data:
        raise InputError(f"{path}: the file is empty", hint=_COPY_AGAIN)
    kind = image_kind(data)
    if not kind:
        raise InputError(f"{path}: not an image, or of a kind that cannot be read", hint=f"readable are {_readable()}")
    _check_complete(data, kind, path)
    try:
        width, height = declared_size(data, kind)
    except ValueError as error:
        raise InputError(f"{path}: damaged {kind}: {error}", hint=_COPY_AGAIN) from error
    if width * height > most_pixels:
        found = f"{width:,} x {height:,} pixels, more than {most_pixels / 1e6:g} megapixels"
        raise InputError(f"{path}: {found}", hint=_SMALLER)
    return kind, (width, height)


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """The JPEG that goes into a store for an image (H, W, 3) uint8 RGB that is no file: a frame, a turned view."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _STORE_QUALITY])[1].tobytes()


def _readable() -> str:
    return " ".join(EXTENSIONS)


def _check_complete(data: bytes, kind: str, path: str | os.PathLike[str]) -> None:
    """Refuse truncated JPEG and PNG files, which some decoders fill with grey in silence."""
    if (kind == "JPEG" and not _jpeg_has_end(data)) or (kind == "PNG" and data.rfind(_PNG_END) < 0):
        raise InputError(f"{path}: truncated {kind}", hint=_COPY_AGAIN)


def _jpeg_has_end(data: bytes) -> bool:
    """Whether an end-of-image marker follows the first scan.

    The segments before the scan are stepped over, since an EXIF thumbnail has an end marker of its own. Inside a scan
    0xFF is always escaped, so the marker cannot appear by chance. Bytes after it (MPO, camera notes) do not matter.
    """
    at = len(_JPEG_START)
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _JPEG_SCAN:
            break
    return data.rfind(_JPEG_END, at) >= 0
