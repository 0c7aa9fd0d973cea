"""Fit the 3DMM parameters p to landmarks: batched, regularised, robust, from several yaw starts.

Maximum a posteriori: the landmarks carry Gaussian-like noise of a few percent of the face, each coefficient has the
model's own standard deviation as prior. Solved by Gauss-Newton over scale, rotation, translation and all coefficients
together, with Cauchy weights against outliers. Rotations are updated as matrices, so a yaw of 90 degrees is no trap.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dhm_cli.landmarks import JAW, NUM_LANDMARKS, face_size
from dhm_cli.morphable.camera import model_image_to_pixels, pixels_to_model_image
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.parameters import Parameters, pack
from dhm_cli.morphable.rotation import euler_to_matrix, rotation_vector_to_matrix
from dhm_cli.pose import matrix_to_euler

# Expected error of a landmark of weight 1, as a share of the face size.
NOISE = 0.02
# Beyond this many times NOISE a residual counts as an outlier and loses weight.
OUTLIER = 3.0
_YAW_STARTS = (-75.0, -35.0, 0.0, 35.0, 75.0)
_CHUNK = 512


@dataclass(frozen=True)
class Fit:
    """Result of a fit.

    Attributes:
        parameters: p, (B, 234).
        landmarks: the fitted model's 68 points, (B, 68, 3), 0-based pixels, x right, y down, z toward the viewer with
            zero mean over the landmarks.
        residual: weighted root mean square x,y distance to the given points, percent of the fitted face's size, (B,).
    """

    parameters: Tensor
    landmarks: Tensor
    residual: Tensor


@dataclass
class _State:
    log_scale: Tensor  # (B,)
    rotation: Tensor  # (B, 3, 3)
    translation: Tensor  # (B, 3), the third only used where depth is given
    coefficients: Tensor  # (B, K), whitened


def far_side_jaw(yaw: Tensor, beyond_degrees: float = 15.0) -> Tensor:
    """Which landmarks are jaw points of the side turned away from the camera.

    Human 2D annotation follows the visible silhouette there, not the 3D jaw line, so such points must not be fitted.

    Args:
        yaw: radians, (B,); positive turns the nose to the left of the image.
        beyond_degrees: |yaw| from which the rule holds.

    Returns:
        (B, 68) bool.
    """
    index = torch.arange(NUM_LANDMARKS)
    left, right = index < 8, (index > 8) & (index < JAW.stop)
    limit = np.deg2rad(beyond_degrees)
    return ((yaw > limit)[:, None] & left) | ((yaw < -limit)[:, None] & right)


def fit_parameters(
    model: FaceModel, points: Tensor, weights: Tensor, image_height: Tensor | float, iterations: int = 10
) -> Fit:
    """Fit p to 2D or 3D landmarks (Eq. 1 and 2), maximum a posteriori.

    Args:
        model: face model; its standard deviations are the prior.
        points: (B, 68, 2 or 3), 0-based pixels, x right, y down, z toward the viewer (any offset). NaN is allowed where
            the weight is 0.
        weights: (B, 68), >= 0: trust in each landmark, 1 for a careful human label, 0 for no label.
        image_height: pixels, a number or (B,): the image that p will belong to.
        iterations: Gauss-Newton steps.

    Returns:
        The fit, float32. The same input gives the same result.
    """
    heights = torch.as_tensor(image_height, dtype=torch.float32).expand(len(points))
    chunks = [
        _fit_chunk(model, points[i : i + _CHUNK], weights[i : i + _CHUNK], heights[i : i + _CHUNK], iterations)
        for i in range(0, len(points), _CHUNK)
    ]
    return Fit(*(torch.cat([getattr(c, name) for c in chunks]) for name in ("parameters", "landmarks", "residual")))


def _fit_chunk(model: FaceModel, points: Tensor, weights: Tensor, heights: Tensor, iterations: int) -> Fit:
    weights = weights.float()
    target = pixels_to_model_image(torch.nan_to_num(points.float()), heights)
    has_depth = points.shape[-1] == 3
    if not has_depth:
        target = torch.nn.functional.pad(target, (0, 1))
    axes = torch.tensor([1.0, 1.0, 1.0 if has_depth else 0.0])
    trust = weights[..., None] * axes  # (B, 68, 3)

    model_size = float(face_size(model.mean.numpy()))
    basis = torch.cat([model.identity * model.identity_std, model.expression * model.expression_std], dim=-1)
    state = _best_start(model.mean, basis[..., :0], model_size, target, trust)
    state.coefficients = torch.zeros(len(target), basis.shape[-1])
    for _ in range(iterations):
        _gauss_newton_step(state, model.mean, basis, model_size, target, trust)
    return _to_fit(state, model, basis, model_size, target, weights, heights)


def _best_start(mean: Tensor, no_basis: Tensor, model_size: float, target: Tensor, trust: Tensor) -> _State:
    """Pose of the mean face from several yaw starts; the one with the lowest robust cost is kept."""
    batch, starts = len(target), len(_YAW_STARTS)
    yaw = torch.deg2rad(torch.tensor(_YAW_STARTS)).repeat(batch)
    rotation = euler_to_matrix(torch.stack([torch.zeros_like(yaw), yaw, torch.zeros_like(yaw)], dim=-1))
    repeated_target, repeated_trust = target.repeat_interleave(starts, 0), trust.repeat_interleave(starts, 0)
    state = _similarity_start(mean, rotation, repeated_target, repeated_trust)
    state.coefficients = torch.zeros(batch * starts, 0)
    for _ in range(8):
        _gauss_newton_step(state, mean, no_basis, model_size, repeated_target, repeated_trust)
    placed, _ = _place(state, mean, no_basis)
    error = ((placed - repeated_target).square() * repeated_trust).sum(-1) / _size(state, model_size)[:, None] ** 2
    cost = torch.log1p(error / (OUTLIER * NOISE) ** 2).sum(-1).reshape(batch, starts)
    best = cost.argmin(dim=1) + torch.arange(batch) * starts
    return _State(state.log_scale[best], state.rotation[best], state.translation[best], state.coefficients[best])


def _similarity_start(mean: Tensor, rotation: Tensor, target: Tensor, trust: Tensor) -> _State:
    """Closed-form scale and translation of the mean face for given rotations (weighted least squares)."""
    turned = mean @ rotation.transpose(-1, -2)
    share = trust / trust.sum(1, keepdim=True).clamp_min(1e-9)
    centre_model, centre_target = (turned * share).sum(1, keepdim=True), (target * share).sum(1, keepdim=True)
    a, b = turned - centre_model, target - centre_target
    # Match the spreads, not the correlation: a wrong start must not shrink the face to nothing.
    scale = ((b.square() * trust).sum((1, 2)) / (a.square() * trust).sum((1, 2)).clamp_min(1e-9)).sqrt().clamp_min(1e-9)
    translation = (centre_target - scale[:, None, None] * centre_model)[:, 0]
    return _State(scale.log(), rotation, translation, torch.zeros(len(target), 0))


def _size(state: _State, model_size: float) -> Tensor:
    return state.log_scale.exp() * model_size


def _place(state: _State, mean: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Points of the state, (B, 68, 3), and the part that rotation and scale act on."""
    shape = mean + torch.einsum("nck,bk->bnc", basis, state.coefficients)
    turned = state.log_scale.exp()[:, None, None] * shape @ state.rotation.transpose(-1, -2)
    return turned + state.translation[:, None], turned


