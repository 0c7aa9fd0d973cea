"""The losses against hand-worked values and numerical gradients."""

import math

import pytest
import torch
from torch import Tensor

from dhm_cli.losses import coefficient_prior, over_steps, squared_loss, wing, wing_loss
from dhm_cli.morphable.parameters import LAYOUT

W, E = 0.08, 0.02


def make_truth() -> Tensor:
    """Two faces with boxes of 40 x 90 and 80 x 20 pixels: sizes 60 and 40."""
    truth = torch.rand(2, 68, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for face, (width, height) in enumerate([(40.0, 90.0), (80.0, 20.0)]):
        truth[face, :, :2] *= torch.tensor([width, height], dtype=torch.float64)
        truth[face, 0, :2], truth[face, 1, :2] = 0.0, torch.tensor([width, height], dtype=torch.float64)
    return truth


def make_prediction(truth: Tensor, steps: int = 3) -> Tensor:
    noise = torch.randn(2, steps, 68, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return truth[:, None] + noise


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


def test_wing_loss_by_hand() -> None:
    truth = make_truth()
    predicted = truth[:, None].repeat(1, 2, 1, 1)
    predicted[0, :, :, :2] += torch.tensor([3.0, 4.0], dtype=torch.float64)  # 5 / 60 of the size of face 0
    predicted[1, 1, :, 2] += 2.0  # 2 / 40 in depth of face 1, at the last of two steps only
    exact = wing_by_hand(1e-4)  # the distance is floored at 1e-4 to keep its gradient finite
    at_0 = (wing_by_hand(5 / 60) + exact) / 2
    at_1 = at_0 + 0.5 * wing_by_hand(2 / 40) / 2
    assert wing_loss(predicted, truth, W, E, 0.5).tolist() == pytest.approx([at_0, at_1], rel=1e-5)


def test_wing_loss_does_not_depend_on_the_face_size() -> None:
    truth = make_truth()
    predicted = make_prediction(truth)
    small, large = (wing_loss(predicted * k, truth * k, W, E, 0.5).tolist() for k in (1.0, 7.0))
    assert small == pytest.approx(large, rel=1e-9)


def test_squared_loss_by_hand() -> None:
    truth = make_truth()
    predicted = truth[:, None].repeat(1, 2, 1, 1)
    predicted[0, :, :, :2] += torch.tensor([3.0, 4.0], dtype=torch.float64)
    predicted[1, 1, :, 2] += 2.0
    # Of crops of 100 pixels: 25 / 100^2 for one of two faces, then half of 4 / 100^2 for the other too.
    expected = [25e-4 / 2, 25e-4 / 2 + 0.5 * 4e-4 / 2]
    assert squared_loss(predicted, truth, 100, 0.5).tolist() == pytest.approx(expected, rel=1e-12)


def test_squared_loss_is_the_papers() -> None:
    """Eq. (5): the squared Frobenius norm over all coordinates, here a mean over landmarks; a unit is a crop's side."""
    truth = make_truth()
    predicted = make_prediction(truth, 1)
    norm = torch.linalg.matrix_norm(predicted[:, 0] - truth).square().mean() / 68 / 64**2
    assert squared_loss(predicted, truth, 64, 1.0).item() == pytest.approx(norm.item(), rel=1e-12)


@pytest.mark.parametrize("loss", [lambda p, t: wing_loss(p, t, W, E, 0.5), lambda p, t: squared_loss(p, t, 9, 0.5)])
def test_gradient(loss: object) -> None:
    truth = make_truth()
    predicted = make_prediction(truth).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: loss(p, truth), (predicted,), fast_mode=True)


def test_gradient_of_a_perfect_prediction_is_finite() -> None:
    truth = make_truth()
    predicted = truth[:, None].repeat(1, 3, 1, 1).requires_grad_()
    wing_loss(predicted, truth, W, E, 0.5).sum().backward()
    assert predicted.grad is not None
    assert predicted.grad.isfinite().all()


def test_over_steps_by_hand() -> None:
    losses = torch.tensor([6.0, 3.0, 1.0])
    assert over_steps(losses, "equal").item() == pytest.approx(10 / 3)
    assert over_steps(losses, "rising").item() == pytest.approx((6 * 1 + 3 * 2 + 1 * 3) / 6)


@pytest.mark.parametrize("weights", ["equal", "rising"])
def test_over_steps_is_a_mean(weights: str) -> None:
    assert over_steps(torch.full((4,), 0.7), weights).item() == pytest.approx(0.7)
    assert over_steps(torch.tensor([0.7]), weights).item() == pytest.approx(0.7)


def test_prior_by_hand() -> None:
    """Two identity coefficients and one of expression; pose and unused coefficients cost nothing."""
    p = torch.zeros(2, 1, 234)
    p[..., : LAYOUT["identity"].start] = 50.0
    p[0, 0, LAYOUT["identity"].start + 1] = 6.0  # 3 standard deviations
    p[1, 0, LAYOUT["expression"].start] = -1.0  # 2 standard deviations
    p[..., LAYOUT["identity"].start + 2] = 9.0  # the model has no third
    prior = coefficient_prior(p, torch.tensor([1.0, 2.0]), torch.tensor([0.5]))
    assert prior.item() == pytest.approx((9 + 4) / 6)


def test_prior_of_a_model_without_expressions() -> None:
    p = torch.ones(1, 1, 234)
    assert coefficient_prior(p, torch.tensor([2.0]), torch.zeros(0)).item() == pytest.approx(0.25)
