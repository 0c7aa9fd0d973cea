"""The mark in every PNG that dhm draws, by which it knows its own pictures again."""

import struct
import zlib
from pathlib import Path

# Without a version, so that the same picture stays the same file.
SOFTWARE = "dhm"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Where the chunks behind the header (IHDR) begin.
_BEHIND_HEADER = 33
# The mark stands among the first chunks.
_SEARCHED = 4096


def marked(png: bytes) -> bytes:
    """A PNG with the mark behind its header, a text chunk Software=dhm.

    Args:
        png: content of a PNG file.
    """
    return png[:_BEHIND_HEADER] + _mark() + png[_BEHIND_HEADER:]


def is_our_png(path: Path) -> bool:
    """Whether a file is a picture that dhm drew.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        beginning = file.read(_SEARCHED)
    return beginning.startswith(_SIGNATURE) and _mark() in beginning


def _mark() -> bytes:
    content = b"tEXt" + f"Software\0{SOFTWARE}".encode("latin-1")
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
