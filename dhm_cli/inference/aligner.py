"""The landmarks of the faces in one photo: detector, crops, network, refining pass, head pose."""

import math
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dhm_cli.dense.surface import Surface
from dhm_cli.errors import InputError
from dhm_cli.geometry.crop import Square, TurnedSquare, landmark_crop_square
from dhm_cli.geometry.landmarks import bounding_box, face_size
from dhm_cli.geometry.occlusion import VISIBLE
from dhm_cli.geometry.pose import (
    estimate_rotation,
    in_plane_rotation,
    matrix_to_euler,
    matrix_to_yaw_pitch_roll,
)
from dhm_cli.inference.columns import DEFAULT_COLUMNS, Layout
from dhm_cli.inference.detection import load_detector
from dhm_cli.inference.engines import Answer, load_engine
from dhm_cli.inference.face_box import KEEN_SCORE, MIN_SCORE, Box, Detector, crop_square_from_box
from dhm_cli.inference.passes import BELIEVED, find_landmarks
from dhm_cli.inference.tracker import LOOK_EVERY, Tracked, Tracker
from dhm_cli.inference.turned_photo import detect_turned
from dhm_cli.inference.weights import SCOUT
from dhm_cli.io.images import read_bytes, read_image
from dhm_cli.io.photo import Photo, Pixels
from dhm_cli.motion.smoothing import Smooth, make_smoother

# A given box with a longer side, in units of the photo's longer side, cannot be meant.
_LARGEST_BOX = 10
# A face that is tilted by more than this calls for a look at the photo turned with it, in such steps, radians; and most
# looks at a photo.
_TILTED, _STEP, _MOST_LOOKS = math.radians(25), math.radians(30), 6
# A photo as users have it: (H, W, 3) uint8, or the path of a file.
Image = NDArray[np.uint8] | str | os.PathLike[str]
_BOX_HINT = "boxes are left,top,width,height in 0-based pixels of the upright photo"


class Pose(NamedTuple):
    """Head pose as people see it, degrees: R = R_y(yaw) R_x(pitch) R_z(roll); see `geometry.pose`.

    Attributes:
        yaw: -180 to 180; positive where the nose has turned to the left of the picture.
        pitch: -90 to 90; positive where the face looks up.
        roll: -180 to 180; positive where the head is tilted clockwise as seen, its top to the right.
    """

    yaw: float
    pitch: float
    roll: float


class Pose300WLP(NamedTuple):
    """Head pose in the convention of the 300W-LP files, degrees: R = R_x(pitch) R_y(yaw) R_z(roll).

    For benchmarks. Near profile, a yaw of +-90, pitch and roll turn about one axis and say nothing one by one.
    """

    pitch: float
    yaw: float
    roll: float


class SavedCrop(NamedTuple):
    """An aligned crop of a face in a file (`crops.CropFolder`).

    Attributes:
        path: the file.
        matrix: (2, 3), photo pixels to crop pixels.
        landmarks: (68, 3), crop pixels.
    """

    path: str
    matrix: NDArray[np.float64]
    landmarks: NDArray[np.float64]


