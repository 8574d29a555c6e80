import time

import jax
import jax.numpy as jnp
import pytest

from brainjax import timing

OPERANDS = timing.Operands(each=[jnp.full(100, float(i)) for i in range(4)], shared=jnp.float32(2))


def doubled(state, factor, each):
    return state + 1, (factor * each).sum()


def counting(start, calls=1):
    return timing.Contender(start, lambda _: None, calls)


def test_every_operand_is_called_in_every_iteration():
    operands = timing.Operands(OPERANDS.each, OPERANDS.shared, state=jnp.int32(0))
    contender = timing.in_loop(doubled, operands, iterations=5)
    assert contender.calls == 20
    state, outputs, _ = contender.wait(contender.start())
    assert state == 20
    assert [float(output) for output in outputs] == [0, 200, 400, 600]
    assert contender.wait(contender.start())[0] == 40
    assert operands.state == 0  # not donated


def test_no_call_is_moved_out_of_the_loop_or_joined_with_another():
    """Although operands are equal and stay the same, and nobody looks at what calls return."""
    calls = 0

    def count(value):
        nonlocal calls
        calls += 1
        return value

    def call(state, _, each):
        return state, jax.pure_callback(count, each, each)

    same = jnp.ones(3)
    contender = timing.in_loop(call, timing.Operands([same, same]), iterations=5)
    contender.wait(contender.start())
    assert calls == 10


def test_implementations_take_turns():
    turns = []
    contenders = {
        name: lambda name=name: counting(lambda: turns.append(name)) for name in ("one", "other")
    }
    seconds, reasons = timing.in_turns(contenders, repetitions=3)
    assert {name: len(times) for name, times in seconds.items()} == {"one": 3, "other": 3}
    assert all(time > 0 for times in seconds.values() for time in times)
    assert not reasons
    changes = [name for name, last in zip(turns[1:], turns) if name != last]
    assert changes == ["other", *["one", "other"] * 3]


def test_what_others_have_displaced_is_not_timed():
    displaced = False

    def displace():
        nonlocal displaced
        displaced = True

    def start():
        nonlocal displaced
        time.sleep(0.3 if displaced else 0.001)
        displaced = False

    contenders = {"ours": lambda: counting(start), "other": lambda: counting(displace)}
    seconds, _ = timing.in_turns(contenders, repetitions=2)
    assert max(seconds["ours"]) < 0.005


@pytest.mark.parametrize("error", [MemoryError("too large"), RuntimeError("RESOURCE\nEXHAUSTED")])
def test_who_cannot_run_is_left_out_with_a_reason(error):
    def fails():
        raise error

    contenders = {"runs": lambda: counting(lambda: None), "fails": lambda: counting(fails)}
    seconds, reasons = timing.in_turns(contenders, repetitions=2)
    assert seconds.keys() == {"runs"}
    assert reasons == {"fails": f"{type(error).__name__}: {error}".partition("\n")[0]}
