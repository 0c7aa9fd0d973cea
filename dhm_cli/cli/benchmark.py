"""`dhm benchmark`."""

import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dhm_cli.cli.guides import say_same_with
from dhm_cli.cli.lines import say
from dhm_cli.cli.names import completed
from dhm_cli.cli.progress import shown_on
from dhm_cli.cli.tables import print_table
from dhm_cli.morphable.location import DEFAULT_FACE_MODEL, existing_face_model
from dhm_cli.runtime.interruption import INTERRUPTED

if TYPE_CHECKING:
    from dhm_cli.benchmark.report import BenchmarkReport, Line

_METHOD, _OUTPUT, _MACHINE = "What", "Output", "Machine"
# Lists that load torch with their modules.
_LEVELS = ("network", "crop", "photo", "folder")
_ENGINES = ("onnxruntime", "openvino", "torch", "torch-channels-last", "torch-compiled", "torch-half")
_TITLES = {
    "network": "The network alone, input in memory, ms",
    "crop": "Crop and network: photo in memory -> landmarks in photo pixels, ms",
    "photo": "Whole photo: JPEG -> detection, two passes -> landmarks, ms",
}


def benchmark(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="An architecture (fast, fast-x2, dhm, dhm-vgg, rhg, 3dcnn, 2drnn, tiny, or all), a checkpoint "
            "(.safetensors) or an ONNX file of dhm. Repeatable. Default: fast and fast-x2. What does not come with the "
            "package has random weights.",
            autocompletion=completed("config.recipes", "ARCHS", "all"),
            show_default=False,
            rich_help_panel=_METHOD,
        ),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option(
            help="Where networks run. auto: on the GPU where torch can use one and all networks and engines named run "
            "there, else on the CPU.",
            rich_help_panel=_MACHINE,
        ),
    ] = "auto",
    threads: Annotated[
        int,
        typer.Option(help="CPU threads of a call; the process is pinned to as many cores.", rich_help_panel=_MACHINE),
    ] = 1,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="onnxruntime, openvino (CPU only), torch, torch-channels-last, torch-compiled (takes a minute) or "
            "torch-half (autocast to float16; CUDA only). Repeatable. Default on the CPU: onnxruntime, openvino where "
            "it is installed, and torch; on CUDA: torch, torch-channels-last and torch-half.",
            autocompletion=lambda: _ENGINES,
            show_default=False,
            rich_help_panel=_METHOD,
        ),
    ] = None,
    level: Annotated[
        list[str] | None,
        typer.Option(
            help="network: alone. crop: with cutting out the face and the way back. photo: from a JPEG, "
            "with detection and the refining pass. folder: dhm align on folders of photos, small, of 12 megapixels and "
            "mixed: its start-up and memory. "
            "Repeatable. Default: network, crop, photo; the latter two on the first engine.",
            autocompletion=lambda: _LEVELS,
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
    photos: Annotated[
        int, typer.Option(help="Photos of the level folder; a 20th of 12 MP.", rich_help_panel=_METHOD)
    ] = 1000,
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
        Path | None,
        typer.Option(
            "--json",
            help="Write everything to this file; - is standard output, and all else goes to standard error.",
            show_default=False,
            rich_help_panel=_OUTPUT,
        ),
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
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that dhm did not write.", rich_help_panel=_OUTPUT)
    ] = False,
) -> None:
    """Measure how fast networks are, beside MobileNet-V1 as in 3DDFA, with what they cost.

    The networks take turns of a few calls, so that a drift of the machine hits all alike. Of every line: the median of
    300 timed calls after a warm-up, p5 and p95, and CPU time over wall time, which is 1 where one thread worked and
    nothing disturbed it. Ratios are to MobileNet-V1 x0.5 in the same run, on the same engine, at the same batch size.
    Ctrl-C keeps what has been measured so far.
    """
    from tqdm import tqdm

    from dhm_cli.benchmark.bench import benchmark as run
    from dhm_cli.benchmark.plan import DEFAULT_MODELS, BenchmarkOptions
    from dhm_cli.runtime.outputs import STDOUT

    options = BenchmarkOptions(
        models=tuple(model or DEFAULT_MODELS),
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
        force=force,
        command=shlex.join(["dhm", *sys.argv[1:]]),
    )
    with tqdm(disable=None, leave=False) as bar:
        report = run(options, shown_on(bar))
    with redirect_stdout(sys.stderr) if STDOUT in (json, plot) else nullcontext():
        _print(report)
        for path in (json, plot):
            if path not in (None, STDOUT):
                say(f"wrote {path}")
    if json is None and not report.interrupted:
        say_same_with("--json speed.json --plot speed.png", "keeps the numbers and draws them")
    if report.interrupted:
        typer.echo("interrupted", err=True)
        raise typer.Exit(INTERRUPTED)


def _print(report: "BenchmarkReport") -> None:
    """The environment, the networks, a table for each level, and what to doubt."""
    for line in _environment(report):
        say(line, indent="  ")
    _print_costs(report)
    for level in dict.fromkeys(line.level for line in report.lines):
        _print_lines(report, level)
    if report.parts:
        _print_parts(report)
    if any(subject.peak_bytes for subject in report.subjects):
        _print_memory(report)
    for line in (*_folders(report), *_processes(report)):
        say("")
        say(line, indent="  ")
    for problem in report.problems:
        where = f", {problem.where}" if problem.where else ""
        say(f"not measured: {problem.subject}, {problem.engine}{where}: {problem.reason}", indent="  ", err=True)
    for warning in report.warnings:
        say(f"warning: {warning}", indent="  ", err=True)


