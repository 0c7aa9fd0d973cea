"""Dense surfaces of the faces that the networks found: `with_surfaces`."""

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dhm_cli.dense.face import DenseFace, load_dense_face
from dhm_cli.dense.fitting import Fits, fit, shared_identity
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
        ((6690, 3), (13142, 3))
        >>> face.surface.blendshapes["mouthSmile_L"] > 0.3
        True
    """
    dense = model if isinstance(model, DenseFace) else load_dense_face(model)
    if not faces:
        return []
    if same_person and identity is None:
        identity = shared_identity(dense, fit_faces(dense, faces))
    found = fit_faces(dense, faces, identity)
    return [replace(face, surface=surface) for face, surface in zip(faces, surfaces_of(dense, found), strict=True)]


def fit_faces(
    dense: DenseFace,
    faces: Sequence[Face],
    identity: NDArray[np.floating] | None = None,
    previous: NDArray[np.floating] | None = None,
) -> Fits:
    """`dense.fitting.fit` for faces; the identity is one for all, (K,)."""
    sigma, visible = (
        None if any(value is None for value in values) else np.stack(values)  # type: ignore[arg-type]
        for values in ([face.sigma for face in faces], [face.visible for face in faces])
    )
    known = None if identity is None else np.broadcast_to(identity, (len(faces), len(identity)))
    landmarks, rotation = (np.stack([getattr(face, name) for face in faces]) for name in ("landmarks", "rotation"))
    return fit(dense, landmarks, rotation, sigma, visible, known, previous)
