"""The house: who may import whom, and what a light import must not load."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import dhm_cli

ROOT = Path(dhm_cli.__file__).parent
# Bottom floor first; a module may import from its own room and from the floors below.
FLOORS = (
    ("errors", "version"),
    ("runtime", "docs"),
    ("geometry", "config"),
    ("io", "metrics", "motion"),
    ("dense",),
    ("morphable", "drawing"),
    ("models", "datasets"),
    ("data", "inference"),
    ("writers",),
    ("preparation", "training", "evaluation", "export", "benchmark", "alignment"),
    ("distributed",),
    ("cli",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# Modules that `dhm align` needs: torch takes two seconds to load.
LIGHT = ("dhm_cli.inference.aligner", "dhm_cli.alignment.photos", "dhm_cli.distributed", "dhm_cli.io.images")

LIGHT_ROOMS = (
    "alignment",
    "cli",
    "config",
    "datasets",
    "dense",
    "distributed",
    "docs",
    "drawing",
    "evaluation",
    "geometry",
    "inference",
    "io",
    "metrics",
    "runtime",
    "writers",
)


def module_name(path: Path) -> str:
    parts = ("dhm_cli", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imported(node: ast.AST) -> list[str]:
    """Modules that one import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "no relative imports"
        if node.module == "dhm_cli":  # the front door: a noun counts as the module that it comes from
            return [f"dhm_cli.{dhm_cli._ROOMS.get(alias.name, alias.name)}" for alias in node.names]
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        return [name if name in MODULES else str(node.module) for name in names]
    return []


def all_imports(name: str) -> set[str]:
    """Every import in a module, those inside functions too."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    return {target for node in ast.walk(tree) for target in imported(node)}


def module_level_imports(node: ast.AST) -> Iterator[str]:
    """What is imported when the module is, without function bodies and `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield from imported(child)
        yield from module_level_imports(child)


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


# The package itself offers `Aligner` on first use, and `python -m dhm_cli` is the command: both look at the top floor.
INSIDE = sorted(name for name in MODULES if name not in ("dhm_cli", "dhm_cli.__main__"))


def test_every_room_has_a_floor() -> None:
    assert {room(name) for name in INSIDE} == set(FLOOR_OF)


@pytest.mark.parametrize("name", INSIDE)
def test_nothing_imports_upwards_or_sideways(name: str) -> None:
    """From its own room and from lower floors only; so no stage imports another."""
    for target in all_imports(name):
        if target.startswith("dhm_cli."):
            own = room(target) == room(name)
            assert own or FLOOR_OF[room(target)] < FLOOR_OF[room(name)], f"{name} imports {target}"


def test_no_circle() -> None:
    graph = {name: {t for t in all_imports(name) if t in MODULES and t != name} for name in INSIDE}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(INSIDE)


@pytest.mark.parametrize(
    ("line", "module"),
    [
        ("from dhm_cli import Aligner", "dhm_cli.inference.aligner"),
        ("from dhm_cli import load_checkpoint as load", "dhm_cli.models.checkpoint"),
        ("from dhm_cli import __version__", "dhm_cli.__version__"),
        ("from dhm_cli.io import images", "dhm_cli.io.images"),
        ("from dhm_cli.io.images import read_image", "dhm_cli.io.images"),
        ("import dhm_cli.io.images", "dhm_cli.io.images"),
    ],
)
def test_imports_are_seen_through_the_front_door(line: str, module: str) -> None:
    assert imported(ast.parse(line).body[0]) == [module]


@pytest.mark.parametrize("name", INSIDE)
def test_typer_and_rich_live_in_cli_only(name: str) -> None:
    tops = {target.split(".")[0] for target in all_imports(name)}
    if room(name) != "cli":
        assert not tops & {"typer", "rich"}


def test_onnxruntime_is_imported_for_three_things() -> None:
    """To run networks in one file, to quantise them, and to measure."""
    users = {name for name in INSIDE if "onnxruntime" in {target.split(".")[0] for target in all_imports(name)}}
    users = {name for name in users if room(name) not in ("export", "benchmark")}
    assert users == {"dhm_cli.inference.onnx_session"}


def test_the_network_packages_know_no_files() -> None:
    for name in INSIDE:
        if room(name) == "models" and name not in ("dhm_cli.models.checkpoint", "dhm_cli.models.onnx_graph"):
            tops = {target.split(".")[0] for target in all_imports(name)}
            assert not tops & {"h5py", "cv2", "scipy", "safetensors"}, name


@pytest.mark.parametrize(
    "name",
    [n for n in INSIDE if room(n) in LIGHT_ROOMS],
)
def test_no_torch_when_a_light_module_is_imported(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    assert "torch" not in {target.split(".")[0] for target in module_level_imports(tree)}


def loaded_after(statement: str) -> set[str]:
    """Top-level packages in a fresh interpreter after a statement."""
    code = f"{statement}; import sys; print(*{{m.split('.')[0] for m in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent, timeout=120
    )
    return set(result.stdout.split())


def test_the_package_and_the_command_load_nothing_heavy() -> None:
    loaded = loaded_after("import dhm_cli, dhm_cli.cli.main")
    assert "typer" in loaded
    assert not loaded & {"torch", "cv2", "numpy", "scipy", "h5py", "onnxruntime", "matplotlib", "tomlkit"}


def test_alignment_loads_no_torch() -> None:
    loaded = loaded_after("import " + ", ".join(LIGHT))
    assert "numpy" in loaded
    assert not loaded & {"torch", "scipy", "h5py", "typer", "fsspec", "ray", "pyarrow"}


def test_the_metrics_need_numpy_alone() -> None:
    loaded = loaded_after("import dhm_cli.metrics.landmark_error, dhm_cli.metrics.bootstrap")
    assert "numpy" in loaded
    assert not loaded & {"torch", "scipy", "h5py", "cv2", "typer", "matplotlib", "onnxruntime"}


def test_dhm_align_runs_without_torch(tmp_path: Path) -> None:
    """The whole command on the CPU, on an interpreter where importing torch fails."""
    code = "import sys; sys.modules['torch'] = None; from dhm_cli.cli.main import main; main()"
    photos, table = ROOT.parent / "sample_data" / "photos", tmp_path / "landmarks.csv"
    command = [sys.executable, "-c", code, "align", str(photos), "--out", str(table), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT.parent, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "0 unreadable" in done.stdout
    assert table.is_file()
