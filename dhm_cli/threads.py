"""How many threads there are to use, and keeping the libraries from using them all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


def available_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def single_threaded_opencv() -> Iterator[None]:
    """Keep OpenCV from splitting each call over all cores: several workers fill them better."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def single_threaded_mathematics() -> None:
    """Have torch and numpy use one thread a call in this process, for work that several workers share.

    The setting is of the process, so it is the commands' to make; numpy obeys only when it is not loaded yet.
    """
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)
