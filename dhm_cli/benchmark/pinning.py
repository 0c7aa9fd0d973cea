"""Threads and cores of a measurement: setting them, and checking afterwards that they were kept to."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from dhm_cli.errors import InputError
from dhm_cli.runtime.threads import available_cores

# More CPU time per wall time than the threads can use, as a factor.
_MOST_CPU = 1.05
# Less of it with one thread: other programs got in between.
_LEAST_CPU = 0.95
# p95 over median beyond this: the line is not steady.
_STEADY = 1.5


def check_threads(threads: int, option: str = "--threads") -> None:
    """Refuse a number of threads that cannot be pinned to cores of their own.

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


def doubts(lines: Sequence[Mapping[str, Any]], threads: int) -> list[str]:
    """What speaks against the lines of a report.

    Args:
        lines: each with level, engine, batch, subject, median_ms, p95_ms and cpu_per_wall (None where unknown).
        threads: that were to be used.

    Returns:
        One sentence for each kind of doubt, with its lines.
    """
    kinds: dict[str, list[str]] = {}
    for line in lines:
        name = f"{line['level']} {line['engine']} batch {line['batch']} {line['subject']}"
        share = line["cpu_per_wall"]
        if share is not None and share > threads * _MOST_CPU:
            reason = f"not pinned: more CPU time than {threads} {'thread' if threads == 1 else 'threads'} can use"
            kinds.setdefault(reason, []).append(f"{name} ({share:.2f})")
        elif share is not None and threads == 1 and share < _LEAST_CPU:
            reason = "the machine is busy with other work, which took CPU time away from"
            kinds.setdefault(reason, []).append(f"{name} ({share:.2f})")
        spread = line["p95_ms"] / line["median_ms"]
        if spread > _STEADY:
            reason = f"not steady: p95 is more than {_STEADY:g} times the median"
            kinds.setdefault(reason, []).append(f"{name} ({spread:.1f})")
    return [f"{reason}: {', '.join(names)}" for reason, names in kinds.items()]
