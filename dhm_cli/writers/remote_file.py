"""Outputs elsewhere, in an object store say: made in a folder of this machine, and copied when they are whole."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from dhm_cli.errors import InputError
from dhm_cli.inference.aligner import Face
from dhm_cli.inference.columns import Identity
from dhm_cli.inference.results import PhotoResult
from dhm_cli.io.remote import check_upload, upload


class RemoteFile:
    """An output at an address, a `Writer`; an interrupted run leaves nothing there, and cannot be resumed.

    Args:
        out: the address of a file.
        resume: refused.
        force: replace what is there.
        open_here: opens the writer of a file of this machine, by its name.

    Raises:
        InputError: `resume` is set, or the address cannot be written to or is taken.
    """

    def __init__(self, out: str, resume: bool, force: bool, open_here: Callable[[Path], Any]) -> None:
        if resume:
            raise InputError(
                f"{out}: a run that writes elsewhere cannot be resumed",
                "write to a file of this machine, and copy it; or leave out --resume",
            )
        if out.endswith("/"):
            raise InputError(f"{out}: a folder elsewhere cannot be written", "name a file such as faces.parquet")
        check_upload(out, force)
        self._out, self.finished = out, dict[Identity, PhotoResult]()
        self._folder = Path(tempfile.mkdtemp(prefix="dhm-"))
        self._file = self._folder / PurePosixPath(out).name
        try:
            self._writer = open_here(self._file)
        except BaseException:
            shutil.rmtree(self._folder)
            raise

    def keep(self, count: int) -> None:
        """Nothing is kept."""

    def write(self, result: PhotoResult, faces: Sequence[Face]) -> None:
        """Add a photo."""
        self._writer.write(result, faces)

    def complete(self) -> None:
        """Do all but the copying."""
        self._writer.complete()

    def finish(self) -> None:
        """Copy the output to its address, where it appears at once as far as the store can do that.

        Raises:
            InputError: that is impossible; then the output stays here.
        """
        self._writer.finish()
        try:
            upload(self._file, self._out)
        except InputError as error:
            raise InputError(error.message, f"the whole output is in {self._file}; {error.hint}") from error
        self._file.unlink()

    def close(self) -> None:
        """End the writing; a whole output that could not be copied stays."""
        self._writer.close()
        if not self._file.exists():
            shutil.rmtree(self._folder, ignore_errors=True)
