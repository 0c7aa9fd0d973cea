"""`dhm benchmark`: how fast networks are, side by side with public baselines, and what else they cost."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dhm_cli.benchmark.accuracy import accuracy, read_reports
from dhm_cli.benchmark.baselines import REFERENCE
from dhm_cli.benchmark.costs import costs, sizes
from dhm_cli.benchmark.networks import Subject, resolve_subjects
from dhm_cli.benchmark.peak_memory import peak_of_network
from dhm_cli.benchmark.pinning import check_threads, doubts, pinned
from dhm_cli.benchmark.pipeline import (
    PHOTO,
    RunnerEngine,
    Scene,
    crop_call,
    measure_folder,
    measure_processes,
    open_aligner,
    open_scene,
    photo_call,
    photo_parts,
)
from dhm_cli.benchmark.runners import CPU_ENGINES, CUDA_ENGINES, Runner, default_engines, make_runner
from dhm_cli.benchmark.timing import (
    Call,
    Stopwatch,
    Task,
    measure_interleaved,
    planned_runs,
    wall_stopwatch,
    warm_up,
)
from dhm_cli.drawing.charts import save_accuracy_against_time
from dhm_cli.errors import DhmError, InputError
from dhm_cli.inference.engines import cuda_problem
from dhm_cli.metrics.published import published_results
from dhm_cli.runtime.atomic import written_atomically
from dhm_cli.runtime.environment import environment, machine
from dhm_cli.runtime.progress import Progress
from dhm_cli.runtime.threads import available_cores

SCHEMA, SCHEMA_VERSION = "dhm-benchmark", 1
NETWORK, CROP, PHOTO_LEVEL, FOLDER = LEVELS = ("network", "crop", "photo", "folder")
DEFAULT_SUBJECTS = ("fast", "fast-x2")
DEFAULT_RUNS = 300
# Faces in a call of the network alone, of engines that are measured at several and of the others.
_BATCHES = {"cpu": (1, 32), "cuda": (1, 32, 256, 1024)}
_ONE_BATCH = {"cpu": (1,), "cuda": _BATCHES["cuda"]}
_PACKAGES = ("onnx", "onnxscript", "openvino")
_REASON_LENGTH = 160
# More would fill the memory of common machines with noise alone.
_MOST_FACES = 4096


@dataclass(frozen=True)
class BenchmarkOptions:
    """What to measure.

    Attributes:
        subjects: see `resolve_subjects`.
        device: "cpu" or "cuda".
        threads: of a call; the process is pinned to as many cores.
        engines: of `CPU_ENGINES` or `CUDA_ENGINES`; empty for `default_engines`.
        levels: of `LEVELS`.
        batches: faces in a call of the network alone; empty for the device's usual ones.
        runs: timed calls of each line; None for 300, or fewer of slow networks.
        photo: for the levels above the network; None for the built-in one.
        photos: of the level folder.
        processes: how many work at once on whole photos; None for no such measurement.
        accuracy: reports of `dhm evaluate`.
        face_model: for checkpoints that regress its parameters.
        json: where to write the report.
        plot: where to write the chart, PNG.
        command: as it was typed.
    """

    subjects: tuple[str, ...] = DEFAULT_SUBJECTS
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
    command: str = ""

    def batches_of(self, engine: str) -> tuple[int, ...]:
        """Batch sizes of the level network."""
        several = self.device == "cuda" or engine == "onnxruntime"
        return self.batches or (_BATCHES if several else _ONE_BATCH)[self.device]


@dataclass(frozen=True, eq=False)
class _Entry:
    """A line of the report in the making."""

    line: dict[str, Any]
    task: Task


class _Bench:
    """One run: what is measured, on what, and the report so far."""

    def __init__(self, options: BenchmarkOptions, progress: Progress) -> None:
        self.options, self.progress = options, progress
        self.subjects = resolve_subjects(options.subjects, options.face_model)
        self.scene = open_scene(options.photo or PHOTO)
        self.reports = read_reports(options.accuracy)
        self.engines = options.engines or default_engines(options.device)
        # The levels above the network on one engine only, unless engines were named.
        self.pipeline_engines = self.engines if options.engines else self.engines[:1]
        self.runners: dict[tuple[str, str], Runner] = {}
        self.report = _empty_report(options, self.scene, self.subjects, self.reports)

    def measure(self) -> None:
        """Everything, into `report`; lines that are interrupted keep what they have."""
        self._export()
        with pinned(self.options.threads) as cores:
            self.report["pinned_cores"] = cores
            if self.options.device == "cuda":
                self._know_the_device()
            self._make_runners()
            if NETWORK in self.options.levels:
                for engine in self.engines:
                    for batch in self.options.batches_of(engine):
                        self._measure_network(engine, batch)
            for engine in self.pipeline_engines:
                if CROP in self.options.levels:
                    self._measure_crops(engine)
                if PHOTO_LEVEL in self.options.levels:
                    self._measure_photos(engine)
            if FOLDER in self.options.levels:
                self._measure_folder()
        if self.options.processes is not None:
            self._measure_processes()
        self._measure_memory()

    def _know_the_device(self) -> None:
        from dhm_cli.benchmark.cuda import cuda_machine, matrix_product_flops

        self.progress("matrix products", 0, 1)
        try:
            limits = {"float32": matrix_product_flops(half=False), "float16": matrix_product_flops(half=True)}
        except RuntimeError as error:  # no memory left on it, or taken by another program
            raise DhmError(
                f"device cuda cannot be used: {_reason(error)}", "pass --device cpu, or try later"
            ) from error
        self.report["cuda"] = {**cuda_machine(), "matrix_product_flops": limits}

    def _export(self) -> None:
        """Make the ONNX files that are lacking, on all cores; who cannot be exported is told of by its engines."""
        if not {"onnxruntime", "openvino"} & set(self.engines):
            return
        for k, (subject, described) in enumerate(zip(self.subjects, self.report["subjects"], strict=True)):
            self.progress(f"{subject.name} as ONNX", k, len(self.subjects))
            with suppress(Exception):
                data = subject.onnx
                if described["file_bytes"] is None:
                    described |= sizes(data) | {"sized_file": "its ONNX file, float32"}

    def _make_runners(self) -> None:
        wanted = [(subject, engine) for subject in self.subjects for engine in self.engines]
        for k, (subject, engine) in enumerate(wanted):
            self.progress(f"{subject.name} for {engine}", k, len(wanted))
            try:
                runner = make_runner(subject, engine, self.options.threads, self.options.device)
            except Exception as error:  # whatever an engine raises: the others go on
                self._problem(engine, subject.name, error)
            else:
                self.runners[subject.name, engine] = runner

    def _measure_network(self, engine: str, batch: int) -> None:
        calls = {}
        for subject in self.subjects:
            if (subject.name, engine) in self.runners:
                try:
                    calls[subject.name] = self.runners[subject.name, engine].bind(subject.inputs(batch))
                except (MemoryError, RuntimeError) as error:  # the latter is how torch tells of a device's memory
                    self._problem(engine, subject.name, error, f"batch {batch}")
        self._measure(NETWORK, engine, batch, calls)

    def _measure_crops(self, engine: str) -> None:
        calls = {
            subject.name: crop_call(RunnerEngine(subject, self.runners[subject.name, engine]), self.scene)
            for subject in self._landmarkers(engine)
        }
        self._measure(CROP, engine, 1, calls)

    def _measure_photos(self, engine: str) -> None:
        calls, parts = {}, {}
        for subject in self._landmarkers(engine):
            aligner = open_aligner(subject, engine, self.runners[subject.name, engine], self.options.threads)
            calls[subject.name] = photo_call(aligner, self.scene)
            parts[subject.name] = photo_parts(aligner, self.scene)
        self._measure(PHOTO_LEVEL, engine, 1, calls, parts)

    def _landmarkers(self, engine: str) -> list[Subject]:
        return [s for s in self.subjects if not s.is_baseline and (s.name, engine) in self.runners]

    def _measure(
        self,
        level: str,
        engine: str,
        batch: int,
        calls: Mapping[str, Call],
        parts: Mapping[str, Mapping[str, Call]] | None = None,
    ) -> None:
        """Time calls of several networks, and of the parts of a photo, in turns."""
        stopwatch = self._stopwatch(level)
        entries: list[_Entry] = []
        named = [(name, "", call) for name, call in calls.items()]
        named += [(name, part, call) for name, of_it in (parts or {}).items() for part, call in of_it.items()]
        for k, (name, part, call) in enumerate(named):
            self.progress(f"{level}, {engine}, batch {batch}: warm-up", k, len(named))
            try:
                milliseconds = warm_up(call, stopwatch)
            except Exception as error:  # out of memory, an operator that is missing, a compiler that is
                self._problem(engine, name, error, f"batch {batch}")
                continue
            runs = planned_runs(
                milliseconds,
                DEFAULT_RUNS if self.options.runs is None else self.options.runs,
                self.options.runs is not None,
            )
            line = {"level": level, "engine": engine, "batch": batch, "subject": name}
            entries.append(_Entry({**line, "part": part} if part else line, Task(call, runs)))
        done, total = 0, sum(entry.task.runs for entry in entries)

        def show(calls: int) -> None:
            nonlocal done
            done += calls
            self.progress(f"{level}, {engine}, batch {batch}", done, total)

        try:
            measure_interleaved([entry.task for entry in entries], stopwatch, progress=show)
        except Exception as error:  # as in the warm-up; what has been timed stays
            self._problem(engine, f"the rest of {level}", error, f"batch {batch}")
        finally:
            self._keep([entry for entry in entries if entry.task.samples])

    def _keep(self, entries: Sequence[_Entry]) -> None:
        timed_by_events = self.options.device == "cuda"
        for entry in entries:
            line = {**entry.line, **entry.task.statistics()}
            if timed_by_events:
                line["cpu_per_wall"] = None  # waiting for a device is no sign of a busy machine
            faces = len(self.scene.faces) if line["level"] == PHOTO_LEVEL else line["batch"]
            line["ms_per_face"] = line["median_ms"] / faces
            line["faces_per_s"] = 1000 * faces / line["median_ms"]
            self.report["parts" if "part" in line else "lines"].append(line)

    def _stopwatch(self, level: str) -> Stopwatch:
        if self.options.device == "cuda" and level == NETWORK:
            from dhm_cli.benchmark.cuda import event_stopwatch

            return event_stopwatch
        return wall_stopwatch

    def _measure_folder(self) -> None:
        for subject in self._on_disk(FOLDER):
            weights = [
                text for name, value in self._weights(subject).items() if value for text in (_option(name), value)
            ]
            try:
                found = measure_folder(self.scene, weights, self.options.photos, self.options.threads, self.progress)
            except (RuntimeError, OSError) as error:
                self._problem(FOLDER, subject.name, error)
            else:
                self.report["folders"].append({"subject": subject.name, **found})

    def _measure_processes(self) -> None:
        import os

        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(available_cores()))
        for subject in self._on_disk("processes"):
            try:
                found = measure_processes(
                    self.scene, self._weights(subject), cores[-(self.options.processes or 1) :], self.progress
                )
            except (RuntimeError, OSError) as error:
                self._problem("processes", subject.name, error)
            else:
                self.report["processes"].append({"subject": subject.name, **found})

    def _on_disk(self, what: str) -> list[Subject]:
        """The networks that a process of its own can load."""
        chosen = [subject for subject in self.subjects if not subject.is_baseline]
        for subject in chosen:
            if subject.file is None:
                self._problem(what, subject.name, ValueError("random weights have no file that dhm align could load"))
        return [subject for subject in chosen if subject.file is not None]

    def _weights(self, subject: Subject) -> dict[str, str | None]:
        """What `Aligner` and, as options, `dhm align` are told to load a network."""
        device, file = self.options.device, subject.file
        if device == "cpu" and subject.onnx_file is not None:
            file = subject.onnx_file
        face_model = None if self.options.face_model is None else str(self.options.face_model.resolve())
        return {"device": device, "weights": str(file and file.resolve()), "face_model": face_model}

    def _measure_memory(self) -> None:
        """Peak memory, several at a time: it does not depend on how fast they run."""
        if self.options.device == "cuda":
            return
        engines = [engine for engine in self.engines if engine != "torch-compiled"]  # it would be the compiler's
        wanted = [(s, e) for s in self.subjects for e in engines if (s.name, e) in self.runners]
        done = 0
        with ThreadPoolExecutor(available_cores()) as pool:
            futures = [
                pool.submit(peak_of_network, subject, engine, self.options.threads) for subject, engine in wanted
            ]
            try:
                for (subject, engine), future in zip(wanted, futures, strict=True):
                    self.progress("peak memory", done, len(wanted))
                    described = next(one for one in self.report["subjects"] if one["name"] == subject.name)
                    try:
                        described["peak_bytes"][engine] = future.result()
                    except Exception as error:  # as in _make_runners, told by the process
                        self._problem(engine, subject.name, error, "peak memory")
                    done += 1
            finally:
                pool.shutdown(cancel_futures=True)

    def _problem(self, engine: str, subject: str, error: Exception, where: str = "") -> None:
        problem = {"engine": engine, "subject": subject, "where": where, "reason": _reason(error)}
        self.report["problems"].append(problem)


def _reason(error: Exception) -> str:
    text = error.message if isinstance(error, DhmError) else str(error)
    reason = " ".join(text.split()) or type(error).__name__
    return reason if len(reason) <= _REASON_LENGTH else reason[:_REASON_LENGTH] + " …"


def benchmark(options: BenchmarkOptions, progress: Progress) -> dict[str, Any]:
    """Measure networks, and write the report and the chart where they are asked for.

    Args:
        options: what to measure.
        progress: called with what is done, how much of it, and of how much.

    Returns:
        The report, plain JSON; `interrupted` is true where Ctrl-C ended it early.

    Raises:
        DhmError: something in the options cannot be used; nothing was measured then.
    """
    check_options(options)
    bench = _Bench(options, progress)
    report = bench.report
    try:
        bench.measure()
    except KeyboardInterrupt:
        report["interrupted"] = True
    _complete(report)
    if options.plot is not None:
        save_accuracy_against_time(options.plot, chart_rows(report), published_results(comparable=False)["rows"])
    if options.json is not None:
        with written_atomically(options.json) as partial:
            partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def check_options(options: BenchmarkOptions) -> None:
    """Refuse what cannot be measured, before anything is loaded.

    Raises:
        InputError: a number out of range, an engine that the device lacks, a file that cannot be written.
        DhmError: no CUDA.
    """
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
    for option, path in (("--json", options.json), ("--plot", options.plot)):
        if path is not None:
            _check_writable(option, path)


def _check_writable(option: str, path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder", "name a file")
    trial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise InputError(
            f"{option} {path}: cannot be written: {error.strerror or error}", "choose another folder"
        ) from error


def _empty_report(
    options: BenchmarkOptions, scene: Scene, subjects: Sequence[Subject], reports: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    described = [
        {
            "name": subject.name,
            "kind": subject.kind,
            "input_size": subject.size,
            "hashes": list(subject.hashes),
            "note": subject.note,
            **costs(subject),
            "peak_bytes": {},
            "accuracy": accuracy(subject, reports),
        }
        for subject in subjects
    ]
    built_in = options.photo is None
    height, width = scene.image.shape[:2]
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "interrupted": False,
        "command": options.command,
        "device": options.device,
        "threads": options.threads,
        "pinned_cores": [],
        "environment": {**environment(_PACKAGES), "machine": machine()},
        "cuda": None,
        "photo": {
            "file": "built-in" if built_in else str(options.photo),
            "size": [width, height],
            "faces": len(scene.faces),
        },
        "reference": REFERENCE,
        "subjects": described,
        "lines": [],
        "parts": [],
        "folders": [],
        "processes": [],
        "problems": [],
        "warnings": [],
    }


def _complete(report: dict[str, Any]) -> None:
    """Add what follows from the lines: ratios to the reference, shares of the device's limit, doubts."""
    by_group = {(e["level"], e["engine"], e["batch"]): e for e in report["lines"] if e["subject"] == REFERENCE}
    for line in report["lines"]:
        reference = by_group.get((line["level"], line["engine"], line["batch"]))
        line["times_faster"] = None if reference is None else reference["median_ms"] / line["median_ms"]
        line["share_of_limit"] = _share_of_limit(report, line)
    report["warnings"] += doubts(report["lines"], report["threads"])


def _share_of_limit(report: Mapping[str, Any], line: Mapping[str, Any]) -> float | None:
    """Floating-point operations a second over those of a large matrix product, on CUDA."""
    macs = next(subject["macs"] for subject in report["subjects"] if subject["name"] == line["subject"])
    if report["cuda"] is None or macs is None or line["level"] != NETWORK:
        return None
    limit = report["cuda"]["matrix_product_flops"]["float16" if line["engine"] == "torch-half" else "float32"]
    return float(2 * macs * line["faces_per_s"] / limit)


def chart_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The networks of a report for the chart, each with its best engine alone at batch 1.

    Returns:
        name; milliseconds of a face; engine; nme, percent, and of, which faces, both None where it was not measured.
    """
    rows = []
    for subject in report["subjects"]:
        lines = [e for e in report["lines"] if e["subject"] == subject["name"] and e["level"] == NETWORK]
        best = min((e for e in lines if e["batch"] == 1), key=lambda e: e["ms_per_face"], default=None)
        if best is not None:
            known = subject["accuracy"] or {"nme": None, "of": None}
            row = {"name": subject["name"], "milliseconds": best["ms_per_face"], "engine": best["engine"]}
            rows.append({**row, **known})
    return rows


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
