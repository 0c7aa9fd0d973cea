"""Named layout of the 3DMM parameters p of Eq. (2): the 234 numbers that the 300W-LP files hold."""

from dataclasses import dataclass

import torch
from torch import Tensor

NUM_IDENTITY = 199
NUM_EXPRESSION = 29

# p = [f, pitch, yaw, roll, t_x, t_y, 199 identity, 29 expression].
LAYOUT: dict[str, slice] = {
    "scale": slice(0, 1),
    "angles": slice(1, 4),
    "translation": slice(4, 6),
    "identity": slice(6, 6 + NUM_IDENTITY),
    "expression": slice(6 + NUM_IDENTITY, 6 + NUM_IDENTITY + NUM_EXPRESSION),
}
NUM_PARAMETERS = 6 + NUM_IDENTITY + NUM_EXPRESSION


@dataclass(frozen=True)
class Parameters:
    """p taken apart.

    Attributes:
        scale: f, pixels per model unit, (B,).
        angles: pitch, yaw, roll, radians, (B, 3).
        translation: t_x, t_y, pixels of the 300W-LP convention (1-based, y up), (B, 2).
        identity: coefficients of the identity basis, (B, 199).
        expression: coefficients of the expression basis, (B, 29).
    """

    scale: Tensor
    angles: Tensor
    translation: Tensor
    identity: Tensor
    expression: Tensor


def unpack(p: Tensor) -> Parameters:
    """Take the vector p apart.

    Args:
        p: (B, 234).

    Returns:
        Views of its parts.
    """
    if p.shape[-1] != NUM_PARAMETERS:
        raise ValueError(f"p must have {NUM_PARAMETERS} numbers per face, got shape {tuple(p.shape)}")
    parts = {name: p[..., part] for name, part in LAYOUT.items()}
    return Parameters(**{**parts, "scale": parts["scale"][..., 0]})


def pack(parameters: Parameters) -> Tensor:
    """Join the parts to the vector p, (B, 234); shorter coefficient vectors are padded with zeros."""
    identity, expression = parameters.identity, parameters.expression
    identity = torch.nn.functional.pad(identity, (0, NUM_IDENTITY - identity.shape[-1]))
    expression = torch.nn.functional.pad(expression, (0, NUM_EXPRESSION - expression.shape[-1]))
    parts = [parameters.scale[..., None], parameters.angles, parameters.translation, identity, expression]
    return torch.cat(parts, dim=-1)
