"""A video, or a camera, to an output: `align_video`, the work of `dhm align` on them."""

import json
import os
import time
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dhm_cli.alignment.dense import DenseOptions
from dhm_cli.alignment.filters import Filters
from dhm_cli.errors import InputError
from dhm_cli.geometry.pose import Angles
from dhm_cli.inference.aligner import Aligner, Face
from dhm_cli.inference.columns import DEFAULT_COLUMNS, FRAME_KEYS, Layout, with_angles, with_crops
from dhm_cli.inference.engines import Answer
from dhm_cli.inference.face_box import MIN_SCORE
from dhm_cli.inference.results import NO_FACE, OK, UNREADABLE, PhotoResult, partial_path
from dhm_cli.inference.surfaces import TrackSurfaces
from dhm_cli.inference.tracker import Tracked, Tracker
from dhm_cli.io.camera import Camera
from dhm_cli.io.clip import Clip, Frame
from dhm_cli.io.images import MOST_PIXELS
from dhm_cli.motion.smoothing import Smooth, make_smoother
from dhm_cli.runtime.atomic import written_atomically
from dhm_cli.runtime.outputs import is_stream
from dhm_cli.runtime.threads import ahead, single_threaded_opencv
from dhm_cli.writers.drawn_video import DrawnVideo
from dhm_cli.writers.face_page import is_page
from dhm_cli.writers.frame_pictures import FramePictures
from dhm_cli.writers.overlays import DEFAULT_PARTS
from dhm_cli.writers.registry import Outputs

# Frames that are decoded ahead of the network, and frames between two points from which an interrupted run can go on.
_AHEAD, STRIDE = 8, 600
_DAMAGED = "damaged"


