"""Videos made of a still photo, whose landmarks are known in every frame."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.geometry.crop import transform_landmarks
from dhm_cli.geometry.landmarks import face_size
from dhm_cli.inference.aligner import Aligner
from dhm_cli.io.images import read_image

RATE, FRAMES = 30.0, 240
# Width and height of the frames and size of the face, pixels.
_FRAME, _FACE = (640, 480), 130.0
# Noise of the sensor, grey levels, and the quality of the compression, each frame by itself as JPEG.
_NOISE, _QUALITY = 5.0, 60
# still: nothing moves. moving: the face is moved, turned and scaled, by up to half of its size and 12 degrees.
KINDS = ("still", "moving")


@dataclass(frozen=True)
class MadeVideo:
    """A photo, still or moved along a known path.

    Attributes:
        name: of the photo and the kind.
        photo: (H, W, 3) uint8 RGB.
        landmarks: (68, 3), photo pixels.
        kind: one of `KINDS`.
    """

    name: str
    photo: NDArray[np.uint8]
    landmarks: NDArray[np.float64]
    kind: str

    def truth(self) -> NDArray[np.float64]:
        """The landmarks of all frames, (T, 68, 3), frame pixels."""
        return np.array([transform_landmarks(self.landmarks, self._matrix(k)) for k in range(FRAMES)])

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """The frames with noise and compression, (480, 640, 3) uint8 RGB; the same every time."""
        noise = np.random.default_rng(0)
        for number in range(FRAMES):
            matrix = self._matrix(number)
            flags = cv2.INTER_AREA if np.linalg.norm(matrix[0, :2]) < 1 else cv2.INTER_LINEAR
            image = cv2.warpAffine(self.photo, matrix, _FRAME, flags=flags, borderMode=cv2.BORDER_REPLICATE)
            noisy = (image + noise.normal(0.0, _NOISE, image.shape)).clip(0, 255).astype(np.uint8)
            data = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
            yield cv2.imdecode(data, cv2.IMREAD_COLOR)  # type: ignore[misc]  # RGB in, RGB out

    def _matrix(self, number: int) -> NDArray[np.float64]:
        """From photo to frame pixels, (2, 3)."""
        a = 2 * np.pi * number / RATE if self.kind == "moving" else 0.0
        scale = _FACE / float(face_size(self.landmarks)) * (1 + 0.15 * np.sin(0.31 * a))
        x, y = self.landmarks[:, :2].mean(axis=0).tolist()
        matrix: NDArray[np.float64] = cv2.getRotationMatrix2D((x, y), 12 * np.sin(0.7 * a), scale)
        middle = np.array(_FRAME) / 2 + [70 * np.sin(0.45 * a), 25 * np.sin(0.9 * a)]
        matrix[:, 2] += middle - [x, y]
        return matrix


def made_videos(path: Path, aligner: Aligner) -> list[MadeVideo]:
    """A video of each kind from the largest face of a photo; its truth is what the network says of the clean photo.

    Raises:
        InputError: the photo cannot be read, or the network believes no face in it.
    """
    photo = read_image(path)
    faces = [face for face in aligner.align(photo) if not face.doubtful]
    if not faces:
        raise InputError(f"{path}: no face was found", "name a photo with a face")
    return [MadeVideo(f"{path.name}, {kind}", photo, faces[0].landmarks, kind) for kind in KINDS]
