"""Dense surfaces of faces in files: OBJ or PLY, the files of `dhm align --mesh`."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dhm_cli.dense.surface import Surface
from dhm_cli.errors import InputError
from dhm_cli.inference.aligner import Face
from dhm_cli.io.photo import Pixels, copy_of
from dhm_cli.writers.photo_folder import PhotoFolder

FORMATS = ("obj", "ply")
# How far a surface must be turned to the viewer for its colours to be seen well, and to be seen at all: cosines.
_SEEN_WELL, _SEEN = 0.4, 0.15
_OBJ = b"# dhm mesh\n"
_PLY = b"ply\nformat binary_little_endian 1.0\ncomment dhm mesh\n"
_ABOUT = "photo pixels, x right, y up (0 at the top of the photo), z toward the viewer"


class MeshFolder(PhotoFolder):
    """A mesh of each face, `<photo>_<face>.obj` or `.ply`, in the folder structure of the photos; see `PhotoFolder`.

    Args:
        folder: where they go.
        photos: the photos.
        kind: a name of `FORMATS`.
        with_colours: whether vertices get the colours of the photo.
        force: replace files that dhm did not write.

    Raises:
        InputError: an unknown format; see also `PhotoFolder`.
    """

    def __init__(
        self, folder: Path, photos: Sequence[Path], kind: str = "obj", with_colours: bool = False, force: bool = False
    ) -> None:
        if kind not in FORMATS:
            raise InputError(f"--mesh-format {kind}: not known", f"known are {', '.join(FORMATS)}")
        super().__init__(folder, "mesh", "--mesh", photos, f".{kind}", _OBJ if kind == "obj" else _PLY, force)
        self._with_colours = with_colours

    def save_all(self, paths: Sequence[Path], photo: Pixels, faces: Sequence[Face]) -> str:
        """Save a mesh of each face of a photo, which have their surfaces; returns what went wrong, else ''.

        Args:
            paths: of the meshes, in this folder; a path for each face.
            photo: (H, W, 3) uint8 RGB, or a `Photo`; decoded whole where there are colours.
            faces: its faces.

        Raises:
            InputError: a file cannot be written, and those of the next photos cannot either.
        """
        problems = []
        image = copy_of(photo, 1).image if self._with_colours and faces else None
        for path, face in zip(paths, faces, strict=True):
            assert face.surface is not None
            colours = None if image is None else photo_colours(image, face.surface)
            made = (obj_bytes if self._ending == ".obj" else ply_bytes)(face.surface, colours)
            problems.append(self.write(path, made))
        return "; ".join(filter(None, problems))


def photo_colours(image: NDArray[np.uint8], surface: Surface) -> NDArray[np.uint8]:
    """The photo's colour at each vertex, (V, 3) uint8 RGB.

    What is turned away has the colour of the other half of the face, where that is seen, else the mean colour. What
    hides a face, such as hair or a hand, is not known and painted onto it.

    Args:
        image: (H, W, 3) uint8 RGB, the photo.
        surface: of a face in it.
    """
    xy = surface.vertices[:, :2].astype(np.float32)
    size = np.array(image.shape[1::-1])
    inside = ((xy > -0.5) & (xy < size - 0.5)).all(axis=1)
    places = xy.reshape(1, -1, 2)  # OpenCV's maps have at most 32,767 columns
    parts = [
        cv2.remap(image, part, None, cv2.INTER_LINEAR) for part in np.array_split(places, len(xy) // 30_000 + 1, 1)
    ]
    colours = np.concatenate(parts, axis=1)[0].astype(np.float64)
    sure = np.clip((surface.normals[:, 2] - _SEEN) / (_SEEN_WELL - _SEEN), 0, 1) * inside
    mean = (sure @ colours) / max(float(sure.sum()), 1e-9)
    behind = np.full_like(colours, mean)
    mirror = surface.face.mirror
    if mirror is not None:
        behind += sure[mirror, None] * (colours[mirror] - mean)
    return np.asarray((behind + sure[:, None] * (colours - behind)).round().clip(0, 255), np.uint8)


def obj_bytes(surface: Surface, colours: NDArray[np.uint8] | None = None) -> bytes:
    """A Wavefront OBJ file with normals, colours behind the coordinates as most programs read them (0 to 1)."""
    count = len(surface.vertices)
    up = np.array([1.0, -1.0, 1.0])
    numbers = surface.vertices * up
    line = "v %.3f %.3f %.3f\n"
    if colours is not None:
        numbers, line = np.hstack([numbers, colours / 255]), "v %.3f %.3f %.3f %.3f %.3f %.3f\n"
    vertices = (line * count) % tuple(numbers.ravel().tolist())
    normals = ("vn %.3f %.3f %.3f\n" * count) % tuple((surface.normals * up).ravel().tolist())
    return _OBJ + f"# {_ABOUT}\n{vertices}{normals}{_obj_faces(surface.triangles.tobytes())}".encode()


@lru_cache(maxsize=1)  # the same for all faces of a run
def _obj_faces(triangles: bytes) -> str:
    numbers = np.repeat(np.frombuffer(triangles, np.int32) + 1, 2)
    return ("f %d//%d %d//%d %d//%d\n" * (len(numbers) // 6)) % tuple(numbers.tolist())


def ply_bytes(surface: Surface, colours: NDArray[np.uint8] | None = None) -> bytes:
    """A binary PLY file with normals, and colours where they are given."""
    names = ["x", "y", "z", "nx", "ny", "nz"]
    fields = [(name, "<f4") for name in names] + [(c, "u1") for c in ("red", "green", "blue") if colours is not None]
    vertices = np.empty(len(surface.vertices), fields)
    up = np.array([1.0, -1.0, 1.0])
    for name, values in zip(names, np.hstack([surface.vertices * up, surface.normals * up]).T, strict=True):
        vertices[name] = values
    if colours is not None:
        for name, channel in zip(("red", "green", "blue"), colours.T, strict=True):
            vertices[name] = channel
    faces = np.empty(len(surface.triangles), [("count", "u1"), ("vertices", "<i4", 3)])
    faces["count"], faces["vertices"] = 3, surface.triangles
    kinds = {"<f4": "float", "u1": "uchar"}
    lines = [f"comment {_ABOUT}", f"element vertex {len(vertices)}"]
    lines += [f"property {kinds[kind]} {name}" for name, kind in fields]
    lines += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    return _PLY + ("\n".join(lines) + "\n").encode() + vertices.tobytes() + faces.tobytes()
