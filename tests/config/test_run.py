"""Settings of a run: what the recipes say, and what a file and flags change."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from dhm_cli.config.networks import DhmConfig, FastDhmConfig
from dhm_cli.config.recipes import ARCHITECTURES, ARCHS, RECIPES, find_recipe
from dhm_cli.config.run import RunSettings, resolve
from dhm_cli.config.toml import read_toml, write_toml
from dhm_cli.config.training import AugmentationConfig, TrainConfig
from dhm_cli.errors import InputError

EVERY = [(arch, recipe) for arch in ARCHS for recipe in RECIPES if getattr(ARCHITECTURES[arch], recipe) is not None]
AUGMENTATION = AugmentationConfig.rules()


def error(*arguments: Any, file_name: str = "run.toml") -> InputError:
    """What `resolve` says."""
    with pytest.raises(InputError) as caught:
        resolve(*arguments, file_name=file_name)
    return caught.value


def test_unknown_names() -> None:
    assert "unknown architecture 'dmh'" in error("dmh", None, None, {}).message
    assert "unknown recipe 'papers'" in error("dhm", "papers", None, {}).message


@pytest.mark.parametrize(("arch", "recipe"), EVERY)
def test_without_changes_it_is_the_recipe(arch: str, recipe: str) -> None:
    settings = resolve(arch, recipe, None, {"batch": None})
    assert settings == RunSettings(arch, recipe, find_recipe(arch, recipe).network, find_recipe(arch, recipe).training)


def test_flags_go_before_the_file_and_the_file_before_the_recipe() -> None:
    file = {
        "arch": "dhm",
        "recipe": "paper",
        "data": ["a.h5"],
        "network": {"hidden": 512, "target": "landmarks"},
        "training": {"batch": 16, "learning_rate": 1, "augmentation": {"mirror": 1}},
    }
    c = resolve(None, None, file, {"batch": 8, "hidden": 256, "target": None})
    assert (c.arch, c.recipe, c.data) == ("dhm", "paper", ("a.h5",))
    assert (c.training.batch, c.training.learning_rate, c.training.decay) == (8, 1.0, 0.95)
    assert type(c.training.learning_rate) is float
    assert c.training.augmentation == AugmentationConfig(**{**dict.fromkeys(AUGMENTATION, 0.0), "mirror": 1.0})
    assert c.network == replace(find_recipe("dhm").network, rotation="euler", hidden=256, target="landmarks")
    assert file["training"]["augmentation"] == {"mirror": 1}  # inputs are never changed

    assert resolve(None, "best", file, {"data": ["b.h5=2", "c.h5"]}).data == ("b.h5=2", "c.h5")
    assert resolve(None, None, file, {"data": []}).data == ("a.h5",)
    assert resolve(None, "best", file, {}).training == replace(
        find_recipe("dhm", "best").training,
        batch=16,
        learning_rate=1.0,
        augmentation=replace(AugmentationConfig(), mirror=1.0),
    )
    assert resolve(None, None, {}, {}) == resolve("fast", "best", None, {})


def test_another_architecture_than_the_file_is_for() -> None:
    assert resolve("rhg", None, {"arch": "dhm", "training": {"batch": 4}}, {}).arch == "rhg"
    said = error("rhg", None, {"arch": "dhm", "network": {"hidden": 64}}, {})
    assert said.message == "--arch rhg, but run.toml: [network] is of dhm"
    assert resolve("dhm", None, {"arch": "dhm", "network": {"hidden": 64}}, {}).network.hidden == 64


@pytest.mark.parametrize("arch", ["fast", "dhm"])
def test_steps_and_epochs_clear_each_other(arch: str) -> None:
    def length(file: dict[str, Any], flags: dict[str, Any]) -> tuple[int | None, float | None]:
        c = resolve(arch, None, {"training": file}, flags).training
        return c.steps, c.epochs

    assert length({}, {"steps": 10}) == (10, None)
    assert length({}, {"epochs": 3}) == (None, 3.0)
    assert length({"epochs": 2}, {"steps": 10}) == (10, None)
    assert length({"steps": 2}, {"epochs": 0.5}) == (None, 0.5)
    assert length({"steps": 2}, {"batch": 2}) == (2, None)
    assert error(arch, None, None, {"steps": 1, "epochs": 1}).message.startswith("--steps and --epochs")
    said = error(arch, None, {"training": {"steps": 1, "epochs": 1}}, {"steps": 3})
    assert said.message.startswith("run.toml: training.steps and training.epochs")
    with pytest.raises(InputError, match="one of steps and epochs"):
        RunSettings(arch, "best", find_recipe(arch, "best").network, TrainConfig(steps=5, epochs=5))


def test_targets() -> None:
    for arch in ("fast", "fast-x2", "2drnn"):
        said = error(arch, None, None, {"target": "params"})
        assert (
            said.message == f"--target is 'params': expected landmarks, which is all that {arch} regresses in its paper"
        )
        said = error(arch, None, {"network": {"target": "params"}}, {})
        assert said.message.startswith("run.toml: network.target is 'params'")
        assert resolve(arch, None, None, {"target": "landmarks"}) == resolve(arch, None, None, {})
    assert resolve("rhg", None, None, {"target": "landmarks"}).network == replace(
        find_recipe("rhg").network, target="landmarks"
    )
    assert "one of params, landmarks" in error("dhm", None, None, {"target": "points"}).message


@pytest.mark.parametrize(
    ("arch", "file", "flags", "message", "hint"),
    [
        ("dhm", {}, {"learning_rat": 1}, "--learning-rat: no such", "did you mean --learning-rate?"),
        ("dhm", {}, {"jpeg": 1}, "--jpeg: no such", "known are: --input-size, "),
        ("dhm", {}, {"cnn_width": 2}, "--cnn-width: no such setting of dhm", "it is a setting of fast, fast-x2"),
        ("dhm", {"trainin": {}}, {}, "run.toml: trainin: no such", "did you mean training?"),
        ("dhm", {"training": {"bach": 4}}, {}, "run.toml: training.bach: no such", "did you mean training.batch?"),
        ("dhm", {"network": {"chanels": [16]}}, {}, "network.chanels: no such", "did you mean network.channels?"),
        ("fast", {"network": {"lstm": True}}, {}, "network.lstm: no such", "known are: network.input_size, "),
        (
            "fast",
            {"training": {"augmentation": {"flip": 1}}},
            {},
            "run.toml: training.augmentation.flip: no such",
            "training.augmentation.mirror",
        ),
    ],
)
def test_unknown_settings(arch: str, file: dict[str, Any], flags: dict[str, Any], message: str, hint: str) -> None:
    said = error(arch, None, file, flags)
    assert message in said.message
    assert hint in said.hint


# A setting, values that will not do, words of the message, and values that will.
CASES: list[tuple[str, list[Any], str, list[Any]]] = [
    ("batch", [1, 0, -5, 2.0, "8", True, [8]], "an integer from 2", [2, 1024]),
    ("steps", [0, 1.5, True], "an integer from 1", [1]),
    ("epochs", [0, -1, "5", float("nan"), float("inf"), True], "a number above 0", [0.1, 60]),
    ("optimiser", ["sgd", "Adam", 1], "one of muon, adamw, adam, rmsprop", ["muon", "adam", "rmsprop"]),
    ("learning_rate", [0, -1e-3, True, "1e-3", float("nan"), 10**400], "a number above 0", [1e-9, 1]),
    ("schedule", ["step"], "one of cosine, exponential, milestones", ["cosine"]),
    ("decay", [0, 1.1], "a number above 0 and at most 1", [0.5, 1]),
    ("decay_steps", [0], "an integer from 1", [10]),
    ("decay_epochs", [5, [0], [5, 5], [9, 3], [1.5]], "rising epochs", [[], [5, 15, 30]]),
    ("final_learning_rate", [-1], "at least 0", [0, 1e-4]),
    ("warmup", [-1, 0.5], "an integer from 0", [0]),
    ("weight_decay", [-0.1], "at least 0", [0]),
    ("ema", [1, 1.0, -0.1], "at least 0 and below 1", [0, 0.9999]),
    ("gradient_norm", [-1], "at least 0", [0]),
    ("loss", ["l2", "soft_wing"], "one of wing, l1, likelihood, squared", ["squared", "l1"]),
    ("step_weights", ["first"], "one of rising, equal, last", ["equal", "last"]),
    ("depth_weight", [-1], "at least 0", [0]),
    ("wing_width", [0], "above 0", [0.1]),
    ("wing_curvature", [0], "above 0", [0.1]),
    ("prior_weight", [-1], "at least 0", [0]),
    ("distillation_weight", [-1], "at least 0", [0]),
    ("not_face_share", [-0.1, 1.1], "at least 0 and at most 1", [0]),
    ("doubts_weight", [-1], "at least 0", [0]),
    ("learned", ["some"], "one of all, doubts", ["all"]),
    ("yaw_shares", [[0, 0, 0], [1, 1], [1, -1, 1], [1, 1, "1"], 1, True], "not all 0", [[1, 0, 0], []]),
    ("validate_every", [0], "an integer from 1", [1]),
    ("validation_batch", [0], "an integer from 1", [1]),
    ("precision", ["fp16", 32], "one of float32, bf16", ["bf16"]),
    ("seed", [-1, 2**63], "an integer from 0", [0, 2**63 - 1]),
    ("input_size", [121, 24, 520, 120.0], "a multiple of 8 from 32 to 512", [32, 512]),
    ("data", ["a.h5", [""], [1], ["\udcff.h5"]], "a list of FILE or FILE=WEIGHT", [["a.h5=0.5"]]),
]  # fmt: skip


def test_every_training_setting_is_tried() -> None:
    assert TrainConfig.rules().keys() - {"augmentation"} <= {case[0] for case in CASES}


@pytest.mark.parametrize(("name", "bad", "words", "good"), CASES, ids=[case[0] for case in CASES])
def test_values(name: str, bad: list[Any], words: str, good: list[Any]) -> None:
    flag = "--" + name.replace("_", "-")
    table = {"data": (), "input_size": ("network",)}.get(name, ("training",))
    for value in bad:
        said = error("fast", None, None, {name: value})
        assert said.message.startswith(f"{flag} is {value!r}: expected"), said
        assert words in said.message
        # A file's value is checked, whether a flag replaces it or not.
        file = {table[0]: {name: value}} if table else {name: value}
        said = error("fast", None, file, {name: good[0]})
        assert said.message.startswith("run.toml: " + ".".join((*table, name))), said
        assert words in said.message
    for value in good:
        settings = resolve("fast", None, None, {name: value})
        holder = settings if name == "data" else settings.network if name == "input_size" else settings.training
        expected = (tuple(value) or (None if name == "yaw_shares" else ())) if isinstance(value, list) else value
        assert getattr(holder, name) == expected


@pytest.mark.parametrize(
    ("arch", "network", "words"),
    [
        ("fast", {"blocks": []}, "stride 1 or 2"),
        ("fast", {"blocks": [[32, 3]]}, "stride 1 or 2"),
        ("fast", {"blocks": [[32]]}, "stride 1 or 2"),
        ("fast", {"blocks": [[32, 1, 4]]}, "odd kernel"),
        ("fast", {"blocks": [[32, 1, 17]]}, "odd kernel up to 15"),
        ("fast", {"blocks": [[32, 1, 3, 1]]}, "odd kernel"),
        ("fast", {"middle_activation": 1}, "true or false"),
        ("fast", {"feature_stride": 3}, "from 1 to 2"),
        ("fast", {"heatmap": "evolving"}, "one of mean, none"),
        ("fast-x2", {"uncertainty": "yes"}, "true or false"),
        ("dhm", {"uncertainty": True}, "network.uncertainty: no such setting of dhm"),
        ("fast", {"cnn_width": 0}, "at least 0.25"),
        ("fast", {"steps": 0}, "an integer from 1"),
        ("dhm", {"channels": [16, 20]}, "a multiple of 16"),
        ("dhm", {"channels": []}, "1 to 5 numbers"),
        ("dhm", {"channels": [16, 16, 16]}, "features plain take 2"),
        ("dhm", {"features": "hourglass"}, "features hourglass take 1"),
        ("dhm", {"recurrence": "none"}, "recurrence none takes 1"),
        ("3dcnn", {"steps": 2}, "recurrence none takes 1"),
        ("dhm", {"rotation": "quaternion"}, "one of vector, euler"),
        ("dhm", {"heatmap": "fixed"}, "one of evolving, initial, points"),
        ("dhm", [], "expected a table"),
    ],
)
def test_networks_that_cannot_be(arch: str, network: Any, words: str) -> None:
    assert words in error(arch, None, {"network": network}, {}).message


def test_networks_that_can() -> None:
    c = resolve("dhm", None, {"network": {"features": "vgg", "channels": [16, 32, 32], "recurrence": "lstm"}}, {})
    assert c.network == replace(find_recipe("dhm").network, features="vgg", channels=(16, 32, 32), recurrence="lstm")
    c = resolve("fast", None, {"network": {"blocks": [[16, 2], [32, 1, 7]], "cnn_width": 2}}, {"head_rank": 8})
    assert c.network == replace(find_recipe("fast").network, blocks=((16, 2), (32, 1, 7)), cnn_width=2.0, head_rank=8)
    c = resolve("fast-x2", None, {"network": {"heatmap": "none"}}, {"uncertainty": True})
    assert c.network == replace(find_recipe("fast-x2").network, heatmap="none", uncertainty=True)


@pytest.mark.parametrize(
    ("recipe", "flags", "words"),
    [
        ("paper", {"learning_rate": 5e-5}, "final_learning_rate 0.0001 is above learning_rate 5e-05"),
        ("best", {"schedule": "milestones", "decay": 0.1}, "milestones without decay_epochs"),
        ("best", {"schedule": "exponential"}, "decay 1 never lowers"),
        ("best", {"schedule": "milestones", "decay_epochs": [3]}, "decay 1 never lowers"),
    ],
)
def test_contradictions(recipe: str, flags: dict[str, Any], words: str) -> None:
    said = error("dhm", recipe, None, flags)
    assert words in said.message
    assert said.hint
    # Where a value comes from makes no difference.
    assert words in error("dhm", recipe, {"training": flags}, {}).message


@pytest.mark.parametrize(
    ("arch", "network", "training", "words"),
    [
        ("fast", {}, {"loss": "likelihood"}, "loss likelihood needs a network that tells its uncertainty"),
        ("rhg", {}, {"loss": "likelihood"}, "loss likelihood needs a network that tells its uncertainty"),
    ],
)
def test_losses_that_a_network_cannot_have(
    arch: str, network: dict[str, Any], training: dict[str, Any], words: str
) -> None:
    said = error(arch, None, {"network": network, "training": training}, {})
    assert words in said.message
    assert said.hint
    assert words in error(arch, None, {"network": network}, training).message


def test_losses_that_a_network_can_have() -> None:
    c = resolve("fast", None, {"network": {"uncertainty": True}}, {"loss": "likelihood"})
    assert c.training.loss == "likelihood"


@pytest.mark.parametrize(
    "wrong",
    [
        {"training": TrainConfig(loss="likelihood")},
        {"training": TrainConfig(batch=1)},
        {"training": TrainConfig(yaw_shares=(0.0, 0.0, 0.0))},
        {"training": TrainConfig(augmentation=AugmentationConfig(mirror=2.0))},
        {"network": FastDhmConfig(input_size=100)},
        {"network": find_recipe("dhm").network},
        {"arch": "slow"},
        {"recipe": "worst"},
        {"data": ("",)},
    ],
)
def test_settings_that_no_file_gave_are_checked_too(wrong: dict[str, Any]) -> None:
    good = RunSettings("fast", "best", FastDhmConfig(), TrainConfig())
    with pytest.raises(InputError):
        replace(good, **wrong)


@pytest.mark.parametrize(("arch", "recipe"), EVERY)
@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"yaw_shares": [], "steps": 3, "seed": 7, "data": ["a.h5", "b.h5=0.3"], "learning_rate": 1 / 3},
        {"yaw_shares": [1, 2, 3], "epochs": 2, "validate_every": 10, "input_size": 64},
    ],
)
def test_a_written_file_gives_the_same_run(tmp_path: Path, arch: str, recipe: str, flags: dict[str, Any]) -> None:
    settings = resolve(arch, recipe, None, flags)
    write_toml(tmp_path / "config.toml", settings.to_toml())
    again = resolve(None, None, read_toml(tmp_path / "config.toml"), {})
    assert again == settings
    write_toml(tmp_path / "again.toml", again.to_toml())
    assert (tmp_path / "again.toml").read_bytes() == (tmp_path / "config.toml").read_bytes()
    assert resolve(arch, recipe, settings.to_toml(), {}) == settings


def other_than_default(values: Any) -> bool:
    """Whether every field differs from its default."""
    default = type(values)()
    return all(getattr(values, f.name) != getattr(default, f.name) for f in fields(values))


def test_every_field_survives_a_file(tmp_path: Path) -> None:
    augmentation = AugmentationConfig(**{name: 0.25 for name in AUGMENTATION})
    training = TrainConfig(
        steps=None, epochs=1.5, batch=3, optimiser="rmsprop", learning_rate=0.5, schedule="milestones", decay=0.5,
        decay_steps=7, decay_epochs=(1, 2), final_learning_rate=0.25, warmup=9, weight_decay=0.5, ema=0.5,
        gradient_norm=0.5, loss="l1", step_weights="last", depth_weight=0.75, wing_width=0.5,
        wing_curvature=0.5, prior_weight=0.5, distillation_weight=0.5,
        not_face_share=0.25, doubts_weight=0.5, learned="doubts",
        yaw_shares=(0.5, 0.25, 0.25), validate_every=11, validation_batch=13,
        precision="bf16", seed=17, augmentation=augmentation,
    )  # fmt: skip
    fast = FastDhmConfig(64, 24, ((32, 1, 5),), False, 1, 32, 3, 8, "none", True, True, 16, 4, 0.5, 2.0)
    dhm = DhmConfig(64, "landmarks", "hourglass", "initial", "lstm", "euler", 3, (32,), 8, 2)
    assert all(map(other_than_default, (training, fast, dhm)))
    for settings in (
        RunSettings("fast-x2", "paper", fast, training, ("x.h5",)),
        RunSettings("dhm", "best", dhm, replace(training, not_face_share=0.0, learned="all"), ("x.h5",)),
    ):
        write_toml(tmp_path / "config.toml", settings.to_toml())
        assert resolve(None, None, read_toml(tmp_path / "config.toml"), {}) == settings


# `config.toml` of a fast run, as version a97f518 wrote it.
OLDER_FILE = """\
arch = "fast"
recipe = "best"
data = ["a.h5"]

