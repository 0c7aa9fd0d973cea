"""Self-occlusion: which of the 68 landmarks lie on the side of the head that is turned away."""

import numpy as np
from numpy.typing import NDArray

from dhm_cli.geometry.landmarks import MIRROR, NUM_LANDMARKS

# States of a landmark in the labels of MERL-RAV, and their order in the networks' answers.
VISIBLE, OCCLUDED, SELF_OCCLUDED = range(3)
STATES = 3
# A landmark whose probability of being self-occluded is above counts as such: about the share of these among all, so
# that neither the hidden nor the seen ones are favoured.
HIDDEN = 0.15

# Beyond this azimuth, in degrees, people marked the landmark as self-occluded in most faces: on the 8,099 faces of the
# training split of MERL-RAV (Kumar et al., "LUVLi", CVPR 2020), mirrored ones added, the multiple of 5 with the fewest
# disagreements. Landmarks on the left of a frontal face, and 42, the other eye's inner corner behind the nose's bridge.
_LIMITS = {
    0: 40, 1: 50, 2: 50, 3: 50, 4: 50, 5: 50, 6: 50, 7: 55,
    17: 20, 18: 30, 19: 45, 20: 60, 21: 70,
    31: 30, 32: 30,
    36: 35, 37: 55, 38: 60, 39: 30, 40: 50, 41: 50, 42: 60,
    48: 40, 49: 45, 50: 60, 58: 50, 59: 45, 60: 40, 61: 55, 67: 55,
}  # fmt: skip
# From behind nothing is seen. No labelled face is turned farther than 96 degrees, so this is no measurement.
_FROM_BEHIND = 120.0


def self_occluded(rotation: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Landmarks that a person would mark as hidden by the head itself at a head pose.

    What counts is the viewer's azimuth in the head's own axes, atan2(R[2, 0], R[2, 2]): the yaw where roll is
    0, and the same however the image is turned. The limits follow the annotators of MERL-RAV, whose habits are not
    geometry alone: the tail of a brow is hidden to them from 20 degrees on, the jaw, whose far side they move to the
    silhouette while they can, from 50. So normals of a mean face (ICT-FaceKit) agree less with them.

    Agreement on the validation split of MERL-RAV, 2,039 faces, 14 % of the landmarks self-occluded, poses fitted to
    the same annotation:

                                             balanced accuracy   precision   recall
        these limits                                    93.5 %      90.0 %   88.5 %
        far side beyond 45 degrees of yaw               88.7 %      86.8 %   79.5 %
        normal turned away, jaw with own limit          83.8 %      82.1 %   70.0 %

    Hair, hands, glasses and expressions are not known here. Between 15 and 30 degrees of yaw annotators mark 3 % of
    the landmarks, and two of three of these are missed here.

    Args:
        rotation: (N, 3, 3), proper rotations, model space (y up), as `pose.matrix_to_euler` takes them.

    Returns:
        (N, 68), True where self-occluded.
    """
    r = np.asarray(rotation, dtype=np.float64)
    azimuth = np.rad2deg(np.arctan2(r[:, 2, 0], r[:, 2, 2]))[:, None]
    limits = np.full(NUM_LANDMARKS, _FROM_BEHIND)
    limits[list(_LIMITS)] = list(_LIMITS.values())
    # A positive azimuth hides the left of the image; a negative one the same landmarks of the mirrored face.
    return (azimuth > limits) | (-azimuth > limits[MIRROR])
