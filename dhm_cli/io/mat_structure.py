"""Is a MATLAB file of version 4 to 7.2 put together as it says? scipy believes it and can crash where it is not.

The format is that of "MAT-File Format", The MathWorks 2023. Kinds of arrays that no data set here uses (sparse
matrices, objects, functions) are refused too, since nothing reads them.
"""

import math
import mmap
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

_HEADER = 128
_COMPRESSED, _MATRIX = 15, 14
_INT8, _INT32, _UINT32 = 1, 5, 6
# Bytes of one number, by data type.
_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}
_CELL, _STRUCT, _CHAR, _NUMBERS = 1, 2, 4, range(6, 16)
_COMPLEX = 0x800
_MOST_DIMENSIONS, _DEEPEST = 32, 32
# Of version 4, by the tens of its type number.
_WIDTHS_4 = (8, 4, 4, 2, 2, 1)


def check_mat_structure(path: Path) -> None:
    """Check that every size in a MATLAB file fits what is there.

    Args:
        path: the file, not of version 7.3 (which is HDF5).

    Raises:
        ValueError: it does not; says where.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        if not file.read(1):
            raise ValueError("the file is empty")
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        if 0 in data[:4]:
            _check_version_4(data)
        else:
            _check_version_5(data)
    except zlib.error as error:
        raise ValueError(f"a compressed variable is damaged: {error}") from error


def _check_version_5(data: memoryview) -> None:
    if len(data) < _HEADER:
        raise ValueError("cut off within its header")
    order = {b"IM": "<", b"MI": ">"}.get(bytes(data[126:128]))
    if order is None:
        raise ValueError("no MATLAB file: its byte order is not told")
    reader = _Version5(order)
    for kind, content in reader.elements(data[_HEADER:], padded=False):
        if kind == _COMPRESSED:
            inner = list(reader.elements(memoryview(zlib.decompress(content)), padded=True))
            if len(inner) != 1:
                raise ValueError("a compressed variable holds several")
            kind, content = inner[0]
        if kind != _MATRIX:
            raise ValueError(f"a variable of the unknown type {kind}")
        reader.check_matrix(content, 0)


class _Version5:
    """Walks through the elements of a file of version 5 to 7.2.

    Args:
        order: "<" or ">", the byte order.
    """

    def __init__(self, order: str) -> None:
        self._two = struct.Struct(f"{order}II")
        self._order = order

    def elements(self, data: memoryview, padded: bool) -> Iterator[tuple[int, memoryview]]:
        """Data type and content of each element; contents of up to 4 bytes stand within the tag."""
        at = 0
        while at < len(data):
            if len(data) - at < 8:
                raise ValueError("cut off within a tag")
            kind, size = self._two.unpack_from(data, at)
            if kind >> 16:
                kind, size = kind & 0xFFFF, kind >> 16
                start, end = at + 4, at + 8
                if size > 4:
                    raise ValueError(f"a small element of {size} bytes")
            else:
                start = at + 8
                end = start + (-(-size // 8) * 8 if padded else size)
            if start + size > len(data):
                raise ValueError(f"an element of {size:,} bytes where {len(data) - start:,} are left")
            yield kind, data[start : start + size]
            at = end

    def check_matrix(self, data: memoryview, depth: int) -> None:
        """Check an array and what it holds."""
        if not len(data):
            return  # an empty cell
        if depth > _DEEPEST:
            raise ValueError(f"more than {_DEEPEST} arrays within each other")
        parts = self.elements(data, padded=True)
        (flags, _), dimensions = self._numbers(parts, "I", _UINT32, 2), self._numbers(parts, "i", _INT32)
        self._expect(parts, _INT8)  # the name
        if not 2 <= len(dimensions) <= _MOST_DIMENSIONS or min(dimensions) < 0:
            raise ValueError(f"an array of the size {dimensions}")
        count, kind = math.prod(dimensions), flags & 0xFF
        if kind in _NUMBERS or kind == _CHAR:
            for _ in range(2 if flags & _COMPLEX else 1):
                self._check_values(parts, count, text=kind == _CHAR)
        elif kind == _CELL:
            self._check_arrays(parts, count, depth)
        elif kind == _STRUCT:
            (length,) = self._numbers(parts, "i", _INT32, 1)
            names = self._expect(parts, _INT8)
            if length < 1 or len(names) % length:
                raise ValueError("field names of the wrong length")
            self._check_arrays(parts, count * (len(names) // length), depth)
        else:
            raise ValueError(f"an array of the class {kind}, which is not supported")
        if next(parts, None) is not None:
            raise ValueError("an array with more parts than it tells of")

    def _check_arrays(self, parts: Iterator[tuple[int, memoryview]], count: int, depth: int) -> None:
        for found in range(count):
            kind, content = next(parts, (0, memoryview(b"")))
            if kind != _MATRIX:
                raise ValueError(f"an array of {count:,} arrays with {found:,}")
            self.check_matrix(content, depth + 1)

    def _check_values(self, parts: Iterator[tuple[int, memoryview]], count: int, text: bool) -> None:
        kind, content = next(parts, (0, memoryview(b"")))
        width = _WIDTHS.get(kind)
        if width is None:
            raise ValueError(f"numbers of the unknown type {kind}")
        # A letter of UTF-8 may take several bytes.
        if len(content) != count * width and not (text and kind == 16 and count <= len(content) <= 4 * count):
            raise ValueError(f"{count:,} numbers of {width} bytes in {len(content):,} bytes")

    def _expect(self, parts: Iterator[tuple[int, memoryview]], kind: int) -> memoryview:
        found, content = next(parts, (0, memoryview(b"")))
        if found != kind:
            raise ValueError(f"an element of type {found} in the place of one of type {kind}")
        return content

    def _numbers(
        self, parts: Iterator[tuple[int, memoryview]], code: str, kind: int, count: int | None = None
    ) -> tuple[int, ...]:
        content = self._expect(parts, kind)
        if len(content) % 4 or (count is not None and len(content) != 4 * count):
            raise ValueError(f"{len(content)} bytes in the place of {count or 'some'} numbers")
        return struct.unpack(f"{self._order}{len(content) // 4}{code}", content)


def _check_version_4(data: memoryview) -> None:
    at = 0
    while at < len(data):
        if len(data) - at < 20:
            raise ValueError("cut off within a header")
        order = "<" if struct.unpack_from("<i", data, at)[0] < 5000 else ">"
        kind, rows, columns, is_complex, name = struct.unpack_from(f"{order}5i", data, at)
        machine, number, form = kind // 1000, kind // 10 % 100, kind % 10
        if machine not in (0, 1) or number >= len(_WIDTHS_4) or form not in (0, 1) or is_complex not in (0, 1):
            raise ValueError(f"a variable of the unknown type {kind}")
        if min(rows, columns) < 0 or not 1 <= name <= 256:
            raise ValueError(f"a variable of {rows} x {columns} with a name of {name} letters")
        at += 20 + name + (1 + is_complex) * rows * columns * _WIDTHS_4[number]
        if at > len(data):
            raise ValueError(f"a variable of {rows:,} x {columns:,} that is cut off")
