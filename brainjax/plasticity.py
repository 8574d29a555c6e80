"""Learning rules: pure functions from synapses and activity to synapses."""

from brainjax import connectivity, ops


def hebbian(
    synapses: connectivity.Synapses,
    pre: ops.ActiveSet,
    post: ops.ActiveSet,
    *,
    beta,
    w_max,
    normalise: bool = False,
    backend: ops.Backend = "auto",
) -> connectivity.Synapses:
    """Strengthen the synapses between neurons that fire one after the other.

    `w[i, j] = min(w[i, j] * (1 + beta * pre[i] * post[j]), w_max)` for existing synapses; then,
    on request, the weights onto each winner are divided by their sum.

    Args:
        synapses: from the presynaptic to the postsynaptic population.
        pre: who fired, and how strongly.
        post: who fires now.
        beta: relative increase, >= 0; 0 leaves every weight as it is.
        w_max: largest weight of a changed synapse.
        normalise: keep the sum of the incoming weights of each winner at 1.
        backend: "auto", "reference" or "kernel".

    Cost: reads and writes count(pre) * count(post) weights; with `normalise`, whole columns.
    Determinism: bit-identical on every backend.
    Source: Papadimitriou et al. (2020), PNAS 117:14464; normalisation (homeostasis) of
        Dabagia, Vempala & Papadimitriou (2022), COLT.
    """
    synapses = connectivity.potentiate(synapses, pre, post, beta, w_max, backend)
    return connectivity.normalise_onto(synapses, post, backend) if normalise else synapses
