"""What a run was made with."""

import json
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest

import dhm_cli
from dhm_cli.environment import environment


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
