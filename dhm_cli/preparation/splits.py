"""Training and validation splits by identity, never by file: the views of one face stay together."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dhm_cli.data.store import SPLITS, FaceLabels
from dhm_cli.preparation.labelling import Labeller
from dhm_cli.preparation.options import PrepareOptions

# Share of the faces held out for validation where nothing else is said; 3,061 of 61,225 in 300W-LP (Sun et al. 2018).
VALIDATION_SHARE = 0.05


def assign_splits(labels: FaceLabels, labeller: Labeller, options: PrepareOptions) -> FaceLabels:
    """Split of each face: the table's word, else the dataset's, else the option's, else drawn by identity.

    Where a dataset knows train and test only, the validation faces are drawn from its training faces.

    Args:
        labels: N faces, their split not yet decided.
        labeller: what dataset and table say.
        options: the split of faces of which neither says anything, and the seed.

    Returns:
        The labels with `split` filled in.
    """
    complete = any(sample.split == "val" for sample in labeller.samples)
    own = {"auto": options.split, "train": "train" if complete or options.split == "train" else "auto"}
    said = {
        sample.name: row.split or own.get(sample.split, sample.split)
        for sample, row in zip(labeller.samples, labeller.rows, strict=True)
    }
    unsaid = [(n, i) for n, i in zip(labels.names, labels.identity.tolist(), strict=True) if said[n] == "auto"]
    # Mirrored copies follow their originals and do not count.
    flips = labeller.layout.flips or (lambda name: False)
    drawn = [identity for name, identity in unsaid if not flips(name)] or [identity for _, identity in unsaid]
    validation = validation_identities(drawn, VALIDATION_SHARE, options.seed)
    said |= {name: "val" if identity in validation else "train" for name, identity in unsaid}
    return replace(labels, split=np.array([SPLITS.index(said[name]) for name in labels.names], dtype=np.uint8))


def held_out(identities: Sequence[str], count: int, seed: int = 0) -> set[str]:
    """Draw identities whose faces add up to a wanted number.

    The order of the identities is drawn by a hash of seed and name, so it does not depend on what else is there; of
    that order the earliest possible ones are taken that reach the number exactly.

    Args:
        identities: of every face, (N,).
        count: how many faces to hold out.
        seed: of the draw.

    Returns:
        Identities with exactly `count` faces where any choice has that many, else with the most below it.
    """
    sizes = Counter(identities)
    order = sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    # Bit n of reachable[i] is set when some of the first i identities add up to n faces.
    mask = (1 << (count + 1)) - 1
    reachable = [1]
    for name in order:
        if reachable[-1] >> count & 1:
            break
        reachable.append((reachable[-1] | reachable[-1] << sizes[name]) & mask)
    rest = reachable[-1].bit_length() - 1
    chosen = set()
    for i in range(len(reachable) - 1, 0, -1):
        if not reachable[i - 1] >> rest & 1:
            chosen.add(order[i - 1])
            rest -= sizes[order[i - 1]]
    return chosen


def validation_identities(identities: Sequence[str], share: float, seed: int = 0) -> set[str]:
    """Identities that hold about a share of the faces; at least one where there are two or more identities.

    Args:
        identities: of every face, (N,).
        share: 0 to 1.
        seed: of the draw.
    """
    chosen = held_out(identities, round(share * len(identities)), seed)
    if chosen or len(set(identities)) < 2:
        return chosen
    smallest = min(Counter(identities).values())
    return held_out(identities, smallest, seed)
