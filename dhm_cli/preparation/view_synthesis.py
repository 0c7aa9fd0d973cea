"""Face profiling: new views of a photographed face at larger yaw, with exact landmarks and parameters.

The idea is that of 300W-LP (Zhu et al., "Face alignment across large poses", CVPR 2016, section 4): fit a dense face to
the photo, give the surroundings a depth as well, and turn the whole out of the image plane. The camera walks around the
head on a horizontal circle, as photographers do; identity and expression stay, and pose, scale and shift of p follow
the pixels exactly.

`dhm prepare --profile` consists of three files, which only `cli/prepare.py` knows: `turned_views.py` (the store of
views), this one (one face and its views) and `scene.py` (colours, depth and what is seen of them). Without them and the
options --profile and --surface the rest works as before.
"""

import math
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.geometry.crop import crop_matrix, turned_square
from dhm_cli.geometry.landmarks import JAW, NUM_LANDMARKS
from dhm_cli.geometry.pose import matrix_to_euler
from dhm_cli.morphable.camera import model_image_to_pixels, transform_weak_perspective
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.fitting import fit_parameters
from dhm_cli.morphable.parameters import LAYOUT, NUM_PARAMETERS, unpack
from dhm_cli.morphable.rotation import euler_to_matrix
from dhm_cli.preparation.scene import Array, Scene, build_scene, hidden_landmarks, photograph

# Side of a view over the longer side of the landmarks' box: room for the shifts and sizes of training crops.
VIEW_MARGIN = 1.9
# Photos within so many degrees of frontal show both sides equally well.
_FRONTAL = 5.0
# The 68 points of two face models agree worst along the jaw.
_JAW_WEIGHT = 0.5
_FLIP_Y = np.diag([1.0, -1.0, 1.0])


@dataclass(frozen=True)
class View:
    """A face seen from another side.

    Attributes:
        image: (size, size, 3) uint8 RGB; the head is upright, the landmarks' box in the middle.
        landmarks: (68, 3) float32, 0-based pixels, x right, y down, z toward the viewer with zero mean.
        parameters: (234,) float32, p in the convention of 300W-LP for this image.
        visibility: (68,) uint8, 1 visible, 0 hidden behind the face itself.
        yaw: degrees, of the new pose.
    """

    image: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    parameters: NDArray[np.float32]
    visibility: NDArray[np.uint8]
    yaw: float


