"""What `dhm benchmark` is made of: turns of timed calls, pinning, baselines, subjects, costs, accuracy."""

import gc
import hashlib
import itertools
import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from example_networks import small_checkpoint

from dhm_cli.benchmark import pinning, pipeline
from dhm_cli.benchmark.accuracy import accuracy, read_reports
from dhm_cli.benchmark.baselines import BASELINES, REFERENCE, MobileNetV1, baseline
from dhm_cli.benchmark.costs import costs, multiplications
from dhm_cli.benchmark.networks import Subject, resolve_subjects
from dhm_cli.benchmark.peak_memory import peak_of_network, run_measured
from dhm_cli.benchmark.pinning import check_threads, doubts, pinned
from dhm_cli.benchmark.pipeline import FOLDER_SIDE, PHOTO, open_scene, photo_parts, write_folder
from dhm_cli.benchmark.runners import make_runner
from dhm_cli.benchmark.timing import TURN, Task, measure_interleaved, planned_runs, warm_up
from dhm_cli.config.networks import ARCHS
from dhm_cli.errors import FormatError, InputError
from dhm_cli.inference.yunet import FaceDetector
from dhm_cli.io.images import read_image

MILLISECOND = 1_000_000


# A network that is made, saved and run in a moment.
def subject_of(path: Path) -> Subject:
    return resolve_subjects([str(path)])[0]


# --- timing


def test_tasks_take_turns_that_begin_with_an_untimed_call() -> None:
    order: list[str] = []
    tasks = [Task(lambda: order.append("a"), 25), Task(lambda: order.append("b"), 3)]
    timed: list[int] = []

    def stopwatch(call: Callable[[], object]) -> int:
        call()
        timed.append(len(order))
        return MILLISECOND

    measure_interleaved(tasks, stopwatch, cpu_clock=lambda: 0)
    # Three rounds: 25 calls are 8, 8 and 9, 3 are one a round; each turn one more, untimed.
    expected = "".join(
        name * (calls + 1) for calls, last in ((8, 1), (8, 1), (9, 1)) for name, calls in (("a", calls), ("b", last))
    )
    assert "".join(order) == expected
    assert [len(task.samples) for task in tasks] == [25, 3]
    assert len(timed) == 28


def test_statistics_with_a_clock_of_our_own() -> None:
    durations, cpu = iter(range(1, 101)), itertools.count(0, MILLISECOND // 2)
    task = Task(lambda: None, 100)

    def stopwatch(call: Callable[[], object]) -> int:
        return next(durations) * MILLISECOND

    measure_interleaved([task], stopwatch, cpu_clock=lambda: next(cpu))
    found = task.statistics()
    # 1 to 100 ms: the p-th percentile lies at 1 + 0.99 p.
    assert found["p5_ms"] == pytest.approx(5.95)
    assert found["median_ms"] == pytest.approx(50.5)
    assert found["p95_ms"] == pytest.approx(95.05)
    assert found["mean_ms"] == pytest.approx(50.5)
    assert (found["min_ms"], found["runs"]) == (1.0, 100)
    # Half a millisecond of CPU for each of 100 calls of 5,050 milliseconds in all.
    assert found["cpu_per_wall"] == pytest.approx(50 / 5050)


def test_no_garbage_is_collected_while_timing() -> None:
    states: list[bool] = []
    assert gc.isenabled()
    measure_interleaved([Task(lambda: states.append(gc.isenabled()), 2)])
    assert states == [False] * 3
    assert gc.isenabled()


def test_an_interrupted_task_keeps_its_samples() -> None:
    calls = itertools.count()

    def call() -> None:
        if next(calls) == TURN + 5:
            raise KeyboardInterrupt

    task = Task(call, 100)
    with pytest.raises(KeyboardInterrupt):
        measure_interleaved([task])
    assert len(task.samples) == TURN + 3  # of two turns, an untimed call each
    assert gc.isenabled()


def test_warm_up_gives_the_time_after_the_first_call() -> None:
    durations = itertools.chain([5000 * MILLISECOND], itertools.repeat(70 * MILLISECOND))
    assert warm_up(lambda: None, lambda call: next(durations)) == 70.0


def test_only_slow_calls_are_timed_less_often() -> None:
    assert planned_runs(49.0, 300, exactly=False) == 300
    assert planned_runs(100.0, 300, exactly=False) == 100  # 10 s of them
    assert planned_runs(5000.0, 300, exactly=False) == 30
    assert planned_runs(5000.0, 300, exactly=True) == 300
    assert planned_runs(5000.0, 7, exactly=False) == 7


# --- pinning


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin")
def test_pinned_to_the_last_cores_and_back() -> None:
    before = os.sched_getaffinity(0)
    with pinned(1) as cores:
        assert cores == [max(before)]
        assert os.sched_getaffinity(0) == {max(before)}
        assert torch.get_num_threads() == 1
    assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not list threads")
def test_threads_of_libraries_are_pinned_too() -> None:
    begin, found = threading.Event(), []

    def work() -> None:
        begin.wait()
        found.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=work)
    thread.start()
    with pinned(1) as cores:
        begin.set()
        thread.join()
    assert found == [set(cores)]


