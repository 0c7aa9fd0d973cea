"""Which predicted face belongs to which face of a data set, by the photo's path and the place in the photo."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dhm_cli.datasets.folders import split_suffix
from dhm_cli.errors import InputError
from dhm_cli.evaluation.predictions import Predictions
from dhm_cli.geometry.landmarks import bounding_box
from dhm_cli.io.images import EXTENSIONS

_LABEL_SUFFIXES = (".pts", ".mat", ".npy", ".txt")


@dataclass(frozen=True, eq=False)
class Match:
    """Where the faces of a data set are among the predictions.

    Attributes:
        rows: (N,), row of each face in the predictions, -1 where there is none.
        unused: names of the predictions that belong to no face, in their order.
    """

    rows: NDArray[np.int64]
    unused: list[str]


def match_predictions(predictions: Predictions, names: Sequence[str], boxes: NDArray[np.floating], file: Path) -> Match:
    """Find the prediction of each face.

    Paths are compared part by part, without the suffix of a photo or a label file, / and \\ alike, in exact case. A
    prediction belongs to the face whose whole name its path ends with ("photos/AFW/a.jpg" to "AFW/a.jpg"); or, where
    its whole path is the end of one face's name only ("a.pts", "AFW/a.pts"), to that face. Of different paths for one
    face the one that shares most parts is taken, then the one that is equal as a whole, then the one of equal suffix.
    Of several faces predicted in a photo the one is taken whose box's centre is nearest to the true one's, of equals
    the first.

    Predictions without names are those of all faces in the order of the sorted names.

    Args:
        predictions: as `read_predictions` gives them.
        names: (N,), the data set's names, each once, such as "AFW/a.jpg".
        boxes: (N, 4) left, top, width, height of the true landmarks, 0-based photo pixels.
        file: of the predictions, for messages.

    Raises:
        InputError: no face has a prediction, two paths fit a face equally well, or nameless predictions are of another
            number.
    """
    if predictions.names is None:
        return _in_sorted_order(len(predictions.landmarks), names, file)
    rows_of: defaultdict[_Place, list[int]] = defaultdict(list)
    for row, name in enumerate(predictions.names):
        rows_of[_place(name)].append(row)
    faces = [_place(name) for name in names]
    fitting = _fitting(list(rows_of), faces)
    if not fitting:
        raise InputError(
            f"{file}: none of its names is one of the data, as {predictions.names[0]!r} in the file and "
            f"{str(next(iter(names), ''))!r} in the data",
            "name the photos by their paths below the folder of the data set",
        )
    predicted = _centres(bounding_box(predictions.landmarks))
    true = _centres(np.asarray(boxes, dtype=np.float64))
    rows = np.full(len(faces), -1, dtype=np.int64)
    for face, places in fitting.items():
        best, *others = _best(places, faces[face])
        if others:
            both = " and ".join(repr(predictions.names[rows_of[place][0]]) for place in (best, others[0]))
            raise InputError(
                f"{file}: {both} fit the face {str(names[face])!r} equally well",
                "give the predictions of one folder only, or leave out one of the two",
            )
        in_photo = rows_of.pop(best)
        distance = np.hypot(*(predicted[in_photo] - true[face]).T) if len(in_photo) > 1 else np.zeros(1)
        rows[face] = in_photo[int(distance.argmin())]
    return Match(rows, [predictions.names[left[0]] for left in rows_of.values()])


def _in_sorted_order(count: int, names: Sequence[str], file: Path) -> Match:
    if count != len(names):
        raise InputError(
            f"{file}: {count} faces without names, but the data has {len(names)}",
            "give one for each face in the order of the sorted names, or an .npz file with `names`",
        )
    rows = np.empty(count, dtype=np.int64)
    rows[sorted(range(count), key=names.__getitem__)] = np.arange(count)
    return Match(rows, [])


def _centres(boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    return boxes[:, :2] + boxes[:, 2:] / 2


class _Place(NamedTuple):
    """A photo's path: its parts, the last without the photo's `suffix`."""

    parts: tuple[str, ...]
    suffix: str


def _place(name: str) -> _Place:
    # A leading ".." tells where the method ran, not where the photo lies in the data set.
    parts = [part for part in str(name).replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if not parts:
        return _Place((), "")
    last = parts.pop()
    if split_suffix(last)[1] in _LABEL_SUFFIXES:  # also "a.jpg.txt", the points of a.jpg
        last = split_suffix(last)[0]
    stem = split_suffix(last)[0] if split_suffix(last)[1] in EXTENSIONS else last
    return _Place((*parts, stem), last[len(stem) :])


def _fitting(places: list[_Place], faces: list[_Place]) -> dict[int, list[_Place]]:
    """The predicted places that fit each face, for the faces that have some; a place fits one face at most."""
    deepest = max(len(place.parts) for place in places)
    wholes: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    ends: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for face, (parts, _) in enumerate(faces):
        wholes[parts].append(face)
        for count in range(1, min(deepest, len(parts) - 1) + 1):
            ends[parts[-count:]].append(face)
    longest = max(map(len, wholes), default=0)
    fitting: defaultdict[int, list[_Place]] = defaultdict(list)
    for place in places:
        parts = place.parts
        shorter = (parts[-count:] for count in range(min(len(parts) - 1, longest), 0, -1))
        found = wholes.get(parts) or ends.get(parts) or next((wholes[end] for end in shorter if end in wholes), [])
        if len(found) > 1:  # "a.jpg" and "a.png" in one folder of the data
            found = [face for face in found if faces[face].suffix == place.suffix]
        if len(found) == 1:
            fitting[found[0]].append(place)
    return dict(fitting)


def _best(places: list[_Place], face: _Place) -> list[_Place]:
    """Those of the places that fit a face best."""
    if len(places) == 1:
        return places

    def fit(place: _Place) -> tuple[int, bool, bool]:
        shared = min(len(place.parts), len(face.parts))
        return shared, place.parts == face.parts, place.suffix == face.suffix

    best = max(map(fit, places))
    return [place for place in places if fit(place) == best]
