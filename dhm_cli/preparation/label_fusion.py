"""Labels fitted again from three sources: human points, a prior, and a trained network (self-training).

People, a prior (points of some other network) and our network differ in convention, which is the same for all faces,
and in noise, which is not. Conventions are brought together first, each measured over the training faces:

- Left and right. Networks trained with mirroring, averaged over an image and its mirror image, cannot lie to one side.
  So where human points lie to the right of such a network on average, in pixels of the photo and not of the face, the
  photo's pixels were counted wrongly somewhere: MERL-RAV's points by 0.6 % of the face size, half a pixel of its crops.
- Where on a face a landmark is put, as a smooth function of |yaw|: people draw the jaw elsewhere than a 3D model fit.

Then one point per landmark, the mean of what is left weighted by trust, is fitted with the 3DMM, faces on which the
sources do not agree are left out of training (`flagged`), and what the human points deviate from the fit is added to it
(`deviations`). A validation face gets no say of the network that will be
measured on it, and is never left out; test faces stay as they are.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dhm_cli.data.store import SPLITS, FaceLabels
from dhm_cli.geometry.landmarks import GROUPS, JAW, MIRROR, NUM_LANDMARKS, bounding_box, face_size
from dhm_cli.geometry.pose import euler_to_matrix
from dhm_cli.io.pts import VISIBLE
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.fitting import OCCLUDED_WEIGHT, PRIOR_JAW_WEIGHT, PRIOR_WEIGHT, far_side_jaw, fit_parameters
from dhm_cli.preparation.deviations import Deviations
from dhm_cli.runtime.progress import Progress, silent

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Trust in a point relative to a visible human one of the inner face. Per coordinate and after their conventions are
# removed, people, the shared prior and the shipped network err by about 2.0, 1.2 and 1.1 % of the face size there
# (three-cornered hat over the MERL-RAV validation faces); the errors of the last two are alike in neighbouring points,
# those of people less so, and the fit averages the latter out. Networks open mouths and eyes too little: of what lips
# part in human points, this prior shows 0.7 and the network 0.3 to 0.5, and labels that follow it would teach it to the
# next network.
_HUMAN_JAW_TRUST = 0.5
_PRIOR_TRUST = {"jaw": 0.5, "brows": 0.35, "nose": 0.35, "eyes": 0.25, "mouth": 0.25}
_NETWORK_TRUST = {"jaw": 0.5, "brows": 0.35, "nose": 0.35, "eyes": 0.2, "mouth": 0.1}
# A human point this far off the network's counts half, percent of the face size.
_HUMAN_OUTLIER = 8.0
# Disagreements above which a face is left out, means over its landmarks, percent of the face size.
_LIMITS = {"human points": 4.5, "prior": 6.0, "network": 4.5, "mirror images": 2.5}

# Offsets are kept at these |yaw|, degrees, smoothed by a Gaussian; where few faces speak they fade.
_KNOTS = np.arange(0.0, 96.0, 5.0)
_SMOOTHING = 7.0
_FEW_FACES = 40.0
# Larger offsets than this share of the face size are accidents, not convention.
_ACCIDENT = 0.12


@dataclass(frozen=True)
class Sources:
    """The points of N faces that a prior and a trained network give.

    Attributes:
        prior: (N, 68, 2), image pixels, NaN where there is none.
        network: (N, 68, 2), image pixels, mean over an image and its mirror image.
        spread: (N,), percent of the face size: mean distance of the network's single answers to their mean.
    """

    prior: Array
    network: Array
    spread: Array


class FaceFrame:
    """Offsets of landmarks in the frame of the face: upright, turned to positive yaw, in units of the face size.

    Args:
        labels: N faces; their landmarks and parameters say where each face lies.
    """

    def __init__(self, labels: FaceLabels) -> None:
        self.size = face_size(labels.landmarks.astype(np.float64))
        self.turn = np.abs(labels.yaw.astype(np.float64))
        up = euler_to_matrix(labels.parameters[:, 1:4])[:, :2, 1]  # of the model, y up
        length = np.linalg.norm(up, axis=1).clip(1e-9)
        self._sine, self._cosine = (up / length[:, None]).T[..., None]
        self._negative = labels.yaw < 0

    def enter(self, offsets: Array) -> Array:
        """Image pixels -> frame of the face, (N, 68, 2)."""
        x, y = np.moveaxis(offsets, -1, 0) / self.size[:, None]
        result = np.stack([x * self._cosine + y * self._sine, y * self._cosine - x * self._sine], axis=-1)
        return self._mirrored(result)

    def leave(self, offsets: Array) -> Array:
        """Frame of the face -> image pixels, (N, 68, 2)."""
        x, y = np.moveaxis(self._mirrored(offsets), -1, 0) * self.size[:, None]
        return np.stack([x * self._cosine - y * self._sine, y * self._cosine + x * self._sine], axis=-1)

    def order(self, values: Array) -> Array:
        """Numbers of landmarks (N, 68), in the image's order <-> in that of the frame."""
        return np.where(self._negative[:, None], values[:, MIRROR], values)

    def _mirrored(self, offsets: Array) -> Array:
        mirrored = offsets[:, MIRROR] * [-1.0, 1.0]
        return np.where(self._negative[:, None, None], mirrored, offsets)


