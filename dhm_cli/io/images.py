"""Photos on disk: finding them and reading them as upright 8-bit RGB."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", 0xDA, b"\xff\xd9"
# High enough that a network cannot tell the copy from the original, a tenth of the bytes of a PNG.
_STORE_QUALITY = 95
_CHECK_PATH = "check the name and the permissions"
_COPY_AGAIN = "copy or download the file again"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read a photo as upright RGB.

    The EXIF orientation is obeyed, so pixel (0, 0) is the top left corner as a viewer shows it. Grey and palette images
    become RGB, 16 bits become 8, and an alpha channel is dropped: transparent pixels keep the colour that is stored.

    Args:
        path: file name; any characters, any extension (the content decides).

    Returns:
        (H, W, 3) uint8, RGB, 0 to 255.

    Raises:
        InputError: the file cannot be read, is empty, truncated, damaged or not an image.

    Example:
        >>> from dhm_cli import read_image
        >>> image = read_image("sample_data/photos/astronaut.png")
        >>> image.shape, image.dtype
        ((512, 512, 3), dtype('uint8'))
    """
    return decode_image(read_bytes(path), path)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The whole content of a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}", hint=_CHECK_PATH) from error


def decode_image(data: bytes, path: str | os.PathLike[str], upright: bool = True) -> NDArray[np.uint8]:
    """Decode the content of an image file; `read_image` says how.

    Args:
        data: the whole file.
        path: its name, for messages.
        upright: obey the EXIF orientation; False keeps the stored pixels, to which a dataset's landmarks belong.

    Raises:
        InputError: as `read_image`.
    """
    if not data:
        raise InputError(f"{path}: the file is empty", hint=_COPY_AGAIN)
    kind = _check_complete(data, path)
    try:
        flags = cv2.IMREAD_COLOR_RGB | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        reason = " ".join(str(error).split()) or "not enough memory"
        raise InputError(f"{path}: cannot be decoded: {reason}", hint="save the photo smaller") from error
    if image is None:
        reason = f"damaged {kind}" if kind else "not an image, or of a kind that cannot be read"
        raise InputError(f"{path}: {reason}", hint=f"readable are {_readable()}")
    return image  # type: ignore[return-value]


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """The JPEG that goes into a store for an image (H, W, 3) uint8 RGB that is no file: a frame, a turned view."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _STORE_QUALITY])[1].tobytes()


def find_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """List the photos among files and folders.

    A folder is searched recursively for `EXTENSIONS` in any case, sorted by name; hidden files and folders (`._x.jpg`,
    `.thumbnails`) are skipped and linked folders are not entered. A file named outright is taken whatever its name.

    Args:
        paths: files and folders.

    Returns:
        Each photo once, in the order of the arguments; paths below a folder begin with that folder as given.

    Raises:
        InputError: a path does not exist, a folder cannot be read, or a folder holds no photo.
    """
    found: dict[str, Path] = {}
    for path in map(Path, paths):
        if _is_folder(path):
            photos = _walk(path)
            if not photos:
                raise InputError(f"{path}: no photos in this folder", hint=f"looked for {_readable()}")
        else:
            photos = [path]
        for photo in photos:
            found.setdefault(os.path.abspath(photo), photo)
    return list(found.values())


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        hint = "check the spelling; a name with spaces needs quotes"
        raise InputError(f"{path}: no such file or folder", hint=hint) from error
    except OSError as error:  # no permission, a name that is too long, a circle of links
        raise InputError(f"{path}: cannot be read: {error.strerror or error}", hint=_CHECK_PATH) from error


def _walk(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}", hint=_CHECK_PATH) from error

    photos = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        photos += [Path(parent, name) for name in files if _looks_like_photo(name)]
    return sorted(photos)


def _looks_like_photo(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def _readable() -> str:
    return " ".join(EXTENSIONS)


def _check_complete(data: bytes, path: str | os.PathLike[str]) -> str:
    """Refuse truncated JPEG and PNG files, which some decoders fill with grey in silence; returns the kind or ''."""
    if data.startswith(_JPEG_START):
        kind, complete = "JPEG", _jpeg_has_end(data)
    elif data.startswith(_PNG_START):
        kind, complete = "PNG", _PNG_END in data[-65536:] or _PNG_END in data
    else:
        return ""
    if not complete:
        raise InputError(f"{path}: truncated {kind}", hint=_COPY_AGAIN)
    return kind


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
