"""`Trainer` for a few steps of small networks: exact resume, refusals, and what the run folder keeps."""

import csv
import json
import math
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch

from dhm_cli.config.networks import DhmConfig, FastDhmConfig
from dhm_cli.config.run import RunSettings, resolve
from dhm_cli.config.toml import read_toml
from dhm_cli.config.training import TrainConfig
from dhm_cli.data.store import FaceStore, write_store
from dhm_cli.errors import DhmError, FormatError, InputError
from dhm_cli.geometry.landmarks import face_size
from dhm_cli.metrics.landmark_error import nme_by_yaw, normalised_mean_error
from dhm_cli.models.checkpoint import load_checkpoint, read_tensors, save_checkpoint, write_tensors
from dhm_cli.models.folded import LastStep
from dhm_cli.models.registry import build_model
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.training import run_folder, validation
from dhm_cli.training.distributed import Processes
from dhm_cli.training.inputs import open_stores
from dhm_cli.training.objective import Objective
from dhm_cli.training.run_folder import RunFolder
from dhm_cli.training.trainer import RunOptions, Trainer, TrainProgress
from dhm_cli.training.validation import Validation, predict

# The average follows quickly, so that a wrong average shows within six steps.
TRAINING = TrainConfig(steps=6, batch=4, validate_every=3, warmup=2, ema=0.5, seed=11)
SMALL_FAST = FastDhmConfig(
    input_size=32, stem_channels=16, blocks=((16, 2),), recurrent_channels=16, steps=2, head_rank=8
)
SMALL_DHM = DhmConfig(input_size=32, channels=(16, 16), hidden=16, steps=2)
SMALL_RHG = replace(SMALL_DHM, features="hourglass", recurrence="lstm", channels=(16,), hourglasses=1)
FAST = RunSettings("fast", "best", SMALL_FAST, TRAINING)
RMSPROP = replace(
    TRAINING, optimiser="rmsprop", schedule="milestones", decay=0.1, decay_epochs=(1,), loss="squared", ema=0.0,
    step_weights="equal", weight_decay=0.0, warmup=0, gradient_norm=0.0,
)  # fmt: skip
KINDS = {
    "fast": FAST,
    "dhm": RunSettings("dhm", "best", SMALL_DHM, replace(TRAINING, optimiser="adamw", prior_weight=1e-3)),
    "rhg": RunSettings("rhg", "best", SMALL_RHG, RMSPROP),
    # Every face in turn, over the end of an epoch of 18 faces, and a length in epochs: 1.2 times 5 steps.
    "turns": replace(FAST, training=replace(TRAINING, yaw_shares=None, steps=None, epochs=1.2, optimiser="adam")),
    "bf16": replace(FAST, training=replace(TRAINING, precision="bf16")),
    # A second head.
    "likelihood": replace(
        FAST,
        network=replace(SMALL_FAST, uncertainty=True),
        training=replace(TRAINING, loss="likelihood"),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def quick_pictures() -> Iterator[None]:
    """Most of the time would go into them, see test_run_folder.py, test_charts.py and test_plotting.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "_SAMPLES", 2)
        patch.setattr(run_folder, "save_learning_curve", lambda path, rows, warmup: path.write_text(json.dumps(rows)))
        yield


@pytest.fixture(scope="module")
def start(face_store: Path, face_model: Path) -> Callable[..., Trainer]:
    """Begin a run on the drawn faces."""

    def begin(out: Path, settings: RunSettings = FAST, resume: bool = False, **options: Any) -> Trainer:
        options = {"workers": 0, "face_model": face_model, **options}
        return Trainer(settings, [(FaceStore(face_store), 1.0)], out, RunOptions(**options), resume=resume)

    return begin


@pytest.fixture(scope="module")
def straight(start: Callable[..., Trainer], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a run of a kind that was never interrupted; not to be changed by tests."""
    done: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in done:
            done[kind] = tmp_path_factory.mktemp("straight") / kind
            start(done[kind], KINDS[kind]).run()
        return done[kind]

    return folder


def stop_at(step: int, error: type[BaseException]) -> Callable[[TrainProgress], None]:
    def report(progress: TrainProgress) -> None:
        if progress.step == step:
            raise error

    return report


def metrics(out: Path) -> list[dict[str, Any]]:
    """Lines of the metrics without what a clock said."""
    lines = [json.loads(line) for line in RunFolder(out).metrics.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("samples_per_second", "waiting")} for line in lines]


def files(out: Path) -> dict[str, bytes]:
    """Content of every file but those that hold times."""
    timed = ("run.json", "metrics.jsonl", "learning_curve.png")
    found = {p.relative_to(out).as_posix(): p for p in out.rglob("*") if p.is_file() and p.name not in timed}
    return {name: path.read_bytes() for name, path in found.items()}


def assert_same_run(out: Path, expected: Path) -> None:
    """State (weights, averaged weights, optimiser, counters), checkpoints, pictures and metrics agree to the bit."""
    ours, theirs = files(out), files(expected)
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if ours[name] != theirs[name]] == []
    assert metrics(out) == metrics(expected)


