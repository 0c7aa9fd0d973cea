"""The faces that methods are scored on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scored_faces import NAMES, YAW, make_labels, write_scored_store

from dhm_cli.data.store import FaceLabels
from dhm_cli.errors import FormatError, InputError
from dhm_cli.evaluation.ground_truth import BENCHMARK_BINS, load_ground_truth
from dhm_cli.morphable.face_model import FaceModel


@pytest.fixture
def labels(toy_model: FaceModel) -> FaceLabels:
    return make_labels(toy_model)


def test_the_test_split_is_scored_else_the_validation_split(tmp_path: Path, labels: FaceLabels) -> None:
    for splits, chosen, rows in (("00122221", "test", [3, 4, 5, 6]), ("00111000", "val", [2, 3, 4])):
        marked = replace(labels, split=np.array(list(splits), np.uint8))
        truth = load_ground_truth(write_scored_store(tmp_path / "a.h5", marked))
        assert (truth.split, truth.rows.tolist()) == (chosen, rows)
        assert truth.faces.names.tolist() == [NAMES[row] for row in rows]


def test_flagged_faces_are_scored(tmp_path: Path, labels: FaceLabels) -> None:
    path = write_scored_store(tmp_path / "a.h5", replace(labels, flagged=np.ones(8, np.uint8)))
    assert len(load_ground_truth(path)) == 8
    train = replace(labels, flagged=np.ones(8, np.uint8), split=np.zeros(8, np.uint8))
    assert len(load_ground_truth(write_scored_store(tmp_path / "b.h5", train), split="train")) == 8


def test_points_of_both_label_sets_and_pose(tmp_path: Path, toy_model: FaceModel) -> None:
    second = np.random.default_rng(0).uniform(0, 200, (8, 68, 2)).astype(np.float32)
    path = write_scored_store(tmp_path / "a.h5", make_labels(toy_model, reannotated=second))
    original, again = load_ground_truth(path), load_ground_truth(path, "reannotated")
    np.testing.assert_array_equal(original.landmarks, make_labels(toy_model).landmarks)
    np.testing.assert_array_equal(again.landmarks, second)
    assert original.pose[:, 1] == pytest.approx(YAW, abs=1e-5)
    chosen = original.take(np.arange(8) % 3 == 1)
    assert chosen.rows.tolist() == [1, 4, 7]
    np.testing.assert_array_equal(chosen.landmarks, original.landmarks[[1, 4, 7]])


def test_what_cannot_be_scored_is_said(tmp_path: Path, labels: FaceLabels) -> None:
    path = write_scored_store(tmp_path / "a.h5", replace(labels, split=np.zeros(8, np.uint8)))
    with pytest.raises(InputError, match=r"a\.h5: neither test nor val faces, only train 8"):
        load_ground_truth(path)
    with pytest.raises(InputError, match="no val faces, only train 8"):
        load_ground_truth(path, split="val")
    assert len(load_ground_truth(path, split="all")) == 8
    with pytest.raises(InputError, match="no re-annotated points") as caught:
        load_ground_truth(path, "reannotated", "train")
    assert "--reannotated" in caught.value.hint
    with pytest.raises(InputError, match="--labels others") as caught:
        load_ground_truth(path, "others")
    assert "original, reannotated" in caught.value.hint
    with pytest.raises(InputError, match="--split dev"):
        load_ground_truth(path, split="dev")
    with pytest.raises(InputError, match=r"absent\.h5: no such store"):
        load_ground_truth(tmp_path / "absent.h5")


def test_an_empty_store_and_damaged_labels(tmp_path: Path, labels: FaceLabels) -> None:
    with pytest.raises(InputError, match=r"empty\.h5: no face"):
        load_ground_truth(write_scored_store(tmp_path / "empty.h5", labels.take(np.zeros(8, bool))))
    landmarks = labels.landmarks.copy()
    landmarks[3, 5, 1] = np.nan
    landmarks[6] = 7.0
    path = write_scored_store(tmp_path / "nan.h5", replace(labels, landmarks=landmarks))
    with pytest.raises(FormatError, match=r"nan\.h5: 2 faces .* such as sub/face 3\.png"):
        load_ground_truth(path)


def test_only_the_whole_benchmark_may_stand_beside_published_rows(tmp_path: Path, labels: FaceLabels) -> None:
    other = load_ground_truth(write_scored_store(tmp_path / "a.h5", labels))
    assert "these faces are of toy" in other.benchmark_problem()
    part = load_ground_truth(write_scored_store(tmp_path / "b.h5", labels, layout="aflw2000-3d"))
    assert "1312/383/305 faces by yaw), these are 3/2/3" in part.benchmark_problem()
    rows = np.repeat(np.array([0, 3, 6]), BENCHMARK_BINS)
    whole = replace(part, rows=rows, faces=labels.take(rows))
    assert whole.benchmark_problem() == ""
