"""`dhm doctor`."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from dhm_cli.cli.guides import say_next
from dhm_cli.cli.lines import say

if TYPE_CHECKING:
    from dhm_cli.inference.installation import Installation


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with whole hashes, and nothing else.")] = False,
) -> None:
    """Tell what is installed, what this machine can do, and whether a face is found.

    The exit code is 1 when something that dhm needs is missing or broken.
    """
    from dhm_cli.inference.installation import examine

    found = examine()
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=1))
    else:
        _print(found)
    if found.problems:
        raise typer.Exit(1)
    if not as_json:
        say_next("dhm align photos --gallery faces.html")


def _print(found: "Installation") -> None:
    from dhm_cli.inference.installation import EXTRAS

    known, machine = found.environment, found.machine
    commit = f", commit {known['commit'][:12]}{'+' * known['commit'].endswith('+')}" if known["commit"] else ""
    say(f"dhm {known['dhm']}{commit}, Python {known['python']}, {known['platform']}", indent="  ")
    here = ", ".join(f"{p.name} {p.found}" for p in found.packages if p.found and not p.extra)
    say(f"packages: {here or 'dhm is not installed here, so which it needs is not known'}", indent="  ")
    memory = f", {machine['memory_bytes'] / 2**30:.0f} GiB" if machine["memory_bytes"] else ""
    say(
        f"processor: {known['processor'] or machine['architecture']}, {machine['available_cores']} of {known['cores']} "
        f"cores{memory}; {' '.join(machine['instructions']) or 'instructions unknown'}",
        indent="  ",
    )
    say(f"GPU: {found.gpu or 'unknown'}; ONNX Runtime has {', '.join(found.providers) or 'nothing'}", indent="  ")
    say(f"weights: {found.weights_folder}", indent="  ")
    for file in found.weights:
        say(
            f"  {file.sha256[:16] or '-':16}  {file.name}{'' if file.shipped else ': NOT as it was shipped'}",
            indent="    ",
        )
    say("extras:")
    for extra, purpose in EXTRAS.items():
        wanted = [package for package in found.packages if package.extra == extra]
        versions = ", ".join(f"{package.name} {package.found}" for package in wanted if package.found)
        there = bool(wanted) and all(package.fits for package in wanted)
        missing = f"missing; pip install 'dhm-cli[{extra}]'"
        say(f"  {extra}, {purpose}: {versions if there else missing}", indent="    ")
    if found.face:
        say(
            f"one face: {found.face.median_ms:.1f} ms from JPEG to landmarks, after a start of "
            f"{found.face.start_s:.2f} s; confidence {found.face.confidence:.2f}",
            indent="  ",
        )
    for problem in found.problems:
        say(problem, indent="       ", err=True, start="error: ")
    if not found.problems:
        say("all that dhm needs is here and works")
