"""How settings are declared."""

from dataclasses import MISSING, dataclass, fields

import pytest

from dhm_cli.config.networks import DhmConfig, FastDhmConfig
from dhm_cli.config.recipes import network_rules
from dhm_cli.config.run import RunSettings
from dhm_cli.config.settings import TABLE, Settings, integer, setting
from dhm_cli.config.training import AugmentationConfig, TrainConfig

DECLARED = [RunSettings, TrainConfig, AugmentationConfig, DhmConfig, FastDhmConfig]


@dataclass(frozen=True)
class Example(Settings):
    """A set of settings."""

    seed: int = setting(MISSING, integer(0, 9), "Of weights.")
    batch: int = setting(64, integer(2, 1_000_000), "Faces per step.")


def test_a_setting_is_declared_in_one_line() -> None:
    assert Example(seed=3) == Example(3, 64)
    assert Example.rules()["batch"].expected == "an integer from 2 to 1,000,000"
    assert Example.sentences() == {"seed": "Of weights.", "batch": "Faces per step."}
    assert Example(seed=3).to_json() == {"batch": 64, "seed": 3}
    with pytest.raises(TypeError, match="seed"):
        Example()


@pytest.mark.parametrize("settings", DECLARED)
def test_every_setting_has_a_rule_a_sentence_and_a_default_that_follows_the_rule(settings: type[Settings]) -> None:
    for declared in fields(settings):
        rule, sentence = settings.rules()[declared.name], settings.sentences()[declared.name]
        assert rule.expected
        assert sentence.endswith(".")
        if declared.default not in (None, MISSING) and rule is not TABLE:
            assert rule.convert(declared.default) == declared.default


def test_rules_of_networks() -> None:
    assert list(network_rules("dhm")) == [f.name for f in fields(DhmConfig)]
    assert network_rules("dhm").keys() == network_rules("2drnn").keys()
    assert network_rules("fast").keys() == {f.name for f in fields(FastDhmConfig)} | {"target"}


def test_choices_are_told_to_the_command_line() -> None:
    assert TrainConfig.rules()["precision"].choices == ("float32", "bf16")
    assert DhmConfig.rules()["target"].choices == ("params", "landmarks")
    assert TrainConfig.rules()["batch"].choices == ()
