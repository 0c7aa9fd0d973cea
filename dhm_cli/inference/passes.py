"""From squares around faces to landmarks: a quick first look at any roll, then the network on upright crops."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import DhmError
from dhm_cli.geometry.crop import Square, TurnedSquare
from dhm_cli.inference.engines import Answer, Engine, answers_in_squares, upright_squares

# Below this confidence a face is doubtful: more likely than not it is no face, or its NME is above 6 %.
BELIEVED = 0.5
# A crop that is off by more than this from the one that its own landmarks call for is not the last: radians, share of
# its side, logarithm of the side.
_MOST_TURNED, _MOST_MOVED, _MOST_SCALED = math.radians(8), 0.08, 0.12


def find_landmarks(
    first: Engine,
    engine: Engine,
    photos: Sequence[NDArray[np.uint8]],
    squares: Sequence[Square | TurnedSquare],
    refine: int,
) -> Answer:
    """The landmarks of faces in squares of photos.

    Args:
        first: a quick network that knows faces of any roll. It says where the next crop lies and which way is up.
        engine: the network whose landmarks count; it sees upright crops.
        photos: B, each (H, W, 3) uint8 RGB, the same object for several faces of one photo.
        squares: B, where the faces are.
        refine: passes of `engine` over upright crops, the first after that of `first`; with 0 it looks at the squares
            themselves, once.

    Returns:
        The last pass's answer in photo pixels. Where it tells a confidence and that is below `BELIEVED`, the face was
        looked at in three more turns of its square, and the turn with the highest confidence counts.

    Raises:
        DhmError: a network answered something that is no number.
    """
    if not refine:
        return _look(engine, photos, squares)
    found = _upright(first, engine, photos, squares, refine)
    if found.confidence is None or (found.confidence >= BELIEVED).all():
        return found
    doubted = np.flatnonzero(found.confidence < BELIEVED)
    again = [photos[row] for row in doubted.tolist()]
    for quarter in (1, 2, 3):
        turned = [_turned(squares[row], quarter * math.pi / 2) for row in doubted.tolist()]
        found = _better(found, doubted, _upright(first, engine, again, turned, refine))
    return found


def _upright(
    first: Engine,
    engine: Engine,
    photos: Sequence[NDArray[np.uint8]],
    squares: Sequence[Square | TurnedSquare],
    refine: int,
) -> Answer:
    """The answer of `engine` after some passes over upright crops, one more where its crop was not quite that."""
    upright = upright_squares(first, _look(first, photos, squares).landmarks)
    answer = _look(engine, photos, upright)
    for _ in range(refine - 1):
        upright = upright_squares(engine, answer.landmarks)
        answer = _look(engine, photos, upright)
    better = upright_squares(engine, answer.landmarks)
    rows = np.array([row for row, pair in enumerate(zip(upright, better, strict=True)) if _is_off(*pair)], np.int64)
    if not len(rows):
        return answer
    again = _look(engine, [photos[row] for row in rows.tolist()], [better[row] for row in rows.tolist()])
    return _replaced(answer, rows, again)


def _look(engine: Engine, photos: Sequence[NDArray[np.uint8]], squares: Sequence[Square | TurnedSquare]) -> Answer:
    """One pass of a network, in photo pixels."""
    answer = answers_in_squares(engine, photos, squares)
    if not all(np.isfinite(part).all() for part in answer if part is not None):
        raise DhmError("the network answered something that is no number", "export or train it again")
    return answer


def _is_off(seen: TurnedSquare, found: TurnedSquare) -> bool:
    """Whether a crop lay far from the one that its own landmarks call for."""
    turn = (found[2] - seen[2] + math.pi) % (2 * math.pi) - math.pi
    moved = math.dist(found[0], seen[0]) / max(seen[1], 1.0)
    return (
        abs(turn) > _MOST_TURNED
        or moved > _MOST_MOVED
        or abs(math.log(max(found[1], 1.0) / max(seen[1], 1.0))) > _MOST_SCALED
    )


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
