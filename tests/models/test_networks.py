"""One contract for every architecture, and the heat map's share of the first convolution."""

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from example_networks import CASES, FEW, make_batch, make_mean_shape, make_model, small, trained_a_little
from torch import Tensor

from dhm_cli.config.networks import FastDhmConfig
from dhm_cli.config.recipes import ARCHS, find_recipe
from dhm_cli.config.training import TrainConfig
from dhm_cli.errors import InputError
from dhm_cli.models.checkpoint import load_checkpoint, save_checkpoint
from dhm_cli.models.fast_dhm import FastDhm
from dhm_cli.models.heatmaps import draw_heatmap
from dhm_cli.models.interface import Network
from dhm_cli.models.layers import FastRecurrentModule, SeparableBlock
from dhm_cli.models.registry import build_model, float32_bytes
from dhm_cli.morphable.toy import toy_face_model
from dhm_cli.training.losses import LOSSES, over_steps

# What the papers print; the others are held below DHM. Everything that inference needs is inside but the face model,
# whose 68 rows take 0.19 MB.
MEGABYTES = {"fast": 0.95, "fast-x2": 2.2, "rhg": 221.9, "dhm": 193.7, "dhm-vgg": 193.7, "3dcnn": 193.7, "2drnn": 193.7}
FACE_MODEL_MEGABYTES = 0.2


def case_id(case: tuple[str, dict[str, Any]]) -> str:
    return "-".join([case[0], *(str(value) for name, value in case[1].items() if name not in FEW)])


@pytest.fixture(params=CASES, ids=case_id)
def case(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return cast("tuple[str, dict[str, Any]]", request.param)


@pytest.fixture
def model(case: tuple[str, dict[str, Any]]) -> Network:
    return make_model(case[0], **case[1])


def loss_of(model: Network, images: Tensor, truth: Tensor) -> Tensor:
    output = model(images)
    loss = LOSSES["wing" if output.log_scale is None else "likelihood"]
    total = over_steps(loss(output, truth, model.config.input_size, TrainConfig()), "rising")
    if output.visibility is not None and output.confidence is not None:
        total = total + output.visibility.square().mean() + (output.confidence - 1).square().mean()
    return total


def test_every_step(model: Network) -> None:
    images, _ = make_batch(model.config.input_size)
    before = images.clone()
    output = model(images)
    landmarks = output.landmarks
    steps = model.config.steps + getattr(model.config, "closer_look", False)  # which is one guess more
    assert torch.equal(images, before)
    assert landmarks.shape == (4, steps, 68, 3)
    assert landmarks.dtype == torch.float32
    assert landmarks.isfinite().all()
    # Before any training: near the mean shape, placed as the test protocol places a face.
    size = model.config.input_size
    assert (landmarks - model.initial_landmarks).abs().max() < size / 4
    if model.config.target == "landmarks":
        assert output.parameters is None
    else:
        assert output.parameters.shape == (4, steps, 234)
    assert all((landmarks[:, t + 1] - landmarks[:, t]).abs().max() > 1e-3 for t in range(steps - 1))
    box = model.initial_landmarks[:, :2].amin(0), model.initial_landmarks[:, :2].amax(0)
    torch.testing.assert_close((box[0] + box[1]) / 2, torch.full((2,), (size - 1) / 2))
    assert (box[1] - box[0]).max().item() == pytest.approx(size / math.sqrt(2))


def test_a_gradient_reaches_every_parameter(model: Network) -> None:
    images, truth = make_batch(model.config.input_size)
    loss_of(model, images, truth).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    # both halves of the first convolution: the image's and the heat map's, where there is one
    stem = next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d))
    assert stem.weight.grad[:, :3].abs().max() > 0
    assert (stem.weight.grad[:, 3:].abs().sum() > 0) == (getattr(model.config, "heatmap", "none") != "none")


@pytest.mark.parametrize(
    ("arch", "changes", "loss", "unused"),
    [
        ("dhm", {"steps": 1}, "wing", {"recurrence.hidden.weight"}),
        ("dhm", {}, "wing", set()),
        ("rhg", {"steps": 1}, "wing", set()),
        ("3dcnn", {}, "wing", set()),
        ("fast", {"uncertainty": True, **FEW}, "wing", set()),
        ("fast", {**FEW}, "wing", set()),
    ],
)
def test_networks_know_which_parameters_get_no_gradient(
    arch: str, changes: dict[str, Any], loss: str, unused: set[str]
) -> None:
    model = make_model(arch, **changes)
    output = model(make_batch(64)[0])
    sum(part.sum() for part in output if part is not None and part.requires_grad).backward()
    assert set(model.unused_parameters(loss)) == unused
    assert {name for name, parameter in model.named_parameters() if parameter.grad is None} == unused


