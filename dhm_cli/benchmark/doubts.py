"""Reasons to doubt measured times: threads beyond the cores, a busy machine, times that scatter."""

from collections.abc import Sequence

from dhm_cli.benchmark.report import Line

# More CPU time per wall time than the threads can use, as a factor.
_MOST_CPU = 1.05
# Less CPU time than this with one thread: other programs took the core in between.
_LEAST_CPU = 0.95
# A line whose p95 over median is beyond this is not steady.
_STEADY = 1.5
# Lines that are named in a doubt, the worst ones.
_NAMED = 5


def doubts(lines: Sequence[Line], threads: int) -> list[str]:
    """Reasons to doubt the lines of a report.

    Args:
        lines: timed calls; `cpu_per_wall` None where it is unknown.
        threads: how many threads the calls were to use.

    Returns:
        A sentence for each kind of doubt, and below it the lines that it concerns most, each on a line of its own.
    """
    kinds: dict[str, list[tuple[float, str]]] = {}
    for line in lines:
        name = f"{line.level} {line.engine} batch {line.batch} {line.subject}"
        share = line.timing.cpu_per_wall
        if share is not None and share > threads * _MOST_CPU:
            reason = f"not pinned: more CPU time than {threads} {'thread' if threads == 1 else 'threads'} can use"
            kinds.setdefault(reason, []).append((share, f"{name} ({share:.2f})"))
        elif share is not None and threads == 1 and share < _LEAST_CPU:
            reason = "the machine is busy: other work took CPU time away"
            kinds.setdefault(reason, []).append((-share, f"{name} ({share:.2f})"))
        spread = line.timing.p95_ms / line.timing.median_ms
        if spread > _STEADY:
            reason = f"not steady: p95 is more than {_STEADY:g} times the median"
            kinds.setdefault(reason, []).append((spread, f"{name} ({spread:.1f})"))
    return [_sentence(reason, found, len(lines)) for reason, found in kinds.items()]


def _sentence(reason: str, found: list[tuple[float, str]], total: int) -> str:
    """What is doubted, of which lines: how far each is off, and its name."""
    worst = [name for _, name in sorted(found, reverse=True)[:_NAMED]]
    others = len(found) - len(worst)
    return "\n".join(
        [f"{reason}, in {len(found)} of {total} {'line' if total == 1 else 'lines'}:", *worst]
        + ([f"and {others} more"] if others else [])
    )
