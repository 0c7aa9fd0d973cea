"""The sizes that the AV1 images in an AVIF file declare in their own headers.

The container declares a size too, but decoders make room for that of the AV1 image, and 2 kB can hold 144 megapixels.
AV1 Bitstream & Decoding Process Specification, 5.3 and 5.5; ISO/IEC 14496-12, 8.11.3 (iloc).
"""

import re
import struct
from collections.abc import Iterator

# Bytes at the start of an image in which its sequence header lies.
_START = 256
_SEQUENCE_HEADER, _SKIPPED = 1, (2, 5, 15)  # of OBUs: temporal delimiter, metadata, padding


def av1_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """Width and height, pixels, of each AV1 image in an AVIF file that begins with a sequence header.

    Args:
        data: the whole file.
    """
    for start in (*_items(data), *_first_samples(data)):
        try:
            header = _sequence_header(start)
            if header is not None:
                yield _size(_Bits(header))
        except IndexError:  # cut off: no image of AV1
            continue


def _items(data: bytes) -> Iterator[bytes]:
    """The first bytes of each item, by the box iloc."""
    at = data.find(b"iloc") + 4
    if at < 4:
        return
    stored = data.find(b"idat") + 4
    version, sizes = data[at], data[at + 4 : at + 6]
    offset_size, length_size, base_size = sizes[0] >> 4, sizes[0] & 15, sizes[1] >> 4
    index_size = sizes[1] & 15 if version in (1, 2) else 0
    at += 6

    def take(size: int) -> int:
        nonlocal at
        at += size
        if at > len(data):
            raise struct.error("cut off")
        return int.from_bytes(data[at - size : at], "big")

    for _ in range(take(4 if version == 2 else 2)):
        take(4 if version == 2 else 2)
        method = take(2) & 15 if version in (1, 2) else 0
        take(2)
        base = take(base_size) + (stored if method == 1 else 0)
        start = b""
        extents = take(2)
        for _ in range(extents if index_size + offset_size + length_size else min(extents, 1)):
            take(index_size)
            offset, length = take(offset_size), take(length_size)
            end = base + offset + min(length or _START, _START)
            start += data[base + offset : end] if len(start) < _START else b""
        yield start


def _first_samples(data: bytes) -> Iterator[bytes]:
    """The first bytes of each track of an animation, by the boxes stco and co64."""
    for box in re.finditer(b"stco|co64", data):
        size = 8 if box[0] == b"co64" else 4
        offset = int.from_bytes(data[box.end() + 8 : box.end() + 8 + size], "big")
        yield data[offset : offset + _START]


def _sequence_header(start: bytes) -> bytes | None:
    """The content of the sequence header OBU, behind others that may come first."""
    at = 0
    while True:
        kind, extended, sized = start[at] >> 3 & 15, start[at] >> 2 & 1, start[at] >> 1 & 1
        at += 1 + extended
        length, shift = 0, 0
        while sized:  # LEB128
            length |= (start[at] & 127) << shift
            sized, shift, at = start[at] >> 7, shift + 7, at + 1
        if kind == _SEQUENCE_HEADER:
            return start[at:]
        if kind not in _SKIPPED:
            return None
        at += length


class _Bits:
    """Numbers of some bits, the highest first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __call__(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self._data[self._at >> 3] >> (7 - (self._at & 7)) & 1
            self._at += 1
        return value


def _size(bits: _Bits) -> tuple[int, int]:
    bits(4)  # profile, still picture
    if bits(1):  # a header of a still picture only
        bits(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits(4) + 1, bits(4) + 1
    return bits(width_bits) + 1, bits(height_bits) + 1


def _skip_operating_points(bits: _Bits) -> None:
    delay = 0  # bits of a decoder's delay, where its model is given
    if bits(1):  # timing
        bits(64)
        if bits(1):  # a number whose length stands before it
            zeros = 0
            while not bits(1):
                zeros += 1
            bits(zeros)
        if bits(1):
            delay = bits(5) + 1
            bits(42)
    delayed = bits(1)
    for _ in range(bits(5) + 1):
        bits(12)
        if bits(5) > 7:
            bits(1)
        if delay and bits(1):
            bits(2 * delay + 1)
        if delayed and bits(1):
            bits(4)
