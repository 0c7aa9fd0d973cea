"""`dhm doctor`: what is there, what is missing, and what is broken."""

import hashlib
import json
import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import tomlkit
from places import ROOT
from printed import folded
from typer.testing import CliRunner

from dhm_cli.cli.main import app
from dhm_cli.inference import installation
from dhm_cli.inference.installation import EXTRAS, examine

WEIGHTS = ROOT / "dhm_cli" / "weights"
LICENCE_OF_YUNET = "face_detection_yunet_2023mar.LICENSE.txt"


def installed(monkeypatch: pytest.MonkeyPatch, wanted: list[str], there: dict[str, str]) -> None:
    """Let the package ask for some requirements, of which some are installed."""

    def version(name: str) -> str:
        if name not in there:
            raise PackageNotFoundError(name)
        return there[name]

    inner = {"fsspec": ['aiohttp; extra == "http"', "other; extra == 'dev'"]}
    monkeypatch.setattr(installation, "requires", lambda name: wanted if name == "dhm-cli" else inner.get(name))
    monkeypatch.setattr(installation, "version", version)


def test_all_is_well() -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    said = folded(result.stdout)
    for line in ("dhm 0.", "Python 3.", "onnxruntime", "processor: ", "GPU: ", "CPUExecutionProvider", "extras: "):
        assert line in said
    for name in ("fast.onnx", "fast-x2.onnx", "face_detection_yunet_2023mar.onnx"):
        assert f"{hashlib.sha256((WEIGHTS / name).read_bytes()).hexdigest()[:16]} {name}" in said
    assert "one face: " in said
    assert "all that dhm needs is here and works" in said
    assert "next: dhm align photos" in result.stderr
    assert max(len(line) for line in result.stdout.splitlines() if "/" not in line) <= 80


def test_json_holds_all() -> None:
    found = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert found["problems"] == []
    assert found["face"]["median_ms"] > 0
    assert found["face"]["confidence"] > 0.9
    assert all(len(file["sha256"]) == 64 and file["shipped"] for file in found["weights"])


def test_the_hashes_are_of_the_shipped_files() -> None:
    """After new weights: cd dhm_cli/weights && sha256sum *.onnx *.safetensors > SHA256SUMS."""
    lines = dict(reversed(line.split()) for line in (WEIGHTS / "SHA256SUMS").read_text().splitlines())
    files = sorted(path for path in WEIGHTS.iterdir() if path.suffix in (".onnx", ".safetensors"))
    assert lines == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    # As published in OpenCV's model zoo; MIT, so its licence goes with it.
    assert lines["face_detection_yunet_2023mar.onnx"].startswith("8f2383e4dd3cfbb4553ea8718107fc04")
    assert "Copyright (c) 2020 Shiqi Yu" in (WEIGHTS / LICENCE_OF_YUNET).read_text()


def test_extras_are_those_of_the_package() -> None:
    known = tomlkit.parse((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(EXTRAS) == set(known)


def test_missing_and_unfitting_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=1.26", "opencv<5", "fsspec[http]; extra == 'remote'", "av>=16; extra == 'video'", "gone"]
    installed(monkeypatch, wanted, {"numpy": "2.4", "opencv": "5.0", "fsspec": "2026.1", "av": "16.0"})
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "error: opencv 5.0 is installed: pip install 'opencv<5'" in result.stderr
    assert "error: gone is not installed: pip install 'gone'" in result.stderr
    assert "numpy" not in result.stderr
    said = folded(result.stdout)
    assert "pip install 'dhm-cli[remote]'" in said  # fsspec alone reads no https
    assert "av 16.0" in said
    assert "works" not in said


def test_damaged_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(WEIGHTS, tmp_path / "weights")
    (tmp_path / "weights" / "fast.onnx").write_bytes(b"other")
    (tmp_path / "weights" / "tiny.onnx").unlink()
    monkeypatch.setattr(installation, "_WEIGHTS", tmp_path / "weights")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "fast.onnx is not the file that was shipped: install dhm-cli again" in folded(result.stderr)
    assert "tiny.onnx is missing" in result.stderr


def test_a_broken_library_is_told_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(found: object) -> None:
        raise OSError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr(installation, "_time_a_face", broken)
    monkeypatch.setattr(installation, "_look_for_gpu", broken)
    found = examine()
    assert found.face is None
    assert found.providers
    assert [problem.split(":")[0] for problem in found.problems] == ["torch", "one face"]
    assert "OSError: libGL.so.1" in found.problems[0]


def test_instructions_where_there_is_no_cpuinfo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "machine", lambda: {"instructions": []})
    assert examine().machine["instructions"]
