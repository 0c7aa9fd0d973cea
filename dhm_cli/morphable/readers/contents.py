"""What is in a file or folder that may be a face model, seen without reading its numbers."""

import re
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from dhm_cli.errors import InputError
from dhm_cli.io.hdf5 import open_hdf5
from dhm_cli.io.matlab import mat_shapes

Kind = Literal["folder", "MATLAB", "HDF5", "zip", "Exp_Pca.bin", "other"]

_MAGIC = (
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"version https://git-lfs", "a Git LFS pointer instead of the file"),
    (b"<", "a web page"),
)


@dataclass(frozen=True)
class Contents:
    """What is in a file or folder.

    Attributes:
        path: the file or folder.
        kind: its container, whatever its name.
        names: of the fields of a MATLAB file, of the groups and datasets of an HDF5 file with their paths, of the
            arrays of a zip file, of the files in a folder; else none.
        description: the same in words, for messages.
    """

    path: Path
    kind: Kind
    names: frozenset[str]
    description: str

    def has_fields(self, *names: str) -> bool:
        """Whether this is a MATLAB or HDF5 file with these fields at its top."""
        return self.kind in ("MATLAB", "HDF5") and self.names.issuperset(names)


def look_into(path: Path) -> Contents:
    """See what is in a file or folder.

    Raises:
        InputError: a MATLAB or HDF5 file is damaged.
    """
    if path.is_dir():
        inside = [file.name for file in path.iterdir()]
        return Contents(path, "folder", frozenset(inside), some(inside))
    with path.open("rb") as file:
        start = file.read(256)
    if not start:
        return _other(path, "an empty file")
    if h5py.is_hdf5(path) and not start.startswith(b"MATLAB"):
        return _look_into_hdf5(path)
    if start.startswith(b"MATLAB") or path.suffix.lower() == ".mat":
        fields = frozenset(mat_shapes(path))
        return Contents(path, "MATLAB", fields, f"a MATLAB file with {some(fields)}")
    if zipfile.is_zipfile(path):
        return _look_into_zip(path)
    if path.suffix.lower() == ".bin" and expression_bin_modes(path):
        return Contents(path, "Exp_Pca.bin", frozenset(), f"{expression_bin_modes(path)} expression modes")
    return _other(path, _describe(path, start))


def expression_bin_modes(path: Path) -> int:
    """The number of modes of an Exp_Pca.bin, by its first number and its size; 0 for another file."""
    size = path.stat().st_size
    if size < 4:
        return 0
    modes = int(np.fromfile(path, dtype="<i4", count=1)[0])
    return modes if 0 < modes < 1000 and size > 4 and (size - 4) % (12 * (modes + 1)) == 0 else 0


def some(names: Collection[str]) -> str:
    """The first dozen of a set of names, for a message."""
    listed = sorted(names)
    return ", ".join(listed[:12]) + (f" and {len(listed) - 12} more" if len(listed) > 12 else "") or "nothing"


def _other(path: Path, description: str) -> Contents:
    return Contents(path, "other", frozenset(), description)


def _look_into_hdf5(path: Path) -> Contents:
    names: list[str] = []
    try:
        with open_hdf5(path) as file:
            top, own_kind = set(file), file.attrs.get("format")
            file.visit(names.append)
    except Exception as error:  # h5py raises half a dozen kinds on damaged files
        raise InputError(f"{path}: not a readable HDF5 file ({error})", "copy or download the file again") from error
    if own_kind is not None:
        return _other(path, f"an HDF5 file of the kind {own_kind}")
    return Contents(path, "HDF5", frozenset([*top, *names]), f"an HDF5 file with {some(top)}")


def _look_into_zip(path: Path) -> Contents:
    try:
        with zipfile.ZipFile(path) as archive:
            names = frozenset(name.removesuffix(".npy") for name in archive.namelist())
    except zipfile.BadZipFile:
        return _other(path, "a damaged zip file")
    return Contents(path, "zip", names, f"a zip file with {some(names)}")


def _describe(path: Path, start: bytes) -> str:
    """What a foreign file is, by its first bytes."""
    for magic, name in _MAGIC:
        if start.startswith(magic):
            return name
    if re.match(rb'.{8}\{"', start, re.DOTALL):
        return "network weights (safetensors)"
    return f"a file {path.suffix or 'without suffix'} that is neither MATLAB, HDF5 nor .npz"
