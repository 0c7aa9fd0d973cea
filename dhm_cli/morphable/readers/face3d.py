"""face3d's BFM.mat: shape and expression in a struct `model`, or in plain fields of the same names."""

from pathlib import Path

from dhm_cli.errors import InputError
from dhm_cli.io.matlab import read_mat
from dhm_cli.morphable.readers.contents import Contents
from dhm_cli.morphable.readers.reader import Reader
from dhm_cli.morphable.readers.surface import Surface
from dhm_cli.morphable.readers.vertex_arrays import (
    COMPLETE,
    listed,
    matlab_keypoints,
    mode_basis,
    standard_deviations,
    triangle_corners,
    vertex_points,
)

_NEEDED = ("shapeMU", "shapePC", "expPC")
_OTHERS = ("shapeEV", "expMU", "expEV", "tri", "kpt_ind")


def _is_face3d(contents: Contents) -> bool:
    return contents.has_fields("model") or contents.has_fields(*_NEEDED)


def _read_face3d(path: Path) -> Surface:
    fields = read_mat(path, ("model",)) or read_mat(path, (*_NEEDED, *_OTHERS))
    model = fields.get("model", fields)
    if not isinstance(model, dict):
        raise InputError(f"{path}: expected a struct in the field model, found {type(model).__name__}", COMPLETE)
    missing = [name for name in _NEEDED if name not in model]
    if missing:
        raise InputError(
            f"{path}: not a face3d model: its struct model has no {', '.join(missing)}; found {listed(model)}",
            COMPLETE,
        )
    mean = vertex_points(path, "shapeMU", model["shapeMU"])
    if "expMU" in model:
        mean = mean + vertex_points(path, "expMU", model["expMU"], len(mean))
    return Surface(
        format="face3d",
        files=[path],
        usual_units="micrometre",
        mean=mean,
        identity=mode_basis(path, "shapePC", model["shapePC"], len(mean)),
        expression=mode_basis(path, "expPC", model["expPC"], len(mean)),
        identity_std=standard_deviations(path, "shapeEV", model.get("shapeEV")),
        expression_std=standard_deviations(path, "expEV", model.get("expEV")),
        keypoints=matlab_keypoints(path, "kpt_ind", model.get("kpt_ind")),
        triangles=triangle_corners(path, "tri", model.get("tri"), len(mean), 1),
    )


FACE3D = Reader(
    name="face3d",
    description="face3d .mat (struct model)",
    recognise=_is_face3d,
    read=_read_face3d,
)
