"""The dense faces that `dhm align` makes on the way: what asks for them, and where their meshes go."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhm_cli.dense.face import DenseFace, load_dense_face
from dhm_cli.errors import InputError
from dhm_cli.inference.aligner import Face
from dhm_cli.inference.columns import SURFACE_COLUMNS
from dhm_cli.inference.surfaces import with_surfaces
from dhm_cli.io.photo import Pixels
from dhm_cli.writers.meshes import MeshFolder


@dataclass(frozen=True)
class DenseOptions:
    """What is wanted of dense faces.

    Attributes:
        mesh_dir: folder for a mesh of each face, or None.
        mesh_format: "obj" or "ply".
        texture: the vertices of the meshes get the photo's colours.
        same_person: the largest face of each photo is one and the same person.
        model: file of the dense face model, as `dhm prepare` wrote it; None for the one that comes with dhm.
    """

    mesh_dir: str | os.PathLike[str] | None = None
    mesh_format: str = "obj"
    texture: bool = False
    same_person: bool = False
    model: str | os.PathLike[str] | None = None

    def wanted(self, columns: Collection[str], parts: Collection[str] | None) -> bool:
        """Whether some output needs them: meshes, groups of columns, or parts of an overlay (None without one).

        Raises:
            DhmError: the model cannot be read, or an output or an option asks for what there is not.
        """
        if "blendshapes" in columns and not self.face.names:
            raise InputError(f"{self.model}: its expressions have no names", "leave out --face-model or --blendshapes")
        needed = set(columns) & set(SURFACE_COLUMNS)
        if needed or self.mesh_dir is not None or "mesh" in (parts or ()):
            return True
        if self.same_person:
            raise InputError(
                "--same-person: does nothing here", "pass --mesh, --blendshapes or --columns parameters too"
            )
        return False

    def meshes(self, photos: Sequence[Path], force: bool) -> MeshFolder | None:
        """The folder of the meshes, where they are wanted; see `MeshFolder`."""
        if self.mesh_dir is None:
            return None
        return MeshFolder(Path(self.mesh_dir), photos, self.mesh_format, self.texture, force)

    @cached_property
    def face(self) -> DenseFace:
        """The model.

        Raises:
            DhmError: it cannot be read.
        """
        return load_dense_face(self.model)


class DenseFaces:
    """Surfaces and meshes of the faces of photos. Safe to use from several threads.

    Args:
        options: what is wanted.
        photos: all photos.
        force: replace files that dhm did not write.

    Raises:
        InputError: the folder cannot be used.
    """

    def __init__(self, options: DenseOptions, photos: Sequence[Path], force: bool) -> None:
        self._options, self._meshes = options, options.meshes(photos, force)
        self._identity: NDArray[np.float64] | None = None

    def know(self, faces: Sequence[Face]) -> None:
        """All faces from now on are the person of these."""
        if faces:
            surface = with_surfaces(faces, self._options.face, same_person=True)[0].surface
            assert surface is not None
            self._identity = surface.identity

    def fit(self, faces: Sequence[Face]) -> list[Face]:
        """The faces with their surfaces."""
        return with_surfaces(faces, self._options.face, identity=self._identity)

    def save(self, name: Path, photo: Pixels, faces: Sequence[Face]) -> str:
        """Save the meshes of a photo, where they are wanted; see `MeshFolder.save_all`."""
        if self._meshes is None:
            return ""
        return self._meshes.save_all([self._meshes.path(name, number) for number in range(len(faces))], photo, faces)
