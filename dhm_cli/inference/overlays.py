"""Copies of photos with their landmarks drawn: where they go, and drawing them."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.drawing.faces import draw_landmarks
from dhm_cli.errors import InputError
from dhm_cli.inference.results import reason_of

_QUALITY = 92
# A JPEG holds no more.
_LONGEST_SIDE = 65_500


def overlay_paths(photos: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Where each photo's overlay goes: the photos' folder structure, from the deepest folder that holds them all.

    Args:
        photos: the photos.
        folder: the folder for overlays.

    Raises:
        InputError: a photo lies inside `folder`, where the next run could not tell photos from overlays; an overlay
            would overwrite a photo, by way of a link; the photos lie on several drives.
    """
    _check_no_photo_in(folder, photos)
    places = {photo: os.path.abspath(photo) for photo in photos}
    try:
        root = os.path.commonpath([os.path.dirname(place) for place in places.values()])
    except ValueError as error:
        raise InputError(
            "the photos lie on several drives, so their overlays cannot go to one folder",
            hint="align each drive's photos in a run of their own, or leave out --overlay",
        ) from error
    overlays = {photo: folder / _overlay_name(os.path.relpath(place, root)) for photo, place in places.items()}
    originals = {_identity(photo) for photo in photos} - {None}
    for photo, overlay in overlays.items():
        if _identity(overlay) in originals:
            raise InputError(
                f"the overlay of {photo} would overwrite a photo, because {overlay} is a link to one",
                hint="choose another folder for --overlay",
            )
    return overlays


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


def _identity(path: Path) -> tuple[int, int] | None:
    """What a file has in common with itself under other names, device and inode; None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _overlay_name(name: str) -> str:
    return name if name.lower().endswith((".jpg", ".jpeg")) else name + ".jpg"


def save_overlay(path: Path, image: NDArray[np.uint8], landmarks: Sequence[NDArray[np.float64]]) -> str:
    """Draw and save the overlay of one photo.

    Args:
        path: the JPEG to write; its folder is made.
        image: (H, W, 3) uint8 RGB.
        landmarks: of each face, (68, 3), photo pixels.

    Returns:
        Why this photo can have no overlay; empty when it has one.

    Raises:
        InputError: the file cannot be written, and those of the next photos cannot either.
    """
    if max(image.shape[:2]) > _LONGEST_SIDE:
        return f"a JPEG cannot hold {image.shape[1]} x {image.shape[0]} pixels"
    try:
        drawing = draw_landmarks(image, landmarks)
        bgr = cv2.cvtColor(drawing, cv2.COLOR_RGB2BGR)
        encoded, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    except (cv2.error, MemoryError) as error:
        return reason_of(error, str(path))
    if not encoded:
        return "it cannot be encoded as a JPEG"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return f"{path.name} is too long for a file name"
        raise InputError(
            f"{path}: cannot be written: {error.strerror or error}",
            hint="make room or choose another folder for --overlay, then go on with --resume",
        ) from error
    return ""
