"""Long programs, errors in the middle, threads, and what is left behind after many calls."""

from __future__ import annotations

import contextlib
import gc
import math
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import ENGINES, FACES, Face, assert_close
from jax import lax

import dualrev

pytestmark = pytest.mark.thorough

N_LONG = 100_000


def long_chain(x: Any) -> Any:
    for _ in range(N_LONG):
        x = lax.sin(x)
    return x


def long_chain_derivative(x: float) -> float:
    slope = 1.0
    for _ in range(N_LONG):
        x, slope = math.sin(x), slope * math.cos(x)
    return slope


@pytest.mark.parametrize("engine", ENGINES)
def test_a_chain_of_100000_operations(engine: Any) -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(600)
    try:
        slope = dualrev.grad(long_chain)(1.0) if engine == "reverse" else dualrev.jvp(long_chain, (1.0,), (1.0,))[1]
    finally:
        sys.setrecursionlimit(limit)
    np.testing.assert_allclose(slope, long_chain_derivative(1.0), rtol=1e-8)


def test_a_long_tape_pushes_and_is_dropped() -> None:
    def chain(x: Any) -> Any:
        for _ in range(5000):
            x = lax.sin(x)
        return x

    _, jac = dualrev.linearize(chain, 1.0)
    assert_close(jac(1.0), jac.T @ jnp.ones(()))
    leaves, tree = jax.tree.flatten(jac)
    assert_close(jax.tree.unflatten(tree, leaves)(1.0), jac(1.0))
    del jac, leaves, tree
    gc.collect()


def test_the_forward_engine_keeps_nothing() -> None:
    """Intermediate arrays die as the program goes on."""
    alive: list[int] = []

    def chain(x: Any) -> Any:
        for i in range(200):
            x = lax.sin(x)
            if i % 100 == 99:
                gc.collect()
                alive.append(sum(1 for a in jax.live_arrays() if a.shape == (1237,)))
        return x

    x = jnp.ones(1237)
    dualrev.jvp(chain, (x,), (x,))
    assert max(alive) <= alive[0] + 2
    assert max(alive) < 12


# ----------------------------------------------------------------------------------------------------------- exceptions


class BrokenError(Exception):
    pass


def broken(x: Any) -> Any:
    y = jnp.sin(x) * 2
    raise BrokenError(str(y.shape))


@jax.custom_vjp
def broken_pull(x: Any) -> Any:
    return jnp.sin(x)


def _raise(*_: Any) -> Any:
    raise BrokenError


broken_pull.defvjp(lambda x: (broken_pull(x), None), _raise)

FAILING: dict[str, Callable[[Face], Any]] = {
    "grad": lambda d: d.grad(broken)(1.0),
    "jvp": lambda d: d.jvp(broken, (1.0,), (1.0,)),
    "vjp": lambda d: d.vjp(broken, 1.0),
    "linearize": lambda d: d.linearize(broken, 1.0),
    "linear_transpose": lambda d: d.linear_transpose(lambda x: _raise(x * 2), 1.0)(1.0),
    "jacfwd": lambda d: d.jacfwd(broken)(jnp.ones(3)),
    "jacrev": lambda d: d.jacrev(broken)(jnp.ones(3)),
    "hessian": lambda d: d.hessian(broken)(jnp.ones(3)),
    "nested": lambda d: d.grad(lambda x: d.grad(broken)(x) * x)(1.0),
    "in jit": lambda d: d.grad(jax.jit(broken))(1.0),
    "under jit": lambda d: jax.jit(d.grad(broken))(1.0),
    "in scan": lambda d: d.grad(lambda x: lax.scan(lambda c, _: (broken(c), None), x, None, length=2)[0])(1.0),
    "in cond": lambda d: d.grad(lambda x: lax.cond(x > 0, broken, lambda x: x, x))(1.0),
    "in vmap": lambda d: d.grad(lambda x: jax.vmap(broken)(x).sum())(jnp.ones(3)),
    "under vmap": lambda d: jax.vmap(d.grad(broken))(jnp.ones(3)),
    "in checkpoint": lambda d: d.grad(jax.checkpoint(broken))(1.0),
    "in a pull": lambda d: d.grad(broken_pull)(1.0),
}


