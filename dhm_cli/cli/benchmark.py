"""`dhm benchmark`."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dhm_cli.cli.progress import shown_on
from dhm_cli.morphable.location import DEFAULT_FACE_MODEL, existing_face_model

if TYPE_CHECKING:
    from rich.table import Table

    from dhm_cli.benchmark.report import BenchmarkReport, Line

_METHOD, _OUTPUT = "What", "Output"
# Columns that the tables need, where the output is no terminal that says how many it has.
_WIDTH = 100
_TITLES = {
    "network": "The network alone, input in memory, ms",
    "crop": "Crop and network: photo in memory -> landmarks in photo pixels, ms",
    "photo": "Whole photo: JPEG -> detection, two passes -> landmarks, ms",
}


def benchmark(
    subjects: Annotated[
        list[str] | None,
        typer.Argument(
            help="Architectures (fast, fast-x2, dhm, dhm-vgg, rhg, 3dcnn, 2drnn, or all), checkpoints (.safetensors), "
            "ONNX files of dhm. Default: fast and fast-x2. What does not come with the package has random weights.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where networks run.")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads of a call; the process is pinned to as many cores.")] = 1,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="onnxruntime, openvino (CPU only), torch, torch-channels-last, torch-compiled (takes a minute) or "
            "torch-half (autocast to float16; CUDA only). Repeatable. Default on the CPU: onnxruntime, openvino where "
            "it is installed, and torch; on CUDA: torch, torch-channels-last and torch-half.",
            show_default=False,
            rich_help_panel=_METHOD,
        ),
    ] = None,
    level: Annotated[
        list[str] | None,
        typer.Option(
            help="network: alone. crop: with cutting out the face and the way back. photo: from a JPEG, "
            "with detection and the refining pass. folder: dhm align on a folder of photos, its start-up and memory. "
            "Repeatable. Default: network, crop, photo; the latter two on the first engine.",
            show_default=False,
            rich_help_panel=_METHOD,
        ),
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(
            help="Faces in a call of the network alone. Repeatable. Default on the CPU: 1, with onnxruntime 1 and 32; "
            "on CUDA: 1, 32, 256 and 1024.",
            show_default=False,
            rich_help_panel=_METHOD,
        ),
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(
            help="Timed calls of each line. Default: 300; of calls over 50 ms what fits in 10 s, at least 30.",
            show_default=False,
            rich_help_panel=_METHOD,
        ),
    ] = None,
    photo: Annotated[
        Path | None,
        typer.Option(
            help="Measure on this photo. Default: a JPEG of 512 x 512 with one face, in the package.",
            show_default=False,
            rich_help_panel=_METHOD,
        ),
    ] = None,
    photos: Annotated[int, typer.Option(help="Photos of the level folder, 250 x 250.", rich_help_panel=_METHOD)] = 1000,
    processes: Annotated[
        int | None,
        typer.Option(
            help="Also measure whole photos in so many processes at once, a core each, against one.",
            show_default=False,
            rich_help_panel=_METHOD,
        ),
    ] = None,
    face_model: Annotated[
        Path | None,
        typer.Option(
            help="Face model of checkpoints that regress its parameters. "
            f"Default: {DEFAULT_FACE_MODEL.as_posix()}, where there is one.",
            show_default=False,
            rich_help_panel=_METHOD,
        ),
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write everything to this file.", rich_help_panel=_OUTPUT)
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw accuracy against time, beside published rows, to this PNG.",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    accuracy: Annotated[
        list[Path] | None,
        typer.Option(
            help="report.json of dhm evaluate, for the chart's accuracy. Repeatable. Default: the validation in the "
            "checkpoint's training record.",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
) -> None:
    """Measure how fast networks are, beside MobileNet-V1 as in 3DDFA, with what they cost.

    Examples: dhm benchmark --device cpu --threads 1

    dhm benchmark runs/fast/best.safetensors --level photo --level folder --processes 2 --json speed.json

    dhm benchmark all --accuracy report/report.json --plot speed.png

    The networks take turns of a few calls, so that a drift of the machine hits all alike. Of every line: the median of
    300 timed calls after a warm-up, p5 and p95, and CPU time over wall time, which is 1 where one thread worked and
    nothing disturbed it. Ratios are to MobileNet-V1 x0.5 in the same run, on the same engine, at the same batch size.
    Ctrl-C keeps what has been measured so far.
    """
    from tqdm import tqdm

    from dhm_cli.benchmark.bench import benchmark as run
    from dhm_cli.benchmark.plan import DEFAULT_SUBJECTS, BenchmarkOptions

    options = BenchmarkOptions(
        subjects=tuple(subjects or DEFAULT_SUBJECTS),
        device=device,
        threads=threads,
        engines=tuple(dict.fromkeys(engine or ())),
        levels=tuple(dict.fromkeys(level or ("network", "crop", "photo"))),
        batches=tuple(dict.fromkeys(batch or ())),
        runs=runs,
        photo=photo,
        photos=photos,
        processes=processes,
        accuracy=tuple(accuracy or ()),
        face_model=face_model or existing_face_model(),
        json=json,
        plot=plot,
        command=shlex.join(["dhm", *sys.argv[1:]]),
    )
    with tqdm(disable=None, leave=False) as bar:
        report = run(options, shown_on(bar))
    _print(report)
    for path in (json, plot):
        if path is not None:
            typer.echo(f"wrote {path}")
    if report.interrupted:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130)


def _print(report: "BenchmarkReport") -> None:
    """The environment, the networks, a table for each level, and what to doubt."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    console.print(_environment(report), markup=False)
    console.print(_costs(report))
    for level in dict.fromkeys(line.level for line in report.lines):
        console.print(_lines(report, level))
    if report.parts:
        console.print(_parts(report))
    if any(subject.peak_bytes for subject in report.subjects):
        console.print(_memory(report))
    for text in (*_folders(report), *_processes(report)):
        console.print(text, markup=False)
    for problem in report.problems:
        where = f", {problem.where}" if problem.where else ""
        typer.echo(f"not measured: {problem.subject}, {problem.engine}{where}: {problem.reason}", err=True)
    for warning in report.warnings:
        typer.echo(f"warning: {warning}", err=True)


