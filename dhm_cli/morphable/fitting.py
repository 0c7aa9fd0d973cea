"""Fit the 3DMM parameters p to landmarks: batched, regularised, robust, from every direction of view.

Maximum a posteriori: the landmarks carry Gaussian-like noise of about a percent of the face, each coefficient has the
model's own standard deviation as prior. Solved by Gauss-Newton over scale, rotation, translation and shape together,
with Cauchy weights against outliers. Rotations are updated as matrices, so a yaw of 90 degrees is no trap.

Two things make it fast. 68 points cannot tell 228 modes apart: the shape moves along the principal axes of the prior
at the landmarks, of which some 80 matter, and what the others would add is their mean, zero. And the pose to start from
is the best of a grid of directions, for each of which roll, scale and translation have a closed form.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dhm_cli.geometry.landmarks import JAW, NUM_LANDMARKS, face_size
from dhm_cli.geometry.pose import matrix_to_euler
from dhm_cli.morphable.camera import model_image_to_pixels, pixels_to_model_image
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.parameters import Parameters, pack
from dhm_cli.morphable.rotation import euler_to_matrix, rotation_vector_to_matrix
from dhm_cli.runtime.progress import Progress, silent

# Expected error of a landmark of weight 1, as a share of the face size. Chosen on the training faces of MERL-RAV, where
# it predicts left-out parts of the face (brows, nose, eyes, mouth in turn) best: their error is 3.39 % of the face at
# 0.02, 3.35 % from 0.0115 to 0.014, and 3.38 % at 0.008, where the shapes begin to follow the noise.
NOISE = 0.0125
# Beyond this many times NOISE a residual counts as an outlier and loses weight.
OUTLIER = 5.0

# Trust in a landmark of `fit_face_labels`, relative to a visible human label.
OCCLUDED_WEIGHT = 0.5
PRIOR_WEIGHT = 0.15
PRIOR_JAW_WEIGHT = 0.4
# Share of the human jaw labels' trust while the yaw is unknown, and with it which of them to drop.
ROUGH_JAW = 0.1

# Principal axes are left out once all of them move the landmarks by less than this share of the face, root mean square.
_NEGLIGIBLE = 1e-3
# Steps of the mean face, then with the first axes to learn the yaw, then with all. When they stop, the landmarks of
# 1,000 MERL-RAV faces are 0.002 % of the face from where they would end, 0.02 % at the 99th percentile.
_RIGID_STEPS, _ROUGH_STEPS, _FINAL_STEPS = 3, 3, 5
_ROUGH_AXES = 20
# Directions to start from, degrees. The best of each group of yaws is refined, as the nearest need not be the best.
_YAW_GROUPS = ((-120, -105, -90, -75), (-60, -45, -30), (-15, 0, 15), (30, 45, 60), (75, 90, 105, 120))
_PITCHES = (-60, -45, -30, -15, 0, 15, 30, 45, 60)
_PITCH_STD = 15.0
# No photo is larger, pixels; keeps the squares of damaged numbers finite.
_FARTHEST = 1e7
# Faces at a time: their Jacobians stay in a core's cache.
_CHUNK = 64


@dataclass(frozen=True)
class Fit:
    """Result of a fit.

    Attributes:
        parameters: p, (B, 234).
        landmarks: the fitted model's 68 points, (B, 68, 3), 0-based pixels, x right, y down, z toward the viewer with
            zero mean over the landmarks.
        residual: weighted root mean square x,y distance to the given points, percent of the fitted face's size, (B,);
            infinite where no point has weight.
    """

    parameters: Tensor
    landmarks: Tensor
    residual: Tensor


@dataclass(frozen=True)
class _ShapeSpace:
    """A face model in units of its own face size: shape = mean + axes a, with a ~ N(0, I)."""

    model: FaceModel
    size: float  # of the mean face, model units
    mean: Tensor  # (3, 68)
    axes: Tensor  # (3, 68, A), strongest first
    whitened: Tensor  # (A, K), orthonormal rows: a @ whitened are the model's coefficients in standard deviations

    def first(self, count: int) -> "_ShapeSpace":
        """The space of the strongest axes only; 0 leaves the rigid mean face."""
        return replace(self, axes=self.axes[..., :count].contiguous(), whitened=self.whitened[:count])


@dataclass(frozen=True)
class _Labels:
    """What is fitted to. D = 2, or 3 where depth is given."""

    target: Tensor  # (B, D, 68), pixels of the model image (y up); 0 where there is no trust
    trust: Tensor  # (B, 68)

    def repeat(self, times: int) -> "_Labels":
        return _Labels(self.target.repeat_interleave(times, 0), self.trust.repeat_interleave(times, 0))


@dataclass(frozen=True)
class _State:
    """Pose and shape of every face."""

    size: Tensor  # (B,), pixels
    rotation: Tensor  # (B, 3, 3)
    translation: Tensor  # (B, D), pixels
    shape: Tensor  # (B, A)

    def take(self, rows: Tensor) -> "_State":
        return _State(self.size[rows], self.rotation[rows], self.translation[rows], self.shape[rows])

    def widen(self, axes: int) -> "_State":
        """The same face with room for more axes."""
        return replace(self, shape=torch.nn.functional.pad(self.shape, (0, axes - self.shape.shape[-1])))


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
    model: FaceModel,
    points: Tensor,
    weights: Tensor,
    image_height: Tensor | float,
    iterations: int = 10,
    progress: Progress = silent,
) -> Fit:
    """Fit p to 2D or 3D landmarks (Eq. 1 and 2), maximum a posteriori.

    Args:
        model: face model; its standard deviations are the prior.
        points: (B, 68, 2 or 3), 0-based pixels, x right, y down, z toward the viewer (any offset). NaN is allowed where
            the weight is 0.
        weights: (B, 68), >= 0: trust in each landmark, 1 for a careful human label, 0 for no label.
        image_height: pixels, a number or (B,): the image that p will belong to.
        iterations: Gauss-Newton steps.
        progress: called with "fit", the faces that are fitted and the total.

    Returns:
        The fit, float32. The same input gives the same result.
    """
    space = _shape_space(model)
    heights = torch.as_tensor(image_height, dtype=torch.float32).expand(len(points))

    def fit(part: slice) -> Fit:
        labels = _labels(points[part], weights[part], heights[part])
        state = _descend(space, _find_pose(space, labels), labels, iterations)
        return _to_fit(space, state, labels, heights[part])

    return _in_chunks(fit, len(points), progress)


def fit_face_labels(
    model: FaceModel,
    human: Tensor,
    visibility: Tensor,
    prior: Tensor,
    image_height: Tensor | float,
    silhouette_jaw: bool = True,
) -> Fit:
    """Fit p to human 2D labels, and to approximate points beside them at low weight.

    A rough fit that hardly trusts the jaw finds the yaw; then the jaw labels of the far side are dropped
    (`far_side_jaw`) and the fit goes on from there. Two quadratic costs are one: of a human and a prior point their
    weighted mean is fitted, with the sum of their weights, and the residual is the distance to it.

    Args:
        model: face model; its standard deviations are the prior.
        human: (B, 68, 2), 0-based pixels, x right, y down; NaN is allowed where there is no label.
        visibility: (B, 68) integer codes of the human labels: 0 none, 1 visible, 2 occluded (position estimated).
        prior: (B, 68, 2), approximate points in the same pixels, of a network for instance; NaN where there are none.
        image_height: pixels, a number or (B,): the image that p will belong to.
        silhouette_jaw: the far side of the jaw is labelled along the visible outline, so leave it out.

    Returns:
        The fit, float32. The same input gives the same result.
    """
    space = _shape_space(model)
    few = space.first(_ROUGH_AXES)
    heights = torch.as_tensor(image_height, dtype=torch.float32).expand(len(human))
    trust_of_code = torch.tensor([0.0, 1.0, OCCLUDED_WEIGHT])

    def fit(part: slice) -> Fit:
        trust = trust_of_code[visibility[part].long()]
        inner = trust.clone()
        inner[:, JAW] *= ROUGH_JAW
        labels = _labels(*_merge(human[part], inner, prior[part]), heights[part])
        state = _descend(few, _find_pose(few, labels), labels, _ROUGH_STEPS)
        if silhouette_jaw:
            trust[far_side_jaw(_angles(state)[:, 1])] = 0
        labels = _labels(*_merge(human[part], trust, prior[part]), heights[part])
        state = _descend(space, state.widen(space.axes.shape[-1]), labels, _FINAL_STEPS)
        return _to_fit(space, state, labels, heights[part])

    return _in_chunks(fit, len(human))


def _in_chunks(fit: Callable[[slice], Fit], count: int, progress: Progress = silent) -> Fit:
    fits = []
    progress("fit", 0, count)
    for start in range(0, count, _CHUNK):
        fits.append(fit(slice(start, start + _CHUNK)))
        progress("fit", min(start + _CHUNK, count), count)
    return Fit(*(torch.cat([getattr(f, name) for f in fits]) for name in ("parameters", "landmarks", "residual")))


def _merge(human: Tensor, trust: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean of human and prior points, (B, 68, 2), and the sum of their weights, (B, 68)."""
    prior_trust = torch.full_like(trust, PRIOR_WEIGHT)
    prior_trust[:, JAW] = PRIOR_JAW_WEIGHT
    prior_trust[prior.isnan().any(-1)] = 0
    total = trust + prior_trust
    mixed = torch.nan_to_num(human) * trust[..., None] + torch.nan_to_num(prior) * prior_trust[..., None]
    return mixed / total.clamp_min(1e-9)[..., None], total


