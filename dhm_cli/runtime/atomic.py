"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def partial_path(path: Path) -> Path:
    """Where the content of a file lies until it is whole."""
    return path.with_name(path.name + ".partial")


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """Write a file beside its place and move it there when all went well.

    Args:
        path: the final file; its folder is made. An older file is replaced in one step.

    Yields:
        The path to write to. When the block raises, it is removed and `path` is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name with old blocks
        os.replace(partial, path)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)  # a full disk names no file
        raise
    finally:
        partial.unlink(missing_ok=True)
