"""Un-jitted transforms of functions that hold loops and branches: the second call with the same shapes compiles nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import dualrev as dr

X = jnp.array([0.3, 0.5, 0.7])
W = jnp.array([1.1, 0.9, 0.4])

Fun = Callable[[Any], Any]
_compiled: list[str] = []


def _note(event: str, duration_secs: float, **_: str | int) -> None:
    if "backend_compile" in event:
        _compiled.append(event)


jax.monitoring.register_event_duration_secs_listener(_note)


def scan(x: Any) -> Any:
    return jnp.sum(lax.scan(lambda c, w: (jnp.sin(c) * x + w, c), x, W)[1])


def while_loop(x: Any) -> Any:
    return jnp.sum(lax.while_loop(lambda c: c[0] < 4, lambda c: (c[0] + 1, jnp.sin(c[1]) * x), (0, x))[1])


def while_on_value(x: Any) -> Any:
    """The members of a batch take different numbers of steps."""
    return jnp.sum(lax.while_loop(lambda c: jnp.sum(c) < 4, lambda c: c * 1.5 + 0.1 * x, x))


def fori_loop(x: Any) -> Any:
    return jnp.sum(lax.fori_loop(0, 4, lambda i, c: jnp.sin(c) * x + W[i % 3], x))


def nested(x: Any) -> Any:
    return jnp.sum(lax.scan(lambda c, _: (lax.fori_loop(0, 3, lambda i, a: jnp.sin(a) * x, c), c), x, None, length=2)[1])


def map_of_scan(x: Any) -> Any:
    return jnp.sum(lax.map(lambda y: lax.scan(lambda c, _: (jnp.cos(c) * y, None), y, None, length=3)[0], x))


def batched_scan(x: Any) -> Any:
    return jnp.sum(jax.vmap(lambda y: lax.scan(lambda c, _: (jnp.sin(c) * y, c), y, None, length=3)[1])(x))


def cond(x: Any) -> Any:
    return jnp.sum(lax.cond(x[0] > 0, lambda y: jnp.sin(y) * x, lambda y: jnp.cos(y), x))


def switch(x: Any) -> Any:
    return jnp.sum(lax.switch(jnp.int32(1), [lambda y: jnp.sin(y), lambda y: jnp.cos(y) * x], x))


def linear_solve(x: Any) -> Any:
    b = 2.0 * jnp.eye(3) + 0.1 * x[:, None] * x[None, :]
    return jnp.sum(lax.custom_linear_solve(lambda v: b @ v, x, lambda mv, v: jax.scipy.sparse.linalg.cg(mv, v, maxiter=3)[0],
                                           symmetric=True) ** 2)


BRIEF = [scan, while_loop, cond]
HOLDERS = [*BRIEF, *[pytest.param(f, marks=pytest.mark.thorough) for f in (
    while_on_value, fori_loop, nested, map_of_scan, batched_scan, switch, linear_solve)]]
#: What each transform gives, and the function that says the same of jax, which compiles it here.
TRANSFORMS: dict[str, tuple[Callable[[Fun], Any], Callable[[Fun, Any], Any]]] = {
    "grad": (lambda f: dr.grad(f)(X), lambda f, x: jax.jacfwd(f)(x)),
    "grad, forward": (lambda f: dr.grad(f, engine="forward")(X), lambda f, x: jax.jacfwd(f)(x)),
    "jacfwd, in chunks": (lambda f: dr.jacfwd(f, chunk_size=2)(X), lambda f, x: jax.jacfwd(f)(x)),
    "jacobian": (lambda f: dr.jacobian(f)(X), lambda f, x: jax.jacfwd(f)(x)),
    "hessian": (lambda f: dr.hessian(f)(X), lambda f, x: jax.jacfwd(jax.jacfwd(f))(x)),
    "hvp": (lambda f: dr.hvp(f, (X,), (W,)), lambda f, x: jax.jvp(jax.jacfwd(f), (x,), (W,))[1]),
    "grad of grad": (lambda f: dr.grad(lambda x: jnp.sum(dr.grad(f)(x)))(X), lambda f, x: jnp.sum(jax.jacfwd(jax.jacfwd(f))(x), 0)),
    "vmap of grad": (lambda f: jax.vmap(dr.grad(f))(jnp.stack([X, W])), lambda f, x: jax.vmap(jax.jacfwd(f))(jnp.stack([x, W]))),
    "pulls under vmap": (lambda f: jax.vmap(dr.vjp(f, X)[1])(jnp.ones(2))[0][0], lambda f, x: jax.jacfwd(f)(x)),
    "laplacian": (lambda f: dr.laplacian(f)(X)[1], lambda f, x: jnp.trace(jax.jacfwd(jax.jacfwd(f))(x))),
}


@pytest.mark.parametrize("f", HOLDERS, ids=lambda f: f.__name__)
def test_a_second_call_compiles_nothing(f: Fun) -> None:
    names = [name for name in TRANSFORMS if not (f is linear_solve and name == "laplacian")]  # the solve itself is compiled each time
    expected = jax.jit(lambda x: [TRANSFORMS[name][1](f, x) for name in names])(X)
    for name, want in zip(names, expected, strict=True):
        transform = TRANSFORMS[name][0]
        np.testing.assert_allclose(transform(f), want, rtol=1e-9, atol=1e-12, err_msg=name)
        count = len(_compiled)
        for fun in (f, lambda x: f(x)):  # the second is made anew
            np.testing.assert_allclose(transform(fun), want, rtol=1e-9, atol=1e-12, err_msg=name)
        assert len(_compiled) == count, name


def test_other_shapes_and_dtypes_have_programs_of_their_own() -> None:
    for _ in range(2):
        for x in (X, X.astype("float32"), jnp.ones(2), jnp.ones((2, 3))):
            def f(y: Any) -> Any:
                return lax.fori_loop(0, 3, lambda i, c: jnp.sin(c) * y, y)

            got, want = dr.jacfwd(f)(x), jax.jit(jax.jacfwd(f))(x)
            assert got.dtype == want.dtype
            np.testing.assert_allclose(got, want, rtol=1e-5 if x.dtype == jnp.float32 else 1e-10, atol=1e-10)


def test_axis_names_and_their_sizes() -> None:
    """Inside a named vmap, a loop reads its axis: the program of an axis of another size is another one."""
    def f(x: Any) -> Any:
        return lax.fori_loop(0, 2, lambda i, c: jnp.sin(c) * lax.psum(x, "i") / lax.axis_size("i"), x)

    for n in (3, 4, 3):
        x = jnp.linspace(0.1, 1.0, n)
        got = jax.vmap(lambda x: dr.jvp(f, (x,), (1.0,))[1], axis_name="i")(x)
        want = jax.vmap(lambda x: jax.jvp(f, (x,), (1.0,))[1], axis_name="i")(x)
        np.testing.assert_allclose(got, want, rtol=1e-12)
