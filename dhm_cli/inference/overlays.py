"""Copies of photos with their landmarks drawn: where they go, and drawing them."""

import errno
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.drawing.faces import draw_landmarks
from dhm_cli.errors import InputError
from dhm_cli.inference.aligner import Face
from dhm_cli.inference.results import reason_of
from dhm_cli.runtime.atomic import written_atomically

_QUALITY = 92
# A comment right behind the start of the JPEG, by which an overlay is known again.
_START, _NOTE = b"\xff\xd8", b"dhm overlay"
_MARK = b"\xff\xfe" + (len(_NOTE) + 2).to_bytes(2, "big") + _NOTE
# A JPEG holds no more.
_LONGEST_SIDE = 65_500


def overlay_paths(photos: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Where each photo's overlay goes: the photos' folder structure, from the deepest folder that holds them all.

    Args:
        photos: the photos.
        folder: the folder for overlays.

    Raises:
        InputError: a photo lies inside `folder`, so it might be taken for an overlay and an overlay for a photo in the
            next run; the photos lie on several drives; `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is no folder", hint="choose another folder for --overlay")
    _check_no_photo_in(folder, photos)
    places = {photo: os.path.abspath(photo) for photo in photos}
    try:
        root = os.path.commonpath([os.path.dirname(place) for place in places.values()])
    except ValueError as error:
        raise InputError(
            "the photos lie on several drives, so their overlays cannot go to one folder",
            hint="align each drive's photos in a run of their own, or leave out --overlay",
        ) from error
    names = _names([os.path.relpath(place, root) for place in places.values()])
    return {photo: folder / name for photo, name in zip(places, names, strict=True)}


def _names(photos: Sequence[str]) -> list[str]:
    """A name for the overlay of each photo: `a.png` gives `a.jpg`; where that is not its own, `a.png.jpg` and so on."""
    simple = [os.path.splitext(name)[0] + ".jpg" for name in photos]
    count = Counter(map(os.path.normcase, simple))
    names, taken = [], set()
    for photo, name in zip(photos, simple, strict=True):
        is_jpeg = os.path.splitext(photo)[1].lower() in (".jpg", ".jpeg")
        name = name if count[os.path.normcase(name)] == 1 else photo if is_jpeg else f"{photo}.jpg"
        while os.path.normcase(name) in taken:
            name = f"{os.path.splitext(name)[0]}_.jpg"
        taken.add(os.path.normcase(name))
        names.append(name)
    return names


def _check_no_photo_in(folder: Path, photos: Sequence[Path]) -> None:
    target = _real_folder(folder)
    parents = {parent: _real_folder(parent) for parent in {photo.parent for photo in photos}}
    for photo in photos:
        if parents[photo.parent].is_relative_to(target):
            raise InputError(
                f"{photo} lies in the folder for overlays, {folder}", hint="choose another folder for --overlay"
            )


def _real_folder(folder: Path) -> Path:
    """The folder with links resolved and, where the system ignores case, in lower case."""
    return Path(os.path.normcase(os.path.realpath(folder)))


def save_overlay(path: Path, image: NDArray[np.uint8], faces: Sequence[Face], force: bool = False) -> str:
    """Draw and save the overlay of one photo; returns why that is impossible for this photo, else ''.

    Landmarks that cannot be seen are hollow, doubtful faces faint.

    A link, a folder, and a file that is no overlay of dhm are left alone; `force` replaces the file.

    Raises:
        InputError: the file cannot be written, and those of the next photos cannot either.
    """
    if path.is_symlink() or path.is_dir():
        return f"{path} is a {'link' if path.is_symlink() else 'folder'}, which is left alone"
    if path.exists() and not force and not _is_overlay(path):
        return f"{path} exists and is not an overlay of dhm; --force replaces it"
    if max(image.shape[:2]) > _LONGEST_SIDE:
        return f"a JPEG cannot hold {image.shape[1]} x {image.shape[0]} pixels"
    try:
        drawing = draw_landmarks(
            image,
            [face.landmarks for face in faces],
            numbered=True,
            hidden=[None if face.visible is None else face.visible < 0.5 for face in faces],
            faint=[face.doubtful for face in faces],
        )
        bgr = cv2.cvtColor(drawing, cv2.COLOR_RGB2BGR)
        encoded, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    except (cv2.error, MemoryError) as error:
        return reason_of(error, str(path))
    if not encoded:
        return "it cannot be encoded as a JPEG"
    try:
        with written_atomically(path) as partial:
            partial.write_bytes(_START + _MARK + data.tobytes()[len(_START) :])
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return f"{path.name} is too long for a file name"
        if error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
            return f"{path}: a file and a folder are in each other's way"
        raise InputError(
            f"{path}: cannot be written: {error.strerror or error}",
            hint="make room or choose another folder for --overlay, then go on with --resume",
        ) from error
    return ""


def _is_overlay(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_START + _MARK)) == _START + _MARK
    except OSError:
        return False
