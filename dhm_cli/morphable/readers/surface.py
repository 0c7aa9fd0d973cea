"""The dense face that a model file holds, in the file's own units, and its way to a `FaceModel` in micrometres."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import BROWS, JAW, MIRROR, MOUTH, NUM_LANDMARKS
from dhm_cli.morphable.face_model import FaceModel, Mesh, Origin
from dhm_cli.morphable.parameters import NUM_EXPRESSION, NUM_IDENTITY

# Micrometres per unit. A face is 0.13 to 0.16 m wide from jaw point 0 to 16, so that only one unit fits.
UNITS = {"micrometre": 1.0, "millimetre": 1e3, "centimetre": 1e4, "decimetre": 1e5, "metre": 1e6}
JAW_WIDTH = (0.8e5, 2.5e5)
# How far the landmarks move in mode k of a Basel Face Model, at one standard deviation: a * k^-b micrometres (rms over
# the 68), fitted to the measured sigmas of the 3DDFA files (the first 40 identity and 10 expression modes).
IDENTITY_LAW = (2200.0, 0.88)
EXPRESSION_LAW = (2700.0, 0.97)
# Modes whose size falls this many times from the first quarter to the last carry their standard deviations already.
CARRIES_STD = 3.0
# The mean face of a model is symmetric; landmarks on wrong vertices are not. Fraction of the jaw width, rms.
ASYMMETRY = 0.05


@dataclass
class Surface:
    """What the files of a face model say.

    Attributes:
        format: kind of file, for messages and the record.
        files: the files that were read, the main one first.
        usual_units: the length unit that files of this kind have; a name in `UNITS`.
        mean: (V, 3) float64.
        identity: (V, 3, K_id) float32, K_id >= 1.
        expression: (V, 3, K_exp) float32; K_exp is 0 where there is no expression basis.
        identity_std: (K_id,), or None where the files do not say.
        expression_std: (K_exp,), or None.
        keypoints: (68,) vertex numbers, 0-based, or None.
        triangles: (F, 3) int32, 0-based.
        notes: what was assumed or changed, one sentence each.
    """

    format: str
    files: list[Path]
    usual_units: str
    mean: NDArray[np.float64]
    identity: NDArray[np.float32]
    expression: NDArray[np.float32]
    identity_std: NDArray[np.float64] | None
    expression_std: NDArray[np.float64] | None
    keypoints: NDArray[np.int64] | None = None
    triangles: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 3), np.int32))
    notes: list[str] = field(default_factory=list)


def face_problem(points: NDArray[np.floating]) -> str:
    """Say why 68 points of a mean face are not those of a face that stands upright and looks along +z.

    Args:
        points: (68, 3), x right, y up, z out of the face, any unit.

    Returns:
        The first thing that is wrong, in words; empty when all is well.
    """
    width = points[16, 0] - points[0, 0]
    if width <= 0:
        return "jaw point 0 is not left of jaw point 16 (x must grow to the viewer's right)"
    if points[BROWS, 1].mean() <= points[MOUTH, 1].mean():
        return "the brows are not above the mouth (y must grow upwards)"
    if points[30, 2] <= points[JAW, 2].mean():
        return "the nose tip is not in front of the jaw (z must grow out of the face)"
    middle = points.mean(axis=0) * [1, 0, 0]
    mirrored = (points - middle)[MIRROR] * [-1, 1, 1] + middle
    asymmetry = np.sqrt(((points - mirrored) ** 2).sum(axis=1).mean()) / width
    if asymmetry > ASYMMETRY:
        return f"left and right landmarks do not mirror each other ({100 * asymmetry:.0f} % of the face width apart)"
    return ""


def to_face_model(surface: Surface, path: Path, hashes: tuple[str, ...]) -> FaceModel:
    """Check a surface and make it one of ours: micrometres, at most 199 + 29 modes, every standard deviation known.

    Args:
        surface: what the files say, with its key points. Its arrays are used up: bases may be scaled in place, so that
            no second copy of a large basis is needed.
        path: what the user named, for messages and as the model's name.
        hashes: sha256 of `surface.files`, in their order.

    Returns:
        The model at its key vertices, with the mesh where the surface has more than those.

    Raises:
        InputError: a number is not finite, a landmark is out of place, a standard deviation is not positive, or the
            face has no size that fits a unit.
    """
    keypoints = _checked_keypoints(surface, path)
    _check_finite(surface, path, "mean")
    problem = face_problem(surface.mean[keypoints])
    if problem:
        raise InputError(
            f"{path}: the 68 key points of this {surface.format} model are not those of an upright face: {problem}",
            "check that the key points belong to this mesh (--keypoints FILE) and that its axes are x right, y up, "
            "z out of the face",
        )
    units = _to_micrometres(surface, keypoints, path)
    _check_finite(surface, path, "identity")
    _check_finite(surface, path, "expression")
    identity_std = _std(surface, path, "identity", keypoints, IDENTITY_LAW)
    expression_std = _std(surface, path, "expression", keypoints, EXPRESSION_LAW)
    if len(identity_std) > NUM_IDENTITY:
        surface.notes.append(f"only the first {NUM_IDENTITY} of {len(identity_std)} identity modes are kept")
        surface.identity = np.ascontiguousarray(surface.identity[..., :NUM_IDENTITY])
        identity_std = identity_std[:NUM_IDENTITY]
    if len(expression_std) > NUM_EXPRESSION:
        expression_std = _reduce_expression(surface, expression_std)
    if not len(expression_std):
        surface.notes.append("no expression modes: smiles and open mouths cannot be fitted")
    mesh = _mesh(surface, keypoints) if len(surface.mean) > NUM_LANDMARKS else None
    return FaceModel(
        mean=_tensor(surface.mean[keypoints]),
        identity=_tensor(surface.identity[keypoints]),
        expression=_tensor(surface.expression[keypoints]),
        identity_std=_tensor(identity_std),
        expression_std=_tensor(expression_std),
        name=path.resolve().name,
        mesh=mesh,
        origin=Origin(surface.format, tuple(file.name for file in surface.files), hashes, units, tuple(surface.notes)),
    )


def principal_modes(
    basis: NDArray[np.float32], std: NDArray[np.float64], count: int
) -> tuple[NDArray[np.float32], NDArray[np.float64], float]:
    """The orthonormal modes that carry most of a basis: singular value decomposition of basis * std.

    For a basis with orthonormal columns in falling order of std, these are its first columns.

    Args:
        basis: (V, 3, K).
        std: standard deviation of each mode, (K,).
        count: how many modes to keep, < K; fewer come back where the basis has less to say.

    Returns:
        New basis (V, 3, count) with columns of length 1 and a positive leading weight, their standard deviations
        (count,), falling, and the share of the variance that they keep, 0 to 1.
    """
    rows = basis.reshape(-1, basis.shape[-1])
    gram = np.zeros((len(std), len(std)))
    for start in range(0, len(rows), 1 << 15):  # in blocks: a float64 copy of the whole would be large
        block = rows[start : start + (1 << 15)] * std
        gram += block.T @ block
    variance, weights = np.linalg.eigh(gram)
    keep = np.argsort(-variance, kind="stable")[:count]
    keep = keep[variance[keep] > 1e-10 * variance.max()]
    weights = weights[:, keep]
    weights = weights * np.sign(weights[np.abs(weights).argmax(axis=0), np.arange(len(keep))])
    length = np.sqrt(variance[keep])
    mixed = rows @ (std[:, None] * weights / length).astype(np.float32)
    return mixed.reshape(*basis.shape[:2], -1), length, float(variance[keep].sum() / variance.sum())


def _checked_keypoints(surface: Surface, path: Path) -> NDArray[np.int64]:
    assert surface.keypoints is not None, "the reader finds them or says how to name them"
    keypoints, vertices = surface.keypoints, len(surface.mean)
    if keypoints.shape != (NUM_LANDMARKS,):
        raise InputError(
            f"{path}: expected {NUM_LANDMARKS} key points, found {keypoints.size}", "use the 68-point scheme of 300-W"
        )
    if keypoints.min() < 0 or keypoints.max() >= vertices:
        raise InputError(
            f"{path}: the key points reach from vertex {keypoints.min()} to {keypoints.max()} (0-based), but the mesh "
            f"has {vertices} vertices",
            "use the key points of this mesh: --keypoints FILE.anl",
        )
    if len(np.unique(keypoints)) != NUM_LANDMARKS:
        raise InputError(
            f"{path}: the 68 key points name only {len(np.unique(keypoints))} different vertices", "use a complete file"
        )
    return keypoints


def _check_finite(surface: Surface, path: Path, which: str) -> None:
    """Look at the sum, which needs no memory: it is finite when all numbers are, and they are of a sane size."""
    with np.errstate(all="ignore"):
        total = getattr(surface, which).sum(dtype=np.float64)
    if not np.isfinite(total):
        raise InputError(f"{path}: the {which} holds numbers that are not finite", "copy or download the file again")


def _to_micrometres(surface: Surface, keypoints: NDArray[np.int64], path: Path) -> str:
    """Scale the surface, find its unit from the width of the face, and return the unit's name."""
    width = float(np.linalg.norm(surface.mean[keypoints[16]] - surface.mean[keypoints[0]]))
    fitting = [name for name, scale in UNITS.items() if JAW_WIDTH[0] <= width * scale <= JAW_WIDTH[1]]
    if not fitting:
        raise InputError(
            f"{path}: the face is {width:.4g} wide from jaw point 0 to 16, which is no face in any of "
            f"{', '.join(UNITS)}: expected 0.08 to 0.25 m",
            f"scale the model to {surface.usual_units}s",
        )
    units = fitting[0]
    if units != surface.usual_units:
        surface.notes.append(f"the file is in {units}s by the size of the face; {surface.usual_units}s are usual")
    if UNITS[units] != 1:  # a model in micrometres stays as it is, bit for bit
        surface.mean = surface.mean * UNITS[units]
        surface.identity *= UNITS[units]
        surface.expression *= UNITS[units]
    return units