def test_threads_beyond_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinning, "available_cores", lambda: 4)
    check_threads(4)
    for wrong in (0, 5):
        with pytest.raises(InputError, match=f"--processes: expected 1 to 4, the cores at hand, found {wrong}"):
            check_threads(wrong, "--processes")


def line(cpu: float | None = 1.0, p95: float = 1.2) -> dict[str, Any]:
    known = {"level": "network", "engine": "torch", "batch": 1, "subject": "fast"}
    return {**known, "median_ms": 1.0, "p95_ms": p95, "cpu_per_wall": cpu}


def test_doubts() -> None:
    assert doubts([line(1.05), line(0.95), line(None), line(p95=1.5)], threads=1) == []
    (busy,) = doubts([line(0.94), line(0.5)], threads=1)
    assert busy.startswith("the machine is busy")
    assert "fast (0.94), network torch batch 1 fast (0.50)" in busy
    (loose,) = doubts([line(1.06)], threads=1)
    assert loose.startswith("not pinned: more CPU time than 1 thread can use")
    assert doubts([line(0.5), line(2.1)], threads=2) == []  # work that does not split is no sign of a busy machine
    assert len(doubts([line(2.11)], threads=2)) == 1
    (unsteady,) = doubts([line(p95=1.51)], threads=1)
    assert unsteady.startswith("not steady")


# --- baselines and costs


def test_mobilenet_has_the_costs_of_its_paper() -> None:
    """Howard et al. 2017, Table 4: 4.2 million parameters, 569 million multiply-adds at 224 x 224, 1000 classes."""
    with torch.device("meta"):  # shapes only
        network, image = MobileNetV1(1.0, 1000).eval(), torch.zeros(1, 3, 224, 224)
    # 4,209,088 of convolutions and the classifier with its bias, and two a channel of 10,944 channels of batch norm
    # (32 + 32 and the in- and outputs of thirteen blocks).
    assert sum(p.numel() for p in network.parameters()) == 4_231_976
    assert multiplications(network, image) == 568_740_352


def test_costs_of_the_reference_by_hand() -> None:
    sides = (60, 30, 30, 15, 15, 8, 8, 8, 8, 8, 8, 4, 4)  # of the outputs of the blocks, from 60 x 60 after the stem
    channels = (16, 32, 64, 64, 128, 128, 256, 256, 256, 256, 256, 256, 512, 512)
    macs, parameters = 60**2 * 27 * 16, 27 * 16 + 2 * 16
    for side, before, after in zip(sides, channels[:-1], channels[1:], strict=True):
        macs += side**2 * (9 * before + before * after)
        parameters += 9 * before + 2 * before + before * after + 2 * after
    subject = next(s for s in resolve_subjects(["fast"]) if s.name == REFERENCE)
    found = costs(subject)
    assert found["macs"] == macs + 512 * 62
    assert found["parameters"] == parameters + 512 * 62 + 62
    # Beside the parameters, mean and variance of every channel of batch norm.
    norms = 16 + sum(channels[:-1]) + sum(channels[1:])
    assert found["float32_bytes"] == 4 * (found["parameters"] + 2 * norms)


