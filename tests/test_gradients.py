"""Gradients through plasticity: against plain JAX, finite differences, and each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import BACKENDS, at, each_backend, each_kernel, stacked

from brainjax import assemblies, calculus, connectivity, ops, simulation

ROUNDS = 10
AREAS = {"A": 24, "B": 20}  # neurons
K = {"A": 4, "B": 3}
FIBERS = ("s->A", "A->A", "A->B", "B->B")


def anatomy(backend="auto", runners_up=6, **options):
    """Two areas in a row; `runners_up=None` lists everybody."""

    def area(name, n):
        return assemblies.Area(name, n, K[name], n - K[name] if runners_up is None else runners_up)

    return assemblies.Config(
        areas=tuple(area(name, n) for name, n in AREAS.items()),
        stimuli=(assemblies.Stimulus("s", 5),),
        fibers=tuple(assemblies.Fiber(*name.split("->"), 0.5) for name in FIBERS),
        backend=backend,
        **options,
    )


def graded_params(config, seed=0, dtype=np.float32):
    """Weights without ties, some of them absent, and numbers that differ between fibers."""
    rng = np.random.default_rng(seed)
    synapses = {}
    for fiber in config.fibers:
        shape = config.source(fiber.source).rows, config.area(fiber.target).n
        weights = rng.uniform(0.5, 1.5, shape) * (rng.random(shape) < 0.6)
        synapses[fiber.name] = connectivity.Dense(jnp.asarray(weights, dtype))
    return assemblies.Params(
        beta=jnp.asarray([0.05, 0.1, 0.08, 0.03], dtype),
        w_max=jnp.full(len(FIBERS), 1.9, dtype),
        temperature=jnp.asarray(0.7, dtype),
        synapses=synapses,
    )


def program_of(config):
    return calculus.sequence(
        calculus.repeat(config.drive("s->A"), 1),
        calculus.repeat(config.drive("s->A", "A->A", "A->B", "B->B"), ROUNDS - 1),
    )


def value_of(dense_winners):
    """A loss on who fires at the end, with another weight for each neuron."""
    return sum(
        (dense * jnp.cos(jnp.arange(dense.size) + index)).sum()
        for index, dense in enumerate(dense_winners.values())
    )


def loss(config, params):
    state = assemblies.init(config, params, jax.random.key(0))
    # Of the type of the weights, which is float64 where finite differences are taken.
    dtype = params.beta.dtype
    state = jax.tree.map(
        lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, state
    )
    state, _ = simulation.rollout(assemblies.step, config, params, state, program_of(config))
    return value_of({n: ops.active_set.to_dense(a, AREAS[n]) for n, a in state.winners.items()})


def plain_loss(config, params):
    """The same brain with dense activity, and only operations that JAX differentiates itself."""
    weights = {name: s.weights for name, s in params.synapses.items()}
    activity = {name: jnp.zeros(n, params.beta.dtype) for name, n in AREAS.items()}
    activity["s"] = jnp.ones(1, params.beta.dtype)
    for round_ in range(ROUNDS):
        opened = FIBERS[:1] if round_ == 0 else FIBERS
        targets = {name.split("->")[1] for name in opened}
        received = {
            target: sum(
                jnp.matmul(activity[name.split("->")[0]], weights[name], precision="highest")
                for name in opened
                if name.endswith(target)
            )
            for target in targets
        }
        chosen = {
            name: plain_choice(x, config.area(name), params.temperature)
            for name, x in received.items()
        }
        # B hears of A one round later; silence is neither rewarded nor learned from.
        chosen = {n: jnp.where((received[n] != 0).any(), c, 0.0) for n, c in chosen.items()}
        for index, name in enumerate(FIBERS):
            if name in opened:
                source, target = name.split("->")
                block = activity[source][:, None] * chosen[target][None, :]
                limit = jnp.inf if source == "s" else params.w_max[index]
                grown = weights[name] * (1 + params.beta[index] * block)
                weights[name] = jnp.where(grown > limit, limit, grown)
        activity |= chosen
    return value_of({name: activity[name] for name in AREAS})


def plain_choice(received, area, temperature):
    """Hard winners with the gradient of soft ones, for winners and runners-up."""
    order = jnp.argsort(-jax.lax.stop_gradient(received), stable=True)
    rank = jnp.zeros(area.n, int).at[order].set(jnp.arange(area.n))
    soft = ops.soft_winners(received, area.k, temperature)
    straight = jnp.where(rank < area.k, 1.0, 0.0) + soft - jax.lax.stop_gradient(soft)
    return jnp.where(rank < area.k + area.runners_up, straight, 0.0)


@functools.cache
def gradient_of(function, config):
    return jax.jit(jax.value_and_grad(functools.partial(function, config)))


def assert_close(actual, expected, tolerance):
    """To `tolerance` of the largest entry of each leaf."""
    paths = jax.tree_util.tree_flatten_with_path(expected)[0]
    for got, (path, wanted) in zip(jax.tree.leaves(actual), paths, strict=True):
        scale = max(float(jnp.abs(wanted).max()), 1e-3)
        where = jax.tree_util.keystr(path)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * scale, err_msg=where)


@functools.cache
def float32_gradient(backend):
    config = anatomy(backend)
    return gradient_of(loss, config)(graded_params(config))


@functools.cache
def plain_gradient():
    config = anatomy("reference")
    return gradient_of(plain_loss, config)(graded_params(config))


@each_backend
def test_gradients_are_finite_and_reach_everything(backend):
    value, gradients = float32_gradient(backend)
    assert np.isfinite(value)
    for leaf in jax.tree.leaves(gradients):
        assert np.isfinite(leaf).all()
    assert (gradients.beta != 0).all()
    assert gradients.temperature != 0
    for name in FIBERS:
        assert (gradients.synapses[name].weights != 0).any()


@each_backend
def test_backends_have_equal_gradients(backend):
    """One rule outside the backends: only the compiler's order of sums is left to differ."""
    value, gradients = float32_gradient(backend)
    expected_value, expected = float32_gradient("reference")
    assert value == expected_value
    assert_close(gradients, expected, 1e-5)


