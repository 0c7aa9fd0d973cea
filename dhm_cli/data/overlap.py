"""Overlap of validation and training faces, which would make validation errors too low."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dhm_cli.data.store import FaceStore

# How many examples a sentence gives.
_NAMED = 3


def split_overlap(stores: Sequence[FaceStore]) -> list[str]:
    """Look for validation faces whose identity, source file or image is also trained on, over all stores.

    Identities and source files are names within a dataset, so they are compared between stores of the same dataset and
    source folder only; images are compared everywhere, byte by byte. Faces that training leaves out (flagged, or of
    the test split) do not count.

    Args:
        stores: all that are trained on together.

    Returns:
        A sentence for each kind of finding in each dataset, with a count and examples; empty where all is well.
    """
    datasets: dict[tuple[str, str], list[FaceStore]] = defaultdict(list)
    for store in stores:
        datasets[_dataset(store)].append(store)
    found: list[str] = []
    for (dataset, folder), members in datasets.items():
        found += _shared_labels(members, f"{dataset} ({folder})")
    return [*found, *_shared_images(stores)]


def _dataset(store: FaceStore) -> tuple[str, str]:
    """Dataset and source folder, within which names are compared; a store without a record of them stands alone."""
    dataset, folder = (store.attributes.get(name) for name in ("dataset", "source"))
    return (str(dataset), str(folder)) if dataset and folder else (store.path.name, str(store.path))


def _shared_labels(stores: Sequence[FaceStore], dataset: str) -> Iterator[str]:
    for field, meaning in (("identity", "identity"), ("source", "source file")):
        train, validation = (
            np.concatenate([getattr(s.labels, field)[s.labels.in_split(split)] for s in stores])
            for split in ("train", "val")
        )
        shared = validation[np.isin(validation, train)]
        if len(shared):
            yield (
                f"{_faces(len(shared))} of {dataset} with the {meaning} of a training face: "
                f"{_examples(np.unique(shared).tolist())}"
            )


def _shared_images(stores: Sequence[FaceStore]) -> Iterator[str]:
    trained = dict(_digests(stores, "train", _sizes(stores, "val")))
    shared = [
        f"{name} is {trained[digest]}"
        for digest, name in _digests(stores, "val", _sizes(stores, "train"))
        if digest in trained
    ]
    if shared:
        yield f"{_faces(len(shared))} with the very image of a training face: {_examples(shared)}"


def _sizes(stores: Sequence[FaceStore], split: str) -> NDArray[np.int64]:
    return np.unique(np.concatenate([store.sizes[store.labels.in_split(split)] for store in stores]))


def _digests(stores: Sequence[FaceStore], split: str, sizes: NDArray[np.int64]) -> Iterator[tuple[bytes, str]]:
    """Hash of the encoded image and name of each face of a split, for images whose size in bytes is one of `sizes`."""
    for store in stores:
        rows = store.labels.in_split(split)
        rows = rows[np.isin(store.sizes[rows], sizes)]
        for data, name in zip(store.encoded_images(rows), store.labels.names[rows], strict=True):
            yield hashlib.blake2b(data, digest_size=16).digest(), f"{store.path.name}: {name}"


def _faces(count: int) -> str:
    return f"{count:,} validation face{'s' if count > 1 else ''}"


def _examples(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
