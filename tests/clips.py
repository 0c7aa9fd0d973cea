"""Video files for tests, made with PyAV: any codec, times, rotation flag; and damage."""

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

_BITS = 7


def numbered(number: int, width: int = 224, height: int = 96) -> NDArray[np.uint8]:
    """A frame that shows its number as bright squares, its lowest bit at the left; red in its upper left corner."""
    image = np.full((height, width, 3), 60, np.uint8)
    image[:30, :60] = (220, 30, 30)
    for bit in range(_BITS):
        if number >> bit & 1:
            image[48:, bit * 32 : bit * 32 + 32] = 230
    return image


def number_of(image: NDArray[np.uint8]) -> int:
    """The number that an upright frame shows."""
    return sum(1 << bit for bit in range(_BITS) if image[72, bit * 32 + 16].mean() > 140)


def write_clip(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    codec: str = "libx264",
    times: Sequence[float] | None = None,
    rate: int = 30,
    pixels: str = "yuv420p",
    **options: str,
) -> Path:
    """Write a video; options are the codec's."""
    import av

    clock = Fraction(1, 1000) if times is not None else Fraction(1, rate)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.pix_fmt, stream.codec_context.time_base = pixels, clock
        for number, image in enumerate(frames):
            if not number:
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number if times is None else round(times[number] * 1000), clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def rotated(path: Path, quarters: int) -> Path:
    """Set the rotation flag of an MP4 file: a player turns it by quarters clockwise."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 4 + 20 + 16  # version and flags, times and number, what lies before the matrix
    a, b = {1: (0, 1), 2: (-1, 0), 3: (0, -1)}[quarters]
    numbers = [a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30]
    data[place : place + 36] = struct.pack(">9i", *numbers)
    path.write_bytes(data)
    return path


def damaged(path: Path, share: float = 0.5, length: int = 200) -> Path:
    """Overwrite a piece of a file."""
    data = bytearray(path.read_bytes())
    start = round(share * len(data))
    data[start : start + length] = np.random.default_rng(0).integers(0, 256, length, np.uint8).tobytes()
    path.write_bytes(data)
    return path


def two_faces(
    photo: NDArray[np.uint8], places: Sequence[tuple[float, float]], size: tuple[int, int] = (480, 200)
) -> NDArray[np.uint8]:
    """A frame with the sample face at the first place, in front, and another one at the second, middles in pixels.

    The other one is the sample's mirror image with other colours and contrast.
    """
    canvas = np.full((size[1], size[0], 3), (70, 84, 96), np.uint8)
    other = np.ascontiguousarray(photo[:, ::-1, 2:]) // 2 + np.array([80, 20, 60], np.uint8)
    for image, middle, (x, y) in ((other, 286.0, places[1]), (photo, 225.0, places[0])):
        mask = np.zeros(photo.shape[:2], np.float32)
        cv2.ellipse(mask, (round(middle), 118), (86, 112), 0, 0, 360, 1.0, cv2.FILLED)
        matrix = np.array([[0.7, 0, x - 0.7 * middle], [0, 0.7, y - 0.7 * 128.0]])
        share = cv2.warpAffine(cv2.GaussianBlur(mask, (0, 0), 3), matrix, size)[..., None]
        canvas = (share * cv2.warpAffine(image, matrix, size) + (1 - share) * canvas).astype(np.uint8)
    return canvas
