"""Whole photos in several processes at once, a core each, against one process."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dhm_cli.runtime.processes import child_command
from dhm_cli.runtime.progress import Progress

# How long each process works for one measurement.
_SECONDS = 4.0
_WARM_UP_PHOTOS = 20


@dataclass(frozen=True)
class ProcessesTiming:
    """Photos a second of one process and of several at once.

    Attributes:
        subject: name of the network.
        processes: how many work at once.
        photos_per_s_one: of one process, mean of before and after the others work.
        photos_per_s_all: of all processes together.
        speed_up: the latter over the former.
    """

    subject: str
    processes: int
    photos_per_s_one: float
    photos_per_s_all: float
    speed_up: float


def measure_processes(
    subject: str, photo: Path, settings: Mapping[str, str | None], cores: Sequence[int], progress: Progress
) -> ProcessesTiming:
    """Align a photo in one process, in all processes at once, and in one again.

    Args:
        subject: name of the network.
        photo: an image file with a face.
        settings: `device`, `model` and `face_model` of `Aligner`.
        cores: a core for each of the processes.
        progress: called before each of the three measurements.

    Raises:
        RuntimeError: a process failed; the message is its last line.
    """
    workers = [_start(photo, settings, core) for core in cores]
    try:
        for worker in workers:
            _answer(worker)  # it is ready
        rates = []
        for k, used in enumerate((workers[:1], workers, workers[:1])):
            progress(f"whole photos, {len(used)} process{'es' * (len(used) > 1)}", k, 3)
            rates.append(_rate(used))
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    before, together, after = rates
    one = (before + after) / 2
    return ProcessesTiming(subject, len(cores), one, together, together / one)


def _start(photo: Path, settings: Mapping[str, str | None], core: int) -> "subprocess.Popen[str]":
    code = "import json\nfrom dhm_cli.benchmark.processes import work\nwork(*json.loads(sys.argv[1]))"
    return subprocess.Popen(
        child_command(code, json.dumps([str(photo), dict(settings), core, _SECONDS])),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _rate(workers: Sequence["subprocess.Popen[str]"]) -> float:
    """Photos a second of processes that begin together; the others wait for their input meanwhile."""
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return sum(float(_answer(worker)) for worker in workers)


def _answer(worker: "subprocess.Popen[str]") -> str:
    """The next line that a process prints."""
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:  # it has ended
        problems = worker.communicate()[1]
        raise RuntimeError((problems.strip().splitlines() or ["a process failed"])[-1])
    return line


def work(photo: str, settings: dict[str, str | None], core: int, seconds: float) -> None:
    """Align a photo again and again for some seconds at every line of input, and print the photos a second.

    Called in a process of its own.
    """
    import cv2

    from dhm_cli import Aligner
    from dhm_cli.io.images import read_image

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, [core])
    cv2.setNumThreads(1)
    aligner = Aligner(str(settings["device"]), 1, model=settings["model"], face_model=settings["face_model"])
    for _ in range(_WARM_UP_PHOTOS):
        aligner.align(read_image(photo))
    print("ready", flush=True)  # noqa: T201 (to the process that started this one)
    for _ in sys.stdin:
        count, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            aligner.align(read_image(photo))
            count += 1
        print(count / (time.perf_counter() - begin), flush=True)  # noqa: T201
