"""Kernels that the user writes with Pallas: the push of a kernel is a kernel of primals and tangents.

A kernel reads and writes references to blocks of its operands and results.  The tangent of a reference is a reference to the block of
the tangent, so the rows of :mod:`dualrev.rules.state` suffice for its instructions.  There is no pull, as in jax: it would have to
visit the blocks in the reverse order of a grid that may run in parallel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dualrev import errors
from dualrev._jax.avals import ShapedArray, is_differentiable, is_reference, tangent_aval, typeof
from dualrev._jax.jaxprs import ClosedJaxpr, Jaxpr, jaxpr_as_fun, open_and_closed, stage
from dualrev._jax.primitives import Params, Primitive, kernel_primitives
from dualrev.calls.derived_programs import cached
from dualrev.engines import forward
from dualrev.linear import zeros
from dualrev.linear.zeros import Tangent
from dualrev.rules.state import ReferenceRow
from dualrev.table.forms import RefusingRow
from dualrev.table.rows import register

_call, _load, _swap = kernel_primitives()
_RULE = "@dualrev.rule (partials, a pushforward or an adjoint), `jax.custom_jvp` or `jax.custom_vjp`"


class KernelRow(RefusingRow):
    """``pallas_call``, whose operands are bounds of the grid, prefetched scalars, and arrays.

    Its kernel takes references to the scalars, the arrays, the results and scratch memory.
    """

    kind = "call"
    form = "a kernel"

    def error(self) -> Exception:
        return errors.no_derivative(
            self.primitive, "A kernel's derivative is found in forward mode alone; it has no transpose.",
            "Use forward mode (engine='forward', jvp, jacfwd), or state the derivative of the function that calls the kernel with "
            f"{_RULE}.")

    def unsupported(self, what: str) -> Exception:
        return errors.no_derivative(self.primitive, f"A kernel's derivative is not found for a kernel {what}.",
                                    f"State the derivative of the function that calls the kernel with {_RULE}.")

    def jvp(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent],
            params: Params) -> tuple[list[jax.Array], Sequence[Tangent]]:
        grid, out_avals = params["grid_mapping"], list(params["out_avals"])
        if params["mesh"] is not None:
            raise self.unsupported("over a mesh")
        if any(is_reference(typeof(x)) for x in primals):
            raise self.unsupported("that takes a reference")
        first = grid.num_dynamic_grid_bounds + grid.num_index_operands
        arrays, arrays_t = list(primals[first:]), list(tangents[first:])
        if any(t is not None for t in tangents[:first]):
            raise self.unsupported("whose grid or prefetched scalars are differentiated")
        aliases = {i - grid.num_index_operands: j for i, j in params["input_output_aliases"]}
        on_outs = tuple([is_differentiable(a) for a in out_avals])
        for i, j in aliases.items():  # memory for the tangent of the result, which the kernel may read
            if on_outs[j]:
                arrays_t[i] = zeros.instantiate(arrays_t[i], typeof(arrays[i]))
        on_arrays = tuple([t is not None for t in arrays_t])
        jaxpr, closed = open_and_closed(params["jaxpr"])
        scratch = list(grid.scratch_avals)
        on_scratch = tuple([_has_tangent(a) for a in scratch])
        pushed = cached(jaxpr, ("pushed", on_arrays, on_outs), lambda: self.pushed(
            closed, grid, (False,) * grid.num_index_operands, on_arrays, on_outs, on_scratch))
        mappings = list(grid.block_mappings)
        on_mappings = [*on_arrays, *on_outs]
        of_tangents = [m for m, on in zip(mappings, on_mappings, strict=True) if on]
        n_in, n_out, t_in, t_out = len(arrays), len(out_avals), sum(on_arrays), sum(on_outs)
        new_grid = grid.replace(
            block_mappings=(*mappings[:n_in], *of_tangents[:t_in], *mappings[n_in:], *of_tangents[t_in:]),
            num_inputs=n_in + t_in, num_outputs=n_out + t_out,
            scratch_avals=(*scratch, *[a.to_tangent_aval() for a, on in zip(scratch, on_scratch, strict=True) if on]))
        cost = params["cost_estimate"]
        places_in, places_out = _places(on_arrays), _places(on_outs)
        new_aliases = [*params["input_output_aliases"], *[
            (grid.num_index_operands + n_in + places_in[i], n_out + places_out[j]) for i, j in aliases.items() if on_outs[j]]]
        results = self.bind([*primals[:first], *arrays, *[t for t in arrays_t if t is not None]], dict(
            params, jaxpr=pushed, grid_mapping=new_grid, input_output_aliases=tuple(new_aliases),
            out_avals=(*out_avals, *[tangent_aval(a) for a, on in zip(out_avals, on_outs, strict=True) if on]),
            cost_estimate=cost and dataclasses.replace(cost, **{
                field.name: 2 * getattr(cost, field.name) for field in dataclasses.fields(cost)
                if field.name in ("flops", "transcendentals", "bytes_accessed")})))
        outs_t = iter(results[n_out:])
        return results[:n_out], [next(outs_t) if on else None for on in on_outs]

    def pushed(self, kernel: ClosedJaxpr, grid: Any, *groups: tuple[bool, ...]) -> Jaxpr:
        """The kernel of primals and tangents.  In each group of references, those of primals precede those of tangents.

        ``grid`` is the grid mapping, a class private to Pallas.
        """
        avals = iter(kernel.in_avals)
        given: list[ShapedArray] = []
        for flags in groups:
            refs = [next(avals) for _ in flags]
            given += [*refs, *[a.to_tangent_aval() for a, on in zip(refs, flags, strict=True) if on]]

        def push(*refs: jax.Array) -> list[jax.Array]:
            primals: list[Any] = []
            tangents: list[Tangent] = []
            values = iter(refs)
            for flags in groups:
                primals += [next(values) for _ in flags]
                tangents += [next(values) if on else None for on in flags]
            forward.push_through(jaxpr_as_fun(kernel), primals, tangents)
            return []

        with grid.trace_env():
            staged = stage(push, given)
        if staged.consts:
            raise self.unsupported("whose derivative needs arrays of constants")
        return open_and_closed(staged)[0]


def _has_tangent(aval: ShapedArray) -> bool:
    """Whether scratch memory holds numbers, as opposed to indices or semaphores."""
    return jnp.issubdtype(aval.dtype, jnp.inexact)


def _places(flags: Sequence[bool]) -> list[int]:
    """For each flag, how many before it are set."""
    return [sum(flags[:i]) for i in range(len(flags))]


class MaskedRow(ReferenceRow):
    """A masked read or write of a part of a block; the operand at ``place`` of ``args_tree`` is a value, not a reference or index."""

    form = "a kernel"

    def __init__(self, primitive: Primitive, place: int):
        super().__init__(primitive)
        self.place = place

    def value_of(self, params: Params) -> int | None:
        counts = [part.num_leaves for part in params["args_tree"].children()]
        return sum(counts[: self.place]) if counts[self.place] else None


register(KernelRow(_call))
register(MaskedRow(_load, 3))  # reference, index, mask, what is read where the mask is not set
register(MaskedRow(_swap, 2))  # reference, index, what is written, mask
