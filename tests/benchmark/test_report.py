"""The JSON of `dhm benchmark --json`, as files written before have it, and the ratios of its lines."""

import dataclasses
import json
from pathlib import Path

from dhm_cli.benchmark import report as report_module
from dhm_cli.benchmark.accuracy import Accuracy
from dhm_cli.benchmark.costs import Costs
from dhm_cli.benchmark.cuda import CudaMachine
from dhm_cli.benchmark.photo_folder import FolderTiming
from dhm_cli.benchmark.processes import ProcessesTiming
from dhm_cli.benchmark.report import (
    BenchmarkReport,
    Line,
    NetworkReport,
    Part,
    PhotoReport,
    Problem,
    report_json,
    save_report,
)
from dhm_cli.benchmark.timing import Statistics

TIMING = Statistics(runs=10, median_ms=2.0, p5_ms=1.5, p95_ms=3.0, mean_ms=2.1, min_ms=1.0, cpu_per_wall=None)
TIMING_JSON = {
    "runs": 10,
    "median_ms": 2.0,
    "p5_ms": 1.5,
    "p95_ms": 3.0,
    "mean_ms": 2.1,
    "min_ms": 1.0,
    "cpu_per_wall": None,
}


def line(
    subject: str, median: float = 2.0, engine: str = "torch", batch: int = 1, level: str = "network", faces: int = 1
) -> Line:
    timing = dataclasses.replace(TIMING, median_ms=median)
    return Line(level, engine, batch, subject, timing, median / faces, 1000 * faces / median)


def a_report() -> BenchmarkReport:
    """A report with an entry of every kind."""
    costs = Costs(5, 2_000_000, 20, 30, 25, "fast.onnx")
    networks = [
        NetworkReport("fast", "packaged", 120, ("ab", "cd"), "", costs, {"torch": 7}, Accuracy(2.5, "faces")),
        NetworkReport("x0.5", "baseline", 120, (), "random weights", Costs()),
    ]
    report = BenchmarkReport(
        command="dhm benchmark",
        device="cuda",
        threads=1,
        environment={"dhm": "1", "machine": {"governor": None}},
        photo=PhotoReport("built-in", (512, 256), 1),
        reference="x0.5",
        subjects=networks,
    )
    report.pinned_cores = [1]
    report.cuda = CudaMachine("H", 8, "9.0", 132, "12", 9, None, True, {"float32": 4e9, "float16": 8e9})
    report.lines = [line("fast")]
    report.parts = [Part("photo", "torch", 1, "fast", "read", TIMING, 2.0, 500.0)]
    report.folders = [FolderTiming("fast", "12 MP", (2, 8), 1, 0.5, 0.6, 5, (1.0, 2.0), (10, 20), None)]
    report.processes = [ProcessesTiming("fast", 2, 10.0, 19.0, 1.9)]
    report.problems = [Problem("torch", "fast", "batch 2", "no memory")]
    report.warnings = ["not steady"]
    return report


