"""All numbers of one method on the faces of a ground truth, and its differences from another method."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhm_cli.evaluation.ground_truth import GroundTruth
from dhm_cli.evaluation.protocols import JITTER_KINDS, JITTERS
from dhm_cli.geometry.landmarks import GROUPS
from dhm_cli.geometry.occlusion import self_occluded
from dhm_cli.geometry.pose import align_rotation, angle_difference, euler_to_matrix, geodesic_angle, matrix_to_euler
from dhm_cli.metrics.bootstrap import LEVEL, Difference, compare, headline, headline_intervals
from dhm_cli.metrics.landmark_error import (
    YAW_BINS,
    failure_rate,
    in_yaw_bin,
    landmark_errors,
    nme_by_yaw,
    normalised_mean_error,
    normaliser,
)

# Faces turned further, degrees in any of the three angles, are left out of pose errors, as is usual on AFLW2000-3D.
POSE_LIMIT = 99.0
# Images listed by name.
_WORST = 12
_NAMED = 100
_Y_UP = np.array([1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Method:
    """What a method says of N faces.

    Attributes:
        name: for tables and charts.
        record: where it comes from, for the report.
        landmarks: (N, 68, 2 or 3), 0-based image pixels; NaN for a face that was not found.
        pose: (N, 3), pitch, yaw, roll in degrees, NaN where not given; None where the method gives none.
        variants: (V, N, 68, 3), landmarks from each of `protocols.JITTERS`; None under other protocols.
    """

    name: str
    record: Mapping[str, Any]
    landmarks: NDArray[np.floating]
    pose: NDArray[np.float64] | None = None
    variants: NDArray[np.floating] | None = None

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which faces it gave points for, (N,)."""
        return ~np.isnan(self.landmarks).any(axis=(1, 2))

    def take(self, chosen: NDArray[np.bool_]) -> "Method":
        """What it says of some of the faces, by mask."""
        pose = None if self.pose is None else self.pose[chosen]
        variants = None if self.variants is None else self.variants[:, chosen]
        return replace(self, landmarks=self.landmarks[chosen], pose=pose, variants=variants)


@dataclass(frozen=True)
class Scoring:
    """How methods are scored.

    Attributes:
        normaliser: one of `metrics.NORMALISERS`.
        threshold: of the failure rate, percent.
        skip_missing: leave out the faces that a method did not find, instead of counting them as failures.
        replicates: of the bootstrap.
        seed: of the bootstrap.
    """

    normaliser: str = "bbox"
    threshold: float = 6.0
    skip_missing: bool = False
    replicates: int = 2000
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Score:
    """The NME of every face, percent, NaN for a face that was not found, and all numbers for the report."""

    nme: NDArray[np.float64]
    numbers: dict[str, Any]


def score(method: Method, truth: GroundTruth, scoring: Scoring) -> Score:
    """Score one method.

    Args:
        method: its points of the N faces.
        truth: N faces.
        scoring: how.

    Returns:
        The NME of all N faces, and the numbers: n and bins (faces that count), measured (those with an NME), missing,
        nme, nme_by_labelled_yaw, median, failure_rate, auc, intervals, regions, visibility, landmarks, mean_offset,
        nme_3d, pose, worst, robustness.
    """
    nme = normalised_mean_error(method.landmarks, truth.landmarks, scoring.normaliser)
    found = method.found
    missing = {
        "policy": "skip" if scoring.skip_missing else "fail",
        "count": int((~found).sum()),
        "by_bin": _counts(truth.faces.yaw[~found]),
        "names": truth.faces.names[~found][:_NAMED].tolist(),
    }
    counted = found if scoring.skip_missing else np.ones(len(truth), bool)
    method, truth, known = method.take(counted), truth.take(counted), nme[counted]
    numbers = _headline(known, truth.faces.yaw, scoring)
    numbers.update(n=len(truth), bins=_counts(truth.faces.yaw), missing=missing)
    numbers["measured"] = {**_counts(truth.faces.yaw[method.found]), "mean_of_images": int(method.found.sum())}
    numbers["nme_by_labelled_yaw"] = _labelled(truth, known, scoring)
    numbers.update(_parts(method, truth, scoring))
    numbers["pose"] = pose_errors(method, truth)
    order = np.argsort(-known, kind="stable")[: min(_WORST, int(found.sum()))]  # NaN comes last
    numbers["worst"] = [
        {"name": str(truth.faces.names[i]), "yaw": float(truth.faces.yaw[i]), "nme": float(known[i])} for i in order
    ]
    numbers["robustness"] = None if method.variants is None else _robustness(method.variants, truth, scoring)
    return Score(nme, numbers)


