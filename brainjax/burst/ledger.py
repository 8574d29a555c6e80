"""The fire ledger: who fired in each of the last bursts."""

from typing import no_type_check

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Int32, UInt32

from brainjax.validation import require

_WORD = 32


@no_type_check  # transformations build it from batched and placeholder leaves
@struct.dataclass
class Ledger:
    """One bit for each neuron and burst.

    Bit b of word w tells whether the neuron fired 32 * w + b bursts ago.
    """

    words: UInt32[Array, "words neurons"]
    length: Int32[Array, ""]  # bursts recorded, up to the window


def empty(num_neurons: int, window: int, num_bursts: int = 0) -> Ledger | None:
    """Return a ledger in which nobody fired; None if it has no window.

    Args:
        num_neurons: size of the network.
        window: bursts to remember.
        num_bursts: bursts before the first recorded one: they count as bursts without firing.
    """
    if not window:
        return None
    shape = (-(-window // _WORD), num_neurons)
    length = jnp.asarray(min(num_bursts, window), jnp.int32)
    return Ledger(words=jnp.zeros(shape, jnp.uint32), length=length)


def append(ledger: Ledger, fires: Bool[Array, " neurons"], window: int) -> Ledger:
    """Return the ledger with one more burst; the oldest one falls out.

    Cost: reads and writes 4 bytes per neuron for each 32 bursts of the window.
    """
    words = ledger.words
    carried = jnp.concatenate([fires[None].astype(jnp.uint32), words[:-1] >> (_WORD - 1)])
    return Ledger(
        words=(words << 1) | carried, length=jnp.minimum(ledger.length + 1, jnp.int32(window))
    )


def masks(windows: tuple[int, ...], num_words: int) -> np.ndarray:
    """Return the bits of the last bursts for each of the windows, [windows, words]."""
    bursts = np.arange(num_words * _WORD)
    recent = bursts < np.asarray(windows, np.int64).reshape(-1, 1)
    bits = recent.reshape(len(windows), num_words, _WORD) << np.arange(_WORD, dtype=np.uint64)
    return bits.sum(-1, dtype=np.uint64).astype(np.uint32)


def frames(ledger: Ledger, window: int) -> np.ndarray:
    """Return who fired in each of the last bursts, the present one last.

    Args:
        ledger: of one network, concrete.
        window: bursts to return.

    Returns:
        bool [window, neurons].

    Raises:
        ValueError: fewer bursts are recorded.
    """
    recorded = int(ledger.length)
    require(0 <= window <= recorded, "window", f"in 0..{recorded}, the recorded bursts", window)
    words = np.asarray(ledger.words)
    ago = np.arange(window)[::-1]
    return ((words[ago // _WORD] >> (ago % _WORD).astype(np.uint32)[:, None]) & 1).astype(bool)
