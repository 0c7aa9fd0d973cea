"""`dhm benchmark` as a user meets it."""

import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from example_networks import small_checkpoint, small_recipe
from printed import folded
from typer.testing import CliRunner, Result

from dhm_cli.benchmark import (
    baselines,
    bench,
    measured_networks,
    photo_folder,
    pipeline,
    plan,
    processes,
    timing,
)
from dhm_cli.benchmark.baselines import REFERENCE
from dhm_cli.cli.main import app


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder; one baseline, and no process for the memory of each engine, to be done in a moment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(measured_networks, "BASELINES", {REFERENCE: 0.5})
    monkeypatch.setattr(baselines, "_BLOCKS", ((64, 2),))
    monkeypatch.setattr(timing, "_WARM_UP_SECONDS", 0)
    monkeypatch.setattr(bench, "peak_of_network", lambda *_: 50_000_000)
    return tmp_path


def dhm(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["benchmark", *map(str, arguments)])


def models(*names: object) -> list[str]:
    return [f"--model={name}" for name in names]


def test_a_run(here: Path, dummy_network: Path) -> None:
    result = dhm(
        *models("fast", dummy_network), "--runs", 4, "--batch", 1, "--batch", 2, "--json", "a.json", "--plot", "a.png"
    )
    assert result.exit_code == 0, result.output
    assert "not measured: dummy, torch: torch cannot run an ONNX file; give its checkpoint" in folded(result.stderr)
    for words in (
        "onnxruntime, batch 2",
        "torch, batch 1",
        "CPU/",
        "faces/s",
        "speed-up",
        "two passes",
        "wrote a.json",
    ):
        assert words in result.stdout, words
    assert max(map(len, result.output.splitlines())) <= 80
    assert "…" not in result.output
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")

    report = json.loads(Path("a.json").read_text())
    assert (report["schema"], report["schema_version"], report["interrupted"]) == ("dhm-benchmark", 1, False)
    lines = {(e["level"], e["engine"], e["batch"], e["subject"]): e for e in report["lines"]}
    assert set(lines) == {
        *(("network", "onnxruntime", batch, name) for batch in (1, 2) for name in ("fast", "dummy", REFERENCE)),
        *(("network", "torch", batch, name) for batch in (1, 2) for name in ("fast", REFERENCE)),
        *((level, "onnxruntime", 1, name) for level in ("crop", "photo") for name in ("fast", "dummy")),
    }
    for key, found in lines.items():
        assert found["runs"] == 4
        assert found["p5_ms"] <= found["median_ms"] <= found["p95_ms"]
        assert found["ms_per_face"] == pytest.approx(found["median_ms"] / key[2])
        assert found["faces_per_s"] == pytest.approx(1000 / found["ms_per_face"])
        if key[0] == "network":
            reference = lines[(*key[:3], REFERENCE)]
            assert found["times_faster"] == pytest.approx(reference["median_ms"] / found["median_ms"])
        else:
            assert found["times_faster"] is None
    assert {part["part"] for part in report["parts"]} == {"read", "detect", "two passes"}
    known = {subject["name"]: subject for subject in report["subjects"]}
    assert known["fast"]["peak_bytes"] == {"onnxruntime": 50_000_000, "torch": 50_000_000}
    assert known["fast"]["accuracy"]["of"] == "validation faces of the network's training"
    assert known[REFERENCE]["file_bytes"] > known[REFERENCE]["compressed_bytes"] > 1000
    assert report["environment"]["machine"]["available_cores"] >= 1


