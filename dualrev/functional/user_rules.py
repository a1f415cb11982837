"""Your own rules: the derivative of a function, or of a new jax primitive, stated once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from numbers import Number
from typing import Any, ParamSpec, TypeVar, overload

from dualrev._jax.libraries import is_own
from dualrev._jax.primitives import Primitive
from dualrev._jax.trees import PyTree
from dualrev.calls.derived_programs import forget_programs
from dualrev.functional.ruled_functions import Adjoints, Partials, Statement, with_rule
from dualrev.table import forms
from dualrev.table.pushforward import definition as definition_row
from dualrev.table.pushforward import pushforward as pushforward_row
from dualrev.table.rows import Row, rows
from dualrev.table.with_jax import follow_in_jax

#: The arguments of a user's function, and what it returns.
P = ParamSpec("P")
Out = TypeVar("Out")


@overload
def rule(target: Primitive, *, partials: Partials | None = None, pushforward: Callable[..., PyTree] | None = None,
         adjoint: Callable[..., PyTree] | Adjoints | None = None, bilinear: Adjoints | None = None,
         definition: Callable[..., PyTree] | None = None, nondiff_argnums: int | Sequence[int] = ()) -> Primitive: ...


@overload
def rule(target: Callable[P, Out], *, partials: Partials | None = None, pushforward: Callable[..., PyTree] | None = None,
         adjoint: Callable[..., PyTree] | None = None, bilinear: Adjoints | None = None,
         definition: Callable[..., PyTree] | None = None, nondiff_argnums: int | Sequence[int] = ()) -> Callable[P, Out]: ...


@overload
def rule(target: None = None, *, partials: Partials | None = None, pushforward: Callable[..., PyTree] | None = None,
         adjoint: Callable[..., PyTree] | None = None, bilinear: Adjoints | None = None,
         definition: Callable[..., PyTree] | None = None,
         nondiff_argnums: int | Sequence[int] = ()) -> Callable[[Callable[P, Out]], Callable[P, Out]]: ...


def rule(target: Primitive | Callable[P, Out] | None = None, *, partials: Partials | None = None,
         pushforward: Callable[..., PyTree] | None = None, adjoint: Callable[..., PyTree] | Adjoints | None = None,
         bilinear: Adjoints | None = None, definition: Callable[..., PyTree] | None = None,
         nondiff_argnums: int | Sequence[int] = ()) -> Primitive | Callable[P, Out] | Callable[[Callable[P, Out]], Callable[P, Out]]:
    r"""State the derivative of a function, or of a primitive, once, and get both modes, higher orders, ``jit`` and ``vmap``.

    One of five statements is given, each made of functions of the arguments by position and, where it names it, ``out=``, the value:

    - ``partials``: for an entry-by-entry function, one :math:`\partial f / \partial x_i` for each argument, or a number;
    - ``pushforward``: ``(t, x, *, out)`` or ``(ts, x, y, ..., *, out)`` returns :math:`\partial f \cdot t`, linear in the tangents;
      in ``ts`` an argument that is not differentiated has None;
    - ``adjoint``: ``(ct, x, y, ..., *, out)`` returns the cotangents of the arguments, :math:`\partial f^{\mathsf T} ct`, linear in
      ``ct``: a tuple, or one value for one argument;
    - ``bilinear``: for a product, linear in each of two arguments, one adjoint ``(ct, x, y, ...)`` for each of the two, in which the
      argument that it is for has a shape and a dtype and no value; None for other arguments, such as indices;
    - ``definition``: a program ``(x, y, ...)`` over other operations that computes what the function does, whose derivative is known:
      for one that is faster or that nothing can look into, such as a kernel.

    The other mode is derived by transposing the statement.  ``jax``'s own transformations respect the rule too: ``jax.grad`` and
    ``jax.jvp`` of what uses the function or primitive follow from the same statement.

    Args:
      target: the function, or a jax primitive of yours, which then gets a row in the table.  There the functions take the
        primitive's parameters by keyword; ``adjoint`` says that the primitive is linear in each operand that it has a function for
        (give a sequence); and the push of a linear or bilinear primitive is the primitive itself.  For a primitive that jax or
        another library defines, or for which a derivative is registered with jax, the row is dualrev's alone: what jax does with it
        stays as it is.
      partials, pushforward, adjoint, bilinear, definition: the statement.
      nondiff_argnums: positions of a function's arguments that are not arrays, or not to be differentiated.

    Returns:
      The function with its rule; without ``target``, a decorator.  A primitive is returned as it is.

    Raises:
      TypeError: not exactly one statement, or one of a wrong kind.
      RuleError: when the rule is used and returns a wrong structure or shape; the message names the rule.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> @dr.rule(partials=[lambda x, *, out: 1 / (1 + jnp.exp(-x))])
    ... def softplus(x):
    ...     return jnp.log1p(jnp.exp(x))
    >>> float(dr.grad(softplus)(0.0)), float(dr.grad(dr.grad(softplus))(0.0))
    (0.5, 0.25)
    >>> @dr.rule(bilinear=[lambda ct, x, y: jnp.vdot(ct, y), lambda ct, x, y: x * ct])
    ... def scaled(x, y):                                 # a number times a vector
    ...     return x * y
    >>> dr.grad(lambda x: jnp.sum(scaled(x, jnp.array([1.0, 2.0])) ** 2))(3.0).item()
    30.0
    >>> @dr.rule(definition=lambda x: jnp.exp(jnp.mean(jnp.log(x))))
    ... def geometric_mean(x):                            # as one would compute it by hand
    ...     return jnp.prod(x) ** (1 / x.size)
    >>> dr.grad(geometric_mean)(jnp.array([1.0, 4.0])).tolist()
    [1.0, 0.25]

    A primitive of one's own, step by step: ``papers/ops/README.md``.

    Source: [RadulEtAl2023].
    """
    given = {"partials": partials, "pushforward": pushforward, "adjoint": adjoint, "bilinear": bilinear, "definition": definition}
    stated = {kind: statement for kind, statement in given.items() if statement is not None}
    if len(stated) != 1:
        raise TypeError(f"rule takes exactly one of {', '.join(f'{kind}=' for kind in given)}; got {', '.join(stated) or 'none'}")
    ((kind, statement),) = stated.items()
    _check(kind, statement, isinstance(target, Primitive))
    skipped = (nondiff_argnums,) if isinstance(nondiff_argnums, int) else tuple(nondiff_argnums)
    if isinstance(target, Primitive):
        if skipped:
            raise TypeError(f"rule: nondiff_argnums is for functions; got {nondiff_argnums!r} for the primitive '{target}', whose "
                            "statement has None for an operand without influence")
        row = _stated(target, kind, statement)
        if is_own(target, sys._getframe(1).f_globals.get("__name__", "")):
            follow_in_jax(row)
        return target
    if target is None:
        return lambda fun: with_rule(fun, Statement(kind, statement), skipped)
    return with_rule(target, Statement(kind, statement), skipped)


def _check(kind: str, statement: object, of_primitive: bool) -> None:
    """Raises where a statement is not made of what its kind is made of."""
    if kind in ("pushforward", "definition") or (kind == "adjoint" and not (of_primitive and isinstance(statement, (list, tuple)))):
        if not callable(statement):
            raise TypeError(f"rule: {kind} must be a function; got {statement!r}")
        return
    numbers = " or a number" if kind == "partials" else ""
    if not isinstance(statement, (list, tuple)):
        raise TypeError(f"rule: {kind} must be a list with a function{numbers} for each argument; got {statement!r}")
    for i, entry in enumerate(statement):
        if not (entry is None or callable(entry) or (numbers and isinstance(entry, Number))):
            raise TypeError(f"rule: {kind}[{i}] must be a function{numbers}, or None for an argument without influence; got {entry!r}")
    factors = sum(entry is not None for entry in statement)
    if kind == "bilinear" and factors != 2:
        raise TypeError("rule: bilinear must be a list with an adjoint for each of the two arguments that the product is linear in, "
                        f"and None for the others; got {factors} adjoint{'' if factors == 1 else 's'}. State a product of more factors "
                        "by its pushforward.")


def _stated(primitive: Primitive, kind: str, statement: Any) -> Row:
    """The row of a statement, all of whose results are checked; its signatures are no promise that it is linear in anything."""
    if kind == "partials":
        forms.elementwise(primitive, *statement, cost="work", linear_in=())
    elif kind == "pushforward":
        pushforward_row(primitive, statement, linear_in=())
    elif kind == "bilinear":
        forms.bilinear(primitive, *statement)
    elif kind == "definition":
        definition_row(primitive, statement)
    elif callable(statement):
        forms.linear(primitive, statement)
    else:
        forms.linear(primitive, *statement)
    row = rows[primitive]
    row.is_users_own = True
    forget_programs()
    return row
