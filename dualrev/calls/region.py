r"""A region that is differentiated in a mode of its own, whatever the mode around it.

A region is one operation that holds a program.  Under the mode that it names, its derivative is that of its program.  Under the other
mode its Jacobian is computed when it is evaluated: by pushes of unit tangents of the active inputs (``"forward"``), or by pulls of unit
cotangents (``"reverse"``).  The tape, or the tangents, of the function around it use that matrix alone.

Under ``vmap`` the program remains that of one example, so that the Jacobian does: ``axes`` holds the ``in_axes`` of each ``vmap``
around it, innermost first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

import jax
from jax import lax

from dualrev._jax.avals import ShapedArray, tangent_aval, typeof
from dualrev._jax.custom_rules import SymbolicZero
from dualrev._jax.jaxprs import ClosedJaxpr, jaxpr_as_fun, stage
from dualrev._jax.new_primitives import program_primitive
from dualrev._jax.primitives import Params
from dualrev._jax.traces import is_eager
from dualrev.calls.call_rows import own_copy, splice
from dualrev.calls.derived_programs import cached
from dualrev.calls.evaluation import pushforward_of
from dualrev.calls.linearization import linearization_of
from dualrev.engines.sweeps import dense_of
from dualrev.linear.basis import matrix, push_all, unit_tangents
from dualrev.linear.dense import DenseMap
from dualrev.linear.maps import LinearMap, Tangents
from dualrev.linear.zeros import Tangent, instantiate
from dualrev.options.settings import Active
from dualrev.table.mode import Carried, Mode, Parts
from dualrev.table.rows import Expansion, Operand, Row, Taped, aval_of, register

#: The ``in_axes`` of each ``vmap``.
Axes: TypeAlias = tuple[tuple[int | None, ...], ...]

T = TypeVar("T")


def over(fun: Callable[..., T], axes: Axes) -> Callable[..., T]:
    """A function of all examples, from the function of one."""
    for in_axes in axes:
        fun = jax.vmap(fun, in_axes=in_axes)
    return fun


def _run(*args: jax.Array, jaxpr: ClosedJaxpr, axes: Axes, mode: str) -> list[jax.Array]:
    if is_eager(args):
        return cached(jaxpr, ("run", axes), lambda: jax.jit(over(jaxpr_as_fun(own_copy(jaxpr)), axes)))(*args)
    return over(jaxpr_as_fun(jaxpr), axes)(*args)


def _batched(in_axes: tuple[int | None, ...] | None, *, jaxpr: ClosedJaxpr, axes: Axes, mode: str) -> Params:
    return dict(jaxpr=jaxpr, axes=() if in_axes is None else (*axes, in_axes), mode=mode)


def _rule(params: Params, *flat: jax.Array) -> list[jax.Array | SymbolicZero]:
    """The JVP rule by which jax's own transforms see a region."""
    primals, tangents = flat[: len(flat) // 2], flat[len(flat) // 2:]
    active = tuple([not isinstance(t, SymbolicZero) for t in tangents])
    outs, linear_map, _ = linearize_by_matrix(primals, active, params)
    outs_t = linear_map.push(*[t for t, flag in zip(tangents, active, strict=True) if flag])
    return [*outs, *[SymbolicZero(tangent_aval(typeof(x))) if t is None else t for x, t in zip(outs, outs_t, strict=True)]]


region_p = program_primitive("region", _run, _batched, _rule)


class Matrix:
    """The program that evaluates a region of one example and forms its Jacobian."""

    def __init__(self, jaxpr: ClosedJaxpr, active: tuple[Active, ...], mode: str):
        self.active_outs: Sequence[bool] = ()
        in_avals = _only([tangent_aval(a) for a in jaxpr.in_avals], active)

        def by_pushes(*flat: jax.Array) -> list[jax.Array]:
            push = pushforward_of(jaxpr, active, splice("region"))

            def push_active(tangents: Sequence[Tangent]) -> tuple[Sequence[jax.Array], Sequence[Tangent]]:
                given = iter(tangents)
                return push(flat, [next(given) if flag else None for flag in active])

            outs, outs_t = push_all(push_active, unit_tangents(in_avals))
            self.active_outs = push.active_outs
            return self._results(outs, matrix([t for t in outs_t if t is not None], in_avals))

        def by_pulls(*flat: jax.Array) -> list[jax.Array]:
            outs, tape, self.active_outs = linearization_of(jaxpr, active, False, splice("region"))(flat)
            out_avals = _only([tangent_aval(a) for a in jaxpr.out_avals], self.active_outs)
            return self._results(outs, dense_of(_Transposed(tape, self), out_avals, in_avals))

        def evaluate(*flat: jax.Array) -> list[jax.Array]:
            if any(a.size for a in in_avals):
                return (by_pushes if mode == "forward" else by_pulls)(*flat)
            outs = jaxpr_as_fun(jaxpr)(*flat)
            self.active_outs = (False,) * len(outs)
            return self._results(outs, DenseMap([], [], tuple(in_avals)))

        self.n_out = len(jaxpr.out_avals)
        self.jaxpr = stage(evaluate, jaxpr.in_avals)

    def _results(self, outs: Sequence[Operand], dense: DenseMap) -> list[jax.Array]:
        leaves, self.tree = jax.tree_util.tree_flatten(dense)
        return [*outs, *leaves]

    def full_outs(self, vectors: Sequence[Tangent]) -> Tangents:
        """A tangent or cotangent for each output, from those of the active outputs."""
        given = iter(vectors)
        return tuple([next(given) if is_active else None for is_active in self.active_outs])


class _Transposed(LinearMap):
    """The transpose of a linear map, between active outputs and active inputs."""

    def __init__(self, linear_map: LinearMap, matrix: Matrix):
        self.linear_map, self.matrix = linear_map, matrix

    def push(self, *cotangents: Tangent) -> Tangents:
        return self.linear_map.pull(*self.matrix.full_outs(cotangents))

    def pull(self, *tangents: Tangent) -> Tangents:
        return tuple(_only(self.linear_map.push(*tangents), self.matrix.active_outs))


class MatrixMap(LinearMap):
    """The linear map of a region: a Jacobian for each example."""

    __slots__ = ("axes", "blocks", "in_avals", "matrix", "mode", "out_avals")

    name = "region"

    def __init__(self, blocks: Sequence[jax.Array], matrix: Matrix, mode: str, axes: Axes,
                 in_avals: Sequence[ShapedArray], out_avals: Sequence[ShapedArray]):
        self.blocks = blocks
        self.matrix = matrix
        self.mode = mode
        self.axes = axes  # of the active inputs
        self.in_avals, self.out_avals = tuple(in_avals), tuple(out_avals)

    def push(self, *tangents: Tangent) -> Tangents:
        def push(blocks: Sequence[jax.Array], *ts: Tangent) -> Tangents:
            dense = jax.tree_util.tree_unflatten(self.matrix.tree, blocks)
            return self.matrix.full_outs(dense.push(*ts) if self.mode == "forward" else dense.pull(*ts))

        given = [instantiate(t, aval) for t, aval in zip(tangents, self.in_avals, strict=True)]
        return over(push, tuple([(0, *in_axes) for in_axes in self.axes]))(self.blocks, *given)

    def pull(self, *cotangents: Tangent) -> Tangents:
        def pull(blocks: Sequence[jax.Array], *cts: Tangent) -> Tangents:
            dense = jax.tree_util.tree_unflatten(self.matrix.tree, blocks)
            return dense.pull(*cts) if self.mode == "forward" else dense.push(*cts)

        fun: Callable[..., Tangents] = pull
        for in_axes in self.axes:
            fun = _summed(fun, in_axes)
        given = [instantiate(ct, aval)
                 for ct, aval, is_active in zip(cotangents, self.out_avals, self.matrix.active_outs, strict=True) if is_active]
        return fun(self.blocks, *given)


jax.tree_util.register_pytree_node(
    MatrixMap, lambda m: ((m.blocks,), (m.matrix, m.mode, m.axes, m.in_avals, m.out_avals)),
    lambda aux, children: MatrixMap(children[0], *aux))


def _summed(pull: Callable[..., Tangents], in_axes: tuple[int | None, ...]) -> Callable[..., Tangents]:
    """The pull of all examples from that of one: an input that they share receives the sum of their cotangents."""

    def summed(*args: jax.Array) -> Tangents:
        cts = jax.vmap(pull, out_axes=tuple([axis or 0 for axis in in_axes]))(*args)
        return tuple([ct if axis is not None or ct is None else _sum(ct) for ct, axis in zip(cts, in_axes, strict=True)])

    return summed


def _sum(x: jax.Array) -> jax.Array:
    return lax.reduce_sum(x, (0,))


def linearize_by_matrix(primals: Sequence[jax.Array], active: tuple[Active, ...],
                        params: Params) -> tuple[list[jax.Array], LinearMap, Sequence[bool]]:
    """Outputs, linear map and active outputs of a region whose Jacobian is computed at once."""
    jaxpr, axes, mode = params["jaxpr"], params["axes"], params["mode"]
    matrix = cached(jaxpr, ("matrix", active, mode), lambda: Matrix(own_copy(jaxpr), active, mode))
    results = region_p.bind(*primals, jaxpr=matrix.jaxpr, axes=axes, mode=mode)
    outs, blocks = results[: matrix.n_out], results[matrix.n_out:]
    active_axes = tuple([tuple(_only(in_axes, active)) for in_axes in axes])
    in_avals = _only([typeof(x) for x in primals], active)
    return outs, MatrixMap(blocks, matrix, mode, active_axes, in_avals, [typeof(x) for x in outs]), matrix.active_outs


class RegionRow(Row):
    """The derivative of a region: under its own mode that of its program, under the other a matrix."""

    kind = "call"
    takes_parts = "uniform"

    def through(self, mode: Mode, primals: Sequence[jax.Array], parts: Sequence[Parts], params: Params) -> Carried | Expansion:
        if mode.pushes:
            return self.jvp(primals, parts, params)
        jaxpr = whole(params, [aval_of(x) for x in primals])
        return pushforward_of(jaxpr, mode.flatten(parts)[1], splice("region"), mode)(primals, parts)

    def jvp(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent],
            params: Params) -> tuple[list[jax.Array], Sequence[Tangent]]:
        active = tuple([t is not None for t in tangents])
        nonzero = [t for t in tangents if t is not None]
        if params["mode"] == "reverse":
            outs, linear_map, _ = linearize_by_matrix(primals, active, params)
            return outs, linear_map.push(*nonzero)
        push = pushforward_of(params["jaxpr"], active, splice("region"))
        axes = tuple([(*in_axes, *_only(in_axes, active)) for in_axes in params["axes"]])
        # The push of a region is a region: a tape around both records the matrix of both.
        results = region_p.bind(*primals, *nonzero, **dict(params, jaxpr=push.program.jaxpr, axes=axes))
        found = iter(results[push.n_out:])
        return results[: push.n_out], [next(found) if is_active else None for is_active in push.active_outs]

    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params,
                  is_linear: bool) -> Taped:
        active = tuple([bool(flag) for flag in active])
        if params["mode"] == "forward" and not is_linear:
            return linearize_by_matrix(primals, active, params)  # type: ignore[arg-type]
        jaxpr = whole(params, [aval_of(x) for x in primals])
        return linearization_of(jaxpr, active, is_linear, splice("region"))(primals)


def whole(params: Params, avals: Sequence[ShapedArray]) -> ClosedJaxpr:
    """The program of a region, for all examples."""
    jaxpr: ClosedJaxpr = params["jaxpr"]
    axes: Axes = params["axes"]
    if not axes:
        return jaxpr
    return cached(jaxpr, ("whole", axes, tuple(avals)), lambda: stage(over(jaxpr_as_fun(own_copy(jaxpr)), axes), avals))


def _only(values: Sequence[T], flags: Sequence[Active]) -> list[T]:
    return [x for x, flag in zip(values, flags, strict=True) if flag]


register(RegionRow(region_p))
