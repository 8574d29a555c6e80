"""brainjax: brains as immutable pytrees, advanced by a pure step with hand-written kernels."""

from brainjax import (
    assemblies as assemblies,
    burst as burst,
    calculus as calculus,
    connectivity as connectivity,
    metrics as metrics,
    ops as ops,
    plasticity as plasticity,
    simulation as simulation,
)
from brainjax.ops import ActiveSet as ActiveSet
from brainjax.simulation import rollout as rollout, simulate as simulate
