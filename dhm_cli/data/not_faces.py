"""Pictures that show no face: what a network learns to doubt."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.io.images import decode_image
from dhm_cli.io.photo_search import find_photos
from dhm_cli.runtime.hashing import short_hash

# The last of the sorted names are held out, and not some drawn by chance: neighbours tend to come from one photo.
HELD_OUT = 0.2


@dataclass(frozen=True)
class NotFaces:
    """Pictures without a face, of one split; they stay encoded.

    Attributes:
        names: (N,) str, file names.
        encoded: the files' bytes.
    """

    names: tuple[str, ...]
    encoded: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.names)

    def image(self, row: int) -> NDArray[np.uint8]:
        """Decode a picture, (H, W, 3) uint8 RGB.

        Raises:
            InputError: it is damaged.
        """
        return decode_image(self.encoded[row], self.names[row], upright=False)

    @property
    def fingerprint(self) -> str:
        """Short hash of the pictures."""
        return short_hash(b"".join(self.encoded))


def read_not_faces(folder: Path, split: str) -> NotFaces:
    """Read the pictures of a folder: of the sorted names the first four fifths are "train", the rest "val".

    Args:
        folder: holds images, each a square cut out around something that a detector took for a face.
        split: train or val.

    Raises:
        InputError: no such folder, or fewer than two pictures in it.
    """
    files = sorted(map(Path, find_photos([folder]).photos))
    if len(files) < 2:
        raise InputError(
            f"{folder}: {len(files)} pictures without a face, two are the least", "name a folder of images"
        )
    first = len(files) - max(1, round(HELD_OUT * len(files)))
    chosen = files[:first] if split == "train" else files[first:]
    return NotFaces(tuple(file.name for file in chosen), tuple(file.read_bytes() for file in chosen))
