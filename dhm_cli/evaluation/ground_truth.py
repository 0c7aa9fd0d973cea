"""The faces that methods are scored on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhm_cli.data.store import SPLITS, FaceLabels, FaceStore
from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import face_size
from dhm_cli.io.pts import FARTHEST
from dhm_cli.metrics.landmark_error import YAW_BINS, in_yaw_bin

LABEL_SETS = ("original", "reannotated")
# AFLW2000-3D, complete: faces by |yaw| of the fitted pose (Pose_Para).
BENCHMARK_LAYOUT = "aflw2000-3d"
BENCHMARK_BINS = (1312, 383, 305)


@dataclass(frozen=True)
class GroundTruth:
    """N faces with one of their label sets.

    Attributes:
        store: where they come from.
        split: train, val, test or all.
        label_set: one of `LABEL_SETS`.
        rows: (N,), of the store.
        faces: their labels, N rows.
    """

    store: FaceStore
    split: str
    label_set: str
    rows: NDArray[np.int64]
    faces: FaceLabels

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def landmarks(self) -> NDArray[np.float64]:
        """The points of the label set, (N, 68, 3), re-annotated (N, 68, 2): 0-based image pixels."""
        points = self.faces.landmarks if self.label_set == "original" else self.faces.reannotated
        return np.asarray(points, np.float64)

    @property
    def pose(self) -> NDArray[np.float64]:
        """Pitch, yaw and roll of the fitted parameters, (N, 3), degrees, as the source gives them."""
        return np.degrees(self.faces.parameters[:, 1:4].astype(np.float64))

    def take(self, chosen: NDArray[np.bool_]) -> "GroundTruth":
        """Some of the faces, by mask."""
        return replace(self, rows=self.rows[chosen], faces=self.faces.take(chosen))

    def benchmark_problem(self) -> str:
        """Why published results on AFLW2000-3D must not be set beside results on these faces; empty if they may."""
        dataset = self.store.attributes.get("dataset") or "another dataset"
        if self.store.attributes.get("layout") != BENCHMARK_LAYOUT:
            return f"the published rows are of AFLW2000-3D, these faces are of {dataset}"
        counts = tuple(int(in_yaw_bin(self.faces.yaw, name).sum()) for name in YAW_BINS)
        if counts != BENCHMARK_BINS:
            found, whole = ("/".join(map(str, numbers)) for numbers in (counts, BENCHMARK_BINS))
            return f"the published rows are of the whole AFLW2000-3D ({whole} faces by yaw), these are {found}"
        return ""


def load_ground_truth(path: Path, label_set: str = "original", split: str | None = None) -> GroundTruth:
    """Read the faces of a store that are to be scored.

    Args:
        path: a store of `dhm prepare`.
        label_set: one of `LABEL_SETS`.
        split: train, val, test or all; None for test, or val where the store has no test faces.

    Raises:
        InputError: no such store, split or label set, or no face in it.
        FormatError: it is no store, or its labels are damaged.
    """
    check_choice("--labels", label_set, LABEL_SETS)
    if split is not None:
        check_choice("--split", split, (*SPLITS, "all"))
    store = FaceStore(path)
    counts = {name: int((store.labels.split == k).sum()) for k, name in enumerate(SPLITS)}
    if not len(store):
        raise InputError(f"{path}: no face in this store", "prepare it again: dhm prepare FOLDER --bfm BFM.mat")
    found = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
    chosen = split or next((name for name in ("test", "val") if counts[name]), None)
    if chosen is None:
        hint = "held-out faces give honest numbers; to score the faces that networks learn from, pass --split train"
        raise InputError(f"{path}: neither test nor val faces, only {found}", hint)
    rows = np.arange(len(store)) if chosen == "all" else np.flatnonzero(store.labels.split == SPLITS.index(chosen))
    if not len(rows):
        raise InputError(f"{path}: no {chosen} faces, only {found}", "choose another --split")
    if label_set == "reannotated" and store.labels.reannotated is None:
        hint = "prepare AFLW2000-3D with its second labels: dhm prepare AFLW2000 --reannotated FILE.npy"
        raise InputError(f"{path}: has no re-annotated points", hint)
    truth = GroundTruth(store, chosen, label_set, rows, store.labels.take(rows))
    _check_points(truth)
    return truth


def _check_points(truth: GroundTruth) -> None:
    usable = truth.faces.usable()
    if truth.label_set == "reannotated":
        with np.errstate(invalid="ignore"):
            usable &= (np.abs(truth.landmarks) < FARTHEST).all(axis=(1, 2)) & (face_size(truth.landmarks) >= 1)
    truth.store.check_labels(truth.rows, usable)


def check_choice(flag: str, value: str, known: Sequence[str]) -> None:
    """Raise an InputError unless the value of an option is one of those known."""
    if value not in known:
        raise InputError(f"{flag} {value}: not known", f"known are {', '.join(known)}")
