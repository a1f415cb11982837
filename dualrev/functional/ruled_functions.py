"""Functions with a rule of the user's: one statement of the derivative, and calls that use it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jax.tree_util import tree_flatten, tree_leaves, tree_map, tree_structure, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import ArrayLike, ShapedArray, is_differentiable, tangent_aval, typeof
from dualrev._jax.custom_rules import SymbolicZero, bind_custom_jvp
from dualrev._jax.trees import PyTree, PyTreeDef
from dualrev.engines import forward, reverse
from dualrev.functional import checks
from dualrev.linear import zeros
from dualrev.linear.maps import Tangent

#: The arguments of a user's function, and what it returns.
P = ParamSpec("P")
Out = TypeVar("Out")

#: A partial derivative by each argument: a function of the arguments, a number, or None for an argument without influence.
Partials: TypeAlias = Sequence[Callable[..., ArrayLike] | complex | None]

#: The transpose of a derivative by each argument, None where there is none.
Adjoints: TypeAlias = Sequence[Callable[..., ArrayLike] | None]

#: What states a derivative, of any kind.
Stated: TypeAlias = Callable[..., PyTree] | Partials | Adjoints


class Statement:
    """One statement of a derivative: its kind and its functions, of which some may be numbers."""

    def __init__(self, kind: str, stated: Stated):
        self.kind = kind
        self.functions: list[Any] = list(stated) if isinstance(stated, (list, tuple)) else [stated]
        first = inspect.signature(self.functions[0]).parameters if callable(self.functions[0]) else {}
        self.takes_one = next(iter(first), "") == "t"

    def keywords(self, function: Callable[..., PyTree], out: PyTree, kwargs: dict[str, PyTree]) -> dict[str, PyTree]:
        names = {p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
        return {name: value for name, value in {"out": out, **kwargs}.items() if name in names}


class Call:
    """One call of a function that has a rule: its arguments, flat and as trees."""

    def __init__(self, fun: Callable[..., PyTree], statement: Statement, args: tuple[PyTree, ...], kwargs: dict[str, PyTree],
                 skipped: tuple[int, ...]):
        self.fun, self.statement, self.args, self.kwargs = fun, statement, args, kwargs
        self.name = checks.name_of(fun)
        fixed = {i % len(args) for i in skipped} if args else set()
        self.positions = [i for i in range(len(args)) if i not in fixed]
        self.flat, self.in_tree = tree_flatten([args[i] for i in self.positions])

    def all_args(self, flat: Sequence[jax.Array | ShapedArray]) -> list[PyTree]:
        args = list(self.args)
        for i, x in zip(self.positions, tree_unflatten(self.in_tree, flat), strict=True):
            args[i] = x
        return args

    @property
    def whose(self) -> str:
        """``name at file:line`` of the user's function."""
        code = getattr(self.fun, "__code__", None)
        return self.name if code is None else f"{self.name} at {code.co_filename}:{code.co_firstlineno}"

    def evaluate(self, *flat: jax.Array) -> list[jax.Array]:
        outs, self.out_tree = tree_flatten(self.fun(*self.all_args(flat), **self.kwargs))
        return outs

    def bind(self, flat: Sequence[jax.Array]) -> list[jax.Array]:
        return bind_custom_jvp(self.evaluate, self.jvp, flat, self.whose)

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

    def one_for_each(self, primals: Sequence[jax.Array], outs: Sequence[jax.Array]) -> list[Any]:
        """The functions of a statement that has one for each argument."""
        kind, functions = self.statement.kind, self.statement.functions
        if len(outs) != 1 or len(primals) != len(self.positions):
            verb = "is" if kind == "bilinear" else "are"
            raise errors.RuleError(f"in the rule for {self.name}: {kind} {verb} for functions of arrays with one array as output; "
                                   "state a pushforward")
        if len(functions) != len(primals):
            what = "adjoints" if kind == "bilinear" else kind
            raise errors.RuleError(f"in the rule for {self.name}: {len(functions)} {what} for {len(primals)} arguments; state one for "
                                   "each, None for one without influence")
        return functions

    def partials(self, primals: list[jax.Array], tangents: list[Tangent], outs: list[jax.Array]) -> list[Tangent]:
        total: Tangent = None
        for partial, t in zip(self.one_for_each(primals, outs), tangents, strict=True):
            if t is None or partial is None:
                continue
            if callable(partial):
                factor = partial(*self.all_args(primals), **self.statement.keywords(partial, outs[0], self.kwargs))
            else:
                factor = partial
            term = jnp.broadcast_to(t, jnp.shape(outs[0])) * factor
            total = term if total is None else total + term
        return [total]

    def bilinear(self, primals: list[jax.Array], tangents: list[Tangent], outs: list[jax.Array]) -> list[Tangent]:
        """The push of each factor's tangent is found by transposing the factor's adjoint."""
        total: Tangent = None
        for i, (adjoint, t) in enumerate(zip(self.one_for_each(primals, outs), tangents, strict=True)):
            if t is None or adjoint is None:
                continue
            operands: list[jax.Array | ShapedArray] = [typeof(x) if k == i else x for k, x in enumerate(primals)]

            def pull(ct: jax.Array, i: int = i, adjoint: Callable[..., ArrayLike] = adjoint,
                     operands: list[jax.Array | ShapedArray] = operands) -> list[jax.Array]:
                pulled = adjoint(ct, *self.all_args(operands), **self.statement.keywords(adjoint, None, self.kwargs))
                return [self._cotangent(i, primals[i], pulled)]

            (term,) = reverse.transpose(pull, [tangent_aval(typeof(outs[0]))]).pull(t)
            total = zeros.add(total, term)
        return [total]

    def definition(self, primals: list[jax.Array], tangents: list[Tangent], outs: list[jax.Array]) -> list[Tangent]:
        (program,) = self.statement.functions

        def run(*flat: jax.Array) -> list[jax.Array]:
            tree: PyTreeDef
            results, tree = tree_flatten(program(*self.all_args(flat), **self.kwargs))
            if tree != self.out_tree:
                raise errors.RuleError(f"in the rule for {self.name} (definition): the program returns the structure {tree}, but the "
                                       f"function returns {self.out_tree}")
            return results

        computed, moved = forward.push_through(run, primals, tangents)
        for j, (found, out) in enumerate(zip(map(typeof, computed), map(typeof, outs), strict=True)):
            if found.shape != out.shape or found.dtype != out.dtype:
                raise errors.RuleError(f"in the rule for {self.name} (definition): the program returns for output {j} a value of type "
                                       f"{found.dtype.name}{list(found.shape)}, but the function returns one of type "
                                       f"{out.dtype.name}{list(out.shape)}")
        return moved

    def pushforward(self, primals: list[jax.Array], tangents: list[Tangent], outs: list[jax.Array]) -> list[Tangent]:
        (function,) = self.statement.functions
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
        """A tangent for each argument: None if no leaf of it has one, otherwise with zeros for the leaves that have none."""
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
        (function,) = self.statement.functions
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
        flat: list[ArrayLike | None] = []
        for arg, ct in zip(tree_unflatten(self.in_tree, primals), pulled, strict=True):
            leaves = tree_leaves(arg)
            found = [None] * len(leaves) if ct is None else tree_flatten(ct, is_leaf=lambda x: x is None)[0]
            if len(found) != len(leaves):
                raise errors.RuleError(f"in the rule for {self.name} (adjoint): a cotangent has {len(found)} leaves, but its argument "
                                       f"has {len(leaves)}")
            flat.extend(found)
        return [self._cotangent(i, primals[i], flat[i]) for i in moving]

    def _cotangent(self, i: int, x: jax.Array, given: ArrayLike | None) -> jax.Array:
        """What an adjoint returned for a leaf of the arguments, as an array of the leaf's shape."""
        ct = zeros.zero_tangent(x) if given is None else jnp.asarray(given)
        if ct.shape != jnp.shape(x):
            raise errors.RuleError(f"in the rule for {self.name} ({self.statement.kind}): the cotangent of argument leaf {i} has shape "
                                   f"{ct.shape}, but the argument has shape {jnp.shape(x)}")
        return ct


def with_rule(fun: Callable[P, Out], statement: Statement, skipped: tuple[int, ...]) -> Callable[P, Out]:
    """The function with the stated derivative."""
    if not callable(fun):
        raise TypeError(f"rule: expected a function or a jax primitive; got {fun!r}")

    @functools.wraps(fun)
    def ruled(*args: P.args, **kwargs: P.kwargs) -> Out:
        call = Call(fun, statement, args, kwargs, skipped)
        checks.check_leaves([args[i] for i in call.positions], "arguments")
        outs = call.bind(call.flat)
        out: Out = tree_unflatten(call.out_tree, outs)
        return out

    return ruled