def _std(
    surface: Surface, path: Path, which: str, keypoints: NDArray[np.int64], law: tuple[float, float]
) -> NDArray[np.float64]:
    """Standard deviations of the identity or expression modes, assumed where the files say none."""
    basis, std = getattr(surface, which), getattr(surface, f"{which}_std")
    modes = basis.shape[-1]
    if std is not None:
        if std.shape != (modes,) or not np.all(np.isfinite(std) & (std > 0)):
            raise InputError(
                f"{path}: the standard deviations of the {which} modes must be {modes} positive numbers, "
                f"found {std.size} from {std.min(initial=np.inf):.4g}",
                "use a complete file",
            )
        return np.asarray(std)
    if not modes:
        return np.zeros(0)
    size = np.sqrt((basis[keypoints].astype(np.float64) ** 2).sum(axis=1).mean(axis=0))
    quarter = max(1, modes // 4)
    if modes > 1 and np.median(size[:quarter]) > CARRIES_STD * np.median(size[-quarter:]):
        surface.notes.append(f"no standard deviations of the {which} modes: they are taken to be scaled by them, so 1")
        return np.ones(modes)
    surface.notes.append(
        f"no standard deviations of the {which} modes: assumed that mode k moves the landmarks by "
        f"{law[0]:.0f} k^-{law[1]:.2f} micrometres, as in a Basel Face Model"
    )
    return np.asarray(law[0] * np.arange(1, modes + 1) ** -law[1] / np.maximum(size, 1e-9 * size.max()))


def _reduce_expression(surface: Surface, std: NDArray[np.float64]) -> NDArray[np.float64]:
    surface.expression, lengths, share = principal_modes(surface.expression, std, NUM_EXPRESSION)
    surface.notes.append(
        f"{len(std)} expression modes reduced to the {len(lengths)} principal ones, {100 * share:.1f} % of the variance"
    )
    return lengths


def _mesh(surface: Surface, keypoints: NDArray[np.int64]) -> Mesh:
    return Mesh(
        mean=surface.mean.astype(np.float32),
        identity=surface.identity,
        expression=surface.expression,
        keypoints=keypoints,
        triangles=_outward(surface.mean, surface.triangles),
    )


def _outward(mean: NDArray[np.float64], triangles: NDArray[np.int32]) -> NDArray[np.int32]:
    """The triangles with their corners counter-clockwise as seen from outside: some files have them the other way."""
    a, b, c = (mean[triangles[:, corner]] - mean.mean(axis=0) for corner in range(3))
    volume = np.einsum("nc,nc->", np.cross(a, b), c)
    return np.ascontiguousarray(triangles if volume >= 0 else triangles[:, ::-1])


def _tensor(array: NDArray[np.floating]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
