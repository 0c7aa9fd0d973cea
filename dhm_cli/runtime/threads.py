"""How many threads there are to use, and keeping the libraries from using them all."""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import Full, Queue
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


def in_order(work: Callable[[Item], T], items: Iterable[Item], workers: int) -> Generator[T, None, None]:
    """Work on items with some threads; results in the items' order, only a few of them ahead.

    Args:
        work: called in the threads.
        items: in order; taken in the calling thread as they are needed.
        workers: threads; one is the calling thread, since two that take turns cost a tenth of the time of a photo.

    Yields:
        The result of each item. Closed early, it drops what has not begun and waits for what has.
    """
    if workers == 1:
        with single_threaded_opencv():
            yield from map(work, items)
        return
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


def ahead(items: Iterator[Item], most: int) -> Generator[Item, None, None]:
    """Items that a thread takes from an iterator before they are asked for.

    Args:
        items: used in that thread alone; what it raises is raised here in its place.
        most: items that wait at a time.

    Yields:
        The items in order. Closed early, it waits for the item in the making and takes no more.
    """
    waiting: Queue[tuple[Item | None, BaseException | None]] = Queue(most)
    closed = threading.Event()

    def put(item: Item | None, error: BaseException | None) -> None:
        while not closed.is_set():
            with suppress(Full):
                return waiting.put((item, error), timeout=0.1)

    def work() -> None:
        try:
            for item in items:
                put(item, None)
                if closed.is_set():
                    return
        except BaseException as error:
            put(None, error)
        else:
            put(None, StopIteration())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        closed.set()
        thread.join()


def single_threaded_mathematics() -> None:
    """Have torch and numpy use one thread a call in this process, for work that several workers share.

    The setting is of the process, so it is the commands' to make; numpy obeys only when it is not loaded yet.
    """
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)
