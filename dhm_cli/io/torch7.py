"""Annotations of LS3D-W: Torch7 `.t7` files."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import NUM_LANDMARKS
from dhm_cli.io.pts import FARTHEST

_COPY_AGAIN = "copy or download the file again"
_EXPECTED = "expected the 68-point scheme of 300-W, as in LS3D-W"


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
    found, storages = _read_object(path)
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        raise InputError(f"{path}: holds a {type(found).__name__}, not a tensor", _EXPECTED)
    if found.shape != (NUM_LANDMARKS, 2):
        sizes = " x ".join(map(str, found.shape))
        raise InputError(f"{path}: a tensor of {sizes} numbers, not {NUM_LANDMARKS} x 2", _EXPECTED)
    if not any(_within(found, storage) for storage in storages):
        raise InputError(f"{path}: its tensor is larger than the numbers in it", _COPY_AGAIN)
    if not (np.abs(found) < FARTHEST).all():
        raise InputError(f"{path}: holds values that are no pixel positions", "remove or repair the file")
    return (found.astype(np.float64) - 1).astype(np.float32)


def _read_object(path: Path) -> tuple[object, list[NDArray[np.generic]]]:
    """What a .t7 file holds, and the arrays of numbers that came with it."""
    import torchfile

    try:
        with path.open("rb") as file:
            reader = torchfile.T7Reader(file)
            found = reader.read_obj()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}", "check the path") from error
    except Exception as error:  # torchfile has no errors of its own: whatever a damaged number leads to
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: not a readable Torch7 file ({reason})", _COPY_AGAIN) from error
    arrays = [each for each in reader.objects.values() if isinstance(each, np.ndarray)]
    return found, [each for each in arrays if each is not found]


def _within(tensor: NDArray[np.generic], storage: NDArray[np.generic]) -> bool:
    """Whether a tensor lies inside a storage; torchfile makes it a view without looking at the storage's end."""
    reach = [(n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True)]
    first = tensor.__array_interface__["data"][0] + sum(r for r in reach if r < 0)
    last = tensor.__array_interface__["data"][0] + sum(r for r in reach if r > 0) + tensor.itemsize
    start = storage.__array_interface__["data"][0]
    return bool(start <= first and last <= start + storage.nbytes)
