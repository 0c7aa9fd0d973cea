"""The command `dhm`: one thin file per subcommand, each of which imports its workflow when it runs."""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dhm_cli.cli.align import align
from dhm_cli.cli.benchmark import benchmark
from dhm_cli.cli.docs import docs
from dhm_cli.cli.doctor import doctor
from dhm_cli.cli.evaluate import evaluate
from dhm_cli.cli.export import export
from dhm_cli.cli.guides import GuidedCommand, NetworkCommand
from dhm_cli.cli.lines import say
from dhm_cli.cli.prepare import prepare
from dhm_cli.cli.relabel import relabel
from dhm_cli.cli.train import train
from dhm_cli.errors import DhmError
from dhm_cli.runtime.interruption import INTERRUPTED, whole_imports
from dhm_cli.version import __version__

# OpenCV would tell of damaged photos in its own words beside ours; it reads this when it is imported.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")


_FIRST_WORDS = """dhm finds 68 3D landmarks of every face in photos and videos. To begin:

  dhm align photos --gallery faces.html   a folder; or photos, or a video
  dhm doctor                              whether all that is needed is there
  dhm --help                              all commands; dhm align --help: one"""


class Commands(TyperGroup):
    """The subcommands; what goes wrong in them becomes a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a subcommand: a DhmError ends with exit code 1, Ctrl-C with 130."""
        try:
            with whole_imports():
                return super().invoke(ctx)
        except DhmError as error:
            _complain(error.message, error.hint)
            raise typer.Exit(1) from error
        except BrokenPipeError:  # the reader of a pipe went away: typer ends quietly
            raise
        except OSError as error:  # what a disk or a path says: full, not a folder, no permission
            name = f"{error.filename}: " if error.filename else ""
            _complain(f"{name}{error.strerror or error}", "check the path, its permissions and the free space")
            raise typer.Exit(1) from error
        except KeyboardInterrupt as stop:
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from stop


def _complain(message: str, hint: str) -> None:
    for start, text in (("error: ", message), ("hint: ", hint)):
        if text:
            say(text, indent=" " * len(start), err=True, start=start)


app = typer.Typer(
    cls=Commands,
    name="dhm",
    help="68 three-dimensional facial landmarks from photos, large poses included.",
    rich_markup_mode="markdown",  # joins the lines of a docstring's paragraph
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command, kind, panel in (
    (align, GuidedCommand, "Find landmarks"),
    (prepare, GuidedCommand, "Make networks"),
    (relabel, GuidedCommand, "Make networks"),
    (train, GuidedCommand, "Make networks"),
    (evaluate, NetworkCommand, "Make networks"),
    (export, NetworkCommand, "Make networks"),
    (benchmark, NetworkCommand, "Know more"),
    (doctor, GuidedCommand, "Know more"),
    (docs, GuidedCommand, "Know more"),
):
    app.command(cls=kind, rich_help_panel=panel)(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dhm {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """68 three-dimensional facial landmarks from photos, large poses included."""
    if context.invoked_subcommand is None:
        typer.echo(_FIRST_WORDS)


def main() -> None:
    """Run the command line; `dhm_cli.__main__` calls it."""
    # File names that are not valid text in this locale are printed with their bytes escaped.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    app(prog_name="dhm")  # also where it was started as python -m dhm_cli
