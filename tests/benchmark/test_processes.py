"""Several processes at once."""

import pytest

from dhm_cli.benchmark.pipeline import PHOTO
from dhm_cli.benchmark.processes import measure_processes
from dhm_cli.runtime.progress import silent


def test_a_process_that_fails_says_why() -> None:
    weights = {"device": "cpu", "weights": "no.onnx", "face_model": None}
    with pytest.raises(RuntimeError, match=r"no\.onnx: cannot be read"):
        measure_processes("no", PHOTO, weights, [0], silent)
