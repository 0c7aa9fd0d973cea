"""The HDF5 store of labelled faces: one file per dataset, written once, read at random.

Images keep the encoded bytes of their files, end to end in one flat array with offsets; labels are ordinary arrays.
Compressed chunks of several images were measured to be 20 times slower to read at random.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import FormatError, InputError
from dhm_cli.geometry.landmarks import face_size
from dhm_cli.io.hdf5 import new_hdf5, open_hdf5
from dhm_cli.io.pts import FARTHEST
from dhm_cli.runtime.hashing import SHORT

FILE_FORMAT = "dhm-faces"
FILE_VERSION = 2
SPLITS = ("train", "val", "test")
# Recorded in every store, so that a reader need not guess.
PIXELS = "0-based, integer coordinates at pixel centres, x right, y down; z toward the viewer, same unit, zero mean"
CROP = "box of the 68 landmarks, squared on its longer side, times sqrt(2) about its centre (AFLW2000-3D protocol)"
P_LAYOUT = "f, pitch, yaw, roll (radians), t_x, t_y, 199 identity, 29 expression; 300W-LP convention, 1-based, y up"

# Shapes of the label arrays after their first axis; the others have that axis only.
_SHAPES = {
    "image_size": (2,),
    "landmarks": (68, 3),
    "points": (68, 2),
    "visibility": (68,),
    "parameters": (234,),
    "box": (4,),
    "reannotated": (68, 2),
}
# Kinds of numbers or text of the label arrays, as numpy's codes; the others are floating point.
_KINDS = {
    "names": "U",
    "source": "U",
    "identity": "U",
    "split": "u",
    "image_size": "i",
    "visibility": "u",
    "flagged": "u",
}
_KIND_NAMES = {"U": "text", "u": "whole numbers from 0", "i": "whole numbers", "f": "floating point numbers"}
# What h5py and numpy raise on damaged files.
_HDF5_ERRORS = (OSError, KeyError, ValueError, AttributeError, TypeError, RuntimeError, OverflowError, MemoryError)
_HINT = "make one with: dhm prepare FOLDER --bfm BFM.mat"


@dataclass(frozen=True)
class FaceLabels:
    """Labels of N faces, row by row.

    Attributes:
        names: (N,) str, unique within a store.
        source: (N,) str, the image file below the dataset's folder that a face comes from.
        identity: (N,) str, faces that must stay in one split share it.
        split: (N,) uint8, index into SPLITS.
        image_size: (N, 2) int32, height and width of the stored image, pixels.
        landmarks: (N, 68, 3) float32, what networks learn and are scored on: 0-based image pixels, z toward the viewer,
            zero mean.
        points: (N, 68, 2) float32, the labels of the source, 0-based image pixels, NaN where there is none.
        visibility: (N, 68) uint8: no label, visible, occluded, self-occluded (`io.pts`).
        parameters: (N, 234) float32, p in the convention of 300W-LP for this image (P_LAYOUT).
        box: (N, 4) float32, smallest box around the landmarks: left, top, width, height, pixels.
        yaw: (N,) float32, degrees, of the pose in p; as the source gives it, so it may lie beyond 180.
        residual: (N,) float32, percent of the face size: landmarks against the labels that were used, root mean square.
        flagged: (N,) uint8, 1 where the fit is worse than was asked for; training leaves such faces out.
        reannotated: (N, 68, 2) float32, a second label set, 0-based image pixels; None where the dataset has none.
        labelled_yaw: (N,) float32, yaw of the dataset's own labels, degrees, NaN where unknown; None without any.
    """

    names: NDArray[np.str_]
    source: NDArray[np.str_]
    identity: NDArray[np.str_]
    split: NDArray[np.uint8]
    image_size: NDArray[np.int32]
    landmarks: NDArray[np.float32]
    points: NDArray[np.float32]
    visibility: NDArray[np.uint8]
    parameters: NDArray[np.float32]
    box: NDArray[np.float32]
    yaw: NDArray[np.float32]
    residual: NDArray[np.float32]
    flagged: NDArray[np.uint8]
    reannotated: NDArray[np.float32] | None = None
    labelled_yaw: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that are there, by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def take(self, rows: NDArray[Any]) -> "FaceLabels":
        """The given rows, by index or mask."""
        return FaceLabels(**{name: values[rows] for name, values in self.arrays().items()})

    def in_split(self, split: str) -> NDArray[np.int64]:
        """Rows of a split (train, val or test); flagged faces are left out of train."""
        inside = self.split == SPLITS.index(split)
        return np.flatnonzero(inside & (self.flagged == 0) if split == "train" else inside)

    def usable(self) -> NDArray[np.bool_]:
        """(N,): whether a face's landmarks are pixel positions, not all one, and its pose consists of numbers."""
        with np.errstate(invalid="ignore", over="ignore"):
            placed = (np.abs(self.landmarks) < FARTHEST).all(axis=(1, 2)) & (face_size(self.landmarks) >= 1)
        posed: NDArray[np.bool_] = np.isfinite(self.yaw) & np.isfinite(self.parameters).all(axis=1)
        return placed & posed

    @staticmethod
    def join(parts: "list[FaceLabels]") -> "FaceLabels":
        """The rows of several, in order; all must have the same arrays."""
        return FaceLabels(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in parts[0].arrays()})