def run_json(out: Path) -> dict[str, Any]:
    return json.loads(RunFolder(out).record.read_text())


# --- exact resume ---


@pytest.mark.parametrize("kind", KINDS)
def test_resume_after_a_crash_is_exact(
    straight: Callable[[str], Path], start: Callable[..., Trainer], tmp_path: Path, kind: str
) -> None:
    """Killed at step 5, after the state of step 3 was saved: nothing is caught, nothing more is saved."""
    with pytest.raises(ZeroDivisionError):
        start(tmp_path, KINDS[kind]).run(stop_at(5, ZeroDivisionError))
    assert read_tensors(RunFolder(tmp_path).state)[1]["state"]["step"] == 3
    trainer = start(tmp_path, KINDS[kind], resume=True)
    assert trainer.step == 3
    trainer.run()
    assert_same_run(tmp_path, straight(kind))


@pytest.mark.parametrize("step", [1, 4, 5])
def test_resume_after_ctrl_c_between_steps_is_exact(
    straight: Callable[[str], Path], start: Callable[..., Trainer], tmp_path: Path, step: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path).run(stop_at(step, KeyboardInterrupt))
    trainer = start(tmp_path, resume=True)
    assert trainer.step == step
    trainer.run()
    assert_same_run(tmp_path, straight("fast"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["fast", "dhm"])
def test_resume_after_a_signal_within_a_step_is_exact(
    straight: Callable[[str], Path],
    start: Callable[..., Trainer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    kind: str,
) -> None:
    """Nearly every signal comes while the network runs, when batch norm has already taken the batch into account."""
    original, calls = Objective.forward, []

    def interrupted(*arguments: Any) -> torch.Tensor:
        calls.append(None)
        if len(calls) == 5:
            signal.raise_signal(number)
        return original(*arguments)

    monkeypatch.setattr(Objective, "forward", interrupted)
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, KINDS[kind]).run()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert read_tensors(RunFolder(tmp_path).state)[1]["state"]["step"] == 5  # the step under way was finished
    start(tmp_path, KINDS[kind], resume=True).run()
    assert_same_run(tmp_path, straight(kind))


def test_interrupted_again_and_again(
    straight: Callable[[str], Path], start: Callable[..., Trainer], tmp_path: Path
) -> None:
    for step in (1, 2, 4):
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path, resume=step > 1).run(stop_at(step, KeyboardInterrupt))
    start(tmp_path, resume=True).run()
    assert_same_run(tmp_path, straight("fast"))
    sessions = run_json(tmp_path)["sessions"]
    assert [session["step"] for session in sessions] == [0, 1, 2, 4]


def test_kinds_are_different_runs(straight: Callable[[str], Path]) -> None:
    """Else the tests above could not see whether the optimiser, the order of faces or the precision is restored."""
    states = {kind: read_tensors(RunFolder(straight(kind)).state)[0] for kind in KINDS}
    for kind in ("turns", "bf16", "likelihood"):
        assert not torch.equal(states[kind]["model.stem.weight"], states["fast"]["model.stem.weight"])
    kept = {kind: {key.rpartition(".")[2] for key in states[kind] if key.startswith("optimiser.")} for kind in KINDS}
    assert kept["rhg"] == {"step", "square_avg"}
    assert kept["dhm"] == {"step", "exp_avg", "exp_avg_sq"}
    assert kept["fast"] == {"step", "exp_avg", "exp_avg_sq", "momentum"}


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_the_weights(
    straight: Callable[[str], Path], start: Callable[..., Trainer], tmp_path: Path, workers: int
) -> None:
    start(tmp_path, workers=workers).run()
    assert_same_run(tmp_path, straight("fast"))


def test_a_finished_run_has_nothing_left_to_do(
    straight: Callable[[str], Path], start: Callable[..., Trainer], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(straight("fast"), tmp_path / "run"))
    steps: list[TrainProgress] = []
    assert start(out, resume=True).run(steps.append) == {}
    assert steps == []
    assert_same_run(out, straight("fast"))


def test_a_longer_schedule_may_be_resumed(
    straight: Callable[[str], Path], start: Callable[..., Trainer], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(straight("fast"), tmp_path / "run"))
    trainer = start(out, replace(FAST, training=replace(TRAINING, steps=7, validate_every=1)), resume=True)
    assert (trainer.step, trainer.steps) == (6, 7)
    trainer.run()
    assert [line["step"] for line in metrics(out)] == [3, 6, 7]
    before = RunFolder(out).config.read_text()
    with pytest.raises(InputError, match="is at step 7 of 2"):
        start(out, replace(FAST, training=replace(TRAINING, steps=2)), resume=True)
    assert RunFolder(out).config.read_text() == before


