"""The numbers of an evaluation, and their form in `report.json`."""

from dataclasses import asdict, dataclass
from typing import Any

from dhm_cli.metrics.bootstrap import LEVEL, Difference
from dhm_cli.metrics.headline import nested


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


@dataclass(frozen=True)
class Missing:
    """Faces that a method gave no points for.

    Attributes:
        policy: "fail", they are failures, or "skip", they are left out.
        count: how many; `by_bin` the same by yaw.
        names: the first of them.
    """

    policy: str
    count: int
    by_bin: dict[str, int]
    names: list[str]


@dataclass(frozen=True)
class Headline:
    """The numbers of `metrics.headline.HEADLINE` by name, percent, with the ends of their intervals."""

    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class LabelledYaw:
    """The headline of the faces that have a yaw of the dataset's own labels, binned by that; and faces by bin."""

    headline: Headline
    bins: dict[str, int]


@dataclass(frozen=True)
class Visibility:
    """NME by yaw of the landmarks on the near side and on the side turned away, and the percentage of the latter."""

    visible: dict[str, float]
    self_occluded: dict[str, float]
    share_self_occluded: float


@dataclass(frozen=True)
class Depth:
    """NME by yaw in x, y and z, and mean absolute error by yaw in z alone, percent."""

    whole: dict[str, float]
    depth: dict[str, float]


@dataclass(frozen=True)
class PoseErrors:
    """Absolute errors of the head pose, degrees.

    Attributes:
        source: "predicted", the pose is the method's own, or "aligned", its points' rotation from the true ones.
        n: faces.
        limit: faces turned further are left out, their names are in `excluded`.
        geodesic: mean angle of the one rotation that leads from the true pose to the method's, whatever the order of
            the angles.
        pitch, yaw, roll: means over the faces, in the order of 300W-LP, R = R_x R_y R_z, as benchmarks have them.
        mean: of these three.
        median: medians, by the same names but the mean.
    """

    source: str
    n: int
    limit: float
    excluded: list[str]
    geodesic: float
    pitch: float
    yaw: float
    roll: float
    mean: float
    median: dict[str, float]


@dataclass(frozen=True)
class WorstFace:
    """A face with one of the largest errors: name, yaw (degrees), NME (percent)."""

    name: str
    yaw: float
    nme: float


@dataclass(frozen=True)
class Disturbed:
    """Numbers under boxes that are off: kind and level (percent of the side), and what became of them, percent."""

    kind: str
    level: float
    failure_rate: float
    mean_of_bins: float
    mean_of_images: float


@dataclass(frozen=True)
class Rolled:
    """Numbers of faces in photos turned by an angle (degrees, clockwise as seen), percent."""

    roll: int
    failure_rate: float
    mean_of_bins: float
    mean_of_images: float


@dataclass(frozen=True)
class SigmaNumbers:
    """Errors of landmarks against their sigma, for the faces of one yaw bin or of all.

    Attributes:
        within_one: share of the errors within one sigma, percent; see `metrics.doubts.RIGHT_SHARES`.
        within_wide: within 1.79 sigma, which should hold 95 %.
        within_two: within two.
        likelihood: mean negative log-likelihood, nats, of errors in percent of the face size.
    """

    within_one: float
    within_wide: float
    within_two: float
    likelihood: float


@dataclass(frozen=True)
class VisibilityNumbers:
    """Told visibility against what people marked, over the landmarks with a mark.

    Attributes:
        self_occluded_auc: area under the ROC of the probability of being hidden by the head itself, against all others.
        self_occluded_balanced: balanced accuracy where a probability above `geometry.occlusion.HIDDEN` counts, percent.
        occluded_auc: of being hidden by something else, against the visible ones.
        shares: percent of the landmarks by mark: visible, occluded, self_occluded.
    """

    self_occluded_auc: float
    self_occluded_balanced: float
    occluded_auc: float
    shares: dict[str, float]


@dataclass(frozen=True)
class ConfidenceNumbers:
    """Confidence against what became of the faces.

    Attributes:
        failure_auc: area under the ROC for faces whose NME is below 6 % against the other faces.
        not_face_auc: for faces against pictures without one; None without such pictures.
        not_faces: how many of these there are; `believed` how many of them are not doubtful, percent.
        doubted: percent of the faces with an NME below 6 % that are doubtful all the same.
        reliability: by tenths: how many claims, their mean and the share that was right; pictures without a face
            count.
        kept: what is left when the least sure are dropped, by their mean sigma: percent kept, mean NME, failure rate.
    """

    failure_auc: float
    not_face_auc: float | None
    not_faces: int
    believed: float | None
    doubted: float
    reliability: list[dict[str, float]]
    kept: list[dict[str, float]]


