"""The One Euro filter: little lag where things move, little jitter where they rest."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


class OneEuro:
    """The filter of Casiez, Roussel and Vogel (CHI 2012) for many signals at once.

    Each value x is passed through x_hat = a x + (1 - a) x_hat_before with a = 1 / (1 + 1 / (2 pi f dt)), where the
    cut-off f = least_cutoff + speed_coefficient |v| follows the speed v, which is (x - x_hat_before) / dt through the
    same filter at a fixed cut-off. Noise has a speed too, which would let it pass: here |v| counts from `least_speed`
    on, so that a larger coefficient, for less lag, costs no jitter at rest. With 0 it is the filter of the paper.

    Args:
        least_cutoff: f of what rests, hertz.
        speed_coefficient: what the speed adds to it, per unit of x.
        speed_cutoff: of the speed's own filter, hertz.
        least_speed: what has a lower |v| rests, units of x a second.
    """

    def __init__(
        self, least_cutoff: float, speed_coefficient: float, speed_cutoff: float = 1.0, least_speed: float = 0.0
    ) -> None:
        self._least, self._coefficient, self._speed_cutoff = least_cutoff, speed_coefficient, speed_cutoff
        self._least_speed = least_speed
        self._value: NDArray[Any] | None = None
        self._speed: NDArray[np.float64] = np.zeros(())

    def __call__(
        self, value: NDArray[np.floating], seconds: float, slower: NDArray[np.floating] | float = 1.0
    ) -> NDArray[np.float64]:
        """Filter the next values.

        Args:
            value: (..., D), vectors; the speed of each is the length of D speeds.
            seconds: since the values before, above 0.
            slower: (...) or one number, by which the least cut-off is divided and the least speed multiplied.

        Returns:
            (..., D); the first values come back as they are.
        """
        new: NDArray[np.float64] = np.asarray(value, np.float64)
        if self._value is None:
            self._value, self._speed = new, np.zeros_like(new)
            return new
        a = _share(np.asarray(self._speed_cutoff), seconds)
        self._speed = a * (new - self._value) / seconds + (1 - a) * self._speed
        speed = np.maximum(np.linalg.norm(self._speed, axis=-1) - self._least_speed * np.asarray(slower), 0.0)
        cutoff = self._least / np.asarray(slower) + self._coefficient * speed
        b = _share(cutoff, seconds)[..., None]
        self._value = b * new + (1 - b) * self._value
        return self._value

    def count_from_here(self) -> None:
        """Move the origin of the values to the last filtered ones, which become 0."""
        assert self._value is not None
        self._value = np.zeros_like(self._value)

    def state(self) -> dict[str, NDArray[Any]]:
        """All that the next values depend on; `restore` takes it. After the first values."""
        assert self._value is not None
        return {"value": self._value, "speed": self._speed}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on where another filter was; see `state`."""
        self._value, self._speed = state["value"], state["speed"]


def _share(cutoff: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
    """a, the weight of a new value."""
    return 1.0 / (1.0 + 1.0 / (2 * math.pi * cutoff * seconds))  # type: ignore[no-any-return]
