"""Every command and every Python block in README and docs runs, on small files that bear the names of people's own.

What would take hours is made short by options added to the command (`SHORTER`); what needs what a test has not, a
network connection or a GPU, is parsed by the command itself, all options and values included (`PARSED_ONLY`).
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import typer
from places import ROOT
from printed import folded
from synthetic_faces import write_pts
from typer.testing import CliRunner

from dhm_cli.cli.main import app
from dhm_cli.config.toml import read_toml
from dhm_cli.inference.aligner import Aligner

PAGES = (ROOT / "README.md", *sorted((ROOT / "dhm_cli" / "docs").glob("*.md")))
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_BRIEF = "--steps 1 --batch 2 --validate-every 1 --workers 0 --threads 1"
# Pattern of a command -> what is replaced in it, and by what.
SHORTER = (
    (r"dhm train .*--(epochs|steps) \d+", r" --(epochs|steps) \d+", ""),
    (r"dhm train .*--batch", r" --batch \d+", ""),
    (r"dhm train .*--validate-every", r" --validate-every \d+", ""),
    (r"dhm train .*--arch rhg", "$", " --config small-rhg.toml"),
    (r"dhm train .*--ablation", "$", " --config small-dhm.toml"),
    (r"dhm train", "$", f" {_BRIEF}"),
    (r"dhm benchmark", "$", " --runs 2 --engine onnxruntime --level network --batch 1"),
)
PARSED_ONLY = (
    (r"s3://", "no store at hand"),
    (r"--camera", "no camera at hand"),
    (r"--ray", "Ray is not installed with the tests; tests/distributed run what is behind it"),
    (r"--device cuda", "no GPU at hand"),
    (r"--level folder", "half a minute of processes; tests/cli/test_benchmark.py starts them"),
)
_EXTRAS = {"--video|clip\\.mp4|faces\\.mp4": "av", r"\.parquet": "pyarrow"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    def commands(self) -> list[str]:
        """The commands of a block of a shell, comments left out."""
        joined = self.text.replace("\\\n", " ")
        return [" ".join(line.split()) for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            found.append(Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2]))
    return [block for block in found if block.language in languages]


def test_every_block_is_of_a_kind_that_is_looked_at() -> None:
    """Those without a language are drawings and formulas."""
    languages = {match[1] for page in PAGES for match in _FENCE.finditer(page.read_text(encoding="utf-8"))}
    assert languages <= {"sh", "console", "python", "toml", ""}
    assert not [b for b in blocks("") if re.search(r"^\s*(\$ |dhm |import |from )", b.text, re.M)]


def run(command: str) -> str:
    """Run a command in this process where it is `dhm` alone; returns what it printed."""
    if "|" in command:
        return _in_a_shell(command)
    words = shlex.split(command)
    assert words[0] == "dhm", f"no test knows this command: {command}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        result = CliRunner(env={"COLUMNS": "80"}).invoke(app, words[1:])
    assert result.exit_code == 0, f"$ {command}\n{result.output}\n{result.exception!r}"
    return result.output


def _in_a_shell(command: str) -> str:
    tools = Path("tools")
    tools.mkdir()
    (tools / "dhm").write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m dhm_cli "$@"\n')
    (tools / "dhm").chmod(0o755)
    path = f"{tools.resolve()}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", command], env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"$ {command}\n{done.stderr}"
    return done.stdout


def parse(words: list[str]) -> None:
    """Let a subcommand parse its options and values, and go no further."""
    commands: Any = typer.main.get_command(app)
    command = commands.commands[words[0]]
    command.make_context(words[0], list(words[1:]))


def check(command: str) -> str:
    """Run a command of a page, or what can be run of it."""
    words = shlex.split(command)
    if words[0] == "pip":
        for extra in re.findall(r"\[(\w+)\]", command):
            assert extra in read_toml(ROOT / "pyproject.toml")["project"]["optional-dependencies"], command
        return ""
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M), command
        return ""
    if words[0] == "export":
        return ""
    if words[0] == "torchrun":  # needs several processes, which tests/two_hosts.py starts
        from torch.distributed.run import get_args_parser

        parsed = get_args_parser().parse_args(words[1:])
        assert parsed.training_script == "dhm_cli"
        parse(parsed.training_script_args)
        return ""
    if any(re.search(pattern, command) for pattern, _ in PARSED_ONLY):
        parse(words[1:])
        return ""
    for pattern, old, new in SHORTER:
        if re.search(pattern, command):
            command = re.sub(old, new, command)
    return run(command)


@pytest.fixture
def brief(no_charts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What commands do beside their work takes no time: charts, the benchmark's baselines, long made videos."""
    from dhm_cli.benchmark import baselines, bench, measured_networks, timing
    from dhm_cli.evaluation import made_video
    from dhm_cli.training import run_folder

    monkeypatch.setattr(run_folder, "save_learning_curve", lambda path, rows, warmup: None)
    monkeypatch.setattr(measured_networks, "BASELINES", {baselines.REFERENCE: 0.5})
    monkeypatch.setattr(baselines, "_BLOCKS", ((64, 2),))
    monkeypatch.setattr(timing, "_WARM_UP_SECONDS", 0)
    monkeypatch.setattr(bench, "peak_of_network", lambda *_: 50_000_000)
    monkeypatch.setattr(made_video, "FRAMES", 24)


