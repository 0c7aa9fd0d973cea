"""What a benchmark measures, and the checks before it begins."""

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from dhm_cli.benchmark.pinning import check_threads
from dhm_cli.benchmark.report import is_report
from dhm_cli.benchmark.runners import CPU_ENGINES, CUDA_ENGINES, default_engines
from dhm_cli.drawing.png_mark import is_our_png
from dhm_cli.errors import DhmError, InputError
from dhm_cli.inference.engines import cuda_problem
from dhm_cli.runtime.outputs import check_output, is_stream

NETWORK, CROP, PHOTO_LEVEL, FOLDER = LEVELS = ("network", "crop", "photo", "folder")
DEFAULT_MODELS = ("fast", "fast-x2")
DEFAULT_RUNS = 300
# Faces in a call of the network alone: of engines that are measured at several batch sizes, and of the others.
_BATCHES = {"cpu": (1, 32), "cuda": (1, 32, 256, 1024)}
_ONE_BATCH = {"cpu": (1,), "cuda": _BATCHES["cuda"]}
# A larger batch of noise would fill the memory of common machines.
_MOST_FACES = 4096


@dataclass(frozen=True)
class BenchmarkOptions:
    """What to measure.

    Attributes:
        models: names of networks, see `find_networks`.
        device: "cpu" or "cuda"; "auto" before `with_device`.
        threads: CPU threads of a call; the process is pinned to as many cores.
        engines: of `CPU_ENGINES` or `CUDA_ENGINES`; empty for `default_engines`.
        levels: of `LEVELS`.
        batches: faces in a call of the network alone; empty for the device's usual ones.
        runs: timed calls of each line; None for 300, or fewer for slow networks.
        photo: the photo for the levels above the network; None for the built-in one.
        photos: how many photos the level folder has.
        processes: how many processes align whole photos at once; None skips this measurement.
        accuracy: reports of `dhm evaluate`.
        face_model: for checkpoints that regress its parameters.
        json: where to write the report.
        plot: where to write the chart, PNG.
        force: replace files that no benchmark wrote.
        command: the command line as it was typed.
    """

    models: tuple[str, ...] = DEFAULT_MODELS
    device: str = "cpu"
    threads: int = 1
    engines: tuple[str, ...] = ()
    levels: tuple[str, ...] = (NETWORK, CROP, PHOTO_LEVEL)
    batches: tuple[int, ...] = ()
    runs: int | None = None
    photo: Path | None = None
    photos: int = 1000
    processes: int | None = None
    accuracy: tuple[Path, ...] = ()
    face_model: Path | None = None
    json: Path | None = None
    plot: Path | None = None
    force: bool = False
    command: str = ""

    @property
    def network_engines(self) -> tuple[str, ...]:
        """Engines of the level network."""
        return self.engines or default_engines(self.device)

    @property
    def pipeline_engines(self) -> tuple[str, ...]:
        """Engines of the levels crop and photo: the first one only, unless engines were named."""
        return self.engines or self.network_engines[:1]

    def batches_of(self, engine: str) -> tuple[int, ...]:
        """Batch sizes of the level network on an engine."""
        several = self.device == "cuda" or engine == "onnxruntime"
        return self.batches or (_BATCHES if several else _ONE_BATCH)[self.device]


def with_device(options: BenchmarkOptions) -> BenchmarkOptions:
    """The options with "auto" settled: CUDA where torch can use it and all that is named runs there, else the CPU."""
    if options.device != "auto":
        return options
    runs_there = set(options.engines) <= set(CUDA_ENGINES) and not any(
        Path(name).suffix.lower() == ".onnx" for name in options.models
    )
    return replace(options, device="cuda" if runs_there and not cuda_problem() else "cpu")


def check_options(options: BenchmarkOptions) -> None:
    """Check the options before anything is loaded.

    Raises:
        InputError: a number out of range, an engine that the device lacks, a file that cannot be written or would
            destroy another.
        DhmError: no CUDA.
    """
    _check_numbers(options)
    known = CUDA_ENGINES if options.device == "cuda" else CPU_ENGINES
    for engine in options.engines:
        if engine not in known:
            raise InputError(f"no --engine {engine} on {options.device}", f"its engines are {', '.join(known)}")
    for level in options.levels:
        if level not in LEVELS:
            raise InputError(f"unknown --level {level}", f"known are {', '.join(LEVELS)}")
    if options.device == "cuda":
        problem = cuda_problem()
        if problem:
            raise DhmError(f"device cuda cannot be used: {problem}", hint="pass --device cpu")
    _check_outputs(options)


def _check_outputs(options: BenchmarkOptions) -> None:
    files = (*map(Path, options.models), options.photo, options.face_model, *options.accuracy)
    inputs = [path for path in files if path is not None]
    if options.json is not None:
        check_output(options.json, "--json", "a report of dhm benchmark", is_report, inputs, options.force)
        _check_writable("--json", options.json)
    if options.plot is not None:
        if options.plot.suffix.lower() != ".png" and not is_stream(options.plot) and not options.plot.is_dir():
            raise InputError(f"--plot {options.plot}: the chart is a PNG", "choose a file name that ends in .png")
        check_output(options.plot, "--plot", "a picture that dhm drew", is_our_png, inputs, options.force)
        _check_writable("--plot", options.plot)
    if options.json is not None and options.plot is not None and _is_same(options.json, options.plot):
        raise InputError(f"{options.plot}: named by --json and by --plot", "choose two files")


def _is_same(first: Path, second: Path) -> bool:
    return os.path.realpath(first) == os.path.realpath(second)


def _check_numbers(options: BenchmarkOptions) -> None:
    check_threads(options.threads)
    if options.processes is not None:
        check_threads(options.processes, "--processes")
    for option, values in (
        ("--batch", options.batches),
        ("--runs", [1 if options.runs is None else options.runs]),
        ("--photos", [options.photos]),
    ):
        if min(values, default=1) < 1:
            raise InputError(
                f"{option}: expected 1 or more, found {min(values)}", f"leave out {option} for the default"
            )
    if max(options.batches, default=1) > _MOST_FACES:
        raise InputError(
            f"--batch: expected at most {_MOST_FACES}, found {max(options.batches)}",
            "leave out --batch for the default",
        )


def _check_writable(option: str, path: Path) -> None:
    if is_stream(path):
        return
    folder = Path(os.path.realpath(path)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{option} {path}: cannot be written: {error.strerror or error}", "choose another folder"
        ) from error
