"""Annotations of LS3D-W: Torch7 `.t7` files."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import NUM_LANDMARKS
from dhm_cli.io.pts import FARTHEST

_COPY_AGAIN = "copy or download the file again"
_EXPECTED = "expected the 68-point scheme of 300-W, as in LS3D-W"
# What a binary Torch7 file puts before an object of a class; before numbers, tables and the like stand others.
_OBJECT = 4
_INT, _LONG = "<i4", "<i8"
# Of the classes torch.ByteTensor, torch.ByteStorage and so on.
_KINDS = {"Byte": "u1", "Char": "i1", "Short": "<i2", "Int": _INT, "Long": _LONG, "Float": "<f4", "Double": "<f8"}


class _Content:
    """What a file holds, read from front to back."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def numbers(self, kind: str, count: int) -> NDArray[Any]:
        size = np.dtype(kind).itemsize * count
        if not 0 <= size <= len(self._content) - self._at:
            raise ValueError("it ends early")
        self._at += size
        return np.frombuffer(self._content[self._at - size : self._at], kind)

    def number(self, kind: str = _INT) -> int:
        return int(self.numbers(kind, 1)[0])

    def name_of_class(self) -> str:
        """The class of the object that begins here: a mark, its number in the file, a version if it has one, a name."""
        if self.number() != _OBJECT:
            raise ValueError("no tensor")
        self.number()
        name = self._text()
        return self._text() if name.startswith("V ") else name

    def _text(self) -> str:
        return self.numbers("u1", self.number()).tobytes().decode("latin-1")


def read_t7(path: Path) -> NDArray[np.float32]:
    """Read the 68 points of an LS3D-W annotation.

    Coordinates on disk are 1-based like those of the datasets that LS3D-W re-annotates (Bulat and Tzimiropoulos 2017).

    Args:
        path: a binary Torch7 file that holds a 68 x 2 tensor.

    Returns:
        (68, 2), 0-based pixels.

    Raises:
        InputError: the file is missing, damaged or holds something else.
    """
    try:
        content = _Content(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}", "check the path") from error
    try:
        name = content.name_of_class()
        kind = name.removeprefix("torch.").removesuffix("Tensor")
        if kind not in _KINDS:
            raise InputError(f"{path}: holds a {name!r}, not a tensor of numbers", _EXPECTED)
        shape = content.numbers(_LONG, content.number()).tolist()
        if shape != [NUM_LANDMARKS, 2]:
            sizes = " x ".join(map(str, shape))
            raise InputError(f"{path}: a tensor of {sizes} numbers, not {NUM_LANDMARKS} x 2", _EXPECTED)
        row, column = content.numbers(_LONG, 2).tolist()
        first = content.number(_LONG) - 1
        if content.name_of_class() != f"torch.{kind}Storage":
            raise ValueError("its tensor has no numbers")
        storage = content.numbers(_KINDS[kind], content.number(_LONG))
    except ValueError as error:
        raise InputError(f"{path}: not a readable Torch7 file ({error})", _COPY_AGAIN) from error
    places = [[first + row * point + column * axis for axis in range(2)] for point in range(NUM_LANDMARKS)]
    if min(map(min, places)) < 0 or max(map(max, places)) >= len(storage):
        raise InputError(f"{path}: its tensor is larger than the numbers in it", _COPY_AGAIN)
    found = storage[places]
    if not (np.abs(found) < FARTHEST).all():
        raise InputError(f"{path}: holds values that are no pixel positions", "remove or repair the file")
    return (found.astype(np.float64) - 1).astype(np.float32)
