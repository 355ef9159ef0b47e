"""How many trials are trained at once where that is a choice: as memory allows and a short timing tells, remembered."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from sgdscope import atomic
from sgdscope.cache import cache_folder

# Four times the trials must take a tenth less time each, or the smaller pack, which waits less for its slowest, is it.
WORTH = 0.1


def powers_of_two(most: int) -> list[int]:
    """Return 1, 2, 4, … below a number, and the number itself: the sizes that a pack may have.

    >>> powers_of_two(8), powers_of_two(6)
    ([1, 2, 4, 8], [1, 2, 4, 6])
    """
    return [1 << k for k in range((most - 1).bit_length())] + [most]


def fastest(seconds_per_trial: Callable[[int], float | None], sizes: Sequence[int]) -> int:
    """Return the size from which on a larger pack is hardly faster for each of its trials.

    Args:
        seconds_per_trial: times an update of a pack of a size, by its trials; None where it does not fit in memory.
        sizes: in rising order; the first is taken where nothing fits.

    >>> fastest({1: 8.0, 4: 3.0, 16: 2.9, 64: 2.0}.get, [1, 4, 16, 64])
    4
    """
    best, least = sizes[0], float("inf")
    for size in sizes:
        seconds = seconds_per_trial(size)
        if seconds is None or seconds > (1 - WORTH) * least:
            break
        best, least = size, seconds
    return best


class Remembered:
    """Sizes that were chosen on this machine before.

    Args:
        key: what the choice depends on: the machine, the device, and what is computed.
    """

    def __init__(self, key: str) -> None:
        self._path = cache_folder() / "pack-sizes" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"

    def get(self, batch_size: int) -> int | None:
        """Return what was chosen at a batch size, or None."""
        size = self._read().get(str(batch_size))
        return size if isinstance(size, int) and size > 0 else None

    def put(self, batch_size: int, size: int) -> None:
        """Keep what was chosen at a batch size, where there is a writable folder."""
        sizes = self._read() | {str(batch_size): size}
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            atomic.replace(Path(self._path), json.dumps(sizes).encode())

    def _read(self) -> dict[str, object]:
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self._path.read_text())
            if isinstance(found, dict):
                return found
        return {}
