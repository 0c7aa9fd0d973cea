"""Makes `sample_data/faces.mp4`: two portraits, made of the sample photos, that move, tilt and grow for four seconds.

Run it with a path to write the file anew: python tests/sample_video.py sample_data/faces.mp4
"""

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from example_photos import ASTRONAUT
from numpy.typing import NDArray

from dhm_cli.io.images import read_image

RATE, FRAMES, SIZE = 30, 120, (480, 270)
# Middle of the face and its size in the photo, pixels.
_MIDDLE, _FACE = (225.0, 128.0), 110.0


def portrait(
    photo: NDArray[np.uint8], canvas: NDArray[np.uint8], middle: tuple[float, float], size: float, degrees: float
) -> None:
    """Draw the head of the sample photo on a canvas, an ellipse with a soft edge around it."""
    matrix = cv2.getRotationMatrix2D(_MIDDLE, degrees, size / _FACE)
    matrix[:, 2] += np.array(middle) - _MIDDLE
    mask = np.zeros(photo.shape[:2], np.float32)
    cv2.ellipse(mask, (225, 118), (92, 112), 0, 0, 360, 1.0, cv2.FILLED)
    mask = cv2.GaussianBlur(mask, (0, 0), 5)
    shape = canvas.shape[1::-1]
    share = cv2.warpAffine(mask, matrix, shape)[..., None]
    head = cv2.warpAffine(photo, matrix, shape, flags=cv2.INTER_AREA)
    canvas[:] = (share * head + (1 - share) * canvas).round().astype(np.uint8)


def frames() -> Iterator[NDArray[np.uint8]]:
    """The frames, each (270, 480, 3) uint8 RGB."""
    photo = read_image(ASTRONAUT)
    other = np.ascontiguousarray(photo[:, ::-1])  # mirrored, and in other colours
    shift = other.shape[1] - 1 - 2 * _MIDDLE[0]
    other = cv2.warpAffine(other, np.float32([[1, 0, -shift], [0, 1, 0]]), other.shape[1::-1])
    other = cv2.cvtColor(cv2.cvtColor(other, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) // 2 + 40
    background = np.full((SIZE[1], SIZE[0], 3), (70, 84, 96), np.uint8)
    for number in range(FRAMES):
        a, canvas = 2 * np.pi * number / FRAMES, background.copy()
        portrait(other, canvas, (350 - 40 * np.sin(a), 140 + 10 * np.sin(2 * a)), 72, -15 * np.sin(a))
        portrait(photo, canvas, (150 + 70 * np.sin(a), 140), 90 + 15 * np.sin(2 * a), 20 * np.sin(a))
        yield canvas


def write(path: Path) -> None:
    """Write the video."""
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(RATE), options={"crf": "24", "preset": "slow"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for image in frames():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
