"""`dhm benchmark`: the speed of networks, side by side with public baselines, and their other costs."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from dhm_cli.benchmark.accuracy import known_accuracy, read_reports
from dhm_cli.benchmark.baselines import REFERENCE
from dhm_cli.benchmark.chart import save_chart
from dhm_cli.benchmark.costs import costs
from dhm_cli.benchmark.doubts import doubts
from dhm_cli.benchmark.levels import LevelTimer
from dhm_cli.benchmark.measured_networks import MeasuredNetwork, find_networks
from dhm_cli.benchmark.peak_memory import peak_of_network
from dhm_cli.benchmark.photo_folder import FOLDERS, measure_folder
from dhm_cli.benchmark.pinning import pinned
from dhm_cli.benchmark.pipeline import PHOTO, Scene, open_scene
from dhm_cli.benchmark.plan import FOLDER, BenchmarkOptions, check_options, with_device
from dhm_cli.benchmark.processes import measure_processes
from dhm_cli.benchmark.report import BenchmarkReport, NetworkReport, PhotoReport, reason, save_report
from dhm_cli.benchmark.runners import Runner, make_runner
from dhm_cli.errors import DhmError
from dhm_cli.runtime.environment import environment, machine
from dhm_cli.runtime.progress import Progress
from dhm_cli.runtime.threads import available_cores

# Packages whose versions matter here, beside those of every run.
_PACKAGES = ("onnx", "onnxscript", "openvino")


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
    options = with_device(options)
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


class _Bench:
    """One run: the options, what is measured, and the report so far.

    Args:
        options: checked.
        progress: see `benchmark`.
    """

    def __init__(self, options: BenchmarkOptions, progress: Progress) -> None:
        self.options, self.progress = options, progress
        self.networks = find_networks(options.models, options.face_model)
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
            LevelTimer(self.options, self.networks, self.scene, self.runners, self.report, self.progress).measure()
            if FOLDER in self.options.levels:
                self._measure_folder()
        if self.options.processes is not None:
            self._measure_processes(self.options.processes)
        if self.options.device == "cpu":
            self._measure_memory()

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
            raise DhmError(f"device cuda cannot be used: {reason(error)}", "pass --device cpu, or try later") from error

    def _make_runners(self) -> None:
        wanted = [(network, engine) for network in self.networks for engine in self.options.network_engines]
        for k, (network, engine) in enumerate(wanted):
            self.progress(f"{network.name} for {engine}", k, len(wanted))
            try:
                runner = make_runner(network, engine, self.options.threads, self.options.device)
            except Exception as error:  # whatever an engine raises: the others go on
                self.report.add_problem(engine, network.name, error)
            else:
                self.runners[network.name, engine] = runner

    def _measure_folder(self) -> None:
        options = self.options
        for name, settings in self._networks_on_disk(FOLDER):
            arguments = [text for key, value in settings.items() if value for text in (_option(key), value)]
            for kind in FOLDERS:
                try:
                    count, threads = options.photos, options.threads
                    found = measure_folder(name, kind, self.scene, arguments, count, threads, self.progress)
                except (RuntimeError, OSError) as error:
                    self.report.add_problem(FOLDER, name, error)
                else:
                    self.report.folders.append(found)

    def _measure_processes(self, processes: int) -> None:
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(available_cores()))
        for name, settings in self._networks_on_disk("processes"):
            try:
                found = measure_processes(name, self.scene.file, settings, cores[-processes:], self.progress)
            except (RuntimeError, OSError) as error:
                self.report.add_problem("processes", name, error)
            else:
                self.report.processes.append(found)

    def _networks_on_disk(self, what: str) -> Iterator[tuple[str, dict[str, str | None]]]:
        """Names of the networks that another process can load, with the options of `Aligner` for that."""
        face_model = self.options.face_model
        for network in self.networks:
            if network.is_baseline:
                continue
            file = network.weights(self.options.device)
            if file is None:
                error = ValueError("random weights have no file that dhm align could load")
                self.report.add_problem(what, network.name, error)
                continue
            yield (
                network.name,
                {
                    "device": self.options.device,
                    "model": str(file.resolve()),
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
                        self.report.add_problem(engine, network.name, error, "peak memory")
            finally:
                pool.shutdown(cancel_futures=True)


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