def assert_usable(d: Face) -> None:
    assert isinstance(jnp.sin(1.0) + 1, jax.Array)
    assert not isinstance(jnp.sin(1.0), jax.core.Tracer)
    assert_close(d.grad(lambda x: jnp.sin(x) * x)(0.5), math.cos(0.5) * 0.5 + math.sin(0.5))
    assert_close(jax.jit(d.grad(jnp.exp))(0.0), 1.0)
    assert_close(jax.grad(jnp.exp)(0.0), 1.0)


@pytest.mark.parametrize("d", FACES, ids=ENGINES)
@pytest.mark.parametrize("name", list(FAILING))
def test_an_exception_leaves_nothing_behind(name: str, d: Face) -> None:
    with pytest.raises(BrokenError):
        FAILING[name](d)
    assert_usable(d)


@pytest.mark.parametrize("d", FACES, ids=ENGINES)
@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit, SystemExit])
def test_an_interruption_leaves_nothing_behind(kind: type[BaseException], d: Face) -> None:
    def interrupted(x: Any) -> Any:
        lax.sin(x)
        raise kind

    for call in (lambda: d.grad(interrupted)(1.0), lambda: d.jvp(interrupted, (1.0,), (1.0,)),
                 lambda: d.jacfwd(interrupted)(1.0)):
        with pytest.raises(kind):
            call()
    assert_usable(d)


@pytest.mark.parametrize("d", FACES, ids=ENGINES)
def test_a_function_that_fails_now_and_works_later(d: Face) -> None:
    fails = [True]

    def body(c: Any, _: Any) -> Any:
        if fails[0]:
            raise BrokenError
        return jnp.sin(c), None

    def f(x: Any) -> Any:
        return jax.jit(lambda x: lax.scan(body, x, None, length=2)[0])(x)

    with pytest.raises(BrokenError):
        d.grad(f)(1.0)
    fails[0] = False
    assert_close(d.grad(f)(1.0), math.cos(math.sin(1.0)) * math.cos(1.0))


@pytest.mark.parametrize("d", FACES, ids=ENGINES)
def test_an_error_that_the_function_catches(d: Face) -> None:
    def f(x: Any) -> Any:
        with contextlib.suppress(BrokenError):
            d.grad(broken)(x)
        return x * jnp.sin(x)

    assert_close(d.grad(f)(0.5), math.sin(0.5) + 0.5 * math.cos(0.5))


# -------------------------------------------------------------------------------------------------------------- threads


def test_eight_threads_at_once() -> None:
    barrier = threading.Barrier(8)

    def work(k: int) -> list[float]:
        d = FACES[k % 2]
        barrier.wait(timeout=60)
        results = []
        for i in range(6):
            scale = float(k + 1)

            def f(x: Any, scale: float = scale, i: int = i) -> Any:
                y = jnp.sin(x * scale) + jax.jit(lambda z: z * z)(x)
                y = lax.scan(lambda c, a: (c * a + x, None), y, jnp.arange(1.0, 3.0))[0] if i == 0 else y * 2 + 3 * x
                return y + d.grad(lambda z: z * z * x)(x)

            results.append(float(d.grad(f)(0.3 + 0.01 * i)))
        return results

    def expected(k: int) -> list[float]:
        scale = k + 1
        return [2 * (scale * math.cos((0.3 + 0.01 * i) * scale) + 2 * (0.3 + 0.01 * i)) + 3 + 4 * (0.3 + 0.01 * i)
                for i in range(6)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(8)))
    for k in range(8):
        np.testing.assert_allclose(found[k], expected(k), rtol=1e-12)


def test_threads_share_a_linear_map() -> None:
    x = jnp.arange(1.0, 5.0)
    _, jac = dualrev.linearize(lambda x: jnp.sin(x) * x[0], x)
    _, pull = dualrev.vjp(lambda x: jnp.sin(x) * x[0], x)
    expected = jac @ x, pull(x)[0]

    def work(_: int) -> bool:
        return bool((jac @ x == expected[0]).all() and (pull(x)[0] == expected[1]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(64)))


