"""The network of a recording, and whether a given one is it."""

from pathlib import Path
from typing import Any

import numpy as np

from brainjax import burst, checkpoint
from brainjax.recording import folder as folders, tables
from brainjax.validation import require


def check_network(
    config: burst.Config, params: burst.Params, state: burst.State, layout: burst.Layout
) -> None:
    """Refuse parts that do not belong together.

    Raises:
        ValueError: the state is of many networks, or a part is of another network.
        TypeError: the kinds of the neurons are not uint16.
    """
    n = config.num_neurons
    shape = state.membranes.potential.shape
    require(shape == (n,), "shape of potentials of state", f"({n},), one network", shape)
    kept = state.inputs is not None
    require(kept == config.keeps_inputs, "inputs of state", "as keeps_inputs of config says", kept)
    require(layout.num_neurons == n, "neurons of layout", n, layout.num_neurons)
    same = layout.areas == config.area_names
    require(same, "areas of layout", config.area_names, layout.areas)
    params.neurons.check(n)
    area = np.asarray(params.neurons.of_each(params.neurons.area))
    require(area.shape == (n,), "shape of the areas of params.neurons", f"({n},)", area.shape)
    _check_same("area of layout", "that of params.neurons", layout.area, area)


def check_recorded(
    folder: Path,
    facts: dict[str, Any],
    config: burst.Config,
    params: burst.Params,
    layout: burst.Layout,
) -> None:
    """Refuse a network that is not the one of a recording.

    Raises:
        FileNotFoundError: the table of its neurons is gone.
        ValueError: config, power or layout differ, or the table is damaged.
    """
    checkpoint.check_same(facts["config"], config)
    require(list(layout.areas) == facts["areas"], "areas of layout", facts["areas"], layout.areas)
    power = power_of(params)
    require(power == facts["power"], "power of params", f"{facts['power']}, as recorded", power)
    saved = tables.read_neurons(folder / folders.NEURONS, layout.areas, config.num_neurons)
    for name, values in saved.items():
        _check_same(f"{name} of layout", "the recorded one", getattr(layout, name), values)


def power_of(params: burst.Params) -> float:
    """Return what the power neuron receives.

    Raises:
        ValueError: it is not one finite number.
    """
    power = np.asarray(params.power, np.float32)
    is_right = power.shape == () and bool(np.isfinite(power))
    require(is_right, "power of params", "one finite number", power)
    return float(power)


def _check_same(field, rule, given, wanted):
    differs = (given != np.asarray(wanted)).reshape(len(given), -1).any(axis=1)
    if differs.any():
        neuron = int(differs.argmax())
        require(False, field, rule, f"{given[neuron]} for neuron {neuron}, not {wanted[neuron]}")
