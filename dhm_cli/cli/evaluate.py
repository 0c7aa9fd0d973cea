"""`dhm evaluate`."""

import math
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dhm_cli.cli.evaluate_video import evaluate_on_video
from dhm_cli.cli.guides import say_same_with
from dhm_cli.cli.lines import say
from dhm_cli.cli.names import networks
from dhm_cli.cli.progress import shown_on
from dhm_cli.cli.tables import print_table
from dhm_cli.morphable.location import DEFAULT_FACE_MODEL, existing_face_model

if TYPE_CHECKING:
    from dhm_cli.evaluation.numbers import Disturbed, Doubts, Numbers, Rolled
    from dhm_cli.evaluation.report import Against, Report
    from dhm_cli.metrics.headline import HeadlineNumber

_BINS = ("0-30", "30-60", "60-90", "mean_of_bins", "mean_of_images")
_METHOD, _TRUTH, _NUMBERS, _OUTPUT, _MACHINE = "Method", "Truth", "Numbers", "Output", "Machine"
# Faces without a pose error that are listed.
_EXCLUDED = 40


def evaluate(
    data: Annotated[
        Path | None,
        typer.Option(
            help="The faces to score on, a store of dhm prepare (FILE.h5).", show_default=False, rich_help_panel=_TRUTH
        ),
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option(
            help="Videos in place of --data: a folder in the layout of 300VW (vid.avi, annot/000001.pts), or a photo, "
            "of which videos are made that rest and move along a known path. NME, jitter and lag, before and after "
            "smoothing.",
            show_default=False,
            rich_help_panel=_TRUTH,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A network: a file of dhm (.safetensors, .onnx), or fast or fast-x2, which come with the package. "
            "Default: fast.",
            autocompletion=networks,
            show_default=False,
            rich_help_panel=_METHOD,
        ),
    ] = None,
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
            autocompletion=networks,
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
        Literal["paper", "detector", "jitter", "roll"] | None,
        typer.Option(
            help="Where networks look. paper: the true box, squared, times sqrt(2). detector: the box of YuNet. "
            "jitter: true boxes that are shifted and scaled, for a robustness curve. roll: photos turned by every 15 "
            "degrees. Default: paper, with a second line for one more pass over an upright crop. With "
            "--predictions it says how they were made, and is for the networks of --against.",
            show_default=False,
            rich_help_panel=_TRUTH,
        ),
    ] = None,
    refine: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="More passes, over upright crops around the points found; with 0 the network looks at the box once. "
            "Default: 0, with detector and roll 1, as in dhm align.",
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
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            help="Write the numbers to this JSON file; - is standard output, and all else goes to standard error.",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that dhm did not write.", rich_help_panel=_OUTPUT)
    ] = False,
    not_faces: Annotated[
        Path | None,
        typer.Option(
            help="Folder of pictures without a face, to score the confidence with; the last fifth by name counts.",
            show_default=False,
            rich_help_panel=_NUMBERS,
        ),
    ] = None,
    published: Annotated[
        bool,
        typer.Option(
            "--published",
            help="Show the published rows on AFLW2000-3D although these are other faces.",
            rich_help_panel=_NUMBERS,
        ),
    ] = False,
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

    Numbers are percent of the face size, sqrt(w*h) of the true points' box; the definition of every one is in the
    report.
    """
    if data is None or video is not None:
        _check_video_alone(data, video, predictions, against, not_faces)
        assert video is not None
        evaluate_on_video(video, model, device, face_model or existing_face_model(), report, json_file, force)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the threads share the work by faces, not within one
    from dhm_cli.runtime.interruption import deferred_interrupts

    with deferred_interrupts() as interrupted:  # Ctrl-C within the import of numpy would leave it half done
        from tqdm import tqdm

        from dhm_cli.evaluation.evaluate import EvaluationOptions
        from dhm_cli.evaluation.evaluate import evaluate as run
        from dhm_cli.evaluation.numbers import Scoring
        from dhm_cli.evaluation.report import is_report, json_text
        from dhm_cli.runtime.atomic import written_atomically
        from dhm_cli.runtime.outputs import STDOUT, check_output
    if interrupted.is_set():
        raise KeyboardInterrupt
    options = EvaluationOptions(
        data=data,
        model=model,
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
        show_published=published,
        not_faces=not_faces,
        force=force,
    )
    if json_file is not None:
        inputs = [path for path in (data, predictions, Path(model or "")) if path is not None]
        check_output(json_file, "--json", "a report of dhm evaluate", is_report, inputs, force)
    with tqdm(unit=" faces", disable=None, leave=False) as bar:
        numbers: list[Report] = []
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
                with redirect_stdout(sys.stderr) if json_file == STDOUT else nullcontext():
                    _print(found)
                if json_file is not None:
                    with written_atomically(json_file) as partial:
                        partial.write_text(json_text(found), encoding="utf-8")
    if report is not None:
        page = report / "report.html"
        typer.echo(f"report: {page}", err=json_file == STDOUT)
        say(f"next: open {page} in a browser", err=True)
    elif json_file is None:
        say_same_with("--report report", "writes a page with charts")


def _check_video_alone(data: Path | None, video: Path | None, *others: object) -> None:
    from dhm_cli.errors import InputError

    if video is None:
        raise InputError("--data: nothing to score on", "pass a store of dhm prepare, --data FILE.h5, or --video")
    if data is not None or any(others):
        raise InputError(
            f"--video {video}: goes with --model, --device, --report and --json alone", "leave the other options out"
        )


def _print(report: "Report") -> None:
    """The headline, the differences, the published rows and the rest, as tables."""
    numbers, labels = report.numbers, "new" if report.data.labels else report.label_set
    say(
        f"{report.name} on {report.data.file}: {numbers.n:,} {report.data.split} face{'s' * (numbers.n != 1)}, "
        f"{labels} labels, protocol {report.protocol}, NME in % by {numbers.scoring.normaliser}"
    )
    if report.data.labels:
        say(f"labels: {report.data.labels}", indent="  ")
    for caveat in report.caveats:
        say(f"warning: {caveat}", indent="  ", err=True)
    _print_headline(report)
    if numbers.upright:
        shown = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in numbers.upright.items())
        say(f"and one more pass over an upright crop: {shown}", indent="  ")
    if report.other_origin:
        shown = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in report.other_origin.nme.items())
        say(f"the same labels read {report.other_origin.origin}-based: {shown}", indent="  ")
    for other in report.against:
        _print_comparison(report, other)
    _print_published(report)
    _print_parts(numbers)
    if numbers.robustness:
        _print_robustness(numbers.robustness)
    if numbers.rolls:
        _print_rolls(numbers.rolls)
    if numbers.doubts:
        _print_doubts(numbers.doubts)
    _print_rest(numbers)


def _print_headline(report: "Report") -> None:
    """A row for each headline number, with its interval and the faces that it is of."""
    from dhm_cli.metrics.headline import HEADLINE

    numbers, labelled, floor = report.numbers, report.numbers.by_labelled_yaw, report.noise_floor
    rows, ends = [], []
    for number, faces in zip(HEADLINE, _faces(numbers), strict=True):
        name = number.name
        interval = numbers.headline.intervals[name]
        cells = [_title(number, numbers), _number(numbers.headline.values[name]), _interval(interval), faces]
        if labelled:
            shown = _number(labelled.headline.values[name]) if number.place[0] == "nme" else ""
            cells.append(shown + (f" ({labelled.bins[name]})" if name in labelled.bins else ""))
        if floor:
            cells.append(_number(floor[name]) if name in floor else "")
        rows.append(cells)
        ends += [len(rows) - 1] if number.section_ends else []
    headers = ["", report.name, "95 % interval", "faces"]
    headers += ["by labelled\nyaw"] if labelled else []
    headers += ["noise\nfloor"] if floor else []
    print_table(headers, rows, sections=ends)


def _faces(numbers: "Numbers") -> list[str]:
    """How many faces each headline number is of, where some were not found also of how many."""
    from dhm_cli.metrics.headline import HEADLINE

    found, totals = numbers.measured, {**numbers.bins, "mean_of_images": numbers.n, "median": numbers.n}
    shown = []
    for number in HEADLINE:
        total = totals.get(number.name)
        if total is None:  # the mean of bins is of no number of faces; rates and areas are of all
            shown.append("" if number.place[0] == "nme" else str(numbers.n))
        else:
            count = found.get(number.name, found["mean_of_images"])
            shown.append(f"{count}" + f" of {total}" * (count != total))
    return shown


def _print_comparison(report: "Report", other: "Against") -> None:
    """A row for each headline number of another method, with the difference and whether it is real."""
    from dhm_cli.metrics.headline import HEADLINE

    rows = []
    for number in HEADLINE:
        change = other.comparison.differences[number.name]
        shown = "-" if math.isnan(change.value) else f"{change.value:+.2f}"
        value = _number(other.numbers.headline.values[number.name])
        rows.append([_title(number, report.numbers), value, shown, _interval(change.interval), change.verdict])
    typer.echo()
    say(f"{report.name} minus {other.name}, by paired bootstrap:")
    headers = ("", "the other", "difference", "95 % interval", "verdict")
    print_table(headers, rows, sections=[k for k, number in enumerate(HEADLINE) if number.section_ends])
    say(f"means and median over the {other.comparison.common:,} faces that both found")


def _title(number: "HeadlineNumber", numbers: "Numbers") -> str:
    return number.title.format(threshold=numbers.scoring.threshold)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _interval(ends: Sequence[float]) -> str:
    return "too few" if math.isnan(ends[0]) else f"{ends[0]:.2f} to {ends[1]:.2f}"


def _print_published(report: "Report") -> None:
    published, labels = report.published, report.label_set
    typer.echo()
    if not (published["comparable"] or report.show_published):
        say(f"Published rows on AFLW2000-3D are not comparable with this run: {published['why_not']}.")
        return
    nme = [_number(report.numbers.headline.values[name]) for name in _BINS[:4]]
    if not published["comparable"]:
        say(f"NOT comparable with this run: {published['why_not']}.")
    rows = [[f"{report.name}, this run", *nme, "", "", ""]]
    for row in published["rows"]:
        if row[labels]:
            size = "" if row["size_mb"] is None else f"{row['size_mb']:g}"
            rows.append([row["name"], *(f"{v:.2f}" for v in row[labels]), row["cpu_fps"] or "", size, row["source"]])
    headers = (f"AFLW2000-3D, {labels}", "0-30", "30-60", "60-90", "mean", "CPU FPS", "MB", "table")
    print_table(headers, rows, sections=[0])
    say(f"A: BMVC 2018, B: Fast DHM. Known slips: {' '.join(published['slips'])}")


def _print_parts(numbers: "Numbers") -> None:
    rows = {**numbers.regions, "visible": numbers.visibility.visible, "self-occluded": numbers.visibility.self_occluded}
    if numbers.nme_3d:
        rows |= {"all, x y z": numbers.nme_3d.whole, "depth alone": numbers.nme_3d.depth}
    typer.echo()
    headers = ("points", *(name.replace("_of_", " of\n") for name in _BINS))
    print_table(headers, [[label, *(_number(values[name]) for name in _BINS)] for label, values in rows.items()])


def _print_robustness(rows: "list[Disturbed]") -> None:
    """Mean of bins and failures where the boxes are off, a row a level."""
    kinds = list(dict.fromkeys(row.kind for row in rows))
    table = []
    for level in dict.fromkeys(row.level for row in rows):
        chosen = [row for row in rows if row.level == level]
        table.append([f"{level:.0f} %", *(f"{_number(row.mean_of_bins)}, {row.failure_rate:.1f} %" for row in chosen)])
    typer.echo()
    print_table(("boxes off by up to", *kinds), table, title="mean of bins, and failures")


def _print_rolls(rows: "list[Rolled]") -> None:
    """The error at every roll of the photo."""
    typer.echo()
    table = [
        [f"{row.roll}°", _number(row.mean_of_bins), _number(row.mean_of_images), f"{row.failure_rate:.1f}"]
        for row in rows
    ]
    print_table(("photo turned by", "mean of\nbins", "mean of\nimages", "failures\n%"), table)


def _print_doubts(doubts: "Doubts") -> None:
    """What the network knows about its own errors."""
    typer.echo()
    table = [
        [name, f"{row.within_one:.1f}", f"{row.within_wide:.1f}", f"{row.within_two:.1f}", f"{row.likelihood:.3f}"]
        for name, row in doubts.sigma.items()
    ]
    headers = ("errors, |yaw|", "% within 1 sigma\n(68.3 is right)", "1.79\n(95.0)", "2\n(97.2)", "-log\nlikelihood")
    print_table(headers, table)
    c, v = doubts.confidence, doubts.visibility
    if v:
        say(
            f"visibility: self-occluded {v.self_occluded_balanced:.1f} % balanced accuracy, AUC "
            f"{v.self_occluded_auc:.3f}; occluded by something else AUC {v.occluded_auc:.3f}",
            indent="  ",
        )
    others = ""
    if c.not_face_auc is not None:
        others = f", {c.not_face_auc:.3f} against {c.not_faces} pictures without a face ({c.believed:.1f} % believed)"
    say(
        f"confidence: AUC {c.failure_auc:.3f} for faces with an NME below 6 %{others}; {c.doubted:.1f} % of those "
        "right are doubtful",
        indent="  ",
    )
    table = [
        [f"{row['from']:.1f}", f"{row['claims']:.0f}", _number(row["claimed"]), _number(row["right"])]
        for row in c.reliability
        if row["claims"]
    ]
    print_table(("confidence from", "claims", "mean claim", "share right"), table)
    table = [[f"{row['percent']:g} %", _number(row["nme"]), _number(row["failure_rate"])] for row in c.kept]
    print_table(("faces kept, the surest", "NME", "failures %"), table)


def _print_rest(numbers: "Numbers") -> None:
    pose = numbers.pose
    typer.echo()
    if pose:
        excluded = f", without {len(pose.excluded)} beyond {pose.limit:g}°" if pose.excluded else ""
        shown = ", ".join(f"{name} {getattr(pose, name):.2f}" for name in ("geodesic", "pitch", "yaw", "roll", "mean"))
        faces = f"{pose.n:,} faces{excluded}"
        say(f"pose ({pose.source}), mean absolute error in degrees of {faces}: {shown} (angles of 300W-LP)")
        for name in pose.excluded[:_EXCLUDED]:
            say(f"  excluded: {name}")
        if len(pose.excluded) > _EXCLUDED:
            say(f"  … and {len(pose.excluded) - _EXCLUDED} more, in the report")
    say("worst: " + ", ".join(f"{face.name} {face.nme:.1f}" for face in numbers.worst[:5]), indent="  ")
