"""Annotations of 300W-LP and AFLW2000-3D: MATLAB files with 3DMM parameters and points."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhm_cli.datasets.samples import Truth
from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import MIRROR, NUM_LANDMARKS
from dhm_cli.io.annotations import FARTHEST

# Lengths of the fields that make up p; Pose_Para is pitch, yaw, roll, t_x, t_y, t_z, f.
_LENGTHS = {"Pose_Para": 7, "Shape_Para": 199, "Exp_Para": 29}
_COPY_AGAIN = "copy or download the file again"


def read_300w_lp(path: Path, mirrored: bool) -> Truth:
    """Read a .mat file of 300W-LP (Zhu et al. 2016).

    Its points `pt2d` are the human 2D labels carried along with the rotation, not the projection of the parameters: on
    the contour the two differ by up to a tenth of the face. In the `_Flip` folders they are mirrored with the index
    order left as it was, while the parameters describe the mirrored face; here both do.

    Args:
        path: the file.
        mirrored: the file is from a `_Flip` folder.

    Returns:
        Points where the file has `pt2d`, 0-based pixels, all visible, and parameters.

    Raises:
        InputError: the file is missing, damaged or of another kind.
    """
    fields = _read_fields(path, (*_LENGTHS, "pt2d"))
    truth = Truth.nothing()
    if "pt2d" in fields:
        points = _points(path, fields, "pt2d", 2)
        truth = Truth.all_visible(points[MIRROR] if mirrored else points)
    return Truth(truth.points, truth.visibility, None, _parameters(path, fields))


def read_aflw2000(path: Path) -> Truth:
    """Read a .mat file of AFLW2000-3D (Zhu et al. 2016).

    Args:
        path: the file.

    Returns:
        Landmarks `pt3d_68` with x, y in 0-based pixels and z as in the file, their x, y as points, all visible: the
        dataset labels hidden landmarks too. And parameters.

    Raises:
        InputError: the file is missing, damaged or of another kind.
    """
    fields = _read_fields(path, (*_LENGTHS, "pt3d_68"))
    landmarks = _points(path, fields, "pt3d_68", 3)
    truth = Truth.all_visible(landmarks[:, :2])
    return Truth(truth.points, truth.visibility, landmarks, _parameters(path, fields))


def has_3d_points(path: Path) -> bool:
    """Whether a .mat file holds `pt3d_68`, by which AFLW2000-3D is told from 300W-LP; False for an unreadable one."""
    try:
        return "pt3d_68" in _read_fields(path, ("pt3d_68",))
    except InputError:
        return False


def _read_fields(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Some fields of a .mat file of any version, those it has: 122,450 such files are read, so no more than needed."""
    from dhm_cli.io.matlab import read_mat  # scipy and h5py take half a second to load

    return read_mat(path, names)


def _numbers(path: Path, fields: dict[str, Any], name: str) -> NDArray[np.float64]:
    """A field as finite numbers; the files hold anything from uint8 to float64."""
    if name not in fields:
        raise InputError(f"{path}: no field {name}", "expected a .mat file of 300W-LP or AFLW2000-3D")
    try:
        values = np.asarray(fields[name]).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {name} is not numeric", _COPY_AGAIN) from error
    if not (np.abs(values) <= np.finfo(np.float32).max).all():
        raise InputError(f"{path}: NaN or infinite numbers in its {name}", "remove or repair the file")
    return values


def _points(path: Path, fields: dict[str, Any], name: str, dimensions: int) -> NDArray[np.float32]:
    """68 points, (68, dimensions), x and y made 0-based."""
    values = _numbers(path, fields, name)
    if values.shape != (dimensions, NUM_LANDMARKS):
        found = " x ".join(map(str, values.shape))
        raise InputError(f"{path}: {name} is {found}, not {dimensions} x {NUM_LANDMARKS}", "expected the 68 points")
    if not (np.abs(values) < FARTHEST).all():
        raise InputError(f"{path}: {name} holds values that are no pixel positions", "remove or repair the file")
    points = values.T.copy()
    points[:, :2] -= 1
    return points.astype(np.float32)


def _parameters(path: Path, fields: dict[str, Any]) -> NDArray[np.float32]:
    """p = [f, pitch, yaw, roll, t_x, t_y, 199 identity, 29 expression]; t_z has no part in a weak perspective."""
    arrays = {name: _numbers(path, fields, name).ravel() for name in _LENGTHS}
    wrong = [f"{name} of {len(a)} numbers" for name, a in arrays.items() if len(a) != _LENGTHS[name]]
    if wrong:
        raise InputError(f"{path}: {', '.join(wrong)}", f"expected {_LENGTHS}: pose, 199 + 29 modes")
    pose = arrays["Pose_Para"]
    return np.concatenate([pose[6:], pose[:5], arrays["Shape_Para"], arrays["Exp_Para"]]).astype(np.float32)
