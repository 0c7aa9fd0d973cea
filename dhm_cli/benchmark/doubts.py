"""Reasons to doubt measured times: threads beyond the cores, a busy machine, times that scatter."""

from collections.abc import Sequence

from dhm_cli.benchmark.report import Line

# More CPU time per wall time than the threads can use, as a factor.
_MOST_CPU = 1.05
# Less CPU time than this with one thread: other programs took the core in between.
_LEAST_CPU = 0.95
# A line whose p95 over median is beyond this is not steady.
_STEADY = 1.5


def doubts(lines: Sequence[Line], threads: int) -> list[str]:
    """Reasons to doubt the lines of a report.

    Args:
        lines: timed calls; `cpu_per_wall` None where it is unknown.
        threads: how many threads the calls were to use.

    Returns:
        One sentence for each kind of doubt, with the lines that it concerns.
    """
    kinds: dict[str, list[str]] = {}
    for line in lines:
        name = f"{line.level} {line.engine} batch {line.batch} {line.subject}"
        share = line.timing.cpu_per_wall
        if share is not None and share > threads * _MOST_CPU:
            reason = f"not pinned: more CPU time than {threads} {'thread' if threads == 1 else 'threads'} can use"
            kinds.setdefault(reason, []).append(f"{name} ({share:.2f})")
        elif share is not None and threads == 1 and share < _LEAST_CPU:
            reason = "the machine is busy with other work, which took CPU time away from"
            kinds.setdefault(reason, []).append(f"{name} ({share:.2f})")
        spread = line.timing.p95_ms / line.timing.median_ms
        if spread > _STEADY:
            reason = f"not steady: p95 is more than {_STEADY:g} times the median"
            kinds.setdefault(reason, []).append(f"{name} ({spread:.1f})")
    return [f"{reason}: {', '.join(names)}" for reason, names in kinds.items()]
