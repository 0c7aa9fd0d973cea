"""Writing videos in parts."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV, the extra [video], is not installed")

from clips import number_of, numbered

from dhm_cli.io.clip import Clip
from dhm_cli.io.h264 import VideoFile, is_drawn, join_parts


def test_parts_are_joined_with_their_times(tmp_path: Path) -> None:
    times = np.cumsum([0.02, 0.04, 0.3, 0.04] * 5) - 0.02
    parts = [tmp_path / "0", tmp_path / "1"]
    for part, rows in zip(parts, (range(12), range(12, 20)), strict=True):
        file = VideoFile(part, 30.0)
        for row in rows:
            file.write(numbered(row), float(times[row]))
        file.close()
    whole = tmp_path / "whole.mp4"
    join_parts(parts, whole)
    frames = list(Clip(whole).read())
    assert [number_of(frame.image) for frame in frames] == list(range(20))
    np.testing.assert_allclose([frame.time for frame in frames], times, atol=1e-4)
    assert is_drawn(whole)
    assert not is_drawn(Path(__file__))


def test_odd_sizes_and_frames_of_another_size(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    file = VideoFile(path, 29.97)
    file.write(np.full((61, 91, 3), 200, np.uint8), 0.0)
    file.write(np.full((200, 100, 3), 200, np.uint8), 0.0)  # the same time again: it goes on by the least step
    file.close()
    frames = list(Clip(path).read())
    assert [frame.image.shape for frame in frames] == [(62, 92, 3)] * 2
    assert frames[1].image[30, 45].mean() > 180
    assert frames[1].image[30, 2].mean() < 40  # black at its sides