def write_store(
    path: Path, images: Iterable[bytes], sizes: NDArray[np.int64], labels: FaceLabels, attributes: dict[str, Any]
) -> None:
    """Write a store atomically; the same input gives the same bytes.

    Args:
        path: the file; folders are made.
        images: the encoded images end to end, in pieces of any size.
        sizes: (N,), bytes of each image.
        labels: N rows.
        attributes: what to record beside the schema version and the conventions: sources, hashes, command line.

    Raises:
        DhmError: the disk is full, or would be.
    """
    assert all(len(values) == len(sizes) for values in labels.arrays().values())
    offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    expected = int(offsets[-1]) + sum(values.nbytes for values in labels.arrays().values())
    with new_hdf5(path, expected) as file:
        file.attrs.update(format=FILE_FORMAT, version=FILE_VERSION, splits=SPLITS)
        file.attrs.update(pixels=PIXELS, crop=CROP, parameters=P_LAYOUT, contents=contents_hash(labels, offsets))
        file.attrs.update(attributes)
        stored = file.create_dataset("images", shape=(int(offsets[-1]),), dtype=np.uint8)
        at, digest = 0, hashlib.sha256()
        for piece in images:
            digest.update(piece)
            stored[at : at + len(piece)] = np.frombuffer(piece, dtype=np.uint8)
            at += len(piece)
        assert at == offsets[-1], "the images are not as long as announced"
        file.attrs["images_hash"] = digest.hexdigest()[:SHORT]
        file["offsets"] = offsets
        for name, values in labels.arrays().items():
            file[name] = values.astype(h5py.string_dtype()) if values.dtype.kind == "U" else values


def contents_hash(labels: FaceLabels, offsets: NDArray[np.int64]) -> str:
    """Short hash of the labels and the images' sizes, equal for stores with equal contents."""
    digest = hashlib.sha256(offsets.astype("<i8").tobytes())
    for name, values in labels.arrays().items():
        digest.update(name.encode())
        digest.update(
            "\n".join(values).encode() if values.dtype.kind == "U" else np.ascontiguousarray(values).tobytes()
        )
    return digest.hexdigest()[:SHORT]


