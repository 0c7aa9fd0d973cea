"""Photos of phones in HEIC files, read where pillow-heif is installed."""

import importlib.util
import io
import os

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError


def reads_heic() -> bool:
    """Whether HEIC photos can be read here."""
    return importlib.util.find_spec("pillow_heif") is not None


def decode_heic(data: bytes, path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Decode the main image of a HEIC file, (H, W, 3) uint8 RGB, turned upright as the file says.

    Raises:
        InputError: the file is damaged, or pillow-heif is not installed.
    """
    try:
        import pillow_heif
    except ImportError as error:
        hint = "pip install 'dhm-cli[heic]', or save the photo as a JPEG"
        raise InputError(f"{path}: HEIC photos need pillow-heif, which is not installed", hint) from error
    try:
        image = np.asarray(pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True))
    except (ValueError, EOFError, OSError, RuntimeError, SyntaxError, MemoryError) as error:
        reason = " ".join(str(error).split()) or "not enough memory"
        raise InputError(f"{path}: damaged HEIC: {reason}", hint="copy or download the file again") from error
    image = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
    channels = image.shape[2]
    rgb = image[..., :3] if channels > 2 else np.repeat(image[..., :1], 3, axis=2)  # else grey with alpha
    return np.ascontiguousarray(rgb, np.uint8)
