"""Where a command may write: never over its inputs, nor over a file that it did not write itself.

Every output that a user names goes through `check_output` before the work begins, and at its end through
`atomic.written_atomically` or, row by row, `open_stream`.
"""

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from dhm_cli.errors import InputError

# The name of standard output.
STDOUT = Path("-")


def is_stream(path: Path) -> bool:
    """Whether what is written there goes on at once and cannot be taken back: standard output, a pipe, a device."""
    if path == STDOUT:
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@contextmanager
def open_stream(path: Path) -> Iterator[IO[bytes]]:
    """Open standard output, a pipe or a device for writing; standard output stays open afterwards.

    Args:
        path: for which `is_stream` holds.
    """
    if path == STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with path.open("wb") as stream:
        yield stream


def check_output(
    path: Path,
    option: str,
    what: str,
    is_ours: Callable[[Path], bool],
    inputs: Iterable[Path] = (),
    force: bool = False,
) -> None:
    """Refuse an output that would destroy something.

    Streams (`is_stream`) and names that are free pass, and so does an empty file, since there is nothing to lose.

    Args:
        path: the output as the user named it; a link stands for what it leads to.
        option: how the user named it, as in "--out".
        what: what the command writes, for the message, as in "a table of dhm align".
        is_ours: whether an existing file is of that kind, which may be replaced.
        inputs: what the command reads.
        force: replace a file of any kind, though never an input.

    Raises:
        InputError: `path` is a folder, one of the inputs, or a file of another kind.
    """
    if is_stream(path):
        return
    if path.is_dir():
        raise InputError(f"{path}: is a folder", f"name a file with {option}")
    try:
        status = path.stat()
    except OSError:
        return  # a free name, or one that the writing itself will complain of
    for file in inputs:
        if _is_same(status, file):
            raise InputError(f"{path}: is read by this command too", f"choose another {option}")
    if status.st_size and not force and not is_ours(path):
        raise InputError(
            f"{path}: exists and is not {what}", f"choose another {option}, or pass --force to replace the file"
        )


def _is_same(status: os.stat_result, file: Path) -> bool:
    try:
        return os.path.samestat(status, file.stat())
    except OSError:
        return False
