"""The losses against hand-worked values and numerical gradients."""

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from dhm_cli.config.run import resolve
from dhm_cli.config.training import TrainConfig
from dhm_cli.errors import InputError
from dhm_cli.models.interface import AlignmentOutput
from dhm_cli.morphable.parameters import LAYOUT
from dhm_cli.training.losses import (
    LOSSES,
    coefficient_prior,
    l1_loss,
    likelihood_loss,
    over_steps,
    squared_loss,
    wing,
    wing_loss,
)

W, E = 0.08, 0.02
FLOOR = 1e-4  # what distances are floored at, to keep their gradient finite


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


def random(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SIDE = 100
# Settings of the losses; a loss with one of its own adds it here.
CONFIG = TrainConfig(depth_weight=0.5, wing_width=W, wing_curvature=E)


def steps_of(name: str, predicted: Tensor, truth: Tensor, log_scale: Tensor | None = None) -> Tensor:
    return LOSSES[name](AlignmentOutput(predicted, log_scale=log_scale), truth, SIDE, CONFIG)


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
    exact = wing_by_hand(FLOOR)
    at_0 = (wing_by_hand(5 / 60) + exact) / 2
    at_1 = at_0 + 0.5 * wing_by_hand(2 / 40) / 2
    assert wing_loss(predicted, truth, SIDE, 0.5, W, E).tolist() == pytest.approx([at_0, at_1], rel=1e-5)
    # The same distances without the wing, and depth at another weight.
    at_0 = (5 / 60 + FLOOR) / 2
    assert l1_loss(predicted, truth, SIDE, 0.3).tolist() == pytest.approx([at_0, at_0 + 0.3 * 2 / 40 / 2], rel=1e-5)


@pytest.mark.parametrize("name", ["wing", "l1", "likelihood"])
def test_losses_over_the_face_size_do_not_depend_on_it(name: str) -> None:
    truth = make_truth()
    predicted, log_scale = make_prediction(truth), random(2, 3, 68, seed=2) - 3
    small, large = (steps_of(name, predicted * k, truth * k, log_scale).tolist() for k in (1.0, 7.0))
    assert small == pytest.approx(large, rel=1e-9)


def test_likelihood_by_hand() -> None:
    truth = make_truth()
    predicted = truth[:, None].repeat(1, 2, 1, 1)
    predicted[..., :2] += torch.tensor([3.0, 4.0], dtype=torch.float64)  # 5 / 60 and 5 / 40
    predicted[:, 1, :, 2] += 2.0
    scale = torch.tensor([[0.04, 0.07], [0.1, 0.2]], dtype=torch.float64)  # of face and step

    def minus_log_density(d: float, z: float, s: float) -> float:
        across = math.exp(-d / s) / (2 * math.pi * s**2)
        deep = math.exp(-z / s) / (2 * s)
        return -math.log(across) - 0.5 * math.log(deep)

    expected = [
        (minus_log_density(5 / 60, z / 60, scale[0, t]) + minus_log_density(5 / 40, z / 40, scale[1, t])) / 2
        for t, z in enumerate((0.0, 2.0))
    ]
    loss = likelihood_loss(predicted, truth, SIDE, scale.log()[..., None].repeat(1, 1, 68), 0.5)
    constants = math.log(2 * math.pi) + 0.5 * math.log(2)
    assert (loss + constants).tolist() == pytest.approx(expected, rel=1e-6)


def test_the_likeliest_scale_is_the_error() -> None:
    """Of two coordinates whose distance is d: d / 2. Larger and smaller scales are worse."""
    truth = make_truth()
    predicted = truth[:, None].clone()
    predicted[..., 0] += 0.06 * torch.tensor([60.0, 40.0], dtype=torch.float64)[:, None, None]
    told = torch.full((2, 1, 68), math.log(0.03), dtype=torch.float64)
    best, over, under = (likelihood_loss(predicted, truth, SIDE, told + k, 0.0).item() for k in (0.0, 0.1, -0.1))
    assert best < min(over, under)


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


# --- what holds for every loss of the list ---


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_has_a_value_for_every_step_and_its_gradient(name: str) -> None:
    truth = make_truth()
    predicted = make_prediction(truth).requires_grad_()
    log_scale = (random(2, 3, 68, seed=2) - 3).requires_grad_()
    losses = steps_of(name, predicted, truth, log_scale)
    assert losses.shape == (3,)
    # A step depends on its own prediction only.
    (gradient,) = torch.autograd.grad(losses[1], predicted, retain_graph=True)
    assert gradient[:, 1].abs().amin() > 0
    assert not gradient[:, [0, 2]].any()
    inputs = (predicted, log_scale) if LOSSES[name].needs else (predicted,)
    assert torch.autograd.gradcheck(
        lambda p, *rest: steps_of(name, p, truth, *(rest or [log_scale])), inputs, fast_mode=True
    )


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_of_a_perfect_prediction_is_finite(name: str) -> None:
    truth = make_truth()
    predicted = truth[:, None].repeat(1, 3, 1, 1).requires_grad_()
    steps_of(name, predicted, truth, torch.full((2, 3, 68), -9.0, dtype=torch.float64)).sum().backward()
    assert predicted.grad is not None
    assert predicted.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_needs_no_more_than_it_says(name: str) -> None:
    """Neither of the network's optional outputs, nor of the settings."""
    truth, loss = make_truth(), LOSSES[name]
    optional = {"log_scale": random(2, 3, 68, seed=2) - 3, "parameters": random(2, 3, 234, seed=3)}
    given = AlignmentOutput(make_prediction(truth), **{need: optional[need] for need in loss.needs})
    full = AlignmentOutput(make_prediction(truth), **optional)
    assert torch.equal(loss(given, truth, SIDE, CONFIG), loss(full, truth, SIDE, CONFIG))
    for need in loss.needs:
        with pytest.raises(AssertionError, match=f"the network gives no {need}"):
            loss(given._replace(**{need: None}), truth, SIDE, CONFIG)
    assert {*loss.settings} <= {field.name for field in fields(TrainConfig)}
    for setting in loss.settings:  # each changes the loss
        other = replace(CONFIG, **{setting: 2 * getattr(CONFIG, setting)})
        assert not torch.equal(loss(given, truth, SIDE, other), loss(given, truth, SIDE, CONFIG)), setting


def test_the_setting_loss_names_the_losses_of_the_list() -> None:
    """The choices stand with the settings, which must not import torch: from the message that lists them."""
    with pytest.raises(InputError, match=r"training\.loss is 'none of them': expected one of ") as caught:
        resolve(None, None, {"training": {"loss": "none of them"}}, {})
    assert {*caught.value.message.partition("expected one of ")[2].split(", ")} == {*LOSSES}
    for name in LOSSES:
        file = {"training": {"loss": name}, "network": {"uncertainty": "log_scale" in LOSSES[name].needs}}
        assert resolve("fast", None, file, {}).training.loss == name


def test_over_steps_by_hand() -> None:
    losses = torch.tensor([6.0, 3.0, 1.0])
    assert over_steps(losses, "equal").item() == pytest.approx(10 / 3)
    assert over_steps(losses, "rising").item() == pytest.approx((6 * 1 + 3 * 2 + 1 * 3) / 6)
    assert over_steps(losses, "last").item() == 1.0


@pytest.mark.parametrize("weights", ["equal", "rising", "last"])
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
