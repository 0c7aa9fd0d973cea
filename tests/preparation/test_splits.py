"""Splits keep identities together and hit the number that is asked for."""

from collections import Counter

import numpy as np
import pytest

from dhm_cli.preparation.splits import VALIDATION_SHARE, held_out, validation_identities


def groups(sizes: list[int]) -> list[str]:
    """Identities g0, g1, ... with so many faces each."""
    return [f"g{i}" for i, size in enumerate(sizes) for _ in range(size)]


def count(identities: list[str], chosen: set[str]) -> int:
    return sum(identity in chosen for identity in identities)


@pytest.mark.parametrize("wanted", [1, 7, 100, 3061])
def test_the_number_is_met_exactly(wanted: int) -> None:
    identities = groups([1 + (7 * i) % 17 for i in range(700)])
    assert count(identities, held_out(identities, wanted)) == wanted


def test_the_most_below_where_no_choice_is_exact() -> None:
    assert count(groups([4] * 10), held_out(groups([4] * 10), 10)) == 8
    assert held_out(groups([5, 5]), 4) == set()


def test_the_order_of_the_faces_does_not_matter() -> None:
    identities = groups([1 + i % 5 for i in range(60)])
    shuffled = np.random.default_rng(0).permutation(identities).tolist()
    assert held_out(identities, 20) == held_out(shuffled, 20)


def test_seeds_differ() -> None:
    identities = groups([2] * 200)
    draws = [held_out(identities, 20, seed) for seed in range(3)]
    assert len({frozenset(d) for d in draws}) == 3
    assert all(count(identities, d) == 20 for d in draws)


def test_the_draw_is_not_of_one_size_or_place() -> None:
    """Large and small groups, early and late ones, are all drawn."""
    identities = groups([1 + i % 10 for i in range(400)])
    chosen = held_out(identities, 400)
    sizes = Counter(Counter(identities)[name] for name in chosen)
    assert len(sizes) == 10
    numbers = [int(name[1:]) for name in chosen]
    assert min(numbers) < 60
    assert max(numbers) > 340


def test_300w_lp_gets_the_published_split() -> None:
    """58,164 + 3,061 images without the mirrored ones (Sun et al. 2018)."""
    rng = np.random.default_rng(0)
    sizes: list[int] = []
    while sum(sizes) < 61_225:
        sizes.append(min(int(rng.integers(5, 19)), 61_225 - sum(sizes)))
    assert count(groups(sizes), validation_identities(groups(sizes), VALIDATION_SHARE)) == 3_061


def test_validation_never_lacks_a_face() -> None:
    assert len(validation_identities(groups([1] * 4), 0.05)) == 1
    assert count(groups([3, 8]), validation_identities(groups([3, 8]), 0.05)) == 3
    assert validation_identities(groups([9]), 0.05) == set()
    assert validation_identities([], 0.05) == set()
    assert len(validation_identities(groups([1] * 200), 0.05)) == 10
