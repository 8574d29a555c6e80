"""A network as a brain for the burst engine."""

import dataclasses
from typing import Any

import numpy as np
from jax import numpy as jnp

from brainjax import burst
from brainjax.connectomes.network import Network, decode_id

_POWER, _FATIGUE = b"___power", b"___fatig"
_PARAMETERS = (
    "threshold",
    "threshold_limit",
    "leak",
    "excitability",
    "refractory_period",
    "fire_limit",
    "snooze",
    "accumulates",
)
_COLUMNS = ("pre", "post", "weight", "psp", "inhibitory", "delay")


def to_burst(network: Network, **options) -> tuple[burst.Config, burst.Params]:
    """Return a configuration and parameters with which the burst engine runs a network.

    A neuron keeps its id. Areas are named by their ids, in base64. A neuron that is not valid
    cannot fire, and a synapse that is not valid, or belongs to such a neuron, is left out.

    Args:
        network: with flags and plastic mappings where it has any; see `genome.annotate`.
        options: other fields of `burst.Config`, such as `strict_feagi` and `legacy_units`.

    Raises:
        ValueError: the engine cannot run it as the options say.
    """
    table = network.synapses
    alive = network.neurons.valid
    used = table.valid & alive[table.pre] & alive[table.post]
    config = _config(network, max_delay=int(table.delay[used].max(initial=1)), **options)
    parameters: dict[str, Any] = {name: getattr(network.neurons, name) for name in _PARAMETERS}
    parameters["excitability"] = np.where(alive, parameters["excitability"], np.float32(0))
    neurons = burst.populate(config, _place_of_area(network), **parameters)
    columns: list[Any] = [getattr(table, name)[used] for name in _COLUMNS]
    synapses = burst.connect(config, neurons, *columns)
    plastic = _in_force(network)
    steps = np.array([[each.ltp, each.ltd] for each in plastic]).reshape(-1, 2)
    constants = np.array([[each.constant] for each in plastic]).reshape(-1, 1)
    steps = np.clip(steps * constants, 0, config.weight_limit).astype(np.float32)
    return config, burst.Params(
        neurons=neurons,
        synapses=synapses,
        power=jnp.float32(network.power),
        potentiation=jnp.asarray(steps[:, 0]),
        depression=jnp.asarray(steps[:, 1]),
    )


def layout(network: Network) -> burst.Layout:
    """Return area and voxel of each neuron, to inject and to read by coordinates.

    Areas are named by their ids, as `to_burst` names them. A neuron that is not valid is not found
    by its voxel.

    Args:
        network: whose neurons are placed.

    Returns:
        The layout, by the ids that the neurons have in `to_burst`.

    Raises:
        ValueError: the network has no neurons.

    Cost: a sort of the neurons on the host.
    """
    return burst.Layout(
        [area.id for area in network.areas],
        _place_of_area(network),
        network.neurons.position,
        network.neurons.valid,
    )


def resume(network: Network, state: burst.State) -> burst.State:
    """Return a state that goes on where a network was saved.

    Potentials, countdowns, counts and the number of bursts are those of the network. Who fired last
    is in no file: nothing arrives in the first burst.

    Args:
        network: that the state belongs to.
        state: of `burst.init`.
    """
    membranes = dataclasses.replace(
        state.membranes,
        potential=jnp.asarray(network.neurons.potential),
        countdown=jnp.asarray(network.neurons.refractory_countdown),
        fire_count=jnp.asarray(network.neurons.fire_count),
    )
    burst_number = jnp.uint32(network.burst % 2**32)
    return dataclasses.replace(state, membranes=membranes, burst=burst_number)


def _place_of_area(network):
    """Place of each neuron's area in `Network.areas`."""
    return np.searchsorted([area.index for area in network.areas], network.neurons.area)


def _in_force(network):
    """The plastic mappings: of two between the same areas, the later one."""
    return tuple({(each.pre_area, each.post_area): each for each in network.plastic}.values())


def _config(network, **options) -> burst.Config:
    names = {area.index: area.id for area in network.areas}
    core = {decode_id(area.id, "areas"): area for area in network.areas}
    power = core.get(_POWER)
    fed = np.flatnonzero(network.neurons.area == power.index) if power else np.zeros(0, int)
    fatigue = core.get(_FATIGUE)
    given = {
        "num_neurons": len(network.neurons),
        "areas": [burst.Area(area.id, area.uniform, area.mp_driven) for area in network.areas],
        "mappings": [
            burst.Mapping(
                names[each.pre_area],
                names[each.post_area],
                each.window,
                each.bidirectional,
                each.psp,
                each.inhibitory,
            )
            for each in _in_force(network)
        ],
        "power_neuron": int(fed[0]) if fed.size else None,
        "fatigue_area": fatigue.id if fatigue else None,
    }
    return burst.Config(**given | options)