def name_generator(name: str, seed: int = 0) -> np.random.Generator:
    """A random generator that depends on a face's name and the seed only, so that the order of faces plays no role."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def target_yaws(yaw: float, count: int, rng: np.random.Generator, step: float = 10.0, least: float = 0.0) -> Array:
    """Draw yaws that turn a face further away from frontal: what would come into view the other way was never seen.

    Args:
        yaw: of the photo, degrees (`upright_yaw`); for one within 5 degrees of frontal either side may be drawn.
        count: how many.
        rng: source of all randomness.
        step: the smallest turn, degrees.
        least: the smallest |yaw| wanted, degrees.

    Returns:
        (count,), degrees, uniform in |yaw| from max(|yaw| + step, least) to 90; empty where nothing is left of that.
    """
    frontal = abs(yaw) < _FRONTAL
    lowest, highest = max(abs(yaw) + step, least), 90.0 - frontal * abs(yaw)  # no turn is larger than 90
    if lowest >= highest:
        return np.zeros(0)
    sides = rng.choice([-1.0, 1.0], count) if frontal else np.sign(yaw)
    return sides * rng.uniform(lowest, highest, count)


def upright_yaw(parameters: NDArray[np.floating]) -> Array:
    """Yaw of heads once the photo is turned in its plane to bring them upright, as in the views.

    It differs from the yaw in p where a head is rolled and pitched: by 0.5 degrees in the middle of AFLW, and by up to
    40 in its odder photos.

    Args:
        parameters: (B, 234), p.

    Returns:
        (B,), degrees, from -180 to 180.
    """
    angles = torch.from_numpy(np.asarray(parameters, dtype=np.float64)[:, LAYOUT["angles"]])
    third = euler_to_matrix(angles)[:, 2].numpy()
    return np.degrees(np.arctan2(third[:, 0], third[:, 2]))


class Profiler:
    """Turns photographed faces to larger yaw.

    Args:
        surface: a face model with its `mesh`; it is fitted to the landmarks, unless it is `model` itself.
        model: the face model of the parameters.
        size: side of the views, pixels.

    Raises:
        InputError: the surface has no mesh.
    """

    def __init__(self, surface: FaceModel, model: FaceModel, size: int = 160) -> None:
        if surface.mesh is None:
            raise InputError(
                f"{surface.name}: expected a face model with its dense surface, found only the 68 key vertices",
                "profile with a dense model, for example ICT-FaceKit (MIT licence)",
            )
        self._surface, self._mesh, self._size = surface, surface.mesh, size
        self._model = model.to(torch.float64)
        self._same_model = surface.hash() == model.hash()

    def turn(
        self, images: list[NDArray[np.uint8]], parameters: NDArray[np.floating], yaws: list[Array]
    ) -> list[list[View]]:
        """New views of faces.

        Args:
            images: B photos, (H, W, 3) uint8 RGB; sizes may differ.
            parameters: (B, 234), p of each face in its photo.
            yaws: for each face the wanted yaws, degrees, from -90 to 90. Turns end at 90 degrees; a view's own `yaw`
                tells what was reached. Turns towards frontal are drawn, too, but what they bring into view is smeared.

        Returns:
            For each face its views, in the order of the yaws.
        """
        if not len(images) == len(parameters) == len(yaws) or parameters.shape[1:] != (NUM_PARAMETERS,):
            raise ValueError(f"{len(images)} images, parameters {parameters.shape}, yaws of {len(yaws)} faces")
        if not images:
            return []
        crops, upright = [], []
        for image, face in zip(images, parameters, strict=True):
            p = np.asarray(face, dtype=np.float64)
            crops.append(_upright_crop(self._landmarks(p, len(image)), _rotation(p), self._size))
            upright.append(_moved(p, len(image), _crop_motion(crops[-1]), self._size))
        points = np.stack([self._landmarks(p, self._size) for p in upright])
        axes, vertices = self._place_surface(np.stack(upright), points)
        views = []
        for i, image in enumerate(images):
            scene = build_scene(image, crops[i], self._size, points[i], axes[i], vertices[i])
            views.append([self._view(scene, upright[i], points[i], float(yaw)) for yaw in yaws[i]])
        return views

    def _view(self, scene: Scene, p: Array, points: Array, yaw: float) -> View:
        """The scene of a face with parameters p and landmarks `points`, seen at a yaw in degrees."""
        if not abs(yaw) <= 90.0:
            raise ValueError(f"a view's yaw must lie from -90 to 90 degrees, not {yaw:g}")
        angle = float(np.clip(_turn_to_yaw(_rotation(p), math.radians(yaw)), -math.pi / 2, math.pi / 2))
        motion = _turn_motion(angle, (self._size - 1) / 2)
        turned = points @ motion[:, :3].T + motion[:, 3]
        p = _moved(p, self._size, motion, self._size)
        crop = _upright_crop(turned, _rotation(p), self._size)
        image, surface = photograph(scene, angle, crop)
        p = _moved(p, self._size, _crop_motion(crop), self._size)
        landmarks = self._landmarks(p, self._size)
        landmarks[:, 2] -= landmarks[:, 2].mean()
        visibility = 1 - hidden_landmarks(surface, turned).astype(np.uint8)
        new_yaw = math.degrees(p[LAYOUT["angles"]][1])
        return View(image, landmarks.astype(np.float32), p.astype(np.float32), visibility, new_yaw)

    def _landmarks(self, p: Array, height: int) -> Array:
        """The 68 points of one face's p, (68, 3)."""
        return self._model.landmarks(torch.from_numpy(p[None]), float(height))[0].numpy()

    def _place_surface(self, p: Array, points: Array) -> tuple[Array, Array]:
        """The heads' axes in the pixels' space (B, 3, 3) and the dense vertices in pixels, (B, V, 3)."""
        height = float(self._size)
        if not self._same_model:
            weights = torch.ones(len(p), NUM_LANDMARKS)
            weights[:, JAW] = _JAW_WEIGHT
            p = fit_parameters(self._surface, torch.from_numpy(points), weights, height).parameters.double().numpy()
        parts, mesh = unpack(torch.from_numpy(p)), self._mesh
        shape = mesh.mean.astype(np.float64)
        for values, basis in ((parts.identity, mesh.identity), (parts.expression, mesh.expression)):
            shape = shape + np.einsum("bk,vck->bvc", values[:, : basis.shape[-1]].numpy(), basis, optimize=True)
        rotation = euler_to_matrix(parts.angles)
        placed = transform_weak_perspective(torch.from_numpy(shape), parts.scale, rotation, parts.translation)
        vertices = model_image_to_pixels(placed, height).numpy()
        inner = slice(JAW.stop, NUM_LANDMARKS)
        vertices[..., 2] += (points[:, inner, 2] - vertices[:, mesh.keypoints[inner], 2]).mean(axis=1)[:, None]
        return _FLIP_Y @ rotation.numpy(), vertices


