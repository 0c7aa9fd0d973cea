"""Rotations of the 300W-LP convention. The inverse, angles of a matrix, is `dhm_cli.geometry.pose.matrix_to_euler`."""

import torch
from torch import Tensor


def euler_to_matrix(angles: Tensor) -> Tensor:
    """Rotation matrices R = R_x(pitch) R_y(yaw) R_z(roll) of Eq. (2) in the convention of the 300W-LP files.

    R_x = [1 0 0; 0 c s; 0 -s c], R_y = [c 0 -s; 0 1 0; s 0 c], R_z = [c s 0; -s c 0; 0 0 1]. A positive yaw turns the
    nose to the left of the image.

    Args:
        angles: pitch, yaw, roll, radians, shape (B, 3).

    Returns:
        Proper rotation matrices, shape (B, 3, 3). Differentiable.
    """
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    rows = [
        cy * cz, cy * sz, -sy,
        sx * sy * cz - cx * sz, sx * sy * sz + cx * cz, sx * cy,
        cx * sy * cz + sx * sz, cx * sy * sz - sx * cz, cx * cy,
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).reshape(*angles.shape[:-1], 3, 3)


def rotation_vector_to_matrix(vectors: Tensor) -> Tensor:
    """Rotation matrices of rotation vectors (axis times angle), Rodrigues' formula.

    Args:
        vectors: (B, 3), radians.

    Returns:
        (B, 3, 3). Differentiable, also at zero.
    """
    angle_sq = vectors.square().sum(-1)[..., None, None]
    small = angle_sq < 1e-8
    safe_sq = torch.where(small, torch.ones_like(angle_sq), angle_sq)
    angle = safe_sq.sqrt()
    sinc = torch.where(small, 1 - angle_sq / 6, angle.sin() / angle)
    cosc = torch.where(small, 0.5 - angle_sq / 24, (1 - angle.cos()) / safe_sq)
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(*vectors.shape[:-1], 3, 3)
    return torch.eye(3, dtype=vectors.dtype, device=vectors.device) + sinc * cross + cosc * (cross @ cross)
