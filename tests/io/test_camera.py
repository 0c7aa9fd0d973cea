"""Cameras, with a capture that stands for one."""

from typing import Any

import cv2
import numpy as np
import pytest

from dhm_cli.errors import InputError
from dhm_cli.io.camera import Camera


class Capture:
    """Three frames, blue, then unplugged."""

    def __init__(self, number: int) -> None:
        self.opened, self.left = number == 0, 3

    def isOpened(self) -> bool:
        return self.opened

    def get(self, what: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, Any]:
        self.left -= 1
        return self.left >= 0, np.full((4, 6, 3), (255, 0, 0), np.uint8)

    def release(self) -> None:
        self.opened = False


def test_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    camera = Camera(0)
    frames = list(camera.read())
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert frames[0].image[0, 0].tolist() == [0, 0, 255]
    assert 0 <= frames[0].time <= frames[1].time <= frames[2].time
    assert camera.rate == 30
    camera.close()
    with pytest.raises(InputError, match="camera 1"):
        Camera(1)
