"""`dhm align` and the frame around all subcommands, as a user meets them."""

import csv
import inspect
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import typer
from example_networks import make_model
from example_photos import ASTRONAUT, encode
from places import ROOT
from typer.testing import CliRunner, Result

import dhm_cli
from dhm_cli.cli.align import _MOST_IN_A_PAGE, _print_report, align
from dhm_cli.cli.main import Commands, app
from dhm_cli.errors import DhmError
from dhm_cli.geometry.pose import euler_to_matrix, yaw_pitch_roll_to_matrix
from dhm_cli.inference.face_box import MIN_SCORE
from dhm_cli.inference.results import OK, AlignmentReport, PhotoResult
from dhm_cli.models.checkpoint import save_checkpoint
from dhm_cli.morphable.location import DEFAULT_FACE_MODEL, FACE_MODEL
from dhm_cli.morphable.toy import toy_face_model
from dhm_cli.training.inputs import DEFAULT_DATA


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with the photo in ./photos."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("photos/astronaut.png").write_bytes(ASTRONAUT.read_bytes())
    return tmp_path


def dhm(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def start_dhm(*arguments: str | Path, before: str = "") -> "subprocess.Popen[str]":
    """The command in a process of its own, which runs some Python code first."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    code = f"import sys\n{before}\nfrom dhm_cli.cli.main import main\nsys.argv[0] = 'dhm'\nmain()"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
    # Background jobs of a shell start with SIGINT ignored, and their children inherit that.
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **pipes,
    )


# Reading the photo 4.png takes until the file go_on is there.
SLOW_PHOTO = """
import pathlib, time
from dhm_cli.alignment import photos
read_photo = photos.read_photo
def read_slowly(path, *more):
    while path.name == "4.png" and not pathlib.Path("go_on").exists():
        time.sleep(0.01)
    return read_photo(path, *more)
photos.read_photo = read_slowly
"""


def test_align(here: Path, dummy_network: Path) -> None:
    result = dhm("align", "./photos", "--out", "landmarks.csv", "--device", "cpu", "--model", dummy_network)
    assert result.exit_code == 0, result.output
    assert "landmarks.csv: 1 photo, 1 face, 0 without a face, 0 unreadable" in result.stdout
    with Path("landmarks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"], row["status"]) for row in rows] == [("photos/astronaut.png", "ok")]
    assert sorted(path.name for path in here.iterdir()) == ["landmarks.csv", "photos"]


def test_unreadable_photos_give_exit_code_1(here: Path, dummy_network: Path) -> None:
    Path("photos/broken.jpg").write_text("no pixels")
    result = dhm("align", "photos", "--device", "cpu", "--model", dummy_network, "--overlay", "drawn")
    assert result.exit_code == 1
    assert "warning: 1 photo unreadable:" in result.stderr
    assert "photos/broken.jpg: not an image" in result.stderr
    assert "2 photos, 1 face, 0 without a face, 1 unreadable" in result.stdout
    assert Path("drawn/astronaut.jpg").is_file()


def test_photos_without_a_box_are_named(here: Path, dummy_network: Path) -> None:
    Path("photos/other.png").write_bytes(ASTRONAUT.read_bytes())
    Path("boxes.csv").write_text("path,left,top,width,height\nastronaut.png,180,70,90,106\nabsent.png,1,2,3,4\n")
    result = dhm("align", "photos", "--boxes", "boxes.csv", "--device", "cpu", "--model", dummy_network)
    assert result.exit_code == 0
    assert "warning: 1 photo without a box in boxes.csv:\n  photos/other.png" in result.stderr
    assert "warning: 1 path of boxes.csv without a photo:\n  absent.png" in result.stderr


def test_its_own_table_gives_boxes(here: Path, dummy_network: Path) -> None:
    Path("photos/black.png").write_bytes(encode(np.zeros((90, 90, 3), np.uint8), ".png"))
    Path("photos/broken.jpg").write_text("no pixels")
    options = ("--device", "cpu", "--model", dummy_network)
    assert dhm("align", "photos", *options).exit_code == 1
    result = dhm("align", "photos", "--boxes", "landmarks.csv", "--out", "again.csv", *options)
    assert "again.csv: 3 photos, 1 face, 1 without a face, 1 unreadable" in result.stdout
    assert "1 photo without a box in landmarks.csv:\n  photos/black.png" in result.stderr
    columns = ("path", "status", "left", "top", "width", "height")
    tables = []
    for name in ("landmarks.csv", "again.csv"):
        with Path(name).open(newline="") as file:
            tables.append([[row[column] for column in columns] for row in csv.DictReader(file)])
    assert tables[0] == tables[1]


def test_a_photo_without_an_overlay_is_named(here: Path, dummy_network: Path) -> None:
    wide = np.zeros((8, 66_000, 3), np.uint8)
    Path("photos/wide.png").write_bytes(encode(wide, ".png"))
    result = dhm("align", "photos", "--device", "cpu", "--model", dummy_network, "--overlay", "drawn")
    assert result.exit_code == 0, result.output
    assert "warning: 1 photo without an overlay:\n  photos/wide.png: a JPEG cannot hold 66000 x 8" in result.stderr


def test_pictures_of_many_kinds(here: Path, dummy_network: Path) -> None:
    pictures = ("--overlay", "drawn", "--draw", "axes, box", "--crops", "crops", "--crop-style", "arcface")
    result = dhm("align", "photos", "--device", "cpu", "--model", dummy_network, *pictures, "--gallery", "faces.html")
    assert result.exit_code == 0, result.output
    assert "landmarks.csv, faces.html: 1 photo, 1 face" in result.stdout
    assert Path("drawn/astronaut.jpg").is_file()
    assert Path("crops/astronaut_0.jpg").is_file()
    assert "dhm gallery" in Path("faces.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["absent"], "error: absent: no such file or folder", "hint: check the spelling"),
        (["empty"], "error: empty: no photos in this folder", "hint: looked for .jpg"),
        (
            ["photos", "--boxes", "absent.csv"],
            "error: absent.csv: cannot be read",
            "hint: check the name given to --boxes",
        ),
        (["photos", "--out", "photos"], "error: photos: no such kind of output", "hint: for a folder of .pts"),
        (["photos", "--overlay", "photos"], "lies in the folder for overlays", "hint: "),
        (["photos", "--gallery", "faces.txt"], "a page has a name that ends in .html", "hint: such as faces.html"),
        (["photos", "--draw", "box"], "--draw: does nothing without --overlay", "hint: pass --overlay and a folder"),
        (["photos", "--crop-style", "ffhq"], "--crop-style: does nothing without --crops", "hint: pass --crops"),
        (
            ["photos", "--overlay", "o", "--draw", "points,nose"],
            "--draw 'nose': not known",
            "hint: known are mesh, points",
        ),
        (["photos", "--crops", "c", "--crop-size", "5"], "from 16 to 4096, found 5", ""),
        (["photos", "--min-score", "7"], "error: --min-score: expected a score", "hint: the default is 0.6"),
        (["a" * 300], "cannot be read: File name too long", "hint: check the name"),
    ],
)
def test_errors(here: Path, dummy_network: Path, arguments: list[str], message: str, hint: str) -> None:
    Path("empty").mkdir()
    result = dhm("align", *arguments, "--device", "cpu", "--model", dummy_network)
    assert result.exit_code == 1
    assert message in result.stderr
    assert hint in result.stderr
    assert "Traceback" not in result.output


def test_the_face_model_of_a_network_that_regresses_p(here: Path, dummy_network: Path) -> None:
    save_checkpoint(here / "dhm.safetensors", make_model("dhm"), "dhm", {})
    command = ("align", "photos", "--device", "cpu", "--model")
    refused = dhm(*command, "dhm.safetensors")
    assert refused.exit_code == 1
    assert "error: dhm.safetensors: was trained with face model" in refused.stderr
    assert f"hint: pass --face-model {DEFAULT_FACE_MODEL}" in refused.stderr
    assert not Path("landmarks.csv").exists()

    DEFAULT_FACE_MODEL.parent.mkdir()
    toy_face_model().save(DEFAULT_FACE_MODEL)
    taken = dhm(*command, "dhm.safetensors")
    assert taken.exit_code == 0, taken.output
    assert "1 photo, 1 face" in taken.stdout

    # What is named goes before what lies there; a network that needs none looks at neither.
    DEFAULT_FACE_MODEL.rename("mine.h5")
    DEFAULT_FACE_MODEL.write_text("no face model")
    assert dhm(*command, "dhm.safetensors", "--face-model", "mine.h5").exit_code == 0
    assert f"{DEFAULT_FACE_MODEL}: not a readable face model" in dhm(*command, "dhm.safetensors").stderr
    assert dhm(*command, dummy_network).exit_code == 0
    assert dhm(*command, dummy_network, "--face-model", "absent.h5").exit_code == 0


def test_the_default_face_model_is_where_prepare_writes_it() -> None:
    assert DEFAULT_FACE_MODEL == DEFAULT_DATA / FACE_MODEL


def test_usage_errors(here: Path) -> None:
    assert dhm("align", "photos", "--device", "tpu").exit_code == 2
    assert dhm("align", "photos", "--threads", "0").exit_code == 2


def test_ctrl_c_keeps_the_finished_photos(here: Path, dummy_network: Path) -> None:
    for k in range(10):
        os.link("photos/astronaut.png", f"photos/{k}.png")
    arguments = ("align", "photos", "--device", "cpu", "--model", dummy_network, "--threads", "1")
    process = start_dhm(*arguments, before=SLOW_PHOTO)
    partial = Path("landmarks.csv.partial")
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not (partial.exists() and "photos/3.png" in partial.read_text()):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    Path("go_on").touch()
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130, stderr
    assert "landmarks.csv.partial" in stderr
    assert "--resume" in stderr
    assert "Traceback" not in stderr
    assert not Path("landmarks.csv").exists()
    refused = dhm(*arguments)
    assert refused.exit_code == 1
    assert "interrupted run" in refused.stderr
    resumed = dhm(*arguments, "--resume")
    assert resumed.exit_code == 0, resumed.output
    # The last photo may have been torn, so it is done again.
    assert "11 photos (3 of them from the interrupted run), 11 faces, " in resumed.stdout
    with Path("landmarks.csv").open(newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    assert paths == sorted(f"photos/{name}" for name in os.listdir("photos"))


def test_a_file_name_that_is_not_text_can_be_reported(here: Path, dummy_network: Path) -> None:
    try:
        Path(os.fsdecode(b"photos/odd\xff.jpg")).write_text("no pixels")
    except OSError:
        pytest.skip("this file system keeps no such names")
    process = start_dhm("align", "photos", "--device", "cpu", "--model", dummy_network)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "odd" in stderr
    assert "Traceback" not in stderr


def test_the_frame_turns_problems_into_exit_codes() -> None:
    frame = typer.Typer(cls=Commands)

    @frame.command()
    def fail() -> None:
        raise DhmError("no luck", "try again")

    @frame.command()
    def stop() -> None:
        raise KeyboardInterrupt

    failed, stopped = CliRunner().invoke(frame, ["fail"]), CliRunner().invoke(frame, ["stop"])
    assert (failed.exit_code, failed.stderr) == (1, "error: no luck\nhint: try again\n")
    assert (stopped.exit_code, stopped.stderr) == (130, "interrupted\n")


def test_help_and_version() -> None:
    top = dhm("--help")
    assert top.exit_code == 0
    assert all(name in top.stdout for name in ("prepare", "train", "align"))
    assert "landmarks.csv" in dhm("align", "--help").stdout
    assert dhm("--version").stdout == f"dhm {dhm_cli.__version__}\n"


def test_the_frame_loads_nothing_heavy() -> None:
    code = (
        "import sys, dhm_cli.cli.main\n"
        "print([name for name in ('torch', 'cv2', 'numpy', 'scipy', 'onnxruntime') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_default_score_is_the_detectors() -> None:
    assert inspect.signature(align).parameters["min_score"].default == MIN_SCORE


def test_angles_of_300w_lp_by_option_and_never_in_one_table_with_others(here: Path) -> None:
    """Columns of other names, the same pose; an interrupted run of the one order is not gone on with in the other."""
    rows = []
    for name, options in (("people.csv", []), ("benchmark.csv", ["--angles", "300w-lp"])):
        assert dhm("align", "photos", "--out", name, "--device", "cpu", *options).exit_code == 0
        with open(name, newline="") as file:
            rows += list(csv.DictReader(file))
    people, benchmark = rows
    assert "pitch" not in benchmark
    assert "pitch_300w_lp" not in people
    rotations = [
        yaw_pitch_roll_to_matrix(np.radians([float(people[name]) for name in ("yaw", "pitch", "roll")])),
        euler_to_matrix(np.radians([float(benchmark[f"{name}_300w_lp"]) for name in ("pitch", "yaw", "roll")])),
    ]
    np.testing.assert_allclose(rotations[0], rotations[1], atol=1e-4)
    partial = Path("benchmark.csv.partial")
    Path("benchmark.csv").rename(partial)
    with partial.open("a") as file:  # a later photo: the last one of a partial table may be torn and is done again
        file.write("photos/later.png,,no_face" + "," * 213 + "\n")
    refused = dhm("align", "photos", "--out", "benchmark.csv", "--device", "cpu", "--resume")
    assert refused.exit_code == 1
    said = " ".join(refused.stderr.split())
    assert "other columns" in said
    assert "--columns and --angles" in said
    assert partial.exists()


def test_several_outputs_of_photos_named_on_standard_input(here: Path, dummy_network: Path) -> None:
    options = ["--device", "cpu", "--model", str(dummy_network), "--columns", "box,landmarks"]
    arguments = ["align", "-", "--out", "a.csv", "--out", "b.json", "--out", "points/", *options]
    result = CliRunner().invoke(app, arguments, input="photos/astronaut.png\nphotos/gone.png\n")
    assert result.exit_code == 1
    assert "photos/gone.png: cannot be read" in result.stderr
    assert "a.csv, b.json, points/: 2 photos, 1 face" in result.stdout
    assert sorted(path.name for path in here.iterdir()) == ["a.csv", "b.json", "photos", "points"]
    lines = dhm("align", "photos/*.png", "--out", "-", "--format", "jsonl", *options)
    assert lines.stdout.startswith('{"path": "photos/astronaut.png", "face": 0, "status": "ok", "left": ')
    assert "--format jsonl: is for --out -" in dhm("align", "photos", "--format", "jsonl", *options).stderr


def test_what_the_filters_left_out_is_told(here: Path, dummy_network: Path) -> None:
    Path("list.csv").write_text("photo\nphotos/astronaut.png\n")
    options = ["--device", "cpu", "--model", str(dummy_network), "--path-column", "photo"]
    result = dhm("align", "--from", "list.csv", "--min-size", "500", *options)
    assert result.exit_code == 0, result.output
    assert "left out: 1 face (1 by --min-size)" in result.stderr
    assert "1 photo, 0 faces, 1 without a face" in result.stdout


@pytest.mark.parametrize(
    ("passed_over", "said"),
    [
        ({".cr2": 2}, "not read: 2 .cr2\n"),
        ({".cr2": 2, ".heic": 1}, "not read: 2 .cr2, 1 .heic; pip install 'dhm-cli[heic]' to read .heic\n"),
    ],
)
def test_the_extra_for_heic_is_named_for_heic_alone(
    capsys: pytest.CaptureFixture[str], passed_over: dict[str, int], said: str
) -> None:
    _print_report(AlignmentReport((), 0, (), 1.0, not_read=passed_over), ["a.csv"], None)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("more", [0, 1])
def test_a_page_of_very_many_faces_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: int) -> None:
    page = tmp_path / "faces.html"
    with page.open("wb") as file:
        file.truncate(1_234_000_000)  # takes no room
    report = AlignmentReport((PhotoResult("a.jpg", OK, _MOST_IN_A_PAGE + more),), 0, (), 1.0)
    _print_report(report, ["a.csv", str(page)], None)
    said = " ".join(capsys.readouterr().err.split())
    assert ("1,234 MB, 100,001 faces" in said and "--largest" in said) == bool(more)
