"""Training with several processes: two on CPUs over gloo, what they say when one fails, and the ways to join."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from places import TESTS
from torch import distributed, nn
from two_processes import DHM, Runs

from dhm_cli.data.batches import load_faces, validation_crops
from dhm_cli.data.store import FaceStore
from dhm_cli.errors import DhmError, InputError
from dhm_cli.metrics.landmark_error import nme_by_yaw, normalised_mean_error
from dhm_cli.models.checkpoint import load_checkpoint, read_tensors
from dhm_cli.training import distributed as processes
from dhm_cli.training import run_folder
from dhm_cli.training.distributed import Processes, joined_processes
from dhm_cli.training.run_folder import RunFolder
from dhm_cli.training.validation import predict

# Of a machine that is busy with other things.
PATIENCE = 240
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@contextmanager
def launched(*commands: list[str], **environment: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Start one process a rank, with a store that outlives them, as torchrun has; none is left over."""
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    shared |= {"WORLD_SIZE": str(len(commands)), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent)}
    started: list[subprocess.Popen[str]] = []
    try:
        for rank, command in enumerate(commands):
            env = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), **environment}
            full = [sys.executable, *command]
            started.append(subprocess.Popen(full, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def results(started: list[subprocess.Popen[str]]) -> tuple[list[int], str, str]:
    """Exit codes, and what all printed on either stream."""
    printed = [process.communicate(timeout=PATIENCE) for process in started]
    return [p.returncode for p in started], "".join(out for out, _ in printed), "".join(err for _, err in printed)


@pytest.fixture(scope="module", autouse=True)
def quick_curves() -> Iterator[None]:
    """Learning curves take longer than these runs, see test_run_folder.py and test_charts.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder, "save_learning_curve", lambda path, rows: None)
        yield


@pytest.fixture(scope="module")
def alone(face_store: Path, face_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Runs by one process."""
    runs = Runs(face_store, face_model, tmp_path_factory.mktemp("alone"))
    runs.train("dhm", DHM)
    return runs


@pytest.fixture(scope="module")
def pair(face_store: Path, face_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Runs by two processes; see two_processes.py for which."""
    out = tmp_path_factory.mktemp("pair")
    Runs(face_store, face_model, out).train("from_one", DHM, stop=2)
    command = [str(TESTS / "two_processes.py"), str(face_store), str(face_model), str(out)]
    with launched(command, command) as started:
        codes, _, errors = results(started)
    assert codes == [0, 0], errors
    assert errors == ""
    return Runs(face_store, face_model, out)


def losses(out: Path, name: str, rank: int = 0) -> list[float]:
    """Each step's loss, from the running means m = 0.99 m' + 0.01 loss that start at the first loss."""
    means = read_tensors(out / f"{name}_rank_{rank}.safetensors")[1]["means"]
    return [means[0], *((b - 0.99 * a) / 0.01 for a, b in pairwise(means))]


@pytest.mark.parametrize("name", ["dhm", "fast", "from_one", "stopped"])
def test_both_processes_hold_the_same_network(pair: Runs, name: str) -> None:
    (first, _), (second, _) = (read_tensors(pair.out / f"{name}_rank_{rank}.safetensors") for rank in (0, 1))
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []
    saved, _ = read_tensors(RunFolder(pair.out / name).state)
    assert [key for key, value in first.items() if key.startswith("model") and not torch.equal(value, saved[key])] == []


def test_two_processes_train_as_one_does(pair: Runs, alone: Runs) -> None:
    one = losses(alone.out, "dhm")
    assert len(set(np.round(one, 4))) == 6  # no loss is the same as another
    for rank in (0, 1):
        assert losses(pair.out, "dhm", rank) == pytest.approx(one, abs=1e-5)
    expected, _ = read_tensors(RunFolder(alone.out / "dhm").state)
    found, _ = read_tensors(RunFolder(pair.out / "dhm").state)
    before, _ = read_tensors(RunFolder(pair.out / "stopped").state)  # three steps before
    for key in (key for key in expected if key.startswith(("model.", "average."))):
        torch.testing.assert_close(found[key], expected[key], rtol=0, atol=1e-5)
    assert max(float((expected[k] - before[k]).abs().max()) for k in expected if k.startswith("model.")) > 1e-3


def test_metrics_are_written_once_and_are_those_of_one_process(pair: Runs, alone: Runs) -> None:
    rows, expected = (RunFolder(runs.out / "dhm").rows() for runs in (pair, alone))
    assert [row["step"] for row in rows] == [3, 6]
    for row, other in zip(rows, expected, strict=True):
        assert row["validation"] == pytest.approx(other["validation"], abs=1e-3)
        assert row["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-3)


@pytest.mark.parametrize("name", ["dhm", "fast"])
def test_validation_is_that_of_the_saved_network(pair: Runs, name: str) -> None:
    """Each process has half of the faces; together they are all, in order."""
    model, metadata = load_checkpoint(RunFolder(pair.out / name).best, pair.face_model)
    faces = load_faces([(FaceStore(pair.store), 1.0)], "val")
    crops, truth = validation_crops(faces, 32)
    nme = normalised_mean_error(predict(model, crops), truth)
    assert len(set(np.round(nme, 3))) > 1
    rows = list(csv.DictReader(RunFolder(pair.out / name).validation.open(encoding="utf-8")))
    assert [row["name"] for row in rows] == faces.names.tolist()
    np.testing.assert_allclose([float(row["nme"]) for row in rows], nme, atol=1e-4)
    assert metadata["training"]["validation_nme"] == pytest.approx(nme_by_yaw(nme, faces.yaw), abs=1e-4)


def test_one_process_goes_on_where_two_stopped(pair: Runs, alone: Runs, tmp_path: Path) -> None:
    """Ctrl-C reached one of them after step 2; both finished step 3."""
    assert [read_tensors(pair.out / f"stopped_rank_{rank}.safetensors")[1]["step"] for rank in (0, 1)] == [3, 3]
    (tmp_path / "stopped").symlink_to(pair.out / "stopped", target_is_directory=True)
    runs = Runs(pair.store, pair.face_model, tmp_path)
    runs.train("stopped", DHM, resume=True)
    assert losses(tmp_path, "stopped")[1:] == pytest.approx(losses(alone.out, "dhm")[4:], abs=1e-5)


def test_two_processes_go_on_where_one_stopped(pair: Runs, alone: Runs) -> None:
    assert losses(pair.out, "from_one")[1:] == pytest.approx(losses(alone.out, "dhm")[3:], abs=1e-5)


def test_processes_with_different_settings_are_refused(pair: Runs) -> None:
    for rank in (0, 1):
        assert "the processes differ in their settings" in (pair.out / f"differ_rank_{rank}.txt").read_text()


def test_a_process_that_fails_ends_all_and_speaks_alone(face_store: Path, face_model: Path, tmp_path: Path) -> None:
    command = ["-m", "dhm_cli", "train", "--face-model", str(face_model), "--out", str(tmp_path / "run"), "--data"]
    with launched([*command, str(face_store)], [*command, "missing.h5"]) as started:
        codes, output, errors = results(started)
    assert codes == [1, 1]
    assert output == ""
    assert errors.count("error:") == 1
    assert errors.startswith("error: missing.h5: no such store")
    assert "Traceback" not in errors


NAN_ON_RANK_1 = """
import math, os, sys
from dhm_cli.cli.main import main
from dhm_cli.training.objective import Objective
if os.environ["RANK"] == "1":
    forward = Objective.forward
    Objective.forward = lambda *arguments: forward(*arguments) * math.nan
main()
"""


def test_a_nan_of_one_process_names_its_batch(face_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["-c", NAN_ON_RANK_1, "train", "--arch", "fast", "--input-size", "32", "--batch", "4", "--workers", "0"]
    command += ["--data", str(face_store), "--out", str(out)]
    with launched(command, command) as started:
        codes, _, errors = results(started)
    assert codes == [1, 1], errors
    assert errors.count("error:") == 1
    assert f"error: the loss became nan at step 0, with the batch now in {out}/nan_step_0000000_rank_1.safet" in errors
    assert [path.name for path in out.glob("nan*")] == ["nan_step_0000000_rank_1.safetensors"]
    assert "Traceback" not in errors


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_torchrun_and_sigterm(face_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "dhm_cli"]
    command += ["train", "--arch", "fast", "--input-size", "32", "--batch", "4", "--steps", "1000000"]
    command += ["--validate-every", "500000", "--data", str(face_store), "--out", str(out)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent)}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + PATIENCE
        while not RunFolder(out).metrics.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()  # torchrun takes its processes along only when it is asked
    assert process.returncode != 0
    assert output.count("process(es)") == 1, errors
    assert errors.count("continue with") == 1, errors
    assert errors.count("\ninterrupted") == 1, errors
    _, metadata = read_tensors(RunFolder(out).state)
    assert metadata["state"]["step"] >= 50
    assert len(RunFolder(out).rows()) == metadata["state"]["step"] // 50


# Joining.


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*VARIABLES, "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def joined(device: str = "cpu") -> Processes:
    with joined_processes(device) as found:
        return found


def test_alone_without_torchrun(environment: pytest.MonkeyPatch) -> None:
    expected = Processes(0, 1, torch.device("cpu"))
    assert joined() == expected
    environment.setenv("MASTER_ADDR", "left-over.example")
    assert joined() == expected
    environment.setenv("WORLD_SIZE", "1")
    environment.setenv("RANK", "0")
    assert joined() == expected
    assert not distributed.is_initialized()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "3"}, "RANK is 3, but WORLD_SIZE is not set"),
        ({"WORLD_SIZE": "2"}, "RANK is '': expected a number"),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "0", "RANK": "0"}, "WORLD_SIZE is '0'"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK is 2, but WORLD_SIZE is 2"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK is '-1'"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR expected, but not set"),
    ],
)
def test_half_an_environment_is_refused(
    environment: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    with pytest.raises(InputError, match=message) as caught:
        joined()
    assert "torchrun" in caught.value.hint


def test_a_process_that_does_not_come_is_not_waited_for_for_ever(environment: pytest.MonkeyPatch) -> None:
    environment.setattr(processes, "_JOIN_TIMEOUT", timedelta(seconds=1))
    values = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in values.items():
        environment.setenv(name, value)
    with pytest.raises(InputError, match="process 0 of 2 did not find the others"):
        joined()


def test_each_process_takes_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert processes._device("auto", 1) == torch.device("cuda", 1)
    assert processes._device("cuda:1", None) == torch.device("cuda", 1)
    with pytest.raises(DhmError, match="process 2 of this machine has no GPU of its own: there are 2"):
        processes._device("cuda", 2)
    with pytest.raises(InputError, match="one GPU for many processes"):
        processes._device("cuda:0", 1)
    with pytest.raises(DhmError, match="there are 2 CUDA devices"):
        processes._device("cuda:2", None)


def test_batch_norms_share_their_batch_on_gpus() -> None:
    def norms(found: Processes) -> list[type[nn.Module]]:
        return [type(m) for m in found.prepared(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))]

    assert norms(Processes(1, 2, torch.device("cuda", 1)))[1] is nn.SyncBatchNorm
    assert norms(Processes(1, 2, torch.device("cpu")))[1] is nn.BatchNorm2d
    assert norms(Processes(0, 1, torch.device("cuda", 0)))[1] is nn.BatchNorm2d
