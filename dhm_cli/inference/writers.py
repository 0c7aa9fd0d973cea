"""What `dhm align` can write. A new kind of output is a file with a `Writer`, and a line of `WRITERS`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from dhm_cli.inference.aligner import Face
from dhm_cli.inference.landmark_csv import LandmarkTable
from dhm_cli.inference.results import PhotoResult


class Writer(Protocol):
    """An output being written, photo by photo; opened with its path and with whether an interrupted run goes on.

    Until `finish`, what is written lies in `results.partial_path`, where the next run finds it. Opening refuses,
    with an InputError, a path that cannot be written, and an interrupted run that is not to go on and would be lost.
    """

    @property
    def finished(self) -> Mapping[str, PhotoResult]:
        """What became of the photos that are kept from an interrupted run, by path."""
        ...

    def write(self, result: PhotoResult, faces: Sequence[Face]) -> None:
        """Add a photo.

        Args:
            result: what became of it.
            faces: its faces, in order; `result.faces` of them.

        Raises:
            InputError: the output cannot be written.
        """
        ...

    def finish(self) -> None:
        """Give the whole output its name, replacing an older one in a single step.

        Raises:
            InputError: that is impossible.
        """
        ...

    def close(self) -> None:
        """End the writing, finished or not; what was written stays for the next run."""
        ...


# By the ending of the output's name, in lower case.
WRITERS: dict[str, Callable[[Path, bool], Writer]] = {".csv": LandmarkTable}


def open_writer(out: Path, resume: bool = False) -> Writer:
    """Open the writer of an output.

    Args:
        out: the output; a name with an ending that is not in `WRITERS` becomes a CSV table.
        resume: go on with an interrupted run, where there is one.

    Raises:
        InputError: see `Writer`.
    """
    kinds = (writer for ending, writer in WRITERS.items() if out.name.lower().endswith(ending))
    return next(kinds, LandmarkTable)(out, resume)
