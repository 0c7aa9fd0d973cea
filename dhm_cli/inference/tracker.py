"""Faces through the frames of a video: each is looked for where it was, and keeps its number.

A face that was seen in the frame before needs one pass of the network over the upright square of its last landmarks,
moved on as it moved; the network's confidence says when it is lost. The detector looks when a face is lost, when there
is none, and at times for new ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dhm_cli.geometry.landmarks import face_size
from dhm_cli.inference.engines import Answer, Engine
from dhm_cli.inference.face_box import Detector, crop_square_from_box
from dhm_cli.inference.passes import BELIEVED, find_landmarks, follow_landmarks
from dhm_cli.inference.track import Track, in_one_place, look_of, middle_of, unlikeness

# Frames between two looks of the detector for new faces, and while a face is lost or there is none.
LOOK_EVERY, LOOK_FOR_LOST = 30, 5
# Frames for which a face that is lost keeps its number.
PATIENCE = 30
# How far from where it is expected a face may be, and by how much more for every frame in which it was not seen, share
# of its size; and how much it may have grown, logarithm.
_FARTHEST, _FARTHER, _MOST_GROWN = 0.8, 0.05, 0.5
# Looks that differ by this much tell faces apart. The same face moved, blurred, darker and with noise differs by less
# than 0.16 in 99 of 100 cases, two people by more than 0.26 in 95 (95 faces of AFW).
_CLEARLY, _UNLIKE = 0.1, 0.5
# Tracks nearer than this may be mixed up, share of the smaller one's size; looks are remembered of those that are not.
_NEAR = 1.2
# Frames between two looks that are remembered.
_REMEMBER_EVERY = 5


class Tracked(NamedTuple):
    """The faces in a frame.

    Attributes:
        numbers: (B,) int64, whose track each is, increasing.
        answer: what the network says of them, frame pixels; landmarks (B, 68, 3) float64, z with a mean of 0.
        scores: (B,) of the detector, NaN where it did not look.
    """

    numbers: NDArray[np.int64]
    answer: Answer
    scores: NDArray[np.float64]

    @staticmethod
    def join(faces: "Mapping[int, tuple[Answer, float]]") -> "Tracked":
        """Faces by number, each an answer of one row and a score."""
        numbers = sorted(faces)
        answer = Answer.join([faces[k][0] for k in numbers]) if numbers else Answer(np.empty((0, 68, 3)))
        return Tracked(np.array(numbers, np.int64), answer, np.array([faces[k][1] for k in numbers], np.float64))


class FaceFinder(Protocol):
    """What a tracker looks with: an `Aligner`."""

    engine: Engine
    scout: Engine
    detector: Detector

    def align(self, image: NDArray[np.uint8]) -> Sequence[Any]:
        """All faces of an image, any way up: `aligner.Face`s."""
        ...


class Tracker:
    """Follow the faces of a video, frame by frame. Not for several threads.

    Args:
        finder: an `Aligner`. Where its network tells no confidence, its detector looks in every frame.
        look_every: frames between two looks for new faces.

    Attributes:
        looks: frames at which the detector looked.
    """

    def __init__(self, finder: FaceFinder, look_every: int = LOOK_EVERY) -> None:
        self._finder, self._look_every = finder, look_every
        self._mean_shape = finder.engine.mean_shape
        self._tracks: list[Track] = []
        self._near: set[tuple[int, int]] = set()  # pairs of numbers that may have been mixed up
        self._frame, self._next, self.looks = -1, 0, 0
        # Frames of the last look, and of the last one at turned copies.
        self._looked, self._turned = -look_every, -look_every

    @property
    def tracks(self) -> int:
        """How many numbers it has given."""
        return self._next

    def step(self, image: NDArray[np.uint8] | None) -> Tracked:
        """The faces in the next frame.

        Args:
            image: (H, W, 3) uint8 RGB, upright; None for a frame that is damaged.

        Raises:
            DhmError: the network answered something that is no number.
        """
        self._frame += 1
        if image is None:
            return Tracked.join({})
        seen = self._follow(image) if self._finder.engine.doubts and self._tracks else {}
        if self._must_look():
            self.looks, self._looked = self.looks + 1, self._frame
            seen |= self._look(image, seen)
        self._tracks = [track for track in self._tracks if self._frame - track.frame <= PATIENCE]
        if len(self._tracks) > 1 or self._near:
            seen = self._keep_apart(image, seen)
        if self._frame % _REMEMBER_EVERY == 0:
            near = {number for pair in self._near for number in pair}
            for track in self._tracks:
                if track.frame == self._frame and track.number not in near:
                    track.remember(look_of(image, track.landmarks, self._mean_shape))
        return Tracked.join(seen)

    def _follow(self, image: NDArray[np.uint8]) -> dict[int, tuple[Answer, float]]:
        """The faces that are seen where they should be, by number."""
        squares = [track.square(self._frame, self._mean_shape) for track in self._tracks]
        answer = _centred(follow_landmarks(self._finder.engine, image, squares))
        assert answer.confidence is not None
        claims = {
            row: track
            for row, track in enumerate(self._tracks)
            if answer.confidence[row] >= BELIEVED
            and self._may_be(track, answer.landmarks[row])
            and (track.frame == self._frame - 1 or self._looks_like(track, image, answer.landmarks[row]))
        }
        for a, b in _in_one_place(answer.landmarks, list(claims)):
            if a in claims and b in claims:
                del claims[self._impostor(image, answer, a, b)]
        for row, track in enumerate(self._tracks):
            if row in claims:
                track.see(self._frame, answer.landmarks[row])
            elif track.frame == self._frame - 1:
                track.forget_slide()
        return {track.number: (answer.take(slice(row, row + 1)), np.nan) for row, track in claims.items()}

    def _may_be(self, track: Track, landmarks: NDArray[np.float64]) -> bool:
        """Whether landmarks (68, 3) lie where a track may be in this frame."""
        allowed = _FARTHEST + _FARTHER * (self._frame - track.frame - 1)
        away = np.linalg.norm(middle_of(landmarks) - track.expected(self._frame)) / track.size
        grown = abs(np.log(max(float(face_size(landmarks)), 1e-9) / track.size))
        return bool(away < allowed and grown < _MOST_GROWN)

    def _looks_like(self, track: Track, image: NDArray[np.uint8], landmarks: NDArray[np.float64]) -> bool:
        return unlikeness(track, look_of(image, landmarks, self._mean_shape)) < _UNLIKE

    def _impostor(self, image: NDArray[np.uint8], answer: Answer, a: int, b: int) -> int:
        """Which of two tracks that see one face has lost its own: the row of it."""
        tracks = self._tracks[a], self._tracks[b]
        looks = [
            unlikeness(track, look_of(image, answer.landmarks[row], self._mean_shape))
            for row, track in zip((a, b), tracks, strict=True)
        ]
        if abs(looks[0] - looks[1]) > _CLEARLY:
            return a if looks[0] > looks[1] else b
        unseen = [self._frame - track.frame for track in tracks]
        if unseen[0] != unseen[1]:
            return a if unseen[0] > unseen[1] else b
        away = [
            float(np.linalg.norm(middle_of(answer.landmarks[row]) - track.expected(self._frame)))
            for row, track in zip((a, b), tracks, strict=True)
        ]
        return a if away[0] > away[1] else b

    def _must_look(self) -> bool:
        """Whether the detector looks at this frame."""
        since = self._frame - self._looked
        if not self._finder.engine.doubts or since >= self._look_every:
            return True
        if not self._tracks:
            return since >= LOOK_FOR_LOST
        return any(unseen == 1 or (unseen and unseen % LOOK_FOR_LOST == 0) for unseen in self._unseen())

    def _unseen(self) -> Iterator[int]:
        """For how many frames each track has not been seen."""
        return (self._frame - track.frame for track in self._tracks)

    def _look(
        self, image: NDArray[np.uint8], seen: Mapping[int, tuple[Answer, float]]
    ) -> dict[int, tuple[Answer, float]]:
        """Faces that are not among those seen: tracks that were lost, and new ones."""
        answer, scores = self._detected(image)
        lost = [track for track in self._tracks if track.number not in seen]
        taken = [face.landmarks[0] for face, _ in seen.values()]
        found: dict[int, tuple[Answer, float]] = {}
        for row in range(len(scores)):
            landmarks = answer.landmarks[row]
            doubtful = answer.confidence is not None and answer.confidence[row] < BELIEVED
            if doubtful or (taken and in_one_place(landmarks, np.array(taken)).any()):
                continue
            taken.append(landmarks)
            look = look_of(image, landmarks, self._mean_shape)
            near = [track for track in lost if self._may_be(track, landmarks)]
            likely = [track for track in near if unlikeness(track, look) < _UNLIKE]
            if likely:
                track = min(likely, key=lambda track: unlikeness(track, look))
                lost.remove(track)
                track.see(self._frame, landmarks)
            elif near and self._is_beside_another(landmarks, seen):
                continue  # a lost face that is half covered looks like nobody: it is no new one
            else:
                track = Track.begin(self._next, self._frame, landmarks, look)
                self._tracks.append(track)
                self._next += 1
            found[track.number] = answer.take(slice(row, row + 1)), float(scores[row])
        return found

    def _is_beside_another(self, landmarks: NDArray[np.float64], seen: Mapping[int, tuple[Answer, float]]) -> bool:
        """Whether a face that is seen may cover a part of these landmarks (68, 3)."""
        return any(_distance(landmarks, face.landmarks[0]) < _NEAR for face, _ in seen.values())

    def _detected(self, image: NDArray[np.uint8]) -> tuple[Answer, NDArray[np.float64]]:
        """What the network says of the faces that the detector sees, and the detector's scores (B,).

        Where there is no track the image is at times turned too, as a photo is.
        """
        finder = self._finder
        if not self._tracks and self._frame - self._turned >= self._look_every:
            self._turned = self._frame
            faces = finder.align(image)
            parts = [np.array([face.landmarks for face in faces]).reshape(-1, 68, 3)]
            if finder.engine.doubts:
                parts += [np.array([getattr(face, name) for face in faces]) for name in Answer._fields[1:]]
            return Answer(*parts), np.array([face.score for face in faces])
        known = [(middle_of(t.landmarks), t.size) for t in self._tracks if t.frame == self._frame]
        boxes = [
            (square, box.score)
            for box in finder.detector.detect(image)
            for square in [crop_square_from_box(box)]
            if not any(np.linalg.norm(square[0] - middle) < size / 2 for middle, size in known)
        ]
        if not boxes:
            return Answer(np.empty((0, 68, 3))), np.empty(0)
        squares = [square for square, _ in boxes]
        answer = find_landmarks(finder.scout, finder.engine, [image] * len(squares), squares, 1)
        return _centred(answer), np.array([score for _, score in boxes])

    def _keep_apart(
        self, image: NDArray[np.uint8], seen: dict[int, tuple[Answer, float]]
    ) -> dict[int, tuple[Answer, float]]:
        """Note which tracks come near each other; when they part, give each its own number back, by their looks."""
        by_number = {track.number: track for track in self._tracks}
        for a, b in combinations(self._tracks, 2):
            apart = np.linalg.norm(a.expected_or_seen(self._frame) - b.expected_or_seen(self._frame))
            if apart < _NEAR * min(a.size, b.size):
                self._near.add((a.number, b.number))
            elif (a.number, b.number) in self._near and a.number in seen and b.number in seen:
                self._near.remove((a.number, b.number))
                look_a, look_b = (look_of(image, track.landmarks, self._mean_shape) for track in (a, b))
                as_it_is = unlikeness(a, look_a) + unlikeness(b, look_b)
                if as_it_is - unlikeness(a, look_b) - unlikeness(b, look_a) > _CLEARLY:
                    a.swap(b)
                    seen = {**seen, a.number: seen[b.number], b.number: seen[a.number]}
        self._near = {pair for pair in self._near if pair[0] in by_number and pair[1] in by_number}
        return seen

    def state(self) -> dict[str, NDArray[Any]]:
        """All that the next frame depends on; `restore` takes it."""
        tracks = [track.state() for track in self._tracks]
        state = {name: np.array([track[name] for track in tracks]) for name in (tracks[0] if tracks else ())}
        near = np.array(sorted(self._near), np.int64).reshape(-1, 2)
        return {**state, "at": np.array([self._frame, self._next, self._looked, self._turned]), "near": near}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on where another tracker was; see `state`."""
        self._frame, self._next, self._looked, self._turned = state["at"].tolist()
        self._near = {(a, b) for a, b in state["near"].tolist()}
        count = len(state["number"]) if "number" in state else 0
        self._tracks = [Track.restored({name: state[name][k] for name in Track.STATE}) for k in range(count)]


def _centred(answer: Answer) -> Answer:
    """The answer with a mean z of 0."""
    landmarks = answer.landmarks.copy()
    landmarks[..., 2] -= landmarks[..., 2].mean(axis=1, keepdims=True)
    return answer._replace(landmarks=landmarks)


def _distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Between the middles of two faces (68, 3), share of the smaller one's size."""
    size = max(min(float(face_size(a)), float(face_size(b))), 1e-9)
    return float(np.linalg.norm(middle_of(a) - middle_of(b))) / size


def _in_one_place(landmarks: NDArray[np.float64], rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pairs of rows whose faces lie in one place."""
    if len(rows) > 1:
        chosen = landmarks[list(rows)]
        same = np.triu(in_one_place(chosen[:, None], chosen[None]), 1)
        yield from ((rows[a], rows[b]) for a, b in np.argwhere(same).tolist())
