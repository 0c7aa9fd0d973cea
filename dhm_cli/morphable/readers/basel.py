"""The Basel Face Models of 2009, 2017 and 2019, as the University of Basel distributes them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import NUM_LANDMARKS
from dhm_cli.io.hdf5 import open_hdf5
from dhm_cli.io.matlab import read_mat
from dhm_cli.morphable.readers.reader import Reader
from dhm_cli.morphable.readers.surface import Surface
from dhm_cli.morphable.readers.vertex_arrays import (
    COMPLETE,
    mode_basis,
    no_modes,
    standard_deviations,
    triangle_corners,
    vertex_points,
)

_NEEDED_2009 = ("shapeMU", "shapePC", "shapeEV")


def _read_2009(path: Path) -> Surface:
    fields = read_mat(path, (*_NEEDED_2009, "tl"))
    mean = vertex_points(path, "shapeMU", fields.pop("shapeMU"))
    return Surface(
        format="BFM 2009",
        files=[path],
        usual_units="micrometre",
        mean=mean,
        identity=mode_basis(path, "shapePC", fields.pop("shapePC"), len(mean)),
        expression=no_modes(len(mean)),
        identity_std=standard_deviations(path, "shapeEV", fields["shapeEV"]),
        expression_std=None,
        triangles=triangle_corners(path, "tl", fields.get("tl"), len(mean), 1),
    )


def _read_2017(path: Path) -> Surface:
    """Read a statismo HDF5 file: the variances become standard deviations.

    Raises:
        InputError: a part is missing or has an unexpected shape, or the file is damaged.
    """
    parts: dict[str, Any] = {}
    try:
        with open_hdf5(path) as file:
            for which in ("shape", "expression"):
                for name in ("mean", "pcaBasis", "pcaVariance"):
                    parts[f"{which}/model/{name}"] = file[f"{which}/model/{name}"][()]
            cells = file.get("shape/representer/cells")
            parts["cells"] = None if cells is None else cells[()]
            landmarks = file.get("metadata/landmarks/json")
            named = None if landmarks is None else _json_text(landmarks[()])
    except Exception as error:  # h5py raises half a dozen kinds on damaged files
        raise InputError(f"{path}: not a readable Basel Face Model of 2017 or 2019 ({error})", COMPLETE) from error
    template = vertex_points(path, "shape/model/mean", parts["shape/model/mean"])
    mean = template + vertex_points(path, "expression/model/mean", parts["expression/model/mean"], len(template))
    return Surface(
        format="BFM 2017/2019",
        files=[path],
        usual_units="millimetre",
        mean=mean,
        identity=mode_basis(path, "shape/model/pcaBasis", parts.pop("shape/model/pcaBasis"), len(mean)),
        expression=mode_basis(path, "expression/model/pcaBasis", parts.pop("expression/model/pcaBasis"), len(mean)),
        identity_std=np.sqrt(parts["shape/model/pcaVariance"].astype(np.float64)),
        expression_std=np.sqrt(parts["expression/model/pcaVariance"].astype(np.float64)),
        keypoints=_numbered_landmarks(named, template),
        triangles=triangle_corners(path, "shape/representer/cells", parts["cells"], len(mean), 0),
    )


def _json_text(value: Any) -> Any:
    """JSON in an HDF5 dataset, which is a string or an array of bytes; None where it cannot be read."""
    try:
        return json.loads(value.tobytes() if isinstance(value, np.ndarray) else value)
    except ValueError:
        return None


def _numbered_landmarks(named: Any, mean: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """The vertices nearest to 68 landmarks with the ids 0 to 67 or 1 to 68; None for other landmarks.

    The landmarks that Basel ships have names such as "center.nose.tip" and are not the 68.
    """
    try:
        places = {int(entry["id"]): np.asarray(entry["coordinates"], dtype=np.float64) for entry in named}
    except (TypeError, KeyError, ValueError):
        return None
    first = min(places, default=0)
    if first not in (0, 1) or sorted(places) != list(range(first, NUM_LANDMARKS + first)):
        return None
    return np.array([((mean - places[index + first]) ** 2).sum(axis=1).argmin() for index in range(NUM_LANDMARKS)])


BFM_2009 = Reader(
    name="BFM 2009",
    description="BFM 2009 .mat (shapeMU, shapePC, shapeEV)",
    recognise=lambda contents: contents.has_fields(*_NEEDED_2009),
    read=_read_2009,
    expression_apart=True,
    keypoints_hint="put BFM_exp_idx.mat or model_info.mat (trimIndex) beside it, or name a file with the 68 vertices "
    "of this mesh with --keypoints, such as Landmarks68_BFM.anl of A. Bas's BFMLandmarks",
)

BFM_2017 = Reader(
    name="BFM 2017/2019",
    description="BFM 2017/2019 .h5 (shape/model, expression/model)",
    recognise=lambda contents: contents.kind == "HDF5" and "shape/model/mean" in contents.names,
    read=_read_2017,
    suffixes=(".h5", ".hdf5"),
    keypoints_hint="the landmarks inside the file are not the 68: put an .anl file of this very mesh beside it or "
    "name one with --keypoints, such as Landmarks68_model2017-1_face12_nomouth.anl for the face12 model",
)
