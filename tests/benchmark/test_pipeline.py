"""The photo that is measured on, and the parts of its alignment."""

from typing import Any

import numpy as np

from dhm_cli import Aligner
from dhm_cli.benchmark.pipeline import PHOTO, open_scene, photo_parts


def test_the_built_in_photo_is_the_sample_photo(astronaut: np.ndarray) -> None:
    scene = open_scene(PHOTO)
    assert scene.image.shape == (512, 512, 3)
    assert len(scene.faces) == 1
    assert np.abs(scene.image.astype(float) - astronaut).mean() < 3


def test_the_parts_are_those_of_the_whole() -> None:
    scene, aligner = open_scene(PHOTO), Aligner("cpu")
    parts = photo_parts(aligner, scene)
    found: Any = parts["two passes"]()
    (face,) = aligner.align(scene.image)
    np.testing.assert_allclose(found[0, :, :2], face.landmarks[:, :2], atol=1e-6)
    assert parts["detect"]() == list(scene.faces)
