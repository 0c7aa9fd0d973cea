"""A network's answer about every face of the ground truth, in pieces that can be kept when the work is stopped."""

from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.evaluation.ground_truth import GroundTruth
from dhm_cli.evaluation.protocols import ROLL_MARGIN, Protocol, TurnedBox
from dhm_cli.geometry.landmarks import NUM_LANDMARKS
from dhm_cli.geometry.occlusion import STATES
from dhm_cli.inference.engines import Answer, Engine
from dhm_cli.inference.passes import find_landmarks
from dhm_cli.runtime.progress import Progress, silent
from dhm_cli.runtime.threads import in_order
from dhm_cli.runtime.unfinished import Unfinished

# Faces of one piece of work: what has begun is finished when the work is stopped, and large networks take their time.
_PIECE = 16
# Numbers of a face: landmarks; with them sigma, visibility and confidence.
_LANDMARKS = 3 * NUM_LANDMARKS
_ALL = _LANDMARKS + NUM_LANDMARKS + STATES * NUM_LANDMARKS + 1


class Predicted(NamedTuple):
    """A network's answers about N faces in V variants, NaN where no face was found.

    Attributes:
        landmarks: (V, N, 68, 3), image pixels.
        sigma: (V, N, 68), image pixels; None, as the next two, from networks that do not tell it (`engines.Answer`).
        visibility: (V, N, 68, 3).
        confidence: (V, N).
    """

    landmarks: NDArray[np.float32]
    sigma: NDArray[np.float32] | None = None
    visibility: NDArray[np.float32] | None = None
    confidence: NDArray[np.float32] | None = None


def predict_faces(
    scout: Engine,
    engine: Engine,
    truth: GroundTruth,
    protocol: Protocol,
    refine: Sequence[int],
    threads: int,
    unfinished: Unfinished,
    progress: Progress = silent,
    stage: str = "",
) -> Predicted:
    """Run a network over every face.

    Args:
        scout: the small network that knows any roll, see `passes.find_landmarks`.
        engine: the network.
        truth: N faces.
        protocol: where to look; P variants.
        refine: numbers of passes over upright crops; each makes variants of its own.
        threads: at work, each on a piece of the faces.
        unfinished: where to keep what is done; the caller removes it when all is.
        progress: called in this thread with `stage`, the number of faces done and N.
        stage: how the work is called.

    Returns:
        All answers; V = R P, those of the first number of passes before those of the next.

    Raises:
        FormatError: an image of the store is damaged.
    """
    count, variants = len(truth), len(refine) * protocol.variants
    predicted = np.full((variants, count, _ALL if engine.doubts else _LANDMARKS), np.nan, np.float32)
    done = unfinished.load(predicted)
    pieces = [range(start, min(start + _PIECE, count)) for start in range(0, count, _PIECE)]
    to_do = [piece for piece in pieces if not done[piece.start]]
    progress(stage, int(done.sum()), count)

    def work(piece: range) -> NDArray[np.float32]:
        return _predict_piece(scout, engine, truth, protocol, refine, piece)

    try:
        with closing(in_order(work, to_do, threads)) as results:
            for piece, numbers in zip(to_do, results, strict=True):
                predicted[:, piece.start : piece.stop] = numbers
                done[piece.start : piece.stop] = True
                progress(stage, int(done.sum()), count)
                unfinished.save_at_times(predicted, done)
    finally:  # also when all is done: what follows may be stopped too
        unfinished.save(predicted, done)
    return _unpacked(predicted)


def _predict_piece(
    scout: Engine, engine: Engine, truth: GroundTruth, protocol: Protocol, refine: Sequence[int], faces: range
) -> NDArray[np.float32]:
    """The numbers of some faces, (V, n, numbers), image pixels."""
    images = truth.store.images(truth.rows[faces.start : faces.stop])
    margins = np.zeros(len(faces))
    places = [protocol(face, image) for face, image in zip(faces, images, strict=True)]
    if isinstance(protocol, TurnedBox):
        margins = np.array([2 * ROLL_MARGIN * its[0][1] for its in places if its[0] is not None]).round()
        images = [_framed(image, int(margin)) for image, margin in zip(images, margins, strict=True)]
    flat = [
        (image, margin, square) for image, margin, its in zip(images, margins, places, strict=True) for square in its
    ]
    found = [(image, (square[0] + margin, *square[1:])) for image, margin, square in flat if square is not None]
    photos, squares = [image for image, _ in found], [square for _, square in found]
    beyond = np.array([margin for _, margin, square in flat if square is not None])
    result = np.full((len(refine), len(flat), _ALL if engine.doubts else _LANDMARKS), np.nan, np.float32)
    for place, passes in zip(result, refine, strict=True):
        if squares:
            answer = find_landmarks(scout, engine, photos, squares, passes)
            answer.landmarks[..., :2] -= beyond[:, None, None]
            place[[square is not None for _, _, square in flat]] = _packed(answer)
    # (R, n P, numbers) -> (R P, n, numbers)
    parts = result.reshape(len(refine), len(places), protocol.variants, -1)
    return np.moveaxis(parts, 2, 1).reshape(-1, len(places), parts.shape[-1])


def _framed(image: NDArray[np.uint8], margin: int) -> NDArray[np.uint8]:
    """An image with a frame in which it is mirrored."""
    return cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_REFLECT_101)


def _packed(answer: Answer) -> NDArray[np.float32]:
    """(B, ...) numbers in a row each."""
    parts = [part.reshape(len(part), -1) for part in answer if part is not None]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _unpacked(numbers: NDArray[np.float32]) -> Predicted:
    """Inverse of `_packed`, (V, N, numbers)."""
    shape = numbers.shape[:2]
    landmarks = numbers[..., :_LANDMARKS].reshape(*shape, NUM_LANDMARKS, 3)
    if numbers.shape[-1] == _LANDMARKS:
        return Predicted(landmarks)
    sigma, visibility, confidence = np.split(
        numbers[..., _LANDMARKS:], [NUM_LANDMARKS, (1 + STATES) * NUM_LANDMARKS], axis=-1
    )
    return Predicted(landmarks, sigma, visibility.reshape(*shape, NUM_LANDMARKS, STATES), confidence[..., 0])
