"""HDF5 files: a full disk is an error and no crash; nothing is read from another file."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from places import ROOT

from dhm_cli.errors import DhmError, FormatError
from dhm_cli.io.hdf5 import new_hdf5, open_hdf5

MEGABYTE = 1_000_000


def fill(file: h5py.File, megabytes: int = 4) -> None:
    file.attrs["format"] = "test"
    stored = file.create_dataset("images", shape=(megabytes * MEGABYTE,), dtype=np.uint8)
    for k in range(megabytes):
        stored[k * MEGABYTE : (k + 1) * MEGABYTE] = k
    file["names"] = np.array(["a", "böe"]).astype(h5py.string_dtype())


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    with new_hdf5(tmp_path / "folder" / "a.h5") as file:
        fill(file)
    with open_hdf5(tmp_path / "folder" / "a.h5") as file:
        assert file["images"][::MEGABYTE].tolist() == [0, 1, 2, 3]
        assert file["names"].asstr()[()].tolist() == ["a", "böe"]
    assert os.listdir(tmp_path / "folder") == ["a.h5"]


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        with new_hdf5(tmp_path / name) as file:
            fill(file)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing(small_disk: Path) -> None:
    """In a process of its own: HDF5 by itself ends in a segmentation fault there."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path\n"
        "from test_hdf5 import fill, new_hdf5\n"
        "with new_hdf5(Path(sys.argv[1])) as file: fill(file)"
    )
    path = small_disk / "a.h5"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(Path(__file__).parent)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert f"{path}: no room on the disk" in done.stderr
    assert os.listdir(small_disk) == []


def test_a_disk_that_would_become_full_is_seen_first(small_disk: Path) -> None:
    with (
        pytest.raises(DhmError, match=r"a\.h5: no room on the disk: it takes about 4 MB and 2 MB are free"),
        new_hdf5(small_disk / "a.h5", expected=4 * MEGABYTE),
    ):
        pytest.fail("nothing is begun")


def test_an_older_file_survives_a_full_disk(small_disk: Path) -> None:
    with new_hdf5(small_disk / "a.h5") as file:
        fill(file, 1)
    before = (small_disk / "a.h5").read_bytes()
    with pytest.raises(DhmError, match="no room"), new_hdf5(small_disk / "a.h5") as file:
        fill(file)
    assert (small_disk / "a.h5").read_bytes() == before


@pytest.mark.parametrize("kind", ["link", "nested link", "storage", "virtual"])
def test_a_file_that_shows_another_file_is_refused(tmp_path: Path, kind: str) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["names"] = np.arange(4, dtype=np.uint8)
    with h5py.File(tmp_path / "sent.h5", "w") as file:
        if kind.endswith("link"):
            group = file.create_group("deep/er") if kind == "nested link" else file
            group["names"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "names")
        elif kind == "storage":
            file.create_dataset("names", (4,), np.uint8, external=[(str(tmp_path / "secret.h5"), 0, 4)])
        else:
            layout = h5py.VirtualLayout((4,), np.uint8)
            layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "names", (4,))
            file.create_virtual_dataset("names", layout)
    with pytest.raises(FormatError, match=r"sent\.h5: .*names"), open_hdf5(tmp_path / "sent.h5"):
        pytest.fail("it was opened")


def test_links_within_a_file_are_fine(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/names"] = np.arange(4)
        file["soft"], file["hard"] = h5py.SoftLink("/group/names"), file["group"]
        file["group/up"] = file["/"]
    with open_hdf5(tmp_path / "a.h5") as file:
        assert file["soft"][()].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("error", [RuntimeError, SystemError, KeyError, ValueError])
def test_damage_that_h5py_tells_in_other_words_is_an_os_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """A store with a damaged heap ended `dhm prepare --show` with a RuntimeError, and `--check` with a SystemError."""

    def stumble(*_: object) -> None:
        raise error("bad heap free list")

    with new_hdf5(tmp_path / "a.h5") as file:
        fill(file, 1)
    monkeypatch.setattr(h5py.File, "visititems_links", stumble)
    with pytest.raises(OSError, match=r"damaged: .*bad heap free list"), open_hdf5(tmp_path / "a.h5"):
        pass


def test_damage_found_while_reading_is_an_os_error(tmp_path: Path) -> None:
    """As above: HDF5 may stumble later than on opening."""
    with new_hdf5(tmp_path / "a.h5") as file:
        fill(file, 1)
    with pytest.raises(OSError, match="damaged: bad symbol table"), open_hdf5(tmp_path / "a.h5"):
        raise RuntimeError("bad symbol table")
