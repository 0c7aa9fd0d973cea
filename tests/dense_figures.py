"""How well 68 landmarks tell a dense face: known faces of the model, seen with the errors of a network.

    OMP_NUM_THREADS=1 python tests/dense_figures.py DATA/aflw_merl68 [--model fast-x2]

Each known face has random identity and expression, and takes pose, errors, sigma and visibility from one face of the
validation split: its errors are those of the network against the reference labels there, in shares of the face, without
what is common to all faces of its bin of yaw, which is convention. An expression has each weight with a chance of 15 %
at 0.1 to 1, both sides of the face alike in 80 % of the cases. Nothing here says how far real faces are from the model.
"""
# ruff: noqa: T201  a script that prints what it did

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from dense_offsets import training_faces
from numpy.typing import NDArray

from dhm_cli.dense.face import DenseFace, packaged_face
from dhm_cli.dense.fitting import Fits, fit, shared_identity, told_of_identity
from dhm_cli.dense.surface import Surface, surfaces_of
from dhm_cli.geometry.landmarks import face_size
from dhm_cli.motion.pose_and_shape import split
from dhm_cli.writers.meshes import obj_bytes, ply_bytes

FLIP = np.array([1.0, -1, 1])
BINS = (("0-30", 0, 30), ("30-60", 30, 60), ("60-90", 60, 91))
Array = NDArray[np.float64]


