"""Fitting p: what the toy model drew is found again."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dhm_cli.geometry.landmarks import JAW, MIRROR, face_size
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.fitting import (
    NOISE,
    OCCLUDED_WEIGHT,
    OUTLIER,
    PRIOR_JAW_WEIGHT,
    PRIOR_WEIGHT,
    far_side_jaw,
    fit_face_labels,
    fit_parameters,
)
from dhm_cli.morphable.parameters import LAYOUT, Parameters, pack
from dhm_cli.morphable.rotation import euler_to_matrix
from dhm_cli.morphable.toy import toy_face_model

YAWS = (-88.0, -70.0, -45.0, -20.0, 0.0, 20.0, 45.0, 70.0, 88.0)


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return toy_face_model()


def random_parameters(
    model: FaceModel,
    yaws: tuple[float, ...],
    seed: int = 0,
    pitch: float = 15.0,
    roll: float = 30.0,
    variety: float = 0.7,
) -> Tensor:
    """Faces of about 80 pixels in images 120 high, with mild pitch and roll."""
    rng = np.random.default_rng(seed)
    n = len(yaws)
    angles = np.deg2rad(np.stack([rng.uniform(-pitch, pitch, n), yaws, rng.uniform(-roll, roll, n)], axis=1))
    draw = lambda std: torch.from_numpy(rng.normal(size=(n, len(std))) * std.numpy() * variety).float()  # noqa: E731
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


def rotation_error(fitted: Tensor, truth: Tensor) -> Tensor:
    """Angle between the rotations of two parameter vectors, degrees."""
    a, b = (euler_to_matrix(p[:, LAYOUT["angles"]].double()) for p in (fitted, truth))
    cosine = ((a * b).sum((1, 2)) - 1) / 2
    return cosine.clamp(-1, 1).acos().rad2deg()


@pytest.mark.parametrize("dims", [2, 3])
def test_every_pose_is_found(model: FaceModel, dims: int) -> None:
    """Upside down, looking up or down, beyond profile. The faces vary little: the toy model's own faces vary so much
    that points in 2D leave the pose open."""
    yaws = tuple(np.linspace(-115, 115, 48))
    p = random_parameters(model, yaws, seed=7, pitch=45, roll=180, variety=0.2)
    truth = model.landmarks(p, 120.0)
    fit = fit_parameters(model, truth[..., :dims] + 30.0, torch.ones(len(p), 68), 120.0)
    error = rotation_error(fit.parameters, p)
    assert error.median() < (4.0 if dims == 2 else 2.0)
    assert error.max() < 15.0
    assert nme(fit.landmarks - 30.0, truth).max() < 1.0


def test_a_few_visible_points_are_enough(model: FaceModel) -> None:
    """Eight points of the near half; the model says where the rest is, roughly."""
    p = random_parameters(model, YAWS, variety=0.2)
    truth = model.landmarks(p, 120.0)
    near = torch.tensor([[8, 14, 26, 30, 35, 45, 54, 57], [8, 2, 17, 30, 31, 36, 48, 57]])
    chosen = near[(p[:, 2] < 0).long()]
    weights = torch.zeros(len(p), 68).scatter(1, chosen, 1.0)
    points = torch.where(weights[..., None] > 0, truth[..., :2], torch.nan)
    fit = fit_parameters(model, points, weights, 120.0)
    assert np.median(nme(fit.landmarks, truth)) < 5.0
    assert nme(fit.landmarks, truth).max() < 12.0
    assert fit.residual.max() < 1.5


def test_the_most_probable_coefficients_of_all_modes(model: FaceModel) -> None:
    """At the fit the posterior's gradient vanishes in all 228 coefficients, though fewer axes were moved."""
    truth = model.landmarks(random_parameters(model, YAWS), 120.0)
    points = truth[..., :2] + torch.randn(truth[..., :2].shape, generator=torch.Generator().manual_seed(5))
    fit = fit_parameters(model, points, torch.ones(len(points), 68), 120.0, iterations=40)

    def gradient(share: float) -> Tensor:
        """Of the negative log posterior, where the coefficients are `share` times those of the fit."""
        std = torch.cat([model.identity_std, model.expression_std])
        c = (share * fit.parameters[:, 6:] / std).requires_grad_()
        placed = model.landmarks(torch.cat([fit.parameters[:, :6], c * std], dim=1), 120.0)[..., :2]
        size = fit.parameters[:, 0] * float(face_size(model.mean.numpy()))
        scaled = ((placed - points) / size[:, None, None]).square().sum(-1) / (OUTLIER * NOISE) ** 2
        cost = OUTLIER**2 / 2 * scaled.log1p().sum() + c.square().sum() / 2
        return torch.autograd.grad(cost, c)[0].norm(dim=1)

    assert (gradient(1.0) < 0.02 * gradient(0.9)).all()


