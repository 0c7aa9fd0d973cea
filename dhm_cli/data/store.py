"""The HDF5 store of labelled faces: one file per dataset, written once, read at random.

Images stay the encoded bytes of their files, end to end in one flat array with offsets; labels are ordinary arrays. One
compressed chunk of many images was measured to be 20 times slower to read at random.
"""

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import FormatError, InputError
from dhm_cli.files import written_atomically

FILE_FORMAT = "dhm-faces"
FILE_VERSION = 1
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class FaceLabels:
    """Labels of N faces, row by row.

    Attributes:
        names: (N,) str, unique within a store.
        identity: (N,) str, faces that must stay in one split share it.
        split: (N,) uint8, index into SPLITS.
        landmarks: (N, 68, 3) float32, the fitted model's points: 0-based image pixels, z toward the viewer, zero mean.
        points: (N, 68, 2) float32, the human labels, 0-based image pixels, NaN where there is none.
        visibility: (N, 68) uint8: no label, visible, occluded (`io.annotations`).
        parameters: (N, 234) float32, p in the convention of 300W-LP for this image.
        yaw: (N,) float32, degrees, of the fitted pose.
        residual: (N,) float32, percent of the face size: fitted model against the points it was fitted to.
    """

    names: NDArray[np.str_]
    identity: NDArray[np.str_]
    split: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    points: NDArray[np.float32]
    visibility: NDArray[np.uint8]
    parameters: NDArray[np.float32]
    yaw: NDArray[np.float32]
    residual: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: NDArray[Any]) -> "FaceLabels":
        """The given rows, by index or mask."""
        return FaceLabels(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def write_store(path: Path, images: list[Path], labels: FaceLabels, attributes: dict[str, Any]) -> None:
    """Write a store atomically.

    Args:
        path: the file; folders are made.
        images: N image files whose bytes go into the store.
        labels: N rows.
        attributes: what to record beside the schema version: sources, hashes, command line.
    """
    assert all(len(getattr(labels, field.name)) == len(images) for field in fields(labels))
    sizes = np.array([image.stat().st_size for image in images], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    with written_atomically(path) as partial, h5py.File(partial, "w") as file:
        file.attrs.update(format=FILE_FORMAT, version=FILE_VERSION, splits=SPLITS, **attributes)
        stored = file.create_dataset("images", shape=(int(offsets[-1]),), dtype=np.uint8)
        for image, start, stop in zip(images, offsets[:-1], offsets[1:], strict=True):
            stored[start:stop] = np.frombuffer(image.read_bytes(), dtype=np.uint8)
        file["offsets"] = offsets
        for field in fields(labels):
            values = getattr(labels, field.name)
            file[field.name] = values.astype(h5py.string_dtype()) if values.dtype.kind == "U" else values


class FaceStore:
    """A store opened for reading.

    Args:
        path: file that `write_store` wrote.

    Attributes:
        labels: all rows.
        attributes: what was recorded.

    Raises:
        InputError: no such file.
        FormatError: not a store of this version.
    """

    def __init__(self, path: Path) -> None:
        hint = "make one with: dhm prepare FOLDER --bfm BFM.mat"
        if not path.exists():
            raise InputError(f"{path}: no such store", hint)
        self.path = path
        try:
            with h5py.File(path, "r") as file:
                if file.attrs.get("format") != FILE_FORMAT or file.attrs.get("version") != FILE_VERSION:
                    raise FormatError(f"{path}: not a face store of version {FILE_VERSION}", hint)
                self.attributes = dict(file.attrs)
                self._offsets = file["offsets"][()]
                self.labels = FaceLabels(**{f.name: _read(file[f.name]) for f in fields(FaceLabels)})
        except (OSError, KeyError) as error:
            raise FormatError(f"{path}: not a readable face store ({error})", hint) from error

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """Short hash of the labels and the images' sizes, equal for stores with equal contents."""
        digest = hashlib.sha256(self._offsets.tobytes())
        for field in fields(self.labels):
            values = getattr(self.labels, field.name)
            digest.update("\n".join(values).encode() if values.dtype.kind == "U" else values.tobytes())
        return digest.hexdigest()[:16]

    def images(self, rows: NDArray[np.integer]) -> list[NDArray[np.uint8]]:
        """Decode images.

        Args:
            rows: indices, in increasing order for speed.

        Returns:
            Images (H, W, 3) uint8 RGB.
        """
        with h5py.File(self.path, "r") as file:
            stored = file["images"]
            return [self._decode(stored[self._offsets[r] : self._offsets[r + 1]], int(r)) for r in rows]

    def _decode(self, encoded: NDArray[np.uint8], row: int) -> NDArray[np.uint8]:
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(encoded, flags) if len(encoded) else None
        if image is None:
            raise FormatError(f"{self.path}: image {self.labels.names[row]} is damaged", "prepare the store again")
        return image


def _read(dataset: h5py.Dataset) -> NDArray[Any]:
    if h5py.check_string_dtype(dataset.dtype):
        return np.array(dataset.asstr()[()], dtype=np.str_)
    return dataset[()]
