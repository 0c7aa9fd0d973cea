"""What a training minimises: which loss, what a teacher shows, the face model's prior."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dhm_cli.config.networks import DhmConfig, FastDhmConfig
from dhm_cli.config.training import TrainConfig
from dhm_cli.data.batches import Batch
from dhm_cli.errors import InputError
from dhm_cli.models.checkpoint import save_checkpoint
from dhm_cli.models.interface import AlignmentOutput
from dhm_cli.models.registry import build_model
from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.morphable.parameters import LAYOUT
from dhm_cli.training.losses import (
    LOSSES,
    coefficient_prior,
    confidence_loss,
    l1_loss,
    likelihood_loss,
    over_steps,
    squared_loss,
    visibility_loss,
    wing_loss,
)
from dhm_cli.training.objective import Objective, Teacher

CONFIG = TrainConfig()
SIDE = 32


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


TRUTH = SIDE * random(2, 68, 3)
OUTPUT = AlignmentOutput(SIDE * random(2, 3, 68, 3, seed=1), log_scale=random(2, 3, 68, seed=5) - 3)


def batch_of(truth: Tensor, faces: list[bool] | None = None, codes: Tensor | None = None) -> Batch:
    """Labels of a step; the crops are not looked at."""
    return Batch(
        torch.empty(0),
        truth,
        torch.arange(len(truth)),
        torch.zeros(len(truth), 68, dtype=torch.uint8) if codes is None else codes,
        torch.ones(len(truth), dtype=torch.bool) if faces is None else torch.tensor(faces),
    )


IMAGES = 2 * random(2, 3, SIDE, SIDE, seed=2) - 1


def save_teacher(path: Path, size: int, answer: Tensor | None = None) -> Path:
    """A `fast` of the given input size; with `answer` it gives these (68, 3) crop pixels whatever it sees."""
    torch.manual_seed(size)
    config = FastDhmConfig(size, blocks=((16, 2),), recurrent_channels=16, head_rank=8)
    network = build_model("fast", random(68, 3) - 0.5, config)
    if answer is not None:
        with torch.no_grad():
            network.head[2].weight.zero_()
            network.head[2].bias.copy_(((answer - network.initial_landmarks) / size).flatten())
    save_checkpoint(path, network, "fast", {})
    return path


CHOSEN = replace(CONFIG, wing_width=0.1, wing_curvature=0.03, depth_weight=0.7)


@pytest.mark.parametrize("weights", ["rising", "equal", "last"])
def test_the_loss_is_the_recipes(weights: str) -> None:
    both = OUTPUT.landmarks, TRUTH, SIDE
    expected = {
        "wing": wing_loss(*both, depth_weight=0.7, wing_width=0.1, wing_curvature=0.03),
        "l1": l1_loss(*both, depth_weight=0.7),
        "likelihood": likelihood_loss(*both, log_scale=OUTPUT.log_scale, depth_weight=0.7),
        "squared": squared_loss(*both, depth_weight=0.7),
    }
    said = {}
    for loss, losses in expected.items():
        config = replace(CHOSEN, loss=loss, step_weights=weights)
        said[loss] = Objective(config, SIDE, None, None)(OUTPUT, batch_of(TRUTH), IMAGES).item()
        assert said[loss] == over_steps(losses, weights).item(), loss
    assert len(set(said.values())) == len(expected)


def test_every_loss_of_the_list_can_be_chosen() -> None:
    values = {
        Objective(replace(CHOSEN, loss=name), SIDE, None, None)(OUTPUT, batch_of(TRUTH), IMAGES).item()
        for name in LOSSES
    }
    assert len(values) == len(LOSSES)


def test_the_prior_is_added_for_networks_of_parameters(toy_model: FaceModel) -> None:
    p = random(2, 3, 234, seed=3)
    p[..., LAYOUT["identity"]] *= toy_model.identity_std
    p[..., LAYOUT["expression"]] *= toy_model.expression_std
    objective = Objective(replace(CONFIG, prior_weight=0.5), SIDE, toy_model, None)
    without, with_p = (
        objective(output, batch_of(TRUTH), IMAGES).item() for output in (OUTPUT, OUTPUT._replace(parameters=p))
    )
    prior = coefficient_prior(p, toy_model.identity_std, toy_model.expression_std).item()
    assert prior == pytest.approx(1 / 3, rel=0.1)  # of uniform numbers from 0 to 1
    assert with_p - without == pytest.approx(0.5 * prior, rel=1e-4)
    unweighted = Objective(CONFIG, SIDE, toy_model, None)
    assert unweighted(OUTPUT._replace(parameters=p), batch_of(TRUTH), IMAGES).item() == without


@pytest.mark.parametrize("size", [32, 64, 40, 16 * 3])
def test_a_teachers_landmarks_arrive_in_the_students_pixels(tmp_path: Path, size: int) -> None:
    """Where a teacher of any size sees the corners and the middle of its crop, the student has its own."""
    marks = torch.zeros(68, 3)
    marks[0, :2] = -0.5  # the outer edges of the first and the last pixel
    marks[1, :2] = size - 0.5
    marks[2, :2] = (size - 1) / 2
    marks[3] = torch.tensor([size / 4 - 0.5, size / 2 - 0.5, size / 8])
    teacher = Teacher(save_teacher(tmp_path / "teacher", size, marks), None)
    landmarks = teacher(IMAGES)
    assert landmarks.shape == (2, 68, 3)
    assert not landmarks.requires_grad
    expected = [
        [-0.5, -0.5, 0.0], [31.5, 31.5, 0.0], [15.5, 15.5, 0.0], [7.5, 15.5, 4.0],
    ]  # fmt: skip
    for face in landmarks:
        torch.testing.assert_close(face[:4], torch.tensor(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [32, 64])
def test_a_teacher_sees_the_students_crops(tmp_path: Path, size: int) -> None:
    teacher = Teacher(save_teacher(tmp_path / "teacher", size), None).train()
    seen: list[Tensor] = []
    teacher.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    flat = torch.full((1, 3, SIDE, SIDE), 0.25)
    flat[:, :, : SIDE // 2] = -0.75
    teacher(flat)
    assert seen[0].shape == (1, 3, size, size)
    assert seen[0][0, :, 0, 0].tolist() == pytest.approx([-0.75] * 3)
    assert seen[0][0, :, -1, -1].tolist() == pytest.approx([0.25] * 3)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    teacher(IMAGES)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())  # batch norms too


def test_distillation_is_the_same_loss_against_the_teacher(tmp_path: Path) -> None:
    marks = SIDE * random(68, 3, seed=4)
    teacher = Teacher(save_teacher(tmp_path / "teacher", SIDE, marks), None)
    config = replace(CONFIG, distillation_weight=0.3)
    plain = Objective(config, SIDE, None, None)
    labels = plain(OUTPUT, batch_of(TRUTH), IMAGES).item()
    shown = plain(OUTPUT, batch_of(marks.expand(2, -1, -1)), IMAGES).item()
    both = Objective(config, SIDE, None, teacher)(OUTPUT, batch_of(TRUTH), IMAGES).item()
    assert both == pytest.approx(labels + 0.3 * shown, rel=1e-4)


def test_no_gradient_reaches_a_teacher(tmp_path: Path) -> None:
    teacher = Teacher(save_teacher(tmp_path / "teacher", SIDE), None)
    objective = Objective(CONFIG, SIDE, None, teacher)
    predicted = OUTPUT.landmarks.clone().requires_grad_()
    objective(AlignmentOutput(predicted), batch_of(TRUTH), IMAGES).backward()
    assert predicted.grad is not None
    assert all(p.grad is None and not p.requires_grad for p in objective.parameters())


def test_a_teacher_of_parameters_needs_its_face_model(tmp_path: Path, toy_model: FaceModel) -> None:
    config = DhmConfig(input_size=40, channels=(16, 16), hidden=16)
    save_checkpoint(tmp_path / "dhm", build_model("dhm", random(68, 3), config, toy_model), "dhm", {})
    toy_model.save(tmp_path / "face_model.h5")
    teacher = Teacher(tmp_path / "dhm", tmp_path / "face_model.h5")
    assert teacher(IMAGES).shape == (2, 68, 3)
    replace(toy_model, mean=toy_model.mean * 2).save(tmp_path / "other.h5")
    with pytest.raises(InputError, match=r"trained with face model .* but .*other\.h5"):
        Teacher(tmp_path / "dhm", tmp_path / "other.h5")
    with pytest.raises(InputError, match="no such checkpoint"):
        Teacher(tmp_path / "missing", None)


DOUBTING = OUTPUT._replace(visibility=random(2, 68, 3, seed=6), confidence=random(2, seed=7))


def test_what_a_network_tells_of_itself_is_learned_beside_its_landmarks() -> None:
    codes = torch.randint(0, 4, (2, 68), generator=torch.Generator().manual_seed(8)).to(torch.uint8)
    batch = batch_of(TRUTH, codes=codes)
    assert DOUBTING.visibility is not None
    assert DOUBTING.confidence is not None
    extra = visibility_loss(DOUBTING.visibility, codes)
    extra = extra + confidence_loss(DOUBTING.confidence, batch.faces, DOUBTING.landmarks[:, -1], TRUTH)
    for loss in ("likelihood", "wing"):
        config = replace(CONFIG, loss=loss, doubts_weight=0.3)
        alone, both = (Objective(config, SIDE, None, None)(out, batch, IMAGES).item() for out in (OUTPUT, DOUBTING))
        expected = extra
        if loss == "wing":  # sigma has no other teacher then
            assert OUTPUT.log_scale is not None
            expected = extra + likelihood_loss(OUTPUT.landmarks, TRUTH, SIDE, OUTPUT.log_scale, 0.5)[-1]
        assert both - alone == pytest.approx(0.3 * expected.item(), rel=1e-4)


def test_sigma_does_not_move_landmarks_that_another_loss_teaches() -> None:
    predicted = OUTPUT.landmarks.clone().requires_grad_()
    gradients = []
    for output in (OUTPUT, DOUBTING):
        predicted.grad = None
        Objective(CONFIG, SIDE, None, None)(output._replace(landmarks=predicted), batch_of(TRUTH), IMAGES).backward()
        assert predicted.grad is not None
        gradients.append(predicted.grad.clone())
    torch.testing.assert_close(*gradients)


def test_pictures_without_a_face_teach_the_confidence_alone() -> None:
    config = replace(CONFIG, not_face_share=0.5)
    nonsense = TRUTH.clone()
    nonsense[1] = 0.0
    predicted, confidence = OUTPUT.landmarks.clone().requires_grad_(), torch.zeros(2, requires_grad=True)
    output = DOUBTING._replace(landmarks=predicted, confidence=confidence)
    Objective(config, SIDE, None, None)(output, batch_of(nonsense, [True, False]), IMAGES).backward()
    assert predicted.grad is not None
    assert confidence.grad is not None
    assert predicted.grad[0].abs().sum() > 0
    assert predicted.grad[1].abs().sum() == 0
    assert confidence.grad[1] > 0  # less of it


def test_confidence_is_of_faces_whose_error_is_below_six_percent() -> None:
    square = torch.zeros(4, 68, 3)
    square[:, 1::2, :2] = 100.0  # face size 100
    near, far = square + torch.tensor([5.9, 0.0, 0.0]), square + torch.tensor([6.1, 0.0, 0.0])
    found = torch.stack([near[0], far[0], near[0], near[0]])
    faces = torch.tensor([True, True, False, True])
    sure = torch.tensor([20.0, -20.0, -20.0, 20.0])
    assert confidence_loss(sure, faces, found, square).item() < 1e-6
    assert confidence_loss(-sure, faces, found, square).item() == pytest.approx(20.0)


def test_landmarks_without_a_mark_do_not_teach_visibility() -> None:
    logits = torch.zeros(1, 68, 3)
    logits[0, 0] = torch.tensor([9.0, 0.0, 0.0])
    codes = torch.zeros(1, 68, dtype=torch.uint8)
    assert visibility_loss(logits, codes).item() == 0.0
    codes[0, 0] = 1  # visible, as was said
    assert visibility_loss(logits, codes).item() < 1e-3
    codes[0, 0] = 3  # self-occluded, which was not
    assert visibility_loss(logits, codes).item() == pytest.approx(9.0, abs=1e-3)
