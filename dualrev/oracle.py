"""jax's own derivatives, for comparison: the one place in the package where they are named.

No engine, rule or face imports this module.  Each function returns a function of the primals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from dualrev._jax.trees import PyTree
from dualrev.installed.transforms import ORIGINALS

#: A function of pytrees.
Function: TypeAlias = Callable[..., PyTree]

#: jax's own, also where ``dualrev.installed`` has put others in their place.
_jvp, _vjp = ORIGINALS["jvp"], ORIGINALS["vjp"]


def push(function: Function, tangents: tuple[PyTree, ...]) -> Function:
    """J·v, by ``jax.jvp``."""
    return lambda *primals: _jvp(function, primals, tangents)[1]


def pull(function: Function, cotangents: PyTree) -> Function:
    """Jᵀ·u, by ``jax.vjp``: one cotangent for each primal."""
    return lambda *primals: _vjp(function, *primals)[1](cotangents)


def lines(function: Function, mode: Literal["forward", "reverse"]) -> Function:
    """Columns ("forward") or rows ("reverse") of the Jacobian by all primals, as a function of their numbers and the primals.

    The result holds one line after the other, each flat; a number past the last gives zeros.
    """

    def run(numbers: jax.Array, *primals: PyTree) -> jax.Array:
        x, unravel = ravel_pytree(primals)

        def flat(x: jax.Array) -> jax.Array:
            return ravel_pytree(function(*unravel(x)))[0]

        found: jax.Array
        if mode == "forward":
            found = jax.vmap(lambda i: _jvp(flat, (x,), (_basis(i, x),))[1])(numbers)
        else:
            out, pull = _vjp(flat, x)
            found = jax.vmap(lambda i: pull(_basis(i, out))[0])(numbers)
        return found

    return run


def _basis(i: jax.Array, x: jax.Array) -> jax.Array:
    return (jnp.arange(x.size) == i).astype(x.dtype)
