"""The mean shape of training faces."""

import numpy as np
import pytest
import torch

from dhm_cli.geometry.landmarks import MIRROR
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.mean_shape import mean_frontal_shape
from dhm_cli.morphable.parameters import Parameters, pack


def make_parameters(n: int, **values: torch.Tensor) -> torch.Tensor:
    rng = np.random.default_rng(0)
    poses = {
        "scale": torch.from_numpy(rng.uniform(2e-4, 8e-4, n)).float(),
        "angles": torch.from_numpy(rng.uniform(-1.5, 1.5, (n, 3))).float(),
        "translation": torch.from_numpy(rng.uniform(0, 300, (n, 2))).float(),
        "identity": torch.zeros(n, 1),
        "expression": torch.zeros(n, 1),
    }
    return pack(Parameters(**{**poses, **values}))


def test_mean_of_turned_faces(toy_model: FaceModel) -> None:
    """Faces of the mean shape, whatever their pose, size and place, have that shape as their frontal mean."""
    p = make_parameters(12)
    shape = mean_frontal_shape(toy_model.landmarks(p, 200.0).numpy(), p.numpy()).numpy()
    mean = toy_model.mean.numpy() * [1, -1, 1]
    low, high = mean.min(0), mean.max(0)
    expected = mean / (high - low)[:2].max()
    expected -= [*((low + high) / 2)[:2] / (high - low)[:2].max(), expected[:, 2].mean()]
    np.testing.assert_allclose(shape, expected, atol=1e-4)
    assert shape[30, 2] > 0  # the nose tip is in front
    assert shape[8, 1] > 0  # the chin is below


def test_it_is_symmetric_with_its_box_in_the_middle(toy_model: FaceModel) -> None:
    """Even where no training face is."""
    rng = np.random.default_rng(1)
    identity = torch.from_numpy(3 * rng.normal(size=(5, 199))).float() * toy_model.identity_std
    p = make_parameters(5, identity=identity)
    landmarks = toy_model.landmarks(p, 200.0).numpy()
    before = landmarks.copy()
    shape = mean_frontal_shape(landmarks, p.numpy())
    torch.testing.assert_close(shape[MIRROR] * torch.tensor([-1.0, 1.0, 1.0]), shape, atol=1e-6, rtol=0)
    low, high = shape.amin(0), shape.amax(0)
    assert (high - low)[:2].max().item() == pytest.approx(1.0, abs=1e-5)
    assert (low + high)[:2].tolist() == pytest.approx([0.0, 0.0], abs=1e-5)
    assert shape[:, 2].mean().item() == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_array_equal(landmarks, before)


def test_a_large_face_counts_as_much_as_a_small_one(toy_model: FaceModel) -> None:
    identity = torch.zeros(2, 199)
    identity[0, 0] = 5 * toy_model.identity_std[0]
    shapes = []
    for scale in ([2e-4, 8e-4], [8e-4, 2e-4]):
        p = make_parameters(2, identity=identity, scale=torch.tensor(scale))
        shapes.append(mean_frontal_shape(toy_model.landmarks(p, 200.0).numpy(), p.numpy()))
    torch.testing.assert_close(shapes[0], shapes[1], atol=1e-5, rtol=0)
