"""Turns of timed calls, with clocks of our own."""

import gc
import itertools
from collections.abc import Callable

import pytest

from dhm_cli.benchmark.timing import TURN, Task, measure_interleaved, planned_runs, warm_up

MILLISECOND = 1_000_000


def test_tasks_take_turns_that_begin_with_an_untimed_call() -> None:
    order: list[str] = []
    tasks = [Task(lambda: order.append("a"), 25), Task(lambda: order.append("b"), 3)]
    timed: list[int] = []

    def stopwatch(call: Callable[[], object]) -> int:
        call()
        timed.append(len(order))
        return MILLISECOND

    measure_interleaved(tasks, stopwatch, cpu_clock=lambda: 0)
    # Three rounds: 25 calls are 8, 8 and 9, 3 are one a round; each turn one more, untimed.
    expected = "".join(
        name * (calls + 1) for calls, last in ((8, 1), (8, 1), (9, 1)) for name, calls in (("a", calls), ("b", last))
    )
    assert "".join(order) == expected
    assert [len(task.samples) for task in tasks] == [25, 3]
    assert len(timed) == 28


def test_statistics_with_a_clock_of_our_own() -> None:
    durations, cpu = iter(range(1, 101)), itertools.count(0, MILLISECOND // 2)
    task = Task(lambda: None, 100)

    def stopwatch(call: Callable[[], object]) -> int:
        return next(durations) * MILLISECOND

    measure_interleaved([task], stopwatch, cpu_clock=lambda: next(cpu))
    found = task.statistics()
    # 1 to 100 ms: the p-th percentile lies at 1 + 0.99 p.
    assert found.p5_ms == pytest.approx(5.95)
    assert found.median_ms == pytest.approx(50.5)
    assert found.p95_ms == pytest.approx(95.05)
    assert found.mean_ms == pytest.approx(50.5)
    assert (found.min_ms, found.runs) == (1.0, 100)
    # Half a millisecond of CPU for each of 100 calls of 5,050 milliseconds in all.
    assert found.cpu_per_wall == pytest.approx(50 / 5050)


def test_no_garbage_is_collected_while_timing() -> None:
    states: list[bool] = []
    assert gc.isenabled()
    measure_interleaved([Task(lambda: states.append(gc.isenabled()), 2)])
    assert states == [False] * 3
    assert gc.isenabled()


def test_an_interrupted_task_keeps_its_samples() -> None:
    calls = itertools.count()

    def call() -> None:
        if next(calls) == TURN + 5:
            raise KeyboardInterrupt

    task = Task(call, 100)
    with pytest.raises(KeyboardInterrupt):
        measure_interleaved([task])
    assert len(task.samples) == TURN + 3  # of two turns, an untimed call each
    assert gc.isenabled()


def test_warm_up_gives_the_time_after_the_first_call() -> None:
    durations = itertools.chain([5000 * MILLISECOND], itertools.repeat(70 * MILLISECOND))
    assert warm_up(lambda: None, lambda call: next(durations)) == 70.0


def test_only_slow_calls_are_timed_less_often() -> None:
    assert planned_runs(49.0, 300, exactly=False) == 300
    assert planned_runs(100.0, 300, exactly=False) == 100  # 10 s of them
    assert planned_runs(5000.0, 300, exactly=False) == 30
    assert planned_runs(5000.0, 300, exactly=True) == 300
    assert planned_runs(5000.0, 7, exactly=False) == 7