def test_a_metrics_line_that_a_crash_cut_off_is_dropped(
    straight: Callable[[str], Path], start: Callable[..., Trainer], tmp_path: Path
) -> None:
    with pytest.raises(ZeroDivisionError):
        start(tmp_path).run(stop_at(5, ZeroDivisionError))
    with RunFolder(tmp_path).metrics.open("a") as file:
        file.write('{"step": 6, "lo')
    start(tmp_path, resume=True).run()
    assert_same_run(tmp_path, straight("fast"))


# Settings that once existed, with the values that recipes gave them.
RETIRED = {"feature_weight": 0.0, "mirror_weight": 0.0, "part_weight": 0.0, "wing_start": 0.01}


def add_retired_settings(out: Path, **values: float) -> None:
    """Give a run's state the settings of an older version."""
    tensors, metadata = read_tensors(RunFolder(out).state)
    metadata["state"]["run"]["training"].update({**RETIRED, **values})
    write_tensors(RunFolder(out).state, tensors, metadata)


def test_a_run_of_an_older_version_is_resumed_exactly(
    straight: Callable[[str], Path], start: Callable[..., Trainer], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path).run(stop_at(4, KeyboardInterrupt))
    add_retired_settings(tmp_path)
    start(tmp_path, resume=True).run()
    assert_same_run(tmp_path, straight("fast"))


def test_a_run_that_used_what_is_gone_is_refused(
    straight: Callable[[str], Path], start: Callable[..., Trainer], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(straight("fast"), tmp_path / "run"))
    add_retired_settings(out, mirror_weight=0.5)
    before = files(out)
    with pytest.raises(InputError, match=r"this run has mirror_weight 0\.5, which this version") as caught:
        start(out, resume=True)
    assert f"--init {RunFolder(out).last}" in caught.value.hint
    assert files(out) == before


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("run", {}, "KeyError"),
        ("run", None, "TypeError"),
        ("step", "four", "ValueError: step 'four'"),
        ("best", {}, "TypeError"),
        ("optimiser", torch.zeros(7), "RuntimeError: .* of shape"),
        ("model", torch.zeros(7), "RuntimeError: Error"),
    ],
)
def test_a_state_that_holds_something_else_is_named(
    straight: Callable[[str], Path], start: Callable[..., Trainer], tmp_path: Path, key: str, value: Any, reason: str
) -> None:
    """A state whose record or moments were damaged ended `dhm train --resume` with a traceback."""
    out = Path(shutil.copytree(straight("fast"), tmp_path / "run"))
    tensors, metadata = read_tensors(RunFolder(out).state)
    if isinstance(value, torch.Tensor):
        tensors[next(name for name in tensors if name.startswith(key) and tensors[name].dim() > 1)] = value
    else:
        metadata["state"][key] = value
    write_tensors(RunFolder(out).state, tensors, metadata)
    before = files(out)
    with pytest.raises(FormatError, match=rf"state\.safetensors: damaged.*\({reason}") as caught:
        start(out, resume=True)
    assert len(caught.value.message) < 1000
    assert f"--init {RunFolder(out).last}" in caught.value.hint
    assert files(out) == before


# --- what a folder may not hold ---


def test_another_run_in_the_folder_is_refused(straight: Callable[[str], Path], start: Callable[..., Trainer]) -> None:
    out = straight("fast")
    before = files(out), run_json(out)
    with pytest.raises(InputError, match="holds a training run") as caught:
        start(out)
    assert "--resume" in caught.value.hint
    wide = replace(FAST, arch="fast-x2")
    with pytest.raises(InputError, match="a run of fast, not fast-x2"):
        start(out, wide, resume=True)
    with pytest.raises(InputError, match="this run has batch 4, not 6, seed 11, not 1"):
        start(out, replace(FAST, training=replace(TRAINING, batch=6, seed=1)), resume=True)
    with pytest.raises(InputError, match="this run has steps 2, not 3"):  # the network's steps
        start(out, replace(FAST, network=replace(SMALL_FAST, steps=3)), resume=True)
    assert (files(out), run_json(out)) == before