[network]
input_size = 120
stem_channels = 16
blocks = [[32, 2], [64, 2, 5], [64, 1, 5], [64, 1, 5], [64, 1, 5], [128, 2, 5], [128, 1, 5], [128, 1, 5], [128, 1, 5], \
[192, 2, 5], [192, 1, 5]]
middle_activation = false
feature_stride = 1
recurrent_channels = 96
steps = 4
head_rank = 64
heatmap = "mean"
closer_look = false
uncertainty = false
cnn_width = 1.0
recurrent_width = 1.0

[training]
steps = 40000
batch = 64
optimiser = "muon"
learning_rate = 0.002
schedule = "cosine"
decay = 1.0
decay_steps = 1
decay_epochs = []
final_learning_rate = 0.0
warmup = 500
weight_decay = 0.01
ema = 0.999
gradient_norm = 5.0
loss = "wing"
step_weights = "rising"
depth_weight = 0.5
wing_width = 0.08
wing_curvature = 0.02
wing_start = 0.01
part_weight = 0.0
prior_weight = 0.0
distillation_weight = 1.0
feature_weight = 0.0
mirror_weight = 0.0
yaw_shares = [0.4, 0.3, 0.3]
validation_batch = 128
precision = "float32"
seed = 0

[training.augmentation]
rotation = 8.0
wide_rotation = 45.0
wide_rotation_share = 0.1
scale = 0.025
shift = 0.015
wide_placement = 4.0
wide_placement_share = 0.2
mirror = 0.5
colour = 1.0
grey = 0.1
low_resolution = 0.15
blur = 0.1
noise = 0.1
jpeg = 0.1
occlusion = 0.3
"""


@pytest.fixture
def older_file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(OLDER_FILE, encoding="utf-8")
    return path


def test_a_file_of_an_older_version_is_read_as_before(older_file: Path) -> None:
    assert set(TrainConfig.RETIRED) <= read_toml(older_file)["training"].keys()
    assert resolve(None, None, read_toml(older_file), {}) == resolve("fast", "best", None, {"data": ["a.h5"]})


@pytest.mark.parametrize("name", TrainConfig.RETIRED)
@pytest.mark.parametrize("value", [1, 0.5, "0", True])
def test_a_retired_setting_that_changed_something_is_refused(older_file: Path, name: str, value: Any) -> None:
    file = read_toml(older_file)
    file["training"][name] = value
    said = error(None, None, file, {})
    assert said.message.startswith(f"run.toml: training.{name} is {value!r}: this setting was removed")
    assert "use the version of dhm that wrote the file" in said.hint


def test_a_retired_setting_is_no_flag() -> None:
    assert "--mirror-weight: no such setting" in error("fast", None, None, {"mirror_weight": 0.0}).message


@pytest.mark.parametrize(
    ("table", "name", "value", "words"),
    [
        ("training", "loss", "soft-wing", "one of wing, l1, likelihood, squared"),
        ("network", "heatmap", "predicted", "one of mean, none"),
    ],
)
def test_a_retired_choice_is_refused(older_file: Path, table: str, name: str, value: str, words: str) -> None:
    file = read_toml(older_file)
    file[table][name] = value
    assert error(None, None, file, {}).message == f"run.toml: {table}.{name} is {value!r}: expected {words}"
