"""What can be wrong with a dataset, found from its labels alone; numpy only.

Every check returns a `Finding` or None. The checks come from faults seen in circulating copies of the public datasets.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dhm_cli.data.store import SPLITS, FaceLabels
from dhm_cli.geometry.landmarks import face_size
from dhm_cli.io.pts import NO_LABEL, SELF_OCCLUDED

Severity = Literal["error", "warning", "note"]

# Landmarks of two copies count as the same below this distance, pixels. Genuine neighbours in 300W-LP are turned by
# some five degrees, which moves landmarks by several pixels.
_SAME = 0.05
# Projection and stored landmarks: float32 parameters of a 450-pixel image reproduce the points to 5e-5 px.
PROJECTION_TOLERANCE = 1e-2
# A face counts as outside its image when more of its landmarks than this lie outside.
_OUTSIDE_SHARE = 0.5
_NAMED = 20


@dataclass(frozen=True)
class Finding:
    """Something noteworthy about a dataset.

    Attributes:
        check: name of the check.
        severity: error (the labels are wrong), warning (look at it; what --strict refuses), note (known and harmless).
        message: one sentence with the numbers.
        names: some of the faces or files concerned.
    """

    check: str
    severity: Severity
    message: str
    names: tuple[str, ...] = ()


def check_counts(found: Mapping[str, int], published: Mapping[str, int]) -> Finding | None:
    """Compare the number of faces in each subset with the published one; a subset that is missing counts as 0."""
    wrong = [
        f"{name} {found.get(name, 0):,} of {count:,}" for name, count in published.items() if found.get(name) != count
    ]
    if not wrong:
        return None
    return Finding("counts", "warning", f"not the published number of faces: {', '.join(wrong)}")


def repeated_rows(identity: NDArray[np.str_], points: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Faces whose points repeat those of an earlier image of the same source face.

    In faulty copies of 300W-LP every rotated view of a face carries the landmarks of one of them. Its `pt2d` does so
    even in good copies: they are those of the photo, not of its rotated views.

    Args:
        identity: (N,), the source faces.
        points: (N, 68, 2 or 3), pixels; a face without a label (NaN) repeats none.

    Returns:
        (N,); False for the first of each set of equals.
    """
    first: dict[str, list[int]] = defaultdict(list)
    repeated = np.zeros(len(points), bool)
    for row, name in enumerate(identity):
        repeated[row] = any(np.abs(points[row] - points[k]).max() < _SAME for k in first[name])
        if not repeated[row]:
            first[name].append(row)
    return repeated


def check_finite(labels: FaceLabels) -> Finding | None:
    """NaN or infinite numbers in landmarks, parameters, box or yaw."""
    arrays = (labels.landmarks, labels.parameters, labels.box, labels.yaw[:, None], labels.residual[:, None])
    bad = ~np.all([np.isfinite(a.reshape(len(labels), -1)).all(axis=1) for a in arrays], axis=0)
    return _finding("not-finite", "error", bad, labels, "{} with NaN or infinite labels")


def check_inside(labels: FaceLabels) -> Finding | None:
    """Faces most of whose landmarks lie outside the image."""
    height, width = labels.image_size.T
    xy = labels.landmarks[..., :2]
    outside = (xy < -0.5).any(-1) | (xy[..., 0] > width[:, None] - 0.5) | (xy[..., 1] > height[:, None] - 0.5)
    bad = outside.mean(axis=1) > _OUTSIDE_SHARE
    return _finding("outside-image", "warning", bad, labels, "{} with most landmarks outside the image")


def check_partly_inside(labels: FaceLabels) -> Finding | None:
    """Faces cut off by the edge of their image, which is common and harmless."""
    height, width = labels.image_size.T
    left, top, box_width, box_height = labels.box.T
    cut = (left < 0) | (top < 0) | (left + box_width > width - 1) | (top + box_height > height - 1)
    return _finding("cut-off", "note", cut, labels, "{} with a landmark outside the image")


def check_yaw(labels: FaceLabels) -> Finding | None:
    """Yaws beyond 90 degrees, which the benchmark counts as 60-90 by |yaw|; some are whole turns off."""
    beyond = np.abs(labels.yaw) > 90
    most = labels.yaw[np.abs(labels.yaw).argmax()] if len(labels) else 0.0
    text = f"{{}} with a yaw beyond 90 degrees (up to {most:.1f})"
    return _finding("yaw-wrap", "note", beyond, labels, text)


