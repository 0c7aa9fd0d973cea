"""What a run was made with."""

import json
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest

import dhm_cli
from dhm_cli.runtime import environment as environment_module
from dhm_cli.runtime.environment import environment, machine


def test_environment() -> None:
    found = environment()
    assert found["dhm"] == dhm_cli.__version__
    assert found["packages"]["numpy"] == np.__version__
    assert found["packages"]["h5py"] == h5py.__version__
    assert json.loads(json.dumps(found)) == found


def git(folder: Path, *command: str) -> str:
    person = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    return subprocess.run(
        ["git", *person, *command], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def test_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "code" / "dhm_cli" / "__init__.py"
    code.parent.mkdir(parents=True)
    code.write_text("")
    monkeypatch.setattr(dhm_cli, "__file__", str(code))
    assert environment()["commit"] is None
    git(tmp_path, "init", "-q")  # the user's own repository around an installed copy says nothing of the code
    assert environment()["commit"] is None
    git(tmp_path / "code", "init", "-q")
    assert environment()["commit"] is None  # no commit yet
    git(tmp_path / "code", "add", ".")
    git(tmp_path / "code", "commit", "-qm", "first")
    head = git(tmp_path / "code", "rev-parse", "HEAD")
    assert environment()["commit"] == head
    (code.parent / "new.py").write_text("")
    assert environment()["commit"] == head
    code.write_text("changed = True\n")
    assert environment()["commit"] == head + "+"


def test_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert environment()["commit"] is None


def test_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = machine()
    assert found["available_cores"] >= 1
    assert json.loads(json.dumps(found)) == found
    (tmp_path / "cpuinfo").write_text(
        "model name\t: Some CPU\nflags\t\t: fpu fma avx2 avx512_vnni\n\nprocessor\t: 1\nflags\t\t: fpu\n"
    )
    (tmp_path / "governor").write_text("performance\n")
    monkeypatch.setattr(environment_module, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(environment_module, "_GOVERNOR", tmp_path / "governor")
    found = machine()
    assert found["instructions"] == ["avx2", "fma", "avx512_vnni"]
    assert found["governor"] == "performance"
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd i8mm\n")  # ARM
    assert machine()["instructions"] == ["asimd", "i8mm"]
    for name in ("cpuinfo", "governor"):
        (tmp_path / name).unlink()
    assert (machine()["instructions"], machine()["governor"]) == ([], None)
    assert environment(["no-such-package", "onnx"])["packages"]["no-such-package"] is None
