"""Operations of the assembly calculus, as programs: what is open in each round.

A program is a `Drive` whose leaves have a leading axis of rounds. `simulation.simulate` runs it,
`sequence` joins several; so an operation can be recorded, batched and differentiated like any run.
"""

import dataclasses
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from brainjax import assemblies, ops


def repeat(drive: assemblies.Drive, rounds: int) -> assemblies.Drive:
    """Return the program that applies one drive in each of `rounds` rounds.

    Raises:
        ValueError: rounds is negative.
    """
    if rounds < 0:
        raise ValueError(f"rounds must be at least 0; got {rounds}")
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (rounds, *leaf.shape)), drive)


def sequence(*programs: assemblies.Drive) -> assemblies.Drive:
    """Return the program that runs the given ones in turn."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *programs)


def project(config: assemblies.Config, source: str, area: str, *, rounds: int) -> assemblies.Drive:
    """Form an assembly in `area`: `P[s->A]`, then `rounds - 1` times `P[s->A, A->A]`.

    Args:
        config: must have the fibers "source->area" and "area->area".
        source: a stimulus or another area.
        area: where the assembly forms.
        rounds: in all, at least 1.

    Raises:
        ValueError: a fiber is missing, or rounds is less than 1.

    Source: Papadimitriou et al. (2020), PNAS 117:14464.
    """
    _check_rounds(rounds)
    feed = _fiber(source, area)
    return sequence(
        repeat(config.drive(feed), 1),
        repeat(config.drive(feed, _fiber(area, area)), rounds - 1),
    )


def reciprocal_project(
    config: assemblies.Config, area: str, copy: str, *, rounds: int
) -> assemblies.Drive:
    """Form in `copy` an assembly linked both ways to the winners of `area`, which stay.

    `P[A->B]`, then `rounds` times `P[A->B, B->A, B->B]`, A fixed throughout.

    Raises:
        ValueError: a fiber is missing, or rounds is less than 1.

    Source: Papadimitriou et al. (2020), PNAS 117:14464.
    """
    _check_rounds(rounds)
    forth, back = _fiber(area, copy), _fiber(copy, area)
    return sequence(
        repeat(config.drive(forth, fixed=[area]), 1),
        repeat(config.drive(forth, back, _fiber(copy, copy), fixed=[area]), rounds),
    )


def associate(
    config: assemblies.Config,
    sources: tuple[str, str],
    areas: tuple[str, str],
    target: str,
    *,
    rounds: int = 10,
    cofirings: int,
) -> assemblies.Drive:
    """Raise the overlap in `target` of the projections of two assemblies, by firing them together.

    With sources s, t and areas A, B: form A and B (`project`, `rounds` each); `rounds` times
    `P[s->A, A->A, A->C, C->C]`, the same for t and B, then `cofirings` times both at once; C->C
    opens after the first round of each.

    Raises:
        ValueError: a fiber is missing, or rounds or cofirings is less than 1.

    Source: Papadimitriou et al. (2020), PNAS 117:14464.
    """
    _check_rounds(rounds)
    _check_rounds(cofirings, "cofirings")
    onto = [_onto(source, area, target) for source, area in zip(sources, areas)]
    return sequence(
        *(project(config, source, area, rounds=rounds) for source, area in zip(sources, areas)),
        *(_settle(config, fibers, target, rounds) for fibers in onto),
        _settle(config, [*onto[0], *onto[1]], target, cofirings),
    )


def merge(
    config: assemblies.Config,
    sources: tuple[str, str],
    areas: tuple[str, str],
    target: str,
    *,
    rounds: int,
) -> assemblies.Drive:
    """Form in `target` an assembly linked both ways to assemblies of two areas.

    `P[s->A]; P[t->B]; P[s->A, t->B, A->A, A->C, B->B, B->C]`, then `rounds` times the same with
    `C->C, C->A, C->B`.

    Raises:
        ValueError: a fiber is missing, or rounds is less than 1.

    Source: Papadimitriou et al. (2020), PNAS 117:14464.
    """
    _check_rounds(rounds)
    forth = [fiber for s, a in zip(sources, areas) for fiber in _onto(s, a, target)]
    back = [_fiber(target, area) for area in (target, *areas)]
    return sequence(
        *(repeat(config.drive(_fiber(s, a)), 1) for s, a in zip(sources, areas)),
        repeat(config.drive(*forth), 1),
        repeat(config.drive(*forth, *back), rounds),
    )


def complete(
    config: assemblies.Config, area: str, *, rounds: int, plastic: bool = True
) -> assemblies.Drive:
    """Let the winners of `area` recall the rest of their assembly: `rounds` times `P[A->A]`.

    Start from a part of an assembly: `activate(state, area, part(key, assembly, 0.5, n))`.

    Raises:
        ValueError: the fiber "area->area" is missing, or rounds is less than 1.

    Source: Papadimitriou et al. (2020), PNAS 117:14464.
    """
    _check_rounds(rounds)
    return repeat(config.drive(_fiber(area, area), plastic=plastic), rounds)


def activate(state: assemblies.State, area: str, active: ops.ActiveSet) -> assemblies.State:
    """Return the state in which `active` are the winners of `area`.

    Raises:
        ValueError: the area is unknown, or the set has another capacity than its winners.
    """
    if area not in state.winners:
        raise ValueError(f"area must be one of {sorted(state.winners)}; got {area!r}")
    expected, got = state.winners[area].indices.shape, active.indices.shape
    if expected != got:
        raise ValueError(f"indices must have shape {expected} as in area {area!r}; got {got}")
    return dataclasses.replace(state, winners={**state.winners, area: active})


def part(key: Array, assembly: ops.ActiveSet, fraction: float, num_neurons: int) -> ops.ActiveSet:
    """Return a random part of an assembly, of `round(fraction * capacity)` neurons.

    Args:
        key: typed PRNG key.
        assembly: a full set; of one that is not full, as many fewer are kept.
        fraction: of the assembly, in [0, 1].
        num_neurons: of the area.

    Raises:
        ValueError: fraction is out of range.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in [0, 1]; got {fraction}")
    capacity = assembly.indices.shape[0]
    kept = jnp.arange(capacity) < round(fraction * capacity)
    kept = jax.random.permutation(key, kept) & ops.active_set.listed(assembly)
    # Kept entries move to the front, in order; the rest becomes padding.
    order = jnp.argsort(~kept, stable=True)
    count = kept.sum(dtype=jnp.int32)
    used = jnp.arange(capacity) < count
    return ops.ActiveSet(
        indices=jnp.where(used, assembly.indices[order], num_neurons),
        values=jnp.where(used, assembly.values[order], 0),
        count=count,
    )


