"""One share of the photos, for runs that divide them without talking to each other, such as a job array."""

import hashlib
import os
import re
from typing import NamedTuple

from dhm_cli.errors import InputError


class Shard(NamedTuple):
    """The photos of one of several runs; which run a photo is of is a matter of its path alone.

    Attributes:
        number: of the run, from 1.
        of: how many runs there are.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read K/N.

        Raises:
            InputError: anything but two whole numbers, the first from 1 to the second.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(f"--shard {text}: expected K/N, K from 1 to N", "the first of eight runs gets --shard 1/8")
        return cls(int(match[1]), int(match[2]))

    def holds(self, path: object) -> bool:
        """Whether a photo is of this run, by its path as it stands in the output."""
        digest = hashlib.sha256(os.fsencode(str(path))).digest()
        return int.from_bytes(digest[:8], "big") % self.of == self.number - 1
