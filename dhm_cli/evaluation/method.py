"""What a method says of the faces, and where that comes from."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Origin:
    """Where the points of a method come from.

    Attributes:
        kind: "network" or "predictions".
        file: of the network or the predictions, as given.
        hash: first 16 digits of the SHA-256 of the network's weights, or of the predicted points.
        unused: predictions that belong to no face; None for a network.
        arch, input_size, protocol, refine: of a network; None for predictions.
    """

    kind: str
    file: str = ""
    hash: str = ""
    unused: int | None = None
    arch: str | None = None
    input_size: int | None = None
    protocol: str | None = None
    refine: int | None = None

    @property
    def is_network(self) -> bool:
        """Whether the points are a network's, found in the boxes of the protocol."""
        return self.kind == "network"

    def to_json(self) -> dict[str, Any]:
        """As `report.json` has it, but for the method's name; a network has no `unused`."""
        return {key: value for key, value in asdict(self).items() if key != "unused" or value is not None}


@dataclass(frozen=True, eq=False)
class Method:
    """What a method says of N faces.

    Attributes:
        name: for tables and charts.
        origin: where they come from, for the report.
        landmarks: (N, 68, 2 or 3), 0-based image pixels; NaN for a face that was not found.
        pose: (N, 3), pitch, yaw, roll in degrees, NaN where not given; None where the method gives none.
        variants: (V, N, 68, 3), landmarks from each of `protocols.JITTERS` or `protocols.ROLLS`; None under other
            protocols.
        upright: (N, 68, 3), landmarks after one more pass, over an upright crop; None where that was not asked for.
        sigma, visibility, confidence: what the network tells of its landmarks (`engines.Answer`), in image pixels; None
            where it tells nothing.
        not_faces: (M,), its confidence in pictures without a face; None without such pictures.
    """

    name: str
    origin: Origin
    landmarks: NDArray[np.floating]
    pose: NDArray[np.float64] | None = None
    variants: NDArray[np.floating] | None = None
    upright: NDArray[np.floating] | None = None
    sigma: NDArray[np.floating] | None = None
    visibility: NDArray[np.floating] | None = None
    confidence: NDArray[np.floating] | None = None
    not_faces: NDArray[np.floating] | None = None

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which faces it gave points for, (N,)."""
        return ~np.isnan(self.landmarks).any(axis=(1, 2))

    def take(self, chosen: NDArray[np.bool_]) -> "Method":
        """What it says of some of the faces, by mask."""
        by_face = ("landmarks", "pose", "upright", "sigma", "visibility", "confidence")
        values = {name: getattr(self, name) for name in by_face}
        taken: dict[str, Any] = {name: None if value is None else value[chosen] for name, value in values.items()}
        return replace(self, **taken, variants=None if self.variants is None else self.variants[:, chosen])
