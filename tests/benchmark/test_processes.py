"""Several processes at once."""

import subprocess
import sys

import pytest

from dhm_cli.benchmark import processes
from dhm_cli.benchmark.pipeline import PHOTO
from dhm_cli.benchmark.processes import ProcessesTiming, measure_processes
from dhm_cli.runtime.progress import silent

SETTINGS = {"device": "cpu", "model": "no.onnx", "face_model": None}


def test_one_before_all_together_one_after(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[str]] = []
    # Answers the first line of input with its number, 10 or 20, the next with one more, and so on.
    code = "import sys\nprint('ready', flush=True)\nfor k, _ in enumerate(sys.stdin):\n    print({} + k, flush=True)"

    def start(photo: object, settings: object, core: int) -> "subprocess.Popen[str]":
        pipe = subprocess.PIPE
        worker = subprocess.Popen(
            [sys.executable, "-c", code.format(10 * core)], stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        started.append(worker)
        return worker

    monkeypatch.setattr(processes, "_start", start)
    found = measure_processes("fast", PHOTO, SETTINGS, [1, 2], silent)
    assert found == ProcessesTiming("fast", 2, photos_per_s_one=11.0, photos_per_s_all=31.0, speed_up=31 / 11)
    assert len(started) == 2
    assert all(worker.poll() is not None for worker in started)


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"no\.onnx: cannot be read"):
        measure_processes("no", PHOTO, SETTINGS, [0], silent)
