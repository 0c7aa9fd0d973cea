"""The landmark loss against hand-worked values and numerical gradients."""

import math

import pytest
import torch
from torch import Tensor

from dhm_cli.losses import landmark_loss, wing

W, E = 0.08, 0.02


def make_truth() -> Tensor:
    """Two faces with boxes of 40 x 90 and 80 x 20 pixels: sizes 60 and 40."""
    truth = torch.rand(2, 68, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for face, (width, height) in enumerate([(40.0, 90.0), (80.0, 20.0)]):
        truth[face, :, :2] *= torch.tensor([width, height], dtype=torch.float64)
        truth[face, 0, :2], truth[face, 1, :2] = 0.0, torch.tensor([width, height], dtype=torch.float64)
    return truth


def wing_by_hand(x: float) -> float:
    """Feng et al. 2018, Eq. 5."""
    if x < W:
        return W * math.log(1 + x / E)
    return x - (W - W * math.log(1 + W / E))


@pytest.mark.parametrize("x", [0.0, 0.01, 0.0799, 0.0801, 0.5, 3.0])
def test_wing_by_hand(x: float) -> None:
    assert wing(torch.tensor(x, dtype=torch.float64), W, E).item() == pytest.approx(wing_by_hand(x), rel=1e-12)


def test_wing_is_continuous_and_grows() -> None:
    loss = wing(torch.linspace(0, 0.3, 3001, dtype=torch.float64), W, E)
    steps = loss.diff()
    assert (steps > 0).all()
    assert steps.max() < 1e-4 * W / E * 1.01  # steepest at 0, slope w / e; no jump at w


def test_loss_by_hand() -> None:
    truth = make_truth()
    predicted = truth[:, None].repeat(1, 2, 1, 1)
    predicted[0, :, :, :2] += torch.tensor([3.0, 4.0], dtype=torch.float64)  # 5 / 60 of the size of face 0
    predicted[1, 1, :, 2] += 2.0  # 2 / 40 in depth of face 1, at the last of two steps only
    exact = wing_by_hand(1e-4)  # the distance is floored at 1e-4 to keep its gradient finite
    at_0 = (wing_by_hand(5 / 60) + exact) / 2
    at_1 = at_0 + 0.5 * wing_by_hand(2 / 40) / 2
    expected = (1 * at_0 + 2 * at_1) / 3  # step t weighs t
    assert landmark_loss(predicted, truth, W, E, 0.5).item() == pytest.approx(expected, rel=1e-5)


def test_loss_does_not_depend_on_the_face_size() -> None:
    truth = make_truth()
    predicted = truth[:, None] + torch.randn(
        2, 3, 68, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    small, large = (landmark_loss(predicted * k, truth * k, W, E, 0.5).item() for k in (1.0, 7.0))
    assert small == pytest.approx(large, rel=1e-12)


def test_gradient() -> None:
    truth = make_truth()
    predicted = truth[:, None] + torch.randn(
        2, 3, 68, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    assert torch.autograd.gradcheck(
        lambda p: landmark_loss(p, truth, W, E, 0.5), (predicted.requires_grad_(),), fast_mode=True
    )


def test_gradient_of_a_perfect_prediction_is_finite() -> None:
    truth = make_truth()
    predicted = truth[:, None].repeat(1, 3, 1, 1).requires_grad_()
    landmark_loss(predicted, truth, W, E, 0.5).backward()
    assert predicted.grad is not None
    assert predicted.grad.isfinite().all()
