"""What a run was made with: versions, processor, commit; and what else decides how fast a machine is."""

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import dhm_cli
from dhm_cli.runtime.threads import available_cores

_PACKAGES = ("torch", "onnxruntime", "numpy", "opencv-python-headless", "h5py", "safetensors")
# Instructions that decide how fast networks run, as /proc/cpuinfo names them: x86, then ARM (asimd is its Neon).
_INSTRUCTIONS = (
    *("avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "neon", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
_CPUINFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def environment(more_packages: Sequence[str] = ()) -> dict[str, Any]:
    """Versions, processor and commit of this process; what is not known is None or empty.

    Args:
        more_packages: whose versions are wanted too.
    """
    return {
        "dhm": dhm_cli.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in (*_PACKAGES, *more_packages)},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def machine() -> dict[str, Any]:
    """What decides how fast this machine is at this moment; what is not known is None or empty.

    Returns:
        architecture; available_cores, that this process may use; instructions, of those that matter to networks;
        governor, of the processor's clock, on Linux; memory_bytes; load_average, of 1, 5 and 15 minutes.
    """
    try:
        governor = _GOVERNOR.read_text().strip()
    except OSError:
        governor = None
    return {
        "architecture": platform.machine(),
        "available_cores": available_cores(),
        "instructions": _instructions(),
        "governor": governor,
        "memory_bytes": _memory(),
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }


def _instructions() -> list[str]:
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return []
    found = next(
        (set(line.split(":", 1)[1].split()) for line in lines if line.startswith(("flags", "Features"))), set()
    )
    return [name for name in _INSTRUCTIONS if name in found]


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _commit() -> str | None:
    """The commit of the code where it lies in a git checkout of its own, with a plus where files were changed."""
    folder = Path(dhm_cli.__file__).parent
    if not (folder.parent / ".git").exists():
        return None
    try:
        head, changes = (
            subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=True, timeout=20).stdout
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.strip() + ("+" if changes.strip() else "")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
