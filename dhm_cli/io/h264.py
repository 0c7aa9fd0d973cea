"""Writing videos: H.264 in MP4, frame by frame, each with its time, in parts that can be joined."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.io.clip import pyav

# Time is counted in such parts of a second, which hold the usual rates without rounding.
_CLOCK = Fraction(1, 90_000)
# x264: quality and speed; no frames that depend on later ones, so that parts can be joined at any frame; one thread,
# for with several it gives other pixels now and then.
_OPTIONS = {"crf": "20", "preset": "veryfast", "bf": "0", "threads": "1"}
# In the file, by which a video of ours is known again.
_NOTE = "drawn by dhm"


class VideoFile:
    """An MP4 file being written.

    Args:
        path: the file, replaced; its name may end in anything.
        rate: frames per second, about.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self._container = pyav().open(str(path), "w", format="mp4")
        self._container.metadata["comment"] = _NOTE
        self._rate, self._last = rate, -1
        self._stream: Any = None
        self._size = (0, 0)

    def write(self, image: NDArray[np.uint8], time: float) -> None:
        """Add a frame.

        Args:
            image: (H, W, 3) uint8 RGB; of another size than the first, it is fitted into that.
            time: seconds, later than that of the frame before.
        """
        if self._stream is None:
            self._size = image.shape[1], image.shape[0]
            rate = Fraction(self._rate).limit_denominator(1001)
            try:
                self._stream = self._container.add_stream("libx264", rate=rate)
            except ValueError as error:
                raise InputError("this PyAV writes no H.264", "pip install av: its own wheels do") from error
            self._stream.width, self._stream.height = (side + side % 2 for side in self._size)
            self._stream.pix_fmt, self._stream.options = "yuv420p", _OPTIONS
            self._stream.codec_context.time_base = self._stream.time_base = _CLOCK
        frame = pyav().VideoFrame.from_ndarray(_even(_fitted(image, self._size)), format="rgb24")
        self._last = max(self._last + 1, round(time / _CLOCK))
        frame.pts, frame.time_base = self._last, _CLOCK
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what is left and close the file."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()


def join_parts(parts: Sequence[Path], path: Path) -> None:
    """Join files of `VideoFile`, whose times follow each other, into one; nothing is encoded again."""
    av = pyav()
    with av.open(str(path), "w", format="mp4") as joined:
        joined.metadata["comment"] = _NOTE
        stream = None
        for part in parts:
            with av.open(str(part)) as container:
                source = container.streams.video[0]
                stream = stream or joined.add_stream_from_template(source)
                for packet in container.demux(source):
                    if packet.dts is not None:
                        packet.stream = stream
                        joined.mux(packet)


def is_drawn(path: Path) -> bool:
    """Whether a file is a video that dhm wrote."""
    av = pyav()
    try:
        with av.open(str(path)) as container:
            return bool(container.metadata.get("comment") == _NOTE)
    except (av.error.FFmpegError, OSError, InputError):
        return False


def _fitted(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The image within a width and a height, black around it."""
    if image.shape[1::-1] == size:
        return image
    scale = min(size[0] / image.shape[1], size[1] / image.shape[0])
    width, height = (max(1, round(scale * side)) for side in image.shape[1::-1])
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    canvas[top : top + height, left : left + width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return canvas


def _even(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image with an even width and height, as H.264 needs, by one more column or row of its edge."""
    below, right = image.shape[0] % 2, image.shape[1] % 2
    if below or right:
        return cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)  # type: ignore[return-value]
    return image
