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
    assert "fast (0.94), network torch batch 1 fast (0.50)" in busy
    (loose,) = doubts([line(1.06)], threads=1)
    assert loose.startswith("not pinned: more CPU time than 1 thread can use")
    assert doubts([line(0.5), line(2.1)], threads=2) == []  # work that does not split is no sign of a busy machine
    assert len(doubts([line(2.11)], threads=2)) == 1
    (unsteady,) = doubts([line(p95=1.51)], threads=1)
    assert unsteady.startswith("not steady")
