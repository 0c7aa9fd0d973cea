"""All numbers of one method on the faces of a ground truth, and its differences from another method."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dhm_cli.evaluation.doubt_scores import score_doubts
from dhm_cli.evaluation.ground_truth import GroundTruth
from dhm_cli.evaluation.method import Method
from dhm_cli.evaluation.numbers import (
    Comparison,
    Depth,
    Disturbed,
    Headline,
    LabelledYaw,
    Missing,
    Numbers,
    OtherOrigin,
    PoseErrors,
    Rolled,
    Scoring,
    Visibility,
    WorstFace,
)
from dhm_cli.evaluation.protocols import JITTER_KINDS, JITTERS, ROLLS
from dhm_cli.geometry.landmarks import GROUPS
from dhm_cli.geometry.occlusion import self_occluded
from dhm_cli.geometry.pose import align_rotation, angle_difference, euler_to_matrix, geodesic_angle, matrix_to_euler
from dhm_cli.metrics.bootstrap import compare, headline_intervals
from dhm_cli.metrics.headline import headline, images_of
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
class Score:
    """The NME of every face, percent, NaN for a face that was not found, and all numbers for the report."""

    nme: NDArray[np.float64]
    numbers: Numbers


def score(method: Method, truth: GroundTruth, scoring: Scoring) -> Score:
    """Score one method.

    Args:
        method: its points of the N faces.
        truth: N faces.
        scoring: how.

    Returns:
        The NME of all N faces, and the numbers.
    """
    nme = normalised_mean_error(method.landmarks, truth.landmarks, scoring.normaliser)
    found = method.found
    missing = Missing(
        "skip" if scoring.skip_missing else "fail",
        int((~found).sum()),
        _counts(truth.faces.yaw[~found]),
        truth.faces.names[~found][:_NAMED].tolist(),
    )
    counted = found if scoring.skip_missing else np.ones(len(truth), bool)
    method, truth, known = method.take(counted), truth.take(counted), nme[counted]
    yaw = truth.faces.yaw
    errors = landmark_errors(method.landmarks, truth.landmarks, scoring.normaliser)
    offset = (method.landmarks[method.found, :, :2] - truth.landmarks[method.found, :, :2]).mean(axis=1)
    has_depth = method.landmarks.shape[2] == 3 and truth.landmarks.shape[2] == 3
    variants = np.empty((0, *method.landmarks.shape)) if method.variants is None else method.variants
    numbers = Numbers(
        headline=_headline(known, yaw, scoring),
        scoring=scoring,
        n=len(truth),
        bins=_counts(yaw),
        missing=missing,
        measured={**_counts(yaw[method.found]), "mean_of_images": int(method.found.sum())},
        by_labelled_yaw=_labelled(truth, known, scoring),
        regions={name: nme_by_yaw(errors[:, group].mean(axis=1), yaw, method.found) for name, group in GROUPS.items()},
        visibility=_visibility(errors, truth, method.found),
        landmarks=errors[method.found].mean(axis=0).tolist() if found.any() else [float("nan")] * errors.shape[1],
        mean_offset=np.median(offset, axis=0).tolist() if len(offset) else [float("nan")] * 2,
        nme_3d=_depth(method, truth, scoring) if has_depth else None,
        pose=pose_errors(method, truth),
        worst=_worst(truth, known),
        robustness=_robustness(variants, truth, scoring) if len(variants) == len(JITTERS) else None,
        rolls=_rolls(variants, truth, scoring) if len(variants) == len(ROLLS) else None,
        upright=None if method.upright is None else _upright(method.upright, truth, scoring),
        doubts=score_doubts(method, truth),
    )
    return Score(nme, numbers)


def _headline(nme: NDArray[np.float64], yaw: NDArray[np.floating], scoring: Scoring) -> Headline:
    values = headline(images_of(nme, yaw, scoring.threshold))
    ends = headline_intervals(nme, yaw, scoring.threshold, scoring.replicates, scoring.seed)
    return Headline({name: float(value[0]) for name, value in values.items()}, ends)


def _counts(yaw: NDArray[np.floating]) -> dict[str, int]:
    return {name: int(in_yaw_bin(yaw, name).sum()) for name in YAW_BINS}


def _labelled(truth: GroundTruth, nme: NDArray[np.float64], scoring: Scoring) -> LabelledYaw | None:
    yaw = truth.faces.labelled_yaw
    if yaw is None or np.isnan(yaw).all():
        return None
    known = ~np.isnan(yaw)
    return LabelledYaw(_headline(nme[known], yaw[known], scoring), _counts(yaw[known]))


def _worst(truth: GroundTruth, nme: NDArray[np.float64]) -> list[WorstFace]:
    order = np.argsort(-nme, kind="stable")[: min(_WORST, int((~np.isnan(nme)).sum()))]  # NaN comes last
    return [WorstFace(str(truth.faces.names[i]), float(truth.faces.yaw[i]), float(nme[i])) for i in order]


def _visibility(errors: NDArray[np.float64], truth: GroundTruth, found: NDArray[np.bool_]) -> Visibility:
    yaw = truth.faces.yaw
    hidden = self_occluded(euler_to_matrix(np.radians(truth.pose)))
    share = float(100 * hidden.mean()) if len(hidden) else float("nan")
    return Visibility(_masked(errors, ~hidden, yaw, found), _masked(errors, hidden, yaw, found), share)


def _masked(
    errors: NDArray[np.float64], mask: NDArray[np.bool_], yaw: NDArray[np.floating], found: NDArray[np.bool_]
) -> dict[str, float]:
    """Mean over the chosen landmarks of each face, then by yaw over the faces that have any."""
    some = mask.any(axis=1)
    chosen = np.where(mask, errors, 0.0)[some].sum(axis=1) / mask.sum(axis=1)[some]
    return {**nme_by_yaw(chosen, yaw[some], found[some]), "faces": int((some & found).sum())}


def _depth(method: Method, truth: GroundTruth, scoring: Scoring) -> Depth:
    yaw, (a, b) = truth.faces.yaw, (method.landmarks, truth.landmarks)
    whole = landmark_errors(a, b, scoring.normaliser, depth=True).mean(axis=1)
    difference = a[..., 2] - b[..., 2]
    depth = np.abs(difference - difference.mean(axis=1, keepdims=True)).mean(axis=1)
    relative = 100 * depth / normaliser(b, scoring.normaliser)
    return Depth(nme_by_yaw(whole, yaw, method.found), nme_by_yaw(relative, yaw, method.found))


def pose_errors(method: Method, truth: GroundTruth) -> PoseErrors | None:
    """Errors of the head pose against the fitted parameters, degrees.

    Where the method gives no pose but points in 3D, its pose is that of the truth turned by the rotation that best
    carries the true points onto the predicted ones; that uses the true shape, so it is kinder than a method's own.

    Args:
        method: its points.
        truth: the same faces; those that were not found have no pose.

    Returns:
        None where there is no pose to be had.
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
    return PoseErrors(
        source=source,
        n=int(known.sum()),
        limit=POSE_LIMIT,
        excluded=excluded,
        geodesic=_mean(angles),
        **{name: _mean(column) for name, column in columns.items()},
        mean=_mean(errors),
        median={name: _median(column) for name, column in (("geodesic", angles), *columns.items())},
    )


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else float("nan")


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values)) if values.size else float("nan")


