"""Primitives of our own, known to ``vmap`` and to the compiler."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax

from dualrev._jax.avals import AbstractValue, ShapedArray, typeof
from dualrev._jax.custom_rules import SymbolicZero, bind_custom_jvp
from dualrev._jax.jaxprs import stage
from dualrev._jax.primitives import Params, Primitive
from dualrev._jax.traces import Trace, set_current_trace

if TYPE_CHECKING:
    from jax._src.interpreters.batching import AxisData  # the axis of a vmap: its name and size
    from jax.extend.core import Effects


def matrix_primitive(name: str, function: Callable[..., jax.Array]) -> Primitive:
    """A primitive of our own: ``function`` of arrays whose last two axes are matrices, with the type of the last for its result."""
    return _front_batched(name, function, lambda *avals: avals[-1].update(weak_type=False))


def entrywise_primitive(name: str, function: Callable[..., jax.Array]) -> Primitive:
    """A primitive of our own: ``function`` of arrays of one shape, entry by entry, with the dtype of the first for its result."""
    return _front_batched(name, function, lambda x, *_, **__: x.update(weak_type=False))


def _front_batched(name: str, function: Callable[..., jax.Array], abstract: Callable[..., ShapedArray]) -> Primitive:
    """A primitive of our own that takes batches as axes in front."""
    from jax.interpreters import batching, mlir  # how a primitive is told of vmap, and of the compiler

    new = Primitive(name)
    new.def_impl(functools.partial(_run_compiled, function))
    new.def_abstract_eval(abstract)
    mlir.register_lowering(new, mlir.lower_fun(function, multiple_results=False))

    def batch(args: Sequence[jax.Array], dims: Sequence[int | None], **params: Any) -> tuple[jax.Array, int]:
        size = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
        front = [jax.lax.broadcast(x, (size,)) if d is None else jax.numpy.moveaxis(x, d, 0) for x, d in zip(args, dims, strict=True)]
        return new.bind(*front, **params), 0

    batching.primitive_batchers[new] = batch
    return new


def vmapped_primitive(name: str, function: Callable[..., jax.Array]) -> Primitive:
    """A primitive of our own that runs ``function(*args, **params)``; under ``vmap`` it is what ``vmap`` makes of the function."""
    from jax.interpreters import batching, mlir

    new = Primitive(name)
    new.def_impl(functools.partial(_run_compiled, function))
    new.def_abstract_eval(lambda *avals, **params: stage(lambda *args: [function(*args, **params)], avals).out_avals[0])
    mlir.register_lowering(new, mlir.lower_fun(function, multiple_results=False))

    def batch(args: Sequence[jax.Array], dims: Sequence[int | None], **params: Any) -> tuple[jax.Array, int]:
        return jax.vmap(functools.partial(function, **params), in_axes=tuple(dims))(*args), 0

    batching.primitive_batchers[new] = batch
    return new


def program_primitive(name: str, run: Callable[..., list[jax.Array]], batch: Callable[..., Params],
                      rule: Callable[..., list[jax.Array | SymbolicZero]]) -> Primitive:
    """A primitive of our own that runs a program, among its parameters: ``run(*args, **params)``.

    ``batch(in_axes, **params)`` are the parameters under a ``vmap`` whose axis has no name; one that has a name may be read inside,
    and becomes part of the program, ``jaxpr`` among the parameters, with ``batch(None, **params)``.  jax's own derivatives see a
    function with ``rule``, a pushforward of ``(params, *primals, *tangents)``.
    """
    from jax._src.core import no_axis_name  # the name of a vmap's axis that has none
    from jax.interpreters import batching, mlir

    new = _ProgramPrimitive(name)
    new.multiple_results = True
    new.run, new.rule = run, rule
    new.def_impl(run)

    def abstract(*avals: ShapedArray, **params: Any) -> tuple[list[ShapedArray], Effects]:
        jaxpr = stage(functools.partial(run, **params), avals)
        return jaxpr.out_avals, jaxpr.effects

    new.def_effectful_abstract_eval(abstract)
    mlir.register_lowering(new, mlir.lower_fun(run, multiple_results=True))

    def batched(axis: AxisData, args: Sequence[jax.Array], dims: Sequence[int | None],
                **params: Any) -> tuple[list[jax.Array], list[int | None]]:
        if all(d is None for d in dims):
            outs = new.bind(*args, **params)
            return outs, [None] * len(outs)
        if axis.name is no_axis_name:
            params = batch(tuple(dims), **params)
        else:
            whole = jax.vmap(functools.partial(run, **params), in_axes=tuple(dims), axis_name=axis.name, spmd_axis_name=axis.spmd_name)
            params = batch(None, **dict(params, jaxpr=stage(whole, [typeof(x) for x in args])))
        outs = new.bind(*args, **params)
        return outs, [0] * len(outs)

    batching.fancy_primitive_batchers[new] = batched
    return new


class _ProgramPrimitive(Primitive):
    run: Callable[..., list[jax.Array]]
    rule: Callable[..., list[jax.Array | SymbolicZero]]

    def bind_with_trace(self, trace: Trace, args: Sequence[jax.Array], avals: Sequence[AbstractValue], params: Params,
                        /) -> list[jax.Array]:
        # jax's derivatives look a primitive up in a registry of their own; asked by a custom rule, they need no entry.
        if type(trace).__name__ in ("JVPTrace", "LinearizeTrace"):
            with set_current_trace(trace):
                return bind_custom_jvp(functools.partial(self.run, **params), functools.partial(self.rule, params), args)
        return super().bind_with_trace(trace, args, avals, params)


def _bound_primitive(name: str) -> Primitive:
    """A primitive without operands that marks a place in a program: nothing moves past it, and it compiles to nothing.

    What has an effect stays where it is, in programs traced by ``jit`` and inside loops too; traces that know nothing of it hand it
    to the trace around them.
    """
    from jax._src import effects  # which effects compile, and where they may stand
    from jax.interpreters import mlir

    class Bound(effects.Effect):
        pass

    for allowed in (effects.lowerable_effects, effects.control_flow_allowed_effects, effects.remat_allowed_effects,
                    effects.custom_derivatives_allowed_effects, effects.partial_eval_kept_effects):
        allowed.add_type(Bound)
    new, effect = Primitive(name), frozenset([Bound()])
    new.multiple_results = True
    new.def_impl(lambda **_: [])
    new.def_effectful_abstract_eval(lambda **_: ([], effect))
    mlir.register_lowering(new, lambda *_, **__: [])
    return new

#: Where a ``with`` block that asks for a mode begins and ends.
region_bound = _bound_primitive("region_bound")


def _identity_primitive(name: str, batch: Callable[..., tuple[jax.Array, int]]) -> Primitive:
    """A primitive that returns its first operand, and compiles to nothing; ``batch(operands, axes, **params)`` is for ``vmap``."""
    from jax.interpreters import batching, mlir

    new = Primitive(name)
    new.def_impl(lambda x, *_, **__: x)
    new.def_abstract_eval(lambda x, *_, **__: x)
    mlir.register_lowering(new, lambda _, x, *__, **___: [x])
    batching.primitive_batchers[new] = batch
    return new


def _batch_tap(args: Sequence[jax.Array], dims: Sequence[int], *, axes: tuple[int, ...], **params: Any) -> tuple[jax.Array, int]:
    return tap_p.bind(*args, axes=(*axes, dims[0]), **params), dims[0]


def _batch_perturbed(args: Sequence[jax.Array], dims: Sequence[int | None]) -> tuple[jax.Array, int]:
    size = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
    front = [jax.lax.broadcast(x, (size,)) if d is None else jax.numpy.moveaxis(x, d, 0) for x, d in zip(args, dims, strict=True)]
    return perturbed_p.bind(*front), 0

#: A value that has a name.  ``leaf`` is its place among the leaves of the pytree that was named, and ``tree`` the structure of that;
#: ``axes`` are the axes that each ``vmap`` around it added, innermost first.  No axis is moved, so that a name costs nothing.
tap_p = _identity_primitive("tap", _batch_tap)

#: The first of two operands, with the derivative of their sum: the second one is a perturbation, whose value is not read.
perturbed_p = _identity_primitive("perturbed", _batch_perturbed)


def _run_compiled(function: Callable[..., jax.Array], *args: jax.Array, **params: Any) -> jax.Array:
    return _compiled(function, tuple(params.items()))(*args)


@functools.cache
def _compiled(function: Callable[..., jax.Array], params: tuple[tuple[str, Any], ...]) -> Callable[..., jax.Array]:
    return jax.jit(functools.partial(function, **dict(params)))
