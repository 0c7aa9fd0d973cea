"""Head pose from 3D landmarks, and the angles of a rotation matrix, without torch so that `dhm align` stays light.

A pose is a rotation R: what lies at p in the head lies at R p in the picture. Both spaces are right-handed with x to
the right of the picture, y up and z toward the viewer, and R is the identity for a head that looks at the viewer:

               y, top of the head
               |
               |
               o------ x, right of the picture
              /
             z, out of the picture, toward the viewer: where the nose of R = 1 points

It is built from three turns, with s and c the sine and cosine of their angle:

    R_x(pitch) = [1 0 0; 0 c s; 0 -s c]     positive: the face looks up, the nose moves up in the picture
    R_y(yaw)   = [c 0 -s; 0 1 0; s 0 c]     positive: the nose turns to the left of the picture
    R_z(roll)  = [c s 0; -s c 0; 0 0 1]     positive: the head tilts clockwise as seen, its top to the right

Their order matters, and there are two of them here. People mean R = R_y R_x R_z, yaw first: which way the face is
turned, how far up it then looks, how it is tilted (`matrix_to_yaw_pitch_roll`). The files of 300W-LP and the
benchmarks on them have R = R_x R_y R_z (`matrix_to_euler`), which falls apart near profile: there pitch and roll turn
about one and the same axis (gimbal lock), and an upright head may have 73 degrees of the one and -68 of the other.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

# Image space has y down; the model space of the 300W-LP files has y up.
_FLIP_Y = np.diag([1.0, -1.0, 1.0])
# The two orders: R = R_y R_x R_z, as people see a head, and R = R_x R_y R_z of the files of 300W-LP.
Angles = Literal["yaw-pitch-roll", "300w-lp"]
ANGLES: tuple[Angles, ...] = get_args(Angles)
# |sine| of the middle angle beyond which the other two cannot be told apart.
_LOCKED = 1.0 - 1e-9


def matrix_to_yaw_pitch_roll(rotation: NDArray[np.floating]) -> NDArray[np.float64]:
    """Yaw, pitch and roll of R = R_y(yaw) R_x(pitch) R_z(roll), the angles as people see them.

    In full, with one letter for each sine and cosine of yaw (y), pitch (x) and roll (z),

        R = [cy cz - sy sx sz,  cy sz + sy sx cz,  -sy cx;
             -cx sz,            cx cz,              sx;
             sy cz + cy sx sz,  sy sz - cy sx cz,   cy cx]

    so pitch = asin(R[1, 2]), yaw = atan2(-R[0, 2], R[2, 2]) and roll = atan2(-R[1, 0], R[1, 1]). A positive yaw turns
    the nose to the left of the picture, a positive pitch up, a positive roll tilts the head clockwise as seen. These
    angles are good in profile. They lock at a pitch of exactly +-90 degrees, where the face looks straight up or down
    and only yaw and roll together are determined; roll is then set to 0.

    Args:
        rotation: (..., 3, 3), proper rotations, y up (see the module).

    Returns:
        (..., 3), radians: yaw in [-pi, pi], pitch in [-pi/2, pi/2], roll in [-pi, pi]. The one set of angles within
        these limits.

    Example:
        An upright head in profile, in the angles of its 300W-LP file and as one sees it.

        >>> profile = euler_to_matrix(np.radians([73, -77, -68]))
        >>> np.degrees(matrix_to_yaw_pitch_roll(profile)).round().tolist()
        [-86.0, 12.0, 5.0]
    """
    r = np.asarray(rotation, dtype=np.float64)
    locked = np.abs(r[..., 1, 2]) > _LOCKED
    # With cos(pitch) = 0 and roll = 0: R[0, 0] = cos(yaw), R[2, 0] = sin(yaw). Below, 0 - x is never -0, so that half a
    # turn reads 180 and not -180.
    yaw = np.where(locked, np.arctan2(r[..., 2, 0], r[..., 0, 0]), np.arctan2(0.0 - r[..., 0, 2], r[..., 2, 2]))
    pitch = np.arcsin(np.clip(r[..., 1, 2], -1.0, 1.0))
    roll = np.where(locked, 0.0, np.arctan2(0.0 - r[..., 1, 0], r[..., 1, 1]))
    return np.stack([yaw, pitch, roll], axis=-1)


def yaw_pitch_roll_to_matrix(angles: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rotation matrices R = R_y(yaw) R_x(pitch) R_z(roll), the inverse of `matrix_to_yaw_pitch_roll`.

    Args:
        angles: (..., 3), radians: yaw, pitch, roll.

    Returns:
        (..., 3, 3), proper rotations, y up.
    """
    a = np.asarray(angles, dtype=np.float64)
    (sy, sx, sz), (cy, cx, cz) = np.moveaxis(np.sin(a), -1, 0), np.moveaxis(np.cos(a), -1, 0)
    rows = [
        [cy * cz - sy * sx * sz, cy * sz + sy * sx * cz, -sy * cx],
        [-cx * sz, cx * cz, sx],
        [sy * cz + cy * sx * sz, sy * sz - cy * sx * cz, cy * cx],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def in_plane_rotation(rotation: NDArray[np.floating]) -> NDArray[np.float64]:
    """Angle by which the picture must be turned for the head's up axis to point up in it.

    The up axis is R[:, 1], and its picture (R[0, 1], R[1, 1]), y up; the angle is atan2(-R[0, 1], R[1, 1]). This is
    not the roll: a head in profile that looks up is turned in the plane of the picture too. Where the up axis points
    at the viewer or away, as it nearly does where a face looks straight down or up, any angle would do; at exactly
    that, it is 0.

    Args:
        rotation: (..., 3, 3), proper rotations, y up (see the module).

    Returns:
        (...), radians in [-pi, pi], positive clockwise as seen: the `roll` to give to `crop.crop_matrix` for an
        upright crop. A head whose top has tilted to the right of the picture has a negative one.

    Example:
        A frontal head that lies on its side, its top to the right: a quarter turn anticlockwise.

        >>> lying = yaw_pitch_roll_to_matrix(np.radians([0, 0, 90]))
        >>> float(np.degrees(in_plane_rotation(lying)).round())
        -90.0
    """
    r = np.asarray(rotation, dtype=np.float64)
    across, up = r[..., 0, 1], r[..., 1, 1]
    return np.where(np.hypot(across, up) < 1e-9, 0.0, np.arctan2(0.0 - across, up))


def matrix_to_euler(rotation: NDArray[np.floating]) -> NDArray[np.float64]:
    """Pitch, yaw and roll of R = R_x(pitch) R_y(yaw) R_z(roll), the convention of the 300W-LP files.

    R_x, R_y and R_z are those of the module's description. Each R has two sets of angles; the one with the smaller
    pitch and roll is returned, so a head turned beyond profile has a yaw beyond 90 degrees and not a pitch of 180. At
    a yaw of exactly +-90 degrees only pitch and roll together are determined; roll is then set to 0. For benchmarks;
    near profile its pitch and roll say nothing to people (see `matrix_to_yaw_pitch_roll`).

    Args:
        rotation: (..., 3, 3), proper rotations, model space (y up).

    Returns:
        (..., 3), radians: pitch and roll in [-pi, pi], yaw in [-pi, pi].

    Example:
        >>> rotation = euler_to_matrix(np.radians([10, -60, 5]))
        >>> np.degrees(matrix_to_euler(rotation)).round().tolist()
        [10.0, -60.0, 5.0]
    """
    r = np.asarray(rotation, dtype=np.float64)
    yaw = np.arcsin(np.clip(-r[..., 0, 2], -1.0, 1.0))
    locked = np.abs(r[..., 0, 2]) > _LOCKED
    # With cos(yaw) = 0 and roll = 0: R[1, 1] = cos(pitch), R[2, 1] = -sin(pitch).
    pitch = np.where(locked, np.arctan2(-r[..., 2, 1], r[..., 1, 1]), np.arctan2(r[..., 1, 2], r[..., 2, 2]))
    roll = np.where(locked, 0.0, np.arctan2(r[..., 0, 1], r[..., 0, 0]))
    angles = np.stack([pitch, yaw, roll], axis=-1)
    other = _wrap(np.stack([pitch + np.pi, np.pi - yaw, roll + np.pi], axis=-1))
    beyond = (np.abs(other[..., 0]) + np.abs(other[..., 2]) < np.abs(pitch) + np.abs(roll)) & ~locked
    return np.where(beyond[..., None], other, angles)


def euler_to_matrix(angles: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rotation matrices of head poses, the inverse of `matrix_to_euler` and in its convention.

    Args:
        angles: (..., 3), radians: pitch, yaw, roll.

    Returns:
        (..., 3, 3), proper rotations, model space (y up).
    """
    from scipy.spatial.transform import Rotation  # not at the top: `dhm align` works without scipy

    a = np.asarray(angles, dtype=np.float64)
    # Each of R_x, R_y and R_z turns the other way than scipy's; upper case stands for the product R_x R_y R_z.
    matrices: NDArray[np.float64] = Rotation.from_euler("XYZ", -a.reshape(-1, 3)).as_matrix()
    return matrices.reshape(*a.shape, 3)


def geodesic_angle(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Angle of the one rotation that leads from a to b, with the same accuracy at 0, at pi and between.

    The angle's cosine, (trace(a^T b) - 1) / 2, loses half of the digits at both ends; its sine is taken along.

    Args:
        a: (..., 3, 3), proper rotations.
        b: (..., 3, 3), proper rotations; leading dimensions broadcast.

    Returns:
        (...), radians in [0, pi].
    """
    r = np.swapaxes(np.asarray(a, np.float64), -1, -2) @ np.asarray(b, np.float64)
    axis = np.stack([r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]], axis=-1)
    return np.arctan2(np.linalg.norm(axis, axis=-1), np.trace(r, axis1=-2, axis2=-1) - 1)


def angle_difference(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Signed difference a - b of angles the short way round, so 179 and -179 are 2 apart.

    Args:
        a: any shape, degrees, any number of full turns.
        b: degrees; shapes broadcast.

    Returns:
        Degrees in [-180, 180).
    """
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    return (difference + 180.0) % 360.0 - 180.0


def _wrap(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    return (angles + np.pi) % (2 * np.pi) - np.pi


def align_rotation(source: NDArray[np.floating], target: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rotation that best turns centred `source` points onto `target` points, scale left free (Kabsch 1976).

    Args:
        source: (..., N, 3).
        target: (..., N, 3), same unit on all axes.

    Returns:
        (..., 3, 3), proper rotations R that minimise |target - s R source|.
    """
    a = source - source.mean(axis=-2, keepdims=True)
    b = target - target.mean(axis=-2, keepdims=True)
    u, _, vt = np.linalg.svd(np.swapaxes(b, -1, -2) @ a)
    sign = np.ones((*u.shape[:-2], 3))
    sign[..., 2] = np.sign(np.linalg.det(u @ vt))
    return (u * sign[..., None, :]) @ vt


def estimate_rotation(landmarks: NDArray[np.floating], reference: NDArray[np.floating]) -> NDArray[np.float64]:
    """Head pose of 3D landmarks under weak perspective, by rotating a frontal reference shape onto them.

    Args:
        landmarks: (B, 68, 3), pixels, x right, y down, z toward the viewer.
        reference: (68, 3), frontal shape in the same axes, any unit.

    Returns:
        (B, 3, 3), proper rotations, y up (see the module).
    """
    return align_rotation(np.asarray(reference) @ _FLIP_Y, np.asarray(landmarks) @ _FLIP_Y)


def estimate_pose(landmarks: NDArray[np.floating], reference: NDArray[np.floating]) -> NDArray[np.float64]:
    """The angles of `estimate_rotation` in the convention of the 300W-LP files, which benchmarks use.

    Args:
        landmarks: (B, 68, 3), pixels, x right, y down, z toward the viewer.
        reference: (68, 3), frontal shape in the same axes, any unit.

    Returns:
        (B, 3), radians: pitch, yaw, roll (`matrix_to_euler`).
    """
    return matrix_to_euler(estimate_rotation(landmarks, reference))
