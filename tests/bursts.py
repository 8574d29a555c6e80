"""Networks in the middle of a run, one burst of them in plain loops, and the rules to try."""

import numpy as np
from burst_oracle import Network, PlainEngine

from brainjax import ops

F = np.float32
FRACTION_BITS = 6

# Every row of the rules, each as some networks have it.
RULES = {
    "regular": ops.BurstRules(),
    "power": ops.BurstRules(power_neuron=0),
    "power and fatigue": ops.BurstRules(power_neuron=0, fatigue_area=1),
    "in batches": ops.BurstRules(batch_threshold=1, unlimited_block=True),
    "in batches of many": ops.BurstRules(batch_threshold=600, unlimited_block=True),
    "residues": ops.BurstRules(keeps_residues=True, unlimited_block=True),
    "whole strengths": ops.BurstRules(strength_limit=255.0, whole_strength=True),
}
KINDS = ("usual", "silent", "all fire", "cancelling", "driven", "arrivals", "no synapses", "stray")
LAST = 65_535


def network(
    rng, n, kind="usual", *, fan_out=5, weights="float32", num_synapses=None, num_kinds=None
):
    """Operands of `burst_core`, by name, in NumPy; thresholds lie among the potentials.

    The last synapses have no row if `num_synapses` is more than there are rows for. With
    `num_kinds`, neurons share rows of parameters, and some name a row beyond the last.
    """
    neurons = _neurons(rng, n if num_kinds is None else num_kinds, kind)
    operands = {
        "neurons": neurons
        if num_kinds is None
        else neurons.replace(kind=_kinds(rng, n, num_kinds)),
        "synapses": _synapses(rng, n, kind, fan_out, weights, num_synapses),
        "is_driven": rng.random(n) < 0.5 if kind == "driven" else None,
        "membranes": _membranes(rng, n),
        "fired": _fired(rng, n, kind),
        # One kind begins anew at 0.
        "bursts": np.uint32(2**32 - 1 if kind == "all fire" else rng.integers(2**32)),
        "injected": _injected(rng, n, kind),
        "power": F(2.5),
        "fatigued": np.bool_(rng.random() < 0.7),
        "arrivals": None,
    }
    if kind == "arrivals":
        reached = rng.random(n) < 0.4
        sums = np.where(reached, rng.integers(-300, 300, n), 0).astype(np.int32)
        operands["arrivals"] = ops.Arrivals(sums, reached)
    return operands


def _neurons(rng, n, kind):
    drawn = F(-1e9) if kind == "all fire" else rng.normal(4, 6, n)
    threshold = np.broadcast_to(drawn, n).astype(F)
    threshold[96::97] = np.nan  # who has one never fires
    return ops.Neurons(
        area=rng.integers(0, 3, n).astype(np.int32),
        threshold=threshold,
        threshold_limit=rng.choice([np.inf, 8, -1], n, p=[0.6, 0.3, 0.1]).astype(F),
        leak=rng.choice([0, 0.1, 0.5, 1, 10], n).astype(F),
        excitability=rng.choice([1, 0.999, 0.5, 0, -1], n, p=[0.5, 0.1, 0.2, 0.1, 0.1]).astype(F),
        refractory_period=rng.choice([0, 1, 3, LAST], n).astype(np.uint16),
        fire_limit=rng.choice([0, 1, 2, 3, LAST], n).astype(np.uint16),
        snooze=rng.choice([0, 1, 3, LAST], n).astype(np.uint16),
        accumulates=rng.random(n) < 0.7,
    )