def _upright(landmarks: NDArray[np.floating], truth: GroundTruth, scoring: Scoring) -> dict[str, float]:
    nme = normalised_mean_error(landmarks, truth.landmarks, scoring.normaliser)
    return {**nme_by_yaw(nme, truth.faces.yaw), "failure_rate": failure_rate(nme, scoring.threshold)}


def _rolls(variants: NDArray[np.floating], truth: GroundTruth, scoring: Scoring) -> list[Rolled]:
    """A row for each turn of the photo."""
    rows = []
    for roll, points in zip(ROLLS, variants, strict=True):
        nme = normalised_mean_error(points, truth.landmarks, scoring.normaliser)
        means = nme_by_yaw(nme, truth.faces.yaw)
        rows.append(Rolled(roll, failure_rate(nme, scoring.threshold), means["mean_of_bins"], means["mean_of_images"]))
    return rows


def _robustness(variants: NDArray[np.floating], truth: GroundTruth, scoring: Scoring) -> list[Disturbed]:
    """A row for each level of each kind of jitter; the unmoved box begins every kind."""
    rows = []
    for kind in JITTER_KINDS:
        for jitter, points in zip(JITTERS, variants, strict=True):
            if jitter.kind in ("none", kind):
                nme = normalised_mean_error(points, truth.landmarks, scoring.normaliser)
                means, failures = nme_by_yaw(nme, truth.faces.yaw), failure_rate(nme, scoring.threshold)
                rows.append(
                    Disturbed(kind, 100 * jitter.level, failures, means["mean_of_bins"], means["mean_of_images"])
                )
    return rows


def difference(ours: Score, theirs: Score, truth: GroundTruth, scoring: Scoring) -> Comparison:
    """Our numbers minus another method's, by paired bootstrap."""
    both = ~np.isnan(ours.nme) & ~np.isnan(theirs.nme)
    known = both if scoring.skip_missing else np.ones(len(truth), bool)
    found = compare(
        *(ours.nme[known], theirs.nme[known], truth.faces.yaw[known]),
        *(scoring.threshold, scoring.replicates, scoring.seed),
    )
    return Comparison(int(both.sum()), found)


def noise_floor(truth: GroundTruth, scoring: Scoring) -> dict[str, float] | None:
    """The re-annotated points scored against the original ones: how far two label sets of the same faces disagree."""
    faces = truth.faces
    if faces.reannotated is None:
        return None
    nme = normalised_mean_error(faces.reannotated, faces.landmarks, scoring.normaliser)
    return {**nme_by_yaw(nme, faces.yaw), "failure_rate": failure_rate(nme, scoring.threshold)}


def other_origin(method: Method, truth: GroundTruth, scoring: Scoring) -> OtherOrigin | None:
    """How a method stands if the re-annotated labels of AFLW2000-3D count their pixels from the other number, 0 or 1.

    Their file does not say. None for other labels.
    """
    if truth.label_set != "reannotated":
        return None
    stored = int(truth.store.attributes.get("reannotated_origin", 1))  # before it was recorded, 1 was subtracted
    other = 1 - stored
    nme = normalised_mean_error(method.landmarks, truth.landmarks + (stored - other), scoring.normaliser)
    return OtherOrigin(other, nme_by_yaw(nme, truth.faces.yaw, method.found))