@dataclass(frozen=True)
class Doubts:
    """How well a network knows its own errors; `sigma` by yaw bin and for `all`."""

    sigma: dict[str, SigmaNumbers]
    visibility: VisibilityNumbers | None
    confidence: ConfidenceNumbers


@dataclass(frozen=True)
class Numbers:
    """All numbers of one method.

    Attributes:
        headline: with intervals.
        scoring: how it was scored.
        n: faces that count; `bins` the same by yaw; `measured` those of them with an NME, by yaw and in all.
        missing: faces without points.
        by_labelled_yaw: None where the dataset has no yaw of its own.
        regions: NME by yaw over the points of a region alone.
        visibility: near side and far side.
        landmarks: mean error of each, percent.
        mean_offset: median shift in x and y, pixels.
        nme_3d: None where points or truth are 2D.
        pose: None where there is no pose to be had.
        worst: the largest errors.
        robustness: None but under the protocol jitter.
        rolls: None but under the protocol roll.
        upright: NME by yaw and failure rate after one more pass over an upright crop; None where that was not made.
        doubts: None where the method tells none.
    """

    headline: Headline
    scoring: Scoring
    n: int
    bins: dict[str, int]
    missing: Missing
    measured: dict[str, int]
    by_labelled_yaw: LabelledYaw | None
    regions: dict[str, dict[str, float]]
    visibility: Visibility
    landmarks: list[float]
    mean_offset: list[float]
    nme_3d: Depth | None
    pose: PoseErrors | None
    worst: list[WorstFace]
    robustness: list[Disturbed] | None
    rolls: list[Rolled] | None = None
    upright: dict[str, float] | None = None
    doubts: Doubts | None = None

    def to_json(self) -> dict[str, Any]:
        """The numbers as `report.json` has them."""
        s, own = self.scoring, self.by_labelled_yaw
        intervals = nested({name: list(ends) for name, ends in self.headline.intervals.items()})
        numbers = nested(self.headline.values)
        numbers["failure_rate"] = {"threshold": s.threshold, "value": numbers["failure_rate"]}
        labelled = None
        if own is not None:
            ends = nested({name: list(pair) for name, pair in own.headline.intervals.items()})["nme"]
            labelled = {**nested(own.headline.values)["nme"], "bins": own.bins, "intervals": ends}
        return {
            **numbers,
            "intervals": {"level": LEVEL, "replicates": s.replicates, "seed": s.seed, **intervals},
            "n": self.n,
            "bins": self.bins,
            "missing": asdict(self.missing),
            "measured": self.measured,
            "nme_by_labelled_yaw": labelled,
            "regions": self.regions,
            "visibility": asdict(self.visibility),
            "landmarks": self.landmarks,
            "mean_offset": self.mean_offset,
            "nme_3d": None if self.nme_3d is None else {**self.nme_3d.whole, "depth": self.nme_3d.depth},
            "pose": None if self.pose is None else asdict(self.pose),
            "worst": [asdict(face) for face in self.worst],
            "robustness": None if self.robustness is None else [asdict(row) for row in self.robustness],
            "rolls": None if self.rolls is None else [asdict(row) for row in self.rolls],
            "upright": self.upright,
            "doubts": None if self.doubts is None else asdict(self.doubts),
        }


@dataclass(frozen=True)
class Comparison:
    """How a method differs from another on the same faces.

    Attributes:
        common: faces that both found, over which means and medians are.
        differences: of every headline number, by name.
    """

    common: int
    differences: dict[str, Difference]

    def to_json(self) -> dict[str, Any]:
        """The differences as `report.json` has them."""
        values = {
            name: {"value": d.value, "interval": list(d.interval), "verdict": d.verdict}
            for name, d in self.differences.items()
        }
        return {"common": self.common, **nested(values)}


@dataclass(frozen=True)
class OtherOrigin:
    """NME by yaw against re-annotated points whose pixels are counted from `origin`, not from the store's number."""

    origin: int
    nme: dict[str, float]
