"""Landmarks of a video without jitter: over a window around each frame for files, as they come for cameras.

Pose and shape are smoothed apart (`pose_and_shape`), so that a head which turns keeps its shape and a mouth which opens
does not move the head. Landmarks that the network is not sure of, by its sigma, are smoothed more.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import BROWS, EYES, JAW, MOUTH, NOSE, face_size
from dhm_cli.motion.local_curve import fading, local_value
from dhm_cli.motion.one_euro import OneEuro
from dhm_cli.motion.pose_and_shape import PoseAndShape, join, rotation_vectors, rotations, split

Smooth = Literal["none", "file", "live"]
SMOOTH: tuple[Smooth, ...] = get_args(Smooth)
# Half of the window of files, seconds, and fewest and most frames in it.
_HALF_WINDOW, _FEWEST, _MOST = 0.3, 4, 15
# Below the step of any clock, seconds.
_INSTANT = 1e-6
# A departure from the curve of less than this many times the noise is noise; of a pose, few numbers whose chance sums
# spread more, of less than so many times that.
_NOISE, _POSE = 3.0, 1.25
# What moves together begins at these landmarks: jaw, brows, nose, each eye, mouth. Departures are judged by group.
_MOVING = (JAW.start, BROWS.start, NOSE.start, EYES.start, EYES.start + 6, MOUTH.start)
# One Euro: least cut-off of pose and shape, hertz; what speed adds, hertz per face size a second; and the speed of
# noise, face sizes a second. On made videos of the sample photos, as JPEG and H.264, against 1, 20 and 0: jitter at
# rest 0.22 of the raw one instead of 0.26, NME when moved 0.75 instead of 1.08 %, lag at most 0.15 frames instead of
# 0.25.
_LIVE_CUTOFF, _LIVE_COEFFICIENT, _LIVE_NOISE = 1.0, 60.0, 0.05
# How far the sigma of a landmark or of a moment may count as above or below the usual one.
_MOST_SURE = 3.0


class Smoother(Protocol):
    """Smooths the faces of a video, frame by frame."""

    def add(
        self, time: float, numbers: Iterable[int], landmarks: NDArray[np.float64], sigma: NDArray[np.floating] | None
    ) -> Iterator[NDArray[np.float64]]:
        """Take the faces of the next frame.

        Args:
            time: of the frame, seconds.
            numbers: (B,), whose track each face is.
            landmarks: (B, 68, 3), pixels.
            sigma: (B, 68), pixels, or None.

        Yields:
            Smoothed landmarks (B, 68, 3) of the frames that are ready, each once and in order.
        """
        ...

    def finish(self) -> Iterator[NDArray[np.float64]]:
        """The frames that are still out, behind the last."""
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """All that the next frame depends on; `restore` takes it."""
        ...

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on where another smoother was; see `state`."""
        ...


def make_smoother(smooth: Smooth, reference: NDArray[np.float64], rate: float) -> Smoother:
    """The smoother of a name.

    Args:
        smooth: "none"; "file", over a window around each frame, without lag; "live", as the frames come.
        reference: (68, 3), the shape that poses are taken against.
        rate: frames per second.

    Raises:
        InputError: an unknown name.
    """
    if smooth not in SMOOTH:
        raise InputError(f"--smooth: expected {', '.join(SMOOTH)}, found {smooth!r}")
    if smooth == "none":
        return NoSmoother()
    return FileSmoother(reference, rate) if smooth == "file" else LiveSmoother(reference, rate)


