"""Training and validation splits by identity, never by file: the views of one face stay together."""

import hashlib
from collections import Counter
from collections.abc import Sequence


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
