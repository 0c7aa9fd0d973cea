"""The examples in docstrings run, and every noun of the front door has one."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest
from places import ROOT

import dhm_cli

PACKAGE = Path(dhm_cli.__file__).parent
WITH_EXAMPLES = sorted(path for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_examples(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run where a user would be: in a copy of the repository, for the files of sample_data."""
    monkeypatch.chdir(ROOT)
    name = ".".join(("dhm_cli", *path.relative_to(PACKAGE).with_suffix("").parts))
    tried = 0
    for example in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name), name):
        output: list[str] = []
        result = doctest.DocTestRunner().run(example, out=output.append)
        assert not result.failed, "".join(output)
        tried += result.attempted
    assert tried


def test_every_noun_of_the_front_door_has_an_example() -> None:
    nouns = [getattr(dhm_cli, name) for name in dhm_cli.__all__ if name != "__version__"]
    for noun in [*nouns, dhm_cli.Aligner.align]:
        assert ">>> from dhm_cli import " in (inspect.getdoc(noun) or ""), noun