class Tile(NamedTuple):
    """A small picture of a face for a gallery (`tiles.with_tiles`).

    Attributes:
        webp: content of a WebP file, a square.
        landmarks: (68, 3), in shares of its side from its upper left corner.
    """

    webp: bytes
    landmarks: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a photo; 0-based photo pixels, x right, y down.

    Attributes:
        landmarks: (68, 3) float64; z toward the viewer in the same unit, zero mean over the landmarks.
        box: left, top, width, height, as detected or as given.
        score: the detector's confidence, 0 to 1; NaN where the box was given.
        rotation: (3, 3) float64, the head's pose: what lies at p in the head lies at R p in the picture, both with x
            to the right of the picture, y up (unlike the pixels) and z toward the viewer; see `geometry.pose`. Its
            columns are where the head's left-to-right, up and nose axes point; the identity looks at the viewer.
        confidence: chance that this is a face and its NME is below 6 %, 0 to 1; NaN, as the next two are None, from
            networks that do not tell it.
        sigma: (68,), pixels: the radius around each landmark that should hold 68 % of its errors in x,y; 1.79 times as
            far 95 %.
        visibility: (68, 3), probabilities that a landmark is visible, occluded by something, or hidden by the head
            itself, in this order.
        crop: where `dhm align` saved an aligned crop of it, else None.
        tile: a small picture of it, where one is made for a gallery, else None.
        track: in a video, whose face it is: the same number in all frames, from 0.
        raw: in a video whose landmarks are smoothed, the landmarks before, (68, 3).
        surface: a dense face fitted to the landmarks, where one was asked for (`surfaces.with_surfaces`), else None.

    Example:
        >>> from dhm_cli import Aligner, read_image
        >>> (face,) = Aligner("cpu").align(read_image("sample_data/photos/astronaut_turned_left_45.jpg"))
        >>> nose_tip = face.landmarks[30]
        >>> nose_tip.round(-1).tolist()
        [160.0, 250.0, 40.0]
        >>> round(face.pose.yaw, -1)  # the nose points to the left of the image
        40.0
    """

    landmarks: NDArray[np.float64]
    box: Box
    score: float
    rotation: NDArray[np.float64]
    confidence: float = float("nan")
    sigma: NDArray[np.floating] | None = None
    visibility: NDArray[np.floating] | None = None
    crop: SavedCrop | None = None
    tile: Tile | None = None
    track: int | None = None
    raw: NDArray[np.float64] | None = None
    surface: Surface | None = None

    @property
    def visible(self) -> NDArray[np.floating] | None:
        """Probability that each landmark can be seen, (68,), 0 to 1."""
        return None if self.visibility is None else self.visibility[:, VISIBLE]

    @property
    def doubtful(self) -> bool:
        """Whether the network doubts this face: its confidence is below `passes.BELIEVED`."""
        return self.confidence < BELIEVED

    @property
    def pose(self) -> Pose:
        """Yaw, pitch and roll in degrees as people see them, good in profile too: R = R_y(yaw) R_x(pitch) R_z(roll)."""
        yaw, pitch, roll = np.degrees(matrix_to_yaw_pitch_roll(self.rotation)).tolist()
        return Pose(yaw, pitch, roll)

    @property
    def pose_300w_lp(self) -> Pose300WLP:
        """Pitch, yaw and roll in degrees as the files of 300W-LP have them: R = R_x(pitch) R_y(yaw) R_z(roll)."""
        pitch, yaw, roll = np.degrees(matrix_to_euler(self.rotation)).tolist()
        return Pose300WLP(pitch, yaw, roll)

    def to_dict(self, columns: Sequence[str] = DEFAULT_COLUMNS) -> dict[str, Any]:
        """The face as plain numbers and lists, ready for JSON, under the names that `dhm align --out faces.jsonl` has.

        Args:
            columns: names of `columns.COLUMN_GROUPS`.

        Returns:
            Numbers as they are, not rounded as in files; None where they are not known.

        Raises:
            InputError: a name is not known, or given twice.
        """
        return {name: value for group in Layout(columns).groups for name, value in group.record(self, False).items()}


class Aligner:
    """Find the 68 landmarks of every face in a photo. Safe to call from several threads.

    Args:
        device: "auto", "cpu" or "cuda"; see `load_engine`.
        threads: CPU threads of the network; None for one.
        min_score: least score of a detected face, 0 to 1; not used by a `detector` of your own.
        refine: more passes, over upright crops around the landmarks found so far, so that boxes may sit badly. Where
            the network is not sure of them, a small one that knows any roll says which way is up
            (`passes.find_landmarks`). With 0 the network looks at the box once. None for 1 after detection and 0 in a
            given box.
        model: a network: a file written by dhm, or "fast" or "fast-x2", which come with the package; None for "fast".
        face_model: file of the face model, as `dhm prepare` wrote it; read for networks that regress its parameters
            and for no others.
        detector: finds the faces; None for the first of `detection.DETECTORS`.

    Raises:
        DhmError: the device, the weights, the face model or the detector's file cannot be used.

    Example:
        >>> from dhm_cli import Aligner, read_image
        >>> aligner = Aligner("cpu")  # load once, use for many photos
        >>> faces = aligner.align(read_image("sample_data/photos/astronaut.png"))
        >>> len(faces), faces[0].landmarks.shape
        (1, (68, 3))
    """

    def __init__(
        self,
        device: str = "auto",
        threads: int | None = None,
        min_score: float = MIN_SCORE,
        refine: int | None = None,
        model: str | os.PathLike[str] | None = None,
        face_model: str | os.PathLike[str] | None = None,
        detector: Detector | None = None,
        **retired: object,
    ) -> None:
        if retired:
            raise InputError(f"Aligner has no {', '.join(retired)}", hint="a network is named by model=")
        check_number("--min-score", min_score, float)
        if not 0.0 < min_score <= 1.0:
            raise InputError(
                f"--min-score: expected a score above 0 and up to 1, found {min_score}",
                hint=f"the default is {MIN_SCORE}; a lower one finds more faces and more false alarms",
            )
        check_number("--refine", refine, int)
        check_number("--threads", threads, int, least=1)
        if refine is not None and refine < 0:
            raise InputError(f"--refine: expected 0 or more passes, found {refine}", hint="1 is enough for most boxes")
        self.refine = refine
        self._settings = (device, threads, min_score, refine, model, face_model, detector)
        self.engine = load_engine(device, model, threads, face_model)
        self.scout = load_engine(device, SCOUT, threads)
        self.detector = load_detector(min_score=min_score) if detector is None else detector

    @cached_property
    def _keen_detector(self) -> Detector:
        """The detector for turned photos, where the network decides what is a face."""
        _, _, min_score, *_, detector = self._settings
        keen = min(min_score, KEEN_SCORE) if min_score <= MIN_SCORE else min_score
        return load_detector(min_score=keen) if detector is None else detector

    def __reduce__(self) -> tuple[type["Aligner"], tuple[object, ...]]:
        """To another process it goes as its settings, and is loaded again there."""
        return Aligner, self._settings

    def align(
        self, image: Image | Photo, boxes: Sequence[Sequence[float]] | None = None, *, bgr: bool = False
    ) -> list[Face]:
        """Find the landmarks of every face in a photo.

        Args:
            image: (H, W, 3) uint8 RGB, or the path of a photo, or a `Photo`; of large JPEGs no more is decoded than the
                faces need.
            boxes: face boxes to use instead of detection, each (left, top, width, height) in photo pixels. A box is
                what the min/max box of the true landmarks would be: it is squared on its longer side and enlarged by
                sqrt(2).
            bgr: the array's channels are blue, green, red, as OpenCV reads them.

        Returns:
            The faces, those of the given boxes in their order, else the largest first and doubtful ones last; empty
            when there is no face. Where the network believes at most half of the detector's boxes, the photo is looked
            at in four turns, and where faces are tilted by more than 25 degrees it is turned with them; of what is
            found then those faces are taken that the network believes.

        Raises:
            InputError: wrong shape or type of the image, or a file that cannot be read; a box that is empty, lies
                outside the photo or is more than ten times as large.
            DhmError: the network answered something that is no number.

        Example:
            >>> import numpy as np
            >>> from dhm_cli import Aligner
            >>> aligner, grey = Aligner("cpu"), np.full((300, 400, 3), 128, np.uint8)
            >>> aligner.align(grey)
            []
            >>> (face,) = aligner.align(grey, boxes=[(100, 50, 80, 120)])
            >>> face.box, face.score
            ((100.0, 50.0, 80.0, 120.0), nan)
        """
        pixels = _looked_at(image, bgr)
        if boxes is None:
            return self._align_all([pixels])[0]
        if isinstance(boxes, str) or not hasattr(boxes, "__iter__"):
            raise InputError(f"expected a list of boxes, found {boxes!r}", hint=_BOX_HINT)
        checked = [_checked_box(box, pixels) for box in boxes]
        squares = [_square_from_given_box(box) for box in checked]
        given = [(box, float("nan")) for box in checked]
        return self._faces([pixels] * len(given), given, squares, self.refine or 0)

    def align_many(
        self,
        images: Iterable[Image | Photo],
        batch_size: int = 32,
        *,
        bgr: bool = False,
        on_error: Callable[[Image | Photo, InputError], object] | None = None,
    ) -> Iterator[list[Face]]:
        """Find the landmarks of every face in many photos: the network sees the faces of a batch at once.

        Args:
            images: each as `align` takes it; a generator will do, since only one batch is held.
            batch_size: photos in a batch.
            bgr: as for `align`.
            on_error: called with each photo, or its path, that cannot be used, and the error, whose `message` says why;
                it has no faces then, and the others go on. None ends the work there with that error.

        Yields:
            The faces of each photo, one list a photo in the photos' order, as `align` gives them.

        Raises:
            InputError: as `align`, where the faces of all photos before have been given; not with `on_error`.
            DhmError: the network answered something that is no number.

        Example:
            >>> from dhm_cli import Aligner
            >>> photos = ["sample_data/photos/astronaut.png", "gone.png"]
            >>> tell = lambda photo, error: print(error.message)
            >>> [len(faces) for faces in Aligner("cpu").align_many(photos, on_error=tell)]
            gone.png: cannot be read: No such file or directory
            [1, 0]
        """
        check_number("batch_size", batch_size, int, least=1)
        source = iter(images)
        while batch := list(islice(source, batch_size)):
            read = [_pixels_or_error(image, bgr) for image in batch]
            found = iter(self._align_all([pixels for pixels in read if not isinstance(pixels, InputError)]))
            for image, pixels in zip(batch, read, strict=True):
                if not isinstance(pixels, InputError):
                    yield next(found)
                elif on_error is None:
                    raise pixels
                else:
                    on_error(image, pixels)
                    yield []

    def _align_all(self, photos: Sequence[Pixels]) -> list[list[Face]]:
        """The faces of each photo, the largest first and doubtful ones last."""
        boxes = [(k, box) for k, photo in enumerate(photos) for box in self.detector.detect(photo)]
        given = [((box.left, box.top, box.width, box.height), box.score) for _, box in boxes]
        squares = [crop_square_from_box(box) for _, box in boxes]
        refine = 1 if self.refine is None else self.refine
        found: list[list[Face]] = [[] for _ in photos]
        faces = self._faces([photos[k] for k, _ in boxes], given, squares, refine)
        for (k, _), face in zip(boxes, faces, strict=True):
            found[k].append(face)
        return [self._looked_again(photo, its_faces) for photo, its_faces in zip(photos, found, strict=True)]

    def _looked_again(self, image: Pixels, faces: list[Face]) -> list[Face]:
        """The faces of a photo after looks at it in other turns, where they call for such, doubtful ones last."""
        looked: list[float] = []
        while self.engine.doubts and len(looked) < _MOST_LOOKS:
            rolls = [roll for roll in self._rolls(faces) if roll not in looked][: _MOST_LOOKS - len(looked)]
            if not rolls:
                break
            faces = self._faces_at_rolls(image, faces, rolls)
            looked += rolls
        return sorted(faces, key=lambda face: face.doubtful)

    def track(
        self,
        frames: Iterable[Image],
        smooth: Smooth = "none",
        rate: float = 30.0,
        look_every: int = LOOK_EVERY,
        *,
        bgr: bool = False,
    ) -> Iterator[list[Face]]:
        """Follow the faces of a video; each keeps its `Face.track` through all frames.

        One pass of the network a frame finds a face near where it was. The detector looks when a face is lost and for
        new ones; a face that is lost for less than a second keeps its number.

        Args:
            frames: the video, each (H, W, 3) uint8 RGB, upright, or the path of a picture.
            smooth: "none"; "file", by the frames before and behind, without lag, so that faces come 4 to 15 frames late
                (0.3 seconds); "live", at once, by the frames before.
            rate: frames per second.
            look_every: frames between two looks for new faces.
            bgr: the channels are blue, green, red, as OpenCV reads them.

        Yields:
            For each frame its faces, by the number of their tracks. Their box is that of their landmarks; they have a
            score where the detector saw them in that frame.

        Raises:
            InputError: wrong shape or type of a frame; an unknown `smooth`, a rate or a number that is not above 0.
            DhmError: the network answered something that is no number.

        Example:
            >>> from dhm_cli import Aligner, read_image
            >>> photo = read_image("sample_data/photos/astronaut.png")
            >>> for faces in Aligner("cpu").track([photo, photo]):
            ...     print([face.track for face in faces])
            [0]
            [0]
        """
        if not 0 < rate < math.inf:
            raise InputError(f"rate: expected frames per second, above 0, found {rate}")
        check_number("look_every", look_every, int, least=1)
        tracker, smoother = Tracker(self, look_every), make_smoother(smooth, self.engine.mean_shape, rate)
        waiting: deque[Tracked] = deque()
        for index, image in enumerate(frames):
            found = tracker.step(pixels_of(image, bgr))
            waiting.append(found)
            for landmarks in smoother.add(index / rate, found.numbers, found.answer.landmarks, found.answer.sigma):
                yield self.faces_of(waiting.popleft(), landmarks)
        for landmarks in smoother.finish():
            yield self.faces_of(waiting.popleft(), landmarks)

    def faces_of(self, found: Tracked, smoothed: NDArray[np.float64]) -> list[Face]:
        """The faces of a frame of a video, from what a tracker found and their smoothed landmarks (B, 68, 3)."""
        faces = self._made(found.answer._replace(landmarks=smoothed), bounding_box(smoothed), found.scores)
        return [
            replace(face, track=number, raw=raw)
            for face, number, raw in zip(faces, found.numbers.tolist(), found.answer.landmarks, strict=True)
        ]

    def _faces(
        self,
        photos: Sequence[Pixels],
        given: Sequence[tuple[Box, float]],
        squares: Sequence[Square | TurnedSquare],
        refine: int,
    ) -> list[Face]:
        """The faces of some boxes, each with its photo, its score and its square."""
        if not squares:
            return []
        found = find_landmarks(self.scout, self.engine, photos, squares, refine)
        found.landmarks[..., 2] -= found.landmarks[..., 2].mean(axis=1, keepdims=True)
        return self._made(found, [box for box, _ in given], [score for _, score in given])

    def _made(self, found: Answer, boxes: Iterable[Sequence[float]], scores: Iterable[float]) -> list[Face]:
        """Faces of an answer in photo pixels, their boxes and their scores."""
        if not len(found.landmarks):
            return []
        rotations = estimate_rotation(found.landmarks, self.engine.mean_shape)
        return [
            Face(
                found.landmarks[row],
                (float(left), float(top), float(width), float(height)),
                float(score),
                rotations[row],
                float("nan") if found.confidence is None else float(found.confidence[row]),
                None if found.sigma is None else found.sigma[row],
                None if found.visibility is None else found.visibility[row],
            )
            for row, ((left, top, width, height), score) in enumerate(zip(boxes, scores, strict=True))
        ]

    def _rolls(self, faces: list[Face]) -> list[float]:
        """By how much to turn a photo for another look, radians: as its faces are turned, in steps of 30 degrees, or by
        every quarter where the network believes at most half of them."""
        believed = [face.rotation for face in faces if not face.doubtful]
        if 2 * len(believed) <= len(faces):
            return [3 * quarter * _STEP for quarter in range(4)]
        rolls = in_plane_rotation(np.array(believed))
        steps = np.round(rolls[np.abs(rolls) > _TILTED] / _STEP).astype(int) % round(2 * math.pi / _STEP)
        return [step * _STEP for step, _ in Counter(steps.tolist()).most_common()]

    def _faces_at_rolls(self, image: Pixels, known: list[Face], rolls: list[float]) -> list[Face]:
        """Known faces, and those that the network believes in a photo that is turned, the largest first."""
        found = list(detect_turned(self._keen_detector, image, rolls))
        given = [((box.left, box.top, box.width, box.height), box.score) for box, _ in found]
        squares = [square for _, square in found]
        faces = self._faces([image] * len(given), given, squares, max(1, self.refine or 1))
        faces = [face for face in (*faces, *known) if not face.doubtful]
        doubted = [face for face in known if face.doubtful]
        best = [*sorted(faces, key=lambda face: -face.confidence), *doubted]
        kept: list[Face] = []
        for face in best:
            if not any(_is_same(face, other) for other in kept):
                kept.append(face)
        return sorted(kept, key=lambda face: -face.box[2] * face.box[3])


def _is_same(a: Face, b: Face) -> bool:
    """Whether two faces lie in one place: their middles within half of the smaller one's size."""
    apart = np.linalg.norm(a.landmarks[:, :2].mean(axis=0) - b.landmarks[:, :2].mean(axis=0))
    return bool(apart < min(face_size(a.landmarks), face_size(b.landmarks)) / 2)