@each_backend
def test_gradient_is_that_of_plain_jax(backend):
    value, gradients = float32_gradient(backend)
    plain_value, plain = plain_gradient()
    np.testing.assert_allclose(value, plain_value, rtol=1e-5)
    assert_close(gradients, plain, 1e-3)


@pytest.mark.slow
def test_gradient_is_that_of_plain_jax_to_the_last_digits():
    """In float64 both programs agree far beyond what a wrong term could hide."""
    with jax.enable_x64(True):
        config = anatomy("reference")
        params = graded_params(config, dtype=np.float64)
        value, gradients = gradient_of(loss, config)(params)
        plain_value, plain = gradient_of(plain_loss, config)(params)
        np.testing.assert_allclose(value, plain_value, rtol=1e-12)
        # Forward values differ by an ulp, which the bisected thresholds turn into 2**-32.
        assert_close(gradients, plain, 1e-6)


@pytest.mark.parametrize(
    "field", ["beta", "temperature", pytest.param("synapses", marks=pytest.mark.slow)]
)
def test_softened_gradient_matches_finite_differences(field):
    """With soft winners the loss is smooth, so the gradient must be its slope."""
    with jax.enable_x64(True):
        config = anatomy("reference", runners_up=None, softened=True)
        params = graded_params(config, dtype=np.float64).replace(
            w_max=jnp.full(len(FIBERS), jnp.inf, jnp.float64)
        )
        start = getattr(params, field)
        rng = np.random.default_rng(1)
        direction = jax.tree.map(
            lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape)) * (leaf != 0), start
        )
        along = jax.jit(
            lambda h: loss(
                config,
                params.replace(**{field: jax.tree.map(lambda a, d: a + h * d, start, direction)}),
            )
        )
        slope = jax.jit(jax.grad(along))(0.0)
        # Four points, so that h^4 is left; thresholds are known to 2**-32 of the scores.
        h = 1e-3
        difference = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
        assert abs(slope) > 1e-3
        np.testing.assert_allclose(slope, difference, rtol=1e-5, atol=1e-6)


@each_kernel
def test_gradients_of_many_brains_are_each_alone(backend):
    config = anatomy(backend)
    batch = stacked([graded_params(config, seed) for seed in range(3)])
    together = jax.jit(jax.vmap(jax.grad(functools.partial(loss, config))))(batch)
    for brain in range(3):
        alone = gradient_of(loss, config)(at(batch, brain))[1]
        assert_close(at(together, brain), alone, 1e-5)


def test_gradient_reaches_the_initial_state():
    """The same slope whether the weights come through Params or through the State."""
    config = anatomy()
    params = graded_params(config)
    state = assemblies.init(config, params, jax.random.key(0))

    @jax.jit
    @jax.grad
    def through_state(synapses):
        start = state.replace(synapses=synapses)
        end, _ = simulation.rollout(assemblies.step, config, params, start, program_of(config))
        return value_of({n: ops.active_set.to_dense(a, AREAS[n]) for n, a in end.winners.items()})

    expected = float32_gradient(BACKENDS[1])[1].synapses
    assert_close(through_state(params.synapses), expected, 1e-5)
