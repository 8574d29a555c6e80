"""What may differ from neuron to neuron, checked once."""

import warnings

import jax.numpy as jnp
import numpy as np

from brainjax.burst.anatomy import Config
from brainjax.ops.burst_neurons import MAX_COUNT, MAX_KINDS, Neurons
from brainjax.validation import Numbers, require

_FLOATS = ("threshold", "threshold_limit", "leak", "excitability")
_COUNTS = ("refractory_period", "fire_limit", "snooze")


def populate(
    config: Config,
    area: Numbers,
    *,
    threshold: Numbers = 1.0,
    threshold_limit: Numbers = np.inf,
    leak: Numbers = 0.0,
    excitability: Numbers = 1.0,
    refractory_period: Numbers = 0,
    fire_limit: Numbers = 0,
    snooze: Numbers = 0,
    accumulates: Numbers = True,
) -> Neurons:
    """Return the parameters of all neurons, by kind where some neurons are alike to the bit.

    `Neurons.spread` gives each neuron a row of its own, to change a few of them, or to stack
    networks that have different kinds.

    Args:
        config: areas, and by `legacy_units` what to do about a leak outside [0, 1] and an
            excitability above 1: an error, "keep" with a warning, or "percent", by which all of
            both are hundredths.
        area: place in `config.areas` of each neuron, [neurons].
        threshold: each field as in `Neurons`; one number for all neurons, or [neurons].
        threshold_limit: by default none.
        leak: as in `Neurons`.
        excitability: as in `Neurons`.
        refractory_period: as in `Neurons`.
        fire_limit: as in `Neurons`.
        snooze: as in `Neurons`.
        accumulates: as in `Neurons`.

    Raises:
        ValueError: a value is out of range, or an array has another length than there are neurons.

    Cost: on the host, two sorts of the neurons for each field that is not the same for all. More
        than 65,536 kinds are not used.
    """
    floats = {
        "threshold": threshold,
        "threshold_limit": threshold_limit,
        "leak": leak,
        "excitability": excitability,
    }
    counts = {
        "refractory_period": refractory_period,
        "fire_limit": fire_limit,
        "snooze": snooze,
    }
    area = _per_neuron(config, "area", area, np.int64)
    _check_range("area", area, 0, len(config.areas) - 1)
    fields = {name: _per_neuron(config, name, floats[name], np.float32) for name in _FLOATS}
    for name, values in fields.items():
        # No limit may be written as infinity.
        right = ~np.isnan(values) if name == "threshold_limit" else np.isfinite(values)
        require(bool(right.all()), name, "finite", _first(values, ~right))
    if config.rules.legacy_units == "percent":
        hundred = np.float32(100)
        fields |= {name: fields[name] / hundred for name in ("leak", "excitability")}
    _check_unit(config, area, "leak", fields["leak"], lowest=0)
    _check_unit(config, area, "excitability", fields["excitability"], lowest=-np.inf)
    for name in _COUNTS:
        fields[name] = _per_neuron(config, name, counts[name], np.int64)
        _check_range(name, fields[name], 0, MAX_COUNT)
        fields[name] = fields[name].astype(np.uint16)
    fields["area"] = area.astype(np.int32)
    fields["accumulates"] = _per_neuron(config, "accumulates", accumulates, bool)
    return _by_kind(fields)


def graded_threshold(base: Numbers, coordinates: Numbers, increments: Numbers) -> np.ndarray:
    """Return thresholds that grow along the axes of an area.

    `threshold = base + x * increment_x + y * increment_y + z * increment_z`, in float32, from left
    to right

    Args:
        base: threshold of the area.
        coordinates: x, y, z of each neuron, [neurons, 3].
        increments: of the threshold, for each axis, [3].
    """
    coordinates = np.asarray(coordinates, np.float32)
    axes, steps = coordinates.shape[1:] == (3,), np.asarray(increments, np.float32)
    require(axes, "coordinates", "[neurons, 3]", coordinates.shape)
    require(steps.shape == (3,), "increments", "[3]", steps.shape)
    threshold = np.full(coordinates.shape[0], base, np.float32)
    for along, increment in zip(coordinates.T, steps):
        threshold = threshold + along * increment
    return threshold


def _by_kind(fields):
    """Neurons of these fields, each row of which is there once if that makes them fewer."""
    size = fields["area"].size
    kind = np.zeros(size, np.int64)
    for values in fields.values():
        # As bits, of which no two differ in an equal number, such as those of 0 and -0.
        bits = np.ascontiguousarray(values).view(f"u{values.itemsize}")
        if (bits == bits[0]).all():
            continue
        place = np.unique(bits, return_inverse=True)[1]
        kind = np.unique(kind * (place.max() + 1) + place, return_inverse=True)[1]
        if kind.max() >= MAX_KINDS:
            break
    if kind.max() + 1 >= min(size, MAX_KINDS + 1):
        return Neurons(**{name: jnp.array(values) for name, values in fields.items()})
    first = np.unique(kind, return_index=True)[1]
    rows = {name: jnp.array(values[first]) for name, values in fields.items()}
    return Neurons(**rows, kind=jnp.array(kind, jnp.uint16))


def _per_neuron(config, name, values, dtype):
    values = np.asarray(values)
    whole = not np.issubdtype(dtype, np.integer) or bool((values == np.trunc(values)).all())
    require(whole, name, "whole numbers", values)
    if values.ndim:
        shape = (config.num_neurons,)
        require(values.shape == shape, f"shape of {name}", shape, values.shape)
    return np.broadcast_to(values.astype(dtype), config.num_neurons)


def _check_range(name, values, lowest, highest):
    outside = (values < lowest) | (values > highest)
    require(not outside.any(), name, f"in {lowest}..{highest}", _first(values, outside))


def _check_unit(config, area, name, values, lowest):
    """Leaks and excitabilities of old genomes are hundredths, or meant to be."""
    outside = (values < lowest) | (values > 1)
    if not outside.any():
        return
    where = config.area_names[area[outside.argmax()]]
    rule = f"at most 1 (see Config.legacy_units){' and at least 0' if lowest == 0 else ''}"
    if config.rules.legacy_units != "keep":
        require(False, f"{name} of area {where!r}", rule, _first(values, outside))
    warnings.warn(
        f"{name} of area {where!r} is not {rule}, and kept: {_first(values, outside)}",
        stacklevel=3,
    )


def _first(values, where):
    return f"{values[where.argmax()]} at neuron {where.argmax()}" if where.any() else None