class Source(Protocol):
    """Where frames come from: `clip.Clip` or `camera.Camera`."""

    name: str
    frames: int
    rate: float

    def read(self, start: int = 0) -> Iterator[Frame]:
        """The frames in order; those before `start` without their images."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


@dataclass(frozen=True)
class VideoReport:
    """What a run did.

    Attributes:
        name: of the video.
        frames: in the output.
        kept: how many of them were taken over from an interrupted run.
        faces: rows of faces.
        doubtful: how many of them are doubtful.
        tracks: numbers given to faces.
        without: frames without a face.
        damaged: frames that could not be decoded.
        lost: frames that the file promises and does not hold, at its end.
        seconds: duration, loading not included.
        incomplete: frames without a crop or a mesh of each face, where these were asked for.
        problem: why the first of them lacks one.
    """

    name: str
    frames: int
    kept: int
    faces: int
    doubtful: int
    tracks: int
    without: int
    damaged: int
    lost: int
    seconds: float
    incomplete: int = 0
    problem: str = ""


def align_video(
    video: str | os.PathLike[str] | int,
    out: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    overlay: str | os.PathLike[str] | None = None,
    draw: Sequence[str] = DEFAULT_PARTS,
    crop_dir: str | os.PathLike[str] | None = None,
    crop_size: int | None = None,
    crop_style: str = "face",
    smooth: Smooth | None = None,
    dense: DenseOptions = DenseOptions(),  # noqa: B008  it cannot be changed
    device: str = "auto",
    min_score: float = MIN_SCORE,
    model: str | os.PathLike[str] | None = None,
    face_model: str | os.PathLike[str] | None = None,
    most_pixels: int = MOST_PIXELS,
    min_confidence: float = 0.0,
    min_size: float = 0.0,
    largest: bool = False,
    max_faces: int | None = None,
    columns: Sequence[str] = ("track", *DEFAULT_COLUMNS),
    angles: Angles = "yaw-pitch-roll",
    stream: str | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> VideoReport:
    """Follow the faces of a video and write them to outputs, frame by frame (`dhm_cli.writers.registry`).

    The video is read once, by a thread of its own, and memory does not grow with its length. An exception leaves what
    is done in `<out>.partial`, where `resume` picks it up at every 600th frame; a resumed run gives the same output as
    one that was not interrupted. A camera has no end: Ctrl-C ends it as the end of a file does.

    Args:
        video: a file, or the number of a camera.
        out: the output, or several; replaced at the very end.
        overlay: an MP4 of the video with its faces drawn.
        draw: what it draws of them, names of `heads.PARTS`.
        crop_dir: where to save a crop of each face of each frame, `<video>_<frame>_<track>.jpg`.
        crop_size, crop_style: see `crops.crop`.
        smooth: a name of `motion.smoothing.SMOOTH`; None for "file", of a camera "live".
        dense: meshes, `<video>_<frame>_<track>.obj`, and what surfaces are fitted with, one identity a track.
        device, min_score, model, face_model: see `Aligner`.
        most_pixels: a video whose frames have more is refused.
        min_confidence, min_size, largest, max_faces: see `Filters`; faces that are left out are followed all the same.
        columns: groups of columns, names of `columns.COLUMN_GROUPS`; see `photos.align_files` for those of crops.
        angles: see `photos.align_files`.
        stream: see `photos.align_files`.
        resume: go on with an interrupted run that had the same arguments.
        force: replace files that dhm did not write.
        progress: called as (frames done, frames in all or 0), first with the number kept.

    Returns:
        Counts.

    Raises:
        DhmError: the video, an option or an output cannot be used. A damaged frame does not raise.
    """
    filters = Filters(min_confidence, min_size, largest, max_faces)
    is_camera = isinstance(video, int)
    outs = [out] if isinstance(out, str | os.PathLike) else list(out)
    smooth = smooth or ("live" if is_camera else "file")
    if is_camera and resume:
        raise InputError("--resume: what a camera saw is gone", "leave it out")
    with ExitStack() as stack:
        source: Source = Camera(video) if isinstance(video, int) else Clip(video, most_pixels)
        stack.enter_context(closing(source))
        aligner = Aligner(device, min_score=min_score, model=model, face_model=face_model)
        seconds = source.frames / source.rate
        pages = any(map(is_page, outs))
        name = Path(source.name)
        meshes = dense.meshes([name], force)
        pictures = FramePictures(name, seconds, crop_dir, crop_size, crop_style, meshes, pages, force)
        work = _Work(aligner, smooth, source.rate, overlay is not None or pictures.are_made)
        files = [file for file in (None if is_camera else video, model, face_model, dense.model) if file is not None]
        inputs = [Path(str(file)) for file in files]
        layout = Layout(with_angles(with_crops(columns, crop_dir is not None), angles), FRAME_KEYS)
        writer = stack.enter_context(closing(Outputs(outs, layout, resume, inputs, force, stream)))
        drawn = None
        if overlay is not None:
            drawn = stack.enter_context(closing(DrawnVideo(Path(overlay), source.rate, draw, inputs, force)))
        options = [smooth, min_score, asdict(filters), list(draw), str(dense), *pictures.options]
        key = json.dumps([_identity(source), aligner.engine.weights_hash, *options])
        checkpoint = _Checkpoint(None if is_camera else _checkpoint_path(outs), key)
        are_dense = dense.wanted(layout.names, None if overlay is None else draw)
        surfaces = TrackSurfaces(dense.face) if are_dense else None
        run = _Run(source, work, filters, pictures, writer, drawn, checkpoint, surfaces)
        stack.enter_context(single_threaded_opencv())
        run.go_on_from_checkpoint()
        return run.run(progress, is_camera)


def _identity(source: Source) -> list[Any]:
    """What tells a video file from others without reading it."""
    if not isinstance(source, Clip):
        return [source.name]
    status = source.path.stat()
    return [status.st_size, status.st_mtime_ns]


def _checkpoint_path(outs: Sequence[str | os.PathLike[str]]) -> Path | None:
    """Beside the partial file of the first output that is none."""
    files = [Path(os.path.realpath(out)) for out in outs if not is_stream(Path(out))]
    return files[0].with_name(f"{partial_path(files[0]).name}-state") if files else None


class _Work:
    """Tracker and smoother: frames in, frames with their faces out, in order and maybe later."""

    def __init__(self, aligner: Aligner, smooth: Smooth, rate: float, keep_images: bool) -> None:
        self._aligner, self.keep_images = aligner, keep_images
        self.tracker = Tracker(aligner)
        self._smoother = make_smoother(smooth, aligner.engine.mean_shape, rate)
        self.waiting: deque[tuple[Frame, Tracked]] = deque()
        self.next = 0

    def add(self, frame: Frame) -> Iterator[tuple[Frame, list[Face]]]:
        """Take the next frame; the frames that are ready."""
        found = self.tracker.step(frame.image)
        self.next = frame.index + 1
        self.waiting.append((frame if self.keep_images else replace(frame, image=None), found))
        answer = found.answer
        yield from self._ready(self._smoother.add(frame.time, found.numbers, answer.landmarks, answer.sigma))

    def finish(self) -> Iterator[tuple[Frame, list[Face]]]:
        """The frames that are still out."""
        yield from self._ready(self._smoother.finish())

    def _ready(self, smoothed: Iterator[NDArray[np.float64]]) -> Iterator[tuple[Frame, list[Face]]]:
        for landmarks in smoothed:
            frame, found = self.waiting.popleft()
            yield frame, self._aligner.faces_of(found, landmarks)

    def state(self) -> dict[str, NDArray[Any]]:
        """All that the next frame depends on, but for images; `restore` takes it."""
        found = [found for _, found in self.waiting]
        rows = [row for row in found if len(row.numbers)]
        faces = Answer.join([row.answer for row in rows]) if rows else Answer(np.empty((0, 68, 3)))
        return {
            **{f"tracker.{name}": value for name, value in self.tracker.state().items()},
            **{f"smoother.{name}": value for name, value in self._smoother.state().items()},
            **{f"face.{name}": value for name, value in faces._asdict().items() if value is not None},
            "numbers": np.concatenate([np.empty(0, np.int64), *(row.numbers for row in found)]),
            "scores": np.concatenate([np.empty(0), *(row.scores for row in found)]),
            "counts": np.array([len(row.numbers) for row in found], np.int64),
            "frames": np.array([frame.index for frame, _ in self.waiting], np.int64),
            "times": np.array([frame.time for frame, _ in self.waiting]),
            "damaged": np.array([frame.damaged for frame, _ in self.waiting], bool),
            "next": np.array(self.next),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on where another was; see `state`."""
        self.tracker.restore(_below(state, "tracker."))
        self._smoother.restore(_below(state, "smoother."))
        faces, start = Answer(**_below(state, "face.")), 0
        self.waiting.clear()
        rows = zip(*(state[name].tolist() for name in ("frames", "times", "damaged", "counts")), strict=True)
        for index, time_, damaged, count in rows:
            part = slice(start, start + count)
            found = Tracked(state["numbers"][part], faces.take(part), state["scores"][part])
            self.waiting.append((Frame(index, time_, None, damaged), found))
            start += count
        self.next = int(state["next"])

    def give_image(self, frame: Frame) -> None:
        """Take the image of a frame that waits since before an interruption."""
        for k, (waiting, found) in enumerate(self.waiting):
            if waiting.index == frame.index:
                self.waiting[k] = replace(waiting, image=frame.image), found


