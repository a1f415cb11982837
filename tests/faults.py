"""Programs with one fault each: the operation that makes the first NaN or infinity, and its line, which has a mark.

A fault stands at the line with ``# fault: <name of the function>``.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec as P

import dualrev as dr

Step = tuple[int, ...]


class Fault(NamedTuple):
    """``run(*args)`` returns a number that is not finite; ``operation`` in the ``where`` of it made the first one."""

    name: str
    run: Callable[..., Any]
    args: tuple[Any, ...]
    operation: str
    where: str = "pull"
    steps: Step = ()
    example: Step = ()

    @property
    def line(self) -> int:
        text = pathlib.Path(__file__).read_text().splitlines()
        (found,) = [i for i, line in enumerate(text, 1) if line.endswith(f"# fault: {self.name}")]
        return found


FAULTS: list[Fault] = []


def fault(operation: str, *args: Any, by: Callable[..., Any] = dr.grad, where: str = "pull", steps: Step = (),
          example: Step = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(fun: Callable[..., Any]) -> Callable[..., Any]:
        FAULTS.append(Fault(fun.__name__, by(fun), args, operation, where, steps, example))
        return fun

    return add


def same(fun: Callable[..., Any]) -> Callable[..., Any]:
    return fun


def jitted(fun: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(dr.grad(fun))


def pushed(fun: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: dr.jvp(fun, (x,), (jnp.ones_like(x),))


x3 = np.array([4.0, 0.0, 1.0])
matrix = np.array([[1.0, 2.0], [2.0, 1.0]])


# ------------------------------------------------------------------------------------------------------------ in the function


@fault("log", x3 - 1, by=same, where="function")
def log_of_negative(x):
    y = x * 2
    return jnp.sum(jnp.log(y))  # fault: log_of_negative


@fault("sqrt", x3 - 1, by=jax.jit, where="function")
def sqrt_of_negative(x):
    return jnp.sqrt(jnp.sin(x) - 0.1)  # fault: sqrt_of_negative


@fault("div", x3, by=same, where="function")
def zero_by_zero(x):
    y = x / x  # fault: zero_by_zero
    return jnp.sum(y * 2)


@fault("exp", 1000.0, by=same, where="function")
def overflow(x):
    big = jnp.exp(x)  # fault: overflow
    return big / (1 + big)


@fault("sub", np.array([-np.inf, -np.inf]), by=same, where="function")
def softmax_of_nothing(x):
    shifted = x - jnp.max(x)  # fault: softmax_of_nothing
    return jnp.exp(shifted) / jnp.sum(jnp.exp(shifted))


@fault("cholesky", matrix, by=same, where="function")
def indefinite(a):
    return jnp.sum(jnp.linalg.cholesky(a))  # fault: indefinite


@fault("acos", np.array([0.5, 1.0000001]), by=same, where="function")
def angle(x):
    return jnp.sum(jnp.arccos(x))  # fault: angle


@fault("sqrt", 3.0, by=same, where="function", steps=(3,))
def in_scan(x):
    def body(c, a):
        c = jnp.sqrt(c - a)  # fault: in_scan
        return c, c * 2

    return jnp.sum(lax.scan(body, x, jnp.array([0.1, 0.1, 0.1, 9.0, 0.0]))[1])


@fault("log", 3.0, by=same, where="function", steps=(4,))
def in_while(x):
    def body(s):
        i, c = s
        return i + 1, jnp.log(c + 1.05)  # fault: in_while

    return lax.while_loop(lambda s: s[0] < 20, lambda s: lax.cond(s[0] == 4, lambda t: body((t[0], t[1] - 99.0)), body, s), (0, x))[1]


@fault("log", 3.0, by=same, where="function", steps=(1, 2))
def in_nested_loops(x):
    def outer(i, c):
        def inner(j, d):
            bad = (i == 1) & (j == 2)
            return d + jnp.log(jnp.where(bad, -1.0, 2.0) * d)  # fault: in_nested_loops

        return lax.fori_loop(0, 4, inner, c)

    return lax.fori_loop(0, 3, outer, x)


@fault("sqrt", np.array([[1.0, 2.0], [3.0, -4.0], [5.0, 6.0]]), by=jax.vmap, where="function", example=(1,))
def of_example(x):
    return jnp.sum(jnp.sqrt(x))  # fault: of_example


@fault("log", np.array([0.5, -0.5]), by=jax.vmap, where="function", example=(1,))
def in_branch(x):
    return lax.cond(x < 0, lambda u: u * 2.0, lambda u: u, x) + jnp.log(x)  # fault: in_branch


# ---------------------------------------------------------------------------------------------------------------- in the pull


@fault("sqrt", x3)
def sqrt_at_zero(x):
    return jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0))  # fault: sqrt_at_zero


@fault("sqrt", np.zeros(3))
def norm_at_zero(x):
    y = 2 * x
    return jnp.linalg.norm(y)  # fault: norm_at_zero


@fault("log", x3, by=jitted)
def log_in_other_branch(x):
    y = x * 1.0
    safe = jnp.where(y > 0, jnp.exp(jnp.log1p(y)), 0.0)
    return jnp.sum(safe) + jnp.sum(jnp.where(y > 0, 0.0, 1.0) * jnp.log(y) * 0.0)  # fault: log_in_other_branch


@fault("pow", x3)
def power_at_zero(x):
    return jnp.sum(x ** jnp.float64(0.5))  # fault: power_at_zero


@fault("acos", np.array([0.5, 1.0]))
def acos_at_one(x):
    return jnp.sum(jnp.arccos(x))  # fault: acos_at_one


@fault("asin", np.array([0.5, -1.0]), by=jitted)
def asin_at_minus_one(x):
    return jnp.sum(jnp.arcsin(x) * jnp.array([1.0, 0.0]))  # fault: asin_at_minus_one


@fault("atan2", np.zeros(2))
def angle_of_nothing(x):
    y = x * 3
    return jnp.arctan2(y[0], y[1])  # fault: angle_of_nothing


@fault("sqrt", np.ones(4))
def std_of_constants(x):
    return jnp.std(x)  # fault: std_of_constants


@fault("eigh", np.eye(2))
def repeated_eigenvalues(a):
    vectors = jnp.linalg.eigh(a + a.T)[1]  # fault: repeated_eigenvalues
    return vectors[0, 1] * vectors[0, 0] * 3


@fault("sqrt", 2.0, steps=(2,))
def pull_in_scan(x):
    def body(c, a):
        y = c * a
        return c + jnp.sqrt(y), y  # fault: pull_in_scan

    return lax.scan(body, x, jnp.array([1.0, 1.0, 0.0, 1.0]))[0]


@fault("sqrt", 2.0, by=jitted, steps=(7,))
def pull_in_while(x):
    def body(s):
        i, c = s
        y = jnp.where(i == 7, c - lax.stop_gradient(c), c)
        return i + 1, c + jnp.sqrt(y)  # fault: pull_in_while

    return lax.while_loop(lambda s: s[0] < 12, body, (0, x))[1]


@fault("sqrt", 2.0, steps=(3,), by=lambda f: dr.grad(f, schedule="sqrt"))
def pull_in_checkpointed_scan(x):
    def body(c, a):
        y = c * a
        return c + jnp.sqrt(y), y  # fault: pull_in_checkpointed_scan

    return lax.scan(body, x, jnp.array([1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]))[0]


@fault("sqrt", 0.0)
def pull_in_cond(x):
    return lax.cond(x < 1, lambda u: jnp.sqrt(u), lambda u: u, x)  # fault: pull_in_cond


@fault("sqrt", np.array([[1.0, 2.0], [3.0, 4.0], [0.0, 6.0]]), by=lambda f: jax.vmap(dr.grad(f)), example=(2,))
def pull_of_example(x):
    return jnp.sum(jnp.sqrt(x)) * 2.0  # fault: pull_of_example


@fault("sqrt", 0.5, by=jitted, example=(3,))
def vmap_inside(w):
    def loss(a):
        return jnp.sqrt(w * a)  # fault: vmap_inside

    return jnp.mean(jax.vmap(loss)(jnp.array([1.0, 2.0, 3.0, 0.0, 5.0])))


@fault("log", x3, where="function")
def in_checkpoint(x):
    @jax.checkpoint
    def part(u):
        return jnp.where(u > 0, jnp.log(u * u) * u, 0.0)  # fault: in_checkpoint

    return jnp.sum(part(x))


@jax.custom_vjp
def user_ratio(x):
    return jnp.sum(x * x)


def _bwd(x, ct):
    length = jnp.sum(x * x)
    return (ct * x / length,)  # fault: in_users_vjp


user_ratio.defvjp(lambda x: (user_ratio(x), x), _bwd)


@fault("div", np.zeros(2))
def in_users_vjp(x):
    return user_ratio(2 * x)


@jax.custom_jvp
def user_root(x):
    return jnp.sqrt(x)


@user_root.defjvp
def _user_root_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    return user_root(x), t * (0.5 / user_root(x))  # fault: in_users_jvp


@fault("div", x3, where="function")
def in_users_jvp(x):
    return jnp.sum(user_root(x) * 3)


@fault("sqrt", x3, by=lambda f: dr.grad(lambda x: jnp.sum(dr.grad(f)(x))), where="pull")
def nested(x):
    y = x * x
    return jnp.sum(jnp.sqrt(y))  # fault: nested


@fault("pow", x3, by=dr.hessian, where="push of pull")
def in_hessian(x):
    y = x + 0.0
    return jnp.sum(jnp.power(y, 1.5))  # fault: in_hessian


@fault("cholesky", matrix, by=jitted, where="function")
def gradient_of_indefinite(a):
    factor = jnp.linalg.cholesky(a)  # fault: gradient_of_indefinite
    return jnp.sum(jnp.log(jnp.diagonal(factor)))


@fault("custom_linear_solve", np.ones((2, 2)))
def singular_solve(a):
    return jnp.sum(jnp.linalg.solve(a, jnp.ones(2)))  # fault: singular_solve


@fault("div", np.zeros(3), where="function")
def unit_vector(x):
    safe = jnp.sum(x * x)
    return jnp.sum(x / safe)  # fault: unit_vector


@fault("sqrt", np.zeros(3))
@functools.partial(jax.jit)
def in_jitted_function(x):
    return jnp.sum(jnp.sqrt(x) * 0.0)  # fault: in_jitted_function


# ---------------------------------------------------------------------------------------------------------------- in the push


@fault("sqrt", x3, by=pushed, where="push")
def push_at_zero(x):
    return jnp.sqrt(x) * 2  # fault: push_at_zero


@fault("log", np.array(0.0), by=pushed, where="function")
def push_of_log(x):
    return jnp.log(x) * 0.0  # fault: push_of_log


@fault("sqrt", 2.0, by=lambda f: jax.jit(pushed(f)), where="push", steps=(2,))
def push_in_scan(x):
    def body(c, a):
        y = c * a
        return c + jnp.sqrt(y), y  # fault: push_in_scan

    return lax.scan(body, x, jnp.array([1.0, 1.0, 0.0, 1.0]))[0]


@fault("acos", np.array([0.5, 1.0]), by=dr.jacfwd, where="push")
def forward_jacobian(x):
    return jnp.arccos(x)  # fault: forward_jacobian


@fault("sqrt", x3, by=lambda f: lambda x: dr.laplacian(f)(x)[1], where="push of push")
def in_laplacian(x):
    return jnp.sum(jnp.sqrt(x))  # fault: in_laplacian


# ------------------------------------------------------------------------------------------------------------------ on shards


def on_shards(fun):
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    return jax.shard_map(fun, mesh=mesh, in_specs=P("i"), out_specs=P("i"))


@fault("log", np.array([1.0, 2.0, -3.0, 4.0]), by=on_shards, where="function")
def in_shards(x):
    y = x * 2
    return jnp.log(y) + 1  # fault: in_shards
