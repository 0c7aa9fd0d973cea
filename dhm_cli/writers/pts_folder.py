"""A folder of .pts files, one a face, in the layout of 300-W, with a table `faces.csv` that says whose they are."""

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from dhm_cli.errors import InputError
from dhm_cli.inference.columns import Layout
from dhm_cli.io.pts import pts_text
from dhm_cli.runtime.hashing import short_hash
from dhm_cli.writers.built_files import BuiltFile, Records, remove

# Beside the .pts files: all rows, each with the name of its file.
INDEX = "faces.csv"
# Bytes of a name; file systems take 255.
_LONGEST = 250


class PtsFolder(BuiltFile):
    """The folder being written, a `Writer`; see `BuiltFile`.

    Args:
        out: the folder. What it holds is replaced where this class has written all of it.
        layout: what is written of each face; it must have the landmarks.
        resume: keep the photos that an interrupted run has finished.

    Raises:
        InputError: the folder holds files of others, or there are no landmarks; see also `RowFile`.
    """

    def __init__(self, out: Path, layout: Layout, resume: bool) -> None:
        if "landmarks" not in layout.names:
            raise InputError(f"{out}: .pts files hold landmarks only", "name landmarks in --columns")
        _check_ours(out)
        super().__init__(out, layout, resume, build_pts)
        self._old = self.out.with_name(f".{self.out.name}.old")

    def _give_name(self) -> None:
        remove(self._old)  # of a killed run
        if self.out.exists():
            _check_ours(self.out)
            self.out.rename(self._old)
        self._whole.rename(self.out)
        remove(self._old)
        self.partial.unlink()


def _check_ours(folder: Path) -> None:
    """Refuse a folder with files that `build_pts` did not write."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is no folder", "choose another --out")
    listed = {INDEX, *(row["file"] for row in read_index(folder))} if (folder / INDEX).is_file() else set()
    for parent, _, files in os.walk(folder):
        for name in files:
            file = Path(parent, name).relative_to(folder)
            if file.as_posix() not in listed:
                raise InputError(
                    f"{folder}: holds {file}, which dhm did not write", "choose another --out, or move that away"
                )


def read_index(folder: Path) -> list[dict[str, str]]:
    """The rows of a folder's index: path, face, status, file, and what else tells photos apart.

    Raises:
        InputError: it cannot be read, or is none.
    """
    path = folder / INDEX
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read: {error}", "choose another folder") from error
    if any(row.get(name) is None for row in rows for name in ("path", "status", "file")):
        raise InputError(f"{path}: not an index of .pts files", "choose another folder")
    return rows


def build_pts(records: Records, folder: Path) -> None:
    """Write the folder: a file for each face, in the folder structure of the photos.

    `a.jpg` gives `a.pts`, and for its further faces `a_1.pts` and so on; of a video, `a.mp4` gives `a_000120_0.pts`
    for track 0 in frame 120.
    """
    keys = [key.name for key in records.layout.keys]
    names = _names(records)
    folder.mkdir()
    made = {folder}
    with (folder / INDEX).open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        index = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        index.writerow([*keys, "face", "status", "file"])
        for record in records:
            name = "" if record["face"] is None else next(names)
            index.writerow([*(record[key] for key in (*keys, "face", "status")), name])
            if name:
                target = folder / name
                if target.parent not in made:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    made.add(target.parent)
                target.write_text(pts_text(record["landmarks"]), encoding="ascii")


def _names(records: Records) -> Iterator[str]:
    """The file of each face, below the folder, with forward slashes."""
    numbers = [key.name for key in records.layout.keys if key.kind is int]  # such as that of a frame
    places = {path: os.path.abspath(path) for path in {str(record["path"]) for record in records}}
    root = _common_folder(list(places.values()))
    stems = Counter(os.path.splitext(place)[0] for place in places.values())
    taken: set[str] = set()
    for record in records:
        if record["face"] is None:
            continue
        place = places[record["path"]]
        stem = os.path.splitext(place)[0]
        parent, name = os.path.split(stem if stems[stem] == 1 else place)  # a.jpg beside a.png: a.jpg.pts
        name += "".join(f"_{record[number]:06}" for number in numbers)
        face = record["face"] if record.get("track") is None else f"{record['track']}"
        name += f"_{face}" if face else ""
        if len(os.fsencode(name)) > _LONGEST:
            name = short_hash(os.fsencode(name))
        whole = os.path.join(os.path.relpath(parent, root), name)
        while whole in taken:
            whole += "_"
        taken.add(whole)
        yield Path(whole + ".pts").as_posix()


def _common_folder(places: Sequence[str]) -> str:
    """The deepest folder that holds all files."""
    try:
        return os.path.commonpath([os.path.dirname(place) for place in places])
    except ValueError as error:
        raise InputError(
            "the photos lie on several drives, so their .pts files cannot go to one folder",
            hint="align each drive's photos in a run of their own",
        ) from error