class FaceStore:
    """A store opened for reading.

    Args:
        path: file that `write_store` wrote.

    Attributes:
        labels: all rows.
        attributes: what was recorded.
        sizes: (N,), bytes of each encoded image.

    Raises:
        InputError: no such file, or a folder.
        FormatError: the file is damaged, something else, or a store of another version.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from dhm_cli import FaceStore
        >>> from dhm_cli.morphable.toy import toy_face_model
        >>> from dhm_cli.preparation.options import PrepareOptions
        >>> from dhm_cli.preparation.prepare import prepare_folder
        >>> options = PrepareOptions(table=Path("sample_data/faces.csv"))
        >>> with tempfile.TemporaryDirectory() as out:  # what `dhm prepare` does
        ...     report = prepare_folder(Path("sample_data/faces"), toy_face_model(), Path(out), options)
        ...     store = FaceStore(report.store)
        ...     (image,) = store.images([0])
        >>> len(store), store.labels.landmarks.shape
        (16, (16, 68, 3))
        >>> store.labels.in_split("val").tolist(), image.shape
        ([1, 5, 9, 13], (112, 112, 3))
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise InputError(f"{path}: no such store", _HINT)
        if path.is_dir():
            raise InputError(f"{path}: a folder, not a store", "name one of the .h5 files that dhm prepare wrote")
        self.path = path
        try:
            with open_hdf5(path) as file:
                found, version = file.attrs.get("format"), file.attrs.get("version")
                if found == FILE_FORMAT and version != FILE_VERSION:
                    raise FormatError(
                        f"{path}: a face store of version {version}, not {FILE_VERSION}",
                        "prepare it again: dhm prepare FOLDER --bfm BFM.mat",
                    )
                if found != FILE_FORMAT:
                    raise FormatError(f"{path}: not a face store ({found or 'some other HDF5 file'})", _HINT)
                self.attributes = dict(file.attrs)
                self._offsets = file["offsets"][()]
                if file["images"].ndim != 1:
                    raise ValueError("images are no bytes")
                optional = {"reannotated", "labelled_yaw"} - set(file)
                names = [f.name for f in fields(FaceLabels) if f.name not in optional]
                self.labels = FaceLabels(**{name: _read(file[name]) for name in names})
                _check_offsets(self._offsets, len(file["images"]))
                _check_arrays(self.labels.arrays(), len(self._offsets) - 1)
        except _HDF5_ERRORS as error:
            raise FormatError(f"{path}: not a readable face store ({error})", _HINT) from error
        self.sizes = np.diff(self._offsets)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labels_are(self) -> str:
        """What the landmarks and p of this store are, for reports; never more than the file says."""
        if "relabelled" not in self.attributes:
            return "fitted to the annotated points"
        try:
            record = json.loads(self.attributes["relabelled"])
            network, name, date = (str(record.get(key, "")) for key in ("network", "name", "date"))
        except (ValueError, TypeError, AttributeError):
            network = name = date = ""
        short = f"{network[:8]}…" if len(network) > 8 else network
        asked = f"{name} ({short})" if name and network else name or short or "a network"
        return f"relabelled by {asked}{f' on {date}' if date else ''}: fitted to human points, a prior and that network"

    def check_labels(self, rows: NDArray[np.integer], usable: NDArray[np.bool_] | None = None) -> None:
        """Check that some faces can be learned and scored.

        Args:
            rows: the faces.
            usable: whether each can be; None for what `FaceLabels.usable` says.

        Raises:
            FormatError: a face cannot; names one.
        """
        usable = self.labels.take(rows).usable() if usable is None else usable
        if not usable.all():
            bad = self.labels.names[rows[~usable]]
            raise FormatError(
                f"{self.path}: {len(bad):,} {'face has' if len(bad) == 1 else 'faces have'} labels that are no pixel "
                f"positions or all one, such as {bad[0]}",
                "see `dhm prepare --check`, and prepare the store again",
            )

    def fingerprint(self) -> str:
        """Short hash of the labels and the images' sizes, computed from what is in the file."""
        return contents_hash(self.labels, self._offsets)

    def encoded_images(self, rows: NDArray[np.integer]) -> Iterator[bytes]:
        """The images of some rows as they were stored: encoded bytes, one after the other."""
        with open_hdf5(self.path) as file:
            stored = file["images"]
            for row in rows:
                yield stored[self._offsets[row] : self._offsets[row + 1]].tobytes()

    def images(self, rows: NDArray[np.integer]) -> list[NDArray[np.uint8]]:
        """Decode images.

        Args:
            rows: indices, in increasing order for speed.

        Returns:
            Images (H, W, 3) uint8 RGB.

        Raises:
            FormatError: an image is damaged.
        """
        return [self._decode(data, int(row)) for data, row in zip(self.encoded_images(rows), rows, strict=True)]

    def _decode(self, encoded: bytes, row: int) -> NDArray[np.uint8]:
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags) if encoded else None
        if image is None:
            raise FormatError(f"{self.path}: image {self.labels.names[row]} is damaged", "prepare the store again")
        return image  # type: ignore[return-value]


def is_store(path: Path) -> bool:
    """Whether a file is one that `write_store` wrote, of whatever version; False for a file that is damaged."""
    try:
        with open_hdf5(path) as file:
            return bool(file.attrs.get("format") == FILE_FORMAT)
    except (OSError, RuntimeError, FormatError):
        return False


def _check_offsets(offsets: NDArray[Any], total: int) -> None:
    """Raise a ValueError where the images' places are none within the bytes that are there."""
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu" or not len(offsets):
        raise ValueError("the offsets of the images are no list of whole numbers")
    if offsets[0] != 0 or offsets[-1] != total or (offsets[1:] < offsets[:-1]).any():
        raise ValueError("the offsets of the images do not fit the images")


def _check_arrays(arrays: dict[str, NDArray[Any]], count: int) -> None:
    """Raise a ValueError where an array does not have the shape and the kind of values that `FaceLabels` documents."""
    for name, values in arrays.items():
        kind = _KINDS.get(name, "f")
        if values.dtype.kind not in ("iu" if kind in "iu" else kind):
            raise ValueError(f"{name} holds {values.dtype}, expected {_KIND_NAMES[kind]}")
        expected = (count, *_SHAPES.get(name, ()))
        if values.shape != expected:
            raise ValueError(f"{name} has shape {values.shape}, expected {expected}")


def _read(dataset: h5py.Dataset) -> NDArray[Any]:
    if h5py.check_string_dtype(dataset.dtype):
        return np.array(dataset.asstr()[()], dtype=np.str_)
    return dataset[()]