class NoSmoother:
    """Leaves landmarks as they are; see `Smoother`."""

    def add(
        self, time: float, numbers: Iterable[int], landmarks: NDArray[np.float64], sigma: NDArray[np.floating] | None
    ) -> Iterator[NDArray[np.float64]]:
        """See `Smoother`."""
        yield landmarks

    def finish(self) -> Iterator[NDArray[np.float64]]:
        """Nothing is out."""
        return iter(())

    def state(self) -> dict[str, NDArray[Any]]:
        """Nothing is kept."""
        return {}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Nothing is kept."""


class _Clock:
    """Times that increase, whatever a file says: a step back counts as one frame."""

    def __init__(self, rate: float) -> None:
        self.rate, self.now, self.said = rate, 0.0, float("nan")

    def step(self, time: float) -> float:
        """Seconds since the frame before; of the first, one frame."""
        step = time - self.said
        self.said = time
        step = step if step > 0 else 1 / self.rate
        self.now += step
        return step


class _Seen(NamedTuple):
    """A face at a time: its pose and shape (of one frame), and its sigma, (68,), pixels or all 1."""

    time: float
    parts: PoseAndShape
    sigma: NDArray[np.float64]


class FileSmoother:
    """Parabolas through a window around each frame (`local_curve`); see `Smoother`.

    What departs from its curve by clearly more than the noise of that track is a blink or a jerk, and stays. Noise is
    the median second difference in the window.

    Args:
        reference: (68, 3), the shape that poses are taken against.
        rate: frames per second; the window reaches 0.3 seconds to both sides, 4 to 15 frames.
    """

    def __init__(self, reference: NDArray[np.float64], rate: float) -> None:
        self._reference, self._clock = reference, _Clock(rate)
        self._half = min(max(_HALF_WINDOW * rate, _FEWEST), _MOST) / rate - _INSTANT
        self._tracks: dict[int, list[_Seen]] = {}
        self._waiting: deque[tuple[float, tuple[int, ...]]] = deque()

    def add(
        self, time: float, numbers: Iterable[int], landmarks: NDArray[np.float64], sigma: NDArray[np.floating] | None
    ) -> Iterator[NDArray[np.float64]]:
        """See `Smoother`."""
        self._clock.step(time)
        now = self._clock.now
        numbers = tuple(map(int, numbers))
        if numbers:
            parts = split(landmarks, self._reference, sigma)
            widths = np.ones(landmarks.shape[:2]) if sigma is None else np.asarray(sigma, np.float64)
            for row, number in enumerate(numbers):
                one = PoseAndShape(*(part[row : row + 1] for part in parts))
                self._tracks.setdefault(number, []).append(_Seen(now, one, widths[row]))
        self._waiting.append((now, numbers))
        while self._waiting and self._waiting[0][0] <= now - self._half:
            yield self._oldest()

    def finish(self) -> Iterator[NDArray[np.float64]]:
        """See `Smoother`."""
        while self._waiting:
            yield self._oldest()

    def _oldest(self) -> NDArray[np.float64]:
        """Smoothed landmarks of the frame that waits longest."""
        time, numbers = self._waiting.popleft()
        found = [self._smoothed(self._tracks[number], time) for number in numbers]
        for number in list(self._tracks):
            kept = [seen for seen in self._tracks[number] if seen.time > time - self._half]
            self._tracks[number] = kept
            if not kept:
                del self._tracks[number]
        return np.array(found).reshape(-1, *self._reference.shape)

    def _smoothed(self, track: Sequence[_Seen], time: float) -> NDArray[np.float64]:
        window = [seen for seen in track if abs(seen.time - time) < self._half]
        centre = next(k for k, seen in enumerate(window) if seen.time == time)
        times = (np.array([seen.time for seen in window]) - time) / self._half
        parts = PoseAndShape(*(np.concatenate(part) for part in zip(*(seen.parts for seen in window), strict=True)))
        sigma = np.array([seen.sigma for seen in window])
        weights = fading(times)[:, None] / _relative(sigma, axis=0) ** 2
        size = float(np.exp(parts.log_scale[centre]) * face_size(self._reference))
        turn = rotation_vectors(np.swapaxes(parts.rotation[centre], 0, 1) @ parts.rotation)
        # In one unit, face sizes: a turn by an angle moves the outline of a face by half of it.
        pose = np.concatenate([parts.place / size, parts.log_scale[:, None] / 2, turn / 2], axis=1)[:, None]
        unsure = np.maximum(_relative(sigma[centre], axis=0), 1.0)
        (smooth,) = _without_noise(pose, local_value(pose, times, weights.mean(axis=1)), centre, more=_POSE)
        curve = local_value(parts.shape, times, weights, unsure**2)
        more = np.add.reduceat(unsure, _MOVING) / np.diff([*_MOVING, len(unsure)])
        shape = _without_noise(parts.shape, curve, centre, _MOVING, more)
        found = PoseAndShape(
            smooth[None, :3] * size,
            2 * smooth[None, 3],
            parts.rotation[centre] @ rotations(2 * smooth[None, 4:]),
            shape[None],
        )
        return join(found)[0]

    def state(self) -> dict[str, NDArray[Any]]:
        """See `Smoother`."""
        rows = [(number, seen) for number, track in self._tracks.items() for seen in track]
        named = {name: np.array([getattr(s.parts, name)[0] for _, s in rows]) for name in PoseAndShape._fields}
        faces = [(k, number) for k, (_, numbers) in enumerate(self._waiting) for number in numbers]
        return {
            **(named if rows else {}),
            "sigma": np.array([seen.sigma for _, seen in rows]),
            "times": np.array([seen.time for _, seen in rows]),
            "numbers": np.array([number for number, _ in rows], np.int64),
            "clock": np.array([self._clock.now, self._clock.said]),
            "waiting": np.array([time for time, _ in self._waiting]),
            "faces": np.array(faces, np.int64).reshape(-1, 2),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See `Smoother`."""
        self._clock.now, self._clock.said = state["clock"].tolist()
        self._tracks = {}
        for row, number in enumerate(state["numbers"].tolist()):
            parts = PoseAndShape(*(state[name][row : row + 1] for name in PoseAndShape._fields))
            seen = _Seen(float(state["times"][row]), parts, state["sigma"][row])
            self._tracks.setdefault(number, []).append(seen)
        faces = state["faces"]
        self._waiting = deque(
            (time, tuple(faces[faces[:, 0] == k, 1].tolist())) for k, time in enumerate(state["waiting"].tolist())
        )


