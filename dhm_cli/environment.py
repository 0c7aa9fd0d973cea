"""What a run was made with: versions, processor, commit."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import dhm_cli

_PACKAGES = ("torch", "onnxruntime", "numpy", "opencv-python-headless", "h5py", "safetensors")


def environment() -> dict[str, Any]:
    """Versions, processor and commit of this process; what is not known is None or empty."""
    return {
        "dhm": dhm_cli.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


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
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
