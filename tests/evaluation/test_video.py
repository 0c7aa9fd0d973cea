"""Scores of videos: made ones, and labelled ones in the layout of 300VW."""

from pathlib import Path

import numpy as np
import pytest
from example_photos import ASTRONAUT
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.evaluation import made_video
from dhm_cli.evaluation.made_video import MadeVideo, made_videos
from dhm_cli.evaluation.video import DEFINITIONS, evaluate_video, is_video_report
from dhm_cli.inference.aligner import Aligner
from dhm_cli.io.pts import pts_text


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    return Aligner("cpu")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made videos of two seconds."""
    monkeypatch.setattr(made_video, "FRAMES", 60)


def test_the_truth_of_a_made_video_is_where_the_pixels_go() -> None:
    """Points of light stay at their landmarks."""
    photo = np.zeros((400, 400, 3), np.uint8)
    landmarks = np.zeros((68, 3))
    landmarks[:, :2] = np.random.default_rng(0).uniform(140, 260, (68, 2)).round()
    for x, y in landmarks[:5, :2].astype(int):
        photo[y - 2 : y + 3, x - 2 : x + 3] = 255
    video = MadeVideo("a", photo, landmarks, "moving")
    truth = video.truth()
    assert np.ptp(truth[:, 0, 0]) > 80
    for row, image in enumerate(video.frames()):
        for x, y, _ in truth[row, :5]:
            assert image[round(y), round(x)].mean() > 120
    assert np.ptp(MadeVideo("a", photo, landmarks, "still").truth(), axis=0).max() == 0


def test_made_videos(aligner: Aligner) -> None:
    report = evaluate_video(ASTRONAUT, aligner, "fast")
    still, moving = report.videos
    for video in (still, moving):
        assert (video.labelled, video.missed, video.numbers) == (60, 0, 1)
        assert video.looks == pytest.approx(1000 * 2 / 60)
        assert set(video.curves) == {"true", "none", "file", "live"}
    raw, file, live = (still.by_smoothing[name] for name in ("none", "file", "live"))
    assert file.jitter < raw.jitter / 5
    assert live.jitter < raw.jitter / 3
    assert file.nme <= raw.nme
    assert np.isnan(raw.lag)
    assert moving.by_smoothing["file"].lag == pytest.approx(moving.by_smoothing["none"].lag, abs=0.06)
    assert moving.by_smoothing["live"].lag < 2
    assert moving.by_smoothing["file"].nme < 1.1 * moving.by_smoothing["none"].nme
    content = report.to_json()
    assert set(content["videos"][0]) - {"name", "labelled", "by_smoothing"} <= set(DEFINITIONS)
    assert set(content["videos"][0]["by_smoothing"]["file"]) <= set(DEFINITIONS)


def test_labelled_videos(tmp_path: Path, aligner: Aligner, astronaut: NDArray[np.uint8]) -> None:
    pytest.importorskip("av", reason="PyAV, the extra [video], is not installed")
    from clips import write_clip

    video = made_videos(ASTRONAUT, aligner)[1]
    folder = tmp_path / "300VW" / "001"
    (folder / "annot").mkdir(parents=True)
    write_clip(folder / "vid.avi", list(video.frames()), "mpeg4", qscale="2")
    for row, points in enumerate(video.truth()):
        if row != 20:  # one frame without labels
            (folder / "annot" / f"{row + 1:06d}.pts").write_text(pts_text((points[:, :2]).tolist()))
    (scores,) = evaluate_video(tmp_path / "300VW", aligner, "fast").videos
    assert scores.name == "001/vid.avi"
    assert (scores.labelled, scores.missed, scores.numbers) == (59, 0, 1)
    assert scores.by_smoothing["none"].nme < 1.5
    assert abs(scores.by_smoothing["none"].lag) < 0.2


def test_nothing_to_score(tmp_path: Path, aligner: Aligner) -> None:
    with pytest.raises(InputError, match="no labelled videos"):
        evaluate_video(tmp_path, aligner, "fast")
    with pytest.raises(InputError, match="no photo and no folder"):
        evaluate_video(tmp_path / "none", aligner, "fast")
    (tmp_path / "a.txt").write_text("{}")
    assert not is_video_report(tmp_path / "a.txt")
