"""The protocol of the face model readers: how a kind of file is recognised and read. `kinds.READERS` lists them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dhm_cli.morphable.readers.contents import Contents
from dhm_cli.morphable.readers.surface import Surface


@dataclass(frozen=True)
class Reader:
    """How one kind of face model file or folder is read.

    Attributes:
        name: of the kind, in messages and records.
        description: what such files hold, a phrase for messages.
        recognise: whether a file or folder is of this kind, told from what is in it.
        read: makes a `Surface` of the file or folder. Raises InputError where it is damaged or incomplete.
        suffixes: of such files, lower case; in a folder only files with a known suffix are looked into.
        expression_apart: the expression basis may lie in a file of its own (`expression_basis`).
        keypoints_hint: where the 68 key vertices come from, if the files do not name them.
    """

    name: str
    description: str
    recognise: Callable[[Contents], bool]
    read: Callable[[Path], Surface]
    suffixes: tuple[str, ...] = (".mat",)
    expression_apart: bool = False
    keypoints_hint: str = "name a file of 68 vertex numbers (0-based, one a line) with --keypoints"
