"""`evaluate`: from a store and a network or predictions to numbers and a report."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from example_networks import make_model
from numpy.typing import NDArray
from scored_faces import NAMES, YAW, make_labels, write_scored_store

from dhm_cli.data.store import FaceStore
from dhm_cli.errors import InputError
from dhm_cli.evaluation import network_landmarks as prediction
from dhm_cli.evaluation.evaluate import EvaluationOptions
from dhm_cli.evaluation.evaluate import evaluate as run_evaluation
from dhm_cli.evaluation.numbers import Scoring
from dhm_cli.geometry.crop import crop_matrix, extract_crop
from dhm_cli.geometry.landmarks import face_size
from dhm_cli.inference.aligner import Face
from dhm_cli.inference.engines import Engine, OnnxEngine
from dhm_cli.inference.results import OK, PhotoResult
from dhm_cli.metrics.landmark_error import normalised_mean_error
from dhm_cli.models.checkpoint import save_checkpoint
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.writers.registry import open_writer

QUICK = Scoring(replicates=100)
FILES = [
    "ced.png",
    "faces.csv",
    "landmarks.png",
    "predictions.npz",
    "report.html",
    "report.json",
    "yaw.png",
]


def evaluate(*arguments: Any) -> dict[str, Any]:
    """The content of the report's JSON file, NaN in place of null."""
    return run_evaluation(*arguments).to_json()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, toy_model: FaceModel) -> Path:
    return write_scored_store(tmp_path_factory.mktemp("store") / "faces.h5", make_labels(toy_model))


@pytest.fixture(scope="module")
def landmarks(toy_model: FaceModel) -> NDArray[np.float32]:
    return make_labels(toy_model).landmarks


def options(store: Path, **more: Any) -> EvaluationOptions:
    return EvaluationOptions(**{"data": store, "scoring": QUICK, "device": "cpu", "threads": 2, **more})


def save(path: Path, landmarks: NDArray[np.floating], names: tuple[str, ...] = NAMES, **more: NDArray[Any]) -> Path:
    np.savez(path, names=np.array(names), landmarks=landmarks, **more)
    return path


