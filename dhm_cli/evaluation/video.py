"""`dhm evaluate --video`: how near, how steady and how late landmarks are in videos, with and without smoothing."""

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhm_cli.datasets.ls3d_w import W300_VW
from dhm_cli.datasets.samples import Sample
from dhm_cli.errors import InputError
from dhm_cli.evaluation.made_video import RATE, MadeVideo, made_videos
from dhm_cli.geometry.landmarks import face_size
from dhm_cli.inference.aligner import Aligner
from dhm_cli.inference.tracker import Tracked, Tracker
from dhm_cli.io.clip import Clip
from dhm_cli.io.images import EXTENSIONS
from dhm_cli.metrics.landmark_error import normalised_mean_error
from dhm_cli.metrics.steadiness import jitter, lag
from dhm_cli.motion.smoothing import SMOOTH, Smoother, make_smoother
from dhm_cli.runtime.environment import environment
from dhm_cli.runtime.progress import Progress, silent

SCHEMA, SCHEMA_VERSION = "dhm-video-evaluation", 1
DEFINITIONS = {
    "nme": "mean distance in x and y of the landmarks from the true ones, percent of sqrt(width x height) of the true "
    "points' box, mean over the frames in which the face was found",
    "jitter": "root mean square of what is faster than some 3 Hz in the errors in x and y (they less their mean over a "
    "sixth of a second to both sides, Hann weights), percent of the face size",
    "lag": "frames by which the true motion must be delayed to fit the landmarks best by least squares; none where the "
    "face rests",
    "missed": "labelled frames in which no face was found within half of the face size",
    "numbers": "track numbers that the face had; 1 is right",
    "looks": "frames of 1,000 at which the detector looked",
}


@dataclass(frozen=True)
class Steadiness:
    """Numbers of one video for one way of smoothing; see `DEFINITIONS`."""

    nme: float
    jitter: float
    lag: float


@dataclass(frozen=True, eq=False)
class VideoScores:
    """Numbers of one video.

    Attributes:
        name: of the video.
        labelled: frames with labels.
        missed, numbers, looks: see `DEFINITIONS`.
        by_smoothing: by the names of `motion.smoothing.SMOOTH`.
        curves: the x of the nose tip over time: true, and by smoothing, (T,), percent of the face size.
    """

    name: str
    labelled: int
    missed: int
    numbers: int
    looks: float
    by_smoothing: dict[str, Steadiness]
    curves: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class VideoReport:
    """Scores of all videos."""

    network: str
    rate: float
    videos: list[VideoScores]

    def to_json(self) -> dict[str, Any]:
        """Content of the JSON file; NaN stays."""
        videos = [{k: v for k, v in asdict(video).items() if k != "curves"} for video in self.videos]
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "network": self.network,
            "videos": videos,
            "definitions": DEFINITIONS,
            "environment": environment(),
        }


def is_video_report(path: Path) -> bool:
    """Whether a file is a JSON report of an evaluation on videos."""
    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["schema"] == SCHEMA)
    except (OSError, ValueError, KeyError, TypeError):
        return False


@dataclass(frozen=True)
class _Labelled:
    """A video with the true landmarks of its frames, (T, 68, 2 or 3), NaN where there are none."""

    name: str
    truth: NDArray[np.float64]
    rate: float
    source: MadeVideo | Clip

    def frames(self) -> Iterator[NDArray[np.uint8] | None]:
        """As many frames as there are in `truth`, None for damaged ones."""
        if isinstance(self.source, MadeVideo):
            yield from self.source.frames()
            return
        for frame in self.source.read():
            if frame.index >= len(self.truth):
                return
            yield frame.image


def evaluate_video(path: Path, aligner: Aligner, network: str, progress: Progress = silent) -> VideoReport:
    """Score a network on videos.

    Args:
        path: a folder in the layout of 300VW (in each video's folder vid.avi and annot/000001.pts, counted from 1), or
            a photo, of which videos are made that rest and move along a known path.
        aligner: with the network.
        network: its name, for the report.
        progress: called with what is being done, the frames done and their number.

    Raises:
        InputError: there are no labelled videos, or one cannot be read.
    """
    videos = []
    for labelled in _labelled(path, aligner):
        videos.append(_score(labelled, aligner, progress))
        if isinstance(labelled.source, Clip):
            labelled.source.close()
    return VideoReport(network, RATE, videos)


