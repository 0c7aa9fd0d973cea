"""Tables of the vertices that a cut face model keeps: trimIndex of BFM_exp_idx.mat and of 3DDFA's model_info.mat."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhm_cli.geometry.landmarks import NUM_LANDMARKS
from dhm_cli.io.matlab import mat_shapes, read_mat
from dhm_cli.morphable.readers.vertex_arrays import matlab_keypoints, vertex_numbers


@dataclass(frozen=True)
class TrimTable:
    """Which vertices of the BFM 2009 an expression basis has.

    Attributes:
        path: the file.
        kept: vertex numbers, 0-based.
        keypoints: the 68 key points, 0-based in the numbering after the cut, where the file has them.
    """

    path: Path
    kept: NDArray[np.int64]
    keypoints: NDArray[np.int64] | None


def trim_tables(folders: Iterable[Path], vertices: int) -> Iterator[TrimTable]:
    """The trimIndex tables in some folders that fit a mesh."""
    for folder in folders:
        for file in sorted(folder.glob("*.mat")):
            table = _read_trim_table(file)
            if table is not None and len(table.kept) and table.kept.min() >= 0 and table.kept.max() < vertices:
                yield table


def _read_trim_table(path: Path) -> TrimTable | None:
    """The table in a .mat file; None where it has none."""
    if "trimIndex" not in mat_shapes(path):
        return None
    fields = read_mat(path, ("trimIndex", "keypoints"))
    keypoints = matlab_keypoints(path, "keypoints", fields.get("keypoints"))
    return TrimTable(
        path,
        vertex_numbers(path, "trimIndex", fields["trimIndex"]).ravel() - 1,
        keypoints if keypoints is not None and len(keypoints) == NUM_LANDMARKS else None,
    )