def _below(state: Mapping[str, NDArray[Any]], name: str) -> dict[str, NDArray[Any]]:
    """Part of a state, by its names without their beginning."""
    return {key.removeprefix(name): value for key, value in state.items() if key.startswith(name)}


class _Checkpoint:
    """The file from which an interrupted run goes on; without a path nothing is kept.

    It is written when the frame behind it has been, for the last frame of an interrupted output may be torn.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self._path, self._key = path, key
        self._next: dict[str, NDArray[Any]] | None = None

    def take(self, state: dict[str, NDArray[Any]], written: int) -> None:
        """Keep a state that belongs to so many written frames, for the next `save`."""
        self._next = {**state, "written": np.array(written), "key": np.array(self._key)}

    def save(self) -> None:
        """Write the state that was taken last, once."""
        if self._path is not None and self._next is not None:
            with written_atomically(self._path) as partial, partial.open("wb") as file:
                np.savez(file, **self._next)  # type: ignore[arg-type]
        self._next = None

    def load(self) -> dict[str, NDArray[Any]] | None:
        """What was saved; None where there is nothing, or a damaged file.

        Raises:
            InputError: it is of a run with other options.
        """
        if self._path is None:
            return None
        try:
            with np.load(self._path, allow_pickle=False) as kept:
                state = {name: kept[name] for name in kept.files}
            key = str(state["key"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        if key != self._key:
            raise InputError(
                f"{self._path}: of an interrupted run of another video or with other options",
                f"give the same ones, or delete {self._path.name.removesuffix('-state')} to start anew",
            )
        return state

    def remove(self) -> None:
        """Remove the file, if there is one."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


