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

__all__ = ["lines", "pull", "push"]

#: A function of pytrees.
Function: TypeAlias = Callable[..., PyTree]

#: jax's own, also where ``dualrev.installed`` has put others in their place.
_jvp, _vjp = ORIGINALS["jvp"], ORIGINALS["vjp"]


def push(function: Function, tangents: tuple[PyTree, ...]) -> Function:
    r"""The push :math:`J\,v` by ``jax.jvp``.

    Args:
      function: of arrays or pytrees of them.
      tangents: the direction :math:`v`, with the structure, shapes and dtypes of the primals.

    Returns:
      A function of the primals, whose result has the structure of the function's.

    Raises:
      TypeError: what jax raises, when the function that is returned is called: tangents that do not fit.

    >>> from dualrev import oracle
    >>> float(oracle.push(lambda x: x ** 2, (1.0,))(3.0))
    6.0
    """
    return lambda *primals: _jvp(function, primals, tangents)[1]


def pull(function: Function, cotangents: PyTree) -> Function:
    r"""The pull :math:`J^{\mathsf T} u` by ``jax.vjp``.

    Args:
      function: of arrays or pytrees of them.
      cotangents: :math:`u`, with the structure, shapes and dtypes of the function's result.

    Returns:
      A function of the primals, whose result is a tuple with one cotangent for each of them.

    Raises:
      TypeError, ValueError: what jax raises, when the function that is returned is called: cotangents that do not fit.

    >>> from dualrev import oracle
    >>> [float(ct) for ct in oracle.pull(lambda x, y: x * y, 1.0)(2.0, 5.0)]
    [5.0, 2.0]
    """
    return lambda *primals: _vjp(function, *primals)[1](cotangents)


def lines(function: Function, mode: Literal["forward", "reverse"]) -> Function:
    """Columns ("forward") or rows ("reverse") of the Jacobian by all primals, as a function of their numbers and the primals.

    Args:
      function: of arrays or pytrees of them.
      mode: ``"forward"`` for columns, ``"reverse"`` for rows.

    Returns:
      A function of an array of line numbers, of shape ``(k,)``, and the primals; its result holds one line after the other, each flat.
      A number past the last line gives zeros.

    Raises:
      TypeError: what jax raises, when the function that is returned is called.

    >>> import jax.numpy as jnp
    >>> from dualrev import oracle
    >>> oracle.lines(lambda x: x ** 2, "reverse")(jnp.array([1]), jnp.array([2.0, 3.0])).tolist()
    [[0.0, 6.0]]
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
