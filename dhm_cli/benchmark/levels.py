"""The levels whose calls are timed in this process: the network alone, its crop, the whole photo."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dhm_cli.benchmark.measured_networks import MeasuredNetwork
from dhm_cli.benchmark.pipeline import RunnerEngine, Scene, crop_call, open_aligner, photo_call, photo_parts
from dhm_cli.benchmark.plan import CROP, DEFAULT_RUNS, NETWORK, PHOTO_LEVEL, BenchmarkOptions
from dhm_cli.benchmark.report import BenchmarkReport, Line, Part
from dhm_cli.benchmark.runners import Runner
from dhm_cli.benchmark.timing import (
    Call,
    Stopwatch,
    Task,
    measure_interleaved,
    planned_runs,
    wall_stopwatch,
    warm_up,
)
from dhm_cli.runtime.progress import Progress


@dataclass(frozen=True, eq=False)
class _Timed:
    """A call that is timed, and which line of the report it gives; `part` is empty but for parts of a photo."""

    network: str
    part: str
    task: Task


class LevelTimer:
    """Times the calls of networks and adds their lines to a report.

    Args:
        options: what to measure.
        networks: in the order of the report.
        scene: the photo.
        runners: by name of the network and engine; those that are missing are not measured.
        report: takes lines, parts and problems.
        progress: called before and between the turns of calls.
    """

    def __init__(
        self,
        options: BenchmarkOptions,
        networks: Sequence[MeasuredNetwork],
        scene: Scene,
        runners: Mapping[tuple[str, str], Runner],
        report: BenchmarkReport,
        progress: Progress,
    ) -> None:
        self.options, self.networks, self.scene = options, networks, scene
        self.runners, self.report, self.progress = runners, report, progress

    def measure(self) -> None:
        """Measure the levels that the options name."""
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

    def _measure_network(self, engine: str, batch: int) -> None:
        calls = {}
        for network in self.networks:
            if (network.name, engine) in self.runners:
                try:
                    calls[network.name, ""] = self.runners[network.name, engine].bind(network.inputs(batch))
                except (MemoryError, RuntimeError) as error:  # torch raises the latter for a device's memory
                    self.report.add_problem(engine, network.name, error, f"batch {batch}")
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
                self.report.add_problem(engine, network, error, f"batch {batch}")
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
            self.report.add_problem(engine, f"the rest of {level}", error, f"batch {batch}")
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
