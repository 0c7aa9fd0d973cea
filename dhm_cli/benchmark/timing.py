"""Timed calls: warmed up, in turns so that a drift of the clock affects all alike, with their CPU time."""

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

# Timed calls of a task before the next task's turn.
TURN = 10
# A call this slow, milliseconds, may be timed less often than asked for, ...
SLOW_MS = 50.0
# ... in about so many seconds, but no less often than this.
SLOW_SECONDS = 10.0
LEAST_RUNS = 30
_WARM_UP_CALLS = 3
_WARM_UP_SECONDS = 0.2

Call = Callable[[], object]
# How long a call took, nanoseconds.
Stopwatch = Callable[[Call], int]


@dataclass(frozen=True)
class Statistics:
    """Statistics of timed calls.

    Attributes:
        runs: how many calls were timed.
        median_ms: milliseconds of a call, as are the next four.
        p5_ms: 5th percentile.
        p95_ms: 95th percentile.
        mean_ms: mean.
        min_ms: least.
        cpu_per_wall: CPU time of all threads over wall time; None where it is unknown.
    """

    runs: int
    median_ms: float
    p5_ms: float
    p95_ms: float
    mean_ms: float
    min_ms: float
    cpu_per_wall: float | None


@dataclass(eq=False)
class Task:
    """A call to be timed, and its measurements so far.

    Attributes:
        call: what is timed.
        runs: how many timed calls it gets.
        samples: nanoseconds of each.
        wall: nanoseconds of all turns by the clock, timed calls only.
        cpu: nanoseconds of CPU time that all threads of this process spent in them.
    """

    call: Call
    runs: int = 0
    samples: list[int] = field(default_factory=list)
    wall: int = 0
    cpu: int = 0

    def statistics(self, with_cpu: bool = True) -> Statistics:
        """Statistics of the samples so far, of which there must be one.

        Args:
            with_cpu: False where calls wait for a device, since their CPU time is no sign of a busy machine.
        """
        milliseconds = np.array(self.samples) / 1e6
        p5, median, p95 = np.percentile(milliseconds, (5, 50, 95))
        return Statistics(
            runs=len(self.samples),
            median_ms=float(median),
            p5_ms=float(p5),
            p95_ms=float(p95),
            mean_ms=float(milliseconds.mean()),
            min_ms=float(milliseconds.min()),
            cpu_per_wall=self.cpu / self.wall if with_cpu and self.wall else None,
        )


def wall_stopwatch(call: Call) -> int:
    """Nanoseconds of a call by the clock."""
    start = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - start


def warm_up(call: Call, stopwatch: Stopwatch = wall_stopwatch) -> float:
    """Call until caches, clocks and allocators have settled.

    Returns:
        Milliseconds of a call, the median of those after the first.
    """
    samples = [stopwatch(call)]
    while len(samples) <= _WARM_UP_CALLS or (sum(samples[1:]) < _WARM_UP_SECONDS * 1e9 and len(samples) < 1000):
        samples.append(stopwatch(call))
    return float(np.median(samples[1:])) / 1e6


def planned_runs(milliseconds: float, runs: int, exactly: bool) -> int:
    """How often to time a call: `runs` times, or less often where it is slow and the user gave no number.

    Args:
        milliseconds: of a call.
        runs: asked for.
        exactly: whether the user gave that number.
    """
    if exactly or milliseconds <= SLOW_MS:
        return runs
    return min(runs, max(LEAST_RUNS, int(SLOW_SECONDS * 1e3 / milliseconds)))


def measure_interleaved(
    tasks: Sequence[Task],
    stopwatch: Stopwatch = wall_stopwatch,
    cpu_clock: Callable[[], int] = time.process_time_ns,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Time tasks in turns of a few calls each; a turn begins with an untimed call, for the caches that others filled.

    Args:
        tasks: warmed up, with their runs. What is measured is added to them call by call, so it stays when a call is
            interrupted.
        stopwatch: times a call.
        cpu_clock: nanoseconds of CPU time of this process.
        progress: called with the number of timed calls of each turn.
    """
    rounds = max((math.ceil(task.runs / TURN) for task in tasks), default=0)
    with _without_garbage_collection():
        for k in range(rounds):
            for task in tasks:
                calls = task.runs * (k + 1) // rounds - task.runs * k // rounds
                if calls:
                    _take_turn(task, calls, stopwatch, cpu_clock)
                if calls and progress is not None:
                    progress(calls)


def _take_turn(task: Task, calls: int, stopwatch: Stopwatch, cpu_clock: Callable[[], int]) -> None:
    task.call()
    cpu, wall = 0, 0
    for _ in range(calls):
        before = cpu_clock()
        duration = stopwatch(task.call)
        cpu += cpu_clock() - before
        wall += duration
        task.samples.append(duration)
    task.cpu += cpu
    task.wall += wall


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
