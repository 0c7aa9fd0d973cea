"""Folders of a dataset: the images in them, the annotations beside these, and what there is to see."""

import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dhm_cli.errors import InputError
from dhm_cli.io.images import EXTENSIONS

# Names looked at when something lies anywhere below a folder.
_GLANCE = 5_000
# Characters of a path in a message.
_LONG = 120


class LabelledImage(NamedTuple):
    """An image below a folder: its `readable` path from there, the file, and the annotation of the same stem."""

    name: PurePosixPath
    image: Path
    annotation: Path | None


def readable(name: str) -> str:
    """A file's name as text that every file can hold: bytes that are not UTF-8 become escapes such as `\\xf6`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def split_suffix(name: str) -> tuple[str, str]:
    """Stem and suffix of a file's name, the suffix in lower case."""
    stem, suffix = os.path.splitext(name)
    return stem, suffix.lower()


def walk(folder: Path, unread: list[str] | None = None) -> Iterator[tuple[Path, list[str]]]:
    """All folders from the given one downwards, each with the names of its files, in order.

    Hidden files and folders are left out and linked folders are not entered.

    Args:
        folder: where to begin.
        unread: gets a sentence for each folder that cannot be read, such as one that is too deep or forbidden; the rest
            goes on. Without it such a folder is an error.

    Raises:
        InputError: see `unread`.
    """

    def note(error: OSError) -> None:
        problem = f"{_brief(str(error.filename))}: cannot be read: {error.strerror}"
        if unread is None:
            raise InputError(problem, "check the permissions") from error
        unread.append(problem)

    for parent, folders, files in os.walk(folder, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(parent), sorted(name for name in files if not name.startswith("."))


def _brief(path: str) -> str:
    """A path for a message: of one too long to be read its beginning and its end."""
    return path if len(path) <= _LONG else f"{path[: _LONG // 2]}…{path[-_LONG // 2 :]}"


def subfolders(folder: Path) -> list[Path]:
    """Folders right in a folder, sorted, without hidden ones and links; none where it must not be read."""
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith(".")]
    except OSError:
        return []
    return [folder / name for name in sorted(names)]


def files_in(folder: Path) -> list[str]:
    """Names of the files right in a folder, sorted, without hidden ones; none where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_file())
    except OSError:
        return []


def has_any_below(folder: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a file with one of the suffixes is among the first some thousand below a folder."""
    names = (name for _, files in walk(folder, []) for name in files)
    return any(split_suffix(name)[1] in suffixes for name in islice(names, _GLANCE))


def pairs(files: list[str], suffix: str) -> list[tuple[str, str | None]]:
    """Images among the files of one folder, each with the annotation of the same stem.

    Of several images with the stem of one annotation (`a.jpg`, `a.png`) the first kind in `EXTENSIONS` is taken: the
    others are copies, masks or overlays, and would count the face twice.

    Args:
        files: names.
        suffix: of the annotations, such as `.pts`; upper case on disk is found too.
    """
    kinds = [(*split_suffix(name), name) for name in files]
    annotations = {stem: name for stem, kind, name in kinds if kind == suffix}
    images = [(EXTENSIONS.index(kind), name, stem) for stem, kind, name in kinds if kind in EXTENSIONS]
    found: list[tuple[str, str | None]] = []
    taken: set[str] = set()
    for _, name, stem in sorted(images):
        if stem not in taken:
            found.append((name, annotations.get(stem)))
        if stem in annotations:
            taken.add(stem)
    return found


def is_paired(folder: Path, suffix: str) -> bool:
    """Whether an image lies beside an annotation of the same stem right in a folder."""
    return any(annotation for _, annotation in pairs(files_in(folder), suffix))


def labelled_images(folder: Path, suffix: str, unread: list[str] | None = None) -> Iterator[LabelledImage]:
    """All images below a folder with their annotations (`pairs`); `unread` as in `walk`.

    Raises:
        InputError: a folder cannot be read, unless there is a list of the `unread`.
    """
    for parent, files in walk(folder, unread):
        below = PurePosixPath(readable(parent.relative_to(folder).as_posix()))
        for image, annotation in pairs(files, suffix):
            yield LabelledImage(below / readable(image), parent / image, parent / annotation if annotation else None)


def survey(folder: Path) -> str:
    """What lies in a folder, for a message: files at any depth by suffix, and the folders right in it."""
    names = islice((name for _, files in walk(folder, []) for name in files), 100 * _GLANCE)
    kinds = Counter(split_suffix(name)[1] or "without suffix" for name in names)
    seen = [f"{count:,} {kind}" for kind, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))[:6]]
    folders = [path.name for path in subfolders(folder)]
    if folders:
        seen.append(f"folders {', '.join(folders[:8])}{', …' if len(folders) > 8 else ''}")
    return ", ".join(seen) or "nothing"