def test_nothing_to_resume(start: Callable[..., Trainer], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no training run to resume"):
        start(tmp_path, resume=True)
    assert list(tmp_path.iterdir()) == []


def test_networks_without_a_state_are_not_overwritten(
    straight: Callable[[str], Path], start: Callable[..., Trainer], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(straight("fast"), tmp_path / "run"))
    RunFolder(out).state.unlink()
    before = files(out)
    with pytest.raises(InputError, match=r"state\.safetensors is gone") as caught:
        start(out)
    assert "--init" in caught.value.hint
    assert files(out) == before


def test_resume_with_other_data_is_refused(straight: Callable[[str], Path], face_store: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(straight("fast"), tmp_path / "run"))
    with pytest.raises(InputError, match="other data"):
        Trainer(FAST, [(FaceStore(face_store), 2.0)], out, resume=True)


# --- what a run leaves ---


def test_files_of_a_run(straight: Callable[[str], Path]) -> None:
    found = sorted(p.relative_to(straight("fast")).as_posix() for p in straight("fast").rglob("*") if p.is_file())
    assert found == [
        ".lock", "best.safetensors", "checkpoints/step_0000003.safetensors", "checkpoints/step_0000006.safetensors",
        "config.toml", "last.safetensors", "learning_curve.png", "metrics.jsonl", "run.json",
        "samples/step_0000003.png", "samples/step_0000006.png", "state.safetensors", "validation.csv",
    ]  # fmt: skip


def test_reports_of_a_run(start: Callable[..., Trainer], tmp_path: Path) -> None:
    seen: list[TrainProgress] = []
    trainer = start(tmp_path)
    assert "18 faces to train on and 6 to validate on; 6 steps of 4, 5 an epoch" in trainer.description
    assert trainer.warnings == []
    result = trainer.run(seen.append)
    assert [p.step for p in seen] == [1, 2, 3, 4, 5, 6]
    assert [p.step for p in seen if p.validation] == [3, 6]
    assert seen[-1].validation == result
    assert all(math.isfinite(p.loss) and p.samples_per_second > 0 and 0 <= p.waiting <= 1 for p in seen)


def test_the_record_of_a_run(straight: Callable[[str], Path], face_store: Path) -> None:
    record, store = run_json(straight("dhm")), FaceStore(face_store)
    assert record["stores"] == [
        {
            "file": "drawn faces.h5",
            "faces": 24,
            "weight": 1.0,
            "hash": store.fingerprint(),
            "images_hash": store.attributes["images_hash"],
        }
    ]
    assert record["face_model"] == store.attributes["face_model"]
    assert (record["arch"], record["recipe"], record["steps"]) == ("dhm", "best", 6)
    assert (record["initial"], record["teacher"]) == (None, None)
    assert record["training"]["batch"] == 4
    assert record["network"]["hidden"] == 16
    model, _ = load_checkpoint(RunFolder(straight("fast")).last)
    numbers = sum(p.numel() for p in model.parameters())
    assert run_json(straight("fast"))["parameters"]["numbers"] == numbers
    (session,) = record["sessions"]
    assert {"started", "command", "commit", "python", "platform", "cores", "gpus", "dhm"} <= session.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_the_settings_file_of_a_run_gives_the_same_run(straight: Callable[[str], Path], kind: str) -> None:
    found = resolve(None, None, read_toml(RunFolder(straight(kind)).config), {})
    assert replace(found, data=()) == KINDS[kind]


def test_metrics_of_a_run(straight: Callable[[str], Path]) -> None:
    first, second = metrics(straight("rhg"))
    assert (first["step"], second["step"]) == (3, 6)
    assert (first["epoch"], second["epoch"]) == (0.6, 1.2)
    # Rates of the steps 2 and 5, counted from 0: an epoch of five steps has ended before the latter.
    assert (first["learning_rate"], second["learning_rate"]) == pytest.approx((2e-3, 2e-4))
    for line in (first, second):
        assert line["loss"] > 0
        assert line["gradient_norm"] > 0
        assert line["validation"].keys() == {"0-30", "30-60", "60-90", "mean_of_bins", "mean_of_images"}


def test_last_holds_the_averaged_weights_and_their_score(
    straight: Callable[[str], Path], start: Callable[..., Trainer], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(straight("fast"), tmp_path / "run"))
    model, metadata = load_checkpoint(RunFolder(out).last)
    state, _ = read_tensors(RunFolder(out).state)
    for name, tensor in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, state[f"average.module.{name}"]), name
    assert not torch.equal(model.stem.weight, state["model.stem.weight"])
    assert (metadata["training"]["step"], metadata["training"]["arch"]) == (6, "fast")
    # The score that was recorded comes out again.
    trainer = start(out, resume=True)
    nme = normalised_mean_error(predict(model, trainer._validation.crops), trainer._validation.truth)
    assert metadata["training"]["validation_nme"] == pytest.approx(nme_by_yaw(nme, trainer._validation.yaw), rel=1e-6)
    assert metrics(out)[-1]["validation"] == metadata["training"]["validation_nme"]


@pytest.mark.parametrize("kind", KINDS)
def test_best_is_the_best_of_the_validations(straight: Callable[[str], Path], kind: str) -> None:
    out = straight(kind)
    scores = {line["step"]: line["validation"]["mean_of_bins"] for line in metrics(out)}
    _, metadata = read_tensors(RunFolder(out).best)
    step = metadata["training"]["step"]
    assert scores[step] == min(scores.values())
    assert RunFolder(out).best.read_bytes() == (out / f"checkpoints/step_{step:07d}.safetensors").read_bytes()
    assert read_tensors(RunFolder(out).state)[1]["state"]["best"] == scores[step]


