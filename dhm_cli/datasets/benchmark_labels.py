"""Second labels of the AFLW2000-3D benchmark: the re-annotated points and the yaw of the AFLW labels."""

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import NUM_LANDMARKS
from dhm_cli.io.pts import FARTHEST
from dhm_cli.io.torch7 import read_t7


def read_reannotated(path: Path, names: Sequence[str], origin: int = 0) -> NDArray[np.float32]:
    """Read the re-annotated 2D points of AFLW2000-3D (Bulat and Tzimiropoulos 2017).

    Nothing says where their pixels begin. They lie one pixel before `pt3d_68`, which is 1-based, and all networks do
    better when they are read as 0-based; so that is the default.

    Args:
        path: a .npy file of shape (N, 2, 68) in the order of the sorted file names, or a folder with a .t7 file for
            every image, named like it.
        names: the images' names, in any order.
        origin: number of the first pixel in these files, 0 or 1.

    Returns:
        (N, 68, 2), 0-based pixels, in the order of `names`.

    Raises:
        InputError: the file is missing, damaged, of another shape or for another number of images.
    """
    if path.is_dir():
        return _read_t7_folder(path, names) + np.float32(1 - origin)  # read_t7 reads them as 1-based
    values = _read_npy(path)
    if values.ndim != 3 or values.shape[1:] != (2, NUM_LANDMARKS):
        raise InputError(f"{path}: an array of shape {values.shape}", "expected (N, 2, 68): x and y of 68 points")
    return (_in_order(path, values, names).transpose(0, 2, 1) - origin).astype(np.float32)


def read_yaw_labels(path: Path, names: Sequence[str]) -> NDArray[np.float32]:
    """Read the yaw of the AFLW labels, by which one of the two usual splits of AFLW2000-3D into bins is made.

    Args:
        path: a .npy file of shape (N,), degrees, in the order of the sorted file names.
        names: the images' names, in any order.

    Returns:
        (N,), degrees, in the order of `names`.

    Raises:
        InputError: the file is missing, damaged, of another shape or for another number of images.
    """
    values = _read_npy(path)
    if values.ndim != 1:
        raise InputError(f"{path}: an array of shape {values.shape}", "expected (N,): degrees, one an image")
    return _in_order(path, values, names).astype(np.float32)


def _read_npy(path: Path) -> NDArray[np.float64]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:  # np.load would take archives and pickles too
            _refuse_larger(file, size)
            values = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # numpy raises half a dozen kinds on damaged files
        raise InputError(f"{path}: not a readable .npy file ({error})", "check the path") from error
    if values.dtype.kind not in "fiu":
        raise InputError(f"{path}: not an array of numbers", "expected a .npy file")
    if not (np.abs(values) < FARTHEST).all():
        raise InputError(f"{path}: holds NaN or other values that are no labels", "copy or download the file again")
    return values.astype(np.float64)


def _refuse_larger(file: BinaryIO, size: int) -> None:
    """Raise a ValueError where the header speaks of more than the file holds, for which memory would be taken."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"its header says {shape} of {dtype}, more than its {size:,} bytes")
    file.seek(0)


def _in_order(path: Path, values: NDArray[np.float64], names: Sequence[str]) -> NDArray[np.float64]:
    if len(values) != len(names):
        raise InputError(
            f"{path}: labels of {len(values):,} images, but the dataset has {len(names):,}",
            "the file is in the order of the sorted file names, so it needs the whole dataset",
        )
    ranks = np.argsort(np.argsort(np.array(names, dtype=np.str_)))
    return values[ranks]


def _read_t7_folder(folder: Path, names: Sequence[str]) -> NDArray[np.float32]:
    files = {file.stem: file for file in sorted(folder.rglob("*")) if file.suffix.lower() == ".t7"}
    stems = [PurePosixPath(name).stem for name in names]
    missing = [stem for stem in stems if stem not in files]
    if missing:
        raise InputError(
            f"{folder}: no .t7 file for {len(missing):,} of {len(names):,} images, such as {missing[0]}",
            "expected one for every image, named like it",
        )
    return np.stack([read_t7(files[stem]) for stem in stems])