def test_the_folded_baseline_is_the_baseline() -> None:
    network = baseline(REFERENCE)
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean = torch.rand(module.num_features, generator=generator) - 0.5
            module.running_var = torch.rand(module.num_features, generator=generator) + 0.5
    images = torch.rand(2, 3, 120, 120, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(network.folded()(images), network(images), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.folded().modules())


def test_costs_of_files(tmp_path: Path, dummy_network: Path) -> None:
    found = costs(subject_of(dummy_network))
    assert found["file_bytes"] == dummy_network.stat().st_size
    assert 0 < found["compressed_bytes"] < found["file_bytes"]
    # axes, last, direction and base of `write_dummy_network`.
    assert (found["parameters"], found["macs"]) == (3 + 1 + 3 + 68 * 3, None)
    path = small_checkpoint(tmp_path / "small.safetensors")
    found = costs(subject_of(path))
    assert (found["sized_file"], found["file_bytes"]) == ("small.safetensors", path.stat().st_size)


def test_peak_memory_is_of_the_fresh_process_alone(dummy_network: Path) -> None:
    ours = np.ones(250 * 2**20, np.uint8)  # getrusage would count this as the child's
    peak = peak_of_network(subject_of(dummy_network), "onnxruntime", 1)
    assert 20 * 2**20 < peak < len(ours)


def test_peak_memory_grows_with_what_is_held() -> None:
    held = run_measured("held = bytearray(arguments[0])", json.dumps([100 * 2**20]))[1]
    assert run_measured("print('hello')")[0] == "hello\n"
    assert 100 * 2**20 < held < 160 * 2**20
    with pytest.raises(RuntimeError, match="ValueError: so"):
        run_measured("raise ValueError('so')")
    with pytest.raises(subprocess.TimeoutExpired):
        run_measured("sys.stdin.read() or __import__('time').sleep(60)", time_limit=0.01)


# --- subjects


def test_default_networks_and_baselines() -> None:
    subjects = resolve_subjects(["fast", "3dcnn", "fast"])
    assert [subject.name for subject in subjects] == ["fast", "3dcnn", *BASELINES]
    assert [subject.kind for subject in subjects] == ["packaged", "random", "baseline", "baseline"]
    weights = Path(str(subjects[0].onnx_file)).read_bytes()
    assert hashlib.sha256(weights).hexdigest()[:16] in subjects[0].hashes
    assert "toy face model" in subjects[1].note
    assert subjects[0].inputs(3).shape == (3, 120, 120, 3)
    assert subjects[2].inputs(3).shape == (3, 3, 120, 120)


def test_all_is_every_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def resolve(name: str, _: Path | None) -> Subject:
        made.append(name)
        return Subject(name, "random", 8)

    monkeypatch.setattr("dhm_cli.benchmark.networks._resolve", resolve)
    resolve_subjects(["fast", "all"])
    assert sorted(made) == sorted(ARCHS)


def test_random_weights_are_the_same_every_time() -> None:
    first, second = (resolve_subjects(["2drnn"])[0].model for _ in range(2))
    assert first is not None
    assert second is not None
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [small_checkpoint(tmp_path / run / "best.safetensors") for run in ("a", "b")]
    assert [s.name for s in resolve_subjects([str(p) for p in paths])[:2]] == [str(p) for p in paths]
    assert subject_of(paths[0]).name == "best"


@pytest.mark.parametrize(
    ("name", "message"),
    [("fats", "unknown network 'fats'"), ("no.onnx", "no.onnx: no such file"), ("no.safetensors", "no such file")],
)
def test_what_is_not_there(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        resolve_subjects(["fast", name])
    assert "fast" in caught.value.hint


def test_foreign_files(tmp_path: Path) -> None:
    for name in ("foreign.onnx", "foreign.safetensors"):
        (tmp_path / name).write_bytes(b"something else")
        with pytest.raises(FormatError, match=name):
            resolve_subjects([str(tmp_path / name)])


# --- engines


def test_torch_says_what_the_file_says() -> None:
    subject = resolve_subjects(["fast"])[0]
    inputs = subject.inputs(2)
    torch_says, channels_last, file_says = (
        make_runner(subject, engine, 1)(inputs) for engine in ("torch", "torch-channels-last", "onnxruntime")
    )
    assert torch_says.shape == (2, 68, 3)
    np.testing.assert_allclose(channels_last, torch_says, atol=1e-3)
    np.testing.assert_allclose(file_says, torch_says, atol=0.1)  # the file may hold float16


def test_torch_gets_the_images_of_baselines_as_crops_lie() -> None:
    subject = Subject("nothing", "baseline", 8, network=torch.nn.Identity())
    for engine in ("torch", "torch-channels-last"):
        images: Any = make_runner(subject, engine, 1).bind(subject.inputs(2))()
        assert images.shape == (2, 3, 8, 8)
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_torch_cannot_run_an_onnx_file(dummy_network: Path) -> None:
    with pytest.raises(ValueError, match="torch cannot run an ONNX file"):
        make_runner(subject_of(dummy_network), "torch", 1)


# --- the pipeline


def test_the_built_in_photo_is_the_sample_photo(astronaut: np.ndarray) -> None:
    scene = open_scene(PHOTO)
    assert scene.image.shape == (512, 512, 3)
    assert len(scene.faces) == 1
    assert np.abs(scene.image.astype(float) - astronaut).mean() < 3


def test_the_folder_shows_faces(tmp_path: Path) -> None:
    scene = open_scene(PHOTO)
    write_folder(scene, tmp_path, 5)
    photos = [read_image(path) for path in sorted(tmp_path.iterdir())]
    assert [photo.shape for photo in photos] == [(FOLDER_SIDE, FOLDER_SIDE, 3)] * 5
    detector = FaceDetector()
    sides = [detector.detect(photo)[0].mean_side for photo in photos]
    assert all(0.3 * FOLDER_SIDE < side < 0.65 * FOLDER_SIDE for side in sides)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 5


def test_the_parts_are_those_of_the_whole() -> None:
    from dhm_cli import Aligner

    scene, aligner = open_scene(PHOTO), Aligner("cpu")
    parts = photo_parts(aligner, scene)
    found: Any = parts["two passes"]()
    (face,) = aligner.align(scene.image)
    np.testing.assert_allclose(found[0, :, :2], face.landmarks[:, :2], atol=1e-6)
    assert parts["detect"]() == list(scene.faces)


def test_photos_a_second_after_start_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "write_folder", lambda *_: None)
    monkeypatch.setattr(pipeline, "_seconds_of_command", lambda _: 0.5)
    monkeypatch.setattr(pipeline, "_align_measured", lambda _: 10**8)
    for seconds, rate in ((10.5, 10.0), (0.9, None)):  # of 101 photos
        clock = SimpleNamespace(perf_counter=iter([0.0, 2.0, 2.0, 2.0 + seconds]).__next__)
        monkeypatch.setattr(pipeline, "time", clock)
        found = pipeline.measure_folder(open_scene(PHOTO), [], 101, 1, lambda *_: None)
        assert found["photos_per_s"] == rate
        assert found["seconds"] == [2.0, pytest.approx(seconds)]


def test_a_process_that_fails_says_why() -> None:
    weights = {"device": "cpu", "weights": "no.onnx", "face_model": None}
    with pytest.raises(RuntimeError, match=r"no\.onnx: cannot be read"):
        pipeline.measure_processes(open_scene(PHOTO), weights, [0], lambda *_: None)


# --- accuracy


def report(path: Path, weights_hash: str = "", **changes: Any) -> Path:
    known = {
        "schema": "dhm-evaluation",
        "schema_version": 1,
        "method": {"file": "best.safetensors", "hash": weights_hash},
        "data": {"name": "AFLW2000-3D", "split": "test"},
        "labels": "original",
        "protocol": "paper",
        "nme": {"mean_of_bins": 3.25},
    }
    path.write_text(json.dumps({**known, **changes}))
    return path


def test_accuracy_of_the_very_weights(tmp_path: Path) -> None:
    record = {"validation_nme": {"mean_of_bins": 2.5}}
    subject = subject_of(small_checkpoint(tmp_path / "best.safetensors", record))
    other = report(tmp_path / "other.json", "0" * 16)
    own = report(tmp_path / "own.json", subject.hashes[0])
    assert accuracy(subject, read_reports([other])) == {
        "nme": 2.5,
        "of": "validation faces of the network's training",
    }
    assert accuracy(subject, read_reports([other, own])) == {
        "nme": 3.25,
        "of": "AFLW2000-3D test, original labels, protocol paper",
    }
    assert accuracy(subject_of(small_checkpoint(tmp_path / "bare.safetensors")), read_reports([other])) is None


def test_reports_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_reports([tmp_path / "missing.json"])
    (tmp_path / "text.json").write_text("so")
    with pytest.raises(FormatError, match="not JSON"):
        read_reports([tmp_path / "text.json"])
    with pytest.raises(FormatError, match="or of another version"):
        read_reports([report(tmp_path / "new.json", schema_version=2)])
    for changes in ({"nme": None}, {"data": {"name": "AFLW2000-3D"}}, {"method": "fast"}):
        with pytest.raises(FormatError, match="incomplete"):
            read_reports([report(tmp_path / "part.json", **changes)])


def test_an_error_that_is_no_number_is_not_known(tmp_path: Path) -> None:
    subject = subject_of(small_checkpoint(tmp_path / "best.safetensors"))
    path = report(tmp_path / "a.json", subject.hashes[0], nme={"mean_of_bins": float("nan")})
    assert accuracy(subject, read_reports([path])) is None
