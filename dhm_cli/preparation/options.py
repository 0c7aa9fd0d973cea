"""What `dhm prepare` is asked to do with a dataset."""

import shlex
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from dhm_cli.morphable.face_model import FaceModel
from dhm_cli.runtime.hashing import file_hash


@dataclass(frozen=True)
class PrepareOptions:
    """What to read besides the images of a dataset, and what to do with it.

    Attributes:
        format: name of a dataset layout (`datasets.catalogue`), or auto.
        points: .npz of human points, for faces without an annotation file (`io.point_tables.PointTable`).
        prior: .npz of approximate points of all 68 landmarks, which pull at low weight beside human ones.
        table: CSV with `name` and optionally `split`, `identity` and `yaw`.
        reannotated: second label set of AFLW2000-3D (`datasets.benchmark_labels.read_reannotated`).
        reannotated_origin: number of the first pixel in that set, 0 or 1.
        yaw_labels: .npy of the dataset's own yaw labels, degrees, in the order of the sorted names.
        split: split of faces that neither table nor dataset says anything of: train, val, test, or auto (5 % of the
            faces for validation, by identity).
        seed: of the automatic split.
        max_residual: percent of the face size; worse fits of training faces are dropped or flagged. Faces of other
            splits are kept, so that hard faces stay in the figures.
        over_residual: what to do with them.
        self_occlusion: landmarks without a point in an annotated face are hidden by the head itself, as in MERL-RAV;
            else they have no label.
        strict: refuse the dataset when the checks find an error or a warning.
        name: name of the store instead of the layout's or the folder's.
    """

    format: str = "auto"
    points: Path | None = None
    prior: Path | None = None
    table: Path | None = None
    reannotated: Path | None = None
    reannotated_origin: int = 0
    yaw_labels: Path | None = None
    split: str = "auto"
    seed: int = 0
    max_residual: float = 4.0
    over_residual: Literal["drop", "flag"] = "drop"
    self_occlusion: bool = False
    strict: bool = False
    name: str | None = None

    def inputs(self) -> dict[str, Path]:
        """The files and folders that the options name, by the option's name."""
        return {name: value for name, value in asdict(self).items() if isinstance(value, Path)}

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file named in the options, by the option's name."""
        return {name: file_hash(path) for name, path in self.inputs().items() if path.is_file()}

    def command(self, folder: Path, model: FaceModel) -> str:
        """The command line, with names in place of paths: the same on every machine."""
        words = ["dhm", "prepare", shlex.quote(folder.resolve().name), "--bfm", shlex.quote(model.name)]
        for option in fields(self):
            value = getattr(self, option.name)
            if value is True and option.name != "strict":
                words.append(f"--{option.name.replace('_', '-')}")
            elif value != option.default and option.name != "strict":
                text = value.name if isinstance(value, Path) else str(value)
                words += [f"--{option.name.replace('_', '-')}", shlex.quote(text)]
        return " ".join(words)
