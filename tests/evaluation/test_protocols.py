"""Where networks look, and that the way there and back loses nothing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scored_faces import NAMES, blob_centres, make_labels, write_scored_store

from dhm_cli.data.store import FaceLabels
from dhm_cli.evaluation.ground_truth import GroundTruth, load_ground_truth
from dhm_cli.evaluation.network_landmarks import predict_faces
from dhm_cli.evaluation.protocols import JITTER_HEADLINE, JITTERS, Protocol, make_protocol
from dhm_cli.inference.engines import Answer
from dhm_cli.inference.face_box import FaceBox, crop_square_from_box
from dhm_cli.inference.yunet import FaceDetector
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.runtime.progress import Progress, silent
from dhm_cli.runtime.unfinished import Unfinished

NOTHING = Unfinished(None, {})
BLACK = np.zeros((200, 200, 3), np.uint8)


class Function:
    """A stand-in for a network: any function of the crops."""

    arch, input_size, weights_hash, doubts = "none", 96, "0", False
    mean_shape = np.zeros((68, 3))

    def __init__(self, run: Callable[[NDArray[np.uint8]], NDArray[np.floating]]) -> None:
        self._run = run

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._run(crops).astype(np.float32)

    def answer(self, crops: NDArray[np.uint8]) -> Answer:
        return Answer(self(crops))


@pytest.fixture(scope="module")
def labels(toy_model: FaceModel) -> FaceLabels:
    return make_labels(toy_model)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory, labels: FaceLabels) -> GroundTruth:
    return load_ground_truth(write_scored_store(tmp_path_factory.mktemp("store") / "faces.h5", labels))


def predict(
    engine: Function,
    truth: GroundTruth,
    protocol: Protocol,
    refine: int,
    threads: int,
    unfinished: Unfinished,
    progress: Progress = silent,
) -> NDArray[np.float32]:
    """Landmarks by one network that looks first too."""
    return predict_faces(engine, engine, truth, protocol, (refine,), threads, unfinished, progress).landmarks


def protocol_of(name: str, labels: FaceLabels) -> Protocol:
    return make_protocol(name, labels.landmarks, labels.names)


def test_paper_is_the_true_box_squared_times_root_two() -> None:
    landmarks = np.full((1, 68, 3), 50.0)
    landmarks[0, 0, :2], landmarks[0, 1, :2] = (10.0, 20.0), (70.0, 60.0)
    ((centre, side),) = make_protocol("paper", landmarks, ["a"])(0, BLACK)
    assert centre.tolist() == [40.0, 40.0]
    assert side == pytest.approx(60 * 2**0.5)


def test_the_way_through_crop_and_back_costs_less_than_a_thousandth_of_a_pixel(
    truth: GroundTruth, labels: FaceLabels
) -> None:
    # The resize rule, worked out apart from the code that crops.
    points = labels.landmarks.astype(np.float64)
    low, high = points[..., :2].min(axis=1), points[..., :2].max(axis=1)
    factor = 96 / ((high - low).max(axis=1) * 2**0.5)
    in_crop = points * factor[:, None, None]
    in_crop[..., :2] += 47.5 - ((low + high) / 2 * factor[:, None])[:, None]
    found = predict(Function(lambda _: in_crop), truth, protocol_of("paper", labels), 0, 1, NOTHING)
    assert np.abs(found[0] - labels.landmarks).max() < 1e-3


@pytest.mark.parametrize("protocol", ["paper", "jitter"])
def test_what_is_seen_in_the_crop_lies_there_in_the_image(
    protocol: str, truth: GroundTruth, labels: FaceLabels
) -> None:
    def centre_of_light(crops: NDArray[np.uint8]) -> NDArray[np.float64]:
        light = crops[..., 0].astype(np.float64)
        y, x = np.mgrid[:96, :96]
        weight = light.sum(axis=(1, 2))
        found = np.stack([(light * x).sum(axis=(1, 2)) / weight, (light * y).sum(axis=(1, 2)) / weight], axis=1)
        return np.concatenate([np.repeat(found[:, None], 68, axis=1), np.zeros((len(crops), 68, 1))], axis=2)

    found = predict(Function(centre_of_light), truth, protocol_of(protocol, labels), 0, 1, NOTHING)
    # Where the crop cuts off part of the light (boxes off by more than a tenth), its centre is elsewhere.
    near = [k for k, jitter in enumerate(JITTERS) if jitter.level <= 0.1][: len(found)]
    error = np.linalg.norm(found[near][..., 0, :2] - blob_centres(labels), axis=-1)
    assert error.max() < 0.05


def test_refining_crops_around_what_was_found(truth: GroundTruth, labels: FaceLabels) -> None:
    sizes = []

    def fixed(crops: NDArray[np.uint8]) -> NDArray[np.float64]:
        sizes.append(len(crops))
        points = np.zeros((len(crops), 68, 3))
        points[:, :, 0] = np.linspace(24, 72, 68)  # half as wide as the crop: each pass narrows by 1 / sqrt(2)
        points[:, :, 1] = np.linspace(40, 56, 68)
        return points

    widths = [
        np.ptp(predict(Function(fixed), truth, protocol_of("paper", labels), refine, 1, NOTHING)[0, 0, :, 0])
        for refine in (0, 1, 2)
    ]
    assert sizes == [8] * 10  # the scout twice, and one more pass where a crop was so far off
    ratio = 48 / 96 * 2**0.5
    assert widths[1] / widths[0] == pytest.approx(ratio**2, rel=1e-3)
    assert widths[2] / widths[1] == pytest.approx(ratio, rel=1e-3)


def test_the_detected_box_nearest_to_the_truth_is_taken(labels: FaceLabels, monkeypatch: pytest.MonkeyPatch) -> None:
    left, top, width, height = labels.box[2].tolist()
    near = FaceBox(left + 4, top - 3, width, height, 0.7)
    large = FaceBox(left + 60, top, 2 * width, 2 * height, 0.99)
    monkeypatch.setattr(FaceDetector, "detect", lambda self, image: [large, near])
    ((centre, side),) = protocol_of("detector", labels)(2, BLACK)
    expected = crop_square_from_box(near)
    np.testing.assert_array_equal(centre, expected[0])
    assert side == expected[1]


def test_a_face_without_a_box_is_missing_and_the_others_are_not(
    truth: GroundTruth, labels: FaceLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = protocol_of("detector", labels)
    order = iter(range(8))
    monkeypatch.setattr(
        FaceDetector, "detect", lambda self, image: [] if next(order) in (0, 5) else [FaceBox(50, 50, 80, 90, 0.9)]
    )
    engine = Function(lambda crops: np.ones((len(crops), 68, 3)))
    found = predict(engine, truth, protocol, 1, 1, NOTHING)
    assert found.shape == (1, 8, 68, 3)
    assert np.flatnonzero(np.isnan(found[0]).all(axis=(1, 2))).tolist() == [0, 5]
    assert np.isfinite(found[0][[1, 2, 3, 4, 6, 7]]).all()


def test_no_face_found_in_any_image(truth: GroundTruth, labels: FaceLabels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaceDetector, "detect", lambda self, image: [])
    engine = Function(lambda crops: np.ones((len(crops), 68, 3)))
    assert np.isnan(predict(engine, truth, protocol_of("detector", labels), 1, 1, NOTHING)).all()


def test_jitter_stays_within_its_level_and_reaches_it(labels: FaceLabels) -> None:
    landmarks = np.repeat(labels.landmarks, 60, axis=0)
    names = [f"{k}.jpg" for k in range(len(landmarks))]
    paper, jitter = make_protocol("paper", landmarks, names), make_protocol("jitter", landmarks, names)
    moves = []
    for face in range(len(landmarks)):
        centre, side = paper(face, BLACK)[0] or (np.zeros(2), 1.0)
        squares = [square for square in jitter(face, BLACK) if square]
        moves.append([[*((c - centre) / side), s / side - 1] for c, s in squares])
    moved = np.abs(moves)
    for jitter_of, move in zip(JITTERS, moved.transpose(1, 0, 2), strict=True):
        level = jitter_of.level
        assert move.max() <= level + 1e-9
        for kind, part in (("shift", move[:, :2]), ("scale", move[:, 2:])):
            if level and jitter_of.kind in (kind, "both"):
                assert part.max() > 0.97 * level
                assert part.mean() == pytest.approx(level / 2, rel=0.1)  # uniform
            else:
                assert part.max() == pytest.approx(0.0, abs=1e-12)


def test_jitter_of_a_face_depends_on_its_name_only(labels: FaceLabels) -> None:
    first = protocol_of("jitter", labels)(2, BLACK)
    alone = make_protocol("jitter", labels.landmarks[2:3], [NAMES[2]])(0, BLACK)
    other = make_protocol("jitter", labels.landmarks[2:3], ["another"])(0, BLACK)
    same = [a[1] == b[1] for a, b in zip(first, alone, strict=True) if a and b]
    assert len(same) == len(JITTERS)
    assert all(same)
    assert first[JITTER_HEADLINE] is not None
    assert other[JITTER_HEADLINE] is not None
    assert first[JITTER_HEADLINE][1] != other[JITTER_HEADLINE][1]
    assert (JITTERS[JITTER_HEADLINE].kind, JITTERS[JITTER_HEADLINE].level) == ("both", 0.1)


def test_an_interrupted_run_goes_on_where_it_was(truth: GroundTruth, labels: FaceLabels, tmp_path: Path) -> None:
    many = truth
    for _ in range(5):  # 256 faces, 16 pieces of work
        rows = np.concatenate([many.rows, many.rows])
        many = GroundTruth(many.store, many.split, many.label_set, rows, many.store.labels.take(rows))
    protocol = make_protocol("paper", many.faces.landmarks, many.faces.names)
    calls = []

    def network(crops: NDArray[np.uint8]) -> NDArray[np.float64]:
        calls.append(len(crops))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return np.full((len(crops), 68, 3), crops.mean(axis=(1, 2, 3))[:, None, None])

    kept = tmp_path / "kept.npz"
    key = {"network": "a"}
    with pytest.raises(KeyboardInterrupt):
        predict(Function(network), many, protocol, 0, 1, Unfinished(kept, key))
    begun = len(calls)  # the piece after the failing one may have begun
    seen: list[int] = []
    found = predict(
        Function(network), many, protocol, 0, 1, Unfinished(kept, key), lambda _, done, __: seen.append(done)
    )
    assert len(calls) - begun == 14
    assert seen == [32, *range(48, 257, 16)]
    whole = predict(Function(network), many, protocol, 0, 2, NOTHING)
    np.testing.assert_array_equal(found, whole)
    # Another network, or a damaged file, begins anew.
    calls.clear()
    predict(Function(lambda crops: np.zeros((len(crops), 68, 3))), many, protocol, 0, 1, Unfinished(kept, {"b": 1}))
    kept.write_bytes(kept.read_bytes()[:500])
    again = predict(Function(lambda crops: np.ones((len(crops), 68, 3))), many, protocol, 0, 1, Unfinished(kept, key))
    assert np.ptp(again[0, :, 0, 2]) > 0  # every face was worked on, each with its own scale
