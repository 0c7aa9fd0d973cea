"""3DDFA's Model_Shape.mat (Zhu et al. 2016), with the fields of Model_Exp.mat in it or in a file of their own."""

from pathlib import Path

from dhm_cli.io.matlab import read_mat
from dhm_cli.morphable.readers.reader import Reader
from dhm_cli.morphable.readers.surface import Surface
from dhm_cli.morphable.readers.vertex_arrays import (
    matlab_keypoints,
    mode_basis,
    no_modes,
    standard_deviations,
    triangle_corners,
    vertex_points,
)

_NEEDED = ("mu_shape", "w")
_OTHERS = ("sigma", "tri", "keypoints", "mu_exp", "w_exp", "sigma_exp")


def _read_3ddfa(path: Path) -> Surface:
    """The shape half (mu_exp and w_exp absent), or both halves merged in one file."""
    fields = read_mat(path, (*_NEEDED, *_OTHERS))
    mean = vertex_points(path, "mu_shape", fields["mu_shape"])
    if "mu_exp" in fields:
        mean = mean + vertex_points(path, "mu_exp", fields["mu_exp"], len(mean))
    merged = "w_exp" in fields
    return Surface(
        format="3DDFA",
        files=[path],
        usual_units="micrometre",
        mean=mean,
        identity=mode_basis(path, "w", fields.pop("w"), len(mean)),
        expression=mode_basis(path, "w_exp", fields.pop("w_exp"), len(mean)) if merged else no_modes(len(mean)),
        identity_std=standard_deviations(path, "sigma", fields.get("sigma")),
        expression_std=standard_deviations(path, "sigma_exp", fields.get("sigma_exp")),
        keypoints=matlab_keypoints(path, "keypoints", fields.get("keypoints")),
        triangles=triangle_corners(path, "tri", fields.get("tri"), len(mean), 1),
    )


DDFA = Reader(
    name="3DDFA",
    description="3DDFA Model_Shape.mat (mu_shape, w) with Model_Exp.mat (mu_exp, w_exp), or both in one",
    recognise=lambda contents: contents.has_fields(*_NEEDED),
    read=_read_3ddfa,
    expression_apart=True,
)
