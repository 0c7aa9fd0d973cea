"""Which photos a user means: files and folders by name."""

import glob
import os
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dhm_cli.errors import InputError
from dhm_cli.io.heic import reads_heic
from dhm_cli.io.images import EXTENSIONS, HEIC_EXTENSIONS
from dhm_cli.io.packed import is_pack
from dhm_cli.io.photo_lists import COLUMN, STDIN, read_list
from dhm_cli.io.remote import find_urls, is_url
from dhm_cli.io.rows import READERS
from dhm_cli.io.video import VIDEO_EXTENSIONS

_CHECK_PATH = "check the name and the permissions"


@dataclass
class FoundPhotos:
    """Photos among files and folders.

    Attributes:
        photos: each once, in the order in which they were named; those of a folder sorted by name. Files of this
            machine are paths, addresses (`io.remote`) are text; packs (`io.packed`) stand among them as they are.
        problems: folders below the named ones that could not be searched, each with the reason.
        not_read: how many files the folders hold of each kind that is not read here, by suffix.
    """

    photos: list[Path | str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    not_read: Counter[str] = field(default_factory=Counter)


def find_photos(
    paths: Iterable[str | os.PathLike[str]], lists: Iterable[str | os.PathLike[str]] = (), column: str = COLUMN
) -> FoundPhotos:
    """List the photos among files, folders, patterns and lists.

    A folder is searched recursively for `EXTENSIONS` in any case, and for `HEIC_EXTENSIONS` where they can be read;
    hidden files and folders (`._x.jpg`, `.thumbnails`) are skipped and linked folders are not entered. A file named
    outright is taken whatever its name. A pattern such as `photos/**/*.jpg` is filled in as a shell would.

    Args:
        paths: files, folders and patterns, also as addresses (`remote.find_urls`); `-` for paths on standard input.
        lists: files that name photos and folders, see `photo_lists.read_list`. A file that is not there is taken all
            the same, and a folder that cannot be used is noted, so that each costs itself only.
        column: of the paths in a list that is a table.

    Returns:
        The photos, paths below a folder beginning with that folder as given, and what was passed over.

    Raises:
        InputError: a path does not exist, a pattern fits nothing, a list cannot be read, or a folder of them cannot be
            searched or holds no photo.
    """
    found, known = FoundPhotos(), set[str]()

    def add(photos: Iterable[Path | str]) -> None:
        for photo in photos:
            place = os.path.abspath(photo) if isinstance(photo, Path) else photo
            if place not in known:
                known.add(place)
                found.photos.append(photo)

    def add_list(file: Path) -> None:
        for path in read_list(file, column):
            try:
                add(_photos_in(path, found) if isinstance(path, Path) and path.is_dir() else [path])
            except InputError as error:
                found.problems.append(error.message)

    for name in paths:
        if isinstance(name, str) and is_url(name):
            add(find_urls(name, _endings()[0]))
            continue
        path = Path(name)
        if path == STDIN:
            add_list(path)
            continue
        for match in _matches(path):
            add(_photos_in(match, found) if _is_folder(match) else [match])
    for file in map(Path, lists):
        add_list(file)
    return found


def _matches(path: Path) -> list[Path]:
    """What a pattern stands for; a path that is none, or that is there, for itself."""
    if not glob.has_magic(str(path)) or os.path.lexists(path):
        return [path]
    whole = sorted(map(Path, glob.iglob(str(path), recursive=True)))
    matches = [match for match in whole if not match.is_dir()] if "**" in path.parts else whole
    if not matches:
        raise InputError(f"{path}: no file fits this pattern", hint=_hint(str(path)))
    return matches


def _photos_in(folder: Path, found: FoundPhotos) -> list[Path]:
    photos: list[Path] = []
    to_search, problems = [folder], len(found.problems)
    read, unread = _endings()
    while to_search:
        parent = to_search.pop()
        try:
            with os.scandir(parent) as listing:
                entries = [entry for entry in listing if not entry.name.startswith(".")]
            to_search += [parent / entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
            names = [entry.name for entry in entries if not entry.is_dir()]
        except OSError as error:  # no permission, or deeper than the system can name
            found.problems.append(f"{parent}: cannot be searched: {error.strerror or error}")
            continue
        photos += [parent / name for name in names if name.lower().endswith(read)]
        found.not_read.update(suffix for name in names if (suffix := Path(name).suffix.lower()) in unread)
    if photos:
        return sorted(photos)
    if len(found.problems) > problems:
        raise InputError(found.problems[problems], hint=_CHECK_PATH)
    others = f"; {', '.join(sorted(found.not_read))} need the extra [heic]" if found.not_read else ""
    raise InputError(f"{folder}: no photos in this folder", hint=f"looked for {' '.join(read)}{others}")


def _endings() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The endings of photos that can be read here, and of those that an extra would read."""
    return (EXTENSIONS + HEIC_EXTENSIONS, ()) if reads_heic() else (EXTENSIONS, HEIC_EXTENSIONS)


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path}: no such file or folder", hint=_hint(str(path))) from error
    except OSError as error:  # no permission, a name that is too long, a circle of links
        raise InputError(f"{path}: cannot be read: {error.strerror or error}", hint=_CHECK_PATH) from error


def _hint(name: str) -> str:
    """What a user may have meant by a name that is not there."""
    if "://" in name or name.startswith(("http:/", "https:/", "s3:/", "gs:/")):  # a path loses one of two slashes
        return "give an address as text, with two slashes behind the colon"
    if any(sign in name for sign in "*?["):
        return "* stands for any letters but /, ** for any folders; or name the folder"
    return "check the spelling; a name with spaces needs quotes"


def list_hint(path: Path) -> str:
    """What to do with a file that looks like a list of photos; empty for any other."""
    is_list = path.suffix.lower() in (".txt", *READERS) and not is_pack(path)
    return f"a list of photos is named with --from {path}" if is_list else ""


def video_hint(path: Path) -> str:
    """What to do with a file that looks like a video; empty for any other."""
    if path.suffix.lower() not in VIDEO_EXTENSIONS:
        return ""
    return "a video is aligned alone: name no other file with it"
