"""dhm: 68 three-dimensional facial landmarks from photos, large poses included."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dhm_cli.workflows.alignment import Aligner, Face

__version__ = "0.1.0"
__all__ = ["Aligner", "Face", "__version__"]


def __getattr__(name: str) -> Any:
    """Load `Aligner` and `Face` on first use, so that `import dhm_cli` stays instant."""
    if name in ("Aligner", "Face"):
        from dhm_cli.workflows import alignment

        return getattr(alignment, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