class _Run:
    """One run: frames from a source to the outputs, with a checkpoint at every `STRIDE` frames."""

    def __init__(
        self,
        source: Source,
        work: _Work,
        filters: Filters,
        pictures: FramePictures,
        writer: Outputs,
        drawn: DrawnVideo | None,
        checkpoint: _Checkpoint,
        surfaces: TrackSurfaces | None,
    ) -> None:
        self._source, self._work, self._filters, self._pictures = source, work, filters, pictures
        self._writer, self._drawn, self._checkpoint = writer, drawn, checkpoint
        self._surfaces = surfaces
        self._count: Counter[str] = Counter()
        self._problem = ""

    def go_on_from_checkpoint(self) -> None:
        """Take over what an interrupted run has done up to its last checkpoint; without one, begin anew."""
        finished = list(self._writer.finished.values())
        state = self._checkpoint.load() if finished else None
        written = 0 if state is None else int(state["written"])
        if written > len(finished) or (self._drawn is not None and written > self._drawn.parts * STRIDE):
            written = 0
        self._writer.keep(written)
        if self._drawn is not None:
            self._drawn.keep(written // STRIDE)
        if state is not None and written:
            self._work.restore(state)
            if self._surfaces is not None:
                self._surfaces.restore(_below(state, "surfaces."))
            self._pictures.restore(_below(state, "pictures."))
        for result in finished[:written]:
            self._add(result)
        self._count["kept"] = written

    def run(self, progress: Callable[[int, int], None], endless: bool) -> VideoReport:
        """Work to the end, or where the video is `endless` to Ctrl-C; what came of it."""
        start, total = time.perf_counter(), self._source.frames
        progress(self._count["frames"], total)
        try:
            for frame in self._frames(endless):
                for ready, faces in self._work.add(frame):
                    self._write(ready, faces)
                progress(self._count["frames"], total)
        except KeyboardInterrupt:
            if not endless:
                raise
        for ready, faces in self._work.finish():
            self._write(ready, faces)
        progress(self._count["frames"], total)
        if self._drawn is not None:
            self._drawn.finish()
        self._writer.finish()
        self._checkpoint.remove()
        count = self._count
        return VideoReport(
            self._source.name,
            count["frames"],
            count["kept"],
            count["faces"],
            count["doubtful"],
            self._work.tracker.tracks,
            count[NO_FACE],
            count[UNREADABLE],
            getattr(self._source, "lost", 0),
            time.perf_counter() - start,
            count["incomplete"],
            self._problem,
        )

    def _frames(self, endless: bool) -> Iterator[Frame]:
        """The frames that are still to do, decoded ahead; a camera's as they come, so that none is old."""
        first = self._work.next
        waiting = [frame.index for frame, _ in self._work.waiting]
        start = min([first, *waiting]) if self._work.keep_images else first
        frames = self._source.read(start)
        with closing(frames if endless else ahead(frames, _AHEAD)) as decoded:  # type: ignore[type-var]
            for frame in decoded:
                if frame.index >= first:
                    yield frame
                elif frame.image is not None:
                    self._work.give_image(frame)

    def _write(self, frame: Frame, found: list[Face]) -> None:
        """One frame to the outputs."""
        faces, left_out = self._filters(found)
        if self._surfaces is not None:
            faces = self._surfaces(faces)
        problem = ""
        if frame.image is not None:
            faces, problem = self._pictures.make(frame.index, frame.time, frame.image, faces)
            self._count["incomplete"] += bool(problem)
            self._problem = self._problem or problem
        status = UNREADABLE if frame.damaged else OK if faces else NO_FACE
        problems = (_DAMAGED,) if frame.damaged else ()
        doubtful = sum(face.doubtful for face in faces)
        result = PhotoResult(self._source.name, status, len(faces), problems, "", doubtful, left_out)
        result = replace(result, frame=frame.index, time=frame.time)
        self._writer.write(result, faces)
        if self._drawn is not None:
            self._drawn.write(frame.image, frame.time, faces)
        self._checkpoint.save()
        self._add(result)
        if self._count["frames"] % STRIDE == 0:
            if self._drawn is not None:
                self._drawn.end_part()
            parts = {"pictures": self._pictures.state()}
            if self._surfaces is not None:
                parts["surfaces"] = self._surfaces.state()
            told = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
            self._checkpoint.take(self._work.state() | told, self._count["frames"])

    def _add(self, result: PhotoResult) -> None:
        self._count.update({"frames": 1, result.status: 1, "faces": result.faces, "doubtful": result.doubtful})
