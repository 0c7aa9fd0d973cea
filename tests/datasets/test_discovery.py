"""Which dataset a folder holds, and what is said where it holds none."""

import subprocess
import sys
from pathlib import Path

import dataset_examples as examples
import pytest
from dataset_examples import message_of

from dhm_cli.datasets.catalogue import DATASETS, layouts
from dhm_cli.datasets.discovery import discover, find_layout
from dhm_cli.errors import InputError


def test_the_list_names_each_layout_as_it_names_itself() -> None:
    assert [layout.name for layout in layouts()] == list(DATASETS)


def test_the_error_lists_what_is_known_and_what_was_seen(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/2.JPG", "b/1.txt", "c/d/1.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "README").touch()
    with pytest.raises(InputError) as error:
        find_layout(tmp_path)
    text = message_of(error)
    assert "2 .jpg, 2 .txt, 1 without suffix, folders a, b, c" in text
    assert all(f"{layout.name}: {layout.description}" in text for layout in layouts())


@pytest.mark.parametrize("format", [layout.name for layout in layouts() if layout.name != "points"])
def test_a_named_layout_that_does_not_fit(tmp_path: Path, format: str) -> None:
    examples.write_image(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=f"not the layout {format}") as error:
        find_layout(tmp_path, format, tables=True)
    assert "seen: 1 .jpg" in error.value.message


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_layout(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a folder"):
        find_layout(tmp_path / "file")
    with pytest.raises(InputError, match="unknown format 'wflw'") as error:
        find_layout(tmp_path, "wflw")
    assert "300w-lp" in error.value.hint
    with pytest.raises(InputError, match="seen: nothing"):
        find_layout(_made(tmp_path / "empty"), "300w-lp")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_merl_labels_without_photos(tmp_path: Path) -> None:
    examples.write_merl_rav(tmp_path)
    for image in tmp_path.rglob("*.jpg"):
        image.unlink()
    with pytest.raises(InputError, match=r"no faces of images with signed.*seen: 10 \.pts") as error:
        find_layout(tmp_path).samples(tmp_path)
    assert "AFLW" in error.value.hint


def write_everything(root: Path) -> dict[str, str]:
    """One dataset of each kind and what must not be found; returns the layouts by folder."""
    examples.write_300w_lp(root / "300W-LP")
    examples.write_aflw2000(root / "deep" / "er" / "AFLW2000")
    examples.write_ls3d_w(root / "LS3D-W")
    examples.write_300vw(root / "300VW", ("001",))
    examples.write_merl_rav(root / "merl")
    examples.write_pts(
        examples.write_image(root / "mine" / "faces" / "a.jpg").with_suffix(".pts"), examples.make_points()
    )
    examples.write_image(root / "photos" / "a.jpg")
    for hidden in (".cache", "env", "node_modules", "out"):
        examples.write_aflw2000(root / hidden / "AFLW2000")
    (root / "env" / "pyvenv.cfg").touch()
    examples.write_aflw2000(root / "a" / "b" / "c" / "d" / "e")
    (root / "link").symlink_to(root / "merl", target_is_directory=True)
    return {
        "300W-LP": "300w-lp",
        "deep/er/AFLW2000": "aflw2000-3d",
        "LS3D-W": "ls3d-w",
        "300VW": "300vw",
        "merl": "signed-pts",
        "mine/faces": "pts",
    }


def test_discover(tmp_path: Path) -> None:
    expected = write_everything(tmp_path)
    found = discover(tmp_path, {(tmp_path / "out").resolve()})
    assert {path.relative_to(tmp_path).as_posix(): layout.name for path, layout in found} == expected
    deeper = discover(tmp_path, set(), depth=5)
    assert tmp_path / "a" / "b" / "c" / "d" / "e" in [path for path, _ in deeper]
    with pytest.raises(InputError, match="several datasets: 300vw, 300w-lp, aflw2000-3d, ls3d-w, pts, signed-pts"):
        find_layout(tmp_path)


def test_parts_of_ls3d_w_beside_other_datasets(tmp_path: Path) -> None:
    examples.write_ls3d_w(tmp_path / "data")
    examples.write_300w_lp(tmp_path / "data" / "300W_LP")
    found = {path.name: layout.name for path, layout in discover(tmp_path, set())}
    assert found == {
        "300VW-3D": "ls3d-w",
        "300W-Testset-3D": "ls3d-w",
        "AFLW2000-3D-Reannotated": "ls3d-w",
        "Menpo-3D": "ls3d-w",
        "300W_LP": "300w-lp",
    }


def test_folders_that_must_not_be_read(tmp_path: Path) -> None:
    examples.write_aflw2000(tmp_path / "AFLW2000")
    closed = _made(tmp_path / "closed")
    closed.chmod(0)
    try:
        assert [path.name for path, _ in discover(tmp_path, set())] == ["AFLW2000"]
    finally:
        closed.chmod(0o755)


def test_importing_datasets_loads_no_torch() -> None:
    code = "import dhm_cli.datasets.catalogue, sys; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert not {"torch", "scipy", "h5py"} & set(result.stdout.split())
