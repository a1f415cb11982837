"""Implicit differentiation: the derivative of a solver, from the equation that it solves."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.export import is_symbolic_dim
from jax.tree_util import tree_flatten, tree_structure, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import ShapedArray, common_dtype, is_differentiable, tangent_aval, typeof
from dualrev._jax.custom_rules import SymbolicZero, bind_custom_jvp
from dualrev._jax.jaxprs import FlatFunction
from dualrev._jax.library_functions import bind_linear_solve
from dualrev._jax.traces import Tracer
from dualrev._jax.trees import PyTree, PyTreeDef
from dualrev.engines import forward, reverse
from dualrev.engines.sweeps import dense_of
from dualrev.functional import checks
from dualrev.functional.krylov import gmres
from dualrev.linear import zeros
from dualrev.linear.dense import DenseMap
from dualrev.linear.maps import LinearMap, Tangent
from dualrev.programs.functions import Fixed, Function, Traced, as_arrays, split_arguments

#: Up to this many real unknowns the linear system is solved with its matrix, beyond by GMRES.
DENSE = 256

FLOAT32 = jnp.dtype("float32")

#: The arguments of a solver, and what it returns.
P = ParamSpec("P")
Out = TypeVar("Out")


class Solve(Protocol):
    """A linear solver: ``solve(matvec, b)`` returns the solution of ``matvec(y) = b``, for pytrees."""

    def __call__(self, matvec: Callable[[PyTree], PyTree], b: PyTree, /) -> PyTree: ...


#: A linear solver of flat systems: ``solver(matvec, b)``.
FlatSolve: TypeAlias = Callable[[FlatFunction, Sequence[jax.Array]], list[jax.Array]]


def implicit(solver: Callable[P, Out], residual: Callable[..., PyTree], *, solve: Solve | None = None,
             has_aux: bool = False) -> Callable[P, Out]:
    r"""A solver with the derivative of the equation that it solves, whatever it does to solve it.

    Where :math:`r(x, a) = 0` defines :math:`x(a)`, the implicit function theorem gives
    :math:`\mathrm{d}x = -(\partial_x r)^{-1}\, \partial_a r\, \mathrm{d}a`: one linear system for each tangent, and one with the
    transposed matrix for each cotangent.  A fixed point :math:`x = g(x, a)` is the root of :math:`g(x, a) - x`.  Neither mode looks
    into the solver, both hold at any order, and under ``jit`` and ``vmap``.

    Args:
      solver: ``solver(*args)`` returns :math:`x`, a pytree of floating-point or complex arrays.
      residual: ``residual(x, *args)`` returns :math:`r`, with the structure, shapes and dtypes of :math:`x`.  It may close over values
        that are differentiated; ``solver`` may as well, if it can be traced.
      solve: ``solve(matvec, b)`` returns the solution of ``matvec(y) = b``, for trees like :math:`x`; it is traced, is given the
        transposed system in reverse mode, and for complex :math:`x` the residual must be holomorphic in it.  By default a system of at
        most 256 real unknowns is solved with its matrix, formed by pushes, and a larger one by restarted GMRES.
      has_aux: whether ``solver`` returns ``(x, aux)``; ``aux`` is not differentiated.

    Returns:
      A function with the arguments and results of ``solver``.

    Raises:
      RuleError: the residual does not fit the solution; the message has both types.
      NoDerivativeError: the matrix is singular, where values are known and ``solve`` is not given.  Under ``jit`` a system that
        cannot be solved gives infinities or NaN.  How accurate the solver was is not checked.

    >>> import jax, jax.numpy as jnp, dualrev as dr
    >>> def newton(a):
    ...     return jax.lax.while_loop(lambda s: abs(s**2 - a) > 1e-6, lambda s: (s + a / s) / 2, a)
    >>> root = dr.implicit(newton, lambda s, a: s**2 - a)
    >>> round(float(dr.grad(root)(4.0)), 4), round(float(dr.grad(dr.grad(root))(4.0)), 4)
    (0.25, -0.0312)

    Source: [GriewankWalther2008, ch. 15]; [Christianson1994].
    """
    for what, function in (("a solver", solver), ("a residual", residual)):
        if not callable(function):
            raise TypeError(f"implicit: expected {what}, a function; got {function!r}")

    functions = Function(solver), Function(residual)

    @functools.wraps(solver)
    def solution(*args: PyTree) -> PyTree:
        flat, tree, fixed = split_arguments(args, {})
        problem = _Problem(*functions, solve, has_aux, tree, fixed)
        outs = problem.bind(problem.trace(flat))
        return tree_unflatten(problem.out_tree, outs)

    return cast("Callable[P, Out]", solution)


class _Problem:
    """One call of a solver: its operands are what the solver closes over, what the residual does, and the arguments."""

    def __init__(self, solver: Function, residual: Function, solve: Solve | None, has_aux: bool, tree: PyTreeDef, fixed: Fixed):
        self.solver, self.residual, self.solve, self.has_aux = solver, residual, solve, has_aux
        self.args_tree, self.fixed = tree, fixed
        self.names = checks.name_of(solver.fun), checks.name_of(residual.fun)
        self.traced: Traced | None = None
        self.traced_residual: Traced | None = None

    def trace(self, flat: Sequence[jax.Array]) -> list[jax.Array]:
        """The operands; a solver that reads concrete values is not traced, and runs on them."""
        avals = [typeof(x) for x in flat]
        self.n_flat = len(flat)
        solver = self.solver.flat(self.args_tree, self.fixed)
        try:
            self.traced = Traced(solver, avals)
        except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError, jax.errors.TracerIntegerConversionError):
            self.call = solver
            return list(flat)
        self.learn(self.traced.out_tree, self.traced.out_avals)
        found = self.traced_residual = Traced(self.residual_call, [*self.avals, *avals])
        self.check(found.out_tree, found.out_avals)
        # An outer trace may keep this object with its rule, so that it must not keep the functions and values that it was made from.
        del self.solver, self.residual, self.residual_call
        return [*self.traced.take_consts(), *found.take_consts(), *flat]

    def learn(self, out_tree: PyTreeDef, avals: Sequence[ShapedArray]) -> None:
        """What kind of solution the solver returns."""
        self.out_tree = out_tree
        result = tree_unflatten(out_tree, avals)
        if self.has_aux:
            checks.check_pair(result)
            result, _ = result
        self.avals, self.tree = tree_flatten(result)
        for aval in self.avals:
            if not is_differentiable(aval):
                raise errors.RuleError(f"implicit: the solver {self.names[0]} must return floating-point or complex arrays; got "
                                       f"{self.tree} of {_types(self.avals)}")
        args, _ = tree_unflatten(self.args_tree, [0] * self.args_tree.num_leaves)
        positional = tree_structure(((result, *args), {}))
        self.residual_call = self.residual.flat(positional, (*[None] * len(self.avals), *self.fixed))

    def check(self, tree: PyTreeDef, avals: Sequence[ShapedArray]) -> None:
        """The residual is like the solution."""
        if tree != self.tree or _types(avals) != _types(self.avals):
            raise errors.residual_does_not_fit(*self.names, f"{tree} of {_types(avals)}",
                                               f"{self.tree} of {_types(self.avals)}")

    def evaluate(self, *operands: jax.Array) -> list[jax.Array]:
        if self.traced is not None:
            return self.traced.run(operands[: self.traced.n_consts], operands[len(operands) - self.n_flat:])
        outs, tree = tree_flatten(self.call(*operands))
        outs = as_arrays(outs)
        self.learn(tree, [typeof(x) for x in outs])
        return outs

    def residuals(self, x: Sequence[jax.Array], operands: Sequence[jax.Array]) -> list[jax.Array]:
        n = len(operands) - self.n_flat
        flat = operands[n:]
        if self.traced_residual is not None:
            return self.traced_residual.run(operands[n - self.traced_residual.n_consts: n], [*x, *flat])
        outs, tree = tree_flatten(self.residual_call(*x, *flat))
        self.check(tree, [typeof(r) for r in outs])
        return outs

    def bind(self, operands: Sequence[jax.Array]) -> list[jax.Array]:
        return bind_custom_jvp(self.evaluate, self.jvp, operands)

    def jvp(self, *flat: Any) -> list[jax.Array | SymbolicZero]:  # primals, and then a tangent of either kind for each
        n = len(flat) // 2
        operands, tangents = flat[:n], [None if type(t) is SymbolicZero else zeros.drop_float0(t) for t in flat[n:]]
        outs = self.bind(operands)  # with its rule: an outer derivative must not look inside either
        x = outs[: len(self.avals)]
        _, moved = forward.push_through(lambda *operands: self.residuals(x, operands), operands, tangents)
        moved_x: Sequence[Tangent] = [None] * len(x)
        if any(t is not None for t in moved):
            moved_x = self.solved(x, operands, [lax.neg(zeros.instantiate(t, a)) for t, a in zip(moved, self.avals, strict=True)])
        moved_outs = [*moved_x, *[None] * (len(outs) - len(x))]
        return [*outs, *[SymbolicZero(tangent_aval(typeof(out))) if t is None else t for out, t in zip(outs, moved_outs, strict=True)]]

    def solved(self, x: Sequence[jax.Array], operands: Sequence[jax.Array], b: Sequence[jax.Array]) -> list[jax.Array]:
        """The solution of ``∂ₓr · y = b``."""
        if self.solve is not None:
            return _solve_flat(self.derivative(lambda *x: self.residuals(x, operands), x), self.by_user, b)

        def in_parts(*parts: jax.Array) -> list[jax.Array]:
            return _parts(self.residuals(_joined(parts, self.avals), operands))

        derivative = self.derivative(in_parts, _parts(x))
        n = sum(part.size for part in _parts(x))
        if is_symbolic_dim(n) or n > DENSE:  # a symbolic size may be large
            return _joined(_solve_flat(derivative, _by_gmres, _parts(b)), self.avals)
        avals = [typeof(part) for part in _parts(x)]
        if not any(a.size for a in avals):
            return list(b)
        matrix = _matrix(dense_of(derivative, avals, avals))
        if not isinstance(matrix, Tracer) and _is_singular(np.asarray(matrix)):
            raise errors.singular_residual(*self.names)
        parts = _parts(b)
        return _joined(_unraveled(jnp.linalg.solve(matrix, _raveled(parts)), parts), self.avals)

    def derivative(self, fun: FlatFunction, x: Sequence[jax.Array]) -> LinearMap:
        return reverse.linearize(fun, x, [True] * len(x))[1]

    def by_user(self, matvec: FlatFunction, b: Sequence[jax.Array]) -> list[jax.Array]:
        def of_tree(v: PyTree) -> PyTree:
            return tree_unflatten(self.tree, matvec(*as_arrays(tree_flatten(v)[0])))

        assert self.solve is not None
        outs: list[jax.Array]
        tree: PyTreeDef
        outs, tree = tree_flatten(self.solve(of_tree, tree_unflatten(self.tree, b)))
        if tree != self.tree or _types(map(typeof, outs)) != _types(self.avals):
            raise errors.RuleError(f"implicit: solve must return what it is given for b, in structure, shapes and dtype; got {tree} of "
                                   f"{_types(map(typeof, outs))}, expected {self.tree} of {_types(self.avals)}")
        return outs


def _types(avals: Iterable[ShapedArray]) -> str:
    return "(" + ", ".join(f"{a.dtype.name}{list(a.shape)}" for a in avals) + ")"


# A residual need not be holomorphic in x, so that the system is one of real and imaginary parts.
def _parts(xs: Sequence[jax.Array]) -> list[jax.Array]:
    return [part for x in xs for part in ((lax.real(x), lax.imag(x)) if jnp.iscomplexobj(x) else (x,))]


def _joined(parts: Sequence[jax.Array], avals: Sequence[ShapedArray]) -> list[jax.Array]:
    found = iter(parts)
    return [lax.complex(next(found), next(found)) if jnp.issubdtype(a.dtype, jnp.complexfloating) else next(found) for a in avals]


def _solve_flat(derivative: LinearMap, solver: FlatSolve, b: Sequence[jax.Array]) -> list[jax.Array]:
    """A linear solve whose transpose is a linear solve by the same ``solver(matvec, b)``."""
    avals = [typeof(x) for x in b]

    def matvec(*v: jax.Array) -> list[jax.Array]:
        return [zeros.instantiate(t, a) for t, a in zip(derivative.push(*v), avals, strict=True)]

    def vecmat(*u: jax.Array) -> list[jax.Array]:
        return [zeros.instantiate(t, a) for t, a in zip(derivative.pull(*u), avals, strict=True)]

    def solve(*b: jax.Array) -> list[jax.Array]:
        return solver(matvec, b)

    def transpose_solve(*b: jax.Array) -> list[jax.Array]:
        return solver(vecmat, b)

    return bind_linear_solve(matvec, vecmat, solve, transpose_solve, b)


def _by_gmres(matvec: FlatFunction, b: Sequence[jax.Array]) -> list[jax.Array]:
    return _unraveled(gmres(lambda v: _raveled(matvec(*_unraveled(v, b))), _raveled(b)), b)


def _matrix(dense: DenseMap) -> jax.Array:
    rows = cast(Sequence[Sequence[jax.Array]], dense.real)  # pushes leave no block out
    dtype = common_dtype(FLOAT32, *[block.dtype for row in rows for block in row])
    return jnp.concatenate([jnp.concatenate([block.reshape(-1, aval.size).astype(dtype)
                                             for block, aval in zip(row, dense.in_avals, strict=True)], axis=1) for row in rows])


def _raveled(xs: Sequence[jax.Array]) -> jax.Array:
    dtype = common_dtype(FLOAT32, *[x.dtype for x in xs])
    return jnp.concatenate([x.ravel().astype(dtype) for x in xs])


def _unraveled(vector: jax.Array, like: Sequence[jax.Array]) -> list[jax.Array]:
    parts: list[jax.Array] = []
    start = 0
    for x in like:
        parts.append(vector[start: start + x.size].reshape(x.shape).astype(x.dtype))
        start += x.size
    return parts


def _is_singular(matrix: np.ndarray) -> bool:
    if not np.isfinite(matrix).all():
        return False
    values = np.linalg.svd(matrix, compute_uv=False)
    return bool(values[-1] <= len(values) * np.finfo(matrix.dtype).eps * values[0])
