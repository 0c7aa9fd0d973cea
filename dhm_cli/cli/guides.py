"""What `--help` ends with: examples for a clone of the repository, and the pages of `dhm docs` that say more."""

import re
import shlex
import textwrap
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand

from dhm_cli.cli.lines import WIDTH, say
from dhm_cli.errors import InputError


class Guide(NamedTuple):
    """What stands below the options of a command.

    Attributes:
        examples: what a line does, and the line.
        topics: pages of `dhm docs`.
    """

    examples: tuple[tuple[str, str], ...]
    topics: tuple[str, ...] = ()


# Typed in a clone in this order, those of prepare to export first, each works; but for those with names in capitals.
GUIDES = {
    "align": Guide(
        (
            ("a table of all faces, and a page to look at", "dhm align sample_data/photos --gallery faces.html"),
            (
                "drawn on copies of the photos, by the more accurate network",
                "dhm align sample_data/photos --overlay drawn --model fast-x2",
            ),
            ("a video", "dhm align sample_data/faces.mp4 --out clip.csv --overlay drawn.mp4"),
            (
                "the largest face of each photo, to another program",
                "dhm align sample_data/photos --largest --out - --format jsonl",
            ),
            (
                "a dense face of each, and named expressions",
                "dhm align sample_data/photos --mesh meshes --blendshapes --out faces.csv",
            ),
        ),
        ("align", "video", "dense", "scale", "conventions"),
    ),
    "prepare": Guide(
        (
            (
                "made-up faces and face model, to see every step work",
                "dhm prepare sample_data/faces --bfm sample_data/toy_bfm.mat --table sample_data/faces.csv",
            ),
            ("the real ones, which are yours to get", "dhm prepare 300W_LP AFLW2000 --bfm BFM.mat"),
            ("look into a store, and check it", "dhm prepare --show data/faces.h5 --check data/faces.h5"),
        ),
        ("preparing", "conventions"),
    ),
    "relabel": Guide(
        (("what a network and the human points agree on", "dhm relabel data/faces.h5 --model fast-x2"),),
        ("preparing",),
    ),
    "train": Guide(
        (
            ("a minute, to see it work", "dhm train --arch fast --steps 20 --batch 8 --validate-every 10"),
            ("go on with a run that was stopped", "dhm train --out runs/fast --resume"),
            (
                "from a trained network, with the settings of its run",
                "dhm train --config runs/fast/config.toml --init runs/fast/best.safetensors --out runs/more",
            ),
            ("the largest network, on four GPUs", "torchrun --nproc-per-node 4 -m dhm_cli train --arch rhg"),
        ),
        ("training", "papers"),
    ),
    "evaluate": Guide(
        (
            ("a page with tables and charts", "dhm evaluate --data data/faces.h5 --report report"),
            (
                "your network and the shipped one on the same faces",
                "dhm evaluate --model runs/fast/best.safetensors --against fast --data data/faces.h5",
            ),
            ("the points of any other method", "dhm evaluate --predictions POINTS.csv --data data/faces.h5"),
            ("jitter and lag in videos made of a photo", "dhm evaluate --video sample_data/photos/astronaut.png"),
        ),
        ("evaluating", "conventions"),
    ),
    "export": Guide(
        (
            ("the file that dhm align takes", "dhm export --model runs/fast/best.safetensors"),
            (
                "half its size; refused if it is worse on these faces",
                "dhm export --model runs/fast/best.safetensors --precision float16 --data data/faces.h5 -o half.onnx",
            ),
        ),
        ("training",),
    ),
    "benchmark": Guide(
        (
            ("about a minute", "dhm benchmark --device cpu --threads 1"),
            (
                "whole photos and folders, in two processes too",
                "dhm benchmark --model fast --level folder --processes 2",
            ),
            (
                "all networks, speed against accuracy",
                "dhm benchmark --model all --accuracy report/report.json --plot speed.png",
            ),
        ),
        ("benchmarking", "scale"),
    ),
    "doctor": Guide(
        (("what is installed, and one timed face", "dhm doctor"), ("the same for a program", "dhm doctor --json"))
    ),
    "docs": Guide((("the list of topics", "dhm docs"), ("one of them", "dhm docs conventions"))),
}


class GuidedCommand(TyperCommand):
    """A command whose help ends with its guide."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, then the examples as they are typed, broken before options only."""
        super().format_help(ctx, formatter)
        guide = GUIDES[str(self.name)]
        typer.secho(" Examples", bold=True)
        for what, line in guide.examples:
            typer.secho(f"   # {what}", dim=True)
            typer.echo(textwrap.indent(typed(line, WIDTH - 4), "   "))
        if guide.topics:
            first, *others = guide.topics
            typer.echo(f"\n More: dhm docs {first}" + f"; also {', '.join(others)}" * bool(others))


def typed(line: str, width: int) -> str:
    """A command in lines that a shell takes as one, broken before options."""
    glued = re.sub(r" (?!-)", "\0", line)
    lines = textwrap.wrap(glued, width - 2, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
    return " \\\n".join(lines).replace("\0", " ")


class NetworkCommand(GuidedCommand):
    """A command that takes no names but by options, and tells who names networks without, as was usual before."""

    allow_extra_args = True

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options.

        Raises:
            InputError: something is named without an option.
        """
        rest = super().parse_args(ctx, args)
        if ctx.args:
            options = " ".join(f"--model {name}" for name in ctx.args)
            raise InputError(f"{ctx.args[0]}: a network is named by an option", f"pass {options}")
        return rest


def say_next(command: str, *more: object) -> None:
    """Name the natural next command on standard error, ready to be typed.

    Args:
        command: its beginning.
        more: words that may need quotes, such as paths.
    """
    say(f"next: {' '.join([command, *(shlex.quote(str(word)) for word in more)])}", indent="  ", err=True)


def say_same_with(options: str, what: str) -> None:
    """Name what more the command could have done, on standard error.

    Args:
        options: as typed.
        what: they do.
    """
    say(f"next: the same with {options} {what}", indent="  ", err=True)
