"""Deep3DFaceReconstruction's BFM_model_front.mat (Deng et al. 2019)."""

from pathlib import Path

import numpy as np

from dhm_cli.io.matlab import read_mat
from dhm_cli.morphable.readers.reader import Reader
from dhm_cli.morphable.readers.surface import Surface
from dhm_cli.morphable.readers.vertex_arrays import matlab_keypoints, mode_basis, triangle_corners, vertex_points

_NEEDED = ("meanshape", "idBase", "exBase")


def _read_deep3d(path: Path) -> Surface:
    """Bases multiplied by their standard deviations, decimetres."""
    fields = read_mat(path, (*_NEEDED, "tri", "keypoints"))
    mean = vertex_points(path, "meanshape", fields["meanshape"])
    identity = mode_basis(path, "idBase", fields["idBase"], len(mean))
    expression = mode_basis(path, "exBase", fields["exBase"], len(mean))
    return Surface(
        format="Deep3DFaceRecon",
        files=[path],
        usual_units="decimetre",
        mean=mean,
        identity=identity,
        expression=expression,
        identity_std=np.ones(identity.shape[-1]),
        expression_std=np.ones(expression.shape[-1]),
        keypoints=matlab_keypoints(path, "keypoints", fields.get("keypoints")),
        triangles=triangle_corners(path, "tri", fields.get("tri"), len(mean), 1),
    )


DEEP3D = Reader(
    name="Deep3DFaceRecon",
    description="Deep3DFaceRecon .mat (meanshape, idBase, exBase)",
    recognise=lambda contents: contents.has_fields(*_NEEDED),
    read=_read_deep3d,
)
