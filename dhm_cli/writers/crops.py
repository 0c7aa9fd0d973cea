"""Aligned crops of faces: `crop`, and the files of `dhm align --crops`."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.geometry.crop import crop_matrix, smooth_crop, transform_landmarks
from dhm_cli.geometry.crop_styles import ARCFACE_SIZE, CROP_STYLES
from dhm_cli.inference.aligner import Face, Image, SavedCrop, pixels_of
from dhm_cli.inference.results import reason_of
from dhm_cli.writers.jpeg_folder import JpegFolder

_QUALITY = 95
_SIZES = (16, 4096)
_DEFAULT_SIZE = 256


class FaceCrop(NamedTuple):
    """An upright crop of a face.

    Attributes:
        image: (S, S, 3) uint8; black where the photo ends.
        matrix: (2, 3) float64, photo pixels to crop pixels, both 0-based with integers at pixel centres:
            crop = matrix[:, :2] @ photo + matrix[:, 2].
        landmarks: (68, 3), crop pixels, z toward the viewer in the same unit.
    """

    image: NDArray[np.uint8]
    matrix: NDArray[np.float64]
    landmarks: NDArray[np.float64]


def crop(image: Image, face: Face, size: int | None = None, style: str = "face") -> FaceCrop:
    """Cut out a face, its head upright, by its 3D pose: in profile and at any roll too.

    The styles are defined in `geometry.crop_styles`: "face" is the box of the upright landmarks, squared and enlarged
    by sqrt(2), as the networks of dhm see faces; "ffhq" the square of the dataset FFHQ; "arcface" puts eyes, nose and
    mouth where networks of face recognition expect them. The last two keep a head's size and place however it is
    turned.

    Args:
        image: the photo, (H, W, 3) uint8 in any order of channels, which the crop keeps, or its path.
        face: a face in it, as `Aligner.align` gives it.
        size: side of the crop, 16 to 4096 pixels; None for 112 of style "arcface", else 256.
        style: a name of `geometry.crop_styles.CROP_STYLES`.

    Raises:
        InputError: an unknown style, a size out of range, or no image.

    Example:
        >>> from dhm_cli import Aligner, crop, read_image
        >>> image = read_image("sample_data/photos/astronaut_turned_left_45.jpg")
        >>> (face,) = Aligner("cpu").align(image)
        >>> portrait = crop(image, face, size=112, style="arcface")
        >>> portrait.image.shape, portrait.landmarks.shape
        ((112, 112, 3), (68, 3))
    """
    size = check_crop(size, style)
    centre, side, roll = CROP_STYLES[style](face.landmarks, face.rotation)
    matrix = crop_matrix(centre, side, size, roll)
    return FaceCrop(
        smooth_crop(pixels_of(image, False), matrix, size), matrix, transform_landmarks(face.landmarks, matrix)
    )


def check_crop(size: int | None, style: str) -> int:
    """The side of the crops of a style, pixels.

    Raises:
        InputError: an unknown style, or a size out of range.
    """
    if style not in CROP_STYLES:
        raise InputError(f"--crop-style {style}: not known", hint=f"known are {', '.join(CROP_STYLES)}")
    if size is None:
        return ARCFACE_SIZE if style == "arcface" else _DEFAULT_SIZE
    least, most = _SIZES
    if isinstance(size, bool) or not isinstance(size, int) or not least <= size <= most:
        raise InputError(f"--crop-size: expected a whole number from {least} to {most}, found {size!r}")
    return size


class CropFolder(JpegFolder):
    """The folder of --crops; each crop in it says of which style and size it is. See `JpegFolder`.

    Args:
        folder: where they go.
        photos: of which there will be crops.
        size: side of the crops, pixels.
        style: of the crops, as for `crop`.
        force: replace files that dhm did not write.

    Raises:
        InputError: as `JpegFolder`.
    """

    def __init__(self, folder: Path, photos: Sequence[Path], size: int, style: str, force: bool) -> None:
        self.sort = f"--crop-style {style} --crop-size {size}"
        super().__init__(folder, "crop", "--crops", photos, _QUALITY, force, self.sort)
        self._size, self._style = size, style

    @classmethod
    def wanted(
        cls,
        folder: str | os.PathLike[str] | None,
        photos: Sequence[Path],
        size: int | None,
        style: str,
        force: bool,
    ) -> "CropFolder | None":
        """The folder, or None where none is named; size and style are checked in any case (`check_crop`)."""
        size = check_crop(size, style)
        return None if folder is None else cls(Path(folder), photos, size, style, force)

    def check_kept(self, path: Path) -> None:
        """Refuse to go on with a run that made other crops.

        Args:
            path: a crop that the interrupted run has made; one that is not there says nothing.

        Raises:
            InputError: that crop has another size or style.
        """
        found = self.note_in(path)
        if found not in ("", self.sort):
            raise InputError(
                f"{path}: made by the interrupted run with {found}, not with {self.sort}",
                "give the same options as that run, or delete its .partial files to start anew",
            )

    def save_all(
        self, paths: Sequence[Path], image: NDArray[np.uint8], faces: Sequence[Face]
    ) -> tuple[list[Face], str]:
        """Save a crop of each face of a photo.

        Args:
            paths: of the crops, in this folder; a path for each face.
            image: the photo, (H, W, 3) uint8 RGB.
            faces: its faces.

        Returns:
            The faces with their `Face.crop`, None where its file could not be saved; and why, '' where all were saved.

        Raises:
            InputError: as `JpegFolder.save`.
        """
        saved, problems = [], []
        for path, face in zip(paths, faces, strict=True):
            try:
                cut = crop(image, face, self._size, self._style)
                problem = self.save(path, cut.image)
            except (cv2.error, MemoryError) as error:
                problem = reason_of(error, str(path))
            if problem:
                problems.append(problem)
            saved.append(face if problem else replace(face, crop=SavedCrop(str(path), cut.matrix, cut.landmarks)))
        return saved, "; ".join(problems)
