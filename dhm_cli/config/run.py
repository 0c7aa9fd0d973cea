"""Settings of a run: what the recipes say, and what a settings file and the command line change."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, replace
from typing import Any

from dhm_cli.config.networks import NetworkConfig
from dhm_cli.config.recipes import ARCHS, RECIPES, find_recipe, network_rules
from dhm_cli.config.settings import TABLE, Rule, Settings, checked, choice, setting, several, without_retired
from dhm_cli.config.training import AugmentationConfig, TrainConfig
from dhm_cli.errors import InputError


def _file_name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    value.encode()  # a ValueError where the name has bytes that no TOML file can hold
    return value


DATA = several("a list of FILE or FILE=WEIGHT, names in UTF-8", Rule("", _file_name), 0, 1000)


@dataclass(frozen=True)
class RunSettings(Settings):
    """All that determines a run: architecture, recipe, network, training and data.

    Raises:
        InputError: a setting is out of range, or two contradict each other.
    """

    arch: str = setting(MISSING, choice(*ARCHS), "Architecture.")
    recipe: str = setting(MISSING, choice(*RECIPES), "best (ours, default) or paper (as the papers print it).")
    network: NetworkConfig = setting(MISSING, TABLE, "The network's shape.")  # noqa: RUF009 (a field)
    training: TrainConfig = setting(MISSING, TABLE, "How it is trained.")  # noqa: RUF009
    data: tuple[str, ...] = setting((), DATA, "Stores as FILE or FILE=WEIGHT; empty for the default ones.")

    def __post_init__(self) -> None:
        find_recipe(self.arch, self.recipe)  # raises
        checked({"data": self.data}, self.rules(), "")
        _checked_network(self.arch, vars(self.network), "", "network.{}".format)
        training = {name: value for name, value in vars(self.training).items() if value is not None}
        augmentation = vars(training.pop("augmentation"))
        checked(augmentation, AugmentationConfig.rules(), "", "training.augmentation.{}".format)
        checked(training, TrainConfig.rules(), "", "training.{}".format)
        self.training.check()
        self.network.check()
        t, able = self.training, [arch for arch in ARCHS if "uncertainty" in network_rules(arch)]
        needing = {
            "loss likelihood": t.loss == "likelihood",
            "learned doubts": t.learned == "doubts",
            "not_face_share above 0": t.not_face_share > 0,
        }
        if any(needing.values()) and not self.network.uncertainty:
            raise InputError(
                f"{next(name for name, needs in needing.items() if needs)} needs a network that tells its uncertainty",
                f"set network.uncertainty to true, for {', '.join(able)}",
            )

    def to_toml(self) -> dict[str, Any]:
        """The settings as `resolve` takes them from a file: nested dictionaries without None."""
        training = self.training.to_json()
        training["yaw_shares"] = training["yaw_shares"] or []  # left out, it would mean the recipe's
        settings = {"arch": self.arch, "recipe": self.recipe, "data": self.data}
        plain: dict[str, Any] = _plain({**settings, "network": self.network.to_json(), "training": training})
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
    tables = checked(file or {}, RunSettings.rules(), place)
    if arch and "network" in tables and tables.get("arch", arch) != arch:
        raise InputError(
            f"--arch {arch}, but {place}[network] is of {tables['arch']}", "leave out --arch, or give another file"
        )
    arch = tables.get("arch", "fast") if arch is None else arch
    recipe = tables.get("recipe", "best") if recipe is None else recipe
    network, training = find_recipe(arch, recipe)

    network = _with_network(network, _checked_network(arch, tables.get("network", {}), place, "network.{}".format))
    training = _with_table(training, tables.get("training", {}), place)

    given = {name: value for name, value in flags.items() if value is not None}
    values = _checked_network(arch, given, "", _flag, {**_TRAINING_FLAGS, "data": DATA})
    data = values.pop("data", ()) or tables.get("data", ())
    changes = {name: values.pop(name) for name in _TRAINING_FLAGS if name in values}
    network = _with_network(network, values)
    training = _with_training(training, changes, "--steps and --epochs")
    return RunSettings(arch, recipe, network, training, data)


_TRAINING_FLAGS = {name: rule for name, rule in TrainConfig.rules().items() if rule is not TABLE}


def _checked_network(
    arch: str,
    values: Mapping[str, Any],
    place: str,
    label: Callable[[str], str],
    more: Mapping[str, Rule] | None = None,
) -> dict[str, Any]:
    """Checked settings of an architecture's network; `more` rules go before those of the network."""
    others = {other: network_rules(other) for other in ARCHS}
    return checked(values, {**others[arch], **(more or {})}, place, label, arch, others)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _with_network(network: NetworkConfig, values: Mapping[str, Any]) -> NetworkConfig:
    # A network with one target only has no such setting.
    return replace(network, **{name: value for name, value in values.items() if name in network.rules()})


def _with_table(training: TrainConfig, values: Mapping[str, Any], place: str) -> TrainConfig:
    """A training with the changes of a file's table `training`."""
    label = "training.{}".format
    values = checked(without_retired(values, TrainConfig.RETIRED, place, label), TrainConfig.rules(), place, label)
    changes = values.pop("augmentation", {})
    changes = checked(changes, AugmentationConfig.rules(), place, "training.augmentation.{}".format)
    training = replace(training, augmentation=replace(training.augmentation, **changes))
    return _with_training(training, values, f"{place}training.steps and training.epochs")


def _with_training(training: TrainConfig, values: Mapping[str, Any], both: str) -> TrainConfig:
    if "steps" in values and "epochs" in values:
        raise InputError(f"{both}: a run has one of them", "leave one out")
    if "steps" in values:
        values = {**values, "epochs": None}
    elif "epochs" in values:
        values = {**values, "steps": None}
    return replace(training, **values)


def _plain(value: Any) -> Any:
    """Dictionaries without None, lists in place of tuples."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
