"""Weak perspective projection (Eq. 2) and the step from model-image space to pixels."""

import torch
from torch import Tensor


def transform_weak_perspective(points: Tensor, scale: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """Scale, rotate and shift 3D points: Eq. (2) of Sun et al. 2018, F(p) = f M R S + t, before M drops the depth.

    Args:
        points: S, model-space points, shape (B, N, 3).
        scale: f, pixels per model unit, shape (B,).
        rotation: R, proper rotation matrices, shape (B, 3, 3).
        translation: t, pixels, shape (B, 2).

    Returns:
        (B, N, 3): x right and y *up* in the pixels of the 300W-LP files (see `model_image_to_pixels`), z toward the
        viewer in the same unit, relative to the model's origin. Differentiable in every argument.
    """
    turned = scale[:, None, None] * points @ rotation.transpose(-1, -2)
    return turned + torch.nn.functional.pad(translation, (0, 1))[:, None, :]


def model_image_to_pixels(points: Tensor, image_height: float | Tensor) -> Tensor:
    """Turn the y-up, 1-based image space of the 300W-LP parameters into 0-based pixels with y down.

    The files mean x_matlab = x and y_matlab = height + 1 - y, both 1-based, so x -> x - 1 and y -> height - y.
    The map is its own kind of mirror: `pixels_to_model_image` undoes it.

    Args:
        points: (B, N, 2 or 3); depth is left as it is.
        image_height: height of the image that the parameters belong to, pixels, a number or shape (B,).

    Returns:
        Same shape, 0-based pixels, x right, y down.
    """
    height = _per_face(image_height, points)
    return torch.cat([points[..., :1] - 1, height - points[..., 1:2], points[..., 2:]], dim=-1)


def pixels_to_model_image(points: Tensor, image_height: float | Tensor) -> Tensor:
    """Inverse of `model_image_to_pixels`, same arguments and shapes."""
    height = _per_face(image_height, points)
    return torch.cat([points[..., :1] + 1, height - points[..., 1:2], points[..., 2:]], dim=-1)


def _per_face(image_height: float | Tensor, points: Tensor) -> Tensor:
    height = torch.as_tensor(image_height, dtype=points.dtype, device=points.device)
    return height[:, None, None] if height.ndim else height
