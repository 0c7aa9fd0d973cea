"""Pinning: a measurement keeps to as many cores and threads as it was given."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from dhm_cli.errors import InputError
from dhm_cli.runtime.threads import available_cores


def check_threads(threads: int, option: str = "--threads") -> None:
    """Check that each thread can have a core of its own.

    Raises:
        InputError: fewer than 1 or more than the cores at hand; the message names the option.
    """
    cores = available_cores()
    if not 1 <= threads <= cores:
        raise InputError(f"{option}: expected 1 to {cores}, the cores at hand, found {threads}", f"pass {option} 1")


@contextmanager
def pinned(threads: int) -> Iterator[list[int]]:
    """Keep this process and what it starts to as many cores as threads, and OpenCV and torch to as many threads.

    Args:
        threads: 1 to the number of cores at hand.

    Yields:
        The cores, the last ones at hand because systems serve interrupts with the first; empty where the system cannot
        pin. All settings are restored at the end.

    Threads that libraries have started before are pinned too.
    """
    import cv2
    import torch

    can_pin = hasattr(os, "sched_setaffinity")
    cores = sorted(os.sched_getaffinity(0)) if can_pin else []
    before = cv2.getNumThreads(), torch.get_num_threads()
    chosen = cores[-threads:]
    try:
        if can_pin:
            _pin_all_threads(chosen)
        cv2.setNumThreads(threads)
        torch.set_num_threads(threads)
        yield chosen
    finally:
        if can_pin:
            _pin_all_threads(cores)
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def _pin_all_threads(cores: Sequence[int]) -> None:
    os.sched_setaffinity(0, cores)
    with suppress(FileNotFoundError):  # no /proc
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):  # it has ended
                os.sched_setaffinity(int(thread), cores)