def test_a_few_steps_lower_the_loss(model: Network) -> None:
    images, truth = make_batch(model.config.input_size)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss = loss_of(model, images, truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1 * abs(losses[0])


def test_save_and_load_give_equal_output(
    case: tuple[str, dict[str, Any]], model: Network, tmp_path: Path, face_model: Path
) -> None:
    trained_a_little(model)
    images, _ = make_batch(model.config.input_size)
    save_checkpoint(tmp_path / "net.safetensors", model, case[0], {"note": 1})
    torch.manual_seed(99)
    again, metadata = load_checkpoint(tmp_path / "net.safetensors", face_model)
    assert not again.training
    assert metadata["arch"] == case[0]
    with torch.no_grad():
        assert torch.equal(again(images).landmarks, model(images).landmarks)


def test_loading_weights_brings_their_mean_shape(case: tuple[str, dict[str, Any]], model: Network) -> None:
    """A network made with another mean shape must not go on from that."""
    settings = replace(small(case[0]), **case[1])
    other = build_model(case[0], make_mean_shape() * torch.tensor([0.8, 1.0, 1.0]), settings, toy_face_model())
    other.load_state_dict(trained_a_little(model).state_dict())
    images, _ = make_batch(model.config.input_size)
    with torch.no_grad():
        assert torch.equal(other.eval()(images).landmarks, model(images).landmarks)


def test_a_wrong_input_size_names_the_right_one(model: Network) -> None:
    size = model.config.input_size
    for shape in ((1, 3, size + 8, size), (1, 6, size, size), (1, size, size, 3)):
        with pytest.raises(ValueError, match=rf"\(B, 3, {size}, {size}\)"):
            model(torch.zeros(shape))


@pytest.mark.parametrize(
    ("arch", "recipe"), [*((a, "best") for a in MEGABYTES), ("fast", "paper"), ("fast-x2", "paper")]
)
def test_size_on_disk(arch: str, recipe: str) -> None:
    """Float32, as the papers; our own Fast DHM networks are shipped in float16."""
    model = build_model(arch, make_mean_shape(), find_recipe(arch, recipe).network, toy_face_model())
    size = float32_bytes(model) / 1e6 / (2 if arch in ("fast", "fast-x2") and recipe == "best" else 1)
    assert MEGABYTES[arch] / 10 < size + FACE_MODEL_MEGABYTES * model.config.needs_face_model <= MEGABYTES[arch]


def test_the_file_holds_the_numbers_and_little_else(model: Network, case: tuple[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, model, case[0], {})
    assert 0 < path.stat().st_size - float32_bytes(model) < 40_000


def test_faces_of_a_batch_do_not_mix_at_inference(model: Network) -> None:
    trained_a_little(model)
    images, _ = make_batch(model.config.input_size)
    with torch.no_grad():
        together = model(images).landmarks
        changed = images.clone()
        changed[1:] = 0.3
        torch.testing.assert_close(model(changed).landmarks[0], together[0], atol=1e-4, rtol=0)
        for b in range(len(images)):
            torch.testing.assert_close(model(images[b : b + 1]).landmarks[0], together[b], atol=1e-4, rtol=0)
        assert (together[0] - together[1]).abs().max() > 1e-3


@pytest.mark.parametrize("size", [120, 64])
def test_heatmap_response_is_its_share_of_the_6_channel_convolution(size: int) -> None:
    torch.manual_seed(0)
    model = FastDhm(FastDhmConfig(input_size=size), make_mean_shape())
    images, _ = make_batch(size, 2)
    heat = draw_heatmap(model.initial_landmarks[None], size)
    torch.testing.assert_close(model.heatmap, heat)
    assert heat.amax() > 0.9
    both = torch.cat([images, heat.expand(2, -1, -1, -1)], dim=1)
    expected = torch.nn.functional.conv2d(both, model.stem.weight, stride=2, padding=1)
    image_only = torch.nn.functional.conv2d(images, model.stem.weight[:, :3], stride=2, padding=1)
    torch.testing.assert_close(image_only + model.heatmap_response(heat), expected, atol=1e-5, rtol=1e-5)

    seen: list[Tensor] = []
    model.stem_norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(images)
    torch.testing.assert_close(seen[0], expected.detach(), atol=1e-5, rtol=1e-5)


def test_the_heat_map_matters() -> None:
    model = trained_a_little(make_model("fast"))
    images, _ = make_batch(model.config.input_size)
    other = copy.deepcopy(model)
    other.heatmap.zero_()
    with torch.no_grad():
        assert (model(images).landmarks - other(images).landmarks).abs().max() > 1e-3


def same_weights(model: Network, **changes: Any) -> Network:
    """A network of few blocks and the same weights with other settings."""
    other = make_model("fast", **FEW, **changes)
    missing, unexpected = other.load_state_dict(model.state_dict(), strict=False)
    assert {name.split(".")[0] for name in [*missing, *unexpected]} <= {"doubts"}
    return other.eval()


def test_without_a_heat_map_only_the_image_counts() -> None:
    mean = trained_a_little(make_model("fast", **FEW))
    none = same_weights(mean, heatmap="none")
    images, _ = make_batch(64)
    with torch.no_grad():
        before = none(images).landmarks
        assert (before - mean(images).landmarks).abs().max() > 1e-3
        none.stem.weight[:, 3:] += 1
        none.redraw_heatmap()  # as after a checkpoint was loaded
        assert torch.equal(none(images).landmarks, before)


def test_uncertainty_is_told_beside_the_landmarks() -> None:
    model = trained_a_little(make_model("fast", uncertainty=True, **FEW))
    images, truth = make_batch(64)
    with torch.no_grad():
        landmarks, _, log_scale, visibility, confidence = model(images)
        expected = torch.full((4, model.config.steps, 68), math.log(0.05))
        torch.testing.assert_close(log_scale, expected, atol=0.2, rtol=0)  # at first
        assert visibility.shape == (4, 68, 3)
        assert confidence.shape == (4,)
        plain = same_weights(model)(images)
        with torch.autocast("cpu", torch.bfloat16):
            assert model(images).log_scale.dtype == torch.float32
    assert plain.log_scale is None
    assert torch.equal(plain.landmarks, landmarks)
    # Landmarks with larger errors learn to say so: here those of the jaw, among landmarks without any.
    truth = landmarks[:, -1].clone()
    truth[:, :17] += 20
    for _ in range(2):
        loss_of(model, images, truth).backward()
        with torch.no_grad():
            model.doubts.scale.bias -= 10 * model.doubts.scale.bias.grad
            told = model(images).log_scale.mean((0, 1))
    assert told[:17].min() > math.log(0.05) > told[17:].max()


def test_redraw_follows_the_mean_shape() -> None:
    model = make_model("fast")
    model.mean_shape.mul_(0.5)
    model.redraw_heatmap()
    torch.testing.assert_close(model.heatmap, draw_heatmap(model.initial_landmarks[None], model.config.input_size))
    assert "heatmap" not in model.state_dict()


def test_recurrence_of_equation_7() -> None:
    torch.manual_seed(0)
    module = FastRecurrentModule(8).double()
    features = torch.randn(2, 8, 4, 4, dtype=torch.float64)

    def depthwise(x: Tensor, layer: torch.nn.Conv2d) -> Tensor:
        padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
        kernel = layer.weight.detach().numpy()[:, 0]
        total = sum(
            padded[:, :, i : i + 4, j : j + 4] * kernel[:, i, j, None, None] for i in range(3) for j in range(3)
        )
        bias = 0 if layer.bias is None else layer.bias.detach().numpy()[:, None, None]
        return torch.from_numpy(total + bias)

    def pointwise(x: Tensor, layer: torch.nn.Conv2d) -> Tensor:
        mixed = torch.einsum("oc,bchw->bohw", layer.weight.detach()[:, :, 0, 0], x)
        return mixed if layer.bias is None else mixed + layer.bias.detach()[:, None, None]

    f, h = features, pointwise(features, module.initial)
    with torch.no_grad():
        states = module(features, 3)
    assert len(states) == 3
    for state in states:
        h = torch.tanh(
            depthwise(f, module.input_depthwise)
            + depthwise(pointwise(h, module.hidden_pointwise), module.hidden_depthwise)
        )
        f = f + h
        torch.testing.assert_close(state, f)


def test_both_widths() -> None:
    narrow, wide = (find_recipe(arch, "paper").network for arch in ("fast", "fast-x2"))
    assert isinstance(narrow, FastDhmConfig)
    assert isinstance(wide, FastDhmConfig)
    assert wide == replace(narrow, cnn_width=2 * narrow.cnn_width, head_rank=wide.head_rank)
    half, double = (
        build_model("fast", make_mean_shape(), FastDhmConfig(**{f"{part}_width": width}))
        for part, width in (("recurrent", 0.5), ("cnn", 2.0))
    )
    assert half.recurrent.initial.weight.shape == (32, 32, 1, 1)
    assert double.stem.weight.shape[0] == 32
    assert double.recurrent.initial.weight.shape == (64, 64, 1, 1)


def test_separable_block() -> None:
    """Against convolutions written as sums, with and without the middle activation; the skip where shapes agree."""
    torch.manual_seed(0)
    x = torch.randn(2, 16, 7, 7, dtype=torch.float64)
    for kernel, stride, middle in ((3, 1, True), (5, 2, False), (5, 1, False)):
        block = SeparableBlock(16, 16, stride, kernel, middle).double().eval()
        with torch.no_grad():
            windows = torch.nn.functional.pad(x, [kernel // 2] * 4).unfold(2, kernel, stride).unfold(3, kernel, stride)
            y = torch.einsum("bchwij,cij->bchw", windows, block.depthwise.weight[:, 0])
            if middle:
                y = torch.relu(block.depthwise_norm(y))
            y = block.pointwise_norm(torch.einsum("bchw,oc->bohw", y, block.pointwise.weight[:, :, 0, 0]))
            torch.testing.assert_close(block(x), torch.relu(y + x) if stride == 1 else torch.relu(y))
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in SeparableBlock(16, 16).modules()) == 2
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in block.modules()) == 1


def test_checkpoints_of_before_have_a_middle_activation() -> None:
    values = find_recipe("fast").network.to_json()
    for name in ("middle_activation", "feature_stride", "heatmap", "uncertainty", "closer_look"):
        del values[name]
    config = FastDhmConfig.from_json(values)
    assert (config.middle_activation, config.feature_stride) == (True, 2)
    assert (config.heatmap, config.uncertainty, config.closer_look) == ("mean", False, False)


def test_unknown_architecture_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="'slow'") as caught:
        build_model("slow", make_mean_shape())
    assert all(name in caught.value.hint for name in ARCHS)


@pytest.mark.parametrize("arch", ARCHS)
def test_settings_survive_json(arch: str) -> None:
    config = find_recipe(arch).network
    assert type(config).from_json(json.loads(json.dumps(config.to_json()))) == config


def test_p_gives_the_landmarks_by_equation_2() -> None:
    """p is that of the 300W-LP files for the crop as an image; the landmarks' depth has zero mean."""
    model = make_model("dhm", rotation="euler")
    torch.nn.init.normal_(model.update.weight, std=0.1)  # far from the mean face, in every number
    with torch.no_grad():
        landmarks, p, *_ = model(make_batch(64)[0])
    assert p is not None
    expected = toy_face_model().landmarks(p.flatten(0, 1), 64.0).unflatten(0, p.shape[:2])
    expected[..., 2] -= expected[..., 2].mean(-1, keepdim=True)
    torch.testing.assert_close(landmarks, expected, atol=1e-3, rtol=0)
    assert (p[:, -1, 1:4].abs().amax(0) > 0.1).all()
    assert (landmarks - model.initial_landmarks).abs().max() > 8


@pytest.mark.parametrize("heatmap", ["evolving", "initial"])
def test_autocast_does_not_round_where_the_first_heat_map_is_drawn(heatmap: str) -> None:
    """Bfloat16 has 8 bits: landmarks would be a quarter of a pixel off."""
    model = make_model("dhm", heatmap=heatmap, steps=1)
    drawn: list[Tensor] = []
    model.features.register_forward_pre_hook(lambda _, inputs: drawn.append(inputs[1]))
    images, _ = make_batch(64)
    with torch.no_grad():
        for enabled in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                assert model(images).landmarks.dtype == torch.float32
    assert torch.equal(*drawn)
