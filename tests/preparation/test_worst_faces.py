"""The picture of a dataset's worst labels."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from label_examples import labels_of, with_points, xy
from synthetic_faces import random_parameters

from dhm_cli.drawing.faces import PREDICTION_COLOUR, TRUTH_COLOUR
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.preparation.worst_faces import draw_worst


def test_the_points_of_people_are_drawn_beside_the_fit(toy_model: FaceModel, tmp_path: Path) -> None:
    """The sheet showed the fit alone, so that nobody could see which of both is wrong, and had no legend."""
    p = random_parameters(toy_model, np.array([-20.0, 0.0, 20.0]), seed=1, scale=2.8e-4)
    labels = labels_of(toy_model, p, np.zeros(3, int), (120, 120))
    labels.residual[:] = 2, 9, 4
    human = xy(labels)
    human[1] += 12
    human[2] = np.nan  # of a prior alone: there is nobody's point to draw
    parts: Any = SimpleNamespace(images=lambda rows: [np.full((120, 120, 3), 90, np.uint8)] * len(rows))
    picture = draw_worst(with_points(labels, human), parts, tmp_path / "faces.h5")
    assert picture == tmp_path / "faces-worst.png"
    sheet = cv2.imread(str(picture))[..., ::-1].astype(int)
    drawn = lambda part, colour: int((np.abs(part - colour).max(axis=-1) < 40).sum())  # noqa: E731
    legend, tiles = sheet[:30], np.split(sheet[30:230], 6, axis=1)
    assert drawn(legend, TRUTH_COLOUR) > 30
    assert drawn(legend, PREDICTION_COLOUR) > 30
    assert [drawn(tile, PREDICTION_COLOUR) > 300 for tile in tiles] == [True, False, True, False, False, False]
    assert [drawn(tile, TRUTH_COLOUR) > 300 for tile in tiles[:2]] == [True, True], "the fit too"
    # Worst first: there the points lie beside the fit; of the third they lie over it and hide it.
    assert drawn(tiles[0], TRUTH_COLOUR) > 3 * drawn(tiles[2], TRUTH_COLOUR)
