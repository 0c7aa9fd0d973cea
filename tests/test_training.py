"""`dhm train` for a few steps: exact resume, refusals, and the pieces it is made of."""

import json
import math
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from dhm_cli.checkpoint import load_checkpoint, read_tensors
from dhm_cli.config import TrainConfig
from dhm_cli.data.store import FaceStore, write_store
from dhm_cli.errors import DhmError, InputError
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.parameters import Parameters, pack
from dhm_cli.workflows import training
from dhm_cli.workflows.training import (
    Trainer,
    TrainProgress,
    learning_rate_at,
    mean_frontal_shape,
    open_stores,
    predict,
)

# The average follows quickly, so that a wrong average shows within six steps.
CONFIG = TrainConfig(steps=6, batch=4, validate_every=3, warmup=2, ema=0.5, seed=11)


def start(store: Path, out: Path, resume: bool = False, config: TrainConfig = CONFIG, arch: str = "fast") -> Trainer:
    return Trainer(arch, [(FaceStore(store), 1.0)], config, out, resume)


def stop_at(step: int, error: type[BaseException]) -> Callable[[TrainProgress], None]:
    def report(progress: TrainProgress) -> None:
        if progress.step == step:
            raise error

    return report


def metrics(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def assert_same_run(out: Path, straight: Path) -> None:
    """Weights, averaged weights, optimiser, records and scores agree to the bit."""
    for name in ("state.safetensors", "last.safetensors", "best.safetensors"):
        tensors, record = read_tensors(out / name)
        expected, expected_record = read_tensors(straight / name)
        assert tensors.keys() == expected.keys()
        different = [key for key in expected if not torch.equal(tensors[key], expected[key])]
        assert different == []
        record.pop("running", None), expected_record.pop("running", None)
        assert record == expected_record
    scores, expected_scores = metrics(out), metrics(straight)
    for line in (*scores, *expected_scores):
        line.pop("loss")  # see test_the_running_loss_survives_a_resume
    assert scores == expected_scores


@pytest.fixture(scope="module")
def straight(face_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was never interrupted."""
    out = tmp_path_factory.mktemp("runs") / "straight"
    seen: list[TrainProgress] = []
    result = start(face_store, out).run(seen.append)
    assert [p.step for p in seen] == [1, 2, 3, 4, 5, 6]
    assert [p.step for p in seen if p.validation] == [3, 6]
    assert seen[-1].validation == result
    assert all(math.isfinite(p.loss) for p in seen)
    return out


def test_files_of_a_run(straight: Path, face_store: Path) -> None:
    assert sorted(p.name for p in straight.iterdir()) == [
        "best.safetensors", "config.json", "last.safetensors", "metrics.jsonl", "state.safetensors",
    ]  # fmt: skip
    assert [line["step"] for line in metrics(straight)] == [3, 6]
    config = json.loads((straight / "config.json").read_text())
    assert config["arch"] == "fast"
    fingerprint = FaceStore(face_store).fingerprint()
    assert config["stores"] == [{"file": "drawn faces.h5", "faces": 24, "weight": 1.0, "hash": fingerprint}]
    assert config["face_model"] == FaceStore(face_store).attributes["face_model"]
    assert config["config"]["steps"] == 6


def test_last_holds_the_averaged_weights_and_their_score(straight: Path, face_store: Path) -> None:
    model, metadata = load_checkpoint(straight / "last.safetensors")
    state, _ = read_tensors(straight / "state.safetensors")
    for name, tensor in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, state[f"average.module.{name}"]), name
    assert not torch.equal(model.stem.weight, state["model.stem.weight"])
    assert metadata["training"]["step"] == 6
    # The score that was recorded comes out again.
    trainer = start(face_store, straight, resume=True)
    predicted = predict(model, trainer._crops)
    distance = np.linalg.norm((predicted - trainer._truth)[..., :2], axis=-1).mean(1)
    box = np.ptp(trainer._truth[..., :2], axis=1)
    nme = 100 * distance / np.sqrt(box.prod(1))
    assert metadata["training"]["validation_nme"]["mean_of_images"] == pytest.approx(nme.mean(), rel=1e-5)


def test_best_is_the_best_of_the_validations(straight: Path) -> None:
    scores = {line["step"]: line["mean_of_bins"] for line in metrics(straight)}
    _, metadata = load_checkpoint(straight / "best.safetensors")
    assert scores[metadata["training"]["step"]] == min(scores.values())


def test_the_same_seed_is_the_same_run(straight: Path, face_store: Path, tmp_path: Path) -> None:
    short = replace(CONFIG, seed=12)
    trainer = start(face_store, tmp_path / "again")
    other = start(face_store, tmp_path / "other", config=short)
    assert torch.equal(trainer.model.head[1].weight, start(face_store, tmp_path / "third").model.head[1].weight)
    assert not torch.equal(trainer.model.head[1].weight, other.model.head[1].weight)


def test_resume_after_a_crash_is_exact(straight: Path, face_store: Path, tmp_path: Path) -> None:
    """Killed at step 5, after the state of step 3 was saved: nothing is caught, nothing more is saved."""
    with pytest.raises(MemoryError):
        start(face_store, tmp_path).run(stop_at(5, MemoryError))
    assert read_tensors(tmp_path / "state.safetensors")[1]["step"] == 3
    trainer = start(face_store, tmp_path, resume=True)
    assert trainer.step == 3
    trainer.run()
    assert_same_run(tmp_path, straight)


@pytest.mark.parametrize("step", [1, 4])
def test_resume_after_ctrl_c_between_steps_is_exact(
    straight: Path, face_store: Path, tmp_path: Path, step: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        start(face_store, tmp_path).run(stop_at(step, KeyboardInterrupt))
    trainer = start(face_store, tmp_path, resume=True)
    assert trainer.step == step
    trainer.run()
    assert_same_run(tmp_path, straight)


def test_resume_after_ctrl_c_within_a_step_is_exact(
    straight: Path, face_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nearly every Ctrl-C comes while the network runs, when batch norm has already taken the batch into account."""
    original, calls = training.landmark_loss, []

    def interrupted(*arguments: Any) -> torch.Tensor:
        calls.append(None)
        if len(calls) == 5:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(training, "landmark_loss", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            start(face_store, tmp_path).run()
    finally:
        signal.signal(signal.SIGINT, before)
    assert read_tensors(tmp_path / "state.safetensors")[1]["step"] in (4, 5)
    start(face_store, tmp_path, resume=True).run()
    assert_same_run(tmp_path, straight)


def test_the_best_score_survives_a_crash(straight: Path, face_store: Path, tmp_path: Path) -> None:
    """Else a later, worse validation would overwrite best.safetensors."""
    with pytest.raises(MemoryError):
        start(face_store, tmp_path).run(stop_at(3, MemoryError))
    assert read_tensors(tmp_path / "state.safetensors")[1]["best"] == metrics(tmp_path)[0]["mean_of_bins"]


def test_the_running_loss_survives_a_resume(straight: Path, face_store: Path, tmp_path: Path) -> None:
    with pytest.raises(MemoryError):
        start(face_store, tmp_path).run(stop_at(3, MemoryError))
    start(face_store, tmp_path, resume=True).run()
    assert metrics(tmp_path) == metrics(straight)


def test_a_finished_run_has_nothing_left_to_do(straight: Path, face_store: Path) -> None:
    before = (straight / "last.safetensors").read_bytes(), metrics(straight)
    steps: list[TrainProgress] = []
    start(face_store, straight, resume=True).run(steps.append)
    assert steps == []
    assert ((straight / "last.safetensors").read_bytes(), metrics(straight)) == before


def test_another_run_in_the_folder_is_refused(straight: Path, face_store: Path) -> None:
    before = (straight / "state.safetensors").read_bytes()
    with pytest.raises(InputError, match="holds a training run") as caught:
        start(face_store, straight)
    assert "--resume" in caught.value.hint
    with pytest.raises(InputError, match="a run of fast, not fast-x2"):
        start(face_store, straight, resume=True, arch="fast-x2")
    assert (straight / "state.safetensors").read_bytes() == before


def test_nothing_to_resume(face_store: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no training run to resume"):
        start(face_store, tmp_path, resume=True)


def test_a_nan_loss_ends_the_run_and_keeps_the_last_state(face_store: Path, tmp_path: Path) -> None:
    trainer = start(face_store, tmp_path)

    def poison(progress: TrainProgress) -> None:
        if progress.step == 4:
            with torch.no_grad():
                trainer.model.stem.weight.fill_(math.nan)

    with pytest.raises(DhmError, match="the loss became nan at step 4"):
        trainer.run(poison)
    tensors, metadata = read_tensors(tmp_path / "state.safetensors")
    assert metadata["step"] == 3
    assert all(tensor.isfinite().all() for tensor in tensors.values())


@pytest.mark.parametrize("split", [0, 1])
def test_training_needs_both_splits(face_store: Path, tmp_path: Path, split: int) -> None:
    store = FaceStore(face_store)
    rows = np.flatnonzero(store.labels.split == split)
    images = list(store.encoded_images(rows))
    write_store(tmp_path / "half.h5", images, store.sizes[rows], store.labels.take(rows), {"face_model": "x"})
    with pytest.raises(
        InputError, match=rf"{18 if split == 0 else 0} faces to train on and {0 if split == 0 else 6} to"
    ):
        start(tmp_path / "half.h5", tmp_path / "run")


def test_the_loss_falls(face_store: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=10, validate_every=100, learning_rate=3e-3, ema=0.0)
    losses: list[float] = []
    trainer = start(face_store, tmp_path, config=config)
    original = trainer._train_step
    trainer._train_step = lambda *batch: losses.append(original(*batch)) or losses[-1]  # type: ignore[method-assign]
    trainer.run()
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:2])


def test_learning_rate_by_hand() -> None:
    config = TrainConfig(steps=1100, warmup=100, learning_rate=0.004)
    rates = [learning_rate_at(step, config) for step in (0, 49, 99, 100, 600, 1100, 5000)]
    # 1/100 of the peak at once, the peak at the end of the warm-up, half of it half way down the cosine
    assert rates == pytest.approx([0.00004, 0.002, 0.004, 0.004, 0.002, 0.0, 0.0], abs=1e-12)


def test_learning_rate_without_warm_up() -> None:
    assert learning_rate_at(0, TrainConfig(steps=10, warmup=0, learning_rate=0.1)) == 0.1


def test_mean_frontal_shape_of_turned_faces(toy_model: FaceModel) -> None:
    """Faces of the mean shape, whatever their pose, size and place, have that shape as their frontal mean."""
    rng = np.random.default_rng(0)
    n = 12
    p = pack(
        Parameters(
            scale=torch.from_numpy(rng.uniform(2e-4, 8e-4, n)).float(),
            angles=torch.from_numpy(rng.uniform(-1.5, 1.5, (n, 3))).float(),
            translation=torch.from_numpy(rng.uniform(0, 300, (n, 2))).float(),
            identity=torch.zeros(n, 1),
            expression=torch.zeros(n, 1),
        )
    )
    shape = mean_frontal_shape(toy_model.landmarks(p, 200.0).numpy(), p.numpy()).numpy()
    mean = toy_model.mean.numpy() * [1, -1, 1]
    low, high = mean.min(0), mean.max(0)
    expected = mean / (high - low)[:2].max()
    expected -= [*((low + high) / 2)[:2] / (high - low)[:2].max(), expected[:, 2].mean()]
    np.testing.assert_allclose(shape, expected, atol=1e-4)
    assert shape[30, 2] > 0  # the nose tip is in front
    assert shape[8, 1] > 0  # the chin is below


def test_stores_with_weights(face_store: Path) -> None:
    stores = open_stores([str(face_store), f"{face_store}=0.25"])
    assert [weight for _, weight in stores] == [1.0, 0.25]
    assert [len(store) for store, _ in stores] == [24, 24]


@pytest.mark.parametrize("weight", ["0", "-1", "many", "nan", "inf"])
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


def test_resume_with_other_data_is_refused(straight: Path, face_store: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path / "run")
    with pytest.raises(InputError, match="other data"):
        Trainer("fast", [(FaceStore(face_store), 2.0)], CONFIG, tmp_path / "run", resume=True)


def test_stores_of_different_face_models_are_not_mixed(face_store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    shutil.copy(face_store, other)
    with h5py.File(other, "r+") as file:
        file.attrs["face_model"] = "another"
    with pytest.raises(InputError, match=r"different face models.*other\.h5 another"):
        Trainer("fast", [(FaceStore(face_store), 1.0), (FaceStore(other), 1.0)], CONFIG, tmp_path / "run")