def test_ctrl_c_keeps_what_was_measured(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = iter(range(100))
    take_turn = timing._take_turn

    def interrupted(*arguments: Any) -> None:
        if next(turns) == 3:
            raise KeyboardInterrupt
        take_turn(*arguments)

    monkeypatch.setattr(timing, "_take_turn", interrupted)
    result = dhm(*models("fast"), "--engine", "torch", "--runs", 20, "--json", "a.json")
    assert result.exit_code == 130
    assert "interrupted" in folded(result.stderr)
    assert "20 timed calls a line; 10 of MobileNet-V1 x0.5 torch batch 1" in folded(result.stdout)
    report = json.loads(Path("a.json").read_text())
    assert report["interrupted"]
    assert [(e["level"], e["subject"], e["runs"]) for e in report["lines"]] == [
        ("network", "fast", 20),
        ("network", REFERENCE, 10),
    ]


def test_an_engine_that_fails_lets_the_others_go_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = bench.make_runner

    def failing(subject: Any, engine: str, *rest: Any) -> Any:
        if engine == "torch-channels-last":
            raise RuntimeError("no such\nplugin")
        return make(subject, engine, *rest)

    monkeypatch.setattr(bench, "make_runner", failing)
    engines = ("--engine", "torch-channels-last", "--engine", "torch", "--level", "network", "--batch", 1, "--runs", 1)
    result = dhm(*models(small_checkpoint(here / "small.safetensors")), *engines)
    assert result.exit_code == 0, result.output
    assert "not measured: small, torch-channels-last: no such plugin" in folded(result.stderr)
    assert "torch, batch 1" in result.stdout


@pytest.mark.parametrize("where", ["bind", "run"])
def test_a_call_that_fails_costs_only_its_lines(here: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    class Full:
        """A runner of a device whose memory is full from two faces on."""

        def bind(self, inputs: Any) -> Any:
            if where == "bind" and len(inputs) > 1:
                raise RuntimeError("CUDA out of memory")
            calls = iter(range(10))

            def call() -> None:
                if len(inputs) > 1 and next(calls) == 7:  # after the warm-up and the untimed call, and two timed ones
                    raise RuntimeError("CUDA out of memory")

            return call

    monkeypatch.setattr(bench, "make_runner", lambda *_: Full())
    options = ("--engine", "torch", "--level", "network", "--batch", 1, "--batch", 2, "--runs", 10, "--json", "a.json")
    result = dhm(*models(small_checkpoint(here / "small.safetensors")), *options)
    assert result.exit_code == 0, result.output
    name = "small" if where == "bind" else "the rest of network"
    assert f"not measured: {name}, torch, batch 2: CUDA out of memory" in folded(result.stderr)
    lines = json.loads(Path("a.json").read_text())["lines"]
    assert [(e["batch"], e["subject"], e["runs"]) for e in lines] == [
        (1, "small", 10),
        (1, REFERENCE, 10),
        *([(2, "small", 2)] if where == "run" else []),
    ]


def test_times_of_a_photo_are_of_all_its_faces(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def two(file: Path) -> pipeline.Scene:
        scene = pipeline.open_scene(file)
        return pipeline.Scene(file, scene.image, scene.faces * 2)

    monkeypatch.setattr(bench, "open_scene", two)
    options = ("--engine", "onnxruntime", "--level", "photo", "--runs", 1, "--json", "a.json")
    monkeypatch.setattr(measured_networks, "BASELINES", {})
    result = dhm(*models("fast"), *options)
    assert result.exit_code == 0, result.output
    (line,) = json.loads(Path("a.json").read_text())["lines"]
    assert line["ms_per_face"] == pytest.approx(line["median_ms"] / 2)
    assert line["faces_per_s"] == pytest.approx(2000 / line["median_ms"])


def test_folders_and_processes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_folder, "_START_UPS", 1)
    monkeypatch.setattr(processes, "_SECONDS", 0.2)
    monkeypatch.setattr(measured_networks, "find_recipe", small_recipe)
    options = ("--level", "folder", "--photos", 8, "--processes", 1, "--engine", "torch", "--json", "a.json")
    result = dhm(*models("fast", "2drnn"), *options)
    assert result.exit_code == 0, result.output
    assert "not measured: 2drnn, folder: random weights have no file" in folded(result.stderr)
    for photos in ("8 photos of 250 x 250", "1 photo of 12 MP", "2 photos of 250 x 250, each tenth of 12 MP"):
        assert f"dhm align, fast, {photos}, 1 thread:" in folded(result.stdout)
    report = json.loads(Path("a.json").read_text())
    (folder, *_), (several,) = report["folders"], report["processes"]
    assert folder["photos"] == [2, 8]
    assert all(30e6 < peak < 400e6 for peak in folder["peak_bytes"])
    assert 0 < folder["startup_best_s"] <= folder["startup_median_s"]
    assert several["photos_per_s_one"] > 1
    assert several["speed_up"] == several["photos_per_s_all"] / several["photos_per_s_one"]


def quick(*arguments: object) -> Result:
    return dhm("--model=fast", "--engine=torch", "--level=network", "--runs=1", *arguments)


def test_json_to_standard_output_stands_alone(here: Path) -> None:
    """It was a file called "-"."""
    result = quick("--json", "-")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["schema"] == "dhm-benchmark"
    assert "What they cost" in result.stderr
    assert not Path("-").exists()


def test_own_files_are_replaced_links_followed_and_pipes_written_to(here: Path) -> None:
    """A link was replaced by a file, and a pipe too, whose reader hung for ever."""
    Path("link.json").symlink_to("real.json")
    os.mkfifo("pipe")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(Path("pipe").read_bytes()), daemon=True)
    reader.start()
    assert quick("--json", "link.json", "--plot", "pipe").exit_code == 0
    reader.join(60)
    assert received[0].startswith(b"\x89PNG")
    assert Path("pipe").is_fifo()
    assert Path("link.json").is_symlink()
    Path("chart.png").write_bytes(received[0])
    assert quick("--json", "real.json", "--plot", "chart.png").exit_code == 0
    Path("chart.png").write_text("of another program")
    assert quick("--plot", "chart.png").exit_code == 1
    assert quick("--plot", "chart.png", "--force").exit_code == 0


def test_auto_takes_the_gpu_where_all_that_is_named_runs_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "cuda_problem", lambda: "")
    auto = plan.BenchmarkOptions(device="auto")
    assert plan.with_device(auto).device == "cuda"
    assert plan.with_device(replace(auto, engines=("torch-half",))).device == "cuda"
    assert plan.with_device(replace(auto, engines=("onnxruntime",))).device == "cpu"
    assert plan.with_device(replace(auto, models=("fast", "a.onnx"))).device == "cpu"
    monkeypatch.setattr(plan, "cuda_problem", lambda: "no driver")
    assert plan.with_device(auto).device == "cpu"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "fats"], "unknown network 'fats'"),
        (["--threads", 0], "--threads: expected 1 to"),
        (["--threads", 100_000], "the cores at hand, found 100000"),
        (["--processes", 0], "--processes: expected 1 to"),
        (["--batch", 4, "--batch", 0], "--batch: expected 1 or more, found 0"),
        (["--batch", 100_000], "--batch: expected at most 4096, found 100000"),
        (["--runs", 0], "--runs: expected 1 or more, found 0"),
        (["--photos", 0], "--photos: expected 1 or more, found 0"),
        (["--engine", "torch-half"], "no --engine torch-half on cpu"),
        (["--level", "face"], "unknown --level face"),
        (["--photo", "grey.png"], "--photo grey.png: no face found"),
        (["--photo", "none.jpg"], "none.jpg: cannot be read"),
        (["--json", "folder"], "folder: is a folder"),
        (["--json", "photo.jpg", "--photo", "photo.jpg", "--force"], "photo.jpg: is read by this command too"),
        (["--json", "link", "--model", "net.onnx", "--force"], "link: is read by this command too"),
        (["--json", "thesis.json"], "thesis.json: exists and is not a report of dhm benchmark"),
        (["--plot", "grey.png"], "grey.png: exists and is not a picture that dhm drew"),
        (["--plot", "a.svg"], "--plot a.svg: the chart is a PNG"),
        (["--plot", "a.png", "--json", "./a.png"], "a.png: named by --json and by --plot"),
        (["--plot", "-", "--json", "-"], "-: named by --json and by --plot"),
        (["--plot", "file/a.png"], "--plot file/a.png: cannot be written"),
        (["fast", "net.onnx"], "pass --model fast --model net.onnx"),
        (["--accuracy", "none.json"], "--accuracy none.json: cannot be read"),
    ],
)
def test_what_cannot_be_measured(
    here: Path, arguments: list[object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2
    import numpy as np

    cv2.imwrite("grey.png", np.full((64, 64, 3), 128, np.uint8))
    Path("folder").mkdir()
    Path("file").write_text("")
    Path("a.svg.partial").write_text("of another program")
    for name in ("photo.jpg", "net.onnx", "thesis.json"):
        Path(name).write_text('{"schema": "my thesis"}')
    Path("link").symlink_to("net.onnx")
    before = {path.name: path.read_bytes() for path in here.iterdir() if path.is_file()}

    def measured(*_: Any) -> None:
        raise AssertionError("something was measured")

    monkeypatch.setattr(bench._Bench, "measure", measured)
    result = dhm(*arguments)
    assert result.exit_code == 1
    assert message in folded(result.stderr)
    assert "hint: " in folded(result.stderr)
    assert {path.name: path.read_bytes() for path in here.iterdir() if path.is_file()} == before


def test_no_cuda(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "cuda_problem", lambda: "torch is not installed")
    result = dhm("--device", "cuda")
    assert result.exit_code == 1
    assert "error: device cuda cannot be used: torch is not installed" in folded(result.stderr)
    assert "no --engine onnxruntime on cuda" in dhm("--device", "cuda", "--engine", "onnxruntime").stderr
