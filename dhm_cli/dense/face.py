"""A dense face model in numpy: the one that comes with the package, or a face model file that `dhm prepare` wrote."""

import os
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhm_cli.dense.expressions import EXPRESSIONS
from dhm_cli.errors import FormatError, InputError

Array = NDArray[np.float64]
# The modes that are fitted, at most: 68 landmarks do not tell more.
MOST_IDENTITY, MOST_EXPRESSION = 40, 53
# Standard deviation of a blend weight, which is 0 to 1 and mostly near 0.
_WEIGHT_STD = 0.25
PACKAGED = "ict_face.npz"


@dataclass(frozen=True, eq=False)
class DenseFace:
    """A linear surface S = S_mean + E_id a + E_exp b (Eq. 1, Sun et al. 2018); millimetres, x right, y up, z forward.

    Attributes:
        mean: S_mean, (V, 3) float32.
        identity: E_id, (V, 3, K) float32, K <= 40.
        expression: E_exp, (V, 3, E) float32, E <= 53.
        identity_std: standard deviation of each coefficient a, (K,).
        expression_std: of each coefficient b, (E,).
        triangles: (F, 3) int32, counter-clockwise as seen from outside.
        keypoints: (68,) vertices of the landmarks.
        offsets: (68, 3), what is added to these vertices to have the landmarks of the networks.
        mirror: (V,), the vertex that each becomes when the face is mirrored; None where that is not known.
        names: of the expressions, whose coefficients then are weights from 0 to 1; empty where they have none.
    """

    mean: NDArray[np.float32]
    identity: NDArray[np.float32]
    expression: NDArray[np.float32]
    identity_std: Array
    expression_std: Array
    triangles: NDArray[np.int32]
    keypoints: NDArray[np.int64]
    offsets: Array
    names: tuple[str, ...] = ()
    mirror: NDArray[np.int64] | None = None

    def shape(self, identity: NDArray[np.floating], expression: NDArray[np.floating]) -> Array:
        """The surface of coefficients a (K,) and b (E,), in the head's own axes, (V, 3) millimetres."""
        moved = self.identity @ np.asarray(identity, np.float32) + self.expression @ np.asarray(expression, np.float32)
        return np.asarray(self.mean + moved, np.float64)

    @cached_property
    def landmarks(self) -> tuple[Array, Array]:
        """Mean landmarks (68, 3) and their modes, identity before expression, (68, 3, K + E)."""
        k = self.keypoints
        modes = np.concatenate([self.identity[k], self.expression[k]], axis=2)
        return self.mean[k] + self.offsets, modes.astype(np.float64)


@cache
def packaged_face() -> DenseFace:
    """The narrow face area of ICT-FaceKit (MIT licence; Li et al., CVPR 2020), made by tests/make_dense_face.py."""
    with files("dhm_cli").joinpath(f"dense/{PACKAGED}").open("rb") as source, np.load(source) as file:
        step = 10 * file["step"].astype(np.float32)  # the file is in centimetres
        mean, identity, expression = (file[name] for name in ("mean", "identity", "expression"))
        triangles, keypoints = file["triangles"].astype(np.int32), file["keypoints68"].astype(np.int64)
        mirror = file["mirror"].astype(np.int64)
        offsets = file["offsets68"].astype(np.float64)  # by tests/dense_offsets.py, from training faces
    # No landmark lies on the eyeballs, and what the lids do when they follow a gaze looks like a blink.
    names = [name for name in EXPRESSIONS if not name.startswith("eyeLook")]
    return DenseFace(
        mean * step,
        _modes_last(identity[:MOST_IDENTITY] * step),
        _modes_last(expression[[EXPRESSIONS.index(name) for name in names]] * step),
        np.ones(MOST_IDENTITY),
        np.full(len(names), _WEIGHT_STD),
        triangles,
        keypoints,
        offsets,
        tuple(names),
        mirror,
    )


def _modes_last(modes: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(np.moveaxis(modes, 0, -1))


def load_dense_face(path: str | os.PathLike[str] | None = None) -> DenseFace:
    """The packaged face, or the dense surface of a face model that `dhm prepare` wrote.

    Raises:
        InputError: there is no such file, or it has no dense surface.
        FormatError: it cannot be read.
    """
    if path is None:
        return packaged_face()
    hint = "make one with: dhm prepare --bfm, or leave out --face-model for the face that comes with dhm"
    if not Path(path).is_file():
        raise InputError(f"{path}: no such face model", hint)
    try:
        from dhm_cli.io.hdf5 import open_hdf5  # h5py is not needed for the face that comes with dhm

        with open_hdf5(Path(path)) as file:
            if file.attrs.get("format") != "dhm-face-model":
                raise FormatError(f"{path}: not a face model of dhm", hint)
            if "mesh" not in file or not len(file["mesh/triangles"]):
                raise InputError(f"{path}: has no dense surface with triangles, only the 68 landmarks", hint)
            mesh = file["mesh"]
            identity = mesh["identity"][..., :MOST_IDENTITY] / np.float32(1000)  # micrometres
            expression = mesh["expression"][..., :MOST_EXPRESSION] / np.float32(1000)
            return DenseFace(
                mesh["mean"][()] / np.float32(1000),
                identity,
                expression,
                file["identity_std"][: identity.shape[2]].astype(np.float64),
                file["expression_std"][: expression.shape[2]].astype(np.float64),
                mesh["triangles"][()],
                mesh["keypoints"][()],
                np.zeros((68, 3)),
            )
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise FormatError(f"{path}: not a readable face model ({error})", hint) from error
