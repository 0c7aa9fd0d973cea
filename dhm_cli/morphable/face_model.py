"""The 3D morphable model at its 68 key vertices (Eq. 1), and its file."""

from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dhm_cli.errors import FormatError, InputError
from dhm_cli.geometry.landmarks import NUM_LANDMARKS
from dhm_cli.io.hdf5 import new_hdf5, open_hdf5
from dhm_cli.morphable.camera import model_image_to_pixels, transform_weak_perspective
from dhm_cli.morphable.parameters import unpack
from dhm_cli.morphable.rotation import euler_to_matrix
from dhm_cli.runtime.hashing import short_hash

FILE_FORMAT = "dhm-face-model"
FILE_VERSION = 2
# Faces that `project` holds in double precision at a time.
_CHUNK = 4096
UNITS = "micrometre"
_ROWS = ("mean", "identity", "expression", "identity_std", "expression_std")
_MESH = ("mean", "identity", "expression", "keypoints", "triangles")
_ORIGIN_LISTS = {"source_files": "files", "source_sha256": "sha256", "notes": "notes"}  # attribute -> field of Origin


@dataclass(frozen=True)
class Mesh:
    """The dense surface that a face model's 68 key vertices were taken from; moved by the same coefficients.

    Attributes:
        mean: (V, 3) float32, micrometres, y up, z out of the face.
        identity: (V, 3, K_id) float32.
        expression: (V, 3, K_exp) float32.
        keypoints: (68,) int64, the vertices of the landmarks, 0-based.
        triangles: (F, 3) int32, 0-based vertex indices; (0, 3) where the file has none.
    """

    mean: NDArray[np.float32]
    identity: NDArray[np.float32]
    expression: NDArray[np.float32]
    keypoints: NDArray[np.int64]
    triangles: NDArray[np.int32]


