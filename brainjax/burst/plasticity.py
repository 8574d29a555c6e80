"""In-burst plasticity: what fired through whole windows of the fire ledger changes synapses."""

from typing import no_type_check

import jax.numpy as jnp
from jaxtyping import Array, Bool

from brainjax.burst import ledger as ledgers
from brainjax.burst.anatomy import Config
from brainjax.burst.ledger import Ledger
from brainjax.burst.synapses import Plastic


@no_type_check  # the weights have one of two types
def learn(
    config: Config,
    plastic: Plastic,
    weights: Array,
    exists: Bool[Array, " plastic"] | None,
    ledger: Ledger,
    potentiation: Array,
    depression: Array,
) -> tuple[Array, Bool[Array, " plastic"] | None]:
    """Return the weights after the burst that the ledger ends with.

    `w = min(w + potentiation, limit)` where both neurons fired in every burst of the window,
    `w = max(w - depression, 0)` where otherwise one of them fired in any. A mapping waits until the
    ledger holds its whole window. Inhibitory synapses change in magnitude, by the same rule.

    A bidirectional mapping makes the absent synapses between neurons that fired in every burst,
    with the potentiation as their weight.

    Args:
        config: mappings and the limit.
        plastic: the synapses of the mappings.
        weights: before the burst.
        exists: which synapses are there; None: all.
        ledger: this burst included.
        potentiation: of each mapping, in the unit of the weights; kept to [0, limit].
        depression: as `potentiation`.

    Returns:
        The weights, and which synapses are there.

    Cost: 20 bytes per plastic synapse, 14 with uint8 weights, and 8 gathered from the ledger for
        each 32 bursts of the longest window.
    Determinism: bit-identical on every platform.
    """
    growth, decay = (
        jnp.clip(jnp.broadcast_to(change, len(config.mappings)), 0, config.weight_limit)
        for change in (potentiation, depression)
    )
    ready = jnp.asarray([m.window for m in config.mappings], jnp.int32) <= ledger.length
    ready &= (growth > 0) | (decay > 0)
    growth, decay, ready = (numbers[plastic.mapping] for numbers in (growth, decay, ready))
    ready &= plastic.mapping >= 0
    some, every = _activity(config, plastic, ledger)

    before = weights.astype(jnp.float32)
    grown = jnp.minimum(before + growth, config.weight_limit)
    after = jnp.where(every, grown, jnp.where(some, jnp.maximum(before - decay, 0), before))
    after = jnp.where(ready, after, before)
    if exists is not None:
        made = ready & every & ~exists
        after = jnp.where(exists, after, jnp.where(made, growth, before))
        exists |= made
    return after.astype(weights.dtype), exists


def _activity(config, plastic, ledger):
    """Whether one neuron fired in any burst of the window, and whether both did in every."""
    num_words = ledger.words.shape[0]
    masks = ledgers.masks(tuple(m.window for m in config.mappings), num_words)
    some, every = False, True
    for word, mask in enumerate(jnp.asarray(masks).T):
        window = mask[plastic.mapping]
        pre, post = (ledger.words[word][ids] & window for ids in (plastic.pre, plastic.post))
        some |= (pre | post) != 0
        every &= (pre & post) == window
    return some, every