def _labels(points: Tensor, weights: Tensor, heights: Tensor) -> _Labels:
    trust = weights.float()
    near = torch.nan_to_num(points.float()).clamp(-_FARTHEST, _FARTHEST)
    target = pixels_to_model_image(near, heights) * (trust > 0)[..., None]
    return _Labels(target.transpose(1, 2).contiguous(), trust)


def _shape_space(model: FaceModel) -> _ShapeSpace:
    """Principal axes of the prior at the landmarks: the singular vectors of the whitened basis, in float64."""
    size = float(face_size(model.mean.numpy()))
    basis = torch.cat([model.identity * model.identity_std, model.expression * model.expression_std], dim=-1) / size
    moves, std, whitened = torch.linalg.svd(basis.double().transpose(0, 1).flatten(0, 1), full_matrices=False)
    left_out = (std.square().flip(0).cumsum(0).flip(0) / NUM_LANDMARKS).sqrt()
    count = int((left_out > _NEGLIGIBLE).sum())
    axes = (moves * std)[:, :count].reshape(3, NUM_LANDMARKS, count)
    return _ShapeSpace(model, size, (model.mean / size).T.contiguous(), axes.float(), whitened[:count].float())


def _find_pose(space: _ShapeSpace, labels: _Labels) -> _State:
    """Pose of the mean face: the best direction of each group of yaws is refined, the lowest robust cost wins."""
    rigid, groups = space.first(0), len(_YAW_GROUPS)
    repeated = labels.repeat(groups)
    state = _descend(rigid, _best_directions(space, labels), repeated, _RIGID_STEPS)
    error = _residual(state, _turned(rigid, state), repeated).square().sum(1)
    cost = (torch.log1p(error / (OUTLIER * NOISE) ** 2) * repeated.trust).sum(-1)
    best = cost.view(-1, groups).argmin(1) + torch.arange(len(labels.trust)) * groups
    return state.take(best).widen(space.axes.shape[-1])


