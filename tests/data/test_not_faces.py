"""Pictures without a face: which are held out, and how they come into the batches of a training."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from dhm_cli.data.not_faces import read_not_faces
from dhm_cli.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(10):
        cv2.imwrite(str(tmp_path / f"{number:02}.png"), np.full((40, 40, 3), 20 * number + 5, np.uint8))
    return tmp_path


def test_the_last_names_are_held_out(folder: Path) -> None:
    train, held_out = read_not_faces(folder, "train"), read_not_faces(folder, "val")
    assert train.names == tuple(f"{number:02}.png" for number in range(8))
    assert held_out.names == ("08.png", "09.png")
    assert (held_out.image(1) == 185).all()
    assert train.fingerprint != held_out.fingerprint


def test_too_few(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(InputError, match="two are the least"):
        read_not_faces(tmp_path, "train")
    with pytest.raises(InputError, match="no such"):
        read_not_faces(tmp_path / "missing", "train")
