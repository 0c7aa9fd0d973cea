"""Copies of photos with their faces drawn."""

from collections.abc import Collection, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.drawing.heads import PARTS, Head, draw_heads
from dhm_cli.errors import InputError
from dhm_cli.inference.aligner import Face, Image, pixels_of
from dhm_cli.inference.results import reason_of
from dhm_cli.writers.jpeg_folder import JpegFolder

DEFAULT_PARTS = ("points", "lines", "number")


def check_parts(names: Sequence[str]) -> tuple[str, ...]:
    """Names of parts of a drawing, as given.

    Raises:
        InputError: one is not known, or there is none.
    """
    for name in names or [""]:
        if name not in PARTS:
            raise InputError(f"--draw {name!r}: not known", hint=f"known are {', '.join(PARTS)}")
    return tuple(names)


def draw(
    image: Image, faces: Sequence[Face], parts: Collection[str] = DEFAULT_PARTS, *, bgr: bool = False
) -> NDArray[np.uint8]:
    """Draw faces on a copy of their photo. Landmarks that cannot be seen are hollow, doubtful faces faint.

    Args:
        image: the photo, as for `Aligner.align`; not changed.
        faces: as `Aligner.align` gives them.
        parts: any of the "mesh" of faces with a surface (`with_surfaces`), "points" and "lines" of the landmarks, the
            "axes" of the head (x to the right of a frontal head, y up, z where the nose points: red, green, blue), the
            "box", the "number" from 0 where there are several
            faces, in a video that of the track, and the "confidence".
        bgr: the array's channels are blue, green, red, and those of the drawing are to be so too.

    Returns:
        (H, W, 3) uint8.

    Raises:
        InputError: an unknown part, or no image.

    Example:
        >>> from dhm_cli import Aligner, draw, read_image
        >>> image = read_image("sample_data/photos/astronaut.png")
        >>> drawn = draw(image, Aligner("cpu").align(image), parts=("lines", "axes"))
        >>> drawn.shape
        (512, 512, 3)
    """
    numbers = [face.track if face.track is not None else k if len(faces) > 1 else None for k, face in enumerate(faces)]
    heads = [head_of(face, number) for face, number in zip(faces, numbers, strict=True)]
    drawing = draw_heads(pixels_of(image, bgr), heads, check_parts(list(parts)))
    return np.ascontiguousarray(drawing[..., ::-1]) if bgr else drawing


def head_of(face: Face, number: int | None) -> Head:
    """What is drawn of a face, with a number or without."""
    hidden = None if face.visible is None else face.visible < 0.5
    surface = None if face.surface is None else (face.surface.vertices, face.surface.triangles)
    return Head(face.landmarks, face.rotation, face.box, face.confidence, hidden, face.doubtful, number, surface)


def save_overlay(
    folder: JpegFolder, photo: Path, image: NDArray[np.uint8], faces: Sequence[Face], parts: Collection[str]
) -> str:
    """Draw and save the overlay of one photo; returns why that is impossible for this photo, else ''.

    Raises:
        InputError: as `JpegFolder.save`.
    """
    try:
        drawing = draw(image, faces, parts)
    except (cv2.error, MemoryError) as error:
        return reason_of(error, str(photo))
    return folder.save(folder.path(photo), drawing)
