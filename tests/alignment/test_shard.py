"""Shares of photos for job arrays."""

from itertools import chain

import pytest

from dhm_cli.alignment.shard import Shard
from dhm_cli.errors import InputError


def test_every_photo_is_in_one_share() -> None:
    names = [f"photos/{k}.jpg" for k in range(2000)]
    shares = [[name for name in names if Shard(number, 7).holds(name)] for number in range(1, 8)]
    assert sorted(chain.from_iterable(shares)) == sorted(names)
    assert all(230 < len(share) < 340 for share in shares)  # 286 each, and four standard deviations of 15.7 at most


def test_shares_do_not_change_from_version_to_version() -> None:
    """Or a job array that is run again with a new version would leave photos out."""
    assert [next(k for k in (1, 2, 3) if Shard(k, 3).holds(name)) for name in "abcdef"] == [2, 2, 3, 3, 3, 1]


def test_names_of_any_bytes() -> None:
    assert Shard(1, 1).holds("a\udcff.jpg")


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "1/0", "-1/3", "1/3/3", "a/b", "1.0/3"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(InputError, match=r"--shard .*: expected K/N"):
        Shard.parse(text)


def test_a_share_is_read() -> None:
    assert Shard.parse("3/8") == (3, 8)