def check_number(name: str, value: object, kind: type[int] | type[float], least: int | None = None) -> None:
    """Raise an InputError unless an option is a number of a kind; None stands for its default."""
    fits = isinstance(value, int if kind is int else (int, float, np.integer, np.floating))
    if value is not None and (not fits or isinstance(value, bool)):
        raise InputError(f"{name}: expected {'a whole number' if kind is int else 'a number'}, found {value!r}")
    if least is not None and isinstance(value, int) and value < least:
        raise InputError(f"{name}: expected {least} or more, found {value}")


def _looked_at(image: Image | Photo, bgr: bool) -> Pixels:
    """A photo as `pixels_of` gives it, that of a path decoded as finely as needed."""
    if isinstance(image, str | os.PathLike):
        return Photo(read_bytes(image), image)
    return image if isinstance(image, Photo) else pixels_of(image, bgr)


def pixels_of(image: Image, bgr: bool) -> NDArray[np.uint8]:
    """A photo (H, W, 3) uint8 RGB, from that, from BGR, or from its path."""
    if isinstance(image, str | os.PathLike):
        return read_image(image)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        found = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"expected an image of type uint8, found {found}", hint="values are 0 to 255, RGB")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(f"expected an image of shape (H, W, 3), found {image.shape}", hint="read_image gives RGB")
    return np.ascontiguousarray(image[..., ::-1] if bgr else image)


