"""The NME on the points that people labelled as visible, without the jaw: what no choice of fitted labels can flatter.

    python tests/human_points.py accuracy/prepared/merl.h5 accuracy/fast accuracy/fast-x2

The first argument is a store with the human points, the others are reports of `dhm evaluate` on the same faces. Each
face counts with the mean distance over its visible points of the inner 51, in percent of sqrt(w h) of the box of its
labels. People and face models put some landmarks elsewhere on a face, always alike; "but for convention" is the mean of
bins without the mean offset of each landmark in each bin, measured on the same faces. The slope is that of the gap
between the inner lips (62 to 66, over the face size) against people's, by least squares over the faces that show both:
1 where mouths open as wide as in the photos.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhm_cli.data.store import FaceLabels, FaceStore
from dhm_cli.geometry.landmarks import JAW, face_size
from dhm_cli.metrics.landmark_error import YAW_BINS, in_yaw_bin, nme_by_yaw
from dhm_cli.preparation.label_fusion import FaceFrame

_VISIBLE = 1


_LIPS = (62, 66)


def human_figures(store: FaceStore, report: Path) -> dict[str, float]:
    """NME by yaw of a report's predictions, and the slope of their mouths' opening."""
    labels = store.labels
    with np.load(report / "predictions.npz") as found:
        order = {str(name): row for row, name in enumerate(found["names"])}
        rows = np.array([k for k, name in enumerate(labels.names) if str(name) in order])
        predicted = found["landmarks"][[order[str(name)] for name in labels.names[rows]], :, :2]
    points, size = labels.points[rows], face_size(labels.landmarks[rows])
    visible = labels.visibility[rows] == _VISIBLE
    lips = visible[:, _LIPS].all(axis=1)
    theirs, ours = (
        np.linalg.norm(p[:, _LIPS[0]] - p[:, _LIPS[1]], axis=1)[lips] / size[lips] for p in (points, predicted)
    )
    visible[:, JAW] = False
    distance = np.linalg.norm(predicted - points, axis=-1)
    some = visible.any(axis=1)
    mean = np.where(visible, distance, 0.0).sum(axis=1)[some] / visible.sum(axis=1)[some]
    figures = nme_by_yaw(100 * mean / size[some], labels.yaw[rows][some])
    figures["but for convention"] = _but_for_convention(labels.take(rows), predicted, visible)
    return {**figures, "slope of the mouth's opening": float(np.polyfit(theirs, ours, 1)[0])}


def _but_for_convention(labels: FaceLabels, predicted: NDArray[np.floating], visible: NDArray[np.bool_]) -> float:
    """Mean of bins of the error without the mean offset of each landmark in each bin, in the frame of the face."""
    frame = FaceFrame(labels)
    offsets = frame.enter(np.where(visible[..., None], predicted - labels.points, np.nan).astype(np.float64))
    means = []
    for name in YAW_BINS:
        inside = in_yaw_bin(labels.yaw, name)
        if not inside.any():
            continue
        known = np.isfinite(offsets[inside, :, 0])
        values = np.where(known[..., None], offsets[inside], 0.0)
        values -= values.sum(axis=0) / known.sum(axis=0).clip(1)[:, None]
        distance = np.where(known, np.linalg.norm(values, axis=-1), 0.0).sum(axis=1)[known.any(axis=1)]
        means.append(100 * np.mean(distance / known.sum(axis=1)[known.any(axis=1)]))
    return float(np.mean(means))


if __name__ == "__main__":
    source = FaceStore(Path(sys.argv[1]))
    for folder in map(Path, sys.argv[2:]):
        shown = "  ".join(f"{name} {value:.2f}" for name, value in human_figures(source, folder).items())
        sys.stdout.write(f"{folder.name}, human visible points of the inner 51:  {shown}\n")