def _headline(nme: NDArray[np.float64], yaw: NDArray[np.floating], scoring: Scoring) -> dict[str, Any]:
    values = {name: float(value[0]) for name, value in headline(nme, yaw, scoring.threshold).items()}
    ends = headline_intervals(nme, yaw, scoring.threshold, scoring.replicates, scoring.seed)
    intervals = _nested({name: list(pair) for name, pair in ends.items()})
    numbers = _nested(values)
    numbers["failure_rate"] = {"threshold": scoring.threshold, "value": numbers["failure_rate"]}
    numbers["intervals"] = {"level": LEVEL, "replicates": scoring.replicates, "seed": scoring.seed, **intervals}
    return numbers


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of `bootstrap.headline` in the structure of the report."""
    return {
        "nme": {name: flat[name] for name in (*YAW_BINS, "mean_of_bins", "mean_of_images")},
        "median": flat["median"],
        "failure_rate": flat["failure_rate"],
        "auc": {"7": flat["auc_7"], "8": flat["auc_8"]},
    }


def _counts(yaw: NDArray[np.floating]) -> dict[str, int]:
    return {name: int(in_yaw_bin(yaw, name).sum()) for name in YAW_BINS}


def _labelled(truth: GroundTruth, nme: NDArray[np.float64], scoring: Scoring) -> dict[str, Any] | None:
    """The bins by the yaw of the dataset's own labels, of the faces that have one, with intervals."""
    yaw = truth.faces.labelled_yaw
    if yaw is None or np.isnan(yaw).all():
        return None
    known = ~np.isnan(yaw)
    numbers = _headline(nme[known], yaw[known], scoring)
    return {**numbers["nme"], "bins": _counts(yaw[known]), "intervals": numbers["intervals"]["nme"]}


def _parts(method: Method, truth: GroundTruth, scoring: Scoring) -> dict[str, Any]:
    """Errors by region, by landmark, by visibility and in depth."""
    yaw = truth.faces.yaw
    errors = landmark_errors(method.landmarks, truth.landmarks, scoring.normaliser)
    hidden = self_occluded(euler_to_matrix(np.radians(truth.pose)))
    found = method.found
    offset = (method.landmarks[found, :, :2] - truth.landmarks[found, :, :2]).mean(axis=1)
    has_depth = method.landmarks.shape[2] == 3 and truth.landmarks.shape[2] == 3
    return {
        "regions": {name: nme_by_yaw(errors[:, group].mean(axis=1), yaw, found) for name, group in GROUPS.items()},
        "visibility": {
            "visible": _masked(errors, ~hidden, yaw, found),
            "self_occluded": _masked(errors, hidden, yaw, found),
            "share_self_occluded": float(100 * hidden.mean()) if len(hidden) else float("nan"),
        },
        "landmarks": errors[found].mean(axis=0).tolist() if found.any() else [float("nan")] * errors.shape[1],
        "mean_offset": np.median(offset, axis=0).tolist() if len(offset) else [float("nan")] * 2,
        "nme_3d": _depth(method, truth, scoring) if has_depth else None,
    }


def _masked(
    errors: NDArray[np.float64], mask: NDArray[np.bool_], yaw: NDArray[np.floating], found: NDArray[np.bool_]
) -> dict[str, float]:
    """Mean over the chosen landmarks of each face, then by yaw over the faces that have any."""
    some = mask.any(axis=1)
    chosen = np.where(mask, errors, 0.0)[some].sum(axis=1) / mask.sum(axis=1)[some]
    return {**nme_by_yaw(chosen, yaw[some], found[some]), "faces": int((some & found).sum())}


def _depth(method: Method, truth: GroundTruth, scoring: Scoring) -> dict[str, Any]:
    yaw, (a, b) = truth.faces.yaw, (method.landmarks, truth.landmarks)
    whole = landmark_errors(a, b, scoring.normaliser, depth=True).mean(axis=1)
    difference = a[..., 2] - b[..., 2]
    depth = np.abs(difference - difference.mean(axis=1, keepdims=True)).mean(axis=1)
    relative = 100 * depth / normaliser(b, scoring.normaliser)
    return {**nme_by_yaw(whole, yaw, method.found), "depth": nme_by_yaw(relative, yaw, method.found)}


