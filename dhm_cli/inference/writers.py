"""What `dhm align` can write. A new kind of output is a file with a `Writer`, and a line of `WRITERS`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from dhm_cli.errors import InputError
from dhm_cli.geometry.pose import Angles
from dhm_cli.inference.aligner import Face
from dhm_cli.inference.landmark_csv import LandmarkStream, LandmarkTable, is_table
from dhm_cli.inference.results import PhotoResult
from dhm_cli.runtime.outputs import check_output, is_stream


class Writer(Protocol):
    """An output being written, photo by photo; opened with its path, whether an interrupted run goes on, and angles.

    Until `finish`, what is written lies in `results.partial_path`, where the next run finds it. Opening refuses,
    with an InputError, a path that cannot be written, an interrupted run that is not to go on and would be lost, and
    one of other angles.
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


class Kind(NamedTuple):
    """One kind of output: how it is opened as a file and as a stream, and whether an existing file is of it."""

    open: Callable[[Path, bool, Angles], Writer]
    stream: Callable[[Path, bool, Angles], Writer]
    is_ours: Callable[[Path], bool]


# By the ending of the output's name, in lower case. The first is what streams get.
WRITERS: dict[str, Kind] = {".csv": Kind(LandmarkTable, LandmarkStream, is_table)}


def open_writer(
    out: Path,
    resume: bool = False,
    inputs: Iterable[Path] = (),
    force: bool = False,
    angles: Angles = "yaw-pitch-roll",
) -> Writer:
    """Open the writer of an output.

    Args:
        out: the output; its ending says of which kind it is. Standard output (`-`), pipes and devices get the first
            kind.
        resume: go on with an interrupted run, where there is one.
        inputs: what is read, and so must not be written.
        force: replace a file that dhm did not write.
        angles: of the head pose.

    Raises:
        InputError: an ending that is not in `WRITERS`, an output that would destroy something; see also `Writer`.
    """
    if is_stream(out):
        return next(iter(WRITERS.values())).stream(out, resume, angles)
    kind = next((kind for ending, kind in WRITERS.items() if out.name.lower().endswith(ending)), None)
    if kind is None:
        known = " or ".join(WRITERS)
        raise InputError(
            f"{out}: no such kind of output", f"name a file that ends in {known}, or - for standard output"
        )
    check_output(out, "--out", "a table of dhm align", kind.is_ours, inputs, force)
    return kind.open(out, resume, angles)