# Schema version 1. The keys, their order and their nesting must stay, or the version must change.
SCHEMA_1 = {
    "schema": "dhm-benchmark",
    "schema_version": 1,
    "interrupted": False,
    "command": "dhm benchmark",
    "device": "cuda",
    "threads": 1,
    "pinned_cores": [1],
    "environment": {"dhm": "1", "machine": {"governor": None}},
    "cuda": {
        "name": "H",
        "memory_bytes": 8,
        "compute_capability": "9.0",
        "multiprocessors": 132,
        "cuda": "12",
        "cudnn": 9,
        "driver": None,
        "cudnn_allow_tf32": True,
        "matrix_product_flops": {"float32": 4e9, "float16": 8e9},
    },
    "photo": {"file": "built-in", "size": [512, 256], "faces": 1},
    "reference": "x0.5",
    "subjects": [
        {
            "name": "fast",
            "kind": "packaged",
            "input_size": 120,
            "hashes": ["ab", "cd"],
            "note": "",
            "parameters": 5,
            "macs": 2_000_000,
            "float32_bytes": 20,
            "file_bytes": 30,
            "compressed_bytes": 25,
            "sized_file": "fast.onnx",
            "peak_bytes": {"torch": 7},
            "accuracy": {"nme": 2.5, "of": "faces"},
        },
        {
            "name": "x0.5",
            "kind": "baseline",
            "input_size": 120,
            "hashes": [],
            "note": "random weights",
            "parameters": None,
            "macs": None,
            "float32_bytes": None,
            "file_bytes": None,
            "compressed_bytes": None,
            "sized_file": None,
            "peak_bytes": {},
            "accuracy": None,
        },
    ],
    "lines": [
        {
            "level": "network",
            "engine": "torch",
            "batch": 1,
            "subject": "fast",
            **TIMING_JSON,
            "ms_per_face": 2.0,
            "faces_per_s": 500.0,
            "times_faster": None,
            "share_of_limit": None,
        }
    ],
    "parts": [
        {
            "level": "photo",
            "engine": "torch",
            "batch": 1,
            "subject": "fast",
            "part": "read",
            **TIMING_JSON,
            "ms_per_face": 2.0,
            "faces_per_s": 500.0,
        }
    ],
    "folders": [
        {
            "subject": "fast",
            "folder": "12 MP",
            "photos": [2, 8],
            "threads": 1,
            "startup_best_s": 0.5,
            "startup_median_s": 0.6,
            "startup_runs": 5,
            "seconds": [1.0, 2.0],
            "peak_bytes": [10, 20],
            "photos_per_s": None,
        }
    ],
    "processes": [
        {"subject": "fast", "processes": 2, "photos_per_s_one": 10.0, "photos_per_s_all": 19.0, "speed_up": 1.9}
    ],
    "problems": [{"engine": "torch", "subject": "fast", "where": "batch 2", "reason": "no memory"}],
    "warnings": ["not steady"],
}


def test_the_json_is_that_of_its_schema(tmp_path: Path) -> None:
    save_report(tmp_path / "a.json", a_report())
    assert (tmp_path / "a.json").read_text() == json.dumps(SCHEMA_1, indent=1) + "\n"


def test_every_field_is_described() -> None:
    types = [t for t in vars(report_module).values() if dataclasses.is_dataclass(t) and isinstance(t, type)]
    assert {BenchmarkReport, Costs, CudaMachine, Statistics} < set(types)
    for described in types:
        own = {field.name for field in dataclasses.fields(described)}
        if described is Part:  # the others are those of `Line`
            own -= {field.name for field in dataclasses.fields(Line)}
        assert all(f"\n        {name}: " in str(described.__doc__) for name in own), described


def test_ratios_are_to_the_reference_of_the_same_level_engine_and_batch() -> None:
    report = a_report()
    report.lines = [
        line("fast", 2.0),
        line("x0.5", 3.0),
        line("fast", 4.0, batch=2, faces=2),
        line("fast", 1.0, "torch-half"),
        line("x0.5", 1.5, "torch-half"),
        line("fast", 9.0, level="crop"),
    ]
    report.add_ratios()
    assert [found.times_faster for found in report.lines] == [1.5, 1.0, None, 1.5, 1.0, None]
    # 4 million operations a face, at 500 and 500 faces a second of 4e9, and 1000 a second of 8e9.
    assert [found.share_of_limit for found in report.lines] == [0.5, None, 0.5, 0.5, None, None]
    report.cuda = None
    report.add_ratios()
    assert {found.share_of_limit for found in report.lines} == {None}


def test_a_report_stays_as_it_is_when_it_is_written() -> None:
    report = a_report()
    before = repr(report)
    report_json(report)["subjects"][0]["peak_bytes"]["torch"] = 8
    assert repr(report) == before
