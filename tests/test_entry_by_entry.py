"""Programs that take entries of arrays one by one are linearized as programs of arrays: derivatives as jax's, and few equations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_close
from jax import lax

import dualrev
from dualrev.calls.entry_by_entry import entries_together
from dualrev.programs.jaxprs import with_outputs

Array = Any
Function = Callable[[Array], Array]


def vectors(*shape: int) -> Any:
    return np.random.default_rng(shape[0]).uniform(-1, 1, shape)


def total(terms: Any) -> Array:
    s = None
    for term in terms:
        s = term if s is None else s + term
    return s


def neighbours(n: int) -> Function:
    return lambda x: total(jnp.sin(x[i]) * x[i - 1] for i in range(1, n))


def backwards(n: int) -> Function:
    """The order of the program is not that of the entries, and some are left out."""
    return lambda x: total(jnp.cos(x[i]) * x[(5 * i) % n] for i in range(n - 1, 0, -2))


def of_matrix(n: int) -> Function:
    """Nested loops over one sum; the transposed entries are no slice."""
    return lambda x: total(jnp.sin(x[i, j]) * x[(7 * i) % 10, j] for j in range(n // 10) for i in range(10))


def sums_of_rows(n: int) -> Function:
    """Inner sums are alike: they stay sums of vectors."""
    def f(x: Array) -> Array:
        return total(jnp.tanh(total(x[i, j] * x[0, j] for j in range(4))) for i in range(n // 4))

    return f


def stacked(n: int) -> Function:
    return lambda x: jnp.sum(jnp.stack([jnp.exp(x[i]) * x[0] for i in range(1, n)]) ** 2)


def stacked_with_others(n: int) -> Function:
    def f(x: Array) -> Array:
        found = [x[0] * x[1], *[jnp.sin(x[i]) * x[i - 1] for i in range(1, n)], jnp.sum(x), *[jnp.cos(x[i]) for i in range(n)]]
        return jnp.sum(jnp.array(found) ** 2) + jnp.sum(jnp.stack(found[:5]))

    return f


def windows(n: int) -> Function:
    """Windows that overlap, and windows that tile."""
    return lambda x: total(jnp.sum(jnp.sin(x[i: i + 3])) * jnp.prod(x[3 * (i // 3): 3 * (i // 3) + 3]) for i in range(n - 3))


def differences(n: int) -> Function:
    """Terms of both signs, numbers, and terms that are no entries."""
    def f(x: Array) -> Array:
        s = jnp.zeros((), x.dtype)
        for i in range(1, n):
            s = s - x[i] ** 2 + jnp.sin(x[i - 1]) - 1.5 - (s if i == 1 else jnp.cos(x[i]) * x[0])
        return s - jnp.sum(x)

    return f


def numbers(n: int) -> Function:
    """Constants of the program differ from entry to entry; and some entries go through a branch of Python."""
    weights = vectors(n)
    return lambda x: total((jnp.sin(x[i] * weights[i]) if i % 3 else jnp.cos(x[i])) * (i + 1.0) for i in range(n))


def of_two(n: int) -> Function:
    def f(x: Array) -> Array:
        a, b = x[0], x[1]
        return total(jnp.sin(a[i]) * b[n - 1 - i] + a[i] ** 2 for i in range(n))

    return f


def also_read_alone(n: int) -> Function:
    """Some results are also read by operations that are like no others."""
    def f(x: Array) -> Array:
        terms = [jnp.sin(x[i]) * x[i - 1] for i in range(1, n)]
        return total(terms) * jnp.exp(terms[3]) + terms[0] * jnp.tanh(terms[-1])

    return f


def in_calls(n: int) -> Function:
    step = jax.jit(lambda a, b: jnp.where(a > 0, a * b, jnp.sin(b)))
    return lambda x: total(step(x[i], x[i - 1]) for i in range(1, n))


def by_dynamic_slices(n: int) -> Function:
    """Places that are known, by operations that would take others too; one of them is clamped."""
    return lambda x: total(lax.dynamic_index_in_dim(x, i - n, keepdims=False) * lax.dynamic_slice(x, (i,), (2,))[0] for i in range(n))


def by_a_table(n: int) -> Function:
    table = np.random.default_rng(1).integers(-n, n, (n, 3))
    return lambda x: total(jnp.sum(jnp.sin(x[table[i]]) * x[i]) for i in range(n))


def written(n: int) -> Function:
    """Entries are written one by one, some of them twice, and read again in between; one write is out of bounds."""
    def f(x: Array) -> Array:
        y, s = jnp.ones(n, x.dtype), jnp.zeros((), x.dtype)
        for i in range(1, n - 1):
            y = y.at[i].set(jnp.sin(x[i]) * x[i - 1])
            s = s + y[i] * y[0] + y[n - 1]
        y = y.at[3].set(x[0]).at[n + 2].set(x[1])
        return s + jnp.sum(y**3)

    return f


def matrix(n: int) -> Function:
    """A band of a matrix: the places are no block, and a version in between is read as a whole."""
    def f(x: Array) -> Array:
        a, between = jnp.zeros((n, n), x.dtype), jnp.zeros((), x.dtype)
        for i in range(n):
            a = a.at[i, i].set(2 + x[i] ** 2)
            if i:
                a = a.at[i, i - 1].set(jnp.sin(x[i]))
            if i == n // 2:
                between = jnp.sum(a**2)
        return jnp.sum(jnp.linalg.solve(a, jnp.ones(n, x.dtype))) + between

    return f


def rows_written(n: int) -> Function:
    def f(x: Array) -> Array:
        y = jnp.zeros((3, n), x.dtype)
        for i in range(1, n):
            y = y.at[:, i].set(jnp.cos(x[i - 1]) * x[i])
        return jnp.sum(y**2 * jnp.sum(y[:, 1]))

    return f


CASES: list[tuple[Callable[[int], Function], tuple[int, ...]]] = [
    (neighbours, (40,)), (backwards, (81,)), (of_matrix, (10, 5)), (sums_of_rows, (18, 4)), (stacked, (40,)),
    (stacked_with_others, (30,)), (windows, (33,)), (differences, (30,)), (numbers, (60,)), (of_two, (2, 40)), (also_read_alone, (40,)),
    (in_calls, (40,)), (by_dynamic_slices, (40,)), (by_a_table, (30,)), (written, (30,)), (matrix, (36,)), (rows_written, (40, 3))]
SIZES: dict[Any, int] = {of_matrix: 50, sums_of_rows: 72, of_two: 40}


def cases() -> list[Any]:
    return [pytest.param(make, shape, id=make.__name__, marks=[] if make is neighbours else [pytest.mark.thorough])
            for make, shape in CASES]


def assert_all_close(found: Any, expected: Any) -> None:
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert_close(x, y)


def equations(f: Callable[..., Any], x: Any) -> int:
    """The equations that results depend on."""
    jaxpr = jax.make_jaxpr(f)(x)
    return len(with_outputs(jaxpr, jaxpr.jaxpr.outvars).eqns)


@pytest.mark.promotes
@pytest.mark.parametrize(("make", "shape"), cases())
def test_to_order_two(make: Callable[[int], Function], shape: tuple[int, ...]) -> None:
    f, x = make(SIZES.get(make, shape[0])), vectors(*shape)
    expected, gradient = jax.jit(jax.value_and_grad(f)), jax.jit(jax.grad(f))
    assert_all_close(jax.jit(lambda x: (dualrev.value_and_grad(f)(x), dualrev.grad(jax.jit(f))(x)))(x), (expected(x), gradient(x)))
    assert equations(dualrev.grad(f), x) < equations(f, x) / 2  # the mechanism ran
    t = np.cos(np.arange(x.size)).reshape(x.shape)
    difference = (gradient(x + 1e-5 * t) - gradient(x - 1e-5 * t)) / 2e-5
    assert_close(jax.jit(lambda x: dualrev.jvp(dualrev.grad(f), (x,), (t,))[1])(x), difference, rtol=1e-6)
    assert_close(jax.jit(dualrev.grad(lambda x: jnp.vdot(dualrev.grad(f)(x), t)))(x), difference, rtol=1e-6)
    batch = jax.jit(jax.vmap(dualrev.grad(f)))(np.stack([x, 2 * x]))
    assert_all_close(list(batch), [gradient(x), gradient(2 * x)])


@pytest.mark.promotes
@pytest.mark.parametrize("make", [neighbours, stacked, differences])
def test_equations_do_not_grow_with_the_number_of_entries(make: Callable[[int], Function]) -> None:
    few, many = (equations(dualrev.value_and_grad(make(n)), vectors(n)) for n in (60, 120))
    assert many <= few + 4


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "complex64", "complex128"])
def test_dtypes(dtype: str) -> None:
    x = jnp.asarray(vectors(40)).astype(dtype)

    def f(x: Array) -> Array:
        return jnp.real(total(jnp.sin(x[i]) * x[i - 1] for i in range(1, 40)))

    value, gradient = jax.jit(dualrev.value_and_grad(f))(x)
    assert value.dtype == jnp.real(x).dtype and gradient.dtype == dtype
    expected = jax.jit(jax.value_and_grad(f))(x)
    assert_all_close((value, gradient), expected)


@pytest.mark.thorough
def test_narrow_sums_keep_their_order() -> None:
    """Each step of a sum in bfloat16 rounds: of 300 equal terms it stops growing, with a derivative and without."""
    x = jnp.full(300, 1.0, "bfloat16")

    def f(x: Array) -> Array:
        return total(x[i] * x[i] for i in range(300))

    assert jax.jit(dualrev.value_and_grad(f))(x)[0] == 256


@pytest.mark.thorough
def test_integers_and_predicates() -> None:
    """Indices and predicates that are computed entry by entry have no derivatives, and select what has."""
    k = np.arange(60) % 7

    def f(x: Array) -> Array:
        found = [jnp.where(x[i] > 0.1, x[i] ** 2, -x[i - 1]) * lax.convert_element_type(jnp.asarray(k)[i] + 1, x.dtype)
                 for i in range(1, 60)]
        return total(found)

    x = vectors(60)
    assert_close(jax.jit(dualrev.grad(f))(x), jax.jit(jax.grad(f))(x))


def test_results_that_are_no_arrays() -> None:
    def f(x: Array) -> tuple[Array, dict[str, Any]]:
        s = neighbours(60)(x)
        return s, {"name": "neighbours", "half": 0.5 * s}

    x = vectors(60)
    gradient, about = {}, {}

    @jax.jit
    def run(x: Array) -> tuple[Array, Array]:
        found, about["all"] = dualrev.grad(f, has_aux=True)(x)
        return found, about["all"]["half"]

    gradient["found"], half = run(x)
    assert about["all"]["name"] == "neighbours"
    assert_close(half, 0.5 * jax.jit(neighbours(60))(x))
    assert_close(gradient["found"], jax.jit(jax.grad(neighbours(60)))(x))


@pytest.mark.thorough
def test_what_a_function_closes_over() -> None:
    def derivatives(d: Any) -> Callable[..., Any]:
        def inner(x: Array, y: Array) -> Array:
            return d.grad(lambda x: total(jnp.sin(x[i]) * y[i - 1] * y[0] for i in range(1, 40)))(x)

        return lambda x, y: (inner(x, y), d.grad(lambda y: jnp.sum(inner(x, y)))(y))

    x, y = vectors(40), vectors(41)
    assert_all_close(jax.jit(derivatives(dualrev))(x, y), jax.jit(derivatives(jax))(x, y))


def test_effects_stay_in_order(capfd: pytest.CaptureFixture[str]) -> None:
    def f(x: Array) -> Array:
        s = jnp.zeros(())
        for i in range(1, 60):
            term = jnp.sin(x[i]) * x[i - 1]
            if i in (3, 40):
                jax.debug.print(f"term {i} {{}}", jnp.round(term), ordered=True)
            s = s + term
        return s

    x = vectors(60)
    jax.block_until_ready(jax.jit(dualrev.grad(f))(x))
    jax.effects_barrier()
    printed = capfd.readouterr().out
    # A print of the function's own trace would be a second one.
    assert [line.split()[1] for line in printed.splitlines()] == ["3", "40"]


def test_programs_without_many_alike_stay_as_they_are() -> None:
    def chain(x: Array) -> Array:
        s = x[0]
        for i in range(1, 60):
            s = jnp.tanh(s * 0.5 + x[i])
        return s

    jaxpr = jax.make_jaxpr(chain)(vectors(60))
    assert entries_together(jaxpr) is jaxpr


def test_python_may_ask_for_a_value_that_is_known() -> None:
    """Within a function that is being traced, one argument of another one is known: it is not traced without the value."""
    def f(arguments: tuple[Array, Array]) -> Array:
        x, length = arguments
        return total(jnp.sin(x[i]) * x[i - 1] * length for i in range(1, int(length)))

    x, length = vectors(60), jnp.asarray(60.0)
    found = jax.jit(lambda x: dualrev.grad(f)((x, length))[0])(x)
    assert_close(found, jax.jit(jax.grad(lambda x: 60 * neighbours(60)(x)))(x))
