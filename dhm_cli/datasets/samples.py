"""One face of a dataset: where it is, what its annotation says, and its image as it goes into a store."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import NUM_LANDMARKS
from dhm_cli.io.images import decode_image, encode_jpeg, read_bytes
from dhm_cli.io.pts import VISIBLE
from dhm_cli.io.video import read_frames

# Encoded image, height and width in pixels.
Encoded = tuple[bytes, int, int]


@dataclass(frozen=True)
class Sample:
    """One face of a dataset, before anything big is read.

    Attributes:
        name: unique in the dataset: the image's path below the dataset's folder, with forward slashes. A frame of a
            video adds its number as the annotation counts, from 1: `001/vid.avi#000012`.
        image: the image file, or the video.
        annotation: the file with the labels; None where there is none.
        identity: faces that share it must stay in one split.
        subset: part of the dataset as its authors name it (`AFW_Flip`, `CatA`, `trainset/left`), or empty.
        split: train, val or test where the dataset itself says so, else auto.
        frame: index of the frame in the video, from 0; None for an image.
    """

    name: str
    image: Path
    annotation: Path | None
    identity: str
    subset: str = ""
    split: str = "auto"
    frame: int | None = None

    @property
    def source(self) -> str:
        """The image file or video, as a path below the dataset's folder."""
        return self.name if self.frame is None else self.name.rpartition("#")[0]


@dataclass(frozen=True)
class Truth:
    """What an annotation says of a face.

    Attributes:
        points: (68, 2) float32, pixels of the stored image, 0-based, NaN where there is no label.
        visibility: (68,) uint8 codes of `io.pts`.
        landmarks: (68, 3) float32 where the file has 3D points: x, y as above, z as in the file; else None.
        parameters: (234,) float32, p in the order of `morphable.parameters` where the file has them; else None.
    """

    points: NDArray[np.float32]
    visibility: NDArray[np.uint8]
    landmarks: NDArray[np.float32] | None = None
    parameters: NDArray[np.float32] | None = None

    @classmethod
    def nothing(cls) -> "Truth":
        """A face without any label."""
        return cls(np.full((NUM_LANDMARKS, 2), np.nan, np.float32), np.zeros(NUM_LANDMARKS, np.uint8))

    @classmethod
    def all_visible(cls, points: NDArray[np.floating]) -> "Truth":
        """A face with all 68 points (68, 2) labelled, 0-based pixels."""
        return cls(points.astype(np.float32), np.full(NUM_LANDMARKS, VISIBLE, np.uint8))


def load_images(samples: Sequence[Sample]) -> Iterator[Encoded | InputError]:
    """Read the images of several faces; a video is decoded once for all its frames.

    Args:
        samples: the faces, frames of one video next to each other and in order, as `Layout.samples` gives them.

    Yields:
        For each face in turn the bytes of the image file (a frame as JPEG), and height and width of the stored pixels:
        labels belong to these, so the EXIF orientation is not obeyed. Or an error, where the image or the frame cannot
        be decoded to its end.
    """
    for (image, is_video), group in groupby(samples, key=lambda s: (s.image, s.frame is not None)):
        if is_video:
            frames = read_frames(image, [s.frame for s in group if s.frame is not None])
            yield from (f if isinstance(f, InputError) else (encode_jpeg(f), *f.shape[:2]) for f in frames)
        else:
            yield from (_load_file(s.image) for s in group)


def _load_file(path: Path) -> Encoded | InputError:
    try:
        data = read_bytes(path)
        height, width = decode_image(data, path, upright=False).shape[:2]
        return data, height, width
    except InputError as error:
        return error
