"""Fitting p: what the toy model drew is found again."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dhm_cli.landmarks import face_size
from dhm_cli.morphable.face_model import FaceModel, toy_face_model
from dhm_cli.morphable.fitting import NOISE, far_side_jaw, fit_parameters
from dhm_cli.morphable.parameters import Parameters, pack

YAWS = (-88.0, -70.0, -45.0, -20.0, 0.0, 20.0, 45.0, 70.0, 88.0)


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return toy_face_model()


def random_parameters(model: FaceModel, yaws: tuple[float, ...], seed: int = 0) -> Tensor:
    """Faces of about 80 pixels in images 120 high, with mild pitch and roll."""
    rng = np.random.default_rng(seed)
    n = len(yaws)
    angles = np.deg2rad(np.stack([rng.uniform(-15, 15, n), yaws, rng.uniform(-30, 30, n)], axis=1))
    draw = lambda std: torch.from_numpy(rng.normal(size=(n, len(std))) * std.numpy() * 0.7).float()  # noqa: E731
    return pack(
        Parameters(
            scale=torch.full((n,), 5.5e-4),
            angles=torch.from_numpy(angles).float(),
            translation=torch.from_numpy(rng.uniform(50, 70, (n, 2))).float(),
            identity=draw(model.identity_std),
            expression=draw(model.expression_std),
        )
    )


def nme(fitted: Tensor, truth: Tensor) -> np.ndarray:
    """Percent of the true box, x and y."""
    distance = (fitted[..., :2] - truth[..., :2]).norm(dim=-1).mean(-1).numpy()
    return 100 * distance / face_size(truth.numpy())


def test_noise_free_points_are_met(model: FaceModel) -> None:
    p = random_parameters(model, YAWS)
    truth = model.landmarks(p, 120.0)
    fit = fit_parameters(model, truth[..., :2], torch.ones(len(p), 68), 120.0)
    assert nme(fit.landmarks, truth).max() < 1.0
    yaw_error = torch.rad2deg(fit.parameters[:, 2] - p[:, 2]).abs()
    assert yaw_error.max() < 8.0
    assert yaw_error.median() < 3.0
    depth = truth[..., 2] - truth[..., 2].mean(1, keepdim=True)
    depth_error = (fit.landmarks[..., 2] - depth).abs().mean(-1).numpy() / face_size(truth.numpy())
    assert np.median(depth_error) < 0.04


def test_landmarks_are_those_of_the_parameters(model: FaceModel) -> None:
    """p, read in the convention of the 300W-LP files, gives the very points, up to the offset in depth."""
    truth = model.landmarks(random_parameters(model, YAWS), 120.0)
    heights = torch.linspace(120, 160, len(YAWS))
    fit = fit_parameters(model, truth[..., :2], torch.ones(len(YAWS), 68), heights)
    again = model.landmarks(fit.parameters, heights)
    again[..., 2] -= again[..., 2].mean(1, keepdim=True)
    torch.testing.assert_close(again, fit.landmarks, atol=2e-3, rtol=0)
    assert fit.landmarks[..., 2].mean(1).abs().max() < 1e-3


def test_the_height_of_the_image_moves_only_t_y(model: FaceModel) -> None:
    truth = model.landmarks(random_parameters(model, YAWS), 120.0)
    low, high = (fit_parameters(model, truth, torch.ones(len(YAWS), 68), h) for h in (120.0, 300.0))
    torch.testing.assert_close(low.landmarks, high.landmarks, atol=2e-3, rtol=0)
    torch.testing.assert_close(low.parameters[:, 5] + 180, high.parameters[:, 5], atol=2e-3, rtol=0)


def test_depth_is_used_where_it_is_given(model: FaceModel) -> None:
    p = random_parameters(model, YAWS)
    truth = model.landmarks(p, 120.0)
    offset = truth + torch.tensor([0.0, 0.0, 55.0])  # any offset in depth will do
    fit = fit_parameters(model, offset, torch.ones(len(p), 68), 120.0)
    depth = truth[..., 2] - truth[..., 2].mean(1, keepdim=True)
    assert ((fit.landmarks[..., 2] - depth).abs().mean(-1).numpy() / face_size(truth.numpy())).max() < 0.01


def test_noise_is_smoothed(model: FaceModel) -> None:
    """With noise of the size that the fit expects, the fitted points are nearer to the truth than the given ones."""
    truth = model.landmarks(random_parameters(model, YAWS), 120.0)
    spread = NOISE * torch.from_numpy(face_size(truth.numpy()))[:, None, None]
    noisy = truth[..., :2] + spread * torch.randn(len(YAWS), 68, 2, generator=torch.Generator().manual_seed(1))
    fit = fit_parameters(model, noisy, torch.ones(len(YAWS), 68), 120.0)
    assert nme(fit.landmarks, truth).mean() < 0.7 * nme(noisy, truth).mean()


def test_unlabelled_points_are_filled_in(model: FaceModel) -> None:
    """NaN with weight 0 is allowed, and the model says where the hidden points are."""
    truth = model.landmarks(random_parameters(model, YAWS), 120.0)
    points, weights = truth[..., :2].clone(), torch.ones(len(YAWS), 68)
    hidden = torch.rand(weights.shape, generator=torch.Generator().manual_seed(2)) < 0.3
    points[hidden], weights[hidden] = float("nan"), 0.0
    fit = fit_parameters(model, points, weights, 120.0)
    assert fit.landmarks.isfinite().all()
    assert nme(fit.landmarks, truth).max() < 3.0


def test_what_lies_at_weight_zero_does_not_matter(model: FaceModel) -> None:
    truth = model.landmarks(random_parameters(model, YAWS), 120.0)[..., :2]
    weights = torch.ones(len(YAWS), 68)
    weights[:, 10:20] = 0
    elsewhere = truth.clone()
    elsewhere[:, 10:20] += 300.0
    a, b = (fit_parameters(model, points, weights, 120.0) for points in (truth, elsewhere))
    torch.testing.assert_close(a.landmarks, b.landmarks, atol=1e-2, rtol=0)
    torch.testing.assert_close(a.residual, b.residual, atol=1e-2, rtol=0)


def test_outliers_lose_their_weight(model: FaceModel) -> None:
    truth = model.landmarks(random_parameters(model, YAWS), 120.0)
    wrong = truth[..., :2].clone()
    wrong[:, [3, 40]] += torch.tensor([25.0, -20.0])
    fit = fit_parameters(model, wrong, torch.ones(len(YAWS), 68), 120.0)
    assert nme(fit.landmarks, truth).max() < 2.0
    assert (fit.residual > 3.0).all()  # while the residual tells of them


def test_residual_by_definition(model: FaceModel) -> None:
    truth = model.landmarks(random_parameters(model, YAWS), 120.0)
    points = truth[..., :2] + 2 * torch.randn(len(YAWS), 68, 2, generator=torch.Generator().manual_seed(3))
    weights = torch.rand(len(YAWS), 68, generator=torch.Generator().manual_seed(4))
    fit = fit_parameters(model, points, weights, 120.0)
    distance_sq = (fit.landmarks[..., :2] - points).square().sum(-1)
    expected = (
        100 * ((distance_sq * weights).sum(-1) / weights.sum(-1)).sqrt().numpy() / face_size(fit.landmarks.numpy())
    )
    np.testing.assert_allclose(fit.residual.numpy(), expected, rtol=1e-3)


def test_faces_are_fitted_independently_and_repeatably(model: FaceModel) -> None:
    truth = model.landmarks(random_parameters(model, YAWS), 120.0)[..., :2]
    before = truth.clone()
    weights = torch.ones(len(YAWS), 68)
    together, again = (fit_parameters(model, truth, weights, 120.0) for _ in range(2))
    assert torch.equal(together.parameters, again.parameters)
    alone = fit_parameters(model, truth[3:4], weights[3:4], 120.0)
    torch.testing.assert_close(alone.landmarks[0], together.landmarks[3], atol=1e-2, rtol=0)
    assert torch.equal(truth, before)


def test_a_small_face_in_a_large_image(model: FaceModel) -> None:
    """Nothing depends on where in the image a face is, or how large."""
    truth = model.landmarks(random_parameters(model, YAWS), 120.0)
    points = truth[..., :2] * 0.3 + torch.tensor([3000.0, 2000.0])
    near = fit_parameters(model, truth[..., :2], torch.ones(len(YAWS), 68), 120.0)
    far = fit_parameters(model, points, torch.ones(len(YAWS), 68), 4000.0)
    expected = near.landmarks[..., :2] * 0.3 + torch.tensor([3000.0, 2000.0])
    torch.testing.assert_close(far.landmarks[..., :2], expected, atol=0.05, rtol=0)


def test_far_side_jaw() -> None:
    hidden = far_side_jaw(torch.deg2rad(torch.tensor([20.0, -20.0, 14.0, -14.0, 0.0])))
    # Nose to the left of the image: the left side of the jaw, 0 to 7, turns away.
    assert hidden[0].nonzero()[:, 0].tolist() == list(range(8))
    assert hidden[1].nonzero()[:, 0].tolist() == list(range(9, 17))
    assert not hidden[2:].any()


@pytest.mark.parametrize("yaw", [40.0, -40.0])
def test_the_far_side_of_the_jaw_is_behind(model: FaceModel, yaw: float) -> None:
    points = model.landmarks(random_parameters(model, (yaw,)), 120.0)[0]
    hidden = far_side_jaw(torch.deg2rad(torch.tensor([yaw])))[0]
    near = torch.zeros(68, dtype=torch.bool)
    near[:17] = ~hidden[:17]
    assert hidden.any()
    assert points[hidden, 2].mean() < points[near, 2].mean()