def _kinds(rng, n, num_kinds):
    """In the first half of the network runs of a kind that fill tiles, in the second any."""
    drawn = rng.integers(0, num_kinds + 2, n)
    places = np.arange(n)
    return np.where(places < n // 2, drawn[places // 600], drawn).astype(np.uint16)


def spread(neurons):
    """The same neurons with a row for each."""
    rows = {name: values for name, values in vars(neurons).items() if name != "kind"}
    if neurons.kind is None:
        return ops.Neurons(**rows)
    place = np.minimum(neurons.kind, len(neurons.threshold) - 1)
    return ops.Neurons(**{name: values[place] for name, values in rows.items()})


def plain_warps(operands):
    """The fire limits of 128 neurons in a row that share one which limits nothing, and do not rest.

    One entry for each such row of neurons.
    """
    kind, countdown = (
        numbers[: numbers.size // 128 * 128].reshape(-1, 128)
        for numbers in (operands["neurons"].kind, operands["membranes"].countdown)
    )
    fire_limit = operands["neurons"].fire_limit
    limit = fire_limit[np.minimum(kind[:, 0], fire_limit.size - 1)]
    is_plain = (kind == kind[:, :1]).all(1) & (countdown == 0).all(1) & np.isin(limit, [0, LAST])
    return limit[is_plain]


def _membranes(rng, n):
    """In every second stretch of the network nobody rests."""
    potential = rng.normal(0, 5, n).astype(F)
    countdown = rng.choice([0, 1, 2, LAST], n, p=[0.7, 0.1, 0.1, 0.1])
    return ops.Membranes(
        potential=potential,
        countdown=np.where(np.arange(n) // 700 % 2 == 0, countdown, 0).astype(np.uint16),
        fire_count=rng.choice([0, 1, 2, 3, LAST], n).astype(np.uint16),
    )


def _synapses(rng, n, kind, fan_out, weights, size):
    if kind == "no synapses":
        nothing = np.zeros(0, np.int32)
        return ops.CompressedRows(np.zeros(1, np.int32), nothing, None, FRACTION_BITS)
    lengths = rng.integers(0, 2 * fan_out + 1, n) * rng.integers(0, 2, n)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    if size is not None:
        indptr = np.minimum(indptr, size)
    targets = rng.integers(0, n, indptr[-1] if size is None else size).astype(np.int32)
    drawn = None
    if weights == "uint8":
        drawn = rng.integers(0, 5, targets.size).astype(np.uint8)
    elif weights == "float32":
        drawn = rng.choice([-1, -0.5, 0, 0.001, 0.5, 1, 1.7], targets.size).astype(F)
    if kind == "cancelling" and drawn is not None:
        targets //= 8  # many onto few, of weights that cancel
        drawn = rng.choice([-1, 1], targets.size).astype(F)
    if kind == "stray":
        far = np.array([-1, n, n + 1, 2**31 - 1, -(2**31)], np.int32)
        targets = np.where(rng.random(targets.size) < 0.3, rng.choice(far, targets.size), targets)
        damaged = rng.random(n + 1) < min(0.1, 30 / n)  # each may have the synapses of all
        indptr = np.where(damaged, rng.integers(-9, 2**31 - 1, n + 1), indptr)
        indptr, targets = indptr.astype(np.int32), targets.astype(np.int32)
    return ops.CompressedRows(indptr, targets, drawn, FRACTION_BITS)


def _fired(rng, n, kind):
    share = {"silent": 0.0, "all fire": 1.0, "cancelling": 0.9}.get(kind, 0.3)
    ids = np.flatnonzero(rng.random(n) < share)
    indices, values = np.full(n, n, np.int32), np.zeros(n, F)
    indices[: ids.size], values[: ids.size] = ids, rng.normal(100, 150, ids.size)
    count = ids.size
    if kind == "stray":
        indices[::3] = rng.choice([-1, n, 2**31 - 1, -(2**31)], indices[::3].size)
        count = rng.choice([-4, ids.size, n + 9])
    return ops.ActiveSet(indices, values, np.int32(count))


def _injected(rng, n, kind):
    """Every second neuron or so; ids repeat, and some entries name nobody."""
    size = n // 2 + 8
    ids = np.sort(rng.integers(-2 if kind == "stray" else 0, n, size)).astype(np.int32)
    ids[: min(size // 8, 5_000)] = ids[0]  # the reference looks at all for each of these
    count = {"silent": 0, "all fire": size, "stray": size + 5}.get(kind, size - 4)
    ids[max(0, count) :] = n
    ids[size - 2 :] = n + 3 if kind == "stray" else ids[size - 2 :]
    values = rng.choice([1, -1, 2.0**-24, 3.3, 0], size).astype(F)
    return ops.ActiveSet(ids, values, np.int32(count))


def in_numpy(rules, operands):
    """What `burst_core` returns, from the description of the engine."""
    operands = operands | {"neurons": spread(operands["neurons"])}
    n = operands["membranes"].potential.size
    inputs, candidates = _collected(rules, operands, n)
    engine = _engine(rules, operands)
    if not rules.keeps_residues:
        engine.mp = [v if kept else F(0) for v, kept in zip(engine.mp, engine.net.accumulates)]
    ids = np.flatnonzero(candidates).tolist()
    in_batch = rules.batch_threshold is not None and len(ids) >= rules.batch_threshold
    with np.errstate(over="ignore"):
        emitted = {id_: engine.advance(id_, inputs[id_], in_batch) for id_ in ids}
    fires = np.array([id_ for id_ in ids if emitted[id_] is not None], np.int32)
    for id_ in fires.tolist():
        assert engine.mp[id_] == 0
    return ops.Burst(
        membranes=ops.Membranes(
            np.array(engine.mp, F), np.array(engine.rc, np.uint16), np.array(engine.cfc, np.uint16)
        ),
        fired=_listed(operands["fired"], fires, [emitted[id_] for id_ in fires.tolist()], n),
        inputs=inputs,
        candidates=candidates,
        fires=_bits(fires, n),
        bursts=np.uint32(engine.number),
    )


def _engine(rules, operands):
    neurons, membranes = operands["neurons"], operands["membranes"]
    columns = ("pre", "post", "weight", "strength", "inhibitory", "delay")
    fields = {name: values.tolist() for name, values in vars(neurons).items() if name != "kind"}
    engine = PlainEngine(
        Network(**fields, **{name: [] for name in columns}),
        strict=False,
        unlimited_block=rules.unlimited_block,
    )
    engine.mp = list(membranes.potential)
    engine.rc, engine.cfc = membranes.countdown.tolist(), membranes.fire_count.tolist()
    engine.number = (int(operands["bursts"]) + 1) % 2**32
    return engine


def _collected(rules, operands, n):
    inputs, candidates = np.zeros(n, F), np.zeros(n, bool)
    injected = operands["injected"]
    count = max(0, min(int(injected.count), injected.indices.size))
    for id_, amount in zip(injected.indices[:count].tolist(), injected.values):
        if 0 <= id_ < n:
            inputs[id_], candidates[id_] = inputs[id_] + amount, True
    if rules.power_neuron is not None:
        inputs[rules.power_neuron] += operands["power"]
        candidates[rules.power_neuron] = True
    if rules.fatigue_area is not None and operands["fatigued"]:
        tired = operands["neurons"].area == rules.fatigue_area
        inputs[tired] += operands["power"]
        candidates |= tired
    sums, reached = _sums(rules, operands, n)
    return inputs + sums.astype(F) * F(2.0**-FRACTION_BITS), candidates | reached


def _sums(rules, operands, n):
    synapses, fired, driven = (operands[name] for name in ("synapses", "fired", "is_driven"))
    sums, reached = np.zeros(n, np.int64), np.zeros(n, bool)
    num_rows, size = synapses.indptr.size - 1, synapses.indices.size
    for row, value in zip(fired.indices[: max(0, int(fired.count))].tolist(), fired.values):
        if not 0 <= row < num_rows:
            continue
        first = min(max(int(synapses.indptr[row]), 0), size)
        here = slice(first, min(max(int(synapses.indptr[row + 1]), first), size))
        strength = F(1) if driven is None or not driven[row] else _kept(rules, value)
        weights = F(1) if synapses.weights is None else synapses.weights[here].astype(F)
        terms = np.rint(strength * F(2.0**FRACTION_BITS) * weights).astype(np.int64)
        targets = synapses.indices[here]
        known = (targets >= 0) & (targets < n)
        np.add.at(sums, targets[known], np.broadcast_to(terms, targets.shape)[known])
        reached[targets[known]] = True
    if operands["arrivals"] is not None:
        sums, reached = sums + operands["arrivals"].sums, reached | operands["arrivals"].reached
    return sums.astype(np.int32), reached


def _kept(rules, value):
    strength = min(max(value, F(0)), F(rules.strength_limit))
    return F(int(float(strength) + 0.5)) if rules.whole_strength else strength


def _listed(before, fires, values, n):
    """Who fires, in the list that held those of the last burst."""
    used = min(max(int(before.count), 0), n)
    indices, kept = before.indices.copy(), before.values.copy()
    indices[:used], kept[:used] = n, 0
    indices[: fires.size], kept[: fires.size] = fires, values
    return ops.ActiveSet(indices, kept, np.int32(fires.size))


def _bits(fires, n):
    words = np.zeros(-(-n // 32), np.uint32)
    np.bitwise_or.at(words, fires // 32, np.uint32(1) << (fires % 32).astype(np.uint32))
    return words
