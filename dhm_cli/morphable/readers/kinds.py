"""The list of the kinds of face model file that users hold."""

from pathlib import Path

from dhm_cli.morphable.readers.basel import BFM_2009, BFM_2017
from dhm_cli.morphable.readers.contents import Contents, look_into
from dhm_cli.morphable.readers.ddfa import DDFA
from dhm_cli.morphable.readers.deep3d import DEEP3D
from dhm_cli.morphable.readers.face3d import FACE3D
from dhm_cli.morphable.readers.ict_facekit import ICT_FACEKIT
from dhm_cli.morphable.readers.reader import Reader

# The first that recognises a file is taken: face3d's fields include those of the BFM 2009.
READERS = (FACE3D, BFM_2009, DDFA, DEEP3D, BFM_2017, ICT_FACEKIT)

_SUFFIXES_OF_BASES = (".mat", ".bin")  # of expression bases in a file of their own


def identify(path: Path) -> tuple[Reader | None, Contents]:
    """The reader of a file or folder, None where it is no face model; and what is in it.

    Raises:
        InputError: a MATLAB or HDF5 file is damaged.
    """
    contents = look_into(path)
    return next((reader for reader in READERS if reader.recognise(contents)), None), contents


def candidates(folder: Path) -> list[Path]:
    """The files in a folder that may be a face model or an expression basis, by their suffixes, sorted."""
    suffixes = {suffix for reader in READERS for suffix in reader.suffixes} | set(_SUFFIXES_OF_BASES)
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in suffixes and file.is_file())


def known() -> str:
    """What is expected of a face model, for messages."""
    return "expected one of: " + "; ".join(reader.description for reader in READERS)
