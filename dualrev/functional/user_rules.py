"""Your own rules: the derivative of a function, or of a new jax primitive, stated once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast, overload

import jax
import jax.numpy as jnp
from jax.tree_util import tree_flatten, tree_leaves, tree_map, tree_structure, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import ArrayLike, is_differentiable, tangent_aval, typeof
from dualrev._jax.custom_rules import SymbolicZero, bind_custom_jvp
from dualrev._jax.primitives import Primitive
from dualrev._jax.trees import PyTree, PyTreeDef
from dualrev.engines import reverse
from dualrev.functional import checks
from dualrev.linear import zeros
from dualrev.linear.zeros import Tangent
from dualrev.table import forms
from dualrev.table.operations import OpRow
from dualrev.table.pushforward import pushforward as pushforward_row
from dualrev.table.rows import rows

#: The arguments of a user's function, and what it returns.
P = ParamSpec("P")
Out = TypeVar("Out")

#: A partial derivative: a function of the arguments, or a number.
PartialDerivative: TypeAlias = Callable[..., ArrayLike] | complex

#: The transpose of a derivative; of a primitive, that by each operand, None where it is not linear in one.
Adjoint: TypeAlias = Callable[..., PyTree] | Sequence[Callable[..., jax.Array] | None]

#: What states a derivative, of any of the three kinds.
Statement: TypeAlias = Sequence[PartialDerivative] | Adjoint


@overload
def rule(target: Primitive, *, partials: Sequence[PartialDerivative] | None = None, pushforward: Callable[..., PyTree] | None = None,
         adjoint: Adjoint | None = None, nondiff_argnums: int | Sequence[int] = ()) -> Primitive: ...


@overload
def rule(target: Callable[P, Out], *, partials: Sequence[PartialDerivative] | None = None,
         pushforward: Callable[..., PyTree] | None = None, adjoint: Adjoint | None = None,
         nondiff_argnums: int | Sequence[int] = ()) -> Callable[P, Out]: ...


@overload
def rule(target: None = None, *, partials: Sequence[PartialDerivative] | None = None, pushforward: Callable[..., PyTree] | None = None,
         adjoint: Adjoint | None = None,
         nondiff_argnums: int | Sequence[int] = ()) -> Callable[[Callable[P, Out]], Callable[P, Out]]: ...


def rule(target: Primitive | Callable[P, Out] | None = None, *, partials: Sequence[PartialDerivative] | None = None,
         pushforward: Callable[..., PyTree] | None = None, adjoint: Adjoint | None = None,
         nondiff_argnums: int | Sequence[int] = ()) -> Primitive | Callable[P, Out] | Callable[[Callable[P, Out]], Callable[P, Out]]:
    r"""State the derivative of a function once, and get both modes, higher orders, ``jit`` and ``vmap``.

    One of three statements is given, each a function of the arguments by position and, where it names it, ``out=``, the value:

    - ``partials``: for an entry-by-entry function, one :math:`\partial f / \partial x_i` for each argument, or a number;
    - ``pushforward``: ``(t, x, *, out)`` or ``(ts, x, y, ..., *, out)`` returns :math:`\partial f \cdot t`, linear in the tangents;
      in ``ts`` an argument that does not move has None;
    - ``adjoint``: ``(ct, x, y, ..., *, out)`` returns the cotangents of the arguments, :math:`\partial f^{\mathsf T} ct`, linear in
      ``ct``: a tuple, or one value for one argument.

    The other mode is derived by transposing the statement.  ``jax``'s own transformations respect the rule too.

    Args:
      target: the function, or a jax primitive of yours, which then gets a row in the table (there a pushforward and an adjoint
        take the primitive's parameters by keyword, and ``adjoint`` says that the primitive is linear in each operand that it
        has a function for: give a sequence).
      partials, pushforward, adjoint: the statement.
      nondiff_argnums: positions of arguments that are not arrays, or not to be differentiated.

    Returns:
      The function with its rule; without ``target``, a decorator.

    Raises:
      TypeError: not exactly one statement.
      RuleError: when the rule is used and returns a wrong structure or shape; the message names the rule.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> @dr.rule(partials=[lambda x, *, out: 1 / (1 + jnp.exp(-x))])
    ... def softplus(x):
    ...     return jnp.log1p(jnp.exp(x))
    >>> float(dr.grad(softplus)(0.0)), float(dr.grad(dr.grad(softplus))(0.0))
    (0.5, 0.25)

    Source: [Radul et al. 2023, "You Only Linearize Once"].
    """
    given = {name: s for name, s in (("partials", partials), ("pushforward", pushforward), ("adjoint", adjoint)) if s is not None}
    if len(given) != 1:
        raise TypeError(f"rule takes exactly one of partials=, pushforward=, adjoint=; got {', '.join(given) or 'none'}")
    if isinstance(target, Primitive):
        _register_row(target, partials, pushforward, adjoint)
        return target
    statement = _Statement(*next(iter(given.items())))
    skipped = (nondiff_argnums,) if isinstance(nondiff_argnums, int) else tuple(nondiff_argnums)
    if target is None:
        return lambda fun: _with_rule(fun, statement, skipped)
    return _with_rule(target, statement, skipped)


def _register_row(primitive: Primitive, partials: Sequence[PartialDerivative] | None, pushforward: Callable[..., PyTree] | None,
                  adjoint: Adjoint | None) -> None:
    """State a row, and have all that it returns checked; its signatures are no promise that the operation is linear in anything."""
    if partials is not None:
        forms.elementwise(primitive, *partials, cost="work", linear_in=())
    elif pushforward is not None:
        pushforward_row(primitive, pushforward, linear_in=())
    elif callable(adjoint):
        forms.linear(primitive, adjoint)
    else:
        assert adjoint is not None  # one of the three is given
        forms.linear(primitive, *adjoint)
    row = rows[primitive]
    assert isinstance(row, OpRow)  # all three forms are
    row.is_users_own = True


class _Statement:
    """One statement of a derivative: what kind, and what it reads."""

    def __init__(self, kind: str, statement: Statement):
        self.kind = kind
        statements = cast(Sequence[PartialDerivative], statement if kind == "partials" else [statement])
        self.functions = list(statements)
        #: That of a pushforward or an adjoint.
        self.function = cast(Callable[..., PyTree], self.functions[0])
        for function in self.functions:
            if not callable(function) and kind != "partials":
                raise TypeError(f"rule: {kind} must be a function; got {function!r}")
        first = inspect.signature(self.functions[0]).parameters if callable(self.functions[0]) else {}
        self.takes_one = next(iter(first), "") == "t"

    def keywords(self, function: Callable[..., PyTree], out: PyTree, kwargs: dict[str, PyTree]) -> dict[str, PyTree]:
        names = {p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
        return {name: value for name, value in {"out": out, **kwargs}.items() if name in names}


class _Call:
    """One call of a function that has a rule: its arguments, flat and as trees."""

    def __init__(self, fun: Callable[..., PyTree], statement: _Statement, args: tuple[PyTree, ...], kwargs: dict[str, PyTree],
                 skipped: tuple[int, ...]):
        self.fun, self.statement, self.args, self.kwargs = fun, statement, args, kwargs
        self.name = checks.name_of(fun)
        fixed = {i % len(args) for i in skipped} if args else set()
        self.positions = [i for i in range(len(args)) if i not in fixed]
        self.flat, self.in_tree = tree_flatten([args[i] for i in self.positions])

    def all_args(self, flat: Sequence[jax.Array]) -> list[PyTree]:
        args = list(self.args)
        for i, x in zip(self.positions, tree_unflatten(self.in_tree, flat), strict=True):
            args[i] = x
        return args

    def evaluate(self, *flat: jax.Array) -> list[jax.Array]:
        outs, self.out_tree = tree_flatten(self.fun(*self.all_args(flat), **self.kwargs))
        return outs

    def bind(self, flat: Sequence[jax.Array]) -> list[jax.Array]:
        return bind_custom_jvp(self.evaluate, self.jvp, flat)

    def jvp(self, *flat: Any) -> list[jax.Array | SymbolicZero]:  # primals, and then a tangent of either kind for each
        n = len(self.flat)
        primals, tangents = flat[:n], [None if type(t) is SymbolicZero else zeros.drop_float0(t) for t in flat[n:]]
        outs = self.bind(primals)  # with its rule: an outer derivative must not look inside either
        try:
            moved = getattr(self, self.statement.kind)(list(primals), tangents, outs)
        except Exception as error:
            error.add_note(f"in the rule for {self.name} ({self.statement.kind})")
            raise
        return [*outs, *self.checked(moved, outs)]

    def checked(self, moved: Sequence[Tangent], outs: Sequence[jax.Array]) -> list[jax.Array | SymbolicZero]:
        results: list[jax.Array | SymbolicZero] = []
        for j, (t, out) in enumerate(zip(moved, outs, strict=True)):
            expected = tangent_aval(typeof(out))
            if t is None or not is_differentiable(typeof(out)):
                results.append(SymbolicZero(expected))
                continue
            t = jnp.asarray(t)
            if t.shape != expected.shape:
                raise errors.RuleError(f"in the rule for {self.name} ({self.statement.kind}): the tangent of output {j} has shape "
                                       f"{t.shape}, but the output has shape {expected.shape}")
            results.append(t.astype(expected.dtype) if t.dtype != expected.dtype else t)
        return results

    def partials(self, primals: list[jax.Array], tangents: list[Tangent], outs: list[jax.Array]) -> list[Tangent]:
        if len(outs) != 1 or len(primals) != len(self.positions):
            raise errors.RuleError(f"in the rule for {self.name}: partials are for functions of arrays with one array as output; "
                                   "state a pushforward")
        functions = self.statement.functions
        if len(functions) != len(primals):
            raise errors.RuleError(f"in the rule for {self.name}: {len(functions)} partials for {len(primals)} arguments")
        total: Tangent = None
        for partial, t in zip(functions, tangents, strict=True):
            if t is None:
                continue
            if callable(partial):
                factor = partial(*self.all_args(primals), **self.statement.keywords(partial, outs[0], self.kwargs))
            else:
                factor = partial
            term = jnp.broadcast_to(t, jnp.shape(outs[0])) * factor
            total = term if total is None else total + term
        return [total]

    def pushforward(self, primals: list[jax.Array], tangents: list[Tangent], outs: list[jax.Array]) -> list[Tangent]:
        function = self.statement.function
        ts = self._trees(tangents, primals)
        out = tree_unflatten(self.out_tree, outs)
        moving = ts[0] if self.statement.takes_one else tuple(ts)
        moved = function(moving, *self.all_args(primals), **self.statement.keywords(function, out, self.kwargs))
        if moved is None:
            return [None] * len(outs)
        leaves, tree = tree_flatten(moved, is_leaf=lambda x: x is None)
        expected: PyTreeDef = tree_structure(tree_map(lambda _: 0, out))
        if expected != tree_structure(tree_unflatten(tree, [0] * len(leaves))):
            raise errors.RuleError(f"in the rule for {self.name} (pushforward): the tangent has the structure {tree}, but the output "
                                   f"has {self.out_tree}")
        return leaves

    def _trees(self, tangents: list[Tangent], primals: list[jax.Array]) -> list[PyTree]:
        """A tangent for each argument: None if nothing in it moves, otherwise with zeros for what does not."""
        trees: list[PyTree] = []
        start = 0
        for arg in tree_unflatten(self.in_tree, primals):
            count = len(tree_leaves(arg))
            part, values = tangents[start: start + count], primals[start: start + count]
            start += count
            if all(t is None for t in part):
                trees.append(None)
            else:
                full = [zeros.zero_tangent(x) if t is None else t for t, x in zip(part, values, strict=True)]
                trees.append(tree_unflatten(tree_structure(arg), full))
        return trees

    def adjoint(self, primals: list[jax.Array], tangents: list[Tangent], outs: list[jax.Array]) -> list[Tangent]:
        function = self.statement.function
        moving = [i for i, t in enumerate(tangents) if t is not None]
        which = [j for j, out in enumerate(outs) if is_differentiable(typeof(out))]
        out = tree_unflatten(self.out_tree, outs)

        def pull(*cts: jax.Array) -> list[jax.Array]:
            given = dict(zip(which, cts, strict=True))
            ct = tree_unflatten(self.out_tree, [given[j] if j in given else zeros.zero_tangent(x) for j, x in enumerate(outs)])
            pulled = function(ct, *self.all_args(primals), **self.statement.keywords(function, out, self.kwargs))
            return self._flat_cotangents(pulled, primals, moving)

        tape = reverse.transpose(pull, [tangent_aval(typeof(outs[j])) for j in which])
        found = dict(zip(which, tape.pull(*[tangents[i] for i in moving]), strict=True))
        return [found.get(j) for j in range(len(outs))]

    def _flat_cotangents(self, pulled: PyTree, primals: list[jax.Array], moving: list[int]) -> list[jax.Array]:
        if len(self.positions) == 1 and not (isinstance(pulled, tuple) and len(pulled) == 1):
            pulled = (pulled,)
        if not isinstance(pulled, tuple) or len(pulled) != len(self.positions):
            raise errors.RuleError(f"in the rule for {self.name} (adjoint): expected a tuple of {len(self.positions)} cotangents, one "
                                   f"for each argument; got {pulled!r}")
        flat: list[Tangent] = []
        for arg, ct in zip(tree_unflatten(self.in_tree, primals), pulled, strict=True):
            leaves = tree_leaves(arg)
            found = [None] * len(leaves) if ct is None else tree_flatten(ct, is_leaf=lambda x: x is None)[0]
            if len(found) != len(leaves):
                raise errors.RuleError(f"in the rule for {self.name} (adjoint): a cotangent has {len(found)} leaves, but its argument "
                                       f"has {len(leaves)}")
            flat.extend(found)
        results = []
        for i in moving:
            x, ct = primals[i], flat[i]
            ct = zeros.zero_tangent(x) if ct is None else jnp.asarray(ct)
            if ct.shape != jnp.shape(x):
                raise errors.RuleError(f"in the rule for {self.name} (adjoint): the cotangent of argument leaf {i} has shape "
                                       f"{ct.shape}, but the argument has shape {jnp.shape(x)}")
            results.append(ct)
        return results


def _with_rule(fun: Callable[P, Out], statement: _Statement, skipped: tuple[int, ...]) -> Callable[P, Out]:
    if not callable(fun):
        raise TypeError(f"rule: expected a function or a jax primitive; got {fun!r}")

    @functools.wraps(fun)
    def with_rule(*args: P.args, **kwargs: P.kwargs) -> Out:
        call = _Call(fun, statement, args, kwargs, skipped)
        checks.check_leaves([args[i] for i in call.positions], "arguments")
        outs = call.bind(call.flat)
        out: Out = tree_unflatten(call.out_tree, outs)
        return out

    return with_rule
