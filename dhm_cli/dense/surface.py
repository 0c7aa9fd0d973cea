"""A dense face as it lies in a photo."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dhm_cli.dense.expressions import SEEN_EXPRESSIONS
from dhm_cli.dense.face import DenseFace
from dhm_cli.dense.fitting import SEEN, Fits

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Surface:
    """A dense face fitted to the landmarks of one face: v = s R S + t under weak perspective, y turned down.

    Attributes:
        face: the model, in millimetres.
        scale: s, pixels per millimetre.
        rotation: R, (3, 3), proper, y up (`geometry.pose`).
        translation: t, (3,), pixels: where the model's origin lies; y down, z toward the viewer.
        identity: coefficients of the model's identity modes, (K,), in its own units.
        expression: of its expression modes, (E,); weights from 0 to 1 where these have names.
        told: share of what is not known beforehand about each of them that the landmarks tell, (E,), 0 to 1.
    """

    face: DenseFace
    scale: float
    rotation: Array
    translation: Array
    identity: Array
    expression: Array
    told: NDArray[np.floating]

    @cached_property
    def vertices(self) -> Array:
        """(V, 3), photo pixels, x right, y down, z toward the viewer with the landmarks' mean at 0."""
        shape = self.face.shape(self.identity, self.expression)
        return self.scale * shape @ self.rotation.T * [1, -1, 1] + self.translation

    @property
    def triangles(self) -> NDArray[np.int32]:
        """(F, 3), vertices counter-clockwise as seen from outside of the head."""
        return self.face.triangles

    @cached_property
    def normals(self) -> Array:
        """(V, 3), unit vectors out of the head; x right, y down, z toward the viewer."""
        return vertex_normals(self.vertices * [1, -1, 1], self.triangles) * [1, -1, 1]

    @property
    def blendshapes(self) -> dict[str, float]:
        """The weights of named expressions that 68 landmarks can tell (`expressions.SEEN_EXPRESSIONS`), 0 to 1.

        NaN for those that they do not tell in this face, such as on the hidden side of a profile; empty where the
        model's expressions have no names.
        """
        weights = np.where(self.told >= SEEN, self.expression, np.nan).tolist()
        named = dict(zip(self.face.names, weights, strict=True)) if self.face.names else {}
        return {name: named[name] for name in SEEN_EXPRESSIONS if name in named}


def vertex_normals(vertices: NDArray[np.floating], triangles: NDArray[np.integer]) -> Array:
    """Unit normals of vertices (V, 3) in a right-handed space: of their triangles, the larger counting more."""
    corners = np.asarray(vertices, np.float64)[triangles]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat = triangles.T.ravel()
    summed = np.stack(
        [np.bincount(flat, np.tile(across[:, axis], 3), minlength=len(vertices)) for axis in range(3)], axis=1
    )
    return summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-12)


def surfaces_of(face: DenseFace, fits: Fits) -> list[Surface]:
    """The surfaces of fits."""
    return [Surface(face, float(scale), *rest) for scale, *rest in zip(*fits[:6], strict=True)]