def _gauss_newton_step(
    state: _State, mean: Tensor, basis: Tensor, model_size: float, target: Tensor, trust: Tensor
) -> None:
    """One robust Gauss-Newton step on (log f, rotation, t / size, coefficients), in place."""
    placed, turned = _place(state, mean, basis)
    size = _size(state, model_size)[:, None, None]
    residual = (target - placed) / size
    distance_sq = (residual.square() * (trust > 0)).sum(-1, keepdim=True)
    weight = trust / (1 + distance_sq / (OUTLIER * NOISE) ** 2) / NOISE**2

    jacobian = _jacobian(state, basis, turned, size)  # (B, 204, 7 + K)
    flat_weight = weight.flatten(1)[..., None]
    hessian = jacobian.transpose(1, 2) @ (jacobian * flat_weight)
    gradient = jacobian.transpose(1, 2) @ (residual.flatten(1)[..., None] * flat_weight)
    prior = torch.ones(hessian.shape[-1])
    prior[:7] = 1e-2  # a touch of damping on the pose, which has no prior
    pull = torch.cat([torch.zeros(len(target), 7), state.coefficients], dim=-1)
    hessian = hessian + torch.diag(prior)
    step = torch.cholesky_solve(gradient - pull[..., None], torch.linalg.cholesky(hessian))[..., 0]

    turn = step[:, 1:4]
    turn = turn * (0.5 / turn.norm(dim=-1, keepdim=True).clamp_min(0.5))
    state.translation = state.translation + step[:, 4:7] * size[:, 0]
    state.log_scale = state.log_scale + step[:, 0].clamp(-0.5, 0.5)
    state.rotation = rotation_vector_to_matrix(turn) @ state.rotation
    state.coefficients = state.coefficients + step[:, 7:]


def _jacobian(state: _State, basis: Tensor, turned: Tensor, size: Tensor) -> Tensor:
    """Derivative of the placed points over the face size, (B, 204, 7 + K)."""
    batch = len(turned)
    x, y, z = (turned / size).unbind(-1)
    zero = torch.zeros_like(x)
    # d(omega x v)/d omega, one column per axis.
    spin = torch.stack([zero, z, -y, -z, zero, x, y, -x, zero], dim=-1).reshape(batch, NUM_LANDMARKS, 3, 3)
    shift = torch.eye(3).expand(batch, NUM_LANDMARKS, 3, 3)
    parts = [(turned / size)[..., None], spin, shift]
    if basis.shape[-1]:
        frame = state.log_scale.exp()[:, None, None] * state.rotation / size
        parts.append(torch.einsum("bij,njk->bnik", frame, basis))
    return torch.cat(parts, dim=-1).flatten(1, 2)


def _to_fit(
    state: _State, model: FaceModel, basis: Tensor, model_size: float, target: Tensor, weights: Tensor, heights: Tensor
) -> Fit:
    placed, _ = _place(state, model.mean, basis)
    modes = model.identity.shape[-1]
    parameters = Parameters(
        scale=state.log_scale.exp(),
        angles=torch.from_numpy(matrix_to_euler(state.rotation.double().numpy())).float(),
        translation=state.translation[:, :2],
        identity=state.coefficients[:, :modes] * model.identity_std,
        expression=state.coefficients[:, modes:] * model.expression_std,
    )
    distance_sq = (placed - target)[..., :2].square().sum(-1)
    mean_sq = (distance_sq * weights).sum(-1) / weights.sum(-1).clamp_min(1e-9)
    landmarks = model_image_to_pixels(placed, heights)
    depth = landmarks[..., 2:]
    landmarks = torch.cat([landmarks[..., :2], depth - depth.mean(1, keepdim=True)], dim=-1)
    size = torch.from_numpy(face_size(landmarks.numpy()))
    return Fit(pack(parameters), landmarks, 100 * mean_sq.sqrt() / size)
