"""From squares around faces to landmarks: passes of the network over upright crops, and what to do where it doubts."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import DhmError
from dhm_cli.geometry.crop import Square, TurnedSquare, boxes_at, upright_rolls, upright_squares
from dhm_cli.inference.engines import Answer, Engine, answers_in_squares
from dhm_cli.io.photo import Pixels

# Below this confidence a face is doubtful: more likely than not it is no face, or its NME is above 6 %.
BELIEVED = 0.5
# Below this confidence a face is looked at in other turns: one of fifty upright faces, and nearly all others.
SURE = 0.95
# A crop that is off by more than this from the one that its own landmarks call for is not the last: radians, share of
# its side, logarithm of the side.
_MOST_TURNED, _MOST_MOVED, _MOST_SCALED = math.radians(8), 0.06, 0.1


def find_landmarks(
    scout: Engine,
    engine: Engine,
    photos: Sequence[Pixels],
    squares: Sequence[Square | TurnedSquare],
    refine: int,
) -> Answer:
    """The landmarks of faces in squares of photos, at any roll.

    Args:
        scout: a quick network that knows faces of any roll.
        engine: the network whose landmarks count. After a first look at the squares it sees upright crops.
        photos: B, each (H, W, 3) uint8 RGB or a `Photo`, the same object for several faces of one photo.
        squares: B, where the faces are.
        refine: passes of `engine` over upright crops; with 0 it looks at the squares themselves, once.

    Returns:
        The last pass's answer in photo pixels. Where the network has less confidence than `SURE`, `scout` looks at
        the square in up to four turns and says where the upright crop lies, and the answer with the highest confidence
        counts. For a network that tells no confidence, `scout` says which way is up from the start.

    Raises:
        DhmError: a network answered something that is no number.
    """
    if not refine:
        return _look(engine, photos, squares)
    if not engine.doubts:
        return _upright(engine, photos, _roughly_upright(scout, photos, squares), refine)
    found = _upright(engine, photos, squares, refine)
    for quarter in range(4):
        assert found.confidence is not None
        rows = np.flatnonzero(found.confidence < SURE)
        if not len(rows):
            break
        again = [photos[row] for row in rows.tolist()]
        turned = [_turned(squares[row], quarter * math.pi / 2) for row in rows.tolist()]
        upright = _squares(scout, _look(scout, again, turned).landmarks)
        found = _better(found, rows, _last(engine, again, upright, refine))
    return found


def follow_landmarks(engine: Engine, image: NDArray[np.uint8], squares: Sequence[TurnedSquare]) -> Answer:
    """The landmarks of faces whose upright squares are known about, as from the frame before.

    Args:
        engine: the network.
        image: (H, W, 3) uint8 RGB.
        squares: B, where the faces should be.

    Returns:
        The answer of one pass in photo pixels; of a second where a square was off.

    Raises:
        DhmError: the network answered something that is no number.
    """
    return _last(engine, [image] * len(squares), squares, 1)


def _roughly_upright(
    scout: Engine, photos: Sequence[Pixels], squares: Sequence[Square | TurnedSquare]
) -> list[Square | TurnedSquare]:
    """The squares, those of heads that are turned by more than 45 degrees replaced by upright ones."""
    upright = _squares(scout, _look(scout, photos, squares).landmarks)
    return [new if abs(_turn(old, new)) > math.pi / 4 else old for old, new in zip(squares, upright, strict=True)]


def _upright(engine: Engine, photos: Sequence[Pixels], squares: Sequence[Square | TurnedSquare], refine: int) -> Answer:
    """The answer of a network after a look at the squares and some passes over upright crops."""
    return _last(engine, photos, _squares(engine, _look(engine, photos, squares).landmarks), refine)


def _last(engine: Engine, photos: Sequence[Pixels], upright: Sequence[TurnedSquare], refine: int) -> Answer:
    """The answer after passes over upright crops, one more where the last crop was not quite that."""
    answer = _look(engine, photos, upright)
    for _ in range(refine - 1):
        upright = _squares(engine, answer.landmarks)
        answer = _look(engine, photos, upright)
    rows = np.flatnonzero(_is_off(engine, answer, upright))
    if not len(rows):
        return answer
    better = _squares(engine, answer.landmarks[rows])
    return _replaced(answer, rows, _look(engine, [photos[row] for row in rows.tolist()], better))


def _squares(engine: Engine, landmarks: NDArray[np.float64]) -> list[TurnedSquare]:
    """The upright squares of a network's landmarks."""
    return upright_squares(landmarks, engine.mean_shape)


def _look(engine: Engine, photos: Sequence[Pixels], squares: Sequence[Square | TurnedSquare]) -> Answer:
    """One pass of a network, in photo pixels."""
    answer = answers_in_squares(engine, photos, squares)
    if not all(math.isfinite(part.sum()) for part in answer if part is not None):
        raise DhmError("the network answered something that is no number", "export or train it again")
    return answer


def _is_off(engine: Engine, answer: Answer, seen: Sequence[TurnedSquare]) -> NDArray[np.bool_]:
    """Which of the crops lay far from those that their own landmarks call for, (B,)."""
    centres, sides = np.array([square[0] for square in seen]), np.array([max(square[1], 1.0) for square in seen])
    rolls = np.array([square[2] for square in seen])
    found, found_sides = boxes_at(answer.landmarks, rolls)
    turns = (upright_rolls(answer.landmarks, engine.mean_shape) - rolls + math.pi) % (2 * math.pi) - math.pi
    moved = np.abs(found - centres).max(axis=1) / sides
    scaled = np.abs(np.log(np.maximum(found_sides, 1.0) / sides))
    return (np.abs(turns) > _MOST_TURNED) | (moved > _MOST_MOVED) | (scaled > _MOST_SCALED)


def _turn(seen: Square | TurnedSquare, found: TurnedSquare) -> float:
    """By how much the second square is turned against the first, radians in [-pi, pi]."""
    return math.remainder(found[2] - (seen[2] if len(seen) == 3 else 0.0), 2 * math.pi)


def _turned(square: Square | TurnedSquare, roll: float) -> TurnedSquare:
    return square[0], square[1], roll + (square[2] if len(square) == 3 else 0.0)


def _better(found: Answer, rows: NDArray[np.int64], other: Answer) -> Answer:
    """An answer in which some rows, where their confidence is higher, come from another one."""
    assert found.confidence is not None
    assert other.confidence is not None
    better = other.confidence > found.confidence[rows]
    return _replaced(found, rows[better], other.take(better))


def _replaced(found: Answer, rows: NDArray[np.int64], other: Answer) -> Answer:
    """An answer in which some rows come from another one."""
    parts = []
    for part, new in zip(found, other, strict=True):
        if part is not None and new is not None:
            part = part.copy()
            part[rows] = new
        parts.append(part)
    landmarks, *others = parts
    assert landmarks is not None
    return Answer(landmarks, *others)