@pytest.mark.usefixtures("workplace", "brief")
@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_commands_run(block: Block) -> None:
    if "300VW" in block.text:
        write_300vw()
    for settings in blocks("toml"):
        Path("doubts.toml").write_text(settings.text)
    for command in block.commands():
        for pattern, module in _EXTRAS.items():
            if re.search(pattern, command):
                pytest.importorskip(module)
        if command.startswith("dhm train") and "--out" not in command:  # a network of another training lies there
            arch = re.search(r"--arch (\S+)", command)
            shutil.rmtree(f"runs/{arch[1] if arch else 'fast'}", ignore_errors=True)
        check(command)


def write_300vw() -> None:
    """A video in the layout of 300VW: one photo, held still, with its landmarks."""
    photo = cv2.imread("photo.jpg")
    (face,) = Aligner(device="cpu").align(photo, bgr=True)
    Path("300VW/001/annot").mkdir(parents=True)
    video = cv2.VideoWriter("300VW/001/vid.avi", cv2.VideoWriter_fourcc(*"MJPG"), 25, photo.shape[1::-1])
    for number in range(1, 5):
        video.write(photo)
        write_pts(Path(f"300VW/001/annot/{number:06d}.pts"), face.landmarks, np.ones(68, int))
    video.release()


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("block", blocks("console"), ids=str)
def test_commands_print_what_the_page_says(block: Block) -> None:
    """`…` stands for anything; what a command names as the next one is left out."""
    pytest.importorskip("av")
    for part in block.text.split("$ ")[1:]:
        command, expected = part.split("\n", 1)
        pattern = re.escape(folded(expected)).replace("…", ".*").replace(r"\ .*", ".*")
        printed = folded(check(command))
        assert re.fullmatch(pattern + "( next: .*)?", printed), f"$ {command}\n{printed}"


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_runs(block: Block) -> None:
    pandas = pytest.importorskip("pandas")
    image = cv2.cvtColor(cv2.imread("photo.jpg"), cv2.COLOR_BGR2RGB)
    truth = np.random.default_rng(0).uniform(0, 200, (60, 68, 2))
    predicted = truth + np.random.default_rng(1).normal(0, 2, truth.shape)
    nme = np.linspace(1, 7, 60)
    names = {
        **{"paths": ["photo.jpg"], "frames": [image] * 2, "photos": Photos(pandas), "pandas": pandas},
        **{"daft": SimpleNamespace(udf=lambda return_dtype: lambda explode: explode(["photo.jpg"]))},
        **{"schema": None, "faces": None, "predicted": predicted, "truth": truth, "other_nme": nme},
        "yaw": np.linspace(-90, 90, 60),
    }
    exec(compile(block.text, str(block), "exec"), names)


class Photos:
    """What Ray Data and Spark do with a class and with a function: give it batches, and take what it returns."""

    def __init__(self, pandas: Any) -> None:
        self._pandas = pandas

    def map_batches(self, kind: Any, fn_constructor_kwargs: dict[str, Any], batch_size: int, concurrency: int) -> None:
        assert kind(**fn_constructor_kwargs)({"path": np.array(["photo.jpg"])}).num_rows == 1
        assert batch_size > concurrency

    def mapInPandas(self, function: Any, schema: None) -> None:
        (table,) = function([self._pandas.DataFrame({"path": ["photo.jpg"]})])
        assert list(table["status"]) == ["ok"]
