"""The 3D diffusion heat map (DHM): Eq. (3) of Sun et al. 2018 with Gaussian diffusion, sub-pixel and differentiable."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# "a 2D Gaussian with standard deviation of 1 pixel" (Sun et al. 2018, section 3.1).
SIGMA = 1.0
# Every pixel closer to a landmark than this many standard deviations is drawn, so what is left out is below exp(-8),
# 0.0003 (at sigma 1 below 0.00004, the patch being 9 x 9). Patches of 7 x 7 would leave out up to 0.002, half a grey
# level of 8 bits, for a quarter less time.
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


def draw_heatmap(
    landmarks: Tensor,
    size: int,
    sigma: float = SIGMA,
    values: Tensor | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Draw the three-channel 3D diffusion heat map of landmarks.

    Channel j holds at each pixel the maximum over the landmarks k of map_j(k) exp(-d_k^2 / (2 sigma^2)), with map_j(k)
    the normalised coordinate of Eq. (3) and d_k the distance to the landmark's sub-pixel position. Only the pixels
    around each landmark are drawn. A landmark outside the image contributes what reaches inside.

    Args:
        landmarks: (B, N, 3), 0-based crop pixels, x right, y down, z any unit. Below float32 they are raised to it.
        size: side of the square map, pixels.
        sigma: standard deviation of the Gaussian, pixels.
        values: heights of the Gaussians instead of map_j(k), not negative, broadcast to (B, N, 3); ones for plain
            Gaussians.
        memory_format: of the map; a convolution with weights in `torch.channels_last` wants its input so.

    Returns:
        (B, 3, size, size), values in [0, 1] unless others were given. Once differentiable in positions and values; a
        pixel's gradient goes whole to every landmark that has the maximum there.
    """
    landmarks = landmarks.to(torch.promote_types(landmarks.dtype, torch.float32))
    values = normalise_coordinates(landmarks) if values is None else values.to(landmarks).expand(landmarks.shape)
    drawing: Tensor = _Drawing.apply(landmarks[..., :2], values.transpose(1, 2), size, sigma, memory_format)
    return drawing


def _patches(positions: Tensor, size: int, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels around positions (B, N, 2), for patches of P x P pixels.

    Returns:
        away: (B, N, 2, P), distance in x of the columns and in y of the rows from the position.
        patch: (B, 1, N P P), Gaussian of height 1; 0 outside the image.
        index: (B, 1, N P P), row * size + column; some pixel of the image where that is outside.
    """
    reach = int(REACH * sigma + 0.5)
    pixel = positions.round()[..., None] + torch.arange(-reach, reach + 1, device=positions.device)
    away = pixel - positions[..., None]
    inside = (pixel >= 0) & (pixel < size)
    fall = torch.where(inside, torch.exp(-0.5 * (away / sigma).square()), 0)
    cell = torch.where(inside, pixel, 0).long()
    patch = fall[..., 1, :, None] * fall[..., 0, None, :]
    index = cell[..., 1, :, None] * size + cell[..., 0, None, :]
    return away, patch.flatten(1)[:, None], index.flatten(1)[:, None]


class _Drawing(torch.autograd.Function):
    """Maximum of Gaussians at positions (B, N, 2) of heights (B, C, N), with the gradient written out.

    Autograd through `scatter_reduce` takes several times as long and keeps many copies of the patches.
    """

    @staticmethod
    def forward(
        ctx: Any, positions: Tensor, values: Tensor, size: int, sigma: float, memory_format: torch.memory_format
    ) -> Tensor:
        away, patch, index = _patches(positions, size, sigma)
        drawn = (values[..., None] * patch.unflatten(2, (values.shape[2], -1))).flatten(2)
        shape = (*values.shape[:2], size, size)
        heat = torch.empty(shape, dtype=drawn.dtype, device=drawn.device, memory_format=memory_format).zero_()
        index = index.expand_as(drawn)
        pixels = heat.view(*values.shape[:2], -1)  # drawn into; a view in either memory format
        pixels.scatter_reduce_(2, index, drawn, "amax")
        if any(ctx.needs_input_grad):
            won = torch.where(drawn == pixels.gather(2, index), patch, 0)
            ctx.save_for_backward(values, away, index, won)
            ctx.sigma = sigma
        return heat

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, away, index, won = ctx.saved_tensors
        side = away.shape[-1]
        # Sums, not matrix products: those would be rounded under autocast.
        pull = (gradient.flatten(2).gather(2, index) * won).unflatten(2, (-1, side, side))  # (B, C, N, P rows, columns)
        push = (pull * values[..., None, None]).sum(1)
        along = torch.stack((push.sum(-2), push.sum(-1)), 2)  # (B, N, 2, P): over columns, over rows
        return (along * away).sum(-1) / ctx.sigma**2, pull.flatten(3).sum(-1), None, None, None
