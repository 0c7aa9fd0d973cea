"""The video with its landmarks drawn: written in parts that an interrupted run keeps, joined at the end."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.inference.aligner import Face
from dhm_cli.inference.results import partial_path
from dhm_cli.io.h264 import VideoFile, is_drawn, join_parts
from dhm_cli.runtime.atomic import written_atomically
from dhm_cli.runtime.outputs import check_output, is_stream
from dhm_cli.writers.overlays import check_parts, draw

_PART = "{:06d}.mp4"


class DrawnVideo:
    """An MP4 of the frames with their faces drawn. Its parts lie in a folder beside it until it is whole.

    Args:
        path: the video, replaced at the very end.
        rate: frames per second, about.
        draw: what to draw, names of `heads.PARTS`.
        inputs: what is read, and so must not be written.
        force: replace a file that dhm did not write.

    Raises:
        InputError: the path is taken, or cannot be written.
    """

    def __init__(self, path: Path, rate: float, draw: Sequence[str], inputs: Iterable[Path], force: bool) -> None:
        self._draw = check_parts(draw)
        if path.suffix.lower() != ".mp4" or is_stream(path):
            raise InputError(f"--overlay {path}: of a video it is a video", "name a file that ends in .mp4")
        check_output(path, "--overlay", "a video drawn by dhm", is_drawn, inputs, force)
        self._path, self._rate = path, rate
        self._folder = partial_path(path)
        self._file: VideoFile | None = None
        self._image: NDArray[np.uint8] | None = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._problem(error) from error
        self.parts = self._kept()

    def _kept(self) -> int:
        """How many parts an interrupted run has finished."""
        return next(number for number in range(10**6) if not self._part(number).exists())

    def _part(self, number: int) -> Path:
        return self._folder / _PART.format(number)

    def keep(self, parts: int) -> None:
        """Go on behind the first so many parts of an interrupted run."""
        for number in range(parts, self._kept()):
            self._part(number).unlink()
        self.parts = parts

    def write(self, image: NDArray[np.uint8] | None, time: float, faces: Sequence[Face]) -> None:
        """Add a frame; in place of a damaged one the frame before stays.

        Raises:
            InputError: the file cannot be written.
        """
        if image is not None:
            self._image = draw(image, faces, self._draw)
        if self._image is None:
            return
        try:
            if self._file is None:
                self._file = VideoFile(self._folder / "unfinished", self._rate)
            self._file.write(self._image, time)
        except OSError as error:
            raise self._problem(error) from error

    def end_part(self) -> None:
        """Finish a part, so that an interrupted run can go on from here."""
        if self._file is None:
            return
        try:
            self._file.close()
            (self._folder / "unfinished").replace(self._part(self.parts))
        except OSError as error:
            raise self._problem(error) from error
        finally:
            self._file = None
        self.parts += 1

    def finish(self) -> None:
        """Join the parts and give the video its name."""
        self.end_part()
        try:
            if self.parts:
                with written_atomically(self._path) as whole:
                    join_parts([self._part(number) for number in range(self.parts)], whole)
            self.keep(0)
            self._folder.rmdir()
        except OSError as error:
            raise self._problem(error) from error

    def close(self) -> None:
        """End the writing, finished or not; whole parts stay for the next run."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None
        (self._folder / "unfinished").unlink(missing_ok=True)
        with suppress(OSError):  # it holds parts, or is gone
            self._folder.rmdir()

    def _problem(self, error: OSError) -> InputError:
        return InputError(
            f"{self._path}: cannot be written: {error.strerror or error}",
            "make room or choose another --overlay, then go on with --resume",
        )
