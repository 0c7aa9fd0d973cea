"""Files that appear whole or not at all."""

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dhm_cli.runtime.hashing import short_hash
from dhm_cli.runtime.outputs import is_stream, open_stream

# Bytes of a name that leave room for what `_partial` adds; file systems take 255.
_LONGEST = 220


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """Write a file beside its place and move it there when all went well.

    Args:
        path: the final file; its folder is made. An older file is replaced in one step; a link is followed, so that
            what it names is replaced. What is written for a pipe, a device or standard output (`-`) goes into it as a
            whole at the end.

    Yields:
        The path to write to. When the block raises, it is removed and `path` is left as it was.
    """
    if is_stream(path):
        with tempfile.TemporaryDirectory(prefix="dhm-") as folder:
            whole = Path(folder) / "output"
            yield whole
            with whole.open("rb") as source, open_stream(path) as stream:
                shutil.copyfileobj(source, stream)
        return
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    partial = _partial(target, os.getpid())
    try:
        yield partial
        move_into_place(partial, target)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)  # a full disk names no file
        raise
    finally:
        partial.unlink(missing_ok=True)


def move_into_place(partial: Path, target: Path) -> None:
    """Give a whole file its name, in one step that a power cut cannot halve.

    Args:
        partial: the file, on the same disk as `target`.
        target: its name from now on; an older file is replaced.
    """
    with partial.open("rb") as file:
        os.fsync(file.fileno())  # or a power cut could leave the new name with old blocks
    os.replace(partial, target)


def _partial(target: Path, process: int) -> Path:
    """A hidden name of one process: two that write one file must not mix, and no file of others has such a name."""
    return target.with_name(f".{_stem(target)}.{process}.partial")


def _stem(target: Path) -> str:
    """The file's name, or where that is nearly as long as a file system takes, a name of its own."""
    return target.name if len(os.fsencode(target.name)) <= _LONGEST else short_hash(os.fsencode(target.name))


def _remove_leftovers(target: Path) -> None:
    """Remove what killed processes left of this file."""
    stem = _stem(target)
    for found in target.parent.glob(f".{glob.escape(stem)}.*.partial"):
        process = found.name.removeprefix(f".{stem}.").removesuffix(".partial")
        if process.isdecimal() and not _is_running(int(process)):
            found.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True
