"""What speaks against a line."""

from dhm_cli.benchmark.doubts import doubts
from dhm_cli.benchmark.report import Line
from dhm_cli.benchmark.timing import Statistics


def line(cpu: float | None = 1.0, p95: float = 1.2) -> Line:
    timing = Statistics(runs=1, median_ms=1.0, p5_ms=1.0, p95_ms=p95, mean_ms=1.0, min_ms=1.0, cpu_per_wall=cpu)
    return Line("network", "torch", 1, "fast", timing, 1.0, 1000.0)


def test_doubts() -> None:
    assert doubts([line(1.05), line(0.95), line(None), line(p95=1.5)], threads=1) == []
    (busy,) = doubts([line(0.94), line(0.5)], threads=1)
    assert busy.startswith("the machine is busy")
    assert busy.splitlines()[1:] == ["network torch batch 1 fast (0.50)", "network torch batch 1 fast (0.94)"]
    (loose,) = doubts([line(1.06)], threads=1)
    assert loose.startswith("not pinned: more CPU time than 1 thread can use")
    assert doubts([line(0.5), line(2.1)], threads=2) == []  # work that does not split is no sign of a busy machine
    assert len(doubts([line(2.11)], threads=2)) == 1
    (unsteady,) = doubts([line(p95=1.51)], threads=1)
    assert unsteady.startswith("not steady")


def test_a_doubt_of_many_lines_is_a_short_sentence_and_names_the_worst() -> None:
    """It was one line of 900 characters."""
    (unsteady,) = doubts([line(p95=1.4 + k / 5) for k in range(30)], threads=1)
    assert unsteady.splitlines() == [
        "not steady: p95 is more than 1.5 times the median, in 29 of 30 lines:",
        *(f"network torch batch 1 fast ({spread})" for spread in (7.2, 7.0, 6.8, 6.6, 6.4)),
        "and 24 more",
    ]
