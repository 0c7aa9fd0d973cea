"""A network's sigma, visibility and confidence against the truth."""

import numpy as np
from numpy.typing import NDArray

from dhm_cli.evaluation.ground_truth import GroundTruth
from dhm_cli.evaluation.method import Method
from dhm_cli.evaluation.numbers import ConfidenceNumbers, Doubts, SigmaNumbers, VisibilityNumbers
from dhm_cli.geometry.landmarks import face_size
from dhm_cli.geometry.occlusion import HIDDEN
from dhm_cli.geometry.occlusion import OCCLUDED as IS_OCCLUDED
from dhm_cli.geometry.occlusion import SELF_OCCLUDED as IS_SELF_OCCLUDED
from dhm_cli.geometry.occlusion import VISIBLE as IS_VISIBLE
from dhm_cli.inference.passes import BELIEVED
from dhm_cli.io.pts import NO_LABEL, OCCLUDED, SELF_OCCLUDED, VISIBLE
from dhm_cli.metrics.doubts import (
    WIDE,
    balanced_accuracy,
    kept_errors,
    negative_log_likelihood,
    reliability,
    roc_auc,
    share_within,
)
from dhm_cli.metrics.landmark_error import FAILURE, YAW_BINS, in_yaw_bin, normalised_mean_error

# Percent of the faces that are kept when the least sure are dropped.
KEPT = (100, 99, 98, 95, 90, 80, 70, 60, 50)


def score_doubts(method: Method, truth: GroundTruth) -> Doubts | None:
    """Score what a network tells of its own landmarks; None where it tells nothing or found no face.

    Confidence is the chance of an NME below 6 % of the box of the true points: that is what is scored, whatever
    normaliser and threshold the report is for.

    Args:
        method: its answers about N faces.
        truth: the faces.
    """
    found = method.found
    if method.sigma is None or method.visibility is None or method.confidence is None or not found.any():
        return None
    faces, landmarks, truth = truth.faces.take(found), method.landmarks[found], truth.take(found)
    size = face_size(truth.landmarks)
    distance = 100 * np.linalg.norm(landmarks[..., :2] - truth.landmarks[..., :2], axis=-1) / size[:, None]
    sigma = 100 * method.sigma[found] / size[:, None]
    chosen = {**{name: in_yaw_bin(faces.yaw, name) for name in YAW_BINS}, "all": np.ones(len(faces), bool)}
    return Doubts(
        sigma={name: _sigma(distance[rows], sigma[rows]) for name, rows in chosen.items() if rows.any()},
        visibility=_visibility(method.visibility[found], faces.visibility),
        confidence=_confidence(
            method.confidence[found],
            normalised_mean_error(landmarks, truth.landmarks),
            sigma.mean(axis=1),
            method.not_faces,
        ),
    )


def _sigma(distance: NDArray[np.float64], sigma: NDArray[np.float64]) -> SigmaNumbers:
    return SigmaNumbers(
        100 * share_within(distance, sigma, 1),
        100 * share_within(distance, sigma, WIDE),
        100 * share_within(distance, sigma, 2),
        negative_log_likelihood(distance, sigma),
    )


def _visibility(told: NDArray[np.floating], codes: NDArray[np.uint8]) -> VisibilityNumbers | None:
    """None where people marked no landmark as self-occluded: then the labels tell nothing of it."""
    marked = codes != NO_LABEL
    hidden, covered, seen = (codes == code for code in (SELF_OCCLUDED, OCCLUDED, VISIBLE))
    if not hidden.any():
        return None
    probability = told[..., IS_SELF_OCCLUDED]
    in_front = covered | seen
    relative = told[..., IS_OCCLUDED] / np.maximum(told[..., IS_OCCLUDED] + told[..., IS_VISIBLE], 1e-12)
    return VisibilityNumbers(
        roc_auc(probability[marked], hidden[marked]),
        100 * balanced_accuracy(probability[marked] > HIDDEN, hidden[marked]),
        roc_auc(relative[in_front], covered[in_front]),
        {
            name: float(100 * mask[marked].mean())
            for name, mask in (("visible", seen), ("occluded", covered), ("self_occluded", hidden))
        },
    )


def _confidence(
    confidence: NDArray[np.floating],
    nme: NDArray[np.float64],
    doubt: NDArray[np.float64],
    not_faces: NDArray[np.floating] | None,
) -> ConfidenceNumbers:
    right = nme < FAILURE
    others = np.empty(0) if not_faces is None else not_faces
    claims, true = np.concatenate([confidence, others]), np.concatenate([right, np.zeros(len(others), bool)])
    is_face = np.arange(len(claims)) < len(confidence)
    order = np.argsort(doubt, kind="stable")
    curve = kept_errors(nme, doubt)
    kept = []
    for percent in KEPT:
        count = max(1, round(len(nme) * percent / 100))
        failed = float(100 * (nme[order[:count]] > FAILURE).mean())
        kept.append({"percent": float(percent), "nme": float(curve[count - 1]), "failure_rate": failed})
    return ConfidenceNumbers(
        failure_auc=roc_auc(confidence, right),
        not_face_auc=roc_auc(claims, is_face) if len(others) else None,
        not_faces=len(others),
        believed=float(100 * (others >= BELIEVED).mean()) if len(others) else None,
        doubted=float(100 * (confidence[right] < BELIEVED).mean()) if right.any() else float("nan"),
        reliability=[
            {"from": part / 10, "claims": float(row.number), "claimed": row.claimed, "right": row.true}
            for part, row in enumerate(reliability(claims, true))
        ],
        kept=kept,
    )