def test_the_best_is_not_overwritten_by_a_worse_one_after_a_resume(
    start: Callable[..., Trainer], tmp_path: Path
) -> None:
    """The weights are spoiled after the resume, so that step 3 stays the best."""
    settings = replace(FAST, training=replace(TRAINING, ema=0.0))
    with pytest.raises(ZeroDivisionError):
        start(tmp_path, settings).run(stop_at(3, ZeroDivisionError))
    best = RunFolder(tmp_path).best.read_bytes()
    table = RunFolder(tmp_path).validation.read_bytes()
    trainer = start(tmp_path, settings, resume=True)
    with torch.no_grad():
        trainer.model.head[2].bias.add_(10.0)
    trainer.run()
    first, second = (line["validation"]["mean_of_bins"] for line in metrics(tmp_path))
    assert second > first
    assert RunFolder(tmp_path).best.read_bytes() == best
    assert RunFolder(tmp_path).validation.read_bytes() == table
    assert RunFolder(tmp_path).last.read_bytes() != best


@pytest.mark.parametrize("kind", ["fast", "dhm"])
def test_the_table_of_validation_faces_is_of_the_best_network(
    straight: Callable[[str], Path], face_store: Path, face_model: Path, kind: str, tmp_path: Path
) -> None:
    model, metadata = load_checkpoint(RunFolder(straight(kind)).best, face_model)
    with RunFolder(straight(kind)).validation.open(newline="") as file:
        rows = list(csv.DictReader(file))
    store = FaceStore(face_store)
    inside = store.labels.in_split("val")
    assert [row["name"] for row in rows] == [f"drawn faces.h5: {name}" for name in store.labels.names[inside]]
    yaw = np.array([float(row["yaw"]) for row in rows])
    np.testing.assert_allclose(yaw, store.labels.yaw[inside], atol=6e-4)
    nme = np.array([float(row["nme"]) for row in rows])
    assert nme_by_yaw(nme, yaw) == pytest.approx(metadata["training"]["validation_nme"], abs=1e-5)
    fresh = Trainer(KINDS[kind], [(store, 1.0)], tmp_path, RunOptions(face_model=face_model))
    np.testing.assert_allclose(
        normalised_mean_error(predict(model, fresh._validation.crops, 4), fresh._validation.truth), nme, atol=1e-4
    )


@pytest.mark.parametrize("kind", ["fast", "dhm", "rhg"])
def test_pictures_of_a_run(straight: Callable[[str], Path], kind: str) -> None:
    assert json.loads(RunFolder(straight(kind)).learning_curve.read_text())[-1]["step"] == 6
    for path in sorted((straight(kind) / "samples").iterdir()):
        image = cv2.imread(str(path))
        assert image is not None, path
        assert image.std() > 10
        assert min(image.shape[:2]) > 200
    first, second = ((straight(kind) / "samples" / f"step_000000{k}.png").read_bytes() for k in (3, 6))
    assert first != second


@pytest.mark.parametrize(("keep", "kept"), [(0, []), (1, [3]), (2, [2, 3])])
def test_keep(start: Callable[..., Trainer], tmp_path: Path, keep: int, kept: list[int]) -> None:
    start(tmp_path, replace(FAST, training=replace(TRAINING, steps=3, validate_every=1)), keep=keep).run()
    found = sorted(p.name for p in (tmp_path / "checkpoints").glob("*"))
    assert found == [f"step_{step:07d}.safetensors" for step in kept]
    assert RunFolder(tmp_path).best.is_file()
    assert read_tensors(RunFolder(tmp_path).last)[1]["training"]["step"] == 3


def test_the_seed_makes_the_run(start: Callable[..., Trainer], tmp_path: Path) -> None:
    one, same = start(tmp_path / "a"), start(tmp_path / "b")
    other = start(tmp_path / "c", replace(FAST, training=replace(TRAINING, seed=12)))
    assert torch.equal(one.model.head[1].weight, same.model.head[1].weight)
    assert not torch.equal(one.model.head[1].weight, other.model.head[1].weight)
    assert torch.equal(one._batches.batch(0).crops, same._batches.batch(0).crops)
    assert not torch.equal(one._batches.batch(0).crops, other._batches.batch(0).crops)


@pytest.mark.parametrize("loss", ["likelihood", "wing"])
def test_several_processes_are_told_of_parameters_without_a_gradient(
    start: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """They would wait for them: with a loss that does not ask for the uncertainty, its head gets none.

    Without being told, DistributedDataParallel ends in a RuntimeError at the second step of two processes.
    """
    told: list[bool] = []

    def wrapped(_: Processes, model: torch.nn.Module, unused: bool = False) -> torch.nn.Module:
        told.append(unused)
        return model

    monkeypatch.setattr(Processes, "wrapped", wrapped)
    network = replace(SMALL_FAST, uncertainty=True)
    training = replace(TRAINING, loss=loss, optimiser="adamw")  # Muon takes gradients away
    trainer = start(tmp_path, replace(FAST, network=network, training=training))
    trainer._train_step(trainer._batches.batch(0), False)
    assert told == [any(p.grad is None for p in trainer.model.parameters())]


@pytest.mark.parametrize("kind", ["fast", "dhm", "likelihood"])
def test_the_loss_falls(start: Callable[..., Trainer], tmp_path: Path, kind: str) -> None:
    training = replace(KINDS[kind].training, steps=30, validate_every=100, learning_rate=1e-2, ema=0.0)
    trainer = start(tmp_path, replace(KINDS[kind], training=training))
    batch, losses = trainer._batches.batch(0), []
    trainer._rate = 0.0
    for _ in range(15):
        trainer._loss = math.nan  # the running mean begins anew: the loss of this step
        trainer._train_step(batch, False)
        losses.append(trainer._loss)
    assert losses[-1] < losses[0] - 0.2 * abs(losses[0])


def test_bfloat16_stays_finite_for_networks_of_parameters(start: Callable[..., Trainer], tmp_path: Path) -> None:
    settings = replace(KINDS["dhm"], training=replace(KINDS["dhm"].training, precision="bf16"))
    trainer = start(tmp_path, settings)
    dtypes = set()
    trainer.model.features.body[2].register_forward_hook(lambda _m, _i, output: dtypes.add(output.dtype))
    result = trainer.run()
    assert torch.bfloat16 in dtypes
    assert all(math.isfinite(value) for value in result.values())
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in trainer.model.parameters())


