"""Damaged MATLAB files are refused before scipy sees them, since it crashes on some; sound ones pass."""

import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from places import ROOT, SHARED_DATA

from dhm_cli.errors import InputError
from dhm_cli.io.mat_structure import check_mat_structure
from dhm_cli.io.matlab import read_mat

VARIABLES = {
    "Pose_Para": np.arange(7.0)[None],
    "Exp_Para": np.arange(29, dtype=np.uint8)[:, None],
    "pt2d": np.ones((2, 5), np.float32),
    "nothing": np.zeros((0, 3)),
    "complex": np.ones((2, 2)) + 1j,
    "struct": {"a": np.ones((1, 2)), "text": "Köln"},
    "cell": np.array([np.ones(2), "x"], object),
}
NUMBERS = {name: VARIABLES[name] for name in ("Pose_Para", "pt2d")}


def mat_bytes(**options: object) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, NUMBERS if options.get("format") == "4" else VARIABLES, **options)
    return file.getvalue()


KINDS = {"v5": mat_bytes(), "v7": mat_bytes(do_compression=True), "v4": mat_bytes(format="4")}


def big_endian() -> bytes:
    """One variable of 1 x 2 numbers, as a machine of the other byte order writes it."""

    def element(kind: int, content: bytes) -> bytes:
        return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)

    parts = element(6, struct.pack(">II", 6, 0)) + element(5, struct.pack(">ii", 1, 2)) + element(1, b"name")
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(">H", 0x0100) + b"MI"
    return header + element(14, parts + element(9, struct.pack(">dd", 1.5, 2.5)))


@pytest.mark.parametrize("data", [*KINDS.values(), big_endian()], ids=[*KINDS, "big endian"])
def test_sound_files_pass(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.mat").write_bytes(data)
    check_mat_structure(tmp_path / "a.mat")
    assert read_mat(tmp_path / "a.mat")


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="no shared data; name its folder in DHM_SHARED_DATA")
def test_real_files_pass() -> None:
    files = [*SHARED_DATA.glob("*_format/**/*.mat"), SHARED_DATA / "bfm" / "BFM68.mat"]
    assert len(files) == 27
    for file in files:
        check_mat_structure(file)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, kind: str) -> None:
    """Wherever it is cut off but between two variables, after which it is a sound file of fewer."""
    data = KINDS[kind]
    (tmp_path / "a.mat").write_bytes(data)
    names = list(read_mat(tmp_path / "a.mat"))
    sound = []
    for length in range(len(data)):
        (tmp_path / "a.mat").write_bytes(data[:length])
        try:
            sound.append(list(read_mat(tmp_path / "a.mat")))
        except InputError:
            continue
    first = 1 if kind == "v4" else 0  # the other versions have a header, behind which nothing need follow
    assert sound == [names[:count] for count in range(first, len(names))]


def test_no_changed_byte_ends_the_process(tmp_path: Path) -> None:
    """scipy 1.17 ends in a segmentation fault for 177 of these changes where nothing checks them first.

    The bytes of tags, sizes and classes are changed, in a process of their own.
    """
    code = """
import sys
from pathlib import Path
from dhm_cli.errors import InputError
from dhm_cli.io.matlab import read_mat
data, file = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
refused = 0
for at in range(128, len(data)):
    for value in (1, 5, 14, 255):
        changed = bytearray(data)
        changed[at] = value
        file.write_bytes(changed)
        try:
            read_mat(file)
        except InputError:
            refused += 1
print(refused)
"""
    (tmp_path / "sound.mat").write_bytes(KINDS["v5"])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "sound.mat"), str(tmp_path / "changed.mat")],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    assert int(done.stdout) > 500


def test_a_lie_about_the_size_is_named(tmp_path: Path) -> None:
    data = bytearray(KINDS["v5"])
    at = data.index(struct.pack("<iiii", 5, 8, 1, 7))  # the dimensions of Pose_Para
    data[at + 12] = 200
    (tmp_path / "a.mat").write_bytes(data)
    with pytest.raises(InputError, match="200 numbers of 8 bytes in 56 bytes"):
        read_mat(tmp_path / "a.mat")