@dataclass(frozen=True)
class Convention:
    """Where one source puts landmarks, seen from another: mean offsets in the frame of the face by |yaw|.

    Attributes:
        offsets: (K, 68, 2), at the |yaw| of `_KNOTS`, shares of the face size.
    """

    offsets: Array

    @classmethod
    def measure(cls, offsets: Array, turn: Array) -> "Convention":
        """Smooth means.

        Args:
            offsets: (N, 68, 2), frame of the face, NaN where a source is silent.
            turn: (N,), |yaw|, degrees.
        """
        known = np.linalg.norm(offsets, axis=-1) < _ACCIDENT  # False for NaN
        values = np.where(known[..., None], offsets, 0.0)
        weight = np.exp(-0.5 * np.square((turn - _KNOTS[:, None]) / _SMOOTHING))  # (K, N)
        total = np.einsum("kn,nlc->klc", weight, values)
        return cls(total / (np.einsum("kn,nl->kl", weight, known) + _FEW_FACES)[..., None])

    def only(self, landmarks: Mask) -> "Convention":
        """The offsets of some landmarks (68,), none of the others."""
        return Convention(np.where(landmarks[:, None], self.offsets, 0.0))

    def at(self, turn: Array) -> Array:
        """(N,) |yaw|, degrees -> (N, 68, 2), frame of the face."""
        place = np.clip(turn, 0.0, _KNOTS[-1]) / (_KNOTS[1] - _KNOTS[0])
        below = np.minimum(place.astype(int), len(_KNOTS) - 2)
        share = (place - below)[:, None, None]
        offsets: Array = (1 - share) * self.offsets[below] + share * self.offsets[below + 1]
        return offsets


@dataclass(frozen=True)
class Relabelled:
    """The outcome.

    Attributes:
        labels: the N faces with new landmarks, parameters and flags.
        bias: how far the human points lay to the right of the network, percent of the face size.
        moved: (N,), mean distance of new landmarks to old, percent of the face size.
        disagreement: by what is compared, (N,), means over a face's landmarks, percent of the face size.
        deviations: of human points from fits.
    """

    labels: FaceLabels
    bias: float
    moved: Array
    disagreement: dict[str, Array]
    deviations: Deviations | None

    @property
    def reasons(self) -> dict[str, int]:
        """Number of training faces that are left out, by what disagreed; a face may count in several."""
        train = self.labels.split == SPLITS.index("train")
        return {name: int((self.disagreement[name][train] > limit).sum()) for name, limit in _LIMITS.items()}


def convention_of_prior(labels: FaceLabels, sources: Sources, landmarks: Mask) -> Convention:
    """The prior's convention seen from the network's, for some landmarks (68,); none for the others."""
    rows = labels.in_split("train")
    frame = FaceFrame(labels.take(rows))
    offsets = frame.enter(sources.prior[rows] - sources.network[rows])
    return Convention.measure(offsets, frame.turn).only(landmarks)


