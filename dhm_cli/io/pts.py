"""Landmark annotations in .pts files, of ibug and of MERL-RAV."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import CURVES, NUM_LANDMARKS

# No photo is larger than this; beyond lie damaged numbers, NaN included.
FARTHEST = 1e6

# Visibility codes of a landmark.
NO_LABEL, VISIBLE, OCCLUDED, SELF_OCCLUDED = 0, 1, 2, 3


def read_pts(path: Path, merl_signs: bool = True) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Read a 68-point .pts file.

    On disk coordinates are 1-based. In files of ibug every point is labelled, wherever it lies. In those of MERL-RAV
    (Kumar et al. 2020) signs tell the visibility. Both positive: visible; both negative: externally occluded, position
    |x|, |y|; exactly "-1 -1": self-occluded or not labelled, no position.

    Args:
        path: the file.
        merl_signs: read the signs as MERL-RAV means them; False takes every coordinate as it is.

    Returns:
        Points (68, 2), 0-based pixels, NaN where not labelled, and visibility codes (68,).

    Raises:
        InputError: not a .pts file of 68 points.
    """
    raw = _read_pts_numbers(path)
    visibility = np.full(len(raw), VISIBLE, dtype=np.uint8)
    if merl_signs:
        visibility[(raw < 0).all(axis=1)] = OCCLUDED
        visibility[(raw == -1).all(axis=1)] = NO_LABEL
    points = np.where(visibility[:, None] == OCCLUDED, -raw, raw) - 1
    points[visibility == NO_LABEL] = np.nan
    return points.astype(np.float32), visibility


def pts_text(points: Sequence[Sequence[float]]) -> str:
    """The content of a .pts file of ibug.

    Args:
        points: 68 of x, y and maybe more, 0-based pixels.

    Returns:
        Text with x and y, 1-based pixels with three decimals.
    """
    lines = "".join(f"{x + 1:.3f} {y + 1:.3f}\n" for x, y, *_ in points)
    return f"version: 1\nn_points: {len(points)}\n{{\n{lines}}}\n"


def has_merl_signs(path: Path) -> bool:
    """Whether the signs in a .pts file can only be meant as MERL-RAV means them (`read_pts`).

    That is so where a point is exactly "-1 -1", and where a point with two negative coordinates lies far from its
    positive neighbour on the same curve of the face while its mirror image in the positive quarter lies near. A face
    that is cut off by the corner of the photo has negative points too, but near their neighbours.

    Raises:
        InputError: not a .pts file of 68 points.
    """
    raw = _read_pts_numbers(path)
    if (raw == -1).all(axis=1).any():
        return True
    positive = np.asarray((raw > 0).all(axis=1))
    negative = np.asarray((raw < 0).all(axis=1))
    if not positive.any() or not negative.any():
        return False
    near = np.ptp(raw[positive], axis=0).max() / 2
    first = np.concatenate([np.arange(start, end) for start, end, _ in CURVES])
    borders = (positive[first] & negative[first + 1]) | (negative[first] & positive[first + 1])
    step = np.linalg.norm(raw[first] - raw[first + 1], axis=1)
    folded = np.linalg.norm(np.abs(raw[first]) - np.abs(raw[first + 1]), axis=1)
    return bool((borders & (step > near) & (folded < near)).any())


def _read_pts_numbers(path: Path) -> NDArray[np.float64]:
    """The 68 pairs of a .pts file as they are."""
    try:
        text = path.read_text(encoding="utf-8", errors="strict")
        _, opened, rest = text.partition("{")
        body, closed, _ = rest.partition("}")
        if not (opened and closed):
            raise ValueError("no numbers in braces")
        raw = np.array(body.split(), dtype=np.float64).reshape(-1, 2)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a .pts file ({error})", "expected `n_points: 68` and 68 x y lines in braces"
        ) from error
    if len(raw) != NUM_LANDMARKS:
        raise InputError(f"{path}: {len(raw)} points", "only the 68-point scheme of 300-W is supported")
    if not (np.abs(raw) < FARTHEST).all():
        raise InputError(f"{path}: holds values that are no pixel positions", "remove or repair the file")
    return raw