def random_faces(face: DenseFace, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Identities (n, K) and expressions (n, E)."""
    weights = rng.uniform(0.1, 1, (count, len(face.names))) * (rng.random((count, len(face.names))) < 0.15)
    for k, name in enumerate(face.names):
        if name.endswith("_R"):
            alike = rng.random(count) < 0.8
            weights[alike, k] = weights[alike, face.names.index(name[:-1] + "L")]
    opened = face.names.index("jawOpen")
    closing = face.names.index("mouthClose")
    weights[:, closing] *= weights[:, opened]  # lips can close only as far as the jaw is open
    return rng.normal(size=(count, face.identity.shape[2])) * face.identity_std, weights


def shapes(face: DenseFace, identity: Array, expression: Array) -> Array:
    """Landmarks, (n, 68, 3) millimetres."""
    mean, modes = face.landmarks
    return mean + np.einsum("nci,bi->bnc", modes, np.concatenate([identity, expression], axis=1))


def distance(found: Array, truth: Array) -> float:
    """Mean distance of vertices (V, 3) when laid onto each other by place, turn and size, in the truth's unit."""
    parts = split(found[None], truth)
    return float(np.linalg.norm(parts.shape[0] - (truth - truth.mean(axis=0)), axis=1).mean())


def main(folder: Path, network: str) -> None:
    """Print the figures."""
    face, rng = packaged_face(), np.random.default_rng(0)
    seen = training_faces(folder, network, "val")
    with np.load(folder / "reference_fit.npz") as file:
        reference = file["landmarks3d"][[row for row, _ in seen]].astype(np.float64)
    faces = [found for _, found in seen]
    points, rotation = (np.stack([getattr(found, name) for found in faces]) for name in ("landmarks", "rotation"))
    sigma, visible = (np.stack([getattr(found, name) for found in faces]) for name in ("sigma", "visible"))
    yaw = np.abs([found.pose.yaw for found in faces])
    size = face_size(points)
    errors = points - reference
    errors = (errors - errors.mean(axis=1, keepdims=True) * [0, 0, 1]) / size[:, None, None]
    for _, low, high in BINS:  # convention; in the head's axes
        chosen = (yaw >= low) & (yaw < high)
        own = (errors[chosen] * FLIP) @ rotation[chosen]
        errors[chosen] = (own - own.mean(axis=0)) @ np.swapaxes(rotation[chosen], 1, 2) * FLIP
    a, b = random_faces(face, len(faces), rng)
    turned = shapes(face, a, b) @ np.swapaxes(rotation, 1, 2) * FLIP
    scale = size / face_size(turned)
    truth = (
        scale[:, None, None] * turned
        + np.concatenate([points[..., :2].mean(axis=1), np.zeros((len(faces), 1))], 1)[:, None]
    )
    noise = np.linalg.norm(errors[..., :2], axis=2).mean(axis=1)
    print("errors of the 68 points given, %, by yaw:", end=" ")
    print(*(f"{name}: {100 * noise[(yaw >= low) & (yaw < high)].mean():.2f}" for name, low, high in BINS), sep=", ")
    given = truth + errors * size[:, None, None], rotation, sigma, visible
    fits = fit(face, *given)
    print(f"{len(faces)} faces, noise of {network}")
    times(face, given)
    turned_left = np.array([found.pose.yaw for found in faces]) > 60  # the person's right is turned away
    sides = [np.array([name.endswith(side) for name in face.names]) for side in ("_R", "_L")]
    hidden, near = (fits.told[turned_left][:, side].mean() for side in sides)
    print(f"beyond 60 degrees, told of the hidden side: {hidden:.2f}, of the near side: {near:.2f}")
    table(face, fits, (a, b, scale, rotation, truth), yaw, size)
    by_name(face, fits, b, yaw)
    together(face, fits, a)


def times(face: DenseFace, given: tuple[Array, ...]) -> None:
    """CPU time of the fit and of the files, with the one thread that `dhm align` gives each photo."""

    def median(work: Callable[[], object]) -> float:
        took = []
        for _ in range(7):
            start = time.process_time()
            work()
            took.append(time.process_time() - start)
        return float(np.median(took))

    def save(kind: Callable[[Surface], bytes], folder: Path) -> None:
        for number, surface in enumerate(surfaces_of(face, fit(face, *(array[:100] for array in given)))):
            (folder / str(number)).write_bytes(kind(surface))

    count = len(given[0])
    print(
        f"ms of CPU a face, median of 7 runs: {1e3 * median(lambda: fit(face, *given)) / count:.2f} all at once,",
        end=" ",
    )
    print(
        f"{10 * median(lambda: [fit(face, *(array[k : k + 1] for array in given)) for k in range(100)]):.2f} one by one"
    )
    with TemporaryDirectory() as folder:
        for name, kind in (("OBJ", obj_bytes), ("PLY", ply_bytes)):
            seconds = median(partial(save, kind, Path(folder)))
            print(f"seconds of CPU for 1,000 faces with {name} files: {10 * seconds:.1f};", end=" ")
            print(f"{sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e8:.2f} MB a file")


def table(face: DenseFace, fits: Fits, true: tuple[Array, ...], yaw: Array, size: Array) -> None:
    """Identity, expression, depth and reprojection, by yaw, against the mean face."""
    a, b, scale, rotation, truth = true
    nobody = np.zeros_like(a[:1]), np.zeros_like(b[:1])
    rows = []
    for k in range(len(a)):
        neutral = face.shape(a[k], nobody[1][0])
        known = face.shape(a[k], b[k])
        turned = scale[k] * known @ rotation[k].T
        parts = []
        for found_a, found_b in ((fits.identity[k], fits.expression[k]), (nobody[0][0], nobody[1][0])):
            shape = face.shape(found_a, found_b)
            depth = fits.scale[k] * (shape @ fits.rotation[k].T)[:, 2] - turned[:, 2]
            moved = face.expression @ np.asarray(found_b - b[k], np.float32)
            parts += [
                distance(face.shape(found_a, nobody[1][0]), neutral),
                float(np.linalg.norm(moved, axis=1).mean()),
                float(np.abs(depth - depth.mean()).mean() / scale[k]),
            ]
        mesh = shapes(face, fits.identity[k : k + 1], fits.expression[k : k + 1])[0]
        again = fits.scale[k] * mesh @ fits.rotation[k].T * FLIP + fits.translation[k]
        off = np.linalg.norm((again - truth[k])[:, :2], axis=1).mean() / size[k]
        rows.append([*parts, 100 * float(off)])
    values = np.array(rows)
    print("mean of vertices, mm, fitted (mean face): identity, expression, depth; reprojection of the 68, %")
    for name, low, high in (*BINS, ("all", 0, 91)):
        v = values[(yaw >= low) & (yaw < high)].mean(axis=0)
        columns = "  ".join(f"{v[k]:.2f} ({v[k + 3]:.2f})" for k in range(3))
        print(f"{name:>6}: {columns}  {v[6]:.2f}")


def by_name(face: DenseFace, fits: Fits, b: Array, yaw: Array) -> None:
    """Weights by name: how much the landmarks tell, and the correlation with the truth, in frontal faces and all."""
    front = yaw < 30
    print("blend shape: told, correlation below 30 degrees of yaw, beyond 60 degrees; mean absolute error below 30")
    told = fits.told[front].mean(axis=0)
    for k in np.argsort(-told):
        r = [np.corrcoef(b[chosen, k], fits.expression[chosen, k])[0, 1] for chosen in (front, yaw >= 60)]
        off = np.abs(b[front, k] - fits.expression[front, k]).mean()
        print(f"  {face.names[k]:18} {told[k]:.2f}  {r[0]:.2f}  {r[1]:.2f}  {off:.2f}")


def together(face: DenseFace, fits: Fits, a: Array, count: int = 10) -> None:
    """One identity from several photos: the errors of these faces are of different people, so real ones help less."""
    print(
        f"identity error, mm, from one photo and from {count} (each fitted to its own face, moved to one identity): ",
        end="",
    )
    h, g = told_of_identity(face, fits)
    own, shared = [], []
    no_expression = np.zeros(len(face.names))
    for start in range(0, len(a) - count, count):
        part = slice(start, start + count)
        # A linear problem: moving the true identity by d moves H a_free by H d.
        target = a[start]
        moved = g[part] + np.einsum("bij,bj->bi", h[part], target - a[part])
        neutral = face.shape(target, no_expression)
        one = shared_identity(face, h[start], moved[0], 1)
        many = shared_identity(face, h[part].sum(axis=0), moved.sum(axis=0), count)
        own.append(distance(face.shape(one, no_expression), neutral))
        shared.append(distance(face.shape(many, no_expression), neutral))
    print(f"{np.mean(own):.2f}, {np.mean(shared):.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="fast")
    options = parser.parse_args()
    main(options.folder, options.model)
