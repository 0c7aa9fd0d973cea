"""The mean shape that networks on landmarks start from."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dhm_cli.geometry.landmarks import MIRROR, bounding_box
from dhm_cli.morphable.parameters import LAYOUT
from dhm_cli.morphable.rotation import euler_to_matrix


def mean_frontal_shape(landmarks: NDArray[np.floating], parameters: NDArray[np.floating]) -> Tensor:
    """Mean of the training faces, each turned back to the front by its fitted pose, made symmetric.

    Args:
        landmarks: (N, 68, 3), pixels, y down, z toward the viewer.
        parameters: (N, 234), for their angles.

    Returns:
        (68, 3), x right, y down, z toward the viewer; box centre at the origin, longer side of the box 1.
    """
    flip = torch.tensor([1.0, -1.0, 1.0])
    points = torch.from_numpy(np.asarray(landmarks, np.float32)) * flip
    points = points - points.mean(1, keepdim=True)
    points = points / points.square().sum((1, 2), keepdim=True).sqrt()
    angles = torch.from_numpy(np.asarray(parameters, np.float32)[:, LAYOUT["angles"]])
    frontal = (points @ euler_to_matrix(angles)).mean(0) * flip  # p R is R^T p for row vectors
    frontal = (frontal + frontal[MIRROR] * torch.tensor([-1.0, 1.0, 1.0])) / 2
    left, top, width, height = bounding_box(frontal.numpy())
    centre = torch.tensor([left + width / 2, top + height / 2, frontal[:, 2].mean()])
    return (frontal - centre) / float(max(width, height))
