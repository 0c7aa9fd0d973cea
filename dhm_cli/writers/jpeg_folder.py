"""A folder of pictures made of photos, such as overlays and crops."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.inference.results import reason_of
from dhm_cli.writers.photo_folder import PhotoFolder

_START, _COMMENT = b"\xff\xd8", b"\xff\xfe"
# A JPEG holds no more.
_LONGEST_SIDE = 65_500


class JpegFolder(PhotoFolder):
    """JPEG pictures of one kind; a comment right behind the start of each says of which. See `PhotoFolder`.

    Args:
        folder, kind, option, photos, force: see `PhotoFolder`.
        quality: of the JPEG.
        note: of what sort they are, kept in each; see `note_in`.

    Raises:
        InputError: as `PhotoFolder`.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        option: str,
        photos: Sequence[Path],
        quality: int = 92,
        force: bool = False,
        note: str = "",
    ) -> None:
        super().__init__(folder, kind, option, photos, ".jpg", _START + _comment(f"dhm {kind}"), force)
        self._quality, self._note = quality, _comment(note) if note else b""

    def save(self, path: Path, image: NDArray[np.uint8]) -> str:
        """Save a picture; returns why that is impossible for this one, else ''; see `write`.

        Args:
            path: as `path` gives it.
            image: (H, W, 3) uint8 RGB.

        Raises:
            InputError: the file cannot be written, and those of the next photos cannot either.
        """
        if max(image.shape[:2]) > _LONGEST_SIDE:
            return f"a JPEG cannot hold {image.shape[1]} x {image.shape[0]} pixels"
        try:
            bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            encoded, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, self._quality])
        except (cv2.error, MemoryError) as error:
            return reason_of(error, str(path))
        if not encoded:
            return "it cannot be encoded as a JPEG"
        return self.write(path, self._beginning + self._note + data.tobytes()[len(_START) :])

    def note_in(self, path: Path) -> str:
        """The note in a picture of this kind; '' where there is none."""
        try:
            with path.open("rb") as file:
                if file.read(len(self._beginning)) != self._beginning or file.read(2) != _COMMENT:
                    return ""
                length = int.from_bytes(file.read(2), "big") - 2
                return file.read(max(length, 0)).decode(errors="replace")
        except OSError:
            return ""


def _comment(text: str) -> bytes:
    """A comment in a JPEG."""
    return _COMMENT + (len(text.encode()) + 2).to_bytes(2, "big") + text.encode()
