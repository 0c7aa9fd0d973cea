"""Head pose from 3D landmarks, and the angles of a rotation matrix, without torch so that `dhm align` stays light."""

import numpy as np
from numpy.typing import NDArray

# Image space has y down; the model space of the 300W-LP files has y up.
_FLIP_Y = np.diag([1.0, -1.0, 1.0])


def matrix_to_euler(rotation: NDArray[np.floating]) -> NDArray[np.float64]:
    """Pitch, yaw and roll of R = R_x(pitch) R_y(yaw) R_z(roll), the convention of the 300W-LP files.

    With s and c the sine and cosine, R_x = [1 0 0; 0 c s; 0 -s c], R_y = [c 0 -s; 0 1 0; s 0 c] and
    R_z = [c s 0; -s c 0; 0 0 1]. Each R has two sets of angles; the one with the smaller pitch and roll is returned,
    so a head turned beyond profile has a yaw beyond 90 degrees and not a pitch of 180. At a yaw of exactly +-90
    degrees only pitch and roll together are determined; roll is then set to 0.

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
    locked = np.abs(r[..., 0, 2]) > 1.0 - 1e-9
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


def in_plane_rotation(rotation: NDArray[np.floating]) -> NDArray[np.float64]:
    """How far heads are turned in the picture plane: the angle of the head's up axis in the image.

    It is the same however the head is turned to the side, where roll depends on the order of the angles.

    Args:
        rotation: (..., 3, 3), proper rotations, model space (y up).

    Returns:
        (...), radians in [-pi, pi]: 0 where the top of the head is up, positive where the head is turned clockwise as
        seen. `crop_matrix` with minus this roll shows it upright.
    """
    r = np.asarray(rotation, dtype=np.float64)
    return np.arctan2(r[..., 0, 1], r[..., 1, 1])


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


def estimate_pose(landmarks: NDArray[np.floating], reference: NDArray[np.floating]) -> NDArray[np.float64]:
    """Head pose of 3D landmarks under weak perspective, by rotating a frontal reference shape onto them.

    Args:
        landmarks: (B, 68, 3), pixels, x right, y down, z toward the viewer.
        reference: (68, 3), frontal shape in the same axes, any unit.

    Returns:
        (B, 3), radians: pitch, yaw, roll in the convention of the 300W-LP files (`matrix_to_euler`).
    """
    return matrix_to_euler(estimate_rotation(landmarks, reference))


def estimate_rotation(landmarks: NDArray[np.floating], reference: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rotations of heads, (B, 3, 3), model space (y up); arguments as for `estimate_pose`."""
    return align_rotation(np.asarray(reference) @ _FLIP_Y, np.asarray(landmarks) @ _FLIP_Y)
