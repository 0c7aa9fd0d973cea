"""What a recurrence updates, step by step: the parameters p of a face model, or the landmarks themselves."""

import math

import torch
from torch import Tensor, nn

from dhm_cli.geometry.landmarks import NUM_LANDMARKS
from dhm_cli.morphable.camera import model_image_to_pixels, transform_weak_perspective
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.parameters import LAYOUT, NUM_EXPRESSION, NUM_IDENTITY, NUM_PARAMETERS, unpack
from dhm_cli.morphable.rotation import euler_to_matrix, rotation_vector_to_matrix

# What one unit of the recurrence's output means; about the spread of augmented training faces.
_SCALE_SPREAD = 0.2  # share of the initial scale
_ANGLE_SPREAD = 0.5  # radians
_TRANSLATION_SPREAD = 0.1  # share of the crop's side
_LANDMARK_SPREAD = 0.1  # share of the crop's side
_ROWS = ("mean", "identity", "expression", "identity_std", "expression_std")  # the tensors of a face model


def place_in_crop(mean_shape: Tensor, size: int) -> Tensor:
    """A mean shape placed in a crop as the test protocol places a face.

    Args:
        mean_shape: (68, 3), x right, y down, z toward the viewer; box centre at the origin, longer side of the box 1.
        size: side of the crop, pixels.

    Returns:
        (68, 3), crop pixels.
    """
    centre = mean_shape.new_tensor([(size - 1) / 2, (size - 1) / 2, 0.0])
    return mean_shape * (size / math.sqrt(2.0)) + centre


class LandmarkState(nn.Module):
    """204 numbers: displacements of the 68 landmarks from the mean shape (section 4.2, Sun et al. 2018).

    Args:
        initial: (68, 3), crop pixels.
        size: side of the crop, pixels.
    """

    initial: Tensor
    numbers = NUM_LANDMARKS * 3

    def __init__(self, initial: Tensor, size: int) -> None:
        super().__init__()
        self._unit = _LANDMARK_SPREAD * size
        self.register_buffer("initial", initial.clone(), persistent=False)

    def landmarks(self, state: Tensor) -> Tensor:
        """(B, 204) -> (B, 68, 3), crop pixels."""
        return self.initial + self._unit * state.unflatten(-1, (NUM_LANDMARKS, 3))

    def parameters_of(self, state: Tensor) -> None:
        """There is no p."""


class ParameterState(nn.Module):
    """p of Eq. (2), 234 numbers, each counted from the mean face in front and in units of its usual spread.

    The face model's numbers are no part of the network's weights (`persistent=False`): its licence forbids to share
    them.

    Args:
        face_model: the face model.
        size: side of the crop, pixels.
        rotation: "vector" or "euler", see `DhmConfig.rotation`.
    """

    initial: Tensor
    spread: Tensor
    numbers = NUM_PARAMETERS

    def __init__(self, face_model: FaceModel, size: int, rotation: str) -> None:
        super().__init__()
        self._size, self._rotation = size, rotation
        low, high = face_model.mean.amin(0), face_model.mean.amax(0)
        extent = float((high - low)[:2].max())
        centre = (low + high) / 2
        # p of the mean face, in front, where the test protocol places a face; pixels are 1-based and y up in p.
        initial = torch.zeros(NUM_PARAMETERS)
        initial[LAYOUT["scale"]] = scale = size / math.sqrt(2.0) / extent
        middle = torch.tensor([(size - 1) / 2 + 1, size - (size - 1) / 2])
        initial[LAYOUT["translation"]] = middle - scale * centre[:2]
        spread = torch.ones(NUM_PARAMETERS)
        spread[LAYOUT["scale"]] = _SCALE_SPREAD * scale
        spread[LAYOUT["angles"]] = _ANGLE_SPREAD
        spread[LAYOUT["translation"]] = _TRANSLATION_SPREAD * size
        spread[LAYOUT["identity"]] = _padded(face_model.identity_std, NUM_IDENTITY)
        spread[LAYOUT["expression"]] = _padded(face_model.expression_std, NUM_EXPRESSION)
        for name, value in (("initial", initial), ("spread", spread)):
            self.register_buffer(name, value, persistent=False)
        for name in _ROWS:
            self.register_buffer(name, getattr(face_model, name).float().clone(), persistent=False)

    def landmarks(self, state: Tensor) -> Tensor:
        """Eq. (1) and (2): (B, 234) -> (B, 68, 3), crop pixels, z with zero mean."""
        parts = unpack(self.parameters_of(state))
        shape = self._model.shape(parts.identity, parts.expression)
        points = transform_weak_perspective(shape, parts.scale, self._matrix(parts.angles), parts.translation)
        points = model_image_to_pixels(points, float(self._size))
        return torch.cat([points[..., :2], points[..., 2:] - points[..., 2:].mean(1, keepdim=True)], dim=-1)

    def parameters_of(self, state: Tensor) -> Tensor:
        """p of the crop, its angles as this state holds them, (B, 234) -> (B, 234)."""
        return self.initial + self.spread * state

    def _matrix(self, angles: Tensor) -> Tensor:
        return euler_to_matrix(angles) if self._rotation == "euler" else rotation_vector_to_matrix(angles)

    @property
    def _model(self) -> FaceModel:
        return FaceModel(*(getattr(self, name) for name in _ROWS))


def _padded(values: Tensor, length: int) -> Tensor:
    return nn.functional.pad(values, (0, length - len(values)))