def check_projection(labels: FaceLabels, projected: NDArray[np.floating], tolerance: float) -> Finding | None:
    """Stored landmarks against the model's projection of p.

    Args:
        labels: N faces.
        projected: (N, 68, 3), the model's landmarks of `labels.parameters`, same pixels, any depth origin.
        tolerance: pixels in x, y.
    """
    off = np.abs(projected[..., :2] - labels.landmarks[..., :2]).max(axis=(1, 2))
    bad = ~(off <= tolerance)
    worst = f"{off[bad].max():.3g}" if bad.any() else ""
    text = f"{{}} whose landmarks are not the projection of p (up to {worst} px off)"
    return _finding("projection", "error", bad, labels, text)


def check_box(labels: FaceLabels) -> Finding | None:
    """Boxes that are not the landmarks', and faces without extent."""
    low, high = labels.landmarks[..., :2].min(axis=1), labels.landmarks[..., :2].max(axis=1)
    bad = np.abs(np.concatenate([low, high - low], axis=1) - labels.box).max(axis=1) > PROJECTION_TOLERANCE
    bad |= face_size(labels.landmarks) < 1
    return _finding("box", "error", bad, labels, "{} whose box is not that of the landmarks, or smaller than a pixel")


def check_identities(labels: FaceLabels) -> Finding | None:
    """Identities that stand in more than one split: validation would be flattered."""
    splits: dict[str, set[int]] = defaultdict(set)
    for identity, split in zip(labels.identity, labels.split, strict=True):
        splits[identity].add(int(split))
    shared = [identity for identity, found in splits.items() if len(found) > 1]
    if not shared:
        return None
    return Finding(
        "identity-leak", "warning", f"{len(shared):,} identities stand in several splits", tuple(shared[:_NAMED])
    )


def check_unusable(names: Sequence[str]) -> Finding | None:
    """Faces whose image or annotation cannot be used."""
    if not names:
        return None
    text = f"{len(names):,} face{'s' if len(names) > 1 else ''} that cannot be used"
    return Finding("unusable", "warning", text, tuple(names[:_NAMED]))


def check_residual(
    labels: FaceLabels, bad: NDArray[np.bool_], dropped: NDArray[np.bool_], limit: float
) -> Finding | None:
    """Fits that are worse than a limit (percent of the face size), and how many of them were left out."""
    if not bad.any():
        return None
    text = f"{bad.sum():,} fits are worse than {limit:g} % of the face size; {dropped.sum():,} left out"
    return Finding("residual", "note", text, tuple(str(n) for n in labels.names[bad][:_NAMED]))


def check_points(labels: FaceLabels, repeated: NDArray[np.bool_]) -> Finding | None:
    """Views whose labelled points are those of another view, and so were left out."""
    text = "{} with the points of another view: kept without points"
    return _finding("repeated-points", "note", repeated, labels, text)


def check_codes(labels: FaceLabels) -> Finding | None:
    """Codes that mean nothing, and points without a label or labels without a point."""
    bad = labels.split >= len(SPLITS)
    bad |= (labels.visibility > SELF_OCCLUDED).any(axis=1)
    bad |= (np.isin(labels.visibility, (NO_LABEL, SELF_OCCLUDED)) != np.isnan(labels.points).any(axis=2)).any(axis=1)
    return _finding("codes", "error", bad, labels, "{} with contradicting visibility, points or split")


def check_names(labels: FaceLabels) -> Finding | None:
    """Names that stand twice."""
    names, counts = np.unique(labels.names, return_counts=True)
    twice = tuple(str(n) for n in names[counts > 1])
    return Finding("names", "error", f"{len(twice):,} names stand twice", twice[:_NAMED]) if twice else None


def check_labels(labels: FaceLabels) -> list[Finding]:
    """All checks that need nothing but the labels, the gravest first."""
    checks = (check_finite, check_box, check_codes, check_names, check_inside, check_yaw, check_partly_inside)
    found = [check(labels) for check in checks]
    return by_severity([f for f in found if f])


def by_severity(findings: Sequence[Finding]) -> list[Finding]:
    """Errors, then warnings, then notes."""
    order = ("error", "warning", "note")
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def _finding(check: str, severity: Severity, bad: NDArray[np.bool_], labels: FaceLabels, text: str) -> Finding | None:
    rows = np.flatnonzero(bad)
    if not len(rows):
        return None
    count = f"{len(rows):,} face{'' if len(rows) == 1 else 's'}"
    return Finding(check, severity, text.format(count), tuple(str(n) for n in labels.names[rows[:_NAMED]]))