def _relative(sigma: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Sigma over its median along an axis, within limits."""
    usual = np.sort(sigma, axis=axis).take([sigma.shape[axis] // 2], axis=axis)
    return np.clip(sigma / np.maximum(usual, 1e-9), 1 / _MOST_SURE, _MOST_SURE)  # type: ignore[no-any-return]


def _without_noise(
    values: NDArray[np.float64],
    curve: NDArray[np.float64],
    centre: int,
    starts: Sequence[int] = (0,),
    more: NDArray[np.float64] | float = 1.0,
) -> NDArray[np.float64]:
    """A curve, with what clearly departs from it.

    Args:
        values: (n, K, D), K vectors over time.
        curve: (K, D), what they should be at `centre`.
        centre: one of the n.
        starts: where in K the groups begin that move together.
        more: (groups,), what the noise is multiplied by.

    Returns:
        (K, D): curve + g (value - curve) with g = max(0, 1 - (3 noise / |value - curve|)^2), the same for a group.
        The noise is the median length of the second differences over time, over sqrt(6).
    """
    if len(values) < 3:
        return curve
    departure = values[centre] - curve
    bends = values[:-2] - 2 * values[1:-1] + values[2:]
    squares = np.add.reduceat((bends * bends).sum(axis=2), starts, axis=1) / 6
    noise = (_NOISE * np.asarray(more)) ** 2 * np.sort(squares, axis=0)[len(squares) // 2]
    away = np.add.reduceat((departure * departure).sum(axis=1), starts)
    gain = np.maximum(0.0, 1.0 - noise / np.maximum(away, 1e-24))
    return curve + np.repeat(gain, np.diff([*starts, len(curve)]))[:, None] * departure  # type: ignore[no-any-return]


class LiveSmoother:
    """The One Euro filter on the pose and on the shape of each face; see `Smoother`.

    Args:
        reference: (68, 3), the shape that poses are taken against.
        rate: frames per second, for times that do not increase.
    """

    def __init__(self, reference: NDArray[np.float64], rate: float) -> None:
        self._reference, self._clock = reference, _Clock(rate)
        self._size = float(face_size(reference))
        self._tracks: dict[int, _LiveTrack] = {}

    def add(
        self, time: float, numbers: Iterable[int], landmarks: NDArray[np.float64], sigma: NDArray[np.floating] | None
    ) -> Iterator[NDArray[np.float64]]:
        """See `Smoother`."""
        self._clock.step(time)
        parts = split(landmarks, self._reference, sigma)
        found = []
        for row, number in enumerate(map(int, numbers)):
            one = PoseAndShape(*(part[row] for part in parts))
            track = self._tracks.setdefault(number, _LiveTrack())
            unsure = 1.0 if sigma is None else _relative(np.asarray(sigma[row], np.float64), axis=0)
            found.append(track.add(one, self._clock.now, self._size, unsure))
        # A track that comes back within a second goes on, one that is gone for longer begins anew.
        self._tracks = {k: track for k, track in self._tracks.items() if self._clock.now - track.time < 1.0}
        yield np.array(found).reshape(-1, *self._reference.shape)

    def finish(self) -> Iterator[NDArray[np.float64]]:
        """Nothing is out."""
        return iter(())

    def state(self) -> dict[str, NDArray[Any]]:
        """See `Smoother`."""
        tracks = {f"{number}.{name}": value for number, t in self._tracks.items() for name, value in t.state().items()}
        return {**tracks, "clock": np.array([self._clock.now, self._clock.said])}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See `Smoother`."""
        self._clock.now, self._clock.said = state["clock"].tolist()
        for number in dict.fromkeys(name.partition(".")[0] for name in state if "." in name):
            self._tracks[int(number)] = track = _LiveTrack()
            track.restore({k.partition(".")[2]: v for k, v in state.items() if k.startswith(f"{number}.")})


class _LiveTrack:
    """The filters of one face: of its pose, always counted from where it was filtered to before, and of its shape."""

    def __init__(self) -> None:
        self.time = float("nan")
        self._pose, self._shape = (OneEuro(_LIVE_CUTOFF, _LIVE_COEFFICIENT, least_speed=_LIVE_NOISE) for _ in range(2))
        self._at = PoseAndShape(np.zeros(3), np.zeros(()), np.eye(3), np.zeros(()))

    def add(
        self, parts: PoseAndShape, time: float, reference_size: float, unsure: NDArray[np.float64] | float
    ) -> NDArray[np.float64]:
        """The filtered landmarks (68, 3) of the parts of one frame."""
        seconds = time - self.time
        if np.isnan(self.time):
            self._at = parts
        self.time, at = time, self._at
        size = float(np.exp(at.log_scale)) * reference_size
        turn = rotation_vectors(at.rotation.T @ parts.rotation)
        # In one unit, face sizes: a turn by an angle moves the outline of a face by half of it.
        pose = [(parts.place - at.place) / size, (parts.log_scale - at.log_scale)[None] / 2, turn / 2]
        step = self._pose(np.concatenate(pose), seconds)
        self._pose.count_from_here()
        shape = self._shape(parts.shape / reference_size, seconds, unsure) * reference_size
        rotation = at.rotation @ rotations(2 * step[4:])
        self._at = PoseAndShape(at.place + step[:3] * size, at.log_scale + 2 * step[3], rotation, shape)
        return join(PoseAndShape(*(part[None] for part in self._at)))[0]

    def state(self) -> dict[str, NDArray[Any]]:
        """See `Smoother`."""
        filters = {"pose": self._pose.state(), "filter": self._shape.state()}
        flat = {f"{name}.{key}": value for name, part in filters.items() for key, value in part.items()}
        return {**flat, **{f"at.{k}": v for k, v in self._at._asdict().items()}, "time": np.array(self.time)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See `Smoother`."""
        self.time = float(state["time"])
        self._at = PoseAndShape(*(state[f"at.{name}"] for name in PoseAndShape._fields))
        for name, part in (("pose", self._pose), ("filter", self._shape)):
            part.restore({key: state[f"{name}.{key}"] for key in ("value", "speed")})
