"""Frames of a camera, as they come."""

import time
from collections.abc import Iterator

import cv2

from dhm_cli.errors import InputError
from dhm_cli.io.clip import Frame

# Frames per second of cameras that do not say.
_USUAL_RATE = 30.0


class Camera:
    """A camera of this machine, opened by OpenCV.

    Args:
        number: of the camera, from 0.

    Attributes:
        frames: 0, since their number is not known.
        rate: frames per second, as the camera says.

    Raises:
        InputError: it cannot be opened.
    """

    def __init__(self, number: int) -> None:
        self.name, self.frames = f"camera {number}", 0
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            self._capture.release()
            raise InputError(
                f"{self.name}: cannot be opened", "check its number, that it is plugged in, and who else uses it"
            )
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = float(rate) if 1 <= rate <= 1000 else _USUAL_RATE

    def read(self, start: int = 0) -> Iterator[Frame]:
        """Frames until the camera is unplugged; times are those of their arrival."""
        began, index = time.monotonic(), start
        while True:
            found, image = self._capture.read()
            if not found:
                return
            yield Frame(index, time.monotonic() - began, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))  # type: ignore[arg-type]
            index += 1

    def close(self) -> None:
        """Switch the camera off."""
        self._capture.release()