@dataclass(frozen=True)
class Origin:
    """Where a face model's numbers come from.

    Attributes:
        format: kind of file, such as "BFM 2009".
        files: names of the files read, without folders.
        sha256: their hashes, in the same order.
        units: length unit in the files; the model itself is in micrometres.
        notes: what was assumed or changed on the way, one sentence each.
    """

    format: str
    files: tuple[str, ...]
    sha256: tuple[str, ...]
    units: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class FaceModel:
    """A linear face model at its 68 landmarks: S = S_mean + E_id p_id + E_exp p_exp (Eq. 1, Sun et al. 2018).

    Attributes:
        mean: S_mean, micrometres, y up, z out of the face, (68, 3).
        identity: E_id, (68, 3, K_id), K_id <= 199.
        expression: E_exp, (68, 3, K_exp), K_exp <= 29; 0 for a model without expressions.
        identity_std: standard deviation of each identity coefficient, (K_id,), > 0.
        expression_std: standard deviation of each expression coefficient, (K_exp,), > 0.
        name: where the model comes from, for messages.
        mesh: the dense surface, where it is known and loaded.
        origin: the files that it was read from, where it was read from files.
    """

    mean: Tensor
    identity: Tensor
    expression: Tensor
    identity_std: Tensor
    expression_std: Tensor
    name: str = "face model"
    mesh: Mesh | None = None
    origin: Origin | None = None

    def hash(self) -> str:
        """Short fingerprint of the numbers at the key vertices (float32), equal on every machine."""
        numbers = [np.ascontiguousarray(array, dtype="<f4").tobytes() for array in self._arrays().values()]
        return short_hash(b"".join(numbers))

    def require(self, expected: str, file: Path, made: str, hint: str) -> None:
        """Refuse to be used with what was made with another face model.

        Args:
            expected: hash of the face model that it was made with.
            file: where this model was read from.
            made: what was made, and how: "runs/dhm.safetensors: was trained".
            hint: what the user can do.

        Raises:
            InputError: this model's hash is another one.
        """
        if self.hash() != expected:
            raise InputError(f"{made} with face model {expected}, but {file} is {self.hash()} ({self.name})", hint)

    def _arrays(self) -> dict[str, NDArray[np.float32]]:
        return {name: getattr(self, name).detach().cpu().numpy().astype(np.float32) for name in _ROWS}

    def shape(self, identity: Tensor, expression: Tensor) -> Tensor:
        """Eq. (1): face shapes of coefficients.

        Args:
            identity: p_id, (B, 199 or K_id); what lies beyond K_id must not be there or is ignored.
            expression: p_exp, (B, 29 or K_exp).

        Returns:
            (B, 68, 3), micrometres. Differentiable.
        """
        k_id, k_exp = self.identity.shape[-1], self.expression.shape[-1]
        moved = torch.einsum("nck,bk->bnc", self.identity, identity[:, :k_id])
        return self.mean + moved + torch.einsum("nck,bk->bnc", self.expression, expression[:, :k_exp])

    def landmarks(self, p: Tensor, image_height: float | Tensor) -> Tensor:
        """Landmarks of parameters: Eq. (1) and (2), in pixels.

        Args:
            p: (B, 234), see `parameters.LAYOUT`.
            image_height: height of the image that p belongs to, pixels, a number or (B,).

        Returns:
            (B, 68, 3): 0-based pixels, x right, y down; z toward the viewer, same unit, relative to the model's origin.
        """
        parts = unpack(p)
        shape = self.shape(parts.identity, parts.expression)
        points = transform_weak_perspective(shape, parts.scale, euler_to_matrix(parts.angles), parts.translation)
        return model_image_to_pixels(points, image_height)

    def project(self, parameters: NDArray[np.floating], heights: NDArray[np.integer]) -> NDArray[np.float32]:
        """Landmarks of many stored parameters: `landmarks` in double precision, in chunks, from numpy to numpy.

        Args:
            parameters: (N, 234).
            heights: (N,), of the images, pixels.

        Returns:
            (N, 68, 3) float32, as `landmarks`.
        """
        model = self.to(torch.float64)
        points = np.empty((len(parameters), NUM_LANDMARKS, 3), np.float32)
        for part in (slice(i, i + _CHUNK) for i in range(0, len(parameters), _CHUNK)):
            p, height = (torch.from_numpy(np.asarray(a[part], np.float64)) for a in (parameters, heights))
            points[part] = model.landmarks(p, height).numpy()
        return points

    def to(self, dtype: torch.dtype) -> "FaceModel":
        """The model in another floating type; the mesh stays float32."""
        return replace(self, **{name: getattr(self, name).to(dtype) for name in _ROWS})

    def save(self, path: Path) -> None:
        """Write the model to an HDF5 file, atomically; the same model gives the same bytes.

        At the top are the rows of the 68 key vertices, in the group `mesh` the dense surface, in the attributes the
        name, the hash, the units and the origin.

        Raises:
            DhmError: the disk is full, or would be.
        """
        arrays = [*self._arrays().values(), *(getattr(self.mesh, name) for name in _MESH if self.mesh is not None)]
        with new_hdf5(path, sum(array.nbytes for array in arrays)) as file:
            file.attrs.update(format=FILE_FORMAT, version=FILE_VERSION, name=self.name, hash=self.hash(), units=UNITS)
            if self.origin is not None:
                _write_origin(file.attrs, self.origin)
            for name, array in self._arrays().items():
                file[name] = array
            if self.mesh is not None:
                for name in _MESH:
                    file[f"mesh/{name}"] = getattr(self.mesh, name)

    @classmethod
    def load(cls, path: Path, mesh: bool = False) -> "FaceModel":
        """Read a file that `save` wrote.

        Args:
            path: the file.
            mesh: read the dense surface too, where the file has one. It takes as much memory as it has numbers: 145 MB
                for the 53,215 vertices and 228 modes of a Basel Face Model.

        Raises:
            InputError: there is no such file.
            FormatError: it is not a face model of this version.
        """
        hint = "make one with: dhm prepare --bfm BFM.mat"
        if not path.is_file():
            raise InputError(f"{path}: no such face model", hint)
        try:
            with open_hdf5(path) as file:
                _check_version(path, file.attrs, hint)
                rows = {name: torch.from_numpy(file[name][()]) for name in _ROWS}
                surface = Mesh(**{name: file["mesh"][name][()] for name in _MESH}) if mesh and "mesh" in file else None
                return cls(**rows, name=str(file.attrs["name"]), mesh=surface, origin=_read_origin(file.attrs))
        except (OSError, KeyError, RuntimeError, ValueError, AttributeError, TypeError) as error:
            raise FormatError(f"{path}: not a readable face model ({error})", hint) from error


def is_face_model(path: Path) -> bool:
    """Whether a file is one that `FaceModel.save` wrote, of whatever version; False for a file that is damaged."""
    try:
        with open_hdf5(path) as file:
            return bool(file.attrs.get("format") == FILE_FORMAT)
    except (OSError, RuntimeError, FormatError):
        return False


def _check_version(path: Path, attributes: h5py.AttributeManager, hint: str) -> None:
    if attributes.get("format") != FILE_FORMAT:
        raise FormatError(f"{path}: not a face model of version {FILE_VERSION}", hint)
    if attributes.get("version") != FILE_VERSION:
        raise FormatError(
            f"{path}: not a face model of version {FILE_VERSION}, but of version {attributes.get('version')}",
            "convert the original file again: dhm prepare --bfm BFM.mat",
        )


def _write_origin(attributes: h5py.AttributeManager, origin: Origin) -> None:
    attributes.update(source_format=origin.format, source_units=origin.units)
    for name, texts in _ORIGIN_LISTS.items():
        attributes[name] = np.array(getattr(origin, texts), dtype=h5py.string_dtype())


def _read_origin(attributes: h5py.AttributeManager) -> Origin | None:
    if "source_format" not in attributes:
        return None
    lists = {texts: tuple(str(text) for text in attributes[name]) for name, texts in _ORIGIN_LISTS.items()}
    return Origin(format=str(attributes["source_format"]), units=str(attributes["source_units"]), **lists)