def _best_directions(space: _ShapeSpace, labels: _Labels) -> _State:
    """The mean face turned to the best direction of each group of yaws: (B * groups) states, face by face.

    With roll, scale and translation free, the least-squares error of a turned mean face is a closed form: with its
    points and the labels as centred complex numbers a and b, the best turn and zoom is sum(w a* b) / sum(w |a|^2).
    The level of noise is unknown too, so that a prior on the pitch decides where outliers make every direction bad.
    """
    angles = torch.tensor([(pitch, yaw, 0) for group in _YAW_GROUPS for yaw in group for pitch in _PITCHES]).float()
    rotations = euler_to_matrix(angles.deg2rad())  # (G, 3, 3)
    x, y = (rotations[:, :2] @ space.mean).transpose(0, 1).mT  # (68, G)
    trust, target = labels.trust, labels.target[:, :2]
    total = trust.sum(1, keepdim=True).clamp_min(1e-9)
    centred = target - (target * trust[:, None]).sum(-1, keepdim=True) / total[..., None]
    u, v = (centred * trust[:, None]).unbind(1)  # (B, 68)
    along, across = u @ x + v @ y, v @ x - u @ y  # (B, G)
    spread = trust @ (x.square() + y.square()) - ((trust @ x).square() + (trust @ y).square()) / total
    spread = spread.clamp_min(1e-9)
    label_spread = (centred.square() * trust[:, None]).sum((1, 2))[:, None]
    zoom_sq = ((along.square() + across.square()) / spread.square()).clamp_min(1e-9)
    misfit = (label_spread / zoom_sq - spread).clamp_min(0) / total  # mean square error in face sizes
    cost = total * (misfit + NOISE**2).log() + (angles[:, 0] / _PITCH_STD).square()

    lengths = [len(group) * len(_PITCHES) for group in _YAW_GROUPS]
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    best = torch.stack([c.argmin(1) + s for c, s in zip(cost.split(lengths, 1), starts, strict=True)], 1).flatten()
    face = torch.arange(len(trust)).repeat_interleave(len(_YAW_GROUPS))
    roll = torch.atan2(across[face, best], along[face, best])
    rotation = rotation_vector_to_matrix(roll[:, None] * torch.tensor([0.0, 0.0, 1.0])) @ rotations[best]
    # Match the spreads, not the correlation: a wrong start must not shrink the face to nothing.
    size = (label_spread[face, 0] / spread[face, best]).sqrt().clamp_min(1e-3)
    offset = labels.target[face] - size[:, None, None] * (rotation @ space.mean)[:, : labels.target.shape[1]]
    translation = (offset * trust[face, None]).sum(-1) / total[face]
    return _State(size, rotation, translation, torch.zeros(len(face), 0))