def test_a_network_and_its_report(store: Path, dummy_network: Path, tmp_path: Path) -> None:
    stages: list[tuple[str, int, int]] = []
    report = evaluate(
        options(store, model=dummy_network, report=tmp_path / "out", command="dhm evaluate"),
        lambda *step: stages.append(step),
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    read = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (read["schema"], read["schema_version"]) == ("dhm-evaluation", 1)
    assert (read["labels"], read["protocol"], read["n"], read["refine"]) == ("original", "paper", 8, 0)
    assert read["nme"].keys() == {"0-30", "30-60", "60-90", "mean_of_bins", "mean_of_images"}
    assert read["failure_rate"].keys() == {"threshold", "value"}
    assert read["auc"].keys() == {"7", "8"}
    assert read["method"]["arch"] == "fast"
    assert read["environment"]["command"] == "dhm evaluate"
    assert "these faces are of toy" in read["data"]["note"]
    said = {
        "schema",
        "schema_version",
        "dhm_version",
        "method",
        "data",
        "caveats",
        "unit",
        "published",
        "definitions",
        "environment",
    }
    aliases = {"nme_by_labelled_yaw": "bins", "refine": "protocol", "against": "difference", "measured": "n"}
    assert {aliases.get(name, name) for name in read.keys() - said} <= {*read["definitions"], "normaliser"}
    assert set(read["definitions"]) >= {"nme", "bins", "mean_of_bins", "failure_rate", "auc", "ced", "nme_3d", "pose"}
    assert read["nme"]["mean_of_bins"] == pytest.approx(report["nme"]["mean_of_bins"])
    assert stages[-3][1:] == (8, 8)
    assert [stage for stage, _, _ in stages[-2:]] == ["scoring", "report"]
    for picture in ("ced", "yaw", "landmarks"):
        image = cv2.imread(str(tmp_path / "out" / f"{picture}.png"))
        assert image is not None
        assert image.std() > 5


def test_the_numbers_are_those_of_the_network(store: Path, dummy_network: Path, landmarks: NDArray[np.float32]) -> None:
    report = evaluate(options(store, model=dummy_network))
    # By hand: the network answers with its mean shape in the middle of the crop, moved right by the crop's mean grey.
    engine: Engine = OnnxEngine(dummy_network)
    low, high = (end.astype(np.float64) for end in (landmarks[..., :2].min(axis=1), landmarks[..., :2].max(axis=1)))
    side, centre = (high - low).max(axis=1) * 2**0.5, (low + high) / 2
    images = FaceStore(store).images(np.arange(8))
    squares = zip(images, centre, side, strict=True)
    grey = np.array([extract_crop(image, crop_matrix(c, s, 120), 120).mean() for image, c, s in squares])
    in_crop = engine.mean_shape[None, :, :2] * 30 + np.stack([grey / 16, 0 * grey], axis=1)[:, None]
    expected = normalised_mean_error(in_crop * (side / 120)[:, None, None] + centre[:, None], landmarks)
    assert report["nme"]["mean_of_images"] == pytest.approx(expected.mean(), abs=1e-4)
    assert report["missing"]["count"] == 0
    assert report["pose"]["source"] == "predicted"


@pytest.mark.usefixtures("no_charts")
def test_its_own_predictions_score_the_same(store: Path, dummy_network: Path, tmp_path: Path) -> None:
    first = evaluate(options(store, model=dummy_network, report=tmp_path / "a"))
    second = evaluate(options(store, predictions=tmp_path / "a" / "predictions.npz", report=tmp_path / "b"))
    for name in (
        "nme",
        "median",
        "failure_rate",
        "auc",
        "regions",
        "visibility",
        "nme_3d",
        "pose",
        "worst",
        "intervals",
    ):
        assert json.dumps(second[name]) == json.dumps(first[name]), name  # NaN included
    assert (second["protocol"], second["refine"], second["method"]["kind"]) == ("predictions", None, "predictions")
    assert (tmp_path / "a" / "ced.png").exists()
    rows = [list(csv.DictReader((tmp_path / run / "faces.csv").open())) for run in "ab"]
    assert [row["name"] for row in rows[0]] == list(NAMES)
    assert [float(row["yaw"]) for row in rows[0]] == list(YAW)
    assert [row["nme: predictions"] for row in rows[1]] == [[*row.values()][2] for row in rows[0]]


def test_the_truth_as_predictions_of_every_kind(store: Path, landmarks: NDArray[np.float32], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", landmarks)
    save(tmp_path / "b.npz", landmarks[::-1], NAMES[::-1])
    (tmp_path / "c.json").write_text(
        json.dumps({f"photos/{n}": p.tolist() for n, p in zip(NAMES, landmarks, strict=True)})
    )
    (tmp_path / "d" / "sub").mkdir(parents=True)
    for name, points in zip(NAMES, landmarks[..., :2] + 1.0, strict=True):
        text = "\n".join(f"{x} {y}" for x, y in points)
        (tmp_path / "d" / name).with_suffix(".pts").write_text(f"version: 1\nn_points: 68\n{{\n{text}\n}}\n")
    table = open_writer(tmp_path / "e.csv")
    for name, points in zip(NAMES, landmarks, strict=True):
        table.write(PhotoResult(f"photos/{name}", OK, 1), [Face(points, (0, 0, 1, 1), 0.9, np.eye(3))])
    table.finish()
    for kind in ("a.npy", "b.npz", "c.json", "d", "e.csv"):
        report = evaluate(options(store, predictions=tmp_path / kind))
        # The table has three digits after the point.
        assert report["nme"]["mean_of_bins"] < (1e-3 if kind == "e.csv" else 1e-4), kind
        assert (report["failure_rate"]["value"], report["missing"]["count"]) == (0.0, 0)
        assert report["auc"]["7"] == pytest.approx(100.0, abs=1e-2)


@pytest.mark.usefixtures("no_charts")
def test_two_methods_beside_each_other(store: Path, landmarks: NDArray[np.float32], tmp_path: Path) -> None:
    size = face_size(landmarks)[:, None]
    ours, theirs = landmarks.copy(), landmarks.copy()
    ours[..., 0] += 0.02 * size
    theirs[..., 0] += 0.03 * size
    save(tmp_path / "ours.npz", ours)
    save(tmp_path / "theirs.npz", theirs[:7], NAMES[:7])
    report = evaluate(
        options(
            store,
            predictions=tmp_path / "ours.npz",
            against=[f"A={tmp_path / 'theirs.npz'}", str(tmp_path / "ours.npz")],
            report=tmp_path / "out",
        )
    )
    first, second = report["against"]
    assert (first["name"], first["missing"]["count"], first["nme"]["mean_of_images"]) == (
        "A",
        1,
        pytest.approx(3.0, abs=1e-4),
    )
    change = first["difference"]["nme"]["mean_of_bins"]
    assert (change["value"], change["verdict"]) == (pytest.approx(-1.0, abs=1e-4), "too few images")
    assert first["difference"]["failure_rate"]["value"] == pytest.approx(-12.5)
    assert second["name"] == "ours (2)"
    assert second["difference"]["nme"]["mean_of_bins"]["value"] == 0.0
    with (tmp_path / "out" / "faces.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["name", "yaw", "nme: ours", "nme: A", "nme: ours (2)"]
    assert rows[-1][3] == ""


def test_a_network_against_predictions(store: Path, landmarks: NDArray[np.float32], tmp_path: Path) -> None:
    model = make_model("fast")
    save_checkpoint(tmp_path / "best.safetensors", model, "fast", {})
    save(tmp_path / "truth.npz", landmarks)
    report = evaluate(
        options(
            store, predictions=tmp_path / "truth.npz", against=[str(tmp_path / "best.safetensors")], protocol="paper"
        )
    )
    assert report["against"][0]["kind"] == "network"
    assert report["against"][0]["name"] == f"{tmp_path.name}/best"
    assert report["against"][0]["difference"]["nme"]["mean_of_images"]["value"] < 0
    assert report["protocol"] == "paper"


def test_jitter_has_a_curve_and_a_picture_of_it(store: Path, dummy_network: Path, tmp_path: Path) -> None:
    report = evaluate(options(store, model=dummy_network, protocol="jitter", report=tmp_path))
    assert (tmp_path / "robustness.png").exists()
    assert len(report["robustness"]) == 18
    (headline,) = (row for row in report["robustness"] if row["kind"] == "both" and row["level"] == pytest.approx(10))
    assert report["nme"]["mean_of_bins"] == pytest.approx(headline["mean_of_bins"], rel=1e-6)


def test_missing_faces_are_counted_or_left_out(store: Path, landmarks: NDArray[np.float32], tmp_path: Path) -> None:
    file = save(tmp_path / "some.npz", landmarks[:6], NAMES[:6])
    fail = evaluate(options(store, predictions=file, report=tmp_path / "out"))
    assert (fail["n"], fail["missing"]["count"], fail["failure_rate"]["value"]) == (8, 2, 25.0)
    skip = evaluate(options(store, predictions=file, scoring=replace(QUICK, skip_missing=True)))
    assert (skip["n"], skip["missing"]["count"], skip["failure_rate"]["value"]) == (6, 2, 0.0)


def test_predictions_of_other_faces_are_counted(store: Path, landmarks: NDArray[np.float32], tmp_path: Path) -> None:
    both = np.concatenate([landmarks, landmarks[:2]])
    report = evaluate(options(store, predictions=save(tmp_path / "p.npz", both, (*NAMES, "x.png", "y.png"))))
    assert (report["method"]["unused"], report["missing"]["count"]) == (2, 0)


@pytest.mark.usefixtures("no_charts")
def test_a_stopped_evaluation_goes_on(
    store: Path, dummy_network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction, "_PIECE", 3)
    whole = evaluate(options(store, model=dummy_network))

    def stop(stage: str, done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(options(store, model=dummy_network, report=tmp_path), stop)
    assert [path.name for path in tmp_path.iterdir()] == ["unfinished-0.npz"]
    steps: list[int] = []
    report = evaluate(options(store, model=dummy_network, report=tmp_path), lambda _, done, __: steps.append(done))
    assert steps[:2] == [6, 8]
    assert report["nme"] == whole["nme"]
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"model": "a.onnx", "predictions": "b.csv"}, "one at a time"),
        ({"predictions": "b.onnx"}, r"b\.onnx: a network"),
        ({"predictions": "b.csv", "protocol": "jitter"}, "moves the boxes of a network"),
        ({"model": "b.csv"}, r"b\.csv: not a network"),
        ({"model": "absent.onnx"}, r"absent\.onnx: cannot be read"),
        ({"predictions": "absent.csv"}, r"absent\.csv"),
        ({"protocol": "easy"}, "--protocol easy"),
        ({"against": ["absent.csv"]}, r"--against absent\.csv: no such file"),
        ({"against": ["X=absent.csv"]}, r"--against X=absent\.csv: no such file"),
        ({"scoring": Scoring("pupils")}, "pupils"),
        ({"scoring": Scoring(threshold=0.0)}, "--threshold 0"),
        ({"scoring": Scoring(threshold=float("nan"))}, "--threshold nan"),
    ],
)
def test_what_cannot_be_evaluated(store: Path, more: dict[str, Any], words: str) -> None:
    paths = {key: Path(value) if key in ("model", "predictions") else value for key, value in more.items()}
    with pytest.raises(InputError, match=words) as caught:
        evaluate(options(store, **paths))
    assert caught.value.hint


def test_predictions_that_do_not_fit(store: Path, landmarks: NDArray[np.float32], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="other_0"):
        evaluate(options(store, predictions=save(tmp_path / "a.npz", landmarks, tuple(f"other_{k}" for k in range(8)))))
    broken = landmarks.copy()
    broken[2, 5, 1] = np.nan
    with pytest.raises(InputError, match=r"face 2\.png"):
        evaluate(options(store, predictions=save(tmp_path / "b.npz", broken)))
    np.save(tmp_path / "c.npy", np.zeros((8, 98, 2)))
    with pytest.raises(InputError, match="98"):
        evaluate(options(store, predictions=tmp_path / "c.npy"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        evaluate(options(store, predictions=save(tmp_path / "d.npz", landmarks), report=tmp_path / "file"))
