"""Dense surfaces of the faces that the networks found: `with_surfaces`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhm_cli.dense.face import DenseFace, load_dense_face
from dhm_cli.dense.fitting import Fits, fit, shared_identity, told_of_identity
from dhm_cli.dense.surface import surfaces_of
from dhm_cli.inference.aligner import Face


def with_surfaces(
    faces: Sequence[Face],
    model: DenseFace | str | os.PathLike[str] | None = None,
    same_person: bool = False,
    identity: NDArray[np.floating] | None = None,
) -> list[Face]:
    """Fit a dense face to the landmarks of faces: `Face.surface`.

    68 landmarks tell the proportions of a face, its expression and its pose, and little of the cheeks and the forehead
    between them: those are what the model has seen to go with such landmarks.

    Args:
        faces: as `Aligner.align` gives them, of any photos; the more at a time, the faster.
        model: the dense face: a file that `dhm prepare` wrote, or None for the one that comes with dhm, the face area
            of ICT-FaceKit (MIT licence).
        same_person: all of them are one person: one identity, each with its own pose and expression.
        identity: (K,), of this person, found before.

    Returns:
        The faces with their surfaces.

    Raises:
        DhmError: the model cannot be read or has no dense surface.

    Example:
        >>> from dhm_cli import Aligner, with_surfaces
        >>> (face,) = with_surfaces(Aligner("cpu").align("sample_data/photos/astronaut.png"))
        >>> face.surface.vertices.shape, face.surface.triangles.shape
        ((6690, 3), (13140, 3))
        >>> face.surface.blendshapes["mouthSmile_L"] > 0.3
        True
    """
    dense = model if isinstance(model, DenseFace) else load_dense_face(model)
    if not faces:
        return []
    if same_person and identity is None:
        h, g = told_of_identity(dense, _fit(dense, faces))
        identity = shared_identity(dense, h.sum(axis=0), g.sum(axis=0), len(faces))
    known = None if identity is None else np.broadcast_to(identity, (len(faces), len(identity)))
    found = _fit(dense, faces, known)
    return [replace(face, surface=surface) for face, surface in zip(faces, surfaces_of(dense, found), strict=True)]


def _fit(dense: DenseFace, faces: Sequence[Face], identity: NDArray[np.floating] | None = None) -> Fits:
    """`dense.fitting.fit` for faces, of identities (B, K) or of such as are to be found."""
    sigma, visible = (
        None if any(value is None for value in values) else np.stack(values)  # type: ignore[arg-type]
        for values in ([face.sigma for face in faces], [face.visible for face in faces])
    )
    landmarks, rotation = (np.stack([getattr(face, name) for face in faces]) for name in ("landmarks", "rotation"))
    return fit(dense, landmarks, rotation, sigma, visible, identity)


class TrackSurfaces:
    """Surfaces of the faces of a video, frame by frame: one identity a track, from its frames so far.

    Args:
        dense: the model.
    """

    def __init__(self, dense: DenseFace) -> None:
        self._dense = dense
        # Of each track the sums of what its frames tell of its identity, and their number.
        self._told: dict[int, tuple[NDArray[np.float64], NDArray[np.float64], int]] = {}

    def __call__(self, faces: Sequence[Face]) -> list[Face]:
        """The faces of the next frame, with their surfaces."""
        if not faces:
            return []
        identities = []
        for face, h, g in zip(faces, *told_of_identity(self._dense, _fit(self._dense, faces)), strict=True):
            assert face.track is not None
            before = self._told.get(face.track, (0.0, 0.0, 0))
            self._told[face.track] = before[0] + h, before[1] + g, before[2] + 1
            identities.append(shared_identity(self._dense, *self._told[face.track]))
        found = surfaces_of(self._dense, _fit(self._dense, faces, np.stack(identities)))
        return [replace(face, surface=surface) for face, surface in zip(faces, found, strict=True)]

    def state(self) -> dict[str, NDArray[Any]]:
        """All that the next frame depends on; `restore` takes it."""
        values = list(self._told.values())
        size = self._dense.identity.shape[2]
        return {
            "tracks": np.array(list(self._told), np.int64),
            "h": np.array([h for h, _, _ in values]).reshape(-1, size, size),
            "g": np.array([g for _, g, _ in values]).reshape(-1, size),
            "count": np.array([count for _, _, count in values], np.int64),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on where another was."""
        rows = zip(state["h"], state["g"], state["count"].tolist(), strict=True)
        self._told = dict(zip(state["tracks"].tolist(), rows, strict=True))