def _turned(space: _ShapeSpace, state: _State) -> Tensor:
    """The rotated shape in face sizes, (B, 3, 68)."""
    moved = (state.shape @ space.axes.flatten(0, 1).T).view(len(state.shape), 3, NUM_LANDMARKS)
    return state.rotation @ (space.mean + moved)


def _residual(state: _State, turned: Tensor, labels: _Labels) -> Tensor:
    """Distance from the placed points to the labels in face sizes, (B, D, 68)."""
    dims = labels.target.shape[1]
    return (labels.target - state.translation[..., None]) / state.size[:, None, None] - turned[:, :dims]


def _descend(space: _ShapeSpace, state: _State, labels: _Labels, steps: int) -> _State:
    for _ in range(steps):
        state = _gauss_newton_step(space, state, labels)
    return state


def _gauss_newton_step(space: _ShapeSpace, state: _State, labels: _Labels) -> _State:
    """One robust Gauss-Newton step on (log size, rotation, translation / size, shape)."""
    turned = _turned(space, state)
    residual = _residual(state, turned, labels)
    weight = labels.trust / (1 + residual.square().sum(1) / (OUTLIER * NOISE) ** 2) / NOISE**2
    root = weight.sqrt()[:, None]
    jacobian = _jacobian(space, state, turned, residual.shape[1]).mul_(root[..., None]).flatten(1, 2)

    pose = jacobian.shape[-1] - space.axes.shape[-1]
    hessian = jacobian.mT @ jacobian
    prior = torch.ones(hessian.shape[-1])
    prior[:pose] = 1e-2  # a touch of damping on the pose, which has no prior
    hessian.diagonal(dim1=1, dim2=2).add_(prior)
    gradient = (jacobian.mT @ (residual * root).flatten(1)[..., None])[..., 0]
    gradient[:, pose:] -= state.shape
    factor, failed = torch.linalg.cholesky_ex(hessian)
    step = torch.cholesky_solve(gradient[..., None], factor)[..., 0]
    # Absurd labels may break their own face's system; it stays where it is.
    step = torch.where((failed == 0)[:, None] & step.isfinite(), step, 0.0)

    turn = step[:, 1:4] * (0.5 / step[:, 1:4].norm(dim=-1, keepdim=True).clamp_min(0.5))
    return _State(
        state.size * step[:, 0].clamp(-0.5, 0.5).exp(),
        rotation_vector_to_matrix(turn) @ state.rotation,
        state.translation + step[:, 4:pose] * state.size[:, None],
        state.shape + step[:, pose:],
    )


