"""What `--help` ends with: examples that work, on lines that a terminal of 80 columns shows whole."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main
from places import ROOT, SAMPLE_DATA
from printed import folded
from typer.testing import CliRunner

from dhm_cli.cli.guides import GUIDES, GuidedCommand, typed
from dhm_cli.cli.main import app

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
GUIDED = [name for name, command in COMMANDS.items() if isinstance(command, GuidedCommand)]
DOCS = ROOT / "dhm_cli" / "docs"
EXAMPLES = [line for guide in GUIDES.values() for _, line in guide.examples]
# Those that take seconds and need no other file than sample_data and what an earlier one wrote.
QUICK = [
    *(line for _, line in GUIDES["align"].examples),
    *(GUIDES["prepare"].examples[k][1] for k in (0, 2)),
    *(line for _, line in GUIDES["relabel"].examples),
    GUIDES["train"].examples[0][1],
    *(line for _, line in GUIDES["doctor"].examples),
    *(line for _, line in GUIDES["docs"].examples),
]


def words_of(line: str) -> list[str]:
    """The arguments of an example, without the program."""
    words = shlex.split(line)
    return words[words.index("dhm_cli") + 1 :] if words[0] == "torchrun" else words[1:]


def test_every_guide_has_its_command() -> None:
    assert set(GUIDED) == set(GUIDES)


@pytest.mark.parametrize("name", GUIDED)
def test_help_is_whole_at_80_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, [name, "--help"]).stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert not re.search(r"\w…", shown), "a name is cut off"
    joined = re.sub(r" \\\n\s+", " ", shown)
    for what, line in GUIDES[name].examples:
        assert f"   # {what}\n   {line}\n" in joined
    if GUIDES[name].topics:
        assert f" More: dhm docs {GUIDES[name].topics[0]}" in shown


def test_a_long_command_is_broken_before_options_only() -> None:
    assert typed("dhm x --a 1 --b 2 3 --c 4", 14) == "dhm x --a 1 \\\n  --b 2 3 \\\n  --c 4"


@pytest.mark.parametrize("topic", sorted({topic for guide in GUIDES.values() for topic in guide.topics}))
def test_the_pages_named_are_there(topic: str) -> None:
    assert (DOCS / f"{topic}.md").is_file()


@pytest.mark.parametrize("line", EXAMPLES)
def test_examples_are_understood(line: str) -> None:
    name, *arguments = words_of(line)
    command = COMMANDS[name]
    command.make_context(name, arguments)  # raises where an option or a value is not known


def test_quick_examples_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sample_data").symlink_to(SAMPLE_DATA)
    monkeypatch.chdir(tmp_path)
    named = {}
    for line in QUICK:
        result = CliRunner().invoke(app, words_of(line))
        assert result.exit_code == 0, (line, result.output)
        if "next: " in result.stderr:
            named.setdefault(words_of(line)[0], folded(result.stderr.split("next: ")[1]))
    assert named == {
        "align": "open faces.html in a browser",
        "prepare": "dhm train --arch fast --data data/faces.h5",
        "relabel": "dhm train --arch fast --data relabelled/faces.h5",
        "train": "dhm evaluate --model runs/fast/best.safetensors --data data/faces.h5",
        "doctor": "dhm align photos --gallery faces.html",
    }
    written = {path.name for path in tmp_path.iterdir()}
    assert written >= {"landmarks.csv", "faces.html", "drawn", "clip.csv", "drawn.mp4", "meshes", "faces.csv", "data"}
    assert Path("runs/fast/best.safetensors").is_file()


@pytest.mark.parametrize("arguments", [[], ["align"]])
def test_nothing_named_is_answered_with_a_command_that_works(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    said = result.stdout if not arguments else result.stderr
    assert "dhm align photos --gallery faces.html" in said
    assert len(said.splitlines()) <= 5
    assert max(map(len, said.splitlines())) <= 80
    assert result.exit_code == len(arguments)
