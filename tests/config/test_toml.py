"""Settings in TOML files."""

from pathlib import Path

import pytest

from dhm_cli.config.toml import read_toml, write_toml
from dhm_cli.errors import FormatError, InputError

SETTINGS = {
    "arch": "dhm",
    "data": ["data/a b.h5", 'od"d\\name é.h5=0.5'],
    "training": {
        "learning_rate": 5e-05,
        "decay": 0.1 + 0.2,
        "large": 1e22,
        "epochs": 60.0,
        "seed": 2**63 - 1,
        "on": True,
        "decay_epochs": [],
        "augmentation": {"mirror": 0.5},
    },
    "network": {"blocks": [[32, 2], [64, 1]]},
}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "config.toml"
    write_toml(path, SETTINGS)
    found = read_toml(path)
    assert found == SETTINGS
    for name, value in SETTINGS["training"].items():  # 60 == 60.0 and True == 1
        kind = dict if isinstance(value, dict) else type(value)
        assert type(found["training"][name]) is kind, name
    assert [p.name for p in path.parent.iterdir()] == ["config.toml"]


def test_equal_settings_are_equal_files(tmp_path: Path) -> None:
    write_toml(tmp_path / "a.toml", SETTINGS)
    write_toml(tmp_path / "b.toml", read_toml(tmp_path / "a.toml"))
    assert (tmp_path / "a.toml").read_bytes() == (tmp_path / "b.toml").read_bytes()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    write_toml(path, {"a": 1})
    with pytest.raises(UnicodeEncodeError):
        write_toml(path, {"a": "\udcff"})
    assert read_toml(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["config.toml"]


def test_files_of_other_editors(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b'\xef\xbb\xbf# a comment\r\narch = "rhg"\r\n[training]\r\nbatch = 32 # faces\r\n')
    assert read_toml(path) == {"arch": "rhg", "training": {"batch": 32}}
    path.write_bytes(b"")
    assert read_toml(path) == {}


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"arch = \n", "line 1, column 8"),
        (b'arch = "dhm"\n[training]\nbatch = 32 faces\n', "line 3, column 12"),
        (b"[training\n", "line 1, column 10"),
        (b"batch = 1\nbatch = 2\nseed = 1\n", 'line 3, column 1: not TOML: Key "batch" already exists'),
        (b"a = {b = 1, b = 2}\n", 'Key "b" already exists'),
        (b"a = 1\nb = '\xe9'\n", "line 2, column 6: not UTF-8"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, content: bytes, place: str) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        read_toml(path)
    assert caught.value.message.startswith(str(path))
    assert place in caught.value.message
    assert " at line " not in caught.value.message
    assert caught.value.hint


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: cannot be read: No such file"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot be read"):
        read_toml(tmp_path)
