"""The frames of a video file one after the other, upright, each with its time.

PyAV decodes. OpenCV does as well with times and rotation flags, but ends at the first damaged frame (of 60 frames with
one damaged, 34 came; here 58), and says nothing of it.
"""

import importlib.util
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.io.images import MOST_PIXELS

_COPY_AGAIN = "copy or download the video again"
# Frames per second where a file does not say.
_USUAL_RATE = 25.0


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of a video.

    Attributes:
        index: its number in the video, from 0; damaged frames count.
        time: seconds from the video's start, as a player shows.
        image: (H, W, 3) uint8 RGB, upright; None where the frame is damaged, or its image was not asked for.
        damaged: whether it could not be decoded.
    """

    index: int
    time: float
    image: NDArray[np.uint8] | None
    damaged: bool = False


class Clip:
    """A video file, opened.

    Args:
        path: the file; nothing but files is opened, no address and no list of other files.
        most_pixels: a video whose frames have more is refused.

    Attributes:
        name: the path as given.
        frames: their number as the file says, or what its duration and rate come to; 0 where neither is known.
        rate: frames per second, their mean.
        codec: name of the codec.
        lost: frames that the file promised at its end and that were not there, when all are read.

    Raises:
        InputError: PyAV is missing; the file cannot be opened, or has no video in it.
    """

    def __init__(self, path: str | os.PathLike[str], most_pixels: int = MOST_PIXELS) -> None:
        self.path, self.name = Path(path), str(path)
        av = pyav()
        try:
            self.path.stat()  # for ffmpeg some names are addresses
            only_files = {"protocol_whitelist": "file"}
            self._container = av.open(os.path.abspath(path), metadata_errors="replace", options=only_files)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be opened as a video: {_reason(error)}", _COPY_AGAIN) from error
        streams = [s for s in self._container.streams.video if "attached_pic" not in str(s.disposition)]
        if not streams:
            others = ", ".join(sorted({stream.type for stream in self._container.streams})) or "no streams"
            self._container.close()
            raise InputError(f"{path}: holds {others} and no video", "name the file with the pictures")
        self._stream = streams[0]
        if self._stream.codec_context is None:
            self._container.close()
            raise InputError(f"{path}: its codec is not known to PyAV", "convert it to H.264, such as with ffmpeg")
        width, height = self._stream.codec_context.width, self._stream.codec_context.height
        if width * height > most_pixels:
            self._container.close()
            raise InputError(f"{path}: frames of {width} x {height} pixels", "allow more with --max-pixels")
        self._stream.thread_type = "AUTO"
        self.codec = str(self._stream.codec_context.name)
        self.rate = _positive(self._stream.average_rate) or _positive(self._stream.guessed_rate) or _USUAL_RATE
        self.lost = 0
        self.frames = int(self._stream.frames) or round(self._seconds() * self.rate)

    def _seconds(self) -> float:
        if self._stream.duration is not None:
            return float(self._stream.duration * self._stream.time_base)
        return (self._container.duration or 0) / 1e6

    def read(self, start: int = 0) -> Iterator[Frame]:
        """All frames in order, once; those before `start` without their images.

        A damaged frame has no image. What the decoder can only patch up comes as it is.

        Raises:
            InputError: nothing could be decoded.
        """
        av = pyav()
        zero = (self._container.start_time or 0) / 1e6
        # Times of packets whose frame has not come yet, and how many of them the decoder complained of.
        waiting: list[float] = []
        failed, hidden, index, time = 0, 0, 0, -1 / self.rate
        for packet, frames in self._decoded(av):
            if packet is not None and packet.pts is not None and packet.size and not packet.is_discard:
                waiting.append(float(packet.pts * packet.time_base) - zero)
            hidden += packet is not None and bool(packet.is_discard)  # before the start, by an edit list
            failed += frames is None
            for frame in frames or ():
                time = time + 1 / self.rate if frame.time is None else frame.time - zero + 0.0  # never -0
                lost = sorted(t for t in waiting if t < time - 1e-6)
                waiting = [t for t in waiting if t > time + 1e-6]
                for t in lost[:failed]:
                    yield Frame(index, t, None, damaged=True)
                    index, failed = index + 1, failed - 1
                yield Frame(index, time, _upright(frame) if index >= start else None)
                index += 1
        for t in sorted(waiting)[:failed]:
            yield Frame(index, t, None, damaged=True)
            index += 1
        if "mp4" in self._container.format.name:  # others count otherwise
            self.lost = max(0, int(self._stream.frames) - index - hidden)
        if not index:
            raise InputError(f"{self.path}: not one frame could be decoded (codec {self.codec})", _COPY_AGAIN)

    def _decoded(self, av: Any) -> Iterator[tuple[Any, list[Any] | None]]:
        """Packets with the frames that came out behind them; None in place of frames where the decoder failed."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError):  # a file that was cut off
                packet = None
            if packet is None:
                break
            try:
                yield packet, packet.decode()
            except av.error.FFmpegError:
                yield packet, None
        try:
            yield None, self._stream.decode(None)  # what the decoder still holds
        except av.error.FFmpegError:
            return

    def close(self) -> None:
        """Close the file."""
        self._container.close()


def pyav() -> Any:
    """PyAV, without its messages on standard error.

    Raises:
        InputError: it is not installed.
    """
    if importlib.util.find_spec("av") is None:
        raise InputError("videos need PyAV, which is not installed", "pip install 'dhm-cli[video]', or pip install av")
    import av
    import av.logging

    av.logging.set_level(None)
    return av


def _upright(frame: Any) -> NDArray[np.uint8]:
    """The picture of a frame turned as its file says, (H, W, 3) uint8 RGB."""
    image: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    quarters = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image


def _positive(rate: Any) -> float:
    """A rate as a number; 0 where it is none."""
    value = float(rate) if rate else 0.0
    return value if math.isfinite(value) and value > 0 else 0.0


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
