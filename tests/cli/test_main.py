"""The command as a whole: its version, its help, its errors and Ctrl-C."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT
from printed import folded
from typer.testing import CliRunner

from dhm_cli.cli import main
from dhm_cli.cli.main import app
from dhm_cli.errors import DhmError
from dhm_cli.version import __version__

COMMANDS = ("prepare", "relabel", "train", "evaluate", "align", "export", "benchmark", "docs")

# Sends SIGINT to itself at the first import of a module; an empty name, before all.
AT_IMPORT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
wanted = sys.argv.pop(1)
def hook(event, arguments):
    global wanted
    if event == "import" and arguments[0] == wanted:
        wanted = None
        signal.raise_signal(signal.SIGINT)
sys.addaudithook(hook)
from dhm_cli.__main__ import main
main()
"""


def interrupted_at(module: str, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", AT_IMPORT, module, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("typer", "align"),
        ("dhm_cli.cli.lines", "prepare"),
        ("rich", "--help"),
        ("numpy", "align"),
        ("numpy._core._multiarray_umath", "benchmark"),
        ("onnxruntime.capi._pybind_state", "align"),
        ("torch", "export"),
    ],
)
def test_ctrl_c_within_an_import_ends_with_one_word(module: str, command: str, tmp_path: Path) -> None:
    """It ended in a traceback of the half imported library, or of the import of typer."""
    (tmp_path / "a.jpg").write_text("")
    checkpoint = shutil.copy(ROOT / "dhm_cli" / "weights" / "fast.safetensors", tmp_path)
    arguments = {"align": ["a.jpg"], "prepare": ["."], "export": ["--model", checkpoint]}.get(command, [])
    done = interrupted_at(module, tmp_path, command, *arguments)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version(option: str) -> None:
    result = CliRunner().invoke(app, [option])
    assert (result.exit_code, result.stdout) == (0, f"dhm {__version__}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_a_short_name(command: str) -> None:
    result = CliRunner().invoke(app, [command, "-h"])
    assert result.exit_code == 0
    assert f"Usage: dhm {command}" in result.stdout.replace("root", "dhm")


@pytest.mark.parametrize("arguments", [("export",), ("benchmark",), ("evaluate", "--data", "a.h5")])
def test_networks_without_an_option_are_refused_with_the_new_spelling(arguments: tuple[str, ...]) -> None:
    """They were positional."""
    result = CliRunner().invoke(app, [*arguments, "a.safetensors"])
    assert result.exit_code == 1
    assert "hint: pass --model a.safetensors" in result.stderr
    usage = CliRunner().invoke(app, [arguments[0], "-h"]).stdout.split("Usage: ")[1].splitlines()[0]
    assert usage.strip().endswith("[OPTIONS]")


def test_errors_wrap_and_cannot_act_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were lines of any length, with the escape sequences that a file name held."""
    name = "\x1b]0;title\x07/" + "x" * 90 + ".jpg"

    def failing(*_: object) -> None:
        raise DhmError(
            f"{name}: " + "cannot be used " * 12, "name another\nor: dhm align --out table.csv " + "so " * 30
        )

    monkeypatch.setattr(main.TyperGroup, "invoke", failing)
    result = CliRunner().invoke(app, ["align", "a.jpg"])
    assert result.exit_code == 1
    assert "\x1b" not in result.stderr
    lines = result.stderr.splitlines()
    assert lines[0] == "error: \\x1b]0;title\\x07/" + "x" * 90 + ".jpg:"
    assert max(len(line) for line in lines if "xxx" not in line) <= 80
    assert "hint: name another" in lines
    assert "or: dhm align --out table.csv so so" in folded(result.stderr)
    assert all(line.startswith(("error:", "hint:", "      ")) for line in lines)
