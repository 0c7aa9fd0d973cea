"""One process at a time: locks that the system releases when their process ends, however it ends."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from dhm_cli.errors import InputError


def claim(file: Path, problem: str, hint: str) -> IO[str]:
    """Keep other processes from what a lock file stands for, until the returned file is closed or this process ends.

    Windows has no such locks; there nothing is kept out.

    Args:
        file: the lock file; made with its folder when missing, left behind empty.
        problem: what the other process does, for the error.
        hint: what to do then.

    Raises:
        InputError: another process holds the lock.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = file.open("w")
    if sys.platform == "win32":
        return lock
    import fcntl

    try:
        # A record lock, which worker processes do not inherit: they may outlive a killed run by seconds.
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        lock.close()
        raise InputError(problem, hint) from error
    if not file.exists() or not os.path.samestat(os.fstat(lock.fileno()), file.stat()):
        lock.close()  # another process has released and removed it since it was opened
        return claim(file, problem, hint)
    return lock


@contextmanager
def claimed(file: Path, problem: str, hint: str) -> Iterator[None]:
    """What `claim` keeps others from, for the length of a block; the lock file goes with it."""
    lock = claim(file, problem, hint)
    try:
        yield
    finally:
        release(lock)


def release(lock: IO[str]) -> None:
    """Give up a lock of `claim` and remove its file, which this process holds alone; a second time does nothing."""
    if lock.closed:
        return
    Path(lock.name).unlink(missing_ok=True)
    lock.close()