def _rotation(p: Array) -> Array:
    return euler_to_matrix(torch.from_numpy(p[None, LAYOUT["angles"]]))[0].numpy()


def _upright_crop(points: Array, rotation: Array, size: int) -> Array:
    """Crop matrix (2, 3): the head's own vertical axis upright, the landmarks' box in the middle."""
    roll = math.atan2(-rotation[0, 1], rotation[1, 1])
    centre, side, roll = turned_square(points, roll, VIEW_MARGIN)
    return crop_matrix(centre, side, size, roll)


def _turn_to_yaw(rotation: Array, yaw: float) -> float:
    """Turn about the image's vertical axis, radians, that brings a head to this yaw.

    R_x R_y has the third row (cos pitch sin yaw, -sin pitch, cos pitch cos yaw), which turning the image in its plane
    leaves alone and the turn by d replaces by sin d times the first row plus cos d times the third.
    """
    first, third = rotation[0], rotation[2]
    sin, cos = math.sin(yaw), math.cos(yaw)
    return math.atan2(third[2] * sin - third[0] * cos, first[0] * cos - first[2] * sin)


def _crop_motion(crop: Array) -> Array:
    """A crop matrix as a similarity of space, (3, 4); depth is scaled with the image."""
    motion = np.zeros((3, 4))
    motion[:2, :2], motion[:2, 3] = crop[:, :2], crop[:, 2]
    motion[2, 2] = math.sqrt(np.linalg.det(crop[:, :2]))
    return motion


def _turn_motion(angle: float, middle: float) -> Array:
    """The turn about the vertical line x = middle, z = 0, as a similarity of space, (3, 4)."""
    sin, cos = math.sin(angle), math.cos(angle)
    return np.array([[cos, 0, -sin, middle - cos * middle], [0, 1, 0, 0], [sin, 0, cos, -sin * middle]])


def _moved(p: Array, height: int, motion: Array, size: int) -> Array:
    """p (234,) after a similarity of the pixels' space from an image of this height into one of height `size`."""
    scale = float(np.cbrt(np.linalg.det(motion[:, :3])))
    x, y = p[LAYOUT["translation"]]
    origin = motion @ [x - 1, height - y, 0.0, 1.0]
    moved = p.copy()
    moved[LAYOUT["scale"]] *= scale
    moved[LAYOUT["angles"]] = matrix_to_euler(_FLIP_Y @ (motion[:, :3] / scale) @ _FLIP_Y @ _rotation(p))
    moved[LAYOUT["translation"]] = origin[0] + 1, size - origin[1]
    return moved
