"""Small made-up datasets of drawn faces of the toy model, whose truth is known."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import scipy.io
import torch
from numpy.typing import NDArray

from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.parameters import Parameters, pack

VISIBLE, OCCLUDED, HIDDEN = 1, 2, 0
# Of the images with parameters, pixels.
SIDE = 200
LEFT = [*range(0, 8), *range(17, 22), 31, 32, *range(36, 42), 48, 49, 50, 58, 59, 60, 61, 67]
RIGHT = [*range(9, 17), *range(22, 27), 34, 35, *range(42, 48), 52, 53, 54, 55, 56, 63, 64, 65]


@dataclass(frozen=True)
class SyntheticFaces:
    """What was drawn.

    Attributes:
        folder: images and .pts files, some in a subfolder.
        table: CSV with name, split and identity; two images a person, every fourth person for validation.
        names: paths below the folder.
        landmarks: the truth, (N, 68, 3), 0-based pixels.
        visibility: (N, 68).
        yaw: degrees, (N,).
    """

    folder: Path
    table: Path
    names: list[str]
    landmarks: NDArray[np.float32]
    visibility: NDArray[np.int64]
    yaw: NDArray[np.float64]


def draw_dataset(root: Path, model: FaceModel, count: int = 24) -> SyntheticFaces:
    """Draw `count` faces with yaws from -85 to 85 degrees."""
    rng = np.random.default_rng(5)
    folder = root / "drawn faces"
    (folder / "mehr Köpfe").mkdir(parents=True)
    yaw = np.linspace(-85, 85, count)
    heights = rng.integers(96, 121, count)
    angles = np.deg2rad(np.stack([rng.uniform(-10, 10, count), yaw, rng.uniform(-20, 20, count)], axis=1))
    noise = lambda std: torch.from_numpy(0.5 * rng.normal(size=(count, len(std))) * std.numpy()).float()  # noqa: E731
    p = pack(
        Parameters(
            scale=torch.full((count,), 4.5e-4),
            angles=torch.from_numpy(angles).float(),
            translation=torch.from_numpy(heights[:, None] / 2 + rng.uniform(-3, 3, (count, 2))).float(),
            identity=noise(model.identity_std),
            expression=noise(model.expression_std),
        )
    )
    landmarks = model.landmarks(p, torch.from_numpy(heights)).numpy()
    visibility = np.full((count, 68), VISIBLE)
    visibility[rng.random((count, 68)) < 0.05] = OCCLUDED
    visibility[np.ix_(yaw > 50, LEFT)] = HIDDEN
    visibility[np.ix_(yaw < -50, RIGHT)] = HIDDEN

    names, rows = [], ["name,split,identity"]
    for i in range(count):
        name = f"{'mehr Köpfe/' if i % 5 == 0 else ''}face_{i:02d}.{'png' if i % 3 == 0 else 'jpg'}"
        image = _draw(landmarks[i], int(heights[i]), rng)
        (folder / name).write_bytes(cv2.imencode(Path(name).suffix, image)[1].tobytes())
        write_pts((folder / name).with_suffix(".pts"), landmarks[i], visibility[i])
        names.append(name)
        person = i % (count // 2)
        rows.append(f"face_{i:02d},{'val' if person % 4 == 1 else 'train'},person {person}")
    table = root / "faces.csv"
    table.write_text("\n".join(rows) + "\n")
    return SyntheticFaces(folder, table, names, landmarks, visibility, yaw)


def write_pts(path: Path, landmarks: NDArray[np.floating], visibility: NDArray[np.int64]) -> None:
    """Write a .pts file with MERL-RAV's signs, 1-based."""
    lines = []
    for (x, y), code in zip(landmarks[:, :2] + 1, visibility, strict=True):
        sign = -1 if code == OCCLUDED else 1
        lines.append("-1 -1" if code == HIDDEN else f"{sign * x:.4f} {sign * y:.4f}")
    path.write_text("version: 1\nn_points: 68\n{\n" + "\n".join(lines) + "\n}\n")


