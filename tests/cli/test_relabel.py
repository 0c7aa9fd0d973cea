"""`dhm relabel` as users type it."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from dummy_network import write_dummy_network
from example_networks import make_model
from synthetic_faces import SyntheticFaces
from typer.testing import CliRunner, Result

from dhm_cli.cli.main import app
from dhm_cli.data.store import FaceStore
from dhm_cli.inference import engines
from dhm_cli.models.checkpoint import save_checkpoint
from dhm_cli.preparation import relabel as workflow
from dhm_cli.preparation.relabel import RelabelReport


@pytest.fixture
def here(
    tmp_path: Path, face_store: Path, face_model: Path, drawn_faces: SyntheticFaces, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A working folder with data/faces.h5 and data/more.h5 of `dhm prepare`, points.npz and a network, net.onnx."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for name in ("faces.h5", "more.h5"):
        shutil.copy(face_store, Path("data") / name)
    shutil.copy(face_model, "data")
    np.savez("points.npz", names=np.array(drawn_faces.names), landmarks=drawn_faces.landmarks[..., :2])
    write_dummy_network(Path("net.onnx"))
    monkeypatch.setattr(workflow, "_SHOWN", 2)  # drawing takes time
    return tmp_path


def dhm(*arguments: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(argument) for argument in arguments])


def test_two_stores_are_written_and_told_of(here: Path) -> None:
    """The network's answer is one for all faces, so that it and the prior do not agree on any."""
    result = dhm(
        *("relabel", "data/faces.h5=points.npz", "data/more.h5", "--model", "net.onnx", "--follow-prior", "jaw"),
        *("--follow-prior", "nose", "--trust", "more=0.25", "--out", "new", "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    rows = result.stdout.splitlines()
    assert max(map(len, rows)) <= 80
    for name in ("faces", "more"):
        (row,) = [line for line in rows if line.startswith(f"{name}.h5 ")]
        assert " 24 " in row
        assert " 18 " in row  # all of train
        assert re.search(r" [+-]\d+\.\d\d +\d+\.\d\d +\d+\.\d\d$", row), row
        reasons = result.stdout.partition(f"{name}.h5: ")[2].partition(".h5")[0].replace("\n  ", " ")
        assert re.search(r"network \d+\.\d\d \(18 left out\)", reasons), reasons
        assert ("(18 left out)" in reasons.partition("prior")[2].partition(",")[0]) == (name == "faces")
    assert "percent of the face size" in result.stdout
    assert "pictures: new/faces-moved.png, new/more-moved.png" in result.stdout
    assert "old labels are white, the new ones orange" in result.stdout
    record = str(FaceStore(Path("new/more.h5")).attributes["relabelled"])
    assert '"follow": ["jaw", "nose"]' in record
    assert '"trust": 0.25' in record
    # What the other commands make of it.
    checked = dhm("prepare", "--check", "new/faces.h5")
    assert checked.exit_code == 0, checked.output
    assert "no errors" in checked.stdout
    assert FaceStore(Path("new/faces.h5")).labels.flagged.sum() == 18


def test_defaults(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fast-x2 on whatever device there is, all people trusted, no part followed, into relabelled/."""
    asked: list[tuple[str, str]] = []

    def load(device: str, weights: str, **_: object) -> engines.OnnxEngine:
        asked.append((device, weights))
        return engines.OnnxEngine("net.onnx")

    monkeypatch.setattr(engines, "load_engine", load)
    result = dhm("relabel", "data/more.h5")
    assert result.exit_code == 0, result.output
    assert asked == [("auto", "fast-x2")]
    record = str(FaceStore(Path("relabelled/more.h5")).attributes["relabelled"])
    assert '"follow": []' in record
    assert '"trust": 1.0' in record


def test_the_same_command_goes_on_after_ctrl_c(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Stopped(engines.OnnxEngine):
        def answer(self, crops: np.ndarray) -> engines.Answer:
            calls.append(len(crops))
            if len(calls) == 6:
                raise KeyboardInterrupt
            return super().answer(crops)

    monkeypatch.setattr(engines, "load_engine", lambda *_, **__: Stopped("net.onnx"))
    monkeypatch.setattr(workflow, "_BATCH", 12)
    command = ("relabel", "data/faces.h5", "--model", "net.onnx", "--out", "new")
    stopped = dhm(*command)
    assert stopped.exit_code == 130
    assert "stopped; the same command goes on from here" in stopped.stderr
    assert not Path("new/faces.h5").exists()
    assert dhm(*command).exit_code == 0
    assert len(calls) == 6 + 4  # of two batches four times each, one and a call had been seen, and that call in vain
    assert len(FaceStore(Path("new/faces.h5"))) == 24


def test_the_table_on_a_terminal_of_80_columns(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of the stores are not cut; `out` is the same for all of them."""
    reasons = {"human points": 11, "prior": 2_345, "network": 8, "mirror images": 1_013}
    agreement = dict.fromkeys(reasons, 5.65)
    out = Path("relabelled")
    report = RelabelReport(
        out / "faces.h5", 12_345, 3_456, reasons, 0.6, (1.2, 4.56), agreement, out / "faces-moved.png"
    )
    monkeypatch.setattr(workflow, "relabel_stores", lambda *_: [report])
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["relabel", "data/faces.h5", "--model", "net.onnx"])
    assert result.exit_code == 0, result.output
    assert "faces.h5" in result.stdout
    for number in ("12,345", "3,456", "2,345", "+0.60", "4.56", "5.65"):
        assert number in result.stdout


def test_help() -> None:
    result = dhm("relabel", "--help")
    assert result.exit_code == 0
    for words in ("--model", "--follow-prior", "--trust", "--out", "--device", "self-training", "faces.h5=points.npz"):
        assert words in result.stdout
    assert "relabel" in dhm("--help").stdout


STORE = "data/faces.h5"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("absent.h5",), ("absent.h5: no such store", "dhm prepare")),
        (("data",), ("data: a folder, not a store",)),
        (("net.onnx",), ("net.onnx: not a readable face store",)),
        ((f"{STORE}=absent.npz",), ("absent.npz: not a readable .npz file",)),
        ((f"{STORE}=net.onnx",), ("net.onnx: not a readable .npz file",)),
        ((STORE, STORE), ("faces: two stores of this name", "once")),
        ((f"{STORE}=",), ("data/faces.h5=: no file of prior points", "data/faces.h5=POINTS.npz")),
        ((STORE, "--out", "data"), ("data/faces.h5: is read by this command too", "--out")),
        ((STORE, "--follow-prior", "jaw"), ("--follow-prior needs a prior of the first store", "=POINTS.npz")),
        ((f"{STORE}=points.npz", "--follow-prior", "ears"), ("--follow-prior ears", "jaw, brows, nose, eyes, mouth")),
        ((STORE, "--trust", "more=0.5"), ("--trust more: no such store", "faces")),
        ((STORE, "--trust", "faces"), ("--trust faces: expected a number from 0 to 1", "=0.5")),
        ((STORE, "--trust", "faces=much"), ("--trust faces=much: expected a number",)),
        ((STORE, "--trust", "faces=1.5"), ("--trust faces=1.5: expected a number",)),
        ((STORE, "--trust", "faces=nan"), ("--trust faces=nan: expected a number",)),
        ((STORE, "--model", "absent.onnx"), ("absent.onnx: cannot be read",)),
        ((STORE, "--model", "points.npz"), ("points.npz: not an ONNX network",)),
    ],
)
def test_bad_input_names_what_is_wrong_and_the_next_step(
    here: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    model = () if "--model" in arguments else ("--model", "net.onnx")
    result = dhm("relabel", *arguments, *model)
    assert result.exit_code == 1, result.output
    assert all(text in result.stderr for text in words), result.stderr
    assert "error: " in result.stderr
    assert "\nhint: " in result.stderr
    assert not Path("relabelled").exists()


def test_stores_are_asked_for(here: Path) -> None:
    result = dhm("relabel")
    assert result.exit_code == 2
    assert "stores" in result.stderr.lower()


def test_folders_may_have_an_equals_sign(here: Path) -> None:
    shutil.move("data", "a=b")
    result = dhm("relabel", "a=b/faces.h5=points.npz", "--model", "net.onnx", "--follow-prior", "jaw")
    assert result.exit_code == 0, result.output


def test_hints_name_options_that_there_are(here: Path) -> None:
    """A network that regresses p takes the face model beside the first store; there is no --face-model to ask for."""
    save_checkpoint(Path("dhm.safetensors"), make_model("dhm"), "dhm", {})
    result = dhm("relabel", "data/more.h5", "--model", "dhm.safetensors", "--device", "cpu")
    known = set(re.findall(r"--[a-z-]+", dhm("relabel", "--help").stdout))
    said = result.stderr.split("next: ")[0]  # that is another command
    assert set(re.findall(r"--[a-z-]+", said)) <= known


def test_a_file_of_another_kind_is_not_replaced(here: Path) -> None:
    """It once was, without a word."""
    Path("new").mkdir()
    Path("new/faces.h5").write_text("my notes", encoding="utf-8")
    result = dhm("relabel", "data/faces.h5", "--model", "net.onnx", "--out", "new", "--device", "cpu")
    assert result.exit_code != 0
    assert "not a store of dhm" in " ".join(result.output.split())
    assert Path("new/faces.h5").read_text(encoding="utf-8") == "my notes"


def test_the_picture_replaces_no_other(here: Path) -> None:
    Path("new").mkdir()
    Path("new/faces-moved.png").write_bytes(b"a photo")
    result = dhm("relabel", "data/faces.h5", "--model", "net.onnx", "--out", "new")
    assert result.exit_code == 1
    assert "faces-moved.png: exists and is not a picture that dhm drew" in result.stderr
    assert Path("new/faces-moved.png").read_bytes() == b"a photo"
