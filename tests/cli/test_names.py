"""Completion by the shell, asked for as a shell asks: names come from the lists that the commands read."""

import os
import subprocess
import sys

import pytest
from places import ROOT

from dhm_cli.benchmark.plan import LEVELS
from dhm_cli.benchmark.runners import CPU_ENGINES, CUDA_ENGINES
from dhm_cli.cli import benchmark
from dhm_cli.config.recipes import ARCHS
from dhm_cli.datasets.catalogue import DATASETS
from dhm_cli.docs.topics import TOPICS
from dhm_cli.drawing.heads import PARTS
from dhm_cli.geometry.landmarks import GROUPS
from dhm_cli.inference.columns import COLUMN_GROUPS
from dhm_cli.inference.weights import EMBEDDED

# Prints what is completed, and on standard error whether torch was loaded for it.
ASK = """
import atexit, sys
atexit.register(lambda: print("torch" in sys.modules, file=sys.stderr))
from dhm_cli.__main__ import main
main()
"""


def completed(line: str) -> list[str]:
    """What a shell offers at the end of a line."""
    words = line.split(" ")
    environment = {"PYTHONPATH": str(ROOT), "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env={**os.environ, **environment, "_DHM_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == "False\n"
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("dhm ali", ["align"]),
        ("dhm align --model ", EMBEDDED),
        ("dhm align --model runs/", ()),  # files are then the shell's
        ("dhm align --draw ", PARTS),
        ("dhm align --draw points,b", ["points,box"]),
        ("dhm align --columns ", COLUMN_GROUPS),
        ("dhm align --crop-style ", ["face", "ffhq", "arcface"]),
        ("dhm evaluate --against ", EMBEDDED),
        ("dhm relabel --follow-prior ", GROUPS),
        ("dhm train --arch ", ARCHS),
        ("dhm prepare --format ", ["auto", *DATASETS]),
        ("dhm benchmark --model ", [*ARCHS, "all"]),
        ("dhm benchmark --level ", LEVELS),
        ("dhm benchmark --engine onnx", ["onnxruntime"]),
        ("dhm docs e", ["evaluating"]),
        ("dhm docs ", TOPICS),
    ],
)
def test_names_are_completed_without_torch(line: str, offered: object) -> None:
    assert completed(line) == list(offered)  # type: ignore[call-overload]


def test_engines_are_those_of_both_devices() -> None:
    """The completion has a list of its own, since theirs loads torch."""
    assert set(benchmark._ENGINES) == {*CPU_ENGINES, *CUDA_ENGINES}
