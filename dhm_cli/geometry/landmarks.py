"""The 68-point scheme of 300-W, as used by 300W-LP and AFLW2000-3D: groups, mirror order, boxes."""

import numpy as np
from numpy.typing import NDArray

NUM_LANDMARKS = 68

JAW = slice(0, 17)
BROWS = slice(17, 27)
NOSE = slice(27, 36)
EYES = slice(36, 48)
MOUTH = slice(48, 68)
GROUPS: dict[str, slice] = {"jaw": JAW, "brows": BROWS, "nose": NOSE, "eyes": EYES, "mouth": MOUTH}

# Polylines for drawing: (first index, last index, closed).
CURVES: tuple[tuple[int, int, bool], ...] = (
    (0, 16, False),
    (17, 21, False),
    (22, 26, False),
    (27, 30, False),
    (31, 35, False),
    (36, 41, True),
    (42, 47, True),
    (48, 59, True),
    (60, 67, True),
)


def _mirror_order() -> NDArray[np.int64]:
    pairs = [(i, 16 - i) for i in range(8)] + [(17 + i, 26 - i) for i in range(5)]
    pairs += [(31, 35), (32, 34)]
    pairs += [(36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)]
    pairs += [(48, 54), (49, 53), (50, 52), (55, 59), (56, 58)]
    pairs += [(60, 64), (61, 63), (65, 67)]
    order = np.arange(NUM_LANDMARKS)
    for left, right in pairs:
        order[left], order[right] = right, left
    return order


# MIRROR[i] is the landmark that landmark i becomes when the image is mirrored.
MIRROR: NDArray[np.int64] = _mirror_order()


def bounding_box(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Smallest axis-aligned box around the points.

    Args:
        points: (..., N, 2 or more), pixels; coordinates after the second are ignored.

    Returns:
        (..., 4): left, top, width, height in pixels.
    """
    xy = points[..., :2]
    low = xy.min(axis=-2)
    return np.concatenate([low, xy.max(axis=-2) - low], axis=-1)


def face_size(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Face size sqrt(width * height) of the points' bounding box, the normaliser of the NME.

    Args:
        points: (..., N, 2 or more), pixels.

    Returns:
        (...), pixels.
    """
    box = bounding_box(points)
    return np.sqrt(box[..., 2] * box[..., 3])