def _environment(report: "BenchmarkReport") -> str:
    known, cuda = report.environment, report.cuda
    machine = known["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in known["packages"].items() if version)
    load, cores = machine["load_average"], ", ".join(map(str, report.pinned_cores))
    commit = f" {known['commit'][:12]}{'+' * known['commit'].endswith('+')}" if known["commit"] else ""
    lines = [
        f"{known['processor'] or known['platform']}, {known['cores']} cores, {machine['architecture']}: "
        f"{' '.join(machine['instructions']) or 'instructions unknown'}",
        f"governor {machine['governor'] or 'unknown'}, load average {'unknown' if load is None else load[0]}, "
        f"{_count(report.threads, 'thread')}, {f'pinned to core {cores}' if cores else 'not pinned'}",
        f"dhm {known['dhm']}{commit}, Python {known['python']}, {packages}",
    ]
    if cuda is not None:
        limits = ", ".join(f"{name} {flops / 1e12:.1f}" for name, flops in cuda.matrix_product_flops.items())
        lines.append(
            f"{cuda.name}, {cuda.memory_bytes / 2**30:.0f} GiB, CUDA {cuda.cuda}, cuDNN {cuda.cudnn}, "
            f"{cuda.driver or 'driver unknown'}; TFLOP/s of a large matrix product: {limits}"
        )
    size, faces = report.photo.size, report.photo.faces
    more = "" if faces == 1 else ": times of a whole photo are of all of them"
    lines.append(f"photo: {report.photo.file}, {size[0]} x {size[1]}, {_count(faces, 'face')}{more}")
    return "\n".join(lines)


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number:,} {noun}{plural * (number != 1)}"


