"""The face detectors by name. A new one is a file with a `Detector`, and a line of `DETECTORS`."""

from collections.abc import Callable

from dhm_cli.errors import InputError
from dhm_cli.inference.face_box import MIN_SCORE, Detector
from dhm_cli.inference.yunet import FaceDetector

# Each is opened with the least score of a face, 0 to 1. The first is the default.
DETECTORS: dict[str, Callable[[float], Detector]] = {"yunet": FaceDetector}


def load_detector(name: str | None = None, min_score: float = MIN_SCORE) -> Detector:
    """Open a face detector.

    Args:
        name: one of `DETECTORS`; None for the first.
        min_score: least score of a face, 0 to 1.

    Raises:
        InputError: there is no detector of this name.
        DhmError: the detector's file is not installed, or damaged.
    """
    name = next(iter(DETECTORS)) if name is None else name
    if name not in DETECTORS:
        raise InputError(f"unknown face detector {name!r}", hint=f"known are {', '.join(DETECTORS)}")
    return DETECTORS[name](min_score)
