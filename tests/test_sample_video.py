"""The sample video is what its script makes."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV, the extra [video], is not installed")

import sample_video
from places import SAMPLE_DATA

from dhm_cli.io.clip import Clip


def test_the_sample_video_is_what_its_script_makes(tmp_path: Path) -> None:
    kept = SAMPLE_DATA / "faces.mp4"
    assert kept.stat().st_size < 100_000
    drawn = list(sample_video.frames())
    frames = list(Clip(kept).read())
    assert len(frames) == len(drawn) == sample_video.FRAMES
    for row in range(0, len(drawn), 17):
        assert np.abs(frames[row].image.astype(int) - drawn[row]).mean() < 4
