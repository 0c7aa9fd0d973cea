"""Readers of the face model files that users hold.

Known so far: the 3DDFA kind of .mat file (mu_shape, w, sigma, mu_exp, w_exp, sigma_exp, keypoints), dense or already
cut down to the 68 key vertices.
"""

from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import torch
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.landmarks import NUM_LANDMARKS
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.parameters import NUM_EXPRESSION, NUM_IDENTITY

_FIELDS = ("mu_shape", "w", "sigma", "mu_exp", "w_exp", "sigma_exp", "keypoints")


def read_mat(path: Path) -> dict[str, Any]:
    """Read a MATLAB file up to version 7.2.

    Raises:
        InputError: the file is missing, is no MATLAB file, or is of version 7.3.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file", "check the path")
    try:
        return dict(scipy.io.loadmat(path))
    except NotImplementedError as error:
        raise InputError(
            f"{path}: a MATLAB v7.3 file, which is not supported yet", "save it in MATLAB with the option -v7"
        ) from error
    except Exception as error:  # scipy raises a dozen kinds on damaged files
        raise InputError(f"{path}: not a readable MATLAB file ({error})", "copy or download the file again") from error


def read_face_model(path: Path) -> FaceModel:
    """Read a morphable model and keep its 68 key vertices.

    Args:
        path: a .mat file of the 3DDFA kind.

    Returns:
        The model, in the file's units (micrometres for the Basel Face Model).

    Raises:
        InputError: a field is missing or has an unexpected shape; the message says which.
    """
    fields = read_mat(path)
    missing = [name for name in _FIELDS if name not in fields]
    if missing:
        seen = ", ".join(sorted(k for k in fields if not k.startswith("__"))) or "nothing"
        raise InputError(
            f"{path}: not a known face model: missing {', '.join(missing)}; found {seen}",
            f"expected a 3DDFA-style .mat file with {', '.join(_FIELDS)}",
        )
    array = {name: np.asarray(fields[name], dtype=np.float64) for name in _FIELDS}
    keypoints = array["keypoints"].ravel().astype(np.int64) - 1
    sizes = {name: array[name].size for name in ("mu_shape", "mu_exp")}
    if len(set(sizes.values())) != 1 or sizes["mu_shape"] % 3 or not sizes["mu_shape"]:
        found = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise InputError(
            f"{path}: expected mu_shape and mu_exp of 3 N numbers each, found {found}", "use a complete file"
        )
    mean = array["mu_shape"].reshape(-1, 3) + array["mu_exp"].reshape(-1, 3)
    if len(keypoints) != NUM_LANDMARKS or keypoints.min() < 0 or keypoints.max() >= len(mean):
        raise InputError(f"{path}: keypoints must be 68 vertex numbers from 1 to {len(mean)}", "use a complete file")
    identity = _basis(path, "w", array["w"], len(mean), NUM_IDENTITY)
    expression = _basis(path, "w_exp", array["w_exp"], len(mean), NUM_EXPRESSION)
    return FaceModel(
        mean=_tensor(mean[keypoints]),
        identity=_tensor(identity[keypoints]),
        expression=_tensor(expression[keypoints]),
        identity_std=_std(path, "sigma", array["sigma"], identity.shape[-1]),
        expression_std=_std(path, "sigma_exp", array["sigma_exp"], expression.shape[-1]),
        name=path.name,
    )


def write_face_model_mat(model: FaceModel, path: Path) -> None:
    """Write a model as a 3DDFA-style .mat file, which `read_face_model` reads back (used for the toy model)."""
    mean = model.mean.reshape(-1, 1).numpy()
    fields = {
        "mu_shape": mean,
        "w": _columns(model.identity),
        "sigma": model.identity_std[:, None].numpy(),
        "mu_exp": np.zeros_like(mean),
        "w_exp": _columns(model.expression),
        "sigma_exp": model.expression_std[:, None].numpy(),
        "keypoints": np.arange(1, NUM_LANDMARKS + 1)[None],
    }
    scipy.io.savemat(path, fields, do_compression=True)


def _columns(basis: torch.Tensor) -> NDArray[np.float32]:
    return basis.reshape(-1, basis.shape[-1]).numpy()


def _basis(path: Path, name: str, basis: NDArray[np.float64], vertices: int, most: int) -> NDArray[np.float64]:
    if basis.ndim != 2 or basis.shape[0] != 3 * vertices or not 0 < basis.shape[1] <= most:
        raise InputError(
            f"{path}: {name} must have shape ({3 * vertices}, 1 to {most}), found {basis.shape}", "use a complete file"
        )
    return basis.reshape(vertices, 3, -1)


def _std(path: Path, name: str, values: NDArray[np.float64], modes: int) -> torch.Tensor:
    values = values.ravel()
    if len(values) != modes or not np.all(values > 0):
        raise InputError(f"{path}: {name} must hold {modes} positive numbers", "use a complete file")
    return _tensor(values)


def _tensor(array: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
