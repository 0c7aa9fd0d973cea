"""dhm talks to nobody: neither its own code nor the libraries it loads open a connection."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT, SAMPLE_DATA

# An interpreter in which every use of a network by Python code is an error.
GUARD = """
import sys
def guard(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind"):
        raise SystemExit(f"network used: {event} {arguments}")
sys.addaudithook(guard)
from dhm_cli.cli.main import main
main()
"""


def child_environment(folder: Path, **changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    return {**kept, "PYTHONPATH": str(ROOT), "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), **changes}


@pytest.mark.parametrize(("users", "expected"), [({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")])
def test_usage_data_of_onnxruntime_is_off_unless_the_user_says_otherwise(
    tmp_path: Path, users: dict[str, str], expected: str
) -> None:
    code = "import dhm_cli, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=child_environment(tmp_path, **users),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == expected, done.stderr


def test_align_opens_no_socket(tmp_path: Path) -> None:
    """Native code too, where strace can tell; and nothing is left in the user's home folder."""
    command = [sys.executable, "-c", GUARD, "align", str(SAMPLE_DATA / "photos"), "--out", str(tmp_path / "a.csv")]
    trace = tmp_path / "trace"
    if shutil.which("strace"):
        command = ["strace", "-f", "-qq", "-e", "trace=socket,connect,sendto", "-o", str(trace), *command]
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        command, env=child_environment(home), capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.csv").is_file()
    if trace.exists():
        assert [line for line in trace.read_text().splitlines() if "AF_INET" in line] == []
    assert list(home.iterdir()) == []