def _labelled(path: Path, aligner: Aligner) -> Iterator[_Labelled]:
    if path.suffix.lower() in EXTENSIONS and not path.is_dir():
        for made in made_videos(path, aligner):
            yield _Labelled(made.name, made.truth(), RATE, made)
        return
    if not path.is_dir():
        raise InputError(f"{path}: no photo and no folder", "name a photo, or a folder in the layout of 300VW")
    samples = [sample for sample in W300_VW.list_samples(path, None) if sample.frame is not None]
    if not samples:
        raise InputError(f"{path}: no labelled videos", f"expected {W300_VW.description}")
    for video, group in groupby(samples, key=lambda sample: sample.image):
        yield _labelled_clip(video, list(group))


def _labelled_clip(video: Path, samples: list[Sample]) -> _Labelled:
    truth = np.full((max(sample.frame or 0 for sample in samples) + 1, 68, 2), np.nan)
    for sample in samples:
        assert sample.frame is not None
        assert sample.annotation is not None
        truth[sample.frame] = W300_VW.read_file(sample.annotation, sample).points
    clip = Clip(video)
    return _Labelled(samples[0].source, truth, clip.rate, clip)


def _score(video: _Labelled, aligner: Aligner, progress: Progress) -> VideoScores:
    """Track one video once, and smooth it in every way."""
    found, numbers, looks = _follow(video, aligner, progress)
    labels = ~np.isnan(video.truth).any(axis=(1, 2))
    size = np.where(labels, face_size(np.nan_to_num(video.truth)), np.nan)
    scores, curves = {}, {"true": _nose(video.truth, size)}
    for name, points in found.items():
        known = labels & ~np.isnan(points).any(axis=(1, 2))
        nme = normalised_mean_error(points[known][..., :2], video.truth[known][..., :2])
        scores[name] = Steadiness(
            float(nme.mean()) if len(nme) else float("nan"),
            jitter(points, video.truth, size, video.rate),
            lag(points, video.truth, size),
        )
        curves[name] = _nose(points, size)
    missed = int((labels & (numbers < 0)).sum())
    return VideoScores(
        video.name, int(labels.sum()), missed, len(set(numbers[numbers >= 0].tolist())), looks, scores, curves
    )


def _nose(points: NDArray[np.floating], size: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(100 * points[:, 30, 0] / np.nanmean(size), np.float64)


def _follow(
    video: _Labelled, aligner: Aligner, progress: Progress
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64], float]:
    """The landmarks (T, 68, 3) of the face nearest to the true one by way of smoothing, NaN where it is missed; the
    number of its track, -1 there; and the looks of the detector in 1,000 frames."""
    tracker, length = Tracker(aligner), len(video.truth)
    reference = aligner.engine.mean_shape
    smoothers: dict[str, Smoother] = {name: make_smoother(name, reference, video.rate) for name in SMOOTH}
    found: dict[str, NDArray[np.float64]] = {name: np.full((length, 68, 3), np.nan) for name in SMOOTH}
    numbers, rows = np.full(length, -1, np.int64), np.full(length, -1)
    waiting: dict[str, deque[int]] = {name: deque() for name in SMOOTH}

    def take(name: str, smoothed: Iterator[NDArray[np.float64]]) -> None:
        for landmarks in smoothed:
            index = waiting[name].popleft()
            if rows[index] >= 0:
                found[name][index] = landmarks[rows[index]]

    for index, image in enumerate(video.frames()):
        faces = tracker.step(image)
        rows[index] = _nearest(faces, video.truth[index])
        numbers[index] = faces.numbers[rows[index]] if rows[index] >= 0 else -1
        for name, smoother in smoothers.items():
            waiting[name].append(index)
            take(name, smoother.add(index / video.rate, faces.numbers, faces.answer.landmarks, faces.answer.sigma))
        progress(video.name, index + 1, length)
    for name, smoother in smoothers.items():
        take(name, smoother.finish())
    return found, numbers, 1000 * tracker.looks / length


def _nearest(faces: Tracked, truth: NDArray[np.float64]) -> int:
    """Row of the face whose middle is nearest to the true one; -1 where none is within half of its size."""
    if not len(faces.numbers) or np.isnan(truth).any():
        return -1
    middles = faces.answer.landmarks[..., :2].mean(axis=1)
    apart = np.linalg.norm(middles - truth[:, :2].mean(axis=0), axis=1)
    nearest = int(apart.argmin())
    return nearest if apart[nearest] < float(face_size(truth)) / 2 else -1
