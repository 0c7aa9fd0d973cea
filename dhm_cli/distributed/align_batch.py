"""Batches of photos to batches of faces, for any engine that maps columns to columns."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhm_cli.alignment.filters import Filters
from dhm_cli.alignment.photos import align_photo
from dhm_cli.datasets.folders import readable
from dhm_cli.geometry.pose import Angles
from dhm_cli.inference.aligner import Aligner, Face
from dhm_cli.inference.columns import DEFAULT_COLUMNS, Layout, Record, with_angles
from dhm_cli.inference.face_box import MIN_SCORE
from dhm_cli.inference.results import PhotoResult
from dhm_cli.io.images import MOST_PIXELS
from dhm_cli.io.packed import PackedPhoto, Place, image_bytes, photo_of
from dhm_cli.runtime.threads import single_threaded_opencv
from dhm_cli.writers.parquet_table import arrow_schema

# The column behind those of `dhm align --out faces.parquet`: why a photo is unreadable.
REASON = "reason"


class AlignBatch:
    """Finds the faces of a batch of photos: columns in, columns out, a row a face.

    The network is loaded once, by the worker that calls it; to others it goes as its settings. It runs on one thread,
    since engines start a worker a core. A photo that cannot be read costs a row of status unreadable.

    Args:
        model, device, min_score, refine, face_model: see `Aligner`.
        columns: groups of columns, names of `columns.COLUMN_GROUPS`.
        angles: as for `align_files`.
        most_pixels: photos that declare more are not read.
        min_confidence, min_size, largest, max_faces: see `Filters`.
        arrow: give tables of pyarrow, whose columns have a type (`schema`) even where a batch knows no value.

    Raises:
        DhmError: see `Aligner` and `Filters`.

    Example:
        >>> from dhm_cli.distributed import AlignBatch
        >>> faces = AlignBatch(device="cpu")({"path": ["sample_data/photos/astronaut.png", "absent.jpg"]})
        >>> faces["status"].tolist(), len(faces["landmarks"][0])
        (['ok', 'unreadable'], 68)
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        device: str = "auto",
        *,
        columns: Sequence[str] = DEFAULT_COLUMNS,
        angles: Angles = "yaw-pitch-roll",
        min_score: float = MIN_SCORE,
        refine: int | None = None,
        face_model: str | os.PathLike[str] | None = None,
        most_pixels: int = MOST_PIXELS,
        min_confidence: float = 0.0,
        min_size: float = 0.0,
        largest: bool = False,
        max_faces: int | None = None,
        arrow: bool = False,
    ) -> None:
        self._layout = Layout(with_angles(columns, angles))
        self._filters = Filters(min_confidence, min_size, largest, max_faces)
        self._most_pixels, self._arrow = most_pixels, arrow
        self._aligner = Aligner(device, min_score=min_score, refine=refine, model=model, face_model=face_model)

    def __call__(self, batch: Mapping[str, Iterable[Any]]) -> Any:
        """The faces of a batch.

        Args:
            batch: `path`, the photos' names, and `image`, the contents of their files; without it the photos are read
                by their names, from this machine or by fsspec.

        Returns:
            Columns of one length by their names, which are those of `dhm align --out faces.parquet` with equal values,
            then `reason`: a dict of object arrays, of numbers, texts and nested lists; None is not known. Or a table.
        """
        paths = [str(path) for path in batch["path"]]
        photos: list[Place] = [photo_of(path) for path in paths]
        if "image" in batch:
            photos = [PackedPhoto(p, image_bytes(cell)) for p, cell in zip(paths, batch["image"], strict=True)]
        rows = [row for photo in photos for row in self.rows(*self.align(photo))]
        if self._arrow:
            import pyarrow

            return pyarrow.Table.from_pylist(rows, self.schema)
        names = [*(field.name for field in self._layout.fields), REASON]
        return {name: _column([row.get(name) for row in rows]) for name in names}

    @property
    def schema(self) -> Any:
        """The columns as a `pyarrow.Schema`."""
        import pyarrow

        return arrow_schema(self._layout).append(pyarrow.field(REASON, pyarrow.string()))

    def align(self, photo: Place) -> tuple[PhotoResult, list[Face]]:
        """What became of one photo, and its faces."""
        with single_threaded_opencv():
            return align_photo(self._aligner, photo, self._most_pixels, self._filters)

    def rows(self, result: PhotoResult, faces: Sequence[Face]) -> list[Record]:
        """The rows of one photo."""
        told = {"path": readable(result.path), REASON: readable(result.reason) or None}
        return [row | told for row in self._layout.records(result, faces)]


def _column(values: Sequence[Any]) -> NDArray[np.object_]:
    """An array of objects, lists too, of which numpy would make further axes."""
    column = np.empty(len(values), object)
    for row, value in enumerate(values):
        column[row] = value
    return column
