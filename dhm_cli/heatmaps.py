"""The 3D diffusion heat map (DHM): Eq. (3) of Sun et al. 2018 with Gaussian diffusion, sub-pixel and differentiable."""

import torch
from torch import Tensor

# "a 2D Gaussian with standard deviation of 1 pixel" (Sun et al. 2018, section 3.1).
SIGMA = 1.0
# The Gaussian is drawn out to this many standard deviations, where it has fallen to 0.0003.
REACH = 4.0


def normalise_coordinates(landmarks: Tensor) -> Tensor:
    """Eq. (3) with the minimum subtracted as in Algorithm 1: each axis scaled to [0, 1] over the landmarks of a face.

    Args:
        landmarks: (B, N, 3).

    Returns:
        (B, N, 3), values in [0, 1]; an axis without extent gives 0. Differentiable.
    """
    low, high = landmarks.amin(dim=1, keepdim=True), landmarks.amax(dim=1, keepdim=True)
    return (landmarks - low) / (high - low).clamp_min(1e-9)


def draw_heatmap(landmarks: Tensor, size: int, sigma: float = SIGMA) -> Tensor:
    """Draw the three-channel 3D diffusion heat map of landmarks.

    Channel j holds at each pixel the maximum over the landmarks k of map_j(k) exp(-d_k^2 / (2 sigma^2)), with map_j(k)
    the normalised coordinate of Eq. (3) and d_k the distance to the landmark's sub-pixel position. Only the pixels
    around each landmark are drawn. A landmark outside the image contributes what reaches inside.

    Args:
        landmarks: (B, N, 3), 0-based crop pixels, x right, y down, z any unit.
        size: side of the square map, pixels.
        sigma: standard deviation of the Gaussian, pixels.

    Returns:
        (B, 3, size, size), values in [0, 1]. Differentiable in positions and values.
    """
    batch = len(landmarks)
    reach = int(REACH * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1, device=landmarks.device)
    values = normalise_coordinates(landmarks)

    centre = landmarks[..., :2].detach().round()
    pixel = centre[..., None] + offsets  # (B, N, 2, P): columns and rows of the patch
    fall = torch.exp(-0.5 * ((pixel - landmarks[..., :2, None]) / sigma).square())
    patch = fall[..., 1, :, None] * fall[..., 0, None, :]  # (B, N, P rows, P columns)

    inside = (pixel >= 0) & (pixel < size)
    both = inside[..., 1, :, None] & inside[..., 0, None, :]
    index = pixel[..., 1, :, None] * size + pixel[..., 0, None, :]
    index = torch.where(both, index, torch.full_like(index, size * size)).long()  # one spare cell takes what is outside

    drawn = values.transpose(1, 2)[..., None, None] * patch[:, None]  # (B, 3, N, P, P)
    canvas = landmarks.new_zeros(batch, 3, size * size + 1)
    canvas = canvas.scatter_reduce(2, index[:, None].expand_as(drawn).flatten(2), drawn.flatten(2), "amax")
    return canvas[..., :-1].reshape(batch, 3, size, size)
