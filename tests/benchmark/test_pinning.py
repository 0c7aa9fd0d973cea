"""Threads keep to their cores."""

import os
import threading
from pathlib import Path

import pytest
import torch

from dhm_cli.benchmark import pinning
from dhm_cli.benchmark.pinning import check_threads, pinned
from dhm_cli.errors import InputError


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin")
def test_pinned_to_the_last_cores_and_back() -> None:
    before = os.sched_getaffinity(0)
    with pinned(1) as cores:
        assert cores == [max(before)]
        assert os.sched_getaffinity(0) == {max(before)}
        assert torch.get_num_threads() == 1
    assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not list threads")
def test_threads_of_libraries_are_pinned_too() -> None:
    begin, found = threading.Event(), []

    def work() -> None:
        begin.wait()
        found.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=work)
    thread.start()
    with pinned(1) as cores:
        begin.set()
        thread.join()
    assert found == [set(cores)]


def test_threads_beyond_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinning, "available_cores", lambda: 4)
    check_threads(4)
    for wrong in (0, 5):
        with pytest.raises(InputError, match=f"--processes: expected 1 to 4, the cores at hand, found {wrong}"):
            check_threads(wrong, "--processes")
