"""The burst engine as its description says it: loops over neurons and synapses, in float32."""

import dataclasses

import numpy as np

F = np.float32
LAST = 65_535


@dataclasses.dataclass
class Network:
    """Columns of neurons and synapses, and what areas and mappings are, by number."""

    area: list
    threshold: list
    threshold_limit: list
    leak: list
    excitability: list
    refractory_period: list
    fire_limit: list
    snooze: list
    accumulates: list
    pre: list
    post: list
    weight: list
    strength: list
    inhibitory: list
    delay: list
    flags: dict = dataclasses.field(default_factory=dict)  # area -> (mp_driven, uniform)
    # source, target, window, potentiation, depression, bidirectional, strength, inhibitory
    mappings: list = dataclasses.field(default_factory=list)
    power_neuron: int | None = None
    power: float = 1.0
    fatigue_area: int | None = None


class PlainEngine:
    """One network. `parts` are the fields of the semantics, as in the table of `brainjax.burst`."""

    def __init__(self, network, *, strict, max_weight=1000.0, max_strength=1000.0, **parts):
        n = len(network.area)
        self.net, self.strict = network, strict
        self.rules = {
            "batch_threshold": 10_000 if strict else None,
            "large_reset": 1_000_000 if strict else None,
            "fast_path": strict,
            "u8": strict,
            "unlimited_block": strict,
            **parts,
        }
        self.max_weight = 255.0 if self.rules["u8"] else max_weight
        self.max_strength = 255.0 if self.rules["u8"] else max_strength
        self.mp, self.rc, self.cfc = [F(0)] * n, [0] * n, [0] * n
        names = ("pre", "post", "weight", "strength", "inhibitory", "delay")
        self.synapses = [
            dict(zip(names, row)) for row in zip(*(getattr(network, name) for name in names))
        ]
        self.fired, self.frames, self.due, self.number = {}, [], {}, 0

    def burst(self, injections=(), fatigued=False):
        """Advance by one burst; return the candidates and who fired, as dictionaries."""
        net = self.net
        self.number += 1
        fcl = {}
        for neuron, amount in injections:
            fcl[neuron] = F(fcl.get(neuron, F(0)) + F(amount))
        if net.power_neuron is not None:
            fcl[net.power_neuron] = F(fcl.get(net.power_neuron, F(0)) + F(net.power))
        self.reset()
        if fatigued:
            for neuron, area in enumerate(net.area):
                if area == net.fatigue_area:
                    fcl[neuron] = F(fcl.get(neuron, F(0)) + F(net.power))
        self.send()
        for target, amount in self.due.pop(self.number, []):
            fcl[target] = F(fcl.get(target, F(0)) + amount)
        threshold = self.rules["batch_threshold"]
        in_batch = threshold is not None and len(fcl) >= threshold
        fired = {}
        for neuron in sorted(fcl):
            emitted = self.advance(neuron, fcl[neuron], in_batch)
            if emitted is not None:
                fired[neuron] = emitted
        self.fired = fired
        self.frames.append(set(fired))
        for mapping in net.mappings:
            self.learn(*mapping)
        return fcl, fired

    def reset(self):
        size = self.rules["large_reset"]
        everybody = size is None or len(self.mp) < size
        for neuron, accumulates in enumerate(self.net.accumulates):
            if not accumulates and (everybody or neuron in self.fired):
                self.mp[neuron] = F(0)

    def send(self):
        net = self.net
        degree = {}
        for synapse in self.synapses:
            degree[synapse["pre"]] = degree.get(synapse["pre"], 0) + 1
        for synapse in self.synapses:
            pre = synapse["pre"]
            if pre not in self.fired:
                continue
            driven, uniform = net.flags.get(net.area[pre], (False, False))
            if self.rules["fast_path"] and not net.flags:
                uniform = True
            strength = F(synapse["strength"])
            if driven:
                strength = min(max(self.fired[pre], F(0)), F(self.max_strength))
                if self.rules["u8"]:
                    strength = F(int(float(strength) + 0.5))
            amount = F(F(synapse["weight"]) * strength) * F(-1 if synapse["inhibitory"] else 1)
            if not uniform and degree[pre] > 1:
                amount = F(amount / F(degree[pre]))
            when = self.number - 1 + synapse["delay"]
            self.due.setdefault(when, []).append((synapse["post"], amount))

    def draw(self, neuron):
        m = 0xFFFFFFFF
        seed = (int(neuron) * 2654435761 + (self.number & m) * 1597334677) & m
        s = (seed * 747796405 + 2891336453) & m
        w = (((s >> ((s >> 28) + 4)) ^ s) * 277803737) & m
        r = F(np.uint32((w >> 22) ^ w)) / F(2**32)
        excitability = F(self.net.excitability[neuron])
        return excitability >= F(0.999) or (excitability > 0 and r < excitability)

    def advance(self, neuron, f, in_batch):
        net = self.net
        limit, cfl = net.fire_limit[neuron], net.fire_limit[neuron]
        limited = 0 < cfl < LAST
        if cfl == 0:
            limit = LAST
        if not limited and not self.rules["unlimited_block"]:
            limit = np.inf
        if self.rc[neuron] > 0:
            self.rc[neuron] -= 1
            if self.rc[neuron] == 0 and limited and self.cfc[neuron] >= cfl:
                self.cfc[neuron] = 0
            return None
        v = F(self.mp[neuron] + f)
        if in_batch:
            return self.advance_in_batch(neuron, v, limit, limited)
        if v >= F(net.threshold[neuron]) and v <= F(net.threshold_limit[neuron]):
            if self.cfc[neuron] >= limit:
                self.cfc[neuron], self.mp[neuron] = 0, v
                return None
            if self.draw(neuron):
                self.mp[neuron] = F(0)
                self.cfc[neuron] = min(self.cfc[neuron] + 1, LAST)
                self.rc[neuron] = net.refractory_period[neuron]
                if limited and self.cfc[neuron] >= cfl:
                    self.rc[neuron] = min(self.rc[neuron] + net.snooze[neuron], LAST)
                return v
        if limited:
            self.cfc[neuron] = 0
        self.mp[neuron] = F(v * F(F(1) - F(net.leak[neuron])))
        return None

    def advance_in_batch(self, neuron, v, limit, limited):
        net = self.net
        base = v >= F(net.threshold[neuron])
        left = F(0) if base else F(v * F(F(1) - F(net.leak[neuron])))
        self.mp[neuron] = left
        tlim = F(net.threshold_limit[neuron])
        fires = base and not (left >= tlim and left != tlim) and self.cfc[neuron] < limit
        if fires and self.draw(neuron):
            self.cfc[neuron] = min(self.cfc[neuron] + 1, LAST)
            self.rc[neuron] = net.refractory_period[neuron]
            return v
        if limited:
            self.cfc[neuron] = 0
        return None

    def learn(self, source, target, window, up, down, bidirectional, strength, inhibitory):
        net = self.net
        up, down = (min(max(change, 0), self.max_weight) for change in (up, down))
        if len(self.frames) < window or not (up or down):
            return
        frames = self.frames[-window:]
        some, every = set.union(*frames), set.intersection(*frames)
        there = set()
        for synapse in self.synapses:
            pre, post = synapse["pre"], synapse["post"]
            if (net.area[pre], net.area[post]) != (source, target):
                continue
            there.add((pre, post))
            if pre in every and post in every:
                synapse["weight"] = min(F(synapse["weight"]) + F(up), F(self.max_weight))
            elif (pre in some or post in some) and down > 0:
                synapse["weight"] = max(F(synapse["weight"]) - F(down), F(0))
        if not bidirectional:
            return
        for pre in every:
            for post in every:
                pair = net.area[pre], net.area[post]
                if pair == (source, target) and (pre, post) not in there:
                    made = {"weight": F(up), "strength": strength, "inhibitory": inhibitory}
                    self.synapses.append({"pre": pre, "post": post, "delay": 1, **made})
