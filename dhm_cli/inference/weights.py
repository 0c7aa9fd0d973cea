"""Files of weights: those that come with the package, by name, and what an exported file says about itself."""

import json
import os
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import FormatError, InputError
from dhm_cli.geometry.landmarks import NUM_LANDMARKS

if TYPE_CHECKING:
    if sys.version_info >= (3, 11):
        from importlib.resources.abc import Traversable
    else:
        from importlib.abc import Traversable

# The networks that come with the package, the default first; files may be asked for by these names.
EMBEDDED = ("fast", "fast-x2")
# The small network that knows heads at any roll (`passes`), which comes with the package too.
SCOUT = "tiny"

# An exported file describes itself in its ONNX metadata: JSON under this key, of this version.
METADATA_KEY = "dhm"
FORMAT_VERSION = 1

GIVE_ANOTHER = "give a network that dhm wrote, or none for the one that comes with the package"
INSTALL_AGAIN = "install dhm-cli again"
EXPORT_AGAIN = "write the file again with `dhm export`, by this version of dhm"


def embedded_name(weights: str | os.PathLike[str] | None) -> str | None:
    """The network of `EMBEDDED` that is asked for, by name or by None; None for a file."""
    name = EMBEDDED[0] if weights is None else os.fspath(weights)
    return name if name in (*EMBEDDED, SCOUT) else None


def packaged(name: str) -> "Traversable":
    """A file of the folder of weights that comes with the package, such as fast.onnx."""
    return files("dhm_cli").joinpath(f"weights/{name}")


def read_onnx_file(weights: str | os.PathLike[str] | None) -> tuple[str, bytes]:
    """Read a network's ONNX file.

    Args:
        weights: the file, or a name of `EMBEDDED`; None for the first of them.

    Returns:
        Its path, for messages, and its content.

    Raises:
        InputError: it cannot be read.
    """
    embedded = embedded_name(weights)
    source = Path(weights or "") if embedded is None else packaged(f"{embedded}.onnx")
    try:
        return str(source), source.read_bytes()
    except OSError as error:
        hint = GIVE_ANOTHER if embedded is None else INSTALL_AGAIN
        raise InputError(f"{source}: cannot be read: {error.strerror or error}", hint=hint) from error


def parse_metadata(text: str | None, name: str) -> tuple[str, int, NDArray[np.float64]]:
    """Read what an exported file says about itself.

    Args:
        text: the JSON under `METADATA_KEY`; None where there is none.
        name: the file, for messages.

    Returns:
        The architecture, the side of the input in pixels, and the mean shape (68, 3), any unit.

    Raises:
        FormatError: there is no metadata, or it is damaged or of another version.
    """
    if text is None:
        raise FormatError(
            f"{name}: an ONNX network, but not one written by dhm (no '{METADATA_KEY}' metadata)",
            hint=f"{GIVE_ANOTHER}; `dhm export` makes one from a checkpoint",
        )
    try:
        metadata = json.loads(text)
    except ValueError as error:
        raise FormatError(f"{name}: the '{METADATA_KEY}' metadata is not JSON: {error}", hint=EXPORT_AGAIN) from error
    if not isinstance(metadata, Mapping):
        raise FormatError(f"{name}: the metadata is not a JSON object", hint=EXPORT_AGAIN)
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise FormatError(f"{name}: format version {version}, this dhm reads {FORMAT_VERSION}", hint=EXPORT_AGAIN)
    try:
        arch, size = str(metadata["arch"]), int(metadata["input_size"])
        mean_shape = np.array(metadata["mean_shape"], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{name}: the metadata lacks or garbles {error}", hint=EXPORT_AGAIN) from error
    if size < 1 or mean_shape.shape != (NUM_LANDMARKS, 3) or not np.isfinite(mean_shape).all():
        raise FormatError(
            f"{name}: expected input_size > 0 and mean_shape (68, 3), found {size}, {mean_shape.shape}",
            hint=EXPORT_AGAIN,
        )
    return arch, size, mean_shape
