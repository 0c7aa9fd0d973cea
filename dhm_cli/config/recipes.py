"""Settings of a training run: the papers' recipes and ours, and what a settings file and the command line change.

Paper A is Sun et al. 2018 ("Deep Evolutionary 3D Diffusion Heat Maps"), paper B is Sun et al., "Fast DHM".
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from dhm_cli.config.networks import (
    DHM_PRESETS,
    FAST_PRESETS,
    AugmentationConfig,
    DhmConfig,
    FastDhmConfig,
    TrainConfig,
    preset,
)
from dhm_cli.config.settings import (
    AUGMENTATION,
    DATA,
    FILE,
    RECIPES,
    TRAINING,
    TRAINING_IN_FILE,
    checked,
    network_rules,
)
from dhm_cli.errors import InputError

NO_AUGMENTATION = AugmentationConfig(**{field.name: 0.0 for field in fields(AugmentationConfig)})

# What the paper recipes share. Neither paper names augmentation, balancing, averaging, clipping, warm-up or weight
# decay: all off.
_PAPER = TrainConfig(
    steps=None,
    optimiser="adam",  # A, section 4.1, "Adam stochastic optimization with default hyperparameters"
    batch=50,  # A, section 4.1
    warmup=0,
    weight_decay=0.0,
    ema=0.0,
    gradient_norm=0.0,
    loss="squared",  # A and B, Eq. (5), squared Frobenius norm of all three coordinates ...
    depth_weight=1.0,  # ... so depth counts as x and y do
    # Eq. (5), and B, section III-C ("the final predicted shapes after the fully connected layer"), compare the shape
    # after the last step only. We supervise every step: Alg. 1 of A predicts p_k in every step, and with an error at
    # the last alone nothing ties the steps between, whose heat maps are the next steps' input, to the face.
    step_weights="equal",
    yaw_shares=None,
    augmentation=NO_AUGMENTATION,
)
_PAPER_DHM = replace(
    _PAPER,
    epochs=40.0,  # ours: not printed; as RHG
    # B, section IV-B: "0.001 for 300W-LP with exponential decay of 0.95 every 2000 iterations, and an initial learning
    # rate of 0.0001", which we read as fall from the one to the other. A, section 4.1, prints 0.0001 in both places.
    learning_rate=1e-3,
    final_learning_rate=1e-4,
    schedule="exponential",
    decay=0.95,
    decay_steps=2000,
)
_PAPER_RHG = replace(
    _PAPER,
    epochs=40.0,  # A, section 4.1, like all of these
    optimiser="rmsprop",
    learning_rate=1e-3,
    schedule="milestones",
    decay_epochs=(5, 15, 30),
    decay=0.1,  # ours: not printed
    batch=32,
    validation_batch=16,
)
_PAPER_FAST = replace(
    _PAPER,
    epochs=120.0,  # B, section IV-B, like all of these
    learning_rate=5e-3,
    schedule="milestones",
    decay_epochs=(60,),  # "after 60 epochs, the learning rate is reset to 0.00001" ...
    decay=0.002,  # ... 0.005 times this
)
# Ours. The loss reaches p through the face model, so its steps are smaller than those of a network of landmarks.
# AdamW, for Muon was tried on the fast family only.
_BEST_DHM = TrainConfig(steps=None, epochs=60.0, batch=32, optimiser="adamw", learning_rate=5e-4, prior_weight=1e-4)


def training_recipe(arch: str, recipe: str) -> TrainConfig:
    """How to train an architecture, "best" by us or "paper" as the papers print it.

    Raises:
        InputError: unknown architecture or recipe.
    """
    _check_names(arch, recipe)
    if recipe == "best":
        return TrainConfig() if arch in FAST_PRESETS else _BEST_DHM
    if arch in FAST_PRESETS:
        return _PAPER_FAST
    return _PAPER_RHG if arch == "rhg" else _PAPER_DHM


def network_recipe(arch: str, recipe: str) -> FastDhmConfig | DhmConfig:
    """The shape of an architecture's network, "best" by us or "paper" as the papers print it.

    Raises:
        InputError: unknown architecture or recipe.
    """
    _check_names(arch, recipe)
    if arch in DHM_PRESETS:
        # A, Eq. (2): p holds pitch, yaw and roll.
        return DHM_PRESETS[arch] if recipe == "best" else replace(DHM_PRESETS[arch], rotation="euler")
    if recipe == "best":
        return FAST_PRESETS[arch]
    # B, section III-B: 224 x 224. One more block of stride 2 in front, ours, keeps the head and so the size on disk
    # below B's (Table I: 0.9 and 2.2 MB), and the maps behind it as small as those of 120 pixels. "Fast DHM x2 means
    # the channels in the fast CNN module are doubled" (Table I).
    fast = FastDhmConfig(input_size=224, blocks=((16, 2), *FastDhmConfig().blocks))
    return replace(fast, cnn_width=2.0, head_rank=44) if arch == "fast-x2" else fast


def _check_names(arch: str, recipe: str) -> None:
    preset(arch)  # raises
    if recipe not in RECIPES:
        raise InputError(f"unknown recipe {recipe!r}", f"known recipes: {', '.join(RECIPES)}")


@dataclass(frozen=True)
class RunSettings:
    """All that determines a run: architecture, recipe, network, training and data.

    Attributes:
        arch: the architecture's name.
        recipe: the recipe that the settings started from.
        network: the network's shape.
        training: how it is trained.
        data: stores as FILE or FILE=WEIGHT; empty for the default ones.

    Raises:
        InputError: a setting is out of range, or two contradict each other.
    """

    arch: str
    recipe: str
    network: FastDhmConfig | DhmConfig
    training: TrainConfig
    data: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_names(self.arch, self.recipe)
        checked({"data": self.data}, FILE, "", str)
        checked(vars(self.network), network_rules(self.arch), "", "network.{}".format, self.arch)
        training = {k: v for k, v in vars(self.training).items() if k != "augmentation" and v is not None}
        checked(training, TRAINING, "", "training.{}".format)
        checked(vars(self.training.augmentation), AUGMENTATION, "", "training.augmentation.{}".format)
        _check_training(self.training)
        if isinstance(self.network, DhmConfig):
            _check_dhm(self.network)
        _check_loss(self.network, self.training)

    def to_toml(self) -> dict[str, Any]:
        """The settings as `resolve` takes them from a file: nested dictionaries without None."""
        training = asdict(self.training)
        training["yaw_shares"] = training["yaw_shares"] or []  # left out, it would mean the recipe's
        settings = {"arch": self.arch, "recipe": self.recipe, "data": self.data}
        plain: dict[str, Any] = _plain({**settings, "network": asdict(self.network), "training": training})
        return plain


def resolve(
    arch: str | None,
    recipe: str | None,
    file: Mapping[str, Any] | None,
    flags: Mapping[str, Any],
    file_name: str = "settings file",
) -> RunSettings:
    """Settings of a run: flags go before the settings file, and the file before the recipe.

    A file has the keys `arch`, `recipe` and `data`, and the tables `network` (fields of the network's settings),
    `training` (those of `TrainConfig`) and `training.augmentation` (those of `AugmentationConfig`), all optional.
    Setting `steps` clears `epochs`, and the other way round. No yaw balancing is `yaw_shares = []`.

    Args:
        arch: as the flag says; None for the file's, or else "fast".
        recipe: as the flag says; None for the file's, or else "best".
        file: a settings file as `read_toml` gives it.
        flags: `data`, fields of `TrainConfig` and of the network's settings; None for what was not given. `steps` are
            the optimiser's, not the network's.
        file_name: for messages.

    Raises:
        InputError: an unknown name, a value out of range, or a contradiction; names the flag, or the file and the key.
    """
    place = f"{file_name}: "
    tables = checked(file or {}, FILE, place, str)
    if arch and "network" in tables and tables.get("arch", arch) != arch:
        raise InputError(
            f"--arch {arch}, but {place}[network] is of {tables['arch']}", "leave out --arch, or give another file"
        )
    arch = tables.get("arch", "fast") if arch is None else arch
    recipe = tables.get("recipe", "best") if recipe is None else recipe
    network, training = network_recipe(arch, recipe), training_recipe(arch, recipe)

    rules = network_rules(arch)
    network = _with_network(network, checked(tables.get("network", {}), rules, place, "network.{}".format, arch))
    values = checked(tables.get("training", {}), TRAINING_IN_FILE, place, "training.{}".format)
    changes = checked(values.pop("augmentation", {}), AUGMENTATION, place, "training.augmentation.{}".format)
    training = replace(training, augmentation=replace(training.augmentation, **changes))
    training = _with_training(training, values, f"{place}training.steps and training.epochs")

    given = {name: value for name, value in flags.items() if value is not None}
    values = checked(given, {**rules, **TRAINING, "data": DATA}, "", _flag, arch)
    data = values.pop("data", ()) or tables.get("data", ())
    network = _with_network(network, {name: value for name, value in values.items() if name not in TRAINING})
    values = {name: value for name, value in values.items() if name in TRAINING}
    training = _with_training(training, values, "--steps and --epochs")
    return RunSettings(arch, recipe, network, training, data)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _with_network(network: FastDhmConfig | DhmConfig, values: dict[str, Any]) -> FastDhmConfig | DhmConfig:
    if isinstance(network, FastDhmConfig):
        values = {name: value for name, value in values.items() if name != "target"}  # it has one only
    return replace(network, **values)


def _with_training(training: TrainConfig, values: dict[str, Any], both: str) -> TrainConfig:
    if "steps" in values and "epochs" in values:
        raise InputError(f"{both}: a run has one of them", "leave one out")
    if "steps" in values:
        values = {**values, "epochs": None}
    elif "epochs" in values:
        values = {**values, "steps": None}
    return replace(training, **values)


def _check_training(training: TrainConfig) -> None:
    if (training.steps is None) == (training.epochs is None):
        raise InputError("training needs one of steps and epochs", "set one of them")
    if training.schedule == "exponential" and training.final_learning_rate > training.learning_rate:
        raise InputError(
            f"final_learning_rate {training.final_learning_rate:g} is above learning_rate {training.learning_rate:g}",
            "lower final_learning_rate, or raise learning_rate",
        )
    if training.schedule == "milestones" and not training.decay_epochs:
        raise InputError("schedule milestones without decay_epochs", "set decay_epochs, such as [20, 30]")
    if training.schedule != "cosine" and training.decay == 1:
        raise InputError(f"schedule {training.schedule} with decay 1 never lowers the rate", "set decay below 1")


def _check_loss(network: FastDhmConfig | DhmConfig, training: TrainConfig) -> None:
    if training.loss == "likelihood" and not (isinstance(network, FastDhmConfig) and network.uncertainty):
        raise InputError(
            "loss likelihood needs a network that tells its uncertainty",
            "set network.uncertainty to true, for fast and fast-x2",
        )


def _check_dhm(network: DhmConfig) -> None:
    count = {"plain": 2, "hourglass": 1}.get(network.features, len(network.channels))
    if len(network.channels) != count:
        raise InputError(
            f"network.channels {list(network.channels)}: features {network.features} take {count}",
            "give as many numbers as the features take",
        )
    if network.recurrence == "none" and network.steps != 1:
        raise InputError(f"network.steps {network.steps}: recurrence none takes 1", "set network.steps to 1")


def _plain(value: Any) -> Any:
    """Dictionaries without None, lists in place of tuples."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