def _jacobian(space: _ShapeSpace, state: _State, turned: Tensor, dims: int) -> Tensor:
    """Derivative of the placed points over the face size, (B, D, 68, 4 + D + A)."""
    batch = len(turned)
    x, y, z = turned.unbind(1)
    zero = torch.zeros_like(x)
    # d(omega x v)/d omega, one column per axis of omega.
    spin = torch.stack([zero, z, -y, -z, zero, x, y, -x, zero], dim=-1).view(batch, NUM_LANDMARKS, 3, 3)
    shift = torch.eye(dims)[:, None].expand(batch, dims, NUM_LANDMARKS, dims)
    bend = state.rotation[:, :dims].flatten(0, 1) @ space.axes.flatten(1)
    bend = bend.view(batch, dims, NUM_LANDMARKS, space.axes.shape[-1])
    return torch.cat([turned[:, :dims, :, None], spin.transpose(1, 2)[:, :dims], shift, bend], dim=-1)


def _angles(state: _State) -> Tensor:
    """Pitch, yaw, roll, radians, (B, 3)."""
    return torch.from_numpy(matrix_to_euler(state.rotation.numpy())).float()


def _to_fit(space: _ShapeSpace, state: _State, labels: _Labels, heights: Tensor) -> Fit:
    model, modes = space.model, space.model.identity.shape[-1]
    coefficients = state.shape @ space.whitened
    parameters = Parameters(
        scale=state.size / space.size,
        angles=_angles(state),
        translation=state.translation[:, :2],
        identity=coefficients[:, :modes] * model.identity_std,
        expression=coefficients[:, modes:] * model.expression_std,
    )
    turned = _turned(space, state) * state.size[:, None, None]
    placed = turned[:, :2] + state.translation[:, :2, None]
    depth = turned[:, 2:] - turned[:, 2:].mean(-1, keepdim=True)
    landmarks = model_image_to_pixels(torch.cat([placed, depth], dim=1).mT, heights)
    size = torch.from_numpy(face_size(landmarks.numpy())).clamp_min(1e-9)
    total = labels.trust.sum(-1)
    distance_sq = (placed - labels.target[:, :2]).square().sum(1)
    mean_sq = (distance_sq * labels.trust).sum(-1) / total.clamp_min(1e-9)
    return Fit(pack(parameters), landmarks, torch.where(total > 0, 100 * mean_sq.sqrt() / size, torch.inf))
