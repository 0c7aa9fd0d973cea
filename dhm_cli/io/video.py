"""Frames of a video, decoded in order."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError

VIDEO_EXTENSIONS = (
    *(".avi", ".mp4", ".mov", ".mkv", ".mpg", ".mpeg", ".wmv"),
    *(".webm", ".m4v", ".mts", ".m2ts", ".3gp", ".ogv", ".flv"),
)

_HINT = "copy or download the video again; its other frames are used"


def read_frames(path: Path, frames: Sequence[int]) -> Iterator[NDArray[np.uint8] | InputError]:
    """Decode some frames of a video.

    The video is read from its start without seeking: a jump lands on the wrong frame in many containers.

    Args:
        path: the video.
        frames: indices from 0, increasing.

    Yields:
        For each index the frame, (H, W, 3) uint8 RGB, not turned by the video's orientation tag; or an error that says
        why it is missing, which leaves the earlier frames good.
    """
    assert all(a < b for a, b in pairwise(frames)), "frames must increase"
    capture = cv2.VideoCapture(str(path))
    try:
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        opened, at = capture.isOpened(), 0
        for index in frames:
            while opened and at < index and capture.grab():
                at += 1
            found, image = capture.read() if opened and at == index else (False, None)
            if found:
                at += 1
                yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # type: ignore[misc]
            elif opened:
                yield InputError(f"{path}: ends after {at} frames, so frame {index + 1} is missing", _HINT)
            else:
                yield InputError(f"{path}: cannot be opened as a video", "copy or download the video again")
    finally:
        capture.release()