def relabel(
    model: FaceModel,
    labels: FaceLabels,
    sources: Sources,
    wanted: Convention,
    moved: Mask,
    trust: float = 1.0,
    follow: bool = True,
    deviations: Deviations | None = None,
    progress: Progress = silent,
) -> Relabelled:
    """Fit the labels of a store again.

    Args:
        model: the face model of its parameters.
        labels: N faces.
        sources: the points that the prior and the network give for them.
        wanted: the convention that the labels shall have, seen from the network's.
        moved: (68,), which of the human points to bring to it; the others are taken to be in it already.
        trust: in the human points, 1 for careful ones.
        follow: add to the fit what the human points deviate from it.
        deviations: their distribution, of another store; None to measure it on the training faces of this one. The
            noise is that of this store's points where it is larger.
        progress: of the fit, called with "fit", the faces done and the total.

    Returns:
        The new labels.
    """
    progress("fit", 0, len(labels))  # what comes before it takes a while too
    frame = FaceFrame(labels)
    train, test = (labels.split == SPLITS.index(name) for name in ("train", "test"))
    network = sources.network + frame.leave(wanted.at(frame.turn))
    human, bias = _human_points(labels, frame, network, moved)
    points = np.stack([human, sources.prior, network])
    weights = _weights(labels, frame, points, trust)
    fitted = _fit(model, labels, points, weights, progress)
    before, after = (x.landmarks[..., :2].astype(np.float64) for x in (labels, fitted))
    disagreement = _disagreement(frame, labels.visibility, points, weights[0], after, sources.spread)
    bad = np.any([disagreement[name] > limit for name, limit in _LIMITS.items()], axis=0) & train
    if follow:
        fitted, deviations = _followed(fitted, human, weights[0], train & ~bad, deviations)
        after = fitted.landmarks[..., :2].astype(np.float64)
    moved_by = _apart(frame, after, before, np.ones(labels.visibility.shape, bool))
    kept = test | ~weights.any(axis=(0, 2))  # of the latter nothing is said
    new = _unless(kept, labels, replace(fitted, flagged=bad.astype(np.uint8)))
    return Relabelled(new, 100 * bias, np.where(kept, 0.0, moved_by), disagreement, deviations)


def _human_points(labels: FaceLabels, frame: FaceFrame, network: Array, moved: Mask) -> tuple[Array, float]:
    """Human points (N, 68, 2) in the wanted convention, NaN where there is none, and their bias to the right.

    Args:
        labels: N faces.
        frame: theirs.
        network: (N, 68, 2), the network's points in the wanted convention.
        moved: (68,), which of the points to bring to that convention.
    """
    train, code = labels.split == SPLITS.index("train"), labels.visibility
    human = np.where((code > 0)[..., None], labels.points.astype(np.float64), np.nan)
    visible = (code == VISIBLE) & train[:, None]
    visible[:, JAW] = False
    right = (human - network)[..., 0] / frame.size[:, None]
    # Of both sides alike: a convention of the face, such as noses drawn too far out, is no wrong pixel.
    sides = [right[visible & side[:, None]] for side in (labels.yaw < 0, labels.yaw >= 0)]
    bias = float(np.mean([np.median(side) for side in sides])) if all(len(side) for side in sides) else 0.0
    human[..., 0] -= bias * frame.size[:, None]
    seen = np.where((code == VISIBLE)[..., None], human - network, np.nan)
    theirs = Convention.measure(frame.enter(seen)[train], frame.turn[train]).only(moved)
    return human - frame.leave(theirs.at(frame.turn)), bias


def _weights(labels: FaceLabels, frame: FaceFrame, points: Array, trust: float) -> Array:
    """Weights (3, N, 68) of the points of people, prior and network (3, N, 68, 2); 0 where there is none."""
    human, _, network = points
    train = labels.split == SPLITS.index("train")
    off = np.where(train[:, None], np.linalg.norm(human - network, axis=-1) / frame.size[:, None], 0.0)
    weights = np.stack([_human_trust(labels, off) * trust, *_other_trust(train)])
    return np.where(np.isnan(points).any(-1), 0.0, weights)


def _fit(model: FaceModel, labels: FaceLabels, points: Array, weights: Array, progress: Progress) -> FaceLabels:
    """The labels with what follows from the face model, fitted to the weighted mean of points (3, N, 68, 2)."""
    total = weights.sum(0)
    target = (np.nan_to_num(points) * weights[..., None]).sum(0) / total.clip(1e-9)[..., None]
    heights = torch.from_numpy(labels.image_size[:, 0])
    points_of, trust_of = torch.from_numpy(target).float(), torch.from_numpy(total).float()
    fit = fit_parameters(model, points_of, trust_of, heights, progress=progress)
    parameters = fit.parameters.numpy()
    landmarks = model.project(parameters, labels.image_size[:, 0])
    landmarks[..., 2] -= landmarks[..., 2].mean(axis=1, keepdims=True)
    return replace(
        labels,
        landmarks=landmarks.astype(np.float32),
        parameters=parameters,
        box=bounding_box(landmarks).astype(np.float32),
        yaw=np.rad2deg(parameters[:, 2]),
        residual=fit.residual.numpy(),
    )


