"""`dhm benchmark`: the speed of networks, side by side with public baselines, and their other costs."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from dhm_cli.benchmark.accuracy import known_accuracy, read_reports
from dhm_cli.benchmark.baselines import REFERENCE
from dhm_cli.benchmark.chart import save_chart
from dhm_cli.benchmark.costs import costs
from dhm_cli.benchmark.doubts import doubts
from dhm_cli.benchmark.measured_networks import MeasuredNetwork, find_networks
from dhm_cli.benchmark.peak_memory import peak_of_network
from dhm_cli.benchmark.photo_folder import measure_folder
from dhm_cli.benchmark.pinning import pinned
from dhm_cli.benchmark.pipeline import (
    PHOTO,
    RunnerEngine,
    Scene,
    crop_call,
    open_aligner,
    open_scene,
    photo_call,
    photo_parts,
)
from dhm_cli.benchmark.plan import (
    CROP,
    DEFAULT_RUNS,
    FOLDER,
    NETWORK,
    PHOTO_LEVEL,
    BenchmarkOptions,
    check_options,
)
from dhm_cli.benchmark.processes import measure_processes
from dhm_cli.benchmark.report import BenchmarkReport, Line, NetworkReport, Part, PhotoReport, Problem, save_report
from dhm_cli.benchmark.runners import Runner, make_runner
from dhm_cli.benchmark.timing import (
    Call,
    Stopwatch,
    Task,
    measure_interleaved,
    planned_runs,
    wall_stopwatch,
    warm_up,
)
from dhm_cli.errors import DhmError
from dhm_cli.runtime.environment import environment, machine
from dhm_cli.runtime.progress import Progress
from dhm_cli.runtime.threads import available_cores

# Packages whose versions matter here, beside those of every run.
_PACKAGES = ("onnx", "onnxscript", "openvino")
_REASON_LENGTH = 160


def benchmark(options: BenchmarkOptions, progress: Progress) -> BenchmarkReport:
    """Measure networks, and write the report and the chart where they are asked for.

    Args:
        options: what to measure.
        progress: called with what is being done, how much of it is done, and its total.

    Returns:
        The report; `interrupted` is true where Ctrl-C ended the benchmark early.

    Raises:
        DhmError: something in the options cannot be used; nothing was measured then.
    """
    check_options(options)
    bench = _Bench(options, progress)
    report = bench.report
    try:
        bench.measure()
    except KeyboardInterrupt:
        report.interrupted = True
    report.add_ratios()
    report.warnings += doubts(report.lines, report.threads)
    if options.plot is not None:
        save_chart(options.plot, report)
    if options.json is not None:
        save_report(options.json, report)
    return report


@dataclass(frozen=True, eq=False)
class _Timed:
    """A call that is timed, and which line of the report it gives; `part` is empty but for parts of a photo."""

    network: str
    part: str
    task: Task


class _Bench:
    """One run: the options, what is measured, and the report so far.

    Args:
        options: checked.
        progress: see `benchmark`.
    """

    def __init__(self, options: BenchmarkOptions, progress: Progress) -> None:
        self.options, self.progress = options, progress
        self.networks = find_networks(options.subjects, options.face_model)
        self.scene = open_scene(options.photo or PHOTO)
        self.report = _empty_report(options, self.scene, self.networks)
        self.runners: dict[tuple[str, str], Runner] = {}

    def measure(self) -> None:
        """Measure everything, into `report`; lines that are interrupted keep the calls that were timed."""
        self._export()
        with pinned(self.options.threads) as cores:
            self.report.pinned_cores = cores
            if self.options.device == "cuda":
                self._describe_cuda()
            self._make_runners()
            self._measure_levels()
        if self.options.processes is not None:
            self._measure_processes(self.options.processes)
        if self.options.device == "cpu":
            self._measure_memory()

    def _measure_levels(self) -> None:
        levels = self.options.levels
        if NETWORK in levels:
            for engine in self.options.network_engines:
                for batch in self.options.batches_of(engine):
                    self._measure_network(engine, batch)
        for engine in self.options.pipeline_engines:
            if CROP in levels:
                self._measure_crops(engine)
            if PHOTO_LEVEL in levels:
                self._measure_photos(engine)
        if FOLDER in levels:
            self._measure_folder()

    # --- before the measurements

    def _export(self) -> None:
        """Export the networks that have no ONNX file, on all cores; `_make_runners` reports those that fail."""
        if not {"onnxruntime", "openvino"} & set(self.options.network_engines):
            return
        for k, network in enumerate(self.networks):
            self.progress(f"{network.name} as ONNX", k, len(self.networks))
            described = self.report.network(network.name)
            with suppress(Exception):
                data = network.onnx
                if described.costs.file_bytes is None:
                    described.costs = described.costs.with_file(data, "its ONNX file, float32")

    def _describe_cuda(self) -> None:
        from dhm_cli.benchmark.cuda import cuda_machine

        self.progress("matrix products", 0, 1)
        try:
            self.report.cuda = cuda_machine()
        except RuntimeError as error:  # no memory left on it, or taken by another program
            raise DhmError(
                f"device cuda cannot be used: {_reason(error)}", "pass --device cpu, or try later"
            ) from error

    def _make_runners(self) -> None:
        wanted = [(network, engine) for network in self.networks for engine in self.options.network_engines]
        for k, (network, engine) in enumerate(wanted):
            self.progress(f"{network.name} for {engine}", k, len(wanted))
            try:
                runner = make_runner(network, engine, self.options.threads, self.options.device)
            except Exception as error:  # whatever an engine raises: the others go on
                self._problem(engine, network.name, error)
            else:
                self.runners[network.name, engine] = runner

    # --- levels whose calls are timed in this process

    def _measure_network(self, engine: str, batch: int) -> None:
        calls = {}
        for network in self.networks:
            if (network.name, engine) in self.runners:
                try:
                    calls[network.name, ""] = self.runners[network.name, engine].bind(network.inputs(batch))
                except (MemoryError, RuntimeError) as error:  # torch raises the latter for a device's memory
                    self._problem(engine, network.name, error, f"batch {batch}")
        self._measure(NETWORK, engine, batch, calls)

    def _measure_crops(self, engine: str) -> None:
        calls = {
            (network.name, ""): crop_call(RunnerEngine(network, runner), self.scene)
            for network, runner in self._runners_for_landmarks(engine)
        }
        self._measure(CROP, engine, 1, calls)

    def _measure_photos(self, engine: str) -> None:
        calls, parts = {}, {}
        for network, runner in self._runners_for_landmarks(engine):
            aligner = open_aligner(network, engine, runner, self.options.threads)
            calls[network.name, ""] = photo_call(aligner, self.scene)
            parts.update({(network.name, part): call for part, call in photo_parts(aligner, self.scene).items()})
        self._measure(PHOTO_LEVEL, engine, 1, {**calls, **parts})

    def _runners_for_landmarks(self, engine: str) -> Iterator[tuple[MeasuredNetwork, Runner]]:
        """The networks that give landmarks, with their runners on an engine."""
        for network in self.networks:
            if not network.is_baseline and (network.name, engine) in self.runners:
                yield network, self.runners[network.name, engine]

    def _measure(self, level: str, engine: str, batch: int, calls: Mapping[tuple[str, str], Call]) -> None:
        """Time calls in turns, and add their lines and parts to the report.

        Args:
            level: of `LEVELS`.
            engine: that they run on.
            batch: faces in a call.
            calls: by name of the network and part of a photo; an empty part is the whole call.
        """
        stopwatch = self._stopwatch(level)
        what = f"{level}, {engine}, batch {batch}"
        entries: list[_Timed] = []
        for k, ((network, part), call) in enumerate(calls.items()):
            self.progress(f"{what}: warm-up", k, len(calls))
            try:
                milliseconds = warm_up(call, stopwatch)
            except Exception as error:  # out of memory, a missing operator or compiler
                self._problem(engine, network, error, f"batch {batch}")
            else:
                entries.append(_Timed(network, part, Task(call, self._runs(milliseconds))))
        tasks = [entry.task for entry in entries]
        total = sum(task.runs for task in tasks)
        try:
            measure_interleaved(
                tasks,
                stopwatch,
                progress=lambda _: self.progress(what, sum(len(task.samples) for task in tasks), total),
            )
        except Exception as error:  # as in the warm-up; the calls that were timed stay
            self._problem(engine, f"the rest of {level}", error, f"batch {batch}")
        finally:
            self._keep(level, engine, batch, [entry for entry in entries if entry.task.samples])

    def _runs(self, milliseconds: float) -> int:
        """Timed calls of a line, from the milliseconds of a call."""
        asked = self.options.runs
        return planned_runs(milliseconds, DEFAULT_RUNS if asked is None else asked, exactly=asked is not None)

    def _stopwatch(self, level: str) -> Stopwatch:
        if self.options.device == "cuda" and level == NETWORK:
            from dhm_cli.benchmark.cuda import event_stopwatch

            return event_stopwatch
        return wall_stopwatch

    def _keep(self, level: str, engine: str, batch: int, entries: Sequence[_Timed]) -> None:
        faces = len(self.scene.faces) if level == PHOTO_LEVEL else batch
        for entry in entries:
            timing = entry.task.statistics(with_cpu=self.options.device == "cpu")
            per_face, per_second = timing.median_ms / faces, 1000 * faces / timing.median_ms
            place = level, engine, batch, entry.network
            if entry.part:
                self.report.parts.append(Part(*place, entry.part, timing, per_face, per_second))
            else:
                self.report.lines.append(Line(*place, timing, per_face, per_second))

    # --- measurements in processes of their own

    def _measure_folder(self) -> None:
        options = self.options
        for name, weights in self._weights_on_disk(FOLDER):
            arguments = [text for key, value in weights.items() if value for text in (_option(key), value)]
            try:
                found = measure_folder(name, self.scene, arguments, options.photos, options.threads, self.progress)
            except (RuntimeError, OSError) as error:
                self._problem(FOLDER, name, error)
            else:
                self.report.folders.append(found)

    def _measure_processes(self, processes: int) -> None:
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(available_cores()))
        for name, weights in self._weights_on_disk("processes"):
            try:
                found = measure_processes(name, self.scene.file, weights, cores[-processes:], self.progress)
            except (RuntimeError, OSError) as error:
                self._problem("processes", name, error)
            else:
                self.report.processes.append(found)

    def _weights_on_disk(self, what: str) -> Iterator[tuple[str, dict[str, str | None]]]:
        """Names of the networks that another process can load, with the options of `Aligner` for that."""
        face_model = self.options.face_model
        for network in self.networks:
            if network.is_baseline:
                continue
            file = network.weights(self.options.device)
            if file is None:
                error = ValueError("random weights have no file that dhm align could load")
                self._problem(what, network.name, error)
                continue
            yield (
                network.name,
                {
                    "device": self.options.device,
                    "weights": str(file.resolve()),
                    "face_model": None if face_model is None else str(face_model.resolve()),
                },
            )

    def _measure_memory(self) -> None:
        """Peak memory, in several processes at a time: it does not depend on how fast they run."""
        wanted = [
            (network, engine)
            for network in self.networks
            for engine in self.options.network_engines
            # In a compiled network's process, the peak would be the compiler's.
            if engine != "torch-compiled" and (network.name, engine) in self.runners
        ]
        with ThreadPoolExecutor(available_cores()) as pool:
            futures = [
                pool.submit(peak_of_network, network, engine, self.options.threads) for network, engine in wanted
            ]
            try:
                for k, ((network, engine), future) in enumerate(zip(wanted, futures, strict=True)):
                    self.progress("peak memory", k, len(wanted))
                    try:
                        self.report.network(network.name).peak_bytes[engine] = future.result()
                    except Exception as error:  # whatever the engine raised in its process
                        self._problem(engine, network.name, error, "peak memory")
            finally:
                pool.shutdown(cancel_futures=True)

    def _problem(self, engine: str, network: str, error: Exception, where: str = "") -> None:
        self.report.problems.append(Problem(engine, network, where, _reason(error)))


def _reason(error: Exception) -> str:
    text = error.message if isinstance(error, DhmError) else str(error)
    reason = " ".join(text.split()) or type(error).__name__
    return reason if len(reason) <= _REASON_LENGTH else reason[:_REASON_LENGTH] + " …"


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _empty_report(options: BenchmarkOptions, scene: Scene, networks: Sequence[MeasuredNetwork]) -> BenchmarkReport:
    reports = read_reports(options.accuracy)
    described = [
        NetworkReport(
            name=network.name,
            kind=network.kind,
            input_size=network.size,
            hashes=network.hashes,
            note=network.note,
            costs=costs(network),
            accuracy=known_accuracy(network, reports),
        )
        for network in networks
    ]
    height, width = scene.image.shape[:2]
    file = "built-in" if options.photo is None else str(options.photo)
    return BenchmarkReport(
        command=options.command,
        device=options.device,
        threads=options.threads,
        environment={**environment(_PACKAGES), "machine": machine()},
        photo=PhotoReport(file, (width, height), len(scene.faces)),
        reference=REFERENCE,
        subjects=described,
    )
