"""`dhm align --ray`."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from dhm_cli.cli.lines import count, say
from dhm_cli.cli.progress import counted_on

_LISTED = 20


def align_with_ray(
    paths: Sequence[str | os.PathLike[str]],
    out: Sequence[str],
    address: str,
    refused: Mapping[str, object],
    **options: Any,
) -> None:
    """Align photos on a Ray cluster, with a bar; see `distributed.ray_data.align_on_ray`.

    Args:
        paths, options: see there.
        out: must be one folder.
        address: of the cluster.
        refused: options that do not go with it, by their names; each None where it is not given.

    Raises:
        InputError: one of them is given.
    """
    from tqdm import tqdm

    from dhm_cli.distributed.ray_data import align_on_ray
    from dhm_cli.errors import InputError
    from dhm_cli.inference.results import NO_FACE, UNREADABLE

    for name, value in refused.items():
        if value is not None:
            raise InputError(f"--{name}: does not go with --ray", "leave it out")
    if len(out) != 1:
        raise InputError("--ray: writes one folder", "pass one --out")
    with tqdm(unit=" photos", disable=None) as bar:
        report = align_on_ray(paths, out[0], address, progress=counted_on(bar), **options)
    for problem in report.broken_packs[:_LISTED]:
        say(f"warning: not read to the end: {problem}", "    ", err=True)
    counts = report.counts
    kept = f" and {report.kept:,} of the interrupted run" if report.kept else ""
    doubtful = f" ({counts['doubtful']} doubtful)" if counts["doubtful"] else ""
    say(
        f"{out[0]}: {count(counts['photos'], 'photo')}{kept}, {count(counts['faces'], 'face')}{doubtful}, "
        f"{counts[NO_FACE]} without a face, {counts[UNREADABLE]} unreadable, see the column reason; "
        f"{counts['photos'] / max(report.seconds, 1e-6):.1f} photos/s"
    )
    if counts[UNREADABLE] or report.broken_packs:
        raise typer.Exit(1)