def _followed(
    fitted: FaceLabels, human: Array, trust: Array, learned: Mask, known: Deviations | None
) -> tuple[FaceLabels, Deviations]:
    """The labels, their landmarks moved by the expected deviation of human points (N, 68, 2) with trust (N, 68).

    The deviations are measured on the rows `learned` (N,), but for their noise taken from `known` where there are some.
    """
    frame = FaceFrame(fitted)
    offsets, trusted = frame.enter(human - fitted.landmarks[..., :2]), frame.order(trust)
    deviations = Deviations.measure(np.where((trusted > 0)[..., None], offsets, np.nan)[learned])
    if known is not None:
        deviations = known.with_noise(deviations)
    landmarks = fitted.landmarks.copy()
    landmarks[..., :2] += frame.leave(deviations.expected(offsets, trusted))
    return replace(fitted, landmarks=landmarks, box=bounding_box(landmarks).astype(np.float32)), deviations


def _disagreement(
    frame: FaceFrame, visibility: NDArray[np.uint8], points: Array, trusted: Array, landmarks: Array, spread: Array
) -> dict[str, Array]:
    """How far the sources are from each other and from the fit, by what is compared; (N,), percent of the face size.

    Args:
        frame: of N faces.
        visibility: (N, 68), of the human points.
        points: (3, N, 68, 2), of people, prior and network.
        trusted: (N, 68), weight of the human points.
        landmarks: (N, 68, 2), of the fit.
        spread: (N,), of the network's answers.
    """
    human, prior, network = points
    everywhere = np.ones(visibility.shape, bool)
    return {
        "human points": _apart(frame, human, landmarks, (trusted > 0) & (visibility == VISIBLE)),
        "prior": _apart(frame, prior, network, everywhere),
        "network": _apart(frame, network, landmarks, everywhere),
        "mirror images": spread,
    }


def _apart(frame: FaceFrame, one: Array, other: Array, where: Mask) -> Array:
    """Mean distance of points over the landmarks where both are known, (N,), percent of the face size."""
    distance = np.linalg.norm(one - other, axis=-1) / frame.size[:, None]
    known = where & np.isfinite(distance)
    return 100 * np.where(known, distance, 0.0).sum(1) / known.sum(1).clip(1)


def _human_trust(labels: FaceLabels, off: Array) -> Array:
    """Trust in human points (N, 68), from their distance (N, 68) to the network's, a share of the face size."""
    trust = np.array([0.0, 1.0, OCCLUDED_WEIGHT, 0.0])[labels.visibility]
    trust[:, JAW] *= _HUMAN_JAW_TRUST
    trust[far_side_jaw(torch.from_numpy(np.deg2rad(labels.yaw))).numpy()] = 0.0
    return trust / (1 + np.square(100 * np.nan_to_num(off) / _HUMAN_OUTLIER))


def _other_trust(train: Mask) -> tuple[Array, Array]:
    """Trust in the prior and in the network, (N, 68) each; of faces that are not for training that of `dhm prepare`."""
    prior, network = np.zeros(NUM_LANDMARKS), np.zeros(NUM_LANDMARKS)
    for name, part in GROUPS.items():
        prior[part], network[part] = _PRIOR_TRUST[name], _NETWORK_TRUST[name]
    old = np.full(NUM_LANDMARKS, PRIOR_WEIGHT)
    old[JAW] = PRIOR_JAW_WEIGHT
    return np.where(train[:, None], prior, old), np.where(train[:, None], network, 0.0)


def _unless(kept: Mask, old: FaceLabels, new: FaceLabels) -> FaceLabels:
    """The new labels, but the old ones of some faces (N,)."""

    before = old.arrays()
    chosen: dict[str, NDArray[Any]] = {
        name: np.where(kept.reshape(-1, *[1] * (values.ndim - 1)), before[name], values)
        for name, values in new.arrays().items()
    }
    return FaceLabels(**chosen)