def _pixels_or_error(image: Image | Photo, bgr: bool) -> Pixels | InputError:
    """See `_looked_at`; the error is given back."""
    try:
        return _looked_at(image, bgr)
    except InputError as error:
        return error


def _checked_box(box: Sequence[float], image: Pixels) -> Box:
    try:
        numbers = [] if isinstance(box, str) else [float(value) for value in box]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 4 or not np.isfinite(numbers).all():
        raise InputError(f"expected a box (left, top, width, height), found {box!r}", hint=_BOX_HINT)
    left, top, width, height = numbers
    rows, columns = image.shape[:2]
    if width <= 0 or height <= 0:
        raise InputError(
            f"expected a box with a width and a height above 0, found {width:g} x {height:g}", hint=_BOX_HINT
        )
    if max(width, height) > _LARGEST_BOX * max(rows, columns):
        raise InputError(
            f"box of {width:g} x {height:g} is more than {_LARGEST_BOX} times its {columns} x {rows} pixel photo",
            hint=_BOX_HINT,
        )
    if left >= columns or top >= rows or left + width <= 0 or top + height <= 0:
        raise InputError(
            f"box left {left:g}, top {top:g}, {width:g} x {height:g} lies outside its {columns} x {rows} pixel photo",
            hint=_BOX_HINT,
        )
    return left, top, width, height


def _square_from_given_box(box: Box) -> Square:
    left, top, width, height = box
    return landmark_crop_square(np.array([[left, top], [left + width, top + height]]))


def usable_boxes(boxes: Sequence[Box], image: Pixels) -> tuple[list[Box], list[str]]:
    """Sort out boxes that `Aligner.align` would refuse.

    Args:
        boxes: left, top, width, height, photo pixels.
        image: (H, W, 3) uint8 RGB or a `Photo`.

    Returns:
        The boxes that can be aligned, and what is wrong with each of the others.
    """
    usable: list[Box] = []
    problems: list[str] = []
    for box in boxes:
        try:
            usable.append(_checked_box(box, image))
        except InputError as error:
            problems.append(error.message)
    return usable, problems
