"""Accuracy comes from reports and training records."""

import json
from pathlib import Path
from typing import Any

import pytest
from example_networks import small_checkpoint

from dhm_cli.benchmark.accuracy import Accuracy, known_accuracy, read_reports
from dhm_cli.benchmark.measured_networks import MeasuredNetwork, find_networks
from dhm_cli.errors import FormatError, InputError


def network_of(path: Path) -> MeasuredNetwork:
    return find_networks([str(path)])[0]


def report(path: Path, weights_hash: str = "", **changes: Any) -> Path:
    known = {
        "schema": "dhm-evaluation",
        "schema_version": 1,
        "method": {"file": "best.safetensors", "hash": weights_hash},
        "data": {"name": "AFLW2000-3D", "split": "test"},
        "labels": "original",
        "protocol": "paper",
        "nme": {"mean_of_bins": 3.25},
    }
    path.write_text(json.dumps({**known, **changes}))
    return path


def test_accuracy_of_the_very_weights(tmp_path: Path) -> None:
    record = {"validation_nme": {"mean_of_bins": 2.5}}
    network = network_of(small_checkpoint(tmp_path / "best.safetensors", record))
    other = report(tmp_path / "other.json", "0" * 16)
    own = report(tmp_path / "own.json", network.hashes[0])
    assert known_accuracy(network, read_reports([other])) == Accuracy(2.5, "validation faces of the network's training")
    assert known_accuracy(network, read_reports([other, own])) == Accuracy(
        3.25, "AFLW2000-3D test, original labels, protocol paper"
    )
    assert known_accuracy(network_of(small_checkpoint(tmp_path / "bare.safetensors")), read_reports([other])) is None


def test_reports_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_reports([tmp_path / "missing.json"])
    (tmp_path / "text.json").write_text("so")
    with pytest.raises(FormatError, match="not JSON"):
        read_reports([tmp_path / "text.json"])
    with pytest.raises(FormatError, match="or of another version"):
        read_reports([report(tmp_path / "new.json", schema_version=2)])
    for changes in ({"nme": None}, {"data": {"name": "AFLW2000-3D"}}, {"method": "fast"}):
        with pytest.raises(FormatError, match="incomplete"):
            read_reports([report(tmp_path / "part.json", **changes)])


def test_an_error_that_is_no_number_is_not_known(tmp_path: Path) -> None:
    network = network_of(small_checkpoint(tmp_path / "best.safetensors"))
    path = report(tmp_path / "a.json", network.hashes[0], nme={"mean_of_bins": float("nan")})
    assert known_accuracy(network, read_reports([path])) is None
