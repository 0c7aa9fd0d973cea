"""What a reader of the numbers must know: faces without points, points in other pixels, boxes of different origin."""

from collections.abc import Sequence

import numpy as np

from dhm_cli.evaluation.ground_truth import GroundTruth
from dhm_cli.evaluation.method import Method
from dhm_cli.evaluation.scores import Score
from dhm_cli.geometry.landmarks import face_size
from dhm_cli.geometry.pose import euler_to_matrix, geodesic_angle, yaw_pitch_roll_to_matrix

# Points whose median shift is within this of (1, 1) pixel are taken for points that count from another corner.
_ONE_PIXEL = 0.35
# A median shift beyond this share of the median face size is no matter of accuracy.
_FAR_OFF = 0.1
# Angles of a pose that all stay within this are taken for radians where the truth is turned further, degrees.
_RADIANS, _TURNED = 2 * np.pi, 30.0
# A pose this far off in the median, degrees, and less than half as far when read yaw first, is taken for one of that
# order.
_OTHER_ORDER = 8.0
_NAMED = 3
_SEEN = "a network may have learned from {} faces, or been chosen on them, so its numbers may be too good"
_BOXES = "networks get the boxes of the protocol, predictions come from boxes of their own: boxes are compared too"


def caveats(truth: GroundTruth, methods: Sequence[Method], scores: Sequence[Score]) -> list[str]:
    """Sentences about results that would otherwise mislead, each beginning with the method's name.

    Args:
        truth: the faces.
        methods: the method in question, then those it is compared with.
        scores: theirs.
    """
    found = []
    for method, score in zip(methods, scores, strict=True):
        notes = [
            _missing(method, score, len(truth)),
            _shift(truth, score),
            _depth(truth, method),
            _radians(truth, method) or _yaw_first(truth, method),
        ]
        found += [f"{method.name}: {note}" for note in notes if note]
        if method.origin.is_network and truth.split != "test":
            found.append(f"{method.name}: {_SEEN.format(truth.split)}")
    for method in methods[1:]:
        if method.origin.kind != methods[0].origin.kind:
            found.append(f"{method.name}: {_BOXES}")
    return found


def _missing(method: Method, score: Score, count: int) -> str:
    lost = score.numbers.missing
    if not lost.count:
        return ""
    bins = ", ".join(f"{number:,} at {name} degrees" for name, number in lost.by_bin.items() if number)
    what = "left out" if lost.policy == "skip" else "failures, and no part of means and medians"
    unused = method.origin.unused
    more = f"; {unused:,} of its predictions belong to no face here" if unused else ""
    examples = ", ".join(lost.names[:_NAMED])
    return f"no points for {lost.count:,} of {count:,} faces ({bins}; such as {examples}), which are {what}{more}"


def _shift(truth: GroundTruth, score: Score) -> str:
    x, y = score.numbers.mean_offset
    shift = f"its points lie {x:+.2f}, {y:+.2f} pixels off on the whole"
    if abs(abs(x) - 1) < _ONE_PIXEL and abs(abs(y) - 1) < _ONE_PIXEL and x * y > 0:
        wrong = "1-based" if x > 0 else "1 too small"
        return f"{shift}; are they {wrong}? Pixels are 0-based here, but for .pts files"
    if max(abs(x), abs(y)) > _FAR_OFF * float(np.median(face_size(truth.landmarks))):
        return f"{shift}; are they of other images, of another image size or of a crop?"
    return ""


def _depth(truth: GroundTruth, method: Method) -> str:
    found = method.found
    if method.origin.is_network or method.landmarks.shape[2] == 2 or not found.any():
        return ""
    ours, true = (
        z - z.mean(axis=1, keepdims=True) for z in (method.landmarks[found, :, 2], truth.faces.landmarks[found, :, 2])
    )
    away = float(np.median((ours * true).sum(axis=1))) < 0
    return "its z seems to grow away from the viewer; toward the viewer is expected" if away else ""


def _radians(truth: GroundTruth, method: Method) -> str:
    if method.origin.is_network or method.pose is None or np.isnan(method.pose).any(axis=1).all():
        return ""
    given = ~np.isnan(method.pose).any(axis=1)
    small = np.abs(method.pose[given]).max() <= _RADIANS
    turned = np.abs(truth.pose[given]).max() > _TURNED
    return "its pose seems to be in radians; degrees are expected" if small and turned else ""


def _yaw_first(truth: GroundTruth, method: Method) -> str:
    if method.origin.is_network or method.pose is None:
        return ""
    pose, true = np.radians(method.pose), np.radians(truth.pose)
    turned = ~np.isnan(pose).any(axis=1) & np.isfinite(true).all(axis=1) & (np.abs(truth.faces.yaw) > _TURNED)
    if not turned.any():
        return ""
    rotation, angles = euler_to_matrix(true[turned]), pose[turned]
    read = np.median(geodesic_angle(euler_to_matrix(angles), rotation))
    other = np.median(geodesic_angle(yaw_pitch_roll_to_matrix(angles[:, [1, 0, 2]]), rotation))
    if np.degrees(read) > _OTHER_ORDER and other < read / 2:
        return "its pose seems to be yaw first, R = R_y R_x R_z; pitch, yaw, roll of R = R_x R_y R_z are expected"
    return ""
