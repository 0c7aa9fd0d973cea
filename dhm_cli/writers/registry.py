"""What `dhm align` can write. A new kind of output is a file with a `Writer`, and a line of `WRITERS`."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple, Protocol

from dhm_cli.errors import InputError
from dhm_cli.inference.aligner import Face
from dhm_cli.inference.columns import Identity, Layout
from dhm_cli.inference.results import PhotoResult, partial_path
from dhm_cli.io.remote import is_url
from dhm_cli.runtime.atomic import written_atomically
from dhm_cli.runtime.outputs import check_output, is_stream
from dhm_cli.writers.built_files import BuiltFile
from dhm_cli.writers.face_page import ENDING, FacePage, PageLines
from dhm_cli.writers.json_lines import JsonLines
from dhm_cli.writers.json_list import build_json, is_json
from dhm_cli.writers.landmark_csv import Csv
from dhm_cli.writers.npz_arrays import build_npz, is_npz
from dhm_cli.writers.parquet_table import is_parquet, open_parquet
from dhm_cli.writers.pts_folder import PtsFolder
from dhm_cli.writers.remote_file import RemoteFile
from dhm_cli.writers.row_files import Encoding, RowFile, RowStream


class Writer(Protocol):
    """An output being written, photo by photo; opened with its path, its layout and whether an interrupted run goes on.

    Until `finish`, what is written lies in `results.partial_path`, where the next run finds it. Opening refuses,
    with an InputError, a path that cannot be written, and an interrupted run that is not to go on and would be lost.
    """

    @property
    def finished(self) -> Mapping[Identity, PhotoResult]:
        """What became of the photos that are kept from an interrupted run, in their order."""
        ...

    def keep(self, count: int) -> None:
        """Keep only the first so many of the `finished` photos."""
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

    def complete(self) -> None:
        """Do all that is left but `finish`, which then cannot take long.

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


Opener = Callable[[Path, Layout, bool], Writer]


class Kind(NamedTuple):
    """One kind of output: how it is opened as a file and, where it can be one, as a stream, with the path, the layout
    and whether to go on with an interrupted run; and whether an existing file is of it.
    """

    open: Opener
    stream: Opener | None
    is_ours: Callable[[Path], bool]


def _rows(encoding: Encoding) -> Kind:
    return Kind(partial(RowFile, encoding=encoding), partial(RowStream, encoding=encoding), encoding.is_ours)


# By the ending of the output's name, in lower case.
WRITERS: dict[str, Kind] = {
    ".csv": _rows(Csv()),
    ".jsonl": _rows(JsonLines()),
    ".json": Kind(partial(BuiltFile, build=build_json), None, is_json),
    ".parquet": Kind(open_parquet, None, is_parquet),
    ".npz": Kind(partial(BuiltFile, build=build_npz), None, is_npz),
    ENDING: Kind(FacePage, None, PageLines().is_ours),
}
# What can go into a stream, by the name in `--format`.
STREAMS = {ending.removeprefix("."): kind.stream for ending, kind in WRITERS.items() if kind.stream}


def open_writer(
    out: str | os.PathLike[str],
    layout: Layout | None = None,
    resume: bool = False,
    inputs: Iterable[Path] = (),
    force: bool = False,
    stream: str | None = None,
) -> Writer:
    """Open the writer of an output.

    Args:
        out: the output; its ending says of which kind it is, and a slash at its end that it is a folder of .pts files.
            A file may be an address (`io.remote`).
            Standard output (`-`), pipes and devices get what `stream` says, or their ending, or CSV.
        layout: what is written of each face; None for the default columns.
        resume: go on with an interrupted run, where there is one.
        inputs: what is read, and so must not be written.
        force: replace a file that dhm did not write; elsewhere, any.
        stream: a name of `STREAMS`, or None.

    Raises:
        InputError: an ending that is not in `WRITERS`, an output that would destroy something; see also `Writer`.
    """
    layout, path = layout or Layout(), Path(out)
    if is_url(out):
        return RemoteFile(os.fspath(out), resume, force, lambda file: open_writer(file, layout))
    if is_stream(path):
        ending = path.suffix.lower().removeprefix(".")
        return STREAMS[stream or (ending if ending in STREAMS else "csv")](path, layout, resume)
    if os.fspath(out).endswith(("/", os.sep)):
        return PtsFolder(path, layout, resume)
    kind = next((kind for ending, kind in WRITERS.items() if path.name.lower().endswith(ending)), None)
    if kind is None:
        raise InputError(f"{out}: no such kind of output", _hint(path))
    check_output(path, "--out", "an output of dhm align", kind.is_ours, inputs, force)
    return kind.open(path, layout, resume)


