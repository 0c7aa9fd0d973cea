"""Weak perspective and the way from the files' image space to pixels, worked out by hand."""

import numpy as np
import pytest
import torch

from dhm_cli.morphable.camera import (
    model_image_to_pixels,
    pixels_to_model_image,
    transform_weak_perspective,
)

# A quarter turn about z: x -> y, y -> -x.
QUARTER_TURN = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def test_projection_worked_out_by_hand() -> None:
    points = torch.tensor([[[1.0, 2.0, 3.0], [0.0, 0.0, -1.0]]], dtype=torch.float64)
    arguments = (points, torch.tensor([10.0]).double(), QUARTER_TURN[None], torch.tensor([[100.0, 50.0]]).double())
    # R (1, 2, 3) = (-2, 1, 3); times 10; plus t on x and y only.
    expected = [[[80.0, 60.0, 30.0], [100.0, 50.0, -10.0]]]
    np.testing.assert_allclose(transform_weak_perspective(*arguments).numpy(), expected)


def test_every_face_has_its_own_camera() -> None:
    points = torch.ones(2, 1, 3)
    placed = transform_weak_perspective(
        points, torch.tensor([1.0, 2.0]), torch.eye(3).expand(2, 3, 3), torch.tensor([[0.0, 0.0], [5.0, 7.0]])
    )
    assert placed[:, 0].tolist() == [[1.0, 1.0, 1.0], [7.0, 9.0, 2.0]]


def test_projection_gradient_in_every_argument() -> None:
    rng = torch.Generator().manual_seed(0)
    arguments = [torch.randn(s, generator=rng, dtype=torch.float64) for s in ((2, 4, 3), (2,), (2, 3, 3), (2, 2))]
    assert torch.autograd.gradcheck(transform_weak_perspective, [a.requires_grad_() for a in arguments])


def test_top_left_and_bottom_right_pixel() -> None:
    # In a 450 x 450 image MATLAB's pixel (1, 1) from the top is y = 450 in y-up coordinates: 451 - 450 = 1.
    corners = torch.tensor([[[1.0, 450.0], [450.0, 1.0]]])
    assert model_image_to_pixels(corners, 450).tolist() == [[[0.0, 0.0], [449.0, 449.0]]]


def test_heights_may_differ_by_face_and_depth_stays() -> None:
    points = torch.tensor([[[11.0, 20.0, 3.0]], [[11.0, 20.0, 4.0]]])
    pixels = model_image_to_pixels(points, torch.tensor([100, 200]))
    assert pixels.tolist() == [[[10.0, 80.0, 3.0]], [[10.0, 180.0, 4.0]]]


@pytest.mark.parametrize("axes", [2, 3])
def test_the_inverse_undoes_it(axes: int) -> None:
    points = torch.randn(3, 68, axes, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 100
    before = points.clone()
    heights = torch.tensor([100.0, 450.0, 77.0])
    again = pixels_to_model_image(model_image_to_pixels(points, heights), heights)
    np.testing.assert_allclose(again.numpy(), points.numpy(), atol=1e-12)
    assert torch.equal(points, before)