def test_a_pull_in_another_thread() -> None:
    _, pull = dualrev.vjp(jnp.sin, 1.0)
    result = []
    thread = threading.Thread(target=lambda: result.append(pull(1.0)[0]))
    thread.start()
    thread.join(60)
    assert_close(result[0], math.cos(1.0))


# --------------------------------------------------------------------------------------------------------------- growth


def resident() -> int:
    """Bytes of memory that the process holds now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def cache_entries() -> int:
    """Everything that the tables and the store of programs hold."""
    from dualrev.calls import derived_programs
    from dualrev.table.rows import rows

    stored = sum(len(held) for held in list(derived_programs._cache.values()))
    return stored + sum(len(getattr(row, "sites", ())) for row in rows.values())


def held() -> tuple[int, int, int, int]:
    gc.collect()
    return len(gc.get_objects()), cache_entries(), len(jax.live_arrays()), resident()


def assert_no_growth(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    objects, entries, arrays, size = (b - a for a, b in zip(before, after, strict=True))
    assert objects < 2000, f"{objects} more Python objects"
    assert entries <= 2, f"{entries} more cache entries"
    assert arrays <= 2, f"{arrays} more arrays"
    assert size < 30e6, f"{size / 1e6:.0f} MB more memory"


def test_ten_thousand_gradients_of_one_function() -> None:
    w = jnp.ones(3)

    def f(x: Any) -> Any:
        return lax.sin(lax.mul(x, w)).sum()

    grads = [d.grad(f) for d in FACES]
    for grad in grads:
        for _ in range(50):
            grad(w)
    before = held()
    for k in range(10_000):
        grads[k % 20 > 0](w)  # a gradient by pushes costs many times one by a tape
    assert_no_growth(before, held())


def test_ten_thousand_gradients_of_new_functions() -> None:
    w = jnp.ones(3)

    def once(k: int) -> None:
        engine = ENGINES[k % 20 > 0]
        dualrev.grad(lambda x: lax.reduce_sum(lax.sin(lax.mul(x, w)) * (1.0 + k), (0,)), engine=engine)(w)

    for k in range(60):
        once(k)
    before = held()
    for k in range(10_000):
        once(k)
    assert_no_growth(before, held())


@pytest.mark.parametrize("d", FACES, ids=ENGINES)
def test_new_functions_that_are_compiled(d: Face) -> None:
    """Programs derived from a jaxpr that holds an array go when it goes; for others, see ``test_shared_programs``."""
    def once(k: int) -> None:
        factor = jnp.full((), k, "float64")
        d.grad(lambda x: jax.jit(lambda y: jnp.sin(y) * factor)(x))(1.0)
        d.grad(lambda x: lax.scan(lambda c, _: (c * factor, None), x, None, length=2)[0])(1.0)

    for k in range(3):
        once(k)
    jax.clear_caches()
    gc.collect()
    before = cache_entries()
    for k in range(12):
        once(k)
    jax.clear_caches()
    gc.collect()
    assert cache_entries() <= before + 4


def test_a_linear_map_frees_its_residuals() -> None:
    before = sum(1 for a in jax.live_arrays() if a.shape == (1013,))
    x = jnp.ones(1013)
    _, pull = dualrev.vjp(lambda x: (jnp.sin(x) * jnp.exp(x)).sum(), x)
    assert sum(1 for a in jax.live_arrays() if a.shape == (1013,)) > before + 1
    del pull, x
    assert sum(1 for a in jax.live_arrays() if a.shape == (1013,)) == before, "freed by reference counts, without the collector"


def test_cotangents_are_let_go_during_the_pull() -> None:
    counts: list[int] = []

    @jax.custom_vjp
    def watched(x: Any) -> Any:
        return x

    def bwd(_: Any, ct: Any) -> Any:
        counts.append(sum(1 for a in jax.live_arrays() if a.shape == (1019,)))
        return (ct * 1.5,)

    watched.defvjp(lambda x: (x, None), bwd)

    def f(x: Any) -> Any:
        for _ in range(20):
            x = watched(x)
        return x.sum()

    dualrev.grad(f)(jnp.ones(1019))
    assert max(counts) <= min(counts) + 2