def _table(title: str, *headings: str, texts: int = 1, caption: str | None = None) -> "Table":
    """A table that stays readable as copied text; the columns after the first `texts` are numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", caption=caption)
    table.caption_justify = "left"
    for k, heading in enumerate(headings):
        table.add_column(heading, justify="left" if k < texts else "right", no_wrap=k == 0)
    return table


def _costs(report: "BenchmarkReport") -> "Table":
    from rich.markup import escape

    notes: dict[str, list[str]] = {}
    for subject in report.subjects:
        if subject.note:
            notes.setdefault(subject.note, []).append(subject.name)
    caption = (
        "MACs: of one face. MB on disk: the ONNX file where there is one, else the checkpoint, "
        "of packaged networks in float16, of the baselines in float32; zlib: that at level 9."
    )
    caption += "".join(f"\n{escape(', '.join(names))}: {note}." for note, names in notes.items())
    headings = ("network", "weights", "input", "params M", "MACs M", "float32 MB", "disk MB", "zlib MB")
    table = _table("What they cost", *headings, texts=2, caption=caption)
    for subject in report.subjects:
        costs = subject.costs
        counts = (_number(costs.parameters, 1e6, 2), _number(costs.macs, 1e6, 1))
        sizes = [_number(size, 1e6, 2) for size in (costs.float32_bytes, costs.file_bytes, costs.compressed_bytes)]
        kind = "random" if subject.kind == "baseline" else subject.kind
        table.add_row(escape(subject.name), kind, str(subject.input_size), *counts, *sizes)
    return table


def _memory(report: "BenchmarkReport") -> "Table":
    from rich.markup import escape

    engines = list(dict.fromkeys(engine for subject in report.subjects for engine in subject.peak_bytes))
    caption = "of a fresh process that loads only this network and runs it on one face"
    table = _table("Peak memory, MB", "network", *engines, caption=caption)
    for subject in report.subjects:
        peaks = (_number(subject.peak_bytes.get(engine), 1e6, 0) for engine in engines)
        table.add_row(escape(subject.name), *peaks)
    return table


def _lines(report: "BenchmarkReport", level: str) -> "Table":
    """The lines of a level, in sections by engine and batch size."""
    from rich.markup import escape

    chosen = [line for line in report.lines if line.level == level]
    network, on_cuda = level == "network", report.cuda is not None
    headings = ["", "median", "p5", "p95", *(["per face", "faces/s"] if network else ["per s"])]
    headings += ["of limit" if network and on_cuda else "CPU/wall", *(["speed-up"] if network else [])]
    caption = escape(_runs(chosen))
    if network:
        caption = f"speed-up: times faster than {report.reference}, same engine, same batch; {caption}"
    if network and on_cuda:
        caption += "; of limit: FLOP/s over those of a large matrix product in the same run"
    table = _table(_TITLES[level], *headings, caption=caption)
    section = None
    for line in chosen:
        if (line.engine, line.batch) != section:
            if section is not None:
                table.add_section()
            section = line.engine, line.batch
            table.add_row(f"{line.engine}, batch {line.batch}", style="dim")
        timing = line.timing
        cells = [_milliseconds(value) for value in (timing.median_ms, timing.p5_ms, timing.p95_ms)]
        cells += [_milliseconds(line.ms_per_face)] if network else []
        cells.append(_rate(line.faces_per_s if network else 1000 / timing.median_ms))
        cells.append(_percent(line.share_of_limit) if network and on_cuda else _number(timing.cpu_per_wall, 1, 2))
        cells += [f"[bold]{_number(line.times_faster, 1, 2)}[/]"] if network else []
        table.add_row(f"  {escape(line.subject)}", *cells)
    return table


def _runs(lines: Sequence["Line"]) -> str:
    """How many calls were timed for the lines."""
    most = max(line.timing.runs for line in lines)
    fewer = [
        f"{line.subject} {line.engine} batch {line.batch} {line.timing.runs}"
        for line in lines
        if line.timing.runs < most
    ]
    return f"{most} timed calls a line" + (f", but {', '.join(fewer)}" if fewer else "")


def _parts(report: "BenchmarkReport") -> "Table":
    """The parts of whole photos, a row for each network."""
    from rich.markup import escape

    names = list(dict.fromkeys(part.part for part in report.parts))
    table = _table("Parts of a whole photo, median ms", "network", "engine", *names, texts=2)
    for engine, subject in dict.fromkeys((part.engine, part.subject) for part in report.parts):
        own = {
            part.part: part.timing.median_ms
            for part in report.parts
            if (part.engine, part.subject) == (engine, subject)
        }
        table.add_row(escape(subject), engine, *(_milliseconds(own[n]) if n in own else "-" for n in names))
    return table


def _folders(report: "BenchmarkReport") -> list[str]:
    lines = []
    for found in report.folders:
        (few, many), (low, high) = found.photos, (peak / 1e6 for peak in found.peak_bytes)
        rate = "too few for a rate" if found.photos_per_s is None else f"{found.photos_per_s:.0f} photos/s"
        lines.append(
            f"dhm align, {found.subject}, {_count(many, 'photo')} of 250 x 250, "
            f"{_count(found.threads, 'thread')}: "
            f"{rate} after start-up; start-up with one photo "
            f"{found.startup_best_s:.2f} s at best, median {found.startup_median_s:.2f} s of "
            f"{found.startup_runs}; peak memory {high:.0f} MB, with {_count(few, 'photo')} {low:.0f} MB"
        )
    return lines


def _processes(report: "BenchmarkReport") -> list[str]:
    return [
        f"{found.subject}, whole photos: {found.photos_per_s_one:.0f}/s in one process, "
        f"{found.photos_per_s_all:.0f}/s in {found.processes} at once: {found.speed_up:.2f} times"
        for found in report.processes
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


def _milliseconds(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _number(value: float | None, unit: float, digits: int) -> str:
    return "-" if value is None else f"{value / unit:.{digits}f}"
