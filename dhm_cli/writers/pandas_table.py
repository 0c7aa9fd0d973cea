"""Faces as a pandas table, for those who have pandas."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dhm_cli.errors import DhmError
from dhm_cli.inference.aligner import Face
from dhm_cli.inference.columns import DEFAULT_COLUMNS, Layout

if TYPE_CHECKING:
    import pandas


def faces_to_pandas(
    faces: Iterable[Face] | Mapping[str, Iterable[Face]], columns: Sequence[str] = DEFAULT_COLUMNS
) -> "pandas.DataFrame":
    """A table with a row for each face and the columns that `dhm align --out faces.csv` has.

    Args:
        faces: of one photo, or of several by their paths, which become the columns `path` and `face` (from 0).
        columns: names of `columns.COLUMN_GROUPS`.

    Returns:
        A data frame of numbers as they are, not rounded as in files; NaN where they are not known.

    Raises:
        DhmError: pandas is not installed.
        InputError: a name of columns is not known, or given twice.

    Example:
        >>> from dhm_cli import Aligner, faces_to_pandas
        >>> aligner, photo = Aligner("cpu"), "sample_data/photos/astronaut.png"
        >>> faces_to_pandas({photo: aligner.align(photo)})[["face", "yaw"]].round()  # doctest: +SKIP
           face  yaw
        0     0  1.0
    """
    try:
        import pandas
    except ImportError as error:
        raise DhmError("a table of pandas needs pandas, which is not installed", "pip install pandas") from error
    groups = Layout(columns).groups
    keys: list[str] = ["path", "face"] if isinstance(faces, Mapping) else []
    of_photos: Mapping[str, Iterable[Face]] = faces if isinstance(faces, Mapping) else {"": faces}
    rows: list[list[Any]] = []
    for path, its_faces in of_photos.items():
        for number, face in enumerate(its_faces):
            cells = [cell for group in groups for cell in group.flat(group.record(face, rounded=False))]
            rows.append([*([path, number] if keys else []), *cells])
    names = [column for group in groups for column in group.columns]
    table = pandas.DataFrame(rows, columns=[*keys, *names])
    numbers = [column for group in groups if group.kind is float for column in group.columns]
    return table.astype(dict.fromkeys(numbers, float))
