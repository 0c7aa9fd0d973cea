"""Settings in TOML files."""

from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import ParseError, TOMLKitError

from dhm_cli.errors import FormatError, InputError
from dhm_cli.runtime.atomic import written_atomically


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file into plain dictionaries, lists, strings and numbers.

    Args:
        path: UTF-8, with or without a byte order mark.

    Returns:
        The file's tables, nested as in the file.

    Raises:
        InputError: the file is missing or cannot be read.
        FormatError: not TOML; names line and column.
    """
    try:
        # utf-8-sig: editors on Windows write a mark, which TOML does not know.
        return tomlkit.parse(path.read_bytes().decode("utf-8-sig")).unwrap()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}", "check the path") from error
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise FormatError(f"{path}, line {line}, column {column}: not UTF-8", "save it as UTF-8") from error
    except TOMLKitError as error:
        where, what = f"{path}", str(error)
        if isinstance(error, ParseError):
            # Its columns count from 0. It notices a key given twice only after the key's line.
            where += f", line {error.line}, column {error.col + 1}"
            what = what.removesuffix(f" at line {error.line} col {error.col}").rstrip(".")
        raise FormatError(f"{where}: not TOML: {what}", "correct it there or just before") from error


def write_toml(path: Path, settings: dict[str, Any]) -> None:
    """Write settings to a TOML file, atomically; `read_toml` gives them back equal.

    Args:
        path: the file; its folder is made.
        settings: strings, finite numbers, booleans, lists and nested dictionaries of them; the nested ones last.
    """
    text = tomlkit.dumps(settings)
    with written_atomically(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