@pytest.mark.parametrize("modes", [0, 5])
def test_a_model_with_few_expressions(model: FaceModel, modes: int) -> None:
    small = replace(model, expression=model.expression[..., :modes], expression_std=model.expression_std[:modes])
    p = random_parameters(small, YAWS)
    truth = small.landmarks(p, 120.0)
    fit = fit_parameters(small, truth[..., :2], torch.ones(len(p), 68), 120.0)
    assert nme(fit.landmarks, truth).max() < 1.0
    assert not fit.parameters[:, 205 + modes :].any()


def test_the_unit_of_the_model_does_not_matter(model: FaceModel) -> None:
    truth = model.landmarks(random_parameters(model, YAWS), 120.0)[..., :2]
    decimetres = replace(
        model,
        mean=model.mean * 1e-5,
        identity_std=model.identity_std * 1e-5,
        expression_std=model.expression_std * 1e-5,
    )
    a, b = (fit_parameters(m, truth, torch.ones(len(truth), 68), 120.0) for m in (model, decimetres))
    torch.testing.assert_close(a.landmarks, b.landmarks, atol=1e-2, rtol=0)
    torch.testing.assert_close(a.parameters[:, 0] * 1e5, b.parameters[:, 0], atol=0, rtol=1e-3)


def test_absurd_points_harm_no_other_face(model: FaceModel) -> None:
    truth = model.landmarks(random_parameters(model, YAWS), 120.0)[..., :2]
    weights = torch.ones(len(YAWS), 68)
    alone = fit_parameters(model, truth[5:], weights[5:], 120.0)
    points = truth.clone()
    points[0], points[1], points[2], points[3] = 40.0, 1e30, float("nan"), float("inf")
    points[4, ::2] = -1e6
    weights[2] = 0
    fit = fit_parameters(model, points, weights, 120.0)
    torch.testing.assert_close(fit.landmarks[5:], alone.landmarks, atol=1e-2, rtol=0)
    assert fit.landmarks.isfinite().all()
    assert fit.parameters.isfinite().all()
    assert fit.residual[2] == torch.inf  # nothing to go by is no perfect fit
    assert not fit.residual.isnan().any()
    assert fit.residual[4] > 10


