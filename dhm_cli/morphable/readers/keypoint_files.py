"""The 68 key vertices of a mesh where the face model does not name them: text files, and a public mesh's numbers."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dhm_cli.errors import InputError
from dhm_cli.geometry.landmarks import NUM_LANDMARKS
from dhm_cli.morphable.readers.basel import BFM_2009
from dhm_cli.morphable.readers.contents import some
from dhm_cli.morphable.readers.surface import Surface, face_problem
from dhm_cli.morphable.readers.trim_tables import trim_tables
from dhm_cli.morphable.readers.vertex_arrays import COMPLETE

# The 68 landmarks of the 53,215-vertex mesh that 3DDFA, 300W-LP and face3d share, 0-based: `keypoints` of 3DDFA's
# Model_Shape.mat and `kpt_ind` of face3d, as several public programs print them.
MESH_53215 = 53_215
KEYPOINTS_53215 = (
    21873, 22149, 21653, 21036, 43236, 44918, 46166, 47135, 47914, 48695, 49667, 50924, 52613,
    33678, 33005, 32469, 32709,
    38695, 39392, 39782, 39987, 40154, 40893, 41059, 41267, 41661, 42367,
    8161, 8177, 8187, 8192, 6515, 7243, 8204, 9163, 9883,
    2215, 3886, 4920, 5828, 4801, 3640, 10455, 11353, 12383, 14066, 12653, 11492,
    5522, 6025, 7495, 8215, 8935, 10395, 10795, 9555, 8836, 8236, 7636, 6915,
    5909, 7384, 8223, 9064, 10537, 8829, 8229, 7629,
)  # fmt: skip


def read_keypoints(path: Path) -> NDArray[np.int64]:
    """Read an .anl or text file of 68 vertex numbers, 0-based, separated by white space or commas.

    A file with a MATLAB comment (%), such as the Landmarks68_BFM.anl of BFMLandmarks, is 1-based.

    Raises:
        InputError: there is no such file, or it does not hold 68 whole numbers.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file", "check the path")
    numbers = read_numbers(path)
    if len(numbers) != NUM_LANDMARKS or np.any(numbers != np.round(numbers)) or numbers.min() < 0:
        raise InputError(
            f"{path}: expected {NUM_LANDMARKS} vertex numbers, found {len(numbers)} numbers",
            "use the 68 landmarks of 300-W in their order, 0-based, one a line",
        )
    return numbers.astype(np.int64) - (1 if b"%" in path.read_bytes() else 0)


def known_keypoints(surface: Surface, hint: str) -> NDArray[np.int64]:
    """Key points that the model does not name: public ones of its mesh, or those of an .anl file beside it.

    Args:
        surface: a model without key points; gets a note that says where they are from.
        hint: for the error.

    Returns:
        (68,) vertex numbers, 0-based.

    Raises:
        InputError: there are none, or several files of them.
    """
    main, public = surface.files[0], np.array(KEYPOINTS_53215)
    if len(surface.mean) == MESH_53215:
        surface.notes.append("key points: the public ones of the 53,215-vertex mesh")
        return public
    if surface.format == BFM_2009.name:
        for table in trim_tables([main.parent], len(surface.mean)):
            if len(table.kept) == MESH_53215:
                surface.notes.append(f"key points: the public ones of the 53,215-vertex mesh, by {table.path.name}")
                surface.files.append(table.path)
                return table.kept[public]
    fitting = [file for file in sorted(main.parent.glob("*.anl")) if _fits(surface, file)]
    if len(fitting) == 1:
        surface.notes.append(f"key points: from {fitting[0].name} beside the model")
        surface.files.append(fitting[0])
        return read_keypoints(fitting[0])
    if fitting:
        raise InputError(
            f"{main}: {len(fitting)} files of key points beside it: {some([file.name for file in fitting])}",
            "name one of them with --keypoints",
        )
    raise InputError(
        f"{main}: this {surface.format} model of {len(surface.mean)} vertices does not say which are the 68 landmarks",
        hint,
    )


def _fits(surface: Surface, file: Path) -> bool:
    """Whether the key points in a file are those of a face on this surface."""
    try:
        keypoints = read_keypoints(file)
    except InputError:  # 21 landmarks, say: not what is sought
        return False
    return keypoints.max() < len(surface.mean) and not face_problem(surface.mean[keypoints])


def read_numbers(path: Path) -> NDArray[np.float64]:
    """The numbers of a small text file; a comment runs from % or # to the end of the line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        words = [word for line in lines for word in line.split("%")[0].split("#")[0].replace(",", " ").split()]
        return np.array(words, dtype=np.float64)
    except ValueError as error:  # not text, or not numbers
        raise InputError(f"{path}: expected a text file of numbers ({error})", COMPLETE) from error
