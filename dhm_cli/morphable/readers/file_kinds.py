"""What a file is, seen in its content: which kind of face model, or what else."""

import re
import zipfile
from collections.abc import Collection
from pathlib import Path

import h5py

from dhm_cli.errors import InputError
from dhm_cli.io.matlab import mat_shapes
from dhm_cli.morphable.readers.formats import EXPRESSION_FIELDS, expression_bin_modes, mat_format
from dhm_cli.morphable.readers.ict_facekit import NPZ_FIELDS

BFM_HDF5 = "BFM 2017/2019"
ICT_NPZ = "ICT-FaceKit"
EXPRESSION_MAT = "expression .mat"
EXPRESSION_BIN = "Exp_Pca.bin"
EXPRESSION_KINDS = (EXPRESSION_MAT, EXPRESSION_BIN)
SUFFIXES = (".mat", ".h5", ".hdf5", ".npz", ".bin")  # of files that may be a model or half of one

KNOWN = (
    "BFM 2009 .mat (shapeMU, shapePC, shapeEV)",
    "3DDFA Model_Shape.mat (mu_shape, w) with Model_Exp.mat (mu_exp, w_exp), or both in one",
    "face3d .mat (struct model)",
    "Deep3DFaceRecon .mat (meanshape, idBase, exBase)",
    "BFM 2017/2019 .h5 (shape/model, expression/model)",
    f"ICT-FaceKit folder (generic_neutral_mesh.obj) or .npz ({', '.join(NPZ_FIELDS)})",
)

_MAGIC = (
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"version https://git-lfs", "a Git LFS pointer instead of the file"),
    (b"<", "a web page"),
)


def identify(path: Path) -> tuple[str, str]:
    """Say what a file is.

    Returns:
        The kind: the name of a format in `formats.MAT_FORMATS`, one of the kinds named in this module, or "" for
        anything else; and what was seen in the file, in words.

    Raises:
        InputError: a MATLAB or HDF5 file is damaged.
    """
    with path.open("rb") as file:
        start = file.read(256)
    if not start:
        return "", "an empty file"
    if h5py.is_hdf5(path) and not start.startswith(b"MATLAB"):
        return _identify_hdf5(path)
    if start.startswith(b"MATLAB") or path.suffix.lower() == ".mat":
        fields = set(mat_shapes(path))
        return _kind_of_fields(fields), f"a MATLAB file with {some(fields)}"
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = {name.removesuffix(".npy") for name in archive.namelist()}
        except zipfile.BadZipFile:
            return "", "a damaged zip file"
        return ICT_NPZ if set(NPZ_FIELDS) <= names else "", f"a zip file with {some(names)}"
    if path.suffix.lower() == ".bin" and expression_bin_modes(path):
        return EXPRESSION_BIN, f"{expression_bin_modes(path)} expression modes"
    return "", _describe(path, start)


def some(names: Collection[str]) -> str:
    """The first dozen of a set of names, for a message."""
    listed = sorted(names)
    return ", ".join(listed[:12]) + (f" and {len(listed) - 12} more" if len(listed) > 12 else "") or "nothing"


def _kind_of_fields(fields: set[str]) -> str:
    known = mat_format(fields)
    if known is not None:
        return known.name
    return EXPRESSION_MAT if set(EXPRESSION_FIELDS) <= fields else ""


def _identify_hdf5(path: Path) -> tuple[str, str]:
    try:
        with h5py.File(path, "r") as file:
            names, own_kind = set(file), file.attrs.get("format")
            if "shape/model/mean" in file:
                return BFM_HDF5, f"an HDF5 file with {some(names)}"
    except Exception as error:  # h5py raises half a dozen kinds on damaged files
        raise InputError(f"{path}: not a readable HDF5 file ({error})", "copy or download the file again") from error
    if own_kind is not None:
        return "", f"an HDF5 file of the kind {own_kind}"
    return _kind_of_fields(names), f"an HDF5 file with {some(names)}"


def _describe(path: Path, start: bytes) -> str:
    """What a foreign file is, by its first bytes."""
    for magic, name in _MAGIC:
        if start.startswith(magic):
            return name
    if re.match(rb'.{8}\{"', start, re.DOTALL):
        return "network weights (safetensors)"
    return f"a file {path.suffix or 'without suffix'} that is neither MATLAB, HDF5 nor .npz"
