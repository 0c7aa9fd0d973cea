"""HDF5 files: written so that a full disk is an error and no crash, read without following anything out of the file."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import h5py

from dhm_cli.errors import DhmError, FormatError
from dhm_cli.runtime.atomic import written_atomically


@contextmanager
def new_hdf5(path: Path, expected: int = 0) -> Iterator[h5py.File]:
    """Write an HDF5 file atomically.

    Args:
        path: the file; its folder is made, an older file is replaced when all is written.
        expected: about how many bytes it will have; where less is free, nothing is begun.

    Yields:
        The file, to be filled.

    Raises:
        DhmError: the disk is full, or would be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if expected > free:
        raise _disk_full(path, f"it takes about {expected / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free")
    with written_atomically(path) as partial:
        with partial.open("w+b", buffering=0) as raw:
            disk = _Disk(raw)
            with h5py.File(disk, "w") as file:
                yield file
        if disk.problem is not None:
            if disk.problem.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _disk_full(path, str(disk.problem.strerror)) from disk.problem
            raise disk.problem


def _disk_full(path: Path, reason: str) -> DhmError:
    return DhmError(f"{path}: no room on the disk: {reason}", "make room, then run the same command again")


class _Disk:
    """A file for h5py that keeps the first error to itself, for HDF5 crashes when closing fails.

    Args:
        raw: an unbuffered file, readable and writable.

    Attributes:
        problem: the first error of a write; what came after it was thrown away.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        self.problem: OSError | None = None
        self._raw = raw

    def write(self, data: memoryview) -> int:
        """Write all of it, or note why not."""
        left = memoryview(data).cast("B")
        try:
            while len(left) and self.problem is None:
                left = left[self._raw.write(left) :]
        except OSError as error:
            self.problem = error
        return len(data)

    def truncate(self, size: int) -> int:
        """Set the length, or note why not."""
        try:
            if self.problem is None:
                os.truncate(self._raw.fileno(), size)
        except OSError as error:
            self.problem = error
        return size

    def read(self, size: int) -> bytes:
        """The next bytes; zeros stand in for what could not be written."""
        pieces = bytearray()
        while len(pieces) < size and (piece := self._raw.read(size - len(pieces))):
            pieces += piece
        return bytes(pieces.ljust(size, b"\0"))

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        """Where it is."""
        return self._raw.tell()

    def flush(self) -> None:
        """Nothing waits."""


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading, provided that all it holds lies inside it.

    A file from somebody else may have links to other files, or datasets whose bytes lie in other files, and would show
    what the sender could not read.

    Raises:
        FormatError: it refers to another file.
        OSError: it cannot be opened, or is damaged, as HDF5 says.
    """
    try:
        with h5py.File(path, "r") as file:
            try:
                found = file.visititems_links(lambda name, link: _outside(file, name, link))
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                raise OSError(f"damaged: {error}") from error
            if found is not None:
                raise FormatError(f"{path}: {found}", "ask its maker for a file that holds all its data")
            yield file
    except (RuntimeError, SystemError) as error:  # h5py's, where HDF5 stumbles over damaged bytes
        raise OSError(f"damaged: {error.__cause__ or error}") from error


def _outside(file: h5py.File, name: str, link: h5py.HardLink | h5py.SoftLink | h5py.ExternalLink) -> str | None:
    """How a member refers to another file, in words; None where it does not."""
    if isinstance(link, h5py.ExternalLink):
        return f"{name} lies in another file, {link.filename}"
    # A soft link leads to another member, which is looked at under its own name.
    item = file[name] if isinstance(link, h5py.HardLink) else None
    if isinstance(item, h5py.Dataset):
        if item.external:
            return f"the data of {name} lie in another file, {item.external[0][0]}"
        if item.is_virtual:
            return f"{name} is put together from other datasets"
    return None
