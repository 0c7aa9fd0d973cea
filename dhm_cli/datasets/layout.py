"""The layout of a dataset: how its folder is recognised and its faces are listed and read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dhm_cli.datasets.folders import survey
from dhm_cli.datasets.samples import Sample, Truth
from dhm_cli.errors import InputError
from dhm_cli.io.pts import NO_LABEL


@dataclass(frozen=True)
class Layout:
    """How one dataset, or one kind of dataset, lies on disk.

    Attributes:
        name: for `--format` and reports.
        title: the dataset's own name.
        description: what the folder looks like, one line.
        remedy: what to do when a face of such a folder cannot be used.
        recognise: whether a folder is the top folder of such a dataset, told from a few names and files.
        list_samples: all faces below a folder, in any order; the list gets what could not be read (`folders.walk`).
        read_file: truth of a face from its annotation file.
        store: name of the store; empty where many datasets share the layout and the folder's name tells them apart.
        labels_required: a face without an annotation file is an error; else it may get its labels from a table.
        has_parameters: the annotations hold 3DMM parameters.
        silhouette_jaw: jaw points on the far side follow the visible outline, not the jaw of the 3D face.
        published: faces of each subset as published; empty where not known.
        flips: whether the face of a name is the mirrored copy of another; None where the dataset has no such copies.
    """

    name: str
    title: str
    description: str
    remedy: str
    recognise: Callable[[Path], bool]
    list_samples: Callable[[Path, list[str] | None], list[Sample]]
    read_file: Callable[[Path, Sample], Truth]
    store: str = ""
    labels_required: bool = True
    has_parameters: bool = False
    silhouette_jaw: bool = False
    published: Mapping[str, int] = field(default_factory=dict)
    flips: Callable[[str], bool] | None = None

    def samples(self, folder: Path, unread: list[str] | None = None) -> list[Sample]:
        """All faces below a folder, sorted by name; frames of a video in their order.

        Args:
            folder: the dataset.
            unread: gets a sentence for each folder below that cannot be read, which is left out; without it, an error.

        Raises:
            InputError: there is none, or a folder cannot be read.
        """
        samples = sorted(self.list_samples(folder, unread), key=lambda sample: sample.name)
        if not samples and unread:
            raise InputError(unread[0], "check the permissions")
        if not samples:
            raise InputError(
                f"{folder}: no faces of {self.title}, that is {self.description}; seen: {survey(folder)}", self.remedy
            )
        return samples

    def read(self, sample: Sample, height: int, width: int) -> Truth:
        """What the annotation of a face says.

        Args:
            sample: one of `samples`.
            height: of its image, pixels.
            width: of its image, pixels.

        Raises:
            InputError: the annotation is damaged, of another kind, missing in a dataset that has one for every face,
                or belongs to another image: none of its points lies inside this one.
        """
        if sample.annotation is None:
            if self.labels_required:
                raise InputError(f"{sample.image}: no annotation of the same name beside it", self.remedy)
            return Truth.nothing()
        truth = self.read_file(sample.annotation, sample)
        x, y = truth.points[truth.visibility != NO_LABEL].T
        if x.size and not ((x > -0.5) & (y > -0.5) & (x < width - 0.5) & (y < height - 0.5)).any():
            raise InputError(
                f"{sample.annotation}: every point lies outside the image of {width} x {height} pixels",
                "check that the two belong together and that the image was not resized",
            )
        return truth
