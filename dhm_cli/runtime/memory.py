"""Memory of this process."""

import sys
from pathlib import Path


def peak_bytes() -> int:
    """Most physical memory that this process has held at a time, bytes."""
    try:
        # Not resource.getrusage, which on Linux counts the memory of the process that started this one.
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def keep_freed_memory() -> None:
    """Have glibc keep the memory of one photo for the next; fetching it anew costs 500 page faults, 1-2 ms a photo.

    Freeing one large block raises glibc's thresholds for giving memory back (mallopt(3), M_TRIM_THRESHOLD) to 62 MiB.
    """
    import numpy as np

    np.empty(31 * 2**20, np.uint8)