# --- what goes wrong ---


def poison(start: Callable[..., Trainer], out: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """A run whose fifth step has a loss or a gradient that is no number."""
    original, calls = Objective.forward, []

    def broken(*arguments: Any) -> torch.Tensor:
        calls.append(None)
        loss = original(*arguments)
        if len(calls) < 5:
            return loss
        if what == "loss":
            return loss * math.nan
        return loss + (loss - loss.detach()).abs().sqrt()  # 0, with an endless slope

    monkeypatch.setattr(Objective, "forward", broken)
    return start(out)


@pytest.mark.parametrize(
    ("what", "said"), [("loss", "the loss became nan"), ("gradient", "the gradient's norm became")]
)
def test_what_is_no_number_ends_the_run_with_its_batch(
    start: Callable[..., Trainer],
    straight: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    said: str,
) -> None:
    trainer = poison(start, tmp_path, what, monkeypatch)
    with pytest.raises(DhmError, match=rf"{said} .*at step 4, with the batch now in .*nan_step_0000004") as caught:
        trainer.run()
    assert "--learning-rate" in caught.value.hint
    tensors, metadata = read_tensors(tmp_path / "nan_step_0000004_rank_0.safetensors")
    batch = trainer._batches.batch(4)
    for name, values in batch._asdict().items():
        assert torch.equal(tensors[name], values), name
    names = metadata["batch"]["names"]
    assert names == trainer._train_names[batch.rows.numpy()].tolist()
    assert all(name in caught.value.message for name in names[:3])
    # The last good state is as it was, and the run can go on from it.
    tensors, metadata = read_tensors(RunFolder(tmp_path).state)
    assert metadata["state"]["step"] == 3
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert all(p.isfinite().all() for p in trainer.model.parameters())  # no step was made
    monkeypatch.undo()
    start(tmp_path, resume=True).run()
    (tmp_path / "nan_step_0000004_rank_0.safetensors").unlink()
    assert_same_run(tmp_path, straight("fast"))


OUT_OF_MEMORY = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda e: f"{type(e).__name__} {e}"[:30])
def test_out_of_memory_says_what_to_lower(
    start: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def greedy(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Objective, "forward", greedy)
    with pytest.raises(DhmError, match="out of memory at a batch of 4 crops of 32 pixels") as caught:
        start(tmp_path / "a").run()
    assert all(flag in caught.value.hint for flag in ("--batch", "--input-size", "--precision bf16"))
    monkeypatch.undo()
    monkeypatch.setattr(Validation, "_sample_sheet", greedy)
    with pytest.raises(DhmError, match="out of memory validating 128 crops of 32 pixels") as caught:
        start(tmp_path / "b").run()
    assert "validation_batch" in caught.value.hint


def test_what_torch_says_without_memory_is_understood(
    start: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Objective, "forward", lambda *_: torch.empty(10**15))
    with pytest.raises(DhmError, match="out of memory at a batch of 4"):
        start(tmp_path).run()


def test_other_errors_pass_untouched(
    start: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    def wrong(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Objective, "forward", wrong)
    with pytest.raises(RuntimeError) as caught:
        start(tmp_path).run()
    assert caught.value is error


# --- data ---


def with_split(source: Path, path: Path, split: Any, images: Callable[[int, bytes], bytes] | None = None) -> FaceStore:
    """A copy of a store with other splits, and other images where wanted."""
    store = FaceStore(source)
    rows = np.arange(len(store))
    encoded = list(store.encoded_images(rows))
    if images is not None:
        encoded = [images(row, data) for row, data in enumerate(encoded)]
    labels = replace(store.labels, split=np.asarray(split, np.uint8))
    attributes = {"face_model": store.attributes["face_model"]}
    write_store(path, encoded, np.array([len(data) for data in encoded]), labels, attributes)
    return FaceStore(path)


def test_test_faces_are_never_read(face_store: Path, tmp_path: Path) -> None:
    """A store whose test images are garbage trains, and its validation knows nothing of the test faces."""
    store = FaceStore(face_store)
    split = store.labels.split.copy()
    test = np.flatnonzero(split == 0)[::2]
    split[test] = 2
    store = with_split(face_store, tmp_path / "a.h5", split, lambda row, data: b"junk" if row in test else data)
    with pytest.raises(FormatError):
        store.images(test[:1])
    trainer = Trainer(FAST, [(store, 1.0)], tmp_path / "run", RunOptions(workers=0))
    trainer.run()
    known = {f"a.h5: {name}" for name in store.labels.names[test]}
    assert not known & {*trainer._train_names, *trainer._validation.names}
    assert len(trainer._validation.crops) == (split == 1).sum()


def test_overlap_is_warned_of(face_store: Path, tmp_path: Path) -> None:
    """Each of 12 persons has one image on either side."""
    store = FaceStore(face_store)
    _, first = np.unique(store.labels.identity, return_index=True)
    assert len(first) == 12
    store = with_split(face_store, tmp_path / "a.h5", np.isin(np.arange(24), first))
    trainer = Trainer(FAST, [(store, 1.0)], tmp_path / "run", RunOptions(workers=0))
    assert len(trainer.warnings) == 1
    assert "12 validation faces of" in trainer.warnings[0]
    assert "identity of a training face" in trainer.warnings[0]


@pytest.mark.parametrize("split", [0, 1])
def test_training_needs_both_splits(face_store: Path, tmp_path: Path, split: int) -> None:
    store = with_split(face_store, tmp_path / "half.h5", np.full(24, split))
    train, validation = (24, 0) if split == 0 else (0, 24)
    with pytest.raises(InputError, match=rf"{train} faces to train on and {validation} to validate on"):
        Trainer(FAST, [(store, 1.0)], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_stores_with_weights(face_store: Path, tmp_path: Path) -> None:
    other = shutil.copy(face_store, tmp_path / "other.h5")
    stores = open_stores([str(face_store), f"{other}=0.25"])
    assert [weight for _, weight in stores] == [1.0, 0.25]
    assert [len(store) for store, _ in stores] == [24, 24]


@pytest.mark.parametrize("weight", ["", "0", "-1", "many", "nan", "inf"])
def test_unusable_weights_are_named(face_store: Path, weight: str) -> None:
    with pytest.raises(InputError, match=f"'{weight}' is not a positive number"):
        open_stores([f"{face_store}={weight}"])


def test_default_stores(face_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no store in data/"):
        open_stores(None)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.h5").write_bytes(face_store.read_bytes())
    (tmp_path / "data" / "face_model.h5").write_bytes(b"not a store")
    assert [store.path.name for store, _ in open_stores(None)] == ["a.h5"]


def test_stores_of_different_face_models_are_not_mixed(face_store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    shutil.copy(face_store, other)
    with h5py.File(other, "r+") as file:
        file.attrs["face_model"] = "another"
    with pytest.raises(InputError, match=r"different face models.*other\.h5 another"):
        Trainer(FAST, [(FaceStore(face_store), 1.0), (FaceStore(other), 1.0)], tmp_path / "run")


# --- face model, initial weights, teacher ---


def test_the_settings_file_of_a_run_names_its_data(
    start: Callable[..., Trainer], tmp_path: Path, face_store: Path
) -> None:
    """Also where it was every store of the default folder, which may hold others later."""
    assert FAST.data == ()
    start(tmp_path / "run", FAST)
    assert read_toml(tmp_path / "run" / "config.toml")["data"] == [str(face_store)]


def test_the_face_model_lies_beside_the_store(face_store: Path, face_model: Path, tmp_path: Path) -> None:
    store = Path(shutil.copy(face_store, tmp_path / "a.h5"))
    with pytest.raises(InputError, match=r"face_model\.h5: no such face model"):
        Trainer(KINDS["dhm"], [(FaceStore(store), 1.0)], tmp_path / "run")
    shutil.copy(face_model, tmp_path)
    trainer = Trainer(KINDS["dhm"], [(FaceStore(store), 1.0)], tmp_path / "run")
    assert trainer.model.face_model_hash == FaceModel.load(face_model).hash()


def test_another_face_model_is_refused(start: Callable[..., Trainer], toy_model: FaceModel, tmp_path: Path) -> None:
    other = replace(toy_model, mean=toy_model.mean * 2)
    other.save(tmp_path / "other.h5")
    with pytest.raises(InputError, match=rf"prepared with face model .* but .*other\.h5 is {other.hash()}"):
        start(tmp_path / "run", KINDS["dhm"], face_model=tmp_path / "other.h5")


@pytest.mark.parametrize("kind", ["fast", "dhm"])
def test_initial_weights(
    straight: Callable[[str], Path], start: Callable[..., Trainer], tmp_path: Path, kind: str
) -> None:
    initial = RunFolder(straight(kind)).best
    settings = replace(KINDS[kind], training=replace(KINDS[kind].training, seed=12))
    trainer = start(tmp_path / "run", settings, initial=initial)
    weights = read_tensors(initial)[0]
    for model in (trainer.model, trainer.averaged):
        for name, tensor in weights.items():
            assert torch.equal(model.state_dict()[name], tensor), name
    digest = run_json(tmp_path / "run")["initial"]
    assert isinstance(digest, str)
    # A resume neither needs the file nor forgets it.
    with pytest.raises(KeyboardInterrupt):
        trainer.run(stop_at(4, KeyboardInterrupt))
    start(tmp_path / "run", settings, resume=True).run()
    start(tmp_path / "whole", settings, initial=initial).run()
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    assert run_json(tmp_path / "run")["initial"] == digest


def test_initial_weights_of_another_network(
    straight: Callable[[str], Path], start: Callable[..., Trainer], tmp_path: Path
) -> None:
    with pytest.raises(FormatError, match=r"do not fit the network: cnn\.0\.depthwise\.weight") as caught:
        start(tmp_path / "run", initial=RunFolder(straight("dhm")).best)
    assert "same architecture" in caught.value.hint
    wider = replace(FAST, network=replace(SMALL_FAST, head_rank=9))
    with pytest.raises(FormatError, match=r"do not fit the network: head\.1\.weight, head\.2\.weight"):
        start(tmp_path / "run", wider, initial=RunFolder(straight("fast")).best)
    with pytest.raises(InputError, match=r"missing\.safetensors: no such checkpoint"):
        start(tmp_path / "run", initial=tmp_path / "missing.safetensors")
    assert not (tmp_path / "run").exists()


def test_distillation(
    straight: Callable[[str], Path], start: Callable[..., Trainer], toy_model: FaceModel, tmp_path: Path
) -> None:
    """A DHM of 40 pixels teaches fast of 32; the run is another one, resumes exactly, and leaves the teacher alone."""
    torch.manual_seed(0)
    network = build_model("dhm", torch.zeros(68, 3), replace(SMALL_DHM, input_size=40), toy_model)
    teacher = tmp_path / "teacher.safetensors"
    save_checkpoint(teacher, network, "dhm", {})
    start(tmp_path / "whole", teacher=teacher).run()
    trainer = start(tmp_path / "run", teacher=teacher)
    shown = trainer._objective.teacher
    before = {name: tensor.clone() for name, tensor in shown.state_dict().items()}
    with pytest.raises(ZeroDivisionError):
        trainer.run(stop_at(5, ZeroDivisionError))
    assert all(torch.equal(tensor, before[name]) for name, tensor in shown.state_dict().items())
    assert all(p.grad is None for p in shown.parameters())
    with pytest.raises(InputError, match="started with another teacher"):
        start(tmp_path / "run", resume=True)
    start(tmp_path / "run", resume=True, teacher=teacher).run()
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    plain, taught = (metrics(out)[0]["loss"] for out in (straight("fast"), tmp_path / "whole"))
    assert taught > 1.1 * plain  # a second term
    assert not any(
        key.startswith(("teacher", "model.teacher")) for key in read_tensors(tmp_path / "run/last.safetensors")[0]
    )


UNCERTAIN = replace(FAST, network=replace(SMALL_FAST, uncertainty=True))


def test_learning_doubts_alone_leaves_the_landmarks_as_they_are(
    straight: Callable[[str], Path], start: Callable[..., Trainer], tmp_path: Path
) -> None:
    """From a network that told none; its weights and batch norms stay to the bit, and only the new layers move."""
    initial = RunFolder(straight("fast")).best
    training = replace(TRAINING, learned="doubts", not_face_share=0.3)
    start(tmp_path / "run", replace(UNCERTAIN, training=training), initial=initial).run()
    before, after = read_tensors(initial)[0], read_tensors(RunFolder(tmp_path / "run").best)[0]
    new = {name for name in after if name.startswith("doubts.")}
    assert set(after) - new == set(before)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert after["doubts.scale.weight"].abs().sum() > 0
    assert after["doubts.confidence.weight"].abs().sum() > 0
    assert after["doubts.sigma_of_scale"] != 2.36  # measured on the validation faces
    # The landmarks of the last checkpoint are those of the first, so the last is kept as the best.
    assert read_tensors(RunFolder(tmp_path / "run").best)[1]["training"]["step"] == 6


def test_sigma_holds_its_share_of_the_validation_errors(
    start: Callable[..., Trainer], tmp_path: Path, face_store: Path
) -> None:
    trainer = start(tmp_path / "run", replace(UNCERTAIN, training=replace(TRAINING, loss="likelihood")))
    trainer.run()
    network, _ = load_checkpoint(RunFolder(tmp_path / "run").last)
    found = trainer._validation
    landmarks, sigma, *_ = LastStep(network)(torch.from_numpy(found.crops))
    distance = (landmarks.double()[..., :2] - torch.from_numpy(found.truth)[..., :2]).norm(dim=-1)
    sigma = sigma * torch.from_numpy(face_size(landmarks.detach().numpy()))[:, None]  # pixels
    assert (distance <= sigma).double().mean().item() == pytest.approx(0.6827, abs=0.01)
