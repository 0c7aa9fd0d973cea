"""One process at a time: locks that the system releases when their process ends, however it ends."""

import sys
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
    return lock