def overlap(a: ops.ActiveSet, b: ops.ActiveSet) -> Float[Array, ""]:
    """Return the share of common neurons: `|a & b| / min(|a|, |b|)`, 0 if one set is empty.

    Neurons count with their values, so that the overlap is differentiable.

    Args:
        a: winners of an area.
        b: winners of the same area.
    """
    place = jnp.searchsorted(b.indices, a.indices)
    place = jnp.minimum(place, b.indices.shape[0] - 1)
    common = (b.indices[place] == a.indices) & ops.active_set.listed(a)
    common &= ops.active_set.listed(b)[place]
    shared = jnp.where(common, a.values * b.values[place], 0).sum()
    smaller = jnp.minimum(_size(a), _size(b))
    return ops.rounding.quotient(shared, smaller)


def _size(active):
    return jnp.where(ops.active_set.listed(active), active.values, 0).sum()


def _settle(config, fibers: Iterable[str], target, rounds):
    """Fire `fibers`, with recurrence in the target from the second round on."""
    return sequence(
        repeat(config.drive(*fibers), 1),
        repeat(config.drive(*fibers, _fiber(target, target)), rounds - 1),
    )


def _onto(source, area, target):
    return [_fiber(source, area), _fiber(area, area), _fiber(area, target)]


def _fiber(source, target):
    return f"{source}->{target}"


def _check_rounds(rounds, name="rounds"):
    if rounds < 1:
        raise ValueError(f"{name} must be at least 1; got {rounds}")
