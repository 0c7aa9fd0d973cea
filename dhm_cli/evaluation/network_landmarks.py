"""A network's landmarks of every face of the ground truth, in pieces that can be kept when the work is stopped."""

from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from dhm_cli.evaluation.ground_truth import GroundTruth
from dhm_cli.evaluation.protocols import Protocol
from dhm_cli.geometry.crop import landmark_crop_square
from dhm_cli.geometry.landmarks import NUM_LANDMARKS
from dhm_cli.inference.engines import Engine, landmarks_in_squares
from dhm_cli.runtime.progress import Progress, silent
from dhm_cli.runtime.threads import in_order
from dhm_cli.runtime.unfinished import Unfinished

# Faces of one piece of work: what has begun is finished when the work is stopped, and large networks take their time.
_PIECE = 16


def predict_faces(
    engine: Engine,
    truth: GroundTruth,
    protocol: Protocol,
    refine: int,
    threads: int,
    unfinished: Unfinished,
    progress: Progress = silent,
    stage: str = "",
) -> NDArray[np.float32]:
    """Run a network over every face.

    Args:
        engine: the network.
        truth: N faces.
        protocol: where to look; V variants.
        refine: passes after the first that crop around the landmarks found.
        threads: at work, each on a piece of the faces.
        unfinished: where to keep what is done; the caller removes it when all is.
        progress: called in this thread with `stage`, the number of faces done and N.
        stage: how the work is called.

    Returns:
        (V, N, 68, 3), image pixels, NaN where no face was found.

    Raises:
        FormatError: an image of the store is damaged.
    """
    count = len(truth)
    predicted = np.full((protocol.variants, count, NUM_LANDMARKS, 3), np.nan, np.float32)
    done = unfinished.load(predicted)
    pieces = [range(start, min(start + _PIECE, count)) for start in range(0, count, _PIECE)]
    to_do = [piece for piece in pieces if not done[piece.start]]
    progress(stage, int(done.sum()), count)

    def work(piece: range) -> NDArray[np.float64]:
        return _predict_piece(engine, truth, protocol, refine, piece)

    try:
        with closing(in_order(work, to_do, threads)) as results:
            for piece, points in zip(to_do, results, strict=True):
                predicted[:, piece.start : piece.stop] = points
                done[piece.start : piece.stop] = True
                progress(stage, int(done.sum()), count)
                unfinished.save_at_times(predicted, done)
    finally:  # also when all is done: what follows may be stopped too
        unfinished.save(predicted, done)
    return predicted


def _predict_piece(
    engine: Engine, truth: GroundTruth, protocol: Protocol, refine: int, faces: range
) -> NDArray[np.float64]:
    """Landmarks of some faces, (V, n, 68, 3), image pixels."""
    images = truth.store.images(truth.rows[faces.start : faces.stop])
    places = [protocol(face, image) for face, image in zip(faces, images, strict=True)]
    flat = [(image, square) for image, its in zip(images, places, strict=True) for square in its]
    found = [pair for pair in flat if pair[1] is not None]
    photos, squares = [image for image, _ in found], [square for _, square in found if square is not None]
    landmarks = landmarks_in_squares(engine, photos, squares)
    for _ in range(refine):
        landmarks = landmarks_in_squares(engine, photos, [landmark_crop_square(points) for points in landmarks])
    result = np.full((len(flat), NUM_LANDMARKS, 3), np.nan)
    result[[square is not None for _, square in flat]] = landmarks
    return np.moveaxis(result.reshape(len(images), protocol.variants, NUM_LANDMARKS, 3), 1, 0)
