"""Training in real processes: two on CPUs over gloo, what they say when one fails, the ways to join; one by itself."""

import csv
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from places import ROOT
from printed import folded
from real_processes import PATIENCE, RealProcess, dhm, running, torchrun
from torch import distributed, nn
from two_processes import DHM, Runs, dhm_of_rank, dhm_with_nan_on_rank_1, train_and_save
from typer.testing import CliRunner

from dhm_cli.cli.main import app
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

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def two_processes(folder: Path, target: Callable[..., None], *arguments: Any) -> tuple[list[int | None], str, str]:
    """Run two, with a store that outlives them, as torchrun has: exit codes, and what both printed on either stream."""
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    started = []
    for rank in ("0", "1"):
        printed = folder / f"printed_{rank}"
        printed.mkdir()
        environment = {**shared, "WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank}
        started.append(RealProcess(printed, target, *arguments, **environment))
    with running(*started):
        codes, outputs, errors = zip(*(process.result() for process in started), strict=True)
    return list(codes), "".join(outputs), "".join(errors)


@pytest.fixture(scope="module", autouse=True)
def quick_curves() -> Iterator[None]:
    """Learning curves take longer than these runs, see test_run_folder.py and test_charts.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folder, "save_learning_curve", lambda path, rows, warmup: None)
        yield


@pytest.fixture(scope="module")
def small_settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A settings file of a small network that is validated twice."""
    file = tmp_path_factory.mktemp("settings") / "small.toml"
    file.write_text(
        "[network]\ninput_size = 32\nblocks = [[16, 2]]\nrecurrent_channels = 16\nhead_rank = 8\n"
        "[training]\nsteps = 60\nbatch = 4\nvalidate_every = 30\nwarmup = 1\n"
    )
    return file


def wait_for(file: Path, process: RealProcess) -> None:
    deadline = time.monotonic() + PATIENCE
    while not file.exists() and process.is_running and time.monotonic() < deadline:
        time.sleep(0.01)


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
    codes, _, errors = two_processes(tmp_path_factory.mktemp("said"), train_and_save, face_store, face_model, out)
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


def test_a_process_that_fails_ends_all_and_speaks_alone(face_store: Path, tmp_path: Path) -> None:
    command = ["train", "--input-size", "32", "--batch", "4", "--out", str(tmp_path / "run"), "--data"]
    codes, output, errors = two_processes(tmp_path, dhm_of_rank, [*command, str(face_store)], [*command, "missing.h5"])
    assert codes == [1, 1]
    assert output == ""
    assert errors.count("error:") == 1
    assert errors.startswith("error: missing.h5: no such store")
    assert "Traceback" not in errors


def test_a_nan_of_one_process_names_its_batch(face_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["train", "--arch", "fast", "--input-size", "32", "--batch", "4", "--workers", "0"]
    command += ["--data", str(face_store), "--out", str(out)]
    codes, _, errors = two_processes(tmp_path, dhm_with_nan_on_rank_1, *command)
    assert codes == [1, 1], errors
    assert errors.count("error:") == 1
    assert f"error: the loss became nan at step 0, with the batch now in {out}/nan_step_0000000_rank_1.safet" in folded(
        errors
    )
    assert [path.name for path in out.glob("nan*")] == ["nan_step_0000000_rank_1.safetensors"]
    assert "Traceback" not in errors


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_torchrun_and_sigterm(face_store: Path, small_settings: Path, tmp_path: Path) -> None:
    """Its processes are fresh ones: `python -m dhm_cli`."""
    out = tmp_path / "run"
    command = ["--standalone", "--nproc-per-node", "2", "-m", "dhm_cli", "train", "--config", str(small_settings)]
    command += ["--steps", "1000000", "--validate-every", "500000", "--data", str(face_store), "--out", str(out)]
    process = RealProcess(tmp_path, torchrun, *command, PYTHONPATH=str(ROOT))
    with running(process):
        wait_for(RunFolder(out).metrics, process)
        os.kill(process.pid, signal.SIGTERM)
        code, output, errors = process.result()
    assert code
    assert output.count("processes") == 1, errors
    assert errors.count("continue with") == 1, errors
    assert errors.count("\ninterrupted") == 1, errors
    _, metadata = read_tensors(RunFolder(out).state)
    assert metadata["state"]["step"] >= 50
    assert len(RunFolder(out).rows()) == metadata["state"]["step"] // 50


# One process.


@pytest.fixture(scope="module")
def uninterrupted(face_store: Path, small_settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was not stopped."""
    out = tmp_path_factory.mktemp("whole")
    train(small_settings, face_store, out)
    return out


def train(settings: Path, store: Path, out: Path, *more: str) -> None:
    command = ["train", "--config", str(settings), "--data", str(store), "--out", str(out), "--workers", "0", *more]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("number", "to_group"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_a_stopped_process_is_resumed_exactly(
    face_store: Path, small_settings: Path, uninterrupted: Path, tmp_path: Path, number: signal.Signals, to_group: bool
) -> None:
    """A real process, a real signal: from kill to it alone, from a batch system to its worker too."""
    out = tmp_path / "run"
    command = ["train", "--config", str(small_settings), "--data", str(face_store), "--out", str(out), "--threads", "1"]
    process = RealProcess(tmp_path, dhm, *command, "--workers", "1")
    with running(process):
        wait_for(RunFolder(out).metrics, process)
        (os.killpg if to_group else os.kill)(process.pid, number)
        code, _, errors = process.result()
    assert code == 130, errors
    assert "continue with: the same command and --resume" in errors
    assert "Traceback" not in errors
    step = read_tensors(RunFolder(out).state)[1]["state"]["step"]
    assert f"stopped at step {step};" in errors
    assert 30 <= step < 60
    train(small_settings, face_store, out, "--resume")
    folder, whole = RunFolder(out), RunFolder(uninterrupted)
    for name in ("state", "best", "last", "validation", "config"):
        assert getattr(folder, name).read_bytes() == getattr(whole, name).read_bytes(), name


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
    environment.setattr(processes, "_JOIN_TIMEOUT", timedelta(milliseconds=100))
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