def pose_errors(method: Method, truth: GroundTruth) -> dict[str, Any] | None:
    """Errors of the head pose against the fitted parameters, degrees.

    Where the method gives no pose but points in 3D, its pose is that of the truth turned by the rotation that best
    carries the true points onto the predicted ones; that uses the true shape, so it is kinder than a method's own.

    Args:
        method: its points.
        truth: the same faces; those that were not found have no pose.

    Returns:
        source ("predicted" or "aligned"), n, limit, excluded (names of the faces turned further), mean absolute pitch,
        yaw, roll, their mean, the mean geodesic angle, and the medians; None where there is no pose to be had.
    """
    inside: NDArray[np.bool_] = np.all(np.abs(truth.pose) <= POSE_LIMIT, axis=1)
    excluded = truth.faces.names[~inside].tolist()
    inside, method, truth = inside[method.found], method.take(method.found), truth.take(method.found)
    rotation = euler_to_matrix(np.radians(truth.pose))
    if method.pose is not None:
        source, pose = "predicted", method.pose
    elif method.landmarks.shape[2] == 3:
        turned = align_rotation(truth.faces.landmarks.astype(np.float64) * _Y_UP, method.landmarks * _Y_UP)
        source, pose = "aligned", np.degrees(matrix_to_euler(turned @ rotation))
    else:
        return None
    known = inside & ~np.isnan(pose).any(axis=1)
    errors = np.abs(angle_difference(pose[known], truth.pose[known]))
    angles = np.degrees(geodesic_angle(euler_to_matrix(np.radians(pose[known])), rotation[known]))
    columns = dict(zip(("pitch", "yaw", "roll"), errors.T, strict=True))
    return {
        "source": source,
        "n": int(known.sum()),
        "limit": POSE_LIMIT,
        "excluded": excluded,
        **{name: _mean(column) for name, column in columns.items()},
        "mean": _mean(errors),
        "geodesic": _mean(angles),
        "median": {name: _median(column) for name, column in (*columns.items(), ("geodesic", angles))},
    }


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else float("nan")


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values)) if values.size else float("nan")


def _robustness(variants: NDArray[np.floating], truth: GroundTruth, scoring: Scoring) -> list[dict[str, Any]]:
    """A row for each level of each kind of jitter; the unmoved box begins every kind."""
    rows = []
    for kind in JITTER_KINDS:
        for jitter, points in zip(JITTERS, variants, strict=True):
            if jitter.kind in ("none", kind):
                nme = normalised_mean_error(points, truth.landmarks, scoring.normaliser)
                means = nme_by_yaw(nme, truth.faces.yaw)
                row = {"kind": kind, "level": 100 * jitter.level, "failure_rate": failure_rate(nme, scoring.threshold)}
                rows.append({**row, "mean_of_bins": means["mean_of_bins"], "mean_of_images": means["mean_of_images"]})
    return rows


def difference(ours: Score, theirs: Score, truth: GroundTruth, scoring: Scoring) -> dict[str, Any]:
    """Our numbers minus another method's by paired bootstrap, in the structure of the report.

    Also "common", the number of faces that both found, over which means and medians are.
    """
    both = ~np.isnan(ours.nme) & ~np.isnan(theirs.nme)
    known = both if scoring.skip_missing else np.ones(len(truth), bool)
    found = compare(
        *(ours.nme[known], theirs.nme[known], truth.faces.yaw[known]),
        *(scoring.threshold, scoring.replicates, scoring.seed),
    )
    return {"common": int(both.sum()), **_nested({name: _difference(value) for name, value in found.items()})}


def _difference(value: Difference) -> dict[str, Any]:
    return {"value": value.value, "interval": list(value.interval), "verdict": value.verdict}


def noise_floor(truth: GroundTruth, scoring: Scoring) -> dict[str, float] | None:
    """The re-annotated points scored against the original ones: how far two label sets of the same faces disagree."""
    faces = truth.faces
    if faces.reannotated is None:
        return None
    nme = normalised_mean_error(faces.reannotated, faces.landmarks, scoring.normaliser)
    return {**nme_by_yaw(nme, faces.yaw), "failure_rate": failure_rate(nme, scoring.threshold)}
