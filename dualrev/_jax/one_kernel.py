"""A primitive that runs a program, which XLA:CPU compiles to one kernel.

XLA:CPU calls a function for each fused group of operations, also within a loop, where the calls then take most of the time of small
arrays; and it hands programs of more than a few groups to other threads.  A call with the attribute ``xla_cpu_small_call`` is one
function instead, loops in it included.  XLA sets that attribute itself on loops whose steps touch few bytes: 1,024 in jax 0.10.
``inlineable`` keeps the call until then.

XLA asks no more once a call has the attribute.  Where a part of it runs in a library, the compilation fails ("Fusion kind not
implemented on CPU"): the caller of :func:`one_kernel_primitive` leaves such programs out.  Where the optimized program does not read an
operand, XLA ends the process ("All or none of the slices should have an explicit index"): see :func:`_touched`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import jax

from dualrev._jax.avals import JAXLIB_VERSION, AbstractValue, ShapedArray, typeof
from dualrev._jax.jaxprs import ClosedJaxpr, JaxprEqn, hoisted, jaxpr_as_fun, stage
from dualrev._jax.primitives import Params, Primitive
from dualrev._jax.traces import Trace, set_current_trace

if TYPE_CHECKING:
    from jax._src.interpreters.batching import AxisData  # the axis of a vmap: its name and size
    from jax._src.interpreters.mlir import LoweringRuleContext  # where a program is lowered: for what, within what
    from jax.extend.core import Effects

RELEASE = tuple(map(int, re.findall(r"\d+", JAXLIB_VERSION)[:2]))
#: Whether this is a release of jaxlib on which thousands of loops at random were compiled as kernels: ``python -m tests.fuzz_loops``.
#: XLA does not refuse a program that it can't make a kernel of: it raises an error, or ends the process.
IS_TRIED = RELEASE in ((0, 10), (0, 12))
#: Whether XLA:CPU splits large operations of a loop among threads also where the loop becomes part of a kernel, which can't start any:
#: the compilation then fails.  It does not look for them in branches.
SPLITS_LOOPS = RELEASE < (0, 12)

#: Whether what is being lowered is part of a kernel.
_within: ContextVar[bool] = ContextVar("within a kernel", default=False)


def one_kernel_primitive(name: str, is_wanted: Callable[[ClosedJaxpr], bool]) -> Primitive:
    """A primitive that runs ``jaxpr``, among its parameters, which holds no constants: as one kernel where it is compiled for a single
    CPU and ``is_wanted(jaxpr)``, with the sizes that it is compiled for, ``vmap`` around it included."""
    from jax._src.interpreters import partial_eval  # how a primitive is told that some of its results are not read
    from jax.interpreters import batching, mlir

    new = OneKernel(name)
    new.multiple_results = True
    new.is_wanted = is_wanted
    new.def_impl(lambda *args, jaxpr: jax.jit(jaxpr_as_fun(jaxpr))(*args))

    def abstract(*_: ShapedArray, jaxpr: ClosedJaxpr) -> tuple[list[ShapedArray], Effects]:
        return list(jaxpr.out_avals), jaxpr.effects

    new.def_effectful_abstract_eval(abstract)

    def lower(ctx: LoweringRuleContext, *args: Any, jaxpr: ClosedJaxpr) -> Sequence[Any]:
        run = jaxpr_as_fun(jaxpr)
        if _within.get() or not _is_for_one_cpu(ctx) or not is_wanted(jaxpr):
            return mlir.lower_fun(run, multiple_results=True)(ctx, *args)

        def nothing(*_: jax.Array) -> list[jax.Array]:
            return [jax.lax.full(a.shape, 0, a.dtype) for a in jaxpr.out_avals]

        def one_kernel(args: Sequence[jax.Array], always: jax.Array | None) -> list[jax.Array]:
            outs = list(run(*args) if always is None else jax.lax.cond(always, run, nothing, *args))
            return [*outs, _touched(args)]

        def called(*args: jax.Array) -> list[jax.Array]:
            always = jax.numpy.asarray(True) if SPLITS_LOOPS else None
            return jax.jit(one_kernel)(*jax.lax.optimization_barrier((args, always)))

        token = _within.set(True)
        try:
            outs = mlir.lower_fun(called, multiple_results=True)(ctx, *args)
        finally:
            _within.reset(token)
        for value in outs:
            _mark(value)
        return outs[:-1]

    mlir.register_lowering(new, lower)

    def batched(axis: AxisData, args: Sequence[jax.Array], dims: Sequence[int | None], *,
                jaxpr: ClosedJaxpr) -> tuple[list[jax.Array], list[int]]:
        of_all = jax.vmap(jaxpr_as_fun(jaxpr), in_axes=tuple(dims), axis_size=axis.size, spmd_axis_name=axis.spmd_name)
        of_all_jaxpr, consts = hoisted(stage(of_all, [typeof(x) for x in args]))
        outs = new.bind(*consts, *args, jaxpr=of_all_jaxpr)
        return outs, [0] * len(outs)

    batching.fancy_primitive_batchers[new] = batched

    def pruned(used: Sequence[bool], *rest: Any) -> tuple[list[bool], JaxprEqn | None]:
        eqn = rest[-1]  # since 0.12 it follows a list of inputs that are read later
        if not any(used):
            return [False] * len(eqn.invars), None
        body, used_in = partial_eval.dce_jaxpr(eqn.params["jaxpr"].jaxpr, list(used))
        invars = [x for x, is_used in zip(eqn.invars, used_in, strict=True) if is_used]
        outvars = [v for v, is_used in zip(eqn.outvars, used, strict=True) if is_used]
        return list(used_in), eqn.replace(invars=invars, outvars=outvars, params={"jaxpr": ClosedJaxpr(body, [])}, effects=body.effects)

    partial_eval.dce_rules[new] = pruned
    return new


class OneKernel(Primitive):
    """The primitive; ``is_wanted(jaxpr)`` says whether a CPU gets one kernel for a program."""

    is_wanted: Callable[[ClosedJaxpr], bool]

    def bind_with_trace(self, trace: Trace, args: Sequence[jax.Array], avals: Sequence[AbstractValue], params: Params,
                        /) -> list[jax.Array]:
        # jax's derivatives look a primitive up in a registry of their own; what the program consists of is there.
        if type(trace).__name__ in ("JVPTrace", "LinearizeTrace"):
            with set_current_trace(trace):
                return list(jaxpr_as_fun(params["jaxpr"])(*args))
        return super().bind_with_trace(trace, args, avals, params)


def _touched(args: Sequence[jax.Array]) -> jax.Array:
    """An entry of each operand: XLA ends the process where the optimized program of a kernel does not read one of its operands.

    It does not read an operand whose value XLA knows, for XLA writes that into the program in its place, so operands also pass an
    optimization barrier, which hides what is known of them.
    """
    entries = [jax.lax.slice(x.ravel(), (0,), (1,)).astype("float32") for x in args]
    return jax.numpy.concatenate(entries) if entries else jax.numpy.zeros(0, "float32")


def _is_for_one_cpu(ctx: LoweringRuleContext) -> bool:
    platforms = ctx.platforms or ctx.module_context.platforms
    axes = ctx.module_context.axis_context
    return tuple(platforms) == ("cpu",) and getattr(axes, "num_devices", 0) == 1


def _mark(value: Any) -> None:
    """Give the call that computes a value, if it is one of ours, the attributes that make it one kernel."""
    from jax.interpreters import mlir

    ir = mlir.ir
    owner = value.owner
    op = getattr(owner, "operation", owner)
    if getattr(op, "name", "") == "func.call" and "one_kernel" in str(op.attributes["callee"]):
        yes, no = ir.StringAttr.get("true"), ir.StringAttr.get("false")
        op.attributes["mhlo.frontend_attributes"] = ir.DictAttr.get({"inlineable": no, "xla_cpu_small_call": yes})
