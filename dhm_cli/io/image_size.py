"""What an image file says of itself before it is decoded: its kind, width and height, and how a JPEG is turned.

A few bytes can declare an image of gigabytes. Pillow could tell too, but it warns through the interpreter's one list of
filters, whatever thread asks, and makes room for a whole WebP first.
"""

import re
import struct
from collections.abc import Iterator
from contextlib import suppress

from dhm_cli.io.av1_size import av1_sizes

# Kinds, with the bytes that files of theirs begin with; the patterns see the first 32 bytes.
_KINDS = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WebP": rb"RIFF....WEBP",
    "BMP": rb"BM",
    "TIFF": rb"II\*\0|MM\0\*",
    "GIF": rb"GIF8[79]a",
    "AVIF": rb"....ftyp(?:avi[fs]|m(?:if|sf)1.{4,12}avi[fs])",
    "HEIC": rb"....ftyp(?:hei[cxms]|hev[cx]|m(?:if|sf)1)",
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "PNM": rb"P[1-6]\s",
}
_PATTERNS = {kind: re.compile(start, re.DOTALL) for kind, start in _KINDS.items()}
_PNM = re.compile(rb"P[1-6](?:\s+|#[^\n]*\n)+(\d{1,10})(?:\s+|#[^\n]*\n)+(\d{1,10})")
# Frame headers of JPEG: all SOF markers but those of tables (C4, C8, CC).
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_ORIENTATION, _TIFF_SHORT = 256, 257, 274, 3
_EXIF, _EXIF_START = 0xE1, b"Exif\0\0"


def image_kind(data: bytes) -> str:
    """The kind of an image file by its first bytes, such as "JPEG"; empty where it is none that is known."""
    return next((kind for kind, pattern in _PATTERNS.items() if pattern.match(data[:32])), "")


def declared_size(data: bytes, kind: str) -> tuple[int, int]:
    """Width and height that an image file declares, pixels; of several images in it, those of the first or largest.

    Args:
        data: the whole file.
        kind: as `image_kind` says.

    Raises:
        ValueError: the file is damaged or cut off before it tells.
    """
    try:
        return _READERS[kind](data)
    except (struct.error, IndexError) as error:
        raise ValueError("cut off") from error


def jpeg_orientation(data: bytes) -> int:
    """The EXIF orientation of a JPEG, 1 to 8 (CIPA DC-008, tag 274); 1 where it tells none.

    Args:
        data: the whole file.
    """
    with suppress(ValueError, struct.error, IndexError):
        for marker, at in _jpeg_segments(data):
            if marker == _EXIF and data.startswith(_EXIF_START, at + 4):
                found = _tiff_tags(data[at + 10 : at + 2 + struct.unpack_from(">H", data, at + 2)[0]])
                orientation = found.get(_TIFF_ORIENTATION, 1)
                return orientation if 1 <= orientation <= 8 else 1
    return 1


def _jpeg(data: bytes) -> tuple[int, int]:
    for marker, at in _jpeg_segments(data):
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
    raise ValueError("no frame header")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """The markers of a JPEG before its first scan, each with the place of its first byte."""
    at = 2
    while True:
        while data[at] == 0xFF and data[at + 1] == 0xFF:  # fill bytes
            at += 1
        if data[at] != 0xFF:
            raise ValueError("no marker where one belongs")
        marker = data[at + 1]
        if marker in (0xD9, 0xDA):
            return
        yield marker, at
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # they stand alone
            at += 2
        else:
            at += 2 + max(2, struct.unpack_from(">H", data, at + 2)[0])


def _png(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _webp(data: bytes) -> tuple[int, int]:
    form = data[12:16]
    if form == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if form == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _bmp(data: bytes) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # of OS/2
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = map(abs, struct.unpack_from("<ii", data, 18))
    return width, height


def _tiff(data: bytes) -> tuple[int, int]:
    found = _tiff_tags(data)
    if _TIFF_WIDTH not in found or _TIFF_HEIGHT not in found:
        raise ValueError("no width and height")
    return found[_TIFF_WIDTH], found[_TIFF_HEIGHT]


def _tiff_tags(data: bytes) -> dict[int, int]:
    """Size and orientation that the first directory of a TIFF tells, by tag."""
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, at)
    found = {}
    for entry in range(count):
        tag, form = struct.unpack_from(f"{order}HH", data, at + 2 + 12 * entry)
        if tag in (_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_ORIENTATION):
            code = "H" if form == _TIFF_SHORT else "I"
            (found[tag],) = struct.unpack_from(f"{order}{code}", data, at + 10 + 12 * entry)
    return found


def _gif(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _heif(data: bytes) -> tuple[int, int]:
    sizes = [struct.unpack_from(">II", data, box.end() + 4) for box in re.finditer(b"ispe", data)]
    if not sizes:
        raise ValueError("no width and height")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return width, height


def _avif(data: bytes) -> tuple[int, int]:
    return max((_heif(data), *av1_sizes(data)), key=lambda size: size[0] * size[1])


def _jpeg_2000(data: bytes) -> tuple[int, int]:
    at = data.index(b"\xff\x4f\xff\x51") if b"\xff\x4f\xff\x51" in data else len(data)
    right, bottom, left, top = struct.unpack_from(">IIII", data, at + 8)
    return right - left, bottom - top


def _pnm(data: bytes) -> tuple[int, int]:
    found = _PNM.match(data[:65536])
    if found is None:
        raise ValueError("no width and height")
    return int(found[1]), int(found[2])


_READERS = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WebP": _webp,
    "BMP": _bmp,
    "TIFF": _tiff,
    "GIF": _gif,
    "AVIF": _avif,
    "HEIC": _heif,
    "JPEG 2000": _jpeg_2000,
    "PNM": _pnm,
}
