"""A folder of files made of photos, such as overlays, crops and meshes: their names, and their writing."""

import errno
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dhm_cli.errors import InputError
from dhm_cli.runtime.atomic import written_atomically


class PhotoFolder:
    """Files of one kind, in the folder structure of their photos from the deepest folder that holds them all.

    All begin alike, so that a file of somebody else is known and left alone. Safe to use from several threads.

    Args:
        folder: where the files go.
        kind: what they are, in a word, as in "overlay".
        option: how the user names the folder, as in "--overlay".
        photos: the photos of which there will be files.
        ending: of their names, as in ".jpg".
        beginning: their first bytes.
        force: replace files of other kinds.

    Raises:
        InputError: a photo lies inside `folder`, so it might be taken for a file of ours and the other way round in the
            next run; the photos lie on several drives; `folder` is a file.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        option: str,
        photos: Sequence[Path],
        ending: str,
        beginning: bytes,
        force: bool = False,
    ) -> None:
        self._option, self._ending, self._beginning, self._force = option, ending, beginning, force
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is no folder", hint=f"choose another folder for {option}")
        _check_no_photo_in(folder, photos, f"{kind}s", option)
        places = {photo: os.path.abspath(photo) for photo in photos}
        try:
            root = os.path.commonpath([os.path.dirname(place) for place in places.values()])
        except ValueError as error:
            raise InputError(
                f"the photos lie on several drives, so their {kind}s cannot go to one folder",
                hint=f"align each drive's photos in a run of their own, or leave out {option}",
            ) from error
        names = _names([os.path.relpath(place, root) for place in places.values()])
        self._paths = {photo: folder / name for photo, name in zip(places, names, strict=True)}

    def path(self, photo: Path, face: int | str | None = None) -> Path:
        """Where the file of a photo goes, or that of one of its faces, by the face's number or name."""
        path = self._paths[photo]
        of_face = "" if face is None else f"_{face}"
        return path.with_name(f"{path.name.removesuffix('.jpg')}{of_face}{self._ending}")

    def write(self, path: Path, content: bytes) -> str:
        """Write a file; returns why that is impossible for this one, else ''.

        A link, a folder, and a file of another kind are left alone.

        Args:
            path: as `path` gives it.
            content: of the file, with our beginning.

        Raises:
            InputError: it cannot be written, and those of the next photos cannot either.
        """
        if path.is_symlink() or path.is_dir():
            return f"{path} is a {'link' if path.is_symlink() else 'folder'}, which is left alone"
        if path.exists() and not self._force and not self._is_ours(path):
            return f"{path} exists and is not made by {self._option} of dhm; --force replaces it"
        try:
            with written_atomically(path) as partial:
                partial.write_bytes(content)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return f"{path.name} is too long for a file name"
            if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
                return f"{path}: a file and a folder are in each other's way"
            raise InputError(
                f"{path}: cannot be written: {error.strerror or error}",
                hint=f"make room or choose another folder for {self._option}, then go on with --resume",
            ) from error
        return ""

    def _is_ours(self, path: Path) -> bool:
        try:
            with path.open("rb") as file:
                return file.read(len(self._beginning)) == self._beginning
        except OSError:
            return False


def _names(photos: Sequence[str]) -> list[str]:
    """A name for the file of each photo: `a.png` gives `a.jpg`; where that is not its own, `a.png.jpg` and so on."""
    simple = [os.path.splitext(name)[0] + ".jpg" for name in photos]
    count = Counter(map(os.path.normcase, simple))
    names, taken = [], set()
    for photo, name in zip(photos, simple, strict=True):
        if count[os.path.normcase(name)] > 1:
            name = photo if photo.endswith(".jpg") else f"{photo}.jpg"
        while os.path.normcase(name) in taken:
            name = f"{os.path.splitext(name)[0]}_.jpg"
        taken.add(os.path.normcase(name))
        names.append(name)
    return names


def _check_no_photo_in(folder: Path, photos: Sequence[Path], pictures: str, option: str) -> None:
    target = _real_folder(folder)
    parents = {parent: _real_folder(parent) for parent in {photo.parent for photo in photos}}
    for photo in photos:
        if parents[photo.parent].is_relative_to(target):
            raise InputError(
                f"{photo} lies in the folder for {pictures}, {folder}", hint=f"choose another folder for {option}"
            )


def _real_folder(folder: Path) -> Path:
    """The folder with links resolved and, where the system ignores case, in lower case."""
    return Path(os.path.normcase(os.path.realpath(folder)))