def labels_of(model: FaceModel, variety: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    """Parameters, true landmarks, and codes that call all of them visible."""
    p = random_parameters(model, YAWS, variety=variety)
    return p, model.landmarks(p, 120.0), torch.ones(len(YAWS), 68, dtype=torch.uint8)


def test_a_jaw_along_the_outline_is_not_believed(model: FaceModel) -> None:
    _, truth, visible = labels_of(model)
    hidden = far_side_jaw(torch.deg2rad(torch.tensor(YAWS)))
    human = torch.where(hidden[..., None], truth[..., :2] + torch.tensor([0.0, 12.0]), truth[..., :2])
    nothing = torch.full_like(human, torch.nan)
    fit = fit_face_labels(model, human, visible, nothing, 120.0)
    inner = slice(JAW.stop, 68)
    error = lambda f: (f.landmarks - truth)[:, inner, :2].norm(dim=-1).mean(1)  # noqa: E731
    assert error(fit).max() < 1.0
    assert fit.residual.max() < 1.0  # only of the points used
    believed = fit_face_labels(model, human, visible, nothing, 120.0, silhouette_jaw=False)
    turned = hidden.any(1)
    assert (believed.residual[turned] > 2 * fit.residual[turned]).all()
    torch.testing.assert_close(believed.landmarks[~turned], fit.landmarks[~turned], atol=1e-2, rtol=0)


def test_prior_points_fill_what_is_not_labelled(model: FaceModel) -> None:
    _, truth, visibility = labels_of(model)
    visibility[:, ::2] = 0
    human = torch.where(visibility[..., None] > 0, truth[..., :2], torch.nan)
    fit = fit_face_labels(model, human, visibility, truth[..., :2], 120.0)
    assert nme(fit.landmarks, truth).max() < 1.0
    only_prior = fit_face_labels(
        model, torch.full_like(human, torch.nan), torch.zeros_like(visibility), truth[..., :2], 120.0
    )
    assert nme(only_prior.landmarks, truth).max() < 3.0


def test_labels_outweigh_the_prior(model: FaceModel) -> None:
    """Both pull at every point; the fitted face follows the weighted mean of the two."""
    _, truth, visibility = labels_of(model, variety=0.3)
    visibility[:] = torch.tensor([1, 2]).repeat(34)
    human, prior = truth[..., :2], truth[..., :2] + 6.0
    fit = fit_face_labels(model, human, visibility, prior, 120.0, silhouette_jaw=False)
    trust = torch.tensor([1.0, OCCLUDED_WEIGHT]).repeat(34)
    prior_trust = torch.tensor([PRIOR_JAW_WEIGHT] * 17 + [PRIOR_WEIGHT] * 51)
    total = trust + prior_trust
    expected = (human * trust[:, None] + prior * prior_trust[:, None]) / total[:, None]
    distance_sq = (fit.landmarks[..., :2] - expected).square().sum(-1)
    residual = 100 * ((distance_sq * total).sum(-1) / total.sum()).sqrt().numpy() / face_size(fit.landmarks.numpy())
    np.testing.assert_allclose(fit.residual.numpy(), residual, rtol=1e-3)
    shift = (fit.landmarks[..., :2] - human).mean((1, 2))
    torch.testing.assert_close(shift, (expected - human).mean((1, 2)), atol=0.4, rtol=0)


def test_labels_are_fitted_repeatably_and_independently(model: FaceModel) -> None:
    """More faces than are fitted at once, so that chunks differ too."""
    _, truth, visibility = labels_of(model)
    many = [x.repeat(9, *[1] * (x.ndim - 1)) for x in (truth[..., :2], visibility, truth[..., :2] + 1.0)]
    before = [x.clone() for x in many]
    fit, again = (fit_face_labels(model, *many, 120.0) for _ in range(2))
    assert torch.equal(fit.parameters, again.parameters)
    assert all(torch.equal(a, b) for a, b in zip(many, before, strict=True))
    alone = fit_face_labels(model, *(x[3:4] for x in many), 120.0)
    # The order in which sums are added depends on the size of the batch, no more.
    torch.testing.assert_close(fit.landmarks[3 :: len(YAWS)], alone.landmarks.expand(9, 68, 3), atol=1e-3, rtol=0)


def test_mirrored_labels_give_the_mirrored_face(model: FaceModel) -> None:
    """With a model whose modes are all symmetric: fails where the sides of the jaw, or of the starts, are mixed up."""
    keep_id, keep_exp = (torch.tensor([k for k in range(n) if k % m != m - 1]) for n, m in ((199, 4), (29, 3)))
    symmetric = replace(
        model,
        identity=model.identity[..., keep_id],
        identity_std=model.identity_std[keep_id],
        expression=model.expression[..., keep_exp],
        expression_std=model.expression_std[keep_exp],
    )
    _, truth, visibility = labels_of(model)
    human = truth[..., :2] + torch.randn(truth[..., :2].shape, generator=torch.Generator().manual_seed(6))
    prior = human + 0.5
    order = torch.from_numpy(MIRROR)

    def mirrored(points: Tensor) -> Tensor:
        return torch.cat([119 - points[:, order, :1], points[:, order, 1:]], dim=-1)

    fit = fit_face_labels(symmetric, human, visibility, prior, 120.0)
    other = fit_face_labels(symmetric, mirrored(human), visibility[:, order], mirrored(prior), 120.0)
    torch.testing.assert_close(mirrored(other.landmarks), fit.landmarks, atol=0.02, rtol=0)
    torch.testing.assert_close(other.parameters[:, 2], -fit.parameters[:, 2], atol=0.01, rtol=0)
