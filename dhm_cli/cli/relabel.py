"""`dhm relabel`."""

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dhm_cli.cli.guides import say_next
from dhm_cli.cli.lines import say
from dhm_cli.cli.names import completed, networks
from dhm_cli.cli.progress import shown_on
from dhm_cli.cli.tables import print_table
from dhm_cli.errors import InputError

if TYPE_CHECKING:
    from dhm_cli.preparation.relabel import RelabelJob, RelabelReport

_LABELS, _STORES, _MACHINE = "Labels", "Stores", "Machine"


def relabel(
    stores: Annotated[
        list[str],
        typer.Argument(
            help="Stores of dhm prepare, each with a file of prior points if there is one: faces.h5 or "
            "faces.h5=points.npz. The human points of the first decide where on a face a landmark is."
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="The network that is asked: fast, fast-x2, or a file of dhm train or dhm export.",
            autocompletion=networks,
            rich_help_panel=_LABELS,
        ),
    ] = "fast-x2",
    follow_prior: Annotated[
        list[str] | None,
        typer.Option(
            help="A part of the face (jaw, brows, nose, eyes or mouth) whose labels follow the convention of the first "
            "store's prior instead. Repeatable.",
            autocompletion=completed("geometry.landmarks", "GROUPS"),
            show_default=False,
            rich_help_panel=_LABELS,
        ),
    ] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(
            help="Trust in the human points of a store, as in faces=0.5; 1 where nothing is said. Repeatable.",
            show_default=False,
            rich_help_panel=_LABELS,
        ),
    ] = None,
    follow_human: Annotated[
        bool,
        typer.Option(
            "--follow-human/--fit-only",
            help="Labels are the fit and what the human points deviate from it, or the fit alone.",
            rich_help_panel=_LABELS,
        ),
    ] = True,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new stores.", rich_help_panel=_STORES)] = Path(
        "relabelled"
    ),
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where the network runs.", rich_help_panel=_MACHINE)
    ] = "auto",
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Replace files of another kind that have the names of outputs.", rich_help_panel=_STORES
        ),
    ] = False,
) -> None:
    """Fit the labels of stores again, with a trained network's landmarks beside the human points (self-training).

    Brings the sources to one convention, fits the face model to their weighted mean, flags training faces on which
    they disagree, and adds to the fit what the human points deviate from it: a stiff fit lies 2 % of the face from
    them, and neighbours deviate alike. Validation faces are fitted without the network and never flagged; test faces
    are not touched.
    """
    from tqdm import tqdm

    from dhm_cli.data.store import is_store
    from dhm_cli.drawing.png_mark import is_our_png
    from dhm_cli.inference.engines import load_engine
    from dhm_cli.morphable.face_model import is_face_model
    from dhm_cli.morphable.location import FACE_MODEL, face_model_beside
    from dhm_cli.preparation.relabel import picture_of, relabel_stores
    from dhm_cli.runtime.outputs import check_output

    jobs = _jobs(stores, trust or [])
    read = [Path(model), *(job.store for job in jobs), *(job.prior for job in jobs if job.prior)]
    for job in jobs:
        check_output(out / job.store.name, "--out", "a store of dhm", is_store, read, force)
        picture = picture_of(out / job.store.name)
        check_output(picture, "--out", "a picture that dhm drew", is_our_png, read, force)
    check_output(out / FACE_MODEL, "--out", "a face model of dhm", is_face_model, read, force)
    engine = load_engine(device, model, face_model=face_model_beside(jobs[0].store))
    with tqdm(unit="face", smoothing=0.1, disable=None) as bar:
        try:
            reports = relabel_stores(
                jobs, engine, out, follow_prior or [], follow_human, shown_on(bar), Path(model).stem
            )
        except KeyboardInterrupt:
            bar.close()
            say("stopped; the same command goes on from here", err=True)
            raise
    _print(reports)
    say_next("dhm train --arch fast", *chain(*(("--data", report.store) for report in reports)))


def _jobs(stores: list[str], trust: list[str]) -> "list[RelabelJob]":
    from dhm_cli.preparation.relabel import RelabelJob

    trusted = dict(_trust(text) for text in trust)
    jobs = []
    for text in stores:
        stem, equals, prior = text.partition(".h5=")  # folders may have an equals sign in their names
        file = f"{stem}.h5" if equals else text
        if equals and not prior:
            raise InputError(f"{text}: no file of prior points after the equals sign", f"write {file}=POINTS.npz")
        jobs.append(RelabelJob(Path(file), Path(prior) if prior else None, trusted.pop(Path(file).stem, 1.0)))
    if trusted:
        known = ", ".join(job.store.stem for job in jobs)
        raise InputError(f"--trust {next(iter(trusted))}: no such store", f"known are: {known}")
    return jobs


def _trust(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        value = float(number)
        if not 0 <= value <= 1:
            raise ValueError
    except ValueError:
        raise InputError(f"--trust {text}: expected a number from 0 to 1", "write STORE=0.5") from None
    return name, value


def _print(reports: "list[RelabelReport]") -> None:
    rows = []
    for r in reports:
        cells = [r.store.name, f"{r.faces:,}", f"{r.left_out:,}", f"{r.bias:+.2f}", *(f"{x:.2f}" for x in r.moved)]
        rows.append(cells)
    print_table(("store", "faces", "left out", "human bias", "moved", "95 %"), rows)
    say("bias (to the right) and distances in percent of the face size; mean disagreements:")
    for r in reports:
        compared = (f"{name} {value:.2f} ({r.reasons[name]:,} left out)" for name, value in r.agreement.items())
        say(f"{r.store.name}: {', '.join(compared)}", indent="  ")
    say(f"pictures: {', '.join(str(r.picture) for r in reports)}", indent="  ")
    say("in them the old labels are white, the new ones orange")