def _draw(landmarks: NDArray[np.floating], side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    coarse = rng.integers(0, 130, (6, 6, 3), dtype=np.uint8)
    image = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    outline = cv2.convexHull(landmarks[:, :2].round().astype(np.int32))
    cv2.fillPoly(image, [outline], (120, 150, 200))
    for k, (x, y) in enumerate(landmarks[:, :2].round().astype(int)):
        cv2.circle(image, (int(x), int(y)), 1, (40, 3 * k, 255 - 3 * k), -1)
    return image


def random_parameters(model: FaceModel, yaw: NDArray[np.floating], seed: int, scale: float = 9e-4) -> torch.Tensor:
    """p of faces with symmetric shapes in the middle of SIDE x SIDE images, (B, 234)."""
    rng = np.random.default_rng(seed)
    count = len(yaw)
    identity = torch.from_numpy(0.5 * rng.normal(size=(count, 199))).float() * model.identity_std
    expression = torch.from_numpy(0.5 * rng.normal(size=(count, 29))).float() * model.expression_std
    identity[:, 3::4] = 0  # the toy model's asymmetric modes
    expression[:, 2::3] = 0
    angles = np.deg2rad(np.stack([rng.uniform(-10, 10, count), yaw, rng.uniform(-10, 10, count)], axis=1))
    return pack(
        Parameters(
            scale=torch.full((count,), scale),
            angles=torch.from_numpy(angles).float(),
            translation=torch.from_numpy(SIDE / 2 + rng.uniform(-3, 3, (count, 2))).float(),
            identity=identity,
            expression=expression,
        )
    )


def mirrored_parameters(p: torch.Tensor) -> torch.Tensor:
    """p of the mirrored images, for symmetric shapes."""
    mirrored = p.clone()
    mirrored[:, 2:4] *= -1
    mirrored[:, 4] = SIDE + 1 - mirrored[:, 4]
    return mirrored


def write_mat_face(image: Path, model: FaceModel, p: torch.Tensor, seed: int, **fields: NDArray[np.floating]) -> None:
    """A drawn face with its parameters in a .mat file, as 300W-LP and AFLW2000-3D have them."""
    landmarks = model.landmarks(p[None], SIDE)[0].numpy()
    image.parent.mkdir(parents=True, exist_ok=True)
    picture = _draw(landmarks, SIDE, np.random.default_rng(seed))
    image.write_bytes(cv2.imencode(image.suffix, picture)[1].tobytes())
    f, pitch, yaw, roll, t_x, t_y = p[:6].tolist()
    given = {
        "Pose_Para": np.array([[pitch, yaw, roll, t_x, t_y, -80.0, f]]),
        "Shape_Para": p[6:205, None].numpy(),
        "Exp_Para": p[205:, None].numpy(),
    }
    scipy.io.savemat(image.with_suffix(".mat"), given | fields)


def draw_300w_lp(root: Path, model: FaceModel, faces: int = 4, views: int = 3) -> dict[str, NDArray[np.float32]]:
    """A small 300W-LP: source faces in AFW and HELEN, each in several views and mirrored; returns the landmarks."""
    truth = {}
    for face in range(faces):
        part = ("AFW", "HELEN")[face % 2]
        p = random_parameters(model, np.linspace(5, 70, views), seed=face)
        p[:, 6:] = p[0, 6:]  # one person, one expression
        for view in range(views):
            for folder, q in ((part, p), (f"{part}_Flip", mirrored_parameters(p))):
                name = f"{folder}/{part}_{face}_1_{view}.jpg"
                landmarks = model.landmarks(q[view : view + 1], SIDE)[0].numpy()
                # pt2d keeps the index order when it is mirrored, and is a human's, not the model's.
                points = model.landmarks(p[view : view + 1], SIDE)[0, :, :2].numpy() + 1
                if folder.endswith("Flip"):
                    points[:, 0] = SIDE + 1 - points[:, 0]
                write_mat_face(root / name, model, q[view], face, pt2d=(points + 1.0).T)
                truth[name] = landmarks
    return truth


def draw_aflw2000(root: Path, model: FaceModel, yaw: tuple[float, ...] = (-75, -20, 3, 40)) -> NDArray[np.float32]:
    """A small AFLW2000-3D; returns the landmarks, 0-based pixels."""
    p = random_parameters(model, np.array(yaw), seed=7)
    landmarks = model.landmarks(p, SIDE).numpy()
    for i, points in enumerate(landmarks):
        on_disk = np.add(points, [1, 1, -50]).T.astype(np.float32)
        write_mat_face(root / f"image{10 * i:05d}.jpg", model, p[i], i, pt3d_68=on_disk)
    return landmarks
