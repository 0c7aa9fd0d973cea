"""`dhm evaluate`."""

import math
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dhm_cli.cli.progress import shown_on
from dhm_cli.morphable.location import DEFAULT_FACE_MODEL, existing_face_model

if TYPE_CHECKING:
    from rich.table import Table

_BINS = ("0-30", "30-60", "60-90", "mean_of_bins", "mean_of_images")
_METHOD, _TRUTH, _NUMBERS, _MACHINE = "Method", "Truth", "Numbers", "Machine"
# Headline numbers after which a line is drawn.
_SECTION_ENDS = ("60-90", "median")
# Faces without a pose error that are listed.
_EXCLUDED = 40


def evaluate(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="A network of dhm, .safetensors or .onnx, or fast or fast-x2, which come with the package. Default: "
            "fast.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path, typer.Option(help="The faces to score on, a store of dhm prepare (FILE.h5).", rich_help_panel=_TRUTH)
    ] = ...,  # type: ignore[assignment]
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Score these points of any method in place of a network: a table of dhm align (.csv), .json "
            "({name: 68 points, or a list of faces} or [{name, landmarks, pose}]), .npy (N,68,2|3) in the order of the "
            "sorted names, .npz with `names` and one such array, or a folder of .pts (1-based; all others 0-based). "
            "x and y in pixels, z toward the viewer. "
            "Matched by name; of several faces in a photo the one nearest to the true box counts.",
            show_default=False,
            rich_help_panel=_METHOD,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="What to call the method. Default: after its file.", show_default=False, rich_help_panel=_METHOD
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="Another network or file of predictions, FILE or NAME=FILE, to compare with by paired bootstrap. "
            "Repeatable.",
            show_default=False,
            rich_help_panel=_METHOD,
        ),
    ] = None,
    face_model: Annotated[
        Path | None,
        typer.Option(
            help="Face model of networks that regress its parameters. Default: face_model.h5 beside the store, or "
            f"{DEFAULT_FACE_MODEL.as_posix()}.",
            show_default=False,
            rich_help_panel=_METHOD,
        ),
    ] = None,
    labels: Annotated[
        Literal["original", "reannotated"],
        typer.Option(help="Which label set is the truth; reannotated is 2D.", rich_help_panel=_TRUTH),
    ] = "original",
    split: Annotated[
        Literal["train", "val", "test", "all"] | None,
        typer.Option(
            help="Which faces of the store. Default: test, or val where there are none.",
            show_default=False,
            rich_help_panel=_TRUTH,
        ),
    ] = None,
    protocol: Annotated[
        Literal["paper", "detector", "jitter"] | None,
        typer.Option(
            help="Where networks look. paper: the true box, squared, times sqrt(2). detector: the box of YuNet. "
            "jitter: true boxes that are shifted and scaled, for a robustness curve. Default: paper. With "
            "--predictions it says how they were made, and is for the networks of --against.",
            show_default=False,
            rich_help_panel=_TRUTH,
        ),
    ] = None,
    refine: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Extra passes of a network that crop around the landmarks found. Default: 0, with detector 1, as in "
            "dhm align.",
            show_default=False,
            rich_help_panel=_TRUTH,
        ),
    ] = None,
    normaliser: Annotated[
        Literal["bbox", "interocular", "diagonal"],
        typer.Option(
            help="What errors are divided by: sqrt(w*h) of the true points' box, the outer eye corners' distance "
            "(frontal faces only), or the box's diagonal.",
            rich_help_panel=_NUMBERS,
        ),
    ] = "bbox",
    threshold: Annotated[
        float, typer.Option(help="An NME above this, percent, is a failure.", rich_help_panel=_NUMBERS)
    ] = 6.0,
    missing: Annotated[
        Literal["fail", "skip"],
        typer.Option(
            help="Faces without a prediction: count them as failures, or leave them out.", rich_help_panel=_NUMBERS
        ),
    ] = "fail",
    replicates: Annotated[
        int, typer.Option(min=100, help="Bootstrap replicates of the 95 % intervals.", rich_help_panel=_NUMBERS)
    ] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.", rich_help_panel=_NUMBERS)] = 0,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Write report.html, report.json, the predictions, the NME of every face and charts to this folder. "
            "An evaluation that is stopped goes on from there.",
            show_default=False,
            rich_help_panel=_NUMBERS,
        ),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option(
            help="auto: the GPU where an NVIDIA driver and torch with CUDA are installed, else the CPU.",
            rich_help_panel=_MACHINE,
        ),
    ] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Faces are worked on by this many threads; default: one per core.",
            show_default=False,
            rich_help_panel=_MACHINE,
        ),
    ] = None,
) -> None:
    """Score landmarks: NME by yaw, failure rate, AUC, pose, with 95 % intervals, beside published results.

    Examples: dhm evaluate --data data/aflw2000-3d.h5 --report report

    dhm evaluate --predictions theirs.csv --data data/aflw2000-3d.h5 --against runs/fast/best.safetensors

    Numbers are percent of the face size, sqrt(w*h) of the true points' box; the definition of every one is in the
    report.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the threads share the work by faces, not within one
    from dhm_cli.runtime.interruption import deferred_interrupts

    with deferred_interrupts() as interrupted:  # Ctrl-C within the import of numpy would leave it half done
        from tqdm import tqdm

        from dhm_cli.evaluation.evaluate import EvaluationOptions
        from dhm_cli.evaluation.evaluate import evaluate as run
        from dhm_cli.evaluation.scores import Scoring
    if interrupted.is_set():
        raise KeyboardInterrupt
    options = EvaluationOptions(
        data=data,
        checkpoint=checkpoint,
        predictions=predictions,
        name=name,
        against=against or (),
        label_set=labels,
        split=split,
        protocol=protocol,
        refine=refine,
        scoring=Scoring(normaliser, threshold, missing == "skip", replicates, seed),
        report=report,
        device=device,
        threads=threads,
        face_model=face_model or existing_face_model(data),
        command=shlex.join(["dhm", *sys.argv[1:]]),
    )
    with tqdm(unit=" faces", disable=None, leave=False) as bar:
        numbers: list[dict[str, Any]] = []
        try:
            run(options, shown_on(bar), numbers.append)
        except KeyboardInterrupt:
            bar.close()
            kept = f"the same command goes on with the faces kept in {report}" if report else ""
            typer.echo(f"stopped; {kept or 'with --report FOLDER the faces done so far are kept'}", err=True)
            raise
        finally:  # the numbers, even where the report could not be written
            bar.close()
            for found in numbers:
                _print(found)
    if report is not None:
        typer.echo(f"report: {report / 'report.html'}")


def _print(report: dict[str, Any]) -> None:
    """The headline, the differences, the published rows and the rest, as tables."""
    from rich.console import Console

    console = Console()
    data, count = report["data"], report["n"]
    typer.echo(
        f"{report['method']['name']} on {data['file']}: {count:,} {data['split']} face{'s' * (count != 1)}, "
        f"{report['labels']} labels, protocol {report['protocol']}, NME in % by {report['normaliser']}"
    )
    for caveat in report["caveats"]:
        typer.echo(f"warning: {caveat}", err=True)
    console.print(_headline(report))
    for other in report["against"]:
        console.print(_comparison(report, other))
    console.print(_published(report))
    console.print(_parts(report))
    if report["robustness"]:
        console.print(_robustness(report["robustness"]))
    _print_rest(report)


def _headline(report: dict[str, Any]) -> "Table":
    """A row for each headline number, with its interval and the faces that it is of."""
    from rich.markup import escape
    from rich.table import Table

    labelled, floor, faces = report["nme_by_labelled_yaw"], report["noise_floor"], _faces(report)
    columns = [escape(report["method"]["name"]), "95 % interval", "faces"]
    columns += ["by labelled yaw"] if labelled else []
    columns += ["noise floor"] if floor else []
    table = _right_aligned(Table("", *columns))
    ends = _rows(report["intervals"])
    for name, value in _rows(report).items():
        cells = [f"[bold]{_number(value)}[/]", _interval(ends[name]), faces[name]]
        if labelled:
            count = f" ({labelled['bins'][name]})" if name in labelled["bins"] else ""
            cells.append(_number(labelled[name]) + count if name in labelled else "")
        if floor:
            cells.append(_number(floor[name]) if name in floor else "")
        table.add_row(_label(name, report), *cells, end_section=name in _SECTION_ENDS)
    return table


def _faces(report: dict[str, Any]) -> dict[str, str]:
    """How many faces each headline number is of, where some were not found also of how many."""
    totals = {**report["bins"], "mean_of_images": report["n"]}
    found = {name: report["measured"][name] for name in totals}
    shown = {name: f"{found[name]}" + f" of {total}" * (found[name] != total) for name, total in totals.items()}
    rates = dict.fromkeys(("failure_rate", "auc_7", "auc_8"), str(report["n"]))
    return {**shown, "mean_of_bins": "", "median": shown["mean_of_images"], **rates}


def _comparison(report: dict[str, Any], other: dict[str, Any]) -> "Table":
    """A row for each headline number of another method, with the difference and whether it is real."""
    from rich.markup import escape
    from rich.table import Table

    name = escape(report["method"]["name"])
    caption = f"paired bootstrap; means and median over the {other['difference']['common']:,} faces that both found"
    headings = ("", escape(other["name"]), f"{name} minus it", "95 % interval", f"{name} is")
    table = _right_aligned(Table(*headings, caption=caption, caption_justify="left"))
    theirs = _rows(other)
    for row, change in _rows(other["difference"]).items():
        shown = "-" if math.isnan(change["value"]) else f"{change['value']:+.2f}"
        cells = [_number(theirs[row]), shown, _interval(change["interval"]), change["verdict"]]
        table.add_row(_label(row, report), *cells, end_section=row in _SECTION_ENDS)
    return table


def _right_aligned(table: "Table") -> "Table":
    """The table with all columns but the first aligned to the right."""
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _rows(numbers: dict[str, Any]) -> dict[str, Any]:
    """The headline numbers, their intervals or their differences by row of the table."""
    rate, auc = numbers["failure_rate"], numbers["auc"]
    rate = rate["value"] if isinstance(rate, dict) and "threshold" in rate else rate
    rows = {name: numbers["nme"][name] for name in _BINS}
    return {**rows, "median": numbers["median"], "failure_rate": rate, "auc_7": auc["7"], "auc_8": auc["8"]}


def _label(name: str, report: dict[str, Any]) -> str:
    others = {"median": "median NME", "auc_7": "AUC@7", "auc_8": "AUC@8"}
    others["failure_rate"] = f"failures beyond {report['failure_rate']['threshold']:g} %"
    shown = f"|yaw| {name}" if name[0].isdigit() else name.replace("_", " ")
    return others.get(name, f"NME, {shown}")


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _interval(ends: Sequence[float]) -> str:
    return "too few" if math.isnan(ends[0]) else f"{ends[0]:.2f} to {ends[1]:.2f}"


def _published(report: dict[str, Any]) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    published, labels = report["published"], report["labels"]
    title = None if published["comparable"] else f"NOT comparable with this run: {published['why_not']}"
    caption = f"AFLW2000-3D, {labels} labels. A: BMVC 2018, B: Fast DHM. Known slips: {' '.join(published['slips'])}"
    headings = ("0-30", "30-60", "60-90", "mean", "CPU FPS", "MB", "table")
    table = _right_aligned(Table("as published", *headings, title=title, caption=caption))
    table.title_justify = table.caption_justify = "left"
    nme = [f"[bold]{_number(report['nme'][name])}[/]" for name in _BINS[:4]]
    table.add_row(f"[bold]{escape(report['method']['name'])}[/], this run", *nme, end_section=True)
    for row in published["rows"]:
        if row[labels]:
            size = "" if row["size_mb"] is None else f"{row['size_mb']:g}"
            cells = [*(f"{value:.2f}" for value in row[labels]), row["cpu_fps"] or "", size, row["source"]]
            table.add_row(row["name"], *cells, style="" if published["comparable"] else "dim")
    return table


def _parts(report: dict[str, Any]) -> "Table":
    from rich.table import Table

    table = _right_aligned(Table("points", *(name.replace("_", " ") for name in _BINS)))
    rows = {**report["regions"], "visible": report["visibility"]["visible"]}
    rows["self-occluded"] = report["visibility"]["self_occluded"]
    if report["nme_3d"]:
        rows |= {"all, x y z": report["nme_3d"], "depth alone": report["nme_3d"]["depth"]}
    for label, values in rows.items():
        table.add_row(label, *(_number(values[name]) for name in _BINS))
    return table


def _robustness(rows: list[dict[str, Any]]) -> "Table":
    """Mean of bins and failures where the boxes are off, a row a level."""
    from rich.table import Table

    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    table = _right_aligned(
        Table("boxes off by up to", *kinds, caption="mean of bins, and failures", caption_justify="left")
    )
    for level in dict.fromkeys(row["level"] for row in rows):
        chosen = [row for row in rows if row["level"] == level]
        cells = (f"{_number(row['mean_of_bins'])}, {row['failure_rate']:.1f} %" for row in chosen)
        table.add_row(f"{level:.0f} %", *cells)
    return table


def _print_rest(report: dict[str, Any]) -> None:
    pose = report["pose"]
    if pose:
        excluded = f", without {len(pose['excluded'])} beyond {pose['limit']:g}°" if pose["excluded"] else ""
        shown = ", ".join(f"{name} {pose[name]:.2f}" for name in ("pitch", "yaw", "roll", "mean", "geodesic"))
        typer.echo(f"pose ({pose['source']}), mean absolute error in degrees of {pose['n']:,} faces{excluded}: {shown}")
        for name in pose["excluded"][:_EXCLUDED]:
            typer.echo(f"  excluded: {name}")
        if len(pose["excluded"]) > _EXCLUDED:
            typer.echo(f"  … and {len(pose['excluded']) - _EXCLUDED} more, in the report")
    worst = ", ".join(f"{face['name']} {face['nme']:.1f}" for face in report["worst"][:5])
    typer.echo(f"worst: {worst}")
