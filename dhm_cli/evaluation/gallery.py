"""Faces to look at: some of each yaw bin drawn by lot, the worst, and some that were not found."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.drawing.faces import comparison_tile
from dhm_cli.evaluation.ground_truth import GroundTruth
from dhm_cli.evaluation.method import Method
from dhm_cli.evaluation.scores import Score
from dhm_cli.metrics.landmark_error import YAW_BINS, in_yaw_bin

# Faces of each section; a picture's side, pixels; its JPEG quality.
_SHOWN, _SIDE, _QUALITY = 24, 200, 82


@dataclass(frozen=True)
class Tile:
    """One face: its name, yaw (degrees), NME (percent; NaN where it was not found) and picture (JPEG)."""

    name: str
    yaw: float
    nme: float
    jpeg: bytes


@dataclass(frozen=True)
class Section:
    """Faces under a heading."""

    title: str
    tiles: list[Tile]


def gallery(truth: GroundTruth, method: Method, score: Score) -> list[Section]:
    """The faces of a method with truth and prediction drawn; sections without a face are left out."""
    found = ~np.isnan(score.nme)
    rng = np.random.default_rng(0)
    chosen: list[tuple[str, NDArray[np.int64]]] = []
    for name in YAW_BINS:
        faces = np.flatnonzero(found & in_yaw_bin(truth.faces.yaw, name))
        drawn = np.sort(rng.permutation(faces)[:_SHOWN])
        chosen.append((f"yaw {name}, drawn by lot", drawn[np.argsort(score.nme[drawn], kind="stable")]))
    worst = np.argsort(np.where(found, -score.nme, np.inf), kind="stable")[: min(_SHOWN, int(found.sum()))]
    chosen += [("largest error", worst), ("not found", np.flatnonzero(~found)[:_SHOWN])]
    return [
        Section(title, [_tile(truth, method, score, int(k)) for k in faces]) for title, faces in chosen if len(faces)
    ]


def _tile(truth: GroundTruth, method: Method, score: Score, face: int) -> Tile:
    image = truth.store.images(truth.rows[face : face + 1])[0]
    picture = comparison_tile(image, truth.landmarks[face], method.landmarks[face], None, _SIDE)
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    name = str(truth.faces.names[face])
    return Tile(name, float(truth.faces.yaw[face]), float(score.nme[face]), jpeg.tobytes())
