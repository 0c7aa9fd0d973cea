"""The NME on the points that people labelled as visible, without the jaw: what no choice of fitted labels can flatter.

    python tests/human_points.py accuracy/prepared/merl.h5 accuracy/fast accuracy/fast-x2

The first argument is a store with the human points, the others are reports of `dhm evaluate` on the same faces. Each
face counts with the mean distance over its visible points of the inner 51, in percent of sqrt(w h) of the box of its
labels.
"""

import sys
from pathlib import Path

import numpy as np

from dhm_cli.data.store import FaceStore
from dhm_cli.geometry.landmarks import JAW, face_size
from dhm_cli.metrics.landmark_error import nme_by_yaw

_VISIBLE = 1


def human_error(store: FaceStore, report: Path) -> dict[str, float]:
    """NME by yaw of a report's predictions."""
    labels = store.labels
    with np.load(report / "predictions.npz") as found:
        order = {str(name): row for row, name in enumerate(found["names"])}
        rows = np.array([k for k, name in enumerate(labels.names) if str(name) in order])
        predicted = found["landmarks"][[order[str(name)] for name in labels.names[rows]]]
    visible = labels.visibility[rows] == _VISIBLE
    visible[:, JAW] = False
    distance = np.linalg.norm(predicted[..., :2] - labels.points[rows], axis=-1)
    some = visible.any(axis=1)
    mean = np.where(visible, distance, 0.0).sum(axis=1)[some] / visible.sum(axis=1)[some]
    return nme_by_yaw(100 * mean / face_size(labels.landmarks[rows][some]), labels.yaw[rows][some])


if __name__ == "__main__":
    source = FaceStore(Path(sys.argv[1]))
    for folder in map(Path, sys.argv[2:]):
        shown = "  ".join(f"{name} {value:.2f}" for name, value in human_error(source, folder).items())
        sys.stdout.write(f"{folder.name}, human visible points of the inner 51:  {shown}\n")
