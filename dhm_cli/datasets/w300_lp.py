"""300W-LP and AFLW2000-3D (Zhu et al. 2016): images with MATLAB files beside them, of 3DMM parameters and points."""

import re
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhm_cli.datasets.folders import files_in, is_paired, labelled_images, pairs, subfolders
from dhm_cli.datasets.layout import Layout
from dhm_cli.datasets.samples import Sample, Truth
from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import MIRROR, NUM_LANDMARKS
from dhm_cli.io.pts import FARTHEST

# Zhu et al. 2016; the mirrored copies are as many. With them they are the 122,450 images of 300W-LP.
_FACES = {"AFW": 5_207, "HELEN": 37_676, "IBUG": 1_786, "LFPW": 16_556}
# Lengths of the fields that make up p; Pose_Para is pitch, yaw, roll, t_x, t_y, t_z, f.
_LENGTHS = {"Pose_Para": 7, "Shape_Para": 199, "Exp_Para": 29}
_COPY_AGAIN = "copy or download the file again"


def _subset(folder_name: str) -> str:
    """`AFW`, `AFW_Flip` and so on for the name of a folder in any case; empty for any other name."""
    part, _, flip = folder_name.upper().partition("_")
    return "" if part not in _FACES or flip not in ("", "FLIP") else part + ("_Flip" if flip else "")


def _is_300w_lp(folder: Path) -> bool:
    inside = [path for path in subfolders(folder) if _subset(path.name)]
    if _subset(folder.resolve().name):
        inside.append(folder)
    # The original 300-W has folders of these names too, but no .mat files; AFLW2000-3D never lies in them.
    return any(is_paired(path, ".mat") for path in inside)


def _list_300w_lp(folder: Path, unread: list[str] | None) -> list[Sample]:
    top = folder.resolve().name
    samples = []
    for name, image, annotation in labelled_images(folder, ".mat", unread):
        subset = _subset(name.parent.name or top)
        if subset:  # the download has a folder of landmarks and one of programs besides
            face = re.sub(r"_\d+$", "", name.stem)
            identity = f"{subset.removesuffix('_Flip')}/{face}"
            samples.append(Sample(str(name), image, annotation, identity, subset))
    return samples


def _is_flip(name: str) -> bool:
    return _subset(PurePosixPath(name).parent.name).endswith("_Flip")


def _is_aflw2000(folder: Path) -> bool:
    annotations = [annotation for _, annotation in pairs(files_in(folder), ".mat") if annotation]
    return any(_has_3d_points(folder / name) for name in annotations[:5])  # several: one may be damaged


def _list_aflw2000(folder: Path, unread: list[str] | None) -> list[Sample]:
    images = labelled_images(folder, ".mat", unread)
    # The download has a folder of programs besides.
    return [
        Sample(str(i.name), i.image, i.annotation, str(i.name), "AFLW2000-3D", "test")
        for i in images
        if "Code" not in i.name.parts
    ]


def _read_300w_lp(path: Path, sample: Sample) -> Truth:
    """Read a .mat file of 300W-LP (Zhu et al. 2016).

    Its points `pt2d` are the human 2D labels carried along with the rotation, not the projection of the parameters: on
    the contour the two differ by up to a tenth of the face. In the `_Flip` folders they are mirrored with the index
    order left as it was, while the parameters describe the mirrored face; here both do.

    Returns:
        Points where the file has `pt2d`, 0-based pixels, all visible, and parameters.

    Raises:
        InputError: the file is missing, damaged or of another kind.
    """
    fields = _read_fields(path, (*_LENGTHS, "pt2d"))
    mirrored = sample.subset.endswith("_Flip")
    truth = Truth.nothing()
    if "pt2d" in fields:
        points = _points(path, fields, "pt2d", 2)
        truth = Truth.all_visible(points[MIRROR] if mirrored else points)
    return Truth(truth.points, truth.visibility, None, _parameters(path, fields))


def _read_aflw2000(path: Path, sample: Sample) -> Truth:
    """Read a .mat file of AFLW2000-3D (Zhu et al. 2016).

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


def _has_3d_points(path: Path) -> bool:
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


W300_LP = Layout(
    name="300w-lp",
    title="300W-LP",
    description="folders AFW, HELEN, IBUG, LFPW and AFW_Flip to LFPW_Flip, in them .jpg and .mat files of equal names",
    remedy="point to the folder that holds AFW, HELEN, IBUG and LFPW, or to one of these",
    recognise=_is_300w_lp,
    list_samples=_list_300w_lp,
    read_file=_read_300w_lp,
    store="300w-lp",
    has_parameters=True,
    published=_FACES | {f"{part}_Flip": count for part, count in _FACES.items()},
    flips=_is_flip,
)

AFLW2000_3D = Layout(
    name="aflw2000-3d",
    title="AFLW2000-3D",
    description="imageNNNNN.jpg and .mat files of equal names that hold pt3d_68",
    remedy="point to the folder that holds image00002.jpg and image00002.mat",
    recognise=_is_aflw2000,
    list_samples=_list_aflw2000,
    read_file=_read_aflw2000,
    store="aflw2000-3d",
    has_parameters=True,
    published={"AFLW2000-3D": 2_000},  # Zhu et al. 2016
)
