"""Where a network looks under each protocol: the true box, a detector's box, or a true box that was moved or turned."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dhm_cli.geometry.crop import Square, TurnedSquare, landmark_crop_square, turned_square
from dhm_cli.geometry.landmarks import bounding_box
from dhm_cli.inference.detection import load_detector
from dhm_cli.inference.face_box import Detector, crop_square_from_box

PROTOCOLS = ("paper", "detector", "jitter", "roll")
# Passes over upright crops (`inference.passes`): after a detector one, as in `dhm align`. Of several the first is the
# protocol's headline.
REFINE = {"paper": (0, 1), "detector": (1,), "jitter": (0,), "roll": (1,)}

# Squares for one face, one for each variant of the protocol; None where no face was found there.
Places = Sequence[Square | TurnedSquare | None]
# Degrees by which the protocol "roll" turns the photo.
ROLLS = tuple(range(0, 360, 15))
# How far the corners of a turned square may reach beyond the photo, share of its side. What lies there is mirrored: a
# black corner would tell the angle.
ROLL_MARGIN = 0.2


@dataclass(frozen=True)
class Jitter:
    """How far boxes are moved: uniformly, to at most `level` of the side on each axis, or of the size, or of both.

    Attributes:
        kind: shift, scale or both.
        level: 0.1 moves the centre by up to 10 % of the square's side to each side on each axis, and makes the square
            up to 10 % smaller or larger.
    """

    kind: str
    level: float


JITTER_LEVELS = (0.05, 0.1, 0.15, 0.2, 0.3)
JITTER_KINDS = ("shift", "scale", "both")
# The unmoved box, which every curve starts from, then the curves.
JITTERS = (Jitter("none", 0.0), *(Jitter(kind, level) for kind in JITTER_KINDS for level in JITTER_LEVELS))
# The variant whose numbers are the headline of the protocol.
JITTER_HEADLINE = JITTERS.index(Jitter("both", 0.1))


class TrueBox:
    """Protocol "paper": the min/max box of the true points, squared on its longer side, times sqrt(2).

    Args:
        landmarks: (N, 68, 3), the original label set, image pixels.
    """

    variants = 1

    def __init__(self, landmarks: NDArray[np.floating]) -> None:
        self._landmarks = landmarks

    def __call__(self, face: int, image: NDArray[np.uint8]) -> Places:
        """The squares of a face, by its number."""
        return [landmark_crop_square(self._landmarks[face])]


class DetectedBox:
    """Protocol "detector": the box that a detector finds in the image; of several the one nearest to the true box.

    Args:
        landmarks: (N, 68, 3), the original label set, image pixels; only to choose among several boxes.
        detector: finds the faces; None for that of `dhm align`.
    """

    variants = 1

    def __init__(self, landmarks: NDArray[np.floating], detector: Detector | None = None) -> None:
        self._boxes = bounding_box(landmarks)
        self._detector = detector or load_detector()

    def __call__(self, face: int, image: NDArray[np.uint8]) -> Places:
        """The squares of a face, by its number."""
        left, top, width, height = self._boxes[face]
        found = self._detector.detect(image)
        if not found:
            return [None]
        x, y = left + width / 2, top + height / 2
        nearest = min(found, key=lambda b: (b.left + b.width / 2 - x) ** 2 + (b.top + b.height / 2 - y) ** 2)
        return [crop_square_from_box(nearest)]


class MovedBox:
    """Protocol "jitter": the square of "paper", moved and scaled at random by each of `JITTERS`.

    Args:
        landmarks: (N, 68, 3), the original label set, image pixels.
        names: (N,), of the faces; the same face is moved alike whatever the others are.
    """

    variants = len(JITTERS)

    def __init__(self, landmarks: NDArray[np.floating], names: Sequence[str]) -> None:
        self._landmarks, self._names = landmarks, names

    def __call__(self, face: int, image: NDArray[np.uint8]) -> Places:
        """The squares of a face, by its number."""
        centre, side = landmark_crop_square(self._landmarks[face])
        rng = np.random.default_rng([0, *str(self._names[face]).encode()])
        moves = rng.uniform(-1, 1, (len(JITTERS), 3))
        return [_moved(centre, side, jitter, move) for jitter, move in zip(JITTERS, moves, strict=True)]


class TurnedBox:
    """Protocol "roll": the square of "paper" in the photo turned by each of `ROLLS`.

    Args:
        landmarks: (N, 68, 3), the original label set, image pixels.
    """

    variants = len(ROLLS)

    def __init__(self, landmarks: NDArray[np.floating]) -> None:
        self._landmarks = landmarks.astype(np.float64)

    def __call__(self, face: int, image: NDArray[np.uint8]) -> Places:
        """The squares of a face, by its number."""
        return [turned_square(self._landmarks[face], math.radians(roll)) for roll in ROLLS]


def can_be_turned(landmarks: NDArray[np.floating], image_size: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Which faces the protocol "roll" can turn: their squares lie within their images but for `ROLL_MARGIN`, (N,).

    Args:
        landmarks: (N, 68, 3), image pixels.
        image_size: (N, 2), height and width.
    """
    fits = []
    for points, (height, width) in zip(landmarks.astype(np.float64), image_size.tolist(), strict=True):
        beyond = 0.0
        for roll in ROLLS:
            centre, side, angle = turned_square(points, math.radians(roll))
            reach = side / 2 * (abs(math.cos(angle)) + abs(math.sin(angle)))
            beyond = max(beyond, *(reach - centre) / side, *(centre + reach - [width - 1, height - 1]) / side)
        fits.append(beyond <= ROLL_MARGIN)
    return np.array(fits, bool)


def _moved(centre: NDArray[np.float64], side: float, jitter: Jitter, move: NDArray[np.float64]) -> Square:
    shift = jitter.level * side * move[:2] if jitter.kind in ("shift", "both") else np.zeros(2)
    scale = 1 + jitter.level * move[2] if jitter.kind in ("scale", "both") else 1.0
    return centre + shift, float(side * scale)


Protocol = TrueBox | DetectedBox | MovedBox | TurnedBox


def make_protocol(name: str, landmarks: NDArray[np.floating], names: Iterable[str]) -> Protocol:
    """The protocol of a name.

    Args:
        name: one of `PROTOCOLS`.
        landmarks: (N, 68, 3), the original label set, image pixels.
        names: (N,), of the faces.

    """
    if name == "paper":
        return TrueBox(landmarks)
    if name == "detector":
        return DetectedBox(landmarks)
    if name == "roll":
        return TurnedBox(landmarks)
    assert name == "jitter"
    return MovedBox(landmarks, list(names))