def _hint(path: Path) -> str:
    if path.is_dir() or path.suffix.lower() == ".pts":
        return f"for a folder of .pts files, a file each face, end its name in a slash: --out {path.with_suffix('')}/"
    return f"name a file that ends in {', '.join(WRITERS)}, a folder of .pts files, as in points/, or -"


class Outputs:
    """Several outputs of one run, a `Writer`: an interrupted run goes on after the last photo that all of them have.

    A run that is killed while it gives the outputs their names has finished some of them. A note beside the first one
    says so, and a resumed run does the others alone.

    Args:
        outs: at least one; see `open_writer`, also for the other arguments.

    Raises:
        InputError: see `open_writer`; or one is named twice, or some have photos of an interrupted run and others none.
    """

    def __init__(
        self,
        outs: Sequence[str | os.PathLike[str]],
        layout: Layout | None = None,
        resume: bool = False,
        inputs: Sequence[Path] = (),
        force: bool = False,
        stream: str | None = None,
    ) -> None:
        self._writers: list[Writer] = []
        here = [out for out in outs if not is_url(out)]
        files = [Path(os.path.realpath(out)) for out in here if not is_stream(Path(out))]
        _check_names(here, files, stream, len(here) < len(outs))
        new = [file for file in files if not partial_path(file).exists()]
        self._note = _Note(files)
        done = new if resume and len(new) < len(files) and self._note.is_there() else []
        try:
            for out in outs:
                if not is_stream(Path(out)) and Path(os.path.realpath(out)) in done:
                    continue
                self._writers.append(open_writer(out, layout, resume, inputs, force, stream))
            orders = [list(writer.finished) for writer in self._writers]
            if not done:
                self._note.remove()  # of an older run
            if new and not done and any(orders):
                going_on = " ".join(f"--out {out}" for out, order in zip(outs, orders, strict=True) if order)
                raise InputError(
                    f"{new[0]}: is no output of the interrupted run, or was finished by it",
                    f"go on with {going_on} alone, or delete their .partial files to start anew",
                )
            same = list(takewhile(lambda photos: len(set(photos)) == 1, zip(*orders, strict=False)))
            self.keep(len(same))
        except BaseException:
            self.close()
            raise

    @property
    def finished(self) -> Mapping[Identity, PhotoResult]:
        """What became of the photos that all outputs keep."""
        return self._writers[0].finished

    def keep(self, count: int) -> None:
        """Keep only the first so many photos in all outputs."""
        for writer in self._writers:
            writer.keep(count)

    def write(self, result: PhotoResult, faces: Sequence[Face]) -> None:
        """Add a photo to all outputs."""
        for writer in self._writers:
            writer.write(result, faces)

    def complete(self) -> None:
        """Do all that takes long."""
        for writer in self._writers:
            writer.complete()

    def finish(self) -> None:
        """Give all outputs their names, when all of them are whole."""
        self.complete()
        self._note.write()
        for writer in self._writers:
            writer.finish()
        self._note.remove()

    def close(self) -> None:
        """End the writing of all outputs."""
        for writer in self._writers:
            writer.close()


class _Note:
    """The note that all outputs of a run are whole and get their names: those without a partial file have theirs.

    Args:
        files: the outputs; of one alone, there is no note.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        first = partial_path(files[0]) if len(files) > 1 else None
        self._path = None if first is None else first.with_name(f".{first.name}-whole")
        self._text = json.dumps([str(file) for file in files])

    def is_there(self) -> bool:
        """Whether there is one, of a run with these outputs."""
        try:
            return self._path is not None and self._path.read_text(encoding="ascii") == self._text
        except (OSError, UnicodeError):
            return False

    def write(self) -> None:
        """Leave it.

        Raises:
            InputError: it cannot be written.
        """
        if self._path is None:
            return
        try:
            with written_atomically(self._path) as partial:
                partial.write_text(self._text, encoding="ascii")
        except OSError as error:
            raise InputError(
                f"{self._path}: cannot be written: {error.strerror or error}", "make room, then go on with --resume"
            ) from error

    def remove(self) -> None:
        """Remove it."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


def _check_names(
    outs: Sequence[str | os.PathLike[str]], files: Sequence[Path], stream: str | None, others: bool
) -> None:
    if not outs and not others:
        raise InputError("--out: no output is named", "name a file, such as landmarks.csv")
    if stream is not None and (stream not in STREAMS or len(files) == len(outs)):
        raise InputError(
            f"--format {stream}: is for --out -, one of {' or '.join(STREAMS)}", "files are written as their names end"
        )
    names = [*files, *(Path(out) for out in outs if is_stream(Path(out)))]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"--out {twice}: is named twice", "name each output once")
