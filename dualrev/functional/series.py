"""The functional face: Taylor series of functions along curves, and derivatives of any order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Unpack

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import keystr, tree_flatten, tree_leaves_with_path, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import is_array_like, typeof
from dualrev._jax.trees import PyTree
from dualrev.engines.parts import evaluate
from dualrev.engines.taylor import Coefficients, Taylor
from dualrev.functional import checks
from dualrev.functional.flat_calls import FlatCall
from dualrev.functional.watching import is_watched
from dualrev.linear import zeros
from dualrev.options.settings import Options, Request, using
from dualrev.programs.functions import as_arrays


@is_watched("jet")
def jet(fun: Callable[..., PyTree], primals: Sequence[PyTree], series: Sequence[Sequence[PyTree]], factorial_scaled: bool = True,
        **options: Unpack[Options]) -> tuple[PyTree, PyTree]:
    r"""Push the derivatives of a curve through a function: the derivatives of :math:`f(x(t))` at :math:`t = 0`.

    With :math:`x^{(k)}` for the derivatives of each argument along the curve, :math:`(f(x),\, (f \circ x)^{(1)}, \dots, (f \circ
    x)^{(K)})`, from recurrences that take :math:`O(K^2)` products where nested pushes take :math:`2^K`.  The signature and the results
    are those of ``jax.experimental.jet.jet``; ``fun`` may hold any operation, loop or rule of the user's, and arguments may be pytrees.

    Args:
      fun: function of real or complex arrays, or pytrees of them.
      primals: tuple or list of its arguments.
      series: for each argument, a tuple or list of :math:`x^{(1)}, x^{(2)}, \dots`, trees like the argument.  :math:`K` is the length
        of the longest; derivatives that a shorter one leaves out are zero.  A boolean argument has none: its terms are not read.
      factorial_scaled: whether ``series``, and the result, hold derivatives; False for Taylor coefficients, :math:`x^{(k)} / k!`.
      options: see :class:`~dualrev.options.settings.Options`.

    Returns:
      ``(out, out_series)``: the value, and the same tree with a list of the :math:`K` derivatives in place of each array.

    Raises:
      ValueError: not one series for each primal, none has a term, or a term does not have its primal's structure or shape.
      TypeError: a primal is not of floating-point, complex or boolean dtype, or a term is not of its kind; an output is not an array.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> out, (first, second) = dr.jet(jnp.sin, (0.0,), ((1.0, 0.0),))
    >>> float(out), float(first), float(second)
    (0.0, 1.0, 0.0)

    Source: [GriewankWalther2008, ch. 13]; [BettencourtEtAl2019].
    """
    request = Request.of("jet", options)
    with errors.calling("jet"), using(request.settings):
        checks.check_callable(fun)
        if not isinstance(primals, (tuple, list)) or not isinstance(series, (tuple, list)):
            raise TypeError(f"jet: primals and series must be tuples or lists; got {type(primals).__name__} and "
                            f"{type(series).__name__}")
        if len(series) != len(primals):
            raise ValueError(f"jet: series must have one series for each primal; got {len(series)} for {len(primals)} primals")
        for i, terms in enumerate(series):
            if not isinstance(terms, (tuple, list)):
                raise TypeError(f"jet: series[{i}] must be a tuple or list of the derivatives of primals[{i}]; got {terms!r} of type "
                                f"{type(terms).__name__}")
        order = max([len(terms) for terms in series], default=0)
        if order < 1:
            raise ValueError(f"jet: order must be at least 1: series must have a term for at least one primal; got {series!r}")
        call, flat = _call(fun, tuple(primals), "jet", takes_booleans=True)
        parts: list[Coefficients] = []
        for i, (x, terms) in enumerate(zip(primals, series, strict=True)):
            by_term = [_term(x, term, f"term {k} of the series of primals[{i}]") for k, term in enumerate(terms)]
            scales = [1 / math.factorial(k + 1) if factorial_scaled else 1.0 for k in range(order)]
            scaled = [[None if c is None else _scaled(c, scale) for c in term] for term, scale in zip(by_term, scales, strict=False)]
            n = len(tree_flatten(x)[0])
            parts += [tuple([scaled[k][leaf] if k < len(terms) else None for k in range(order)]) for leaf in range(n)]
        outs, found = _series(call, flat, parts, order)
        if factorial_scaled:
            found = [[_scaled(c, float(math.factorial(k + 1))) for k, c in enumerate(terms)] for terms in found]
        return tree_unflatten(call.out_tree, outs), tree_unflatten(call.out_tree, found)


@is_watched("taylor")
def taylor(fun: Callable[..., PyTree], x: PyTree, v: PyTree, order: int, **options: Unpack[Options]) -> tuple[PyTree, ...]:
    r"""The Taylor coefficients of a function along a line: :math:`f(x + t v) = \sum_{k=0}^{K} c_k t^k + O(t^{K+1})`.

    Args:
      fun: function of one argument, a real or complex array or a pytree of them.
      x: its argument.
      v: the direction, a tree like ``x``.
      order: :math:`K`, at least 1.
      options: see :class:`~dualrev.options.settings.Options`.

    Returns:
      ``(c_0, ..., c_K)``: trees like the result of ``fun``, of which the first is the value.

    Raises:
      ValueError: ``order`` is less than 1, or ``v`` does not have the structure or the shapes of ``x``.
      TypeError: as :func:`jet`.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> [float(c) for c in dr.taylor(lambda x: 1 / (1 - x), 0.0, 1.0, 3)]
    [1.0, 1.0, 1.0, 1.0]

    Source: [GriewankWalther2008, ch. 13].
    """
    request = Request.of("taylor", options)
    with errors.calling("taylor"), using(request.settings):
        checks.check_callable(fun)
        return _along(fun, x, v, checks.check_count("taylor", "order", order), "taylor")


@is_watched("derivatives")
def derivatives(fun: Callable[..., PyTree], x: jax.typing.ArrayLike, order: int, **options: Unpack[Options]) -> tuple[PyTree, ...]:
    r"""The derivatives of a function of one number: :math:`(f(x), f'(x), \dots, f^{(K)}(x))`.

    Args:
      fun: function of a scalar; its result is any tree of arrays.
      x: a real or complex scalar.  Use ``jax.vmap`` for several.
      order: :math:`K`, at least 1.
      options: see :class:`~dualrev.options.settings.Options`.

    Returns:
      ``order + 1`` trees like the result of ``fun``.

    Raises:
      ValueError: ``order`` is less than 1, or ``x`` is not a scalar.
      TypeError: as :func:`jet`.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> [float(d) for d in dr.derivatives(lambda x: x ** 4, 1.0, 4)]
    [1.0, 4.0, 12.0, 24.0, 24.0]

    Source: [GriewankWalther2008, ch. 13].
    """
    request = Request.of("derivatives", options)
    with errors.calling("derivatives"), using(request.settings):
        checks.check_callable(fun)
        order = checks.check_count("derivatives", "order", order)
        if not is_array_like(x) or jnp.shape(x) != ():
            raise ValueError("derivatives: x must be a scalar, as derivatives of any order are by one number; got "
                             f"{f'shape {jnp.shape(x)}' if is_array_like(x) else repr(x)}.  Use jax.vmap for several numbers, or "
                             "taylor for derivatives along a direction.")
        (x,) = as_arrays([x])
        coefficients = _along(fun, x, jnp.ones((), typeof(x).dtype), order, "derivatives")
        return tuple([jax.tree.map(lambda c, k=k: _scaled(c, float(math.factorial(k))), tree) for k, tree in enumerate(coefficients)])


def _along(fun: Callable[..., PyTree], x: PyTree, v: PyTree, order: int, name: str) -> tuple[PyTree, ...]:
    call, flat = _call(fun, (x,), name)
    direction = _term(x, v, "v")
    nothing: list[jax.Array | None] = [None] * (order - 1)
    outs, found = _series(call, flat, [(c, *nothing) for c in direction], order)
    by_order = [outs, *[[terms[k] for terms in found] for k in range(order)]]
    return tuple([tree_unflatten(call.out_tree, coefficients) for coefficients in by_order])


def _call(fun: Callable[..., PyTree], args: tuple[PyTree, ...], name: str,
          takes_booleans: bool = False) -> tuple[FlatCall, list[jax.Array]]:
    checks.check_leaves(args, "primals")
    for path, leaf in tree_leaves_with_path(args):
        dtype = checks.dtype_of(leaf)
        if not jnp.issubdtype(dtype, jnp.inexact) and not (takes_booleans and jnp.issubdtype(dtype, jnp.bool_)):
            raise TypeError(f"{name} requires inputs of floating-point or complex dtype: a series has no coefficients of dtype "
                            f"{dtype.name}, as primals{keystr(path)} has.  Close over what does not change: "
                            f"{name}(lambda x: fun(x, n), ...).")
    flat, tree = tree_flatten(args)
    return FlatCall(fun, tree, False), as_arrays(flat)


def _term(x: PyTree, term: PyTree, what: str) -> list[jax.Array | None]:
    """The arrays of a term of a series, in the types of the primal's; None for a boolean."""
    tree: PyTree
    leaves, tree = tree_flatten(x)
    terms, term_tree = tree_flatten(term)
    call = errors.user_call.get()
    if term_tree != tree:
        raise ValueError(f"{call}: {what} must have the structure of its primal, {tree}; got {term_tree}")
    found: list[jax.Array | None] = []
    for leaf, c in zip(leaves, terms, strict=True):
        if not is_array_like(c):
            raise TypeError(f"{call}: {what} must be made of arrays; got {c!r} of type {type(c).__name__}")
        aval, given = typeof(leaf), typeof(c)
        if given.shape != aval.shape:
            raise ValueError(f"{call}: {what} must have the shape of its primal, {aval.shape}; got {given.shape}")
        if jnp.issubdtype(aval.dtype, jnp.bool_):
            found.append(None)
            continue
        is_complex = jnp.issubdtype(given.dtype, jnp.complexfloating) and not jnp.issubdtype(aval.dtype, jnp.complexfloating)
        if is_complex or not jnp.issubdtype(given.dtype, jnp.number):
            raise TypeError(f"{call}: {what} must be of dtype {aval.dtype.name}, its primal's; got {given.dtype.name}")
        found.append(zeros.cast(as_arrays([c])[0], aval.dtype))
    return found


def _series(call: FlatCall, flat: list[jax.Array], parts: list[Coefficients],
            order: int) -> tuple[list[jax.Array], list[list[jax.Array]]]:
    """Outputs and the coefficients of each, zeros where there is none."""
    outs, found = evaluate(Taylor(order), call, flat, parts)
    return outs, [[zeros.fit(c, typeof(x)) if jnp.issubdtype(typeof(x).dtype, jnp.inexact) else jnp.zeros_like(x)
                   for c in (p or [None] * order)] for x, p in zip(outs, found, strict=True)]


def _scaled(c: jax.Array, scale: float) -> jax.Array:
    return c if scale == 1 else lax.mul(c, lax.full_like(c, scale))
