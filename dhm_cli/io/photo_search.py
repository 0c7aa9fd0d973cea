"""Which photos a user means: files and folders by name."""

import os
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dhm_cli.errors import InputError
from dhm_cli.io.images import EXTENSIONS
from dhm_cli.io.video import VIDEO_EXTENSIONS

# Pictures that lie beside photos and are left out, since OpenCV reads them nowhere or not everywhere.
NOT_READ = (".heic", ".heif", ".avif", ".gif")
_CHECK_PATH = "check the name and the permissions"


@dataclass
class FoundPhotos:
    """Photos among files and folders.

    Attributes:
        photos: each once, in the order in which they were named; those of a folder sorted by name.
        problems: folders below the named ones that could not be searched, each with the reason.
        not_read: how many files of each kind of `NOT_READ` the folders hold, by suffix.
    """

    photos: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    not_read: Counter[str] = field(default_factory=Counter)


def find_photos(paths: Iterable[str | os.PathLike[str]]) -> FoundPhotos:
    """List the photos among files and folders.

    A folder is searched recursively for `EXTENSIONS` in any case; hidden files and folders (`._x.jpg`, `.thumbnails`)
    are skipped and linked folders are not entered. A file named outright is taken whatever its name.

    Args:
        paths: files and folders.

    Returns:
        The photos, paths below a folder beginning with that folder as given, and what was passed over.

    Raises:
        InputError: a path does not exist, or a folder of it cannot be searched or holds no photo.
    """
    found, known = FoundPhotos(), set()
    for path in map(Path, paths):
        for photo in _photos_in(path, found) if _is_folder(path) else [path]:
            place = os.path.abspath(photo)
            if place not in known:
                known.add(place)
                found.photos.append(photo)
    return found


def _photos_in(folder: Path, found: FoundPhotos) -> list[Path]:
    photos: list[Path] = []
    to_search, problems = [folder], len(found.problems)
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
        photos += [parent / name for name in names if name.lower().endswith(EXTENSIONS)]
        found.not_read.update(suffix for name in names if (suffix := Path(name).suffix.lower()) in NOT_READ)
    if photos:
        return sorted(photos)
    if len(found.problems) > problems:
        raise InputError(found.problems[problems], hint=_CHECK_PATH)
    others = f"; {', '.join(sorted(found.not_read))} are not read" if found.not_read else ""
    raise InputError(f"{folder}: no photos in this folder", hint=f"looked for {' '.join(EXTENSIONS)}{others}")


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
        return "dhm reads files of this machine only: download it first"
    if any(sign in name for sign in "*?["):
        return "the shell fills in patterns such as *.jpg only where they are not in quotes; or name the folder"
    return "check the spelling; a name with spaces needs quotes"


def video_hint(path: Path) -> str:
    """What to do with a file that looks like a video; empty for any other."""
    if path.suffix.lower() not in VIDEO_EXTENSIONS:
        return ""
    return "dhm reads photos: take frames out of the video first, such as with ffmpeg -i VIDEO frames/%06d.jpg"
