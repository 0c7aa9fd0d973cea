"""How many threads there are to use, and keeping the libraries from using them all."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

# Items in the making per worker: enough to keep all workers busy while one of them has a large one.
LOOK_AHEAD = 4

T = TypeVar("T")
Item = TypeVar("Item")


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


def in_order(work: Callable[[Item], T], items: Sequence[Item], workers: int) -> Generator[T, None, None]:
    """Work on items with some threads; results in the items' order, only a few of them ahead.

    Args:
        work: called in the threads.
        items: in order.
        workers: threads.

    Yields:
        The result of each item. Closed early, it drops what has not begun and waits for what has.
    """
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        with single_threaded_opencv():
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= LOOK_AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def single_threaded_mathematics() -> None:
    """Have torch and numpy use one thread a call in this process, for work that several workers share.

    The setting is of the process, so it is the commands' to make; numpy obeys only when it is not loaded yet.
    """
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)