def _environment(report: "BenchmarkReport") -> list[str]:
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
    return lines


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number:,} {noun}{plural * (number != 1)}"


def _print_titled(
    title: str,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    captions: Sequence[str] = (),
    sections: Sequence[int] = (),
) -> None:
    """A table behind an empty line, with sentences below it."""
    say("")
    print_table(headers, rows, title, sections)
    for caption in captions:
        say(caption, indent="  ")


def _print_costs(report: "BenchmarkReport") -> None:
    notes: dict[str, list[str]] = {}
    for subject in report.subjects:
        if subject.note:
            notes.setdefault(subject.note, []).append(subject.name)
    captions = [
        "MACs: of one face. Disk: the ONNX file where there is one, else the checkpoint, of packaged networks in "
        "float16, of the baselines in float32; zlib: that at level 9.",
        *(f"{', '.join(names)}: {note}." for note, names in notes.items()),
    ]
    headers = ("network", "weights", "input", "params\nM", "MACs\nM", "float32\nMB", "disk\nMB", "zlib\nMB")
    rows = []
    for subject in report.subjects:
        costs = subject.costs
        counts = (_number(costs.parameters, 1e6, 2), _number(costs.macs, 1e6, 1))
        sizes = [_number(size, 1e6, 2) for size in (costs.float32_bytes, costs.file_bytes, costs.compressed_bytes)]
        kind = "random" if subject.kind == "baseline" else subject.kind
        rows.append([subject.name, kind, str(subject.input_size), *counts, *sizes])
    _print_titled("What they cost", headers, rows, captions)


def _print_memory(report: "BenchmarkReport") -> None:
    engines = list(dict.fromkeys(engine for subject in report.subjects for engine in subject.peak_bytes))
    rows = [
        [subject.name, *(_number(subject.peak_bytes.get(engine), 1e6, 0) for engine in engines)]
        for subject in report.subjects
    ]
    caption = "Of a fresh process that loads only this network and runs it on one face."
    _print_titled("Peak memory, MB", ["network", *map(_broken, engines)], rows, [caption])


def _broken(engine: str) -> str:
    """The name of an engine as a header of several lines."""
    return engine.replace("-", "-\n")


def _print_lines(report: "BenchmarkReport", level: str) -> None:
    """The lines of a level, in sections by engine and batch size."""
    chosen = [line for line in report.lines if line.level == level]
    network, on_cuda = level == "network", report.cuda is not None
    headers = ["", "median", "p5", "p95", *(["per\nface", "faces/s"] if network else ["per s"])]
    headers += ["of\nlimit" if network and on_cuda else "CPU/\nwall", *(["speed-\nup"] if network else [])]
    captions = [_runs(chosen)]
    if network:
        captions.insert(0, f"speed-up: times faster than {report.reference}, same engine, same batch.")
    if network and on_cuda:
        captions.append("of limit: FLOP/s over those of a large matrix product in the same run.")
    rows: list[list[str]] = []
    ends: list[int] = []
    section = None
    for line in chosen:
        if (line.engine, line.batch) != section:
            if rows:
                ends.append(len(rows) - 1)
            section = line.engine, line.batch
            rows.append([f"{line.engine}, batch {line.batch}", *[""] * (len(headers) - 1)])
        timing = line.timing
        cells = [_milliseconds(value) for value in (timing.median_ms, timing.p5_ms, timing.p95_ms)]
        cells += [_milliseconds(line.ms_per_face)] if network else []
        cells.append(_rate(line.faces_per_s if network else 1000 / timing.median_ms))
        cells.append(_percent(line.share_of_limit) if network and on_cuda else _number(timing.cpu_per_wall, 1, 2))
        cells += [_number(line.times_faster, 1, 2)] if network else []
        rows.append([f"  {line.subject}", *cells])
    _print_titled(_TITLES[level], headers, rows, captions, ends)


def _runs(lines: Sequence["Line"]) -> str:
    """How many calls were timed for the lines."""
    most = max(line.timing.runs for line in lines)
    fewer: dict[int, list[str]] = {}
    for line in lines:
        if line.timing.runs < most:
            fewer.setdefault(line.timing.runs, []).append(f"{line.subject} {line.engine} batch {line.batch}")
    return f"{most} timed calls a line" + "".join(
        f"; {runs} of {', '.join(names)}" for runs, names in sorted(fewer.items(), reverse=True)
    )


def _print_parts(report: "BenchmarkReport") -> None:
    """The parts of whole photos, a row for each network."""
    names = list(dict.fromkeys(part.part for part in report.parts))
    rows = []
    for engine, subject in dict.fromkeys((part.engine, part.subject) for part in report.parts):
        own = {
            part.part: part.timing.median_ms
            for part in report.parts
            if (part.engine, part.subject) == (engine, subject)
        }
        rows.append([subject, engine, *(_milliseconds(own[n]) if n in own else "-" for n in names)])
    _print_titled("Parts of a whole photo, median ms", ("network", "engine", *names), rows)


def _folders(report: "BenchmarkReport") -> list[str]:
    lines = []
    for found in report.folders:
        (few, many), (low, high) = found.photos, (peak / 1e6 for peak in found.peak_bytes)
        rate = "too few for a rate" if found.photos_per_s is None else f"{found.photos_per_s:.0f} photos/s"
        lines.append(
            f"dhm align, {found.subject}, {_count(many, 'photo')} of {found.folder}, "
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
