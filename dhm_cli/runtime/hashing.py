"""SHA-256 of files and of data."""

import hashlib
from pathlib import Path

# Digits of a short hash.
SHORT = 16
_CHUNK = 1 << 20


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits; read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def short_hash(data: bytes | Path) -> str:
    """First 16 digits of the SHA-256 of data or of a file's content: what reports and checkpoints name files by."""
    return (file_hash(data) if isinstance(data, Path) else hashlib.sha256(data).hexdigest())[:SHORT]
