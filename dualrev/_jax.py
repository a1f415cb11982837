"""Every name that is not documented public jax API, imported in one place.

Nothing else in the package may import ``jax.core``, ``jax.extend`` or ``jax._src``.  Each name has a line that says what it
is for and, where releases differ, what changed in which version, so that a new jax release is met in this file alone.
"""

from __future__ import annotations

import functools
import pathlib
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax._src import source_info_util as _source_info_util
from jax._src.ad_checkpoint import name_p as name_p  # jax.ad_checkpoint.checkpoint_name
from jax._src.ad_checkpoint import remat_p as remat_p  # jax.checkpoint
from jax._src.ad_util import SymbolicZero as SymbolicZero  # zeros that reach custom rules with symbolic_zeros=True
from jax._src.ad_util import Zero as Zero  # a None that a backward function returns; zeros that reach rules of libraries
from jax._src.ad_util import add_any_p as add_any_p  # jax's sum of cotangents; appears in traced programs
from jax._src.api_util import InternalFloatingPointError as _Invalid  # what jax_debug_nans raises before jit has looked closer
from jax._src.core import EvalTrace as EvalTrace  # the trace of un-jitted evaluation: its values are concrete
from jax._src.core import JaxprEqnContext as JaxprEqnContext  # the settings that an equation was traced under
from jax._src.core import ensure_no_leaks as ensure_no_leaks  # ends a trace; reports leaks where jax is asked to check
from jax._src.core import primal_dtype_to_tangent_dtype as _primal_dtype_to_tangent_dtype  # extended dtypes have their own
from jax._src.core import to_concrete_value as to_concrete_value  # so that Python control flow works on our tracers
from jax._src.core import trace_ctx as _trace_ctx  # .trace: the current trace (None inside a bind since 0.11)
from jax._src.custom_derivatives import custom_jvp_call_p as custom_jvp_call_p  # carries a user's jax.custom_jvp rule
from jax._src.custom_derivatives import custom_vjp_call_p as custom_vjp_call_p  # carries a user's jax.custom_vjp rule
from jax._src.dtypes import float0 as float0  # documented as jax.dtypes.float0; the tangent dtype of integers
from jax._src.effects import remat_allowed_effects as _replayable  # the effects that may happen once more in a checkpoint
from jax._src.interpreters import partial_eval as _partial_eval  # what a checkpoint policy may answer beside True and False
from jax._src.interpreters.batching import BatchTrace as _BatchTrace  # the trace of vmap
from jax._src.linear_util import wrap_init as _wrap_init  # custom rule primitives take wrapped functions
from jax.api_util import debug_info as _debug_info  # names in error messages of wrapped functions
from jax.core import ShapedArray as ShapedArray  # the abstract value of an array
from jax.core import Trace as Trace  # base class of an engine's trace
from jax.core import Tracer as Tracer  # base class of the values that an engine's trace watches
from jax.extend.core import ClosedJaxpr as ClosedJaxpr
from jax.extend.core import Jaxpr as Jaxpr  # to put equations together that belong to a part of a program
from jax.extend.core import Primitive as Primitive
from jax.extend.core import Var as Var  # to name the values of a program that is spliced into another
from jax.extend.core import jaxpr_as_fun as jaxpr_as_fun  # evaluates a closed jaxpr under the current trace
from jax.extend.core import set_current_trace as set_current_trace
from jax.extend.core import take_current_trace as take_current_trace
from jax.extend.core.primitives import cond_p as cond_p
from jax.extend.core.primitives import jit_p as jit_p
from jax.extend.core.primitives import scan_p as scan_p
from jax.extend.core.primitives import while_p as while_p
from jax.interpreters.ad import JVPTracer as JVPTracer  # libraries ask with isinstance whether a value is being pushed

# Frames of these folders and files are not the user's; what stands in dualrev.problems is, and so is a user's own rule.
for _name in ("eager", "engines", "rules", *(file.name for file in pathlib.Path(__file__).parent.glob("*.py"))):
    _source_info_util.register_exclusion(str(pathlib.Path(__file__).parent / _name))

JAX_VERSION: tuple[int, ...] = tuple(int(part) for part in jax.__version__.split(".")[:2])


def softmax(x: Any, axis: int) -> Any:
    """jax's softmax, with its rule in terms of the result, which it has behind a setting that is off until a release turns it on."""
    from jax._src.config import softmax_custom_jvp

    with softmax_custom_jvp(True):
        return jax.nn.softmax(x, axis)


def process(trace: Trace, primitive: Any, args: Sequence[Any], params: dict[str, Any]) -> Any:
    """Run a primitive under ``trace``, which is not (yet) the current one."""
    with set_current_trace(trace):
        return primitive.bind(*args, **params)


def abstract_outputs(primitive: Any, avals: Sequence[ShapedArray], params: dict[str, Any]) -> list[ShapedArray]:
    """Abstract values of what a primitive returns, without running it."""
    outs, _effects = primitive.abstract_eval(*avals, **params)
    return list(outs) if primitive.multiple_results else [outs]


def in_eager_context() -> bool:
    """Whether nothing is being traced: a bind would run on the device at once."""
    return type(_trace_ctx.trace) is EvalTrace


def is_eager(values: Sequence[Any]) -> bool:
    """Whether all values are concrete and nothing is being traced, so that a compiled function may be called."""
    for value in values:
        if isinstance(value, Tracer):
            return False
    return in_eager_context()


def is_concrete(values: Sequence[Any]) -> bool:
    """As :func:`is_eager`, also under a trace of ours that only adds infinitesimals to values that are known."""
    for value in values:
        if isinstance(value, Tracer):
            return False
    trace = _trace_ctx.trace
    while getattr(trace, "is_infinitesimal", False):
        trace = trace.parent
    return type(trace) is EvalTrace


def is_batching() -> bool:
    """Whether operations go to ``vmap`` now."""
    return isinstance(_trace_ctx.trace, _BatchTrace)


def first_member(x: Any) -> Any:
    """Inside a function under ``vmap``: the first member's ``x``, as a value that is the same for all members."""
    trace = _trace_ctx.trace
    value, axis = trace.to_batch_info(x)
    if axis is None:
        return value
    with set_current_trace(trace.parent_trace):
        return jax.lax.index_in_dim(value, 0, axis, keepdims=False)


def is_same_for_all(x: Any) -> bool:
    """Inside a function under ``vmap``: whether ``x`` is the same for all members."""
    return _trace_ctx.trace.to_batch_info(x)[1] is None


def in_front(x: Any, n: int) -> Any:
    """``n`` times ``x``, along a new first axis."""
    return jax.lax.broadcast(x, (n,))


def typeof(x: Any) -> Any:
    return jax.typeof(x)


def tangent_aval(aval: Any) -> Any:
    """The abstract value of tangents of ``aval`` (float0 for integers and booleans)."""
    return aval.to_tangent_aval()


_DIFFERENTIABLE: dict[Any, bool] = {}


def tangent_dtype(dtype: Any) -> Any:
    """The dtype of tangents of values of a dtype."""
    return _primal_dtype_to_tangent_dtype(dtype)


def is_extended(dtype: Any) -> bool:
    """Whether a dtype is one that somebody defined, of which zero and the sum are what it says."""
    return jax.dtypes.issubdtype(dtype, jax.dtypes.extended)


def extended_zeros(aval: Any) -> Any:
    return jax.lax.broadcast(aval.dtype._rules.zero(aval.dtype), aval.shape)


def extended_sum(x: Any, y: Any) -> Any:
    return x.dtype._rules.add(x.dtype, x, y)


def is_differentiable(aval: Any) -> bool:
    """Whether values of ``aval`` have tangents other than float0."""
    dtype = getattr(aval, "dtype", None)
    if dtype is None:
        return False
    try:
        return _DIFFERENTIABLE[dtype]
    except KeyError:
        tangent = aval.to_tangent_aval()
        answer = getattr(tangent, "dtype", float0) != float0
        _DIFFERENTIABLE[dtype] = answer
        return answer


def key_implementation(aval: Any) -> str:
    """The name of the generator that an array of random keys is for."""
    return aval.dtype._impl.name


def source() -> Any:
    """Where the program stands now, which :func:`line_of` puts into words: half a microsecond."""
    return _source_info_util.current()


def line_of(source: Any) -> str:
    """``file:line (function)`` of the user's code at a :func:`source`, as jax would print it, or an empty string."""
    summary = _source_info_util.summarize(source)
    return "" if summary == "unknown" else summary


def user_frame() -> str:
    """``file:line (function)`` of the user's code that the program came from, or else of what runs now.

    What jax traces for a library's compiled function knows lines from there on only.
    """
    found = line_of(source())
    frame = None if found else sys._getframe(1)
    while frame is not None:
        if _source_info_util.is_user_filename(frame.f_code.co_filename):
            return f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_qualname})"
        frame = frame.f_back
    return found


def stage(fun: Callable[..., Sequence[Any]], avals: Sequence[Any]) -> Any:
    """Trace a flat function to a closed jaxpr."""
    # The body of a user's program may bind any effectful op; nothing of ours may wait on an outer trace.
    return jax.make_jaxpr(fun)(*avals)


def jaxpr_out_avals(jaxpr: Any) -> list[Any]:
    return list(jaxpr.out_avals)


def is_custom_root(operation: Any) -> bool:
    """Whether what ``call_hi_primitive`` holds is ``lax.custom_root``: since 0.12; before, that was a function with a JVP rule."""
    from jax._src.lax.control_flow import solves

    return isinstance(operation, getattr(solves, "CustomRoot", ()))


#: Functions of jax that are programs and whose programs have no derivative, or another than the function: name -> file.
_LIBRARY_FUNCTIONS = {"_sqrtm": "jax/_src/scipy/linalg.py", "eigh_tridiagonal": "jax/_src/scipy/linalg.py"}


def library_function(params: dict[str, Any]) -> str | None:
    """Which of :data:`_LIBRARY_FUNCTIONS` a ``jit`` call runs: its program has that name, and was traced from jax's own file."""
    name = params["name"]
    if name not in _LIBRARY_FUNCTIONS:
        return None
    info = params["jaxpr"].jaxpr.debug_info
    file = (info.func_filename or "").replace("\\", "/") if info is not None else ""
    return name if file.endswith(_LIBRARY_FUNCTIONS[name]) else None


def matrix_primitive(name: str, function: Callable[..., Any]) -> Any:
    """A primitive of our own: ``function`` of arrays whose last two axes are matrices, with the type of the last for its result."""
    return _front_batched(name, function, lambda *avals: avals[-1].update(weak_type=False))


def is_inside_jax(module: str) -> bool:
    """Whether a module is part of jax's own workings, as opposed to what jax shows."""
    return module.split(".")[0] == "jaxlib" or module == "jax._src" or module.startswith("jax._src.")


#: What ``jax_debug_nans`` and ``jax_debug_infs`` raise.
INVALID_VALUE: tuple[type[Exception], ...] = (FloatingPointError, _Invalid)


def is_invalid(x: Any) -> bool:
    """Whether an array holds what ``jax_debug_nans`` or ``jax_debug_infs`` objects to."""
    if not isinstance(x, jax.Array) or isinstance(x, Tracer) or not jax.dtypes.issubdtype(x.dtype, np.inexact):
        return False
    values = np.asarray(x)
    values = values if values.dtype.kind in "fc" else values.astype(np.float32)
    return bool((jax.debug_nans.value and np.isnan(values).any()) or (jax.debug_infs.value and np.isinf(values).any()))


def is_literal(atom: Any) -> bool:
    """Whether an operand of an equation is a number that stands in the program."""
    return hasattr(atom, "val")


def copy_jaxpr(jaxpr: Any) -> Any:
    """A closed jaxpr with the same equations, and an identity of its own.

    What is cached for as long as a jaxpr lives must not keep it alive; where it needs the equations, it holds a copy.
    ``remat2`` carries an open jaxpr, without constants, in 0.10; since 0.11 there is one class for both.
    """
    body = getattr(jaxpr, "jaxpr", jaxpr)
    return ClosedJaxpr(body.replace(eqns=list(body.eqns)), list(getattr(jaxpr, "consts", ())))


def policy_saves(policy: Callable[..., Any], eqn: Any) -> bool:
    """Whether a checkpoint policy stores the results of an equation; one that offloads them does.

    Policies answer with a truth value or a marker of their own.
    """
    answer = policy(eqn.primitive, *[atom.aval for atom in eqn.invars], **eqn.params)
    if isinstance(answer, (_partial_eval.SaveableType, _partial_eval.Offloadable)):
        return True
    return not isinstance(answer, _partial_eval.RecomputeType) and bool(answer)


def lasting_effects(jaxpr: Any) -> list[str]:
    """The effects of a jaxpr that must not happen a second time."""
    return sorted(map(str, _replayable.filter_not_in(jaxpr.effects)))


def hoisted(jaxpr: Any) -> tuple[Any, list[Any]]:
    """A closed jaxpr that takes its constants as its first operands, and the constants."""
    body = jaxpr.jaxpr
    info = body.debug_info._replace(arg_names=None, result_paths=None)
    return ClosedJaxpr(body.replace(constvars=[], invars=[*body.constvars, *body.invars], debug_info=info), []), list(jaxpr.consts)


def bind_linear_solve(matvec: Any, vecmat: Any, solve: Any, transpose_solve: Any, b: Sequence[Any]) -> list[Any]:
    """Bind the primitive of ``lax.custom_linear_solve``, on flat functions; ``vecmat`` and ``transpose_solve`` may both be None.

    ``lax.custom_linear_solve`` itself would have jax transpose ``matvec``.
    """
    from jax._src.lax.control_flow.solves import _LinearSolveTuple, linear_solve_p

    avals = [typeof(x) for x in b]
    programs = [(None, []) if fun is None else hoisted(stage(fun, avals)) for fun in (matvec, vecmat, solve, transpose_solve)]
    consts = [x for _, xs in programs for x in xs]
    return list(linear_solve_p.bind(*consts, *b, const_lengths=_LinearSolveTuple(*[len(xs) for _, xs in programs]),
                                    jaxprs=_LinearSolveTuple(*[jaxpr for jaxpr, _ in programs])))


def scan_layout(params: dict[str, Any]) -> tuple[int, int]:
    """``(number of constants, number of carries)`` of a scan: since 0.11 they stand in a tree of inputs, ``ft_in``."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _xs = params["ft_in"].unpack()
    return len(list(consts)), len(list(carry))


def discharge(jaxpr: Any) -> Any:
    """A closed jaxpr without references: those among the inputs are values, whose final values are appended to the outputs."""
    from jax._src.state.discharge import discharge_state  # rewrites reads and writes as operations on values

    return discharge_state(jaxpr if hasattr(jaxpr, "consts") else ClosedJaxpr(jaxpr, ()))


def discharge_operation(primitive: Any, avals: Sequence[Any], is_reference: Sequence[bool], values: Sequence[Any],
                        params: dict[str, Any]) -> tuple[Sequence[Any], Any] | None:
    """``(new values of the references, results)`` of one operation on values in place of references, or None if jax has no rule.

    Rules took their abstract values one by one until 0.12, which puts them into a context.
    """
    from jax._src.state import discharge as rules

    out_avals = abstract_outputs(primitive, avals, params)
    partial = getattr(rules, "_partial_discharge_rules", {})
    if primitive in partial:
        return partial[primitive](is_reference, avals, out_avals, *values, **params)
    rule = rules._discharge_rules.get(primitive)
    if rule is None:
        return None
    if hasattr(rules, "DischargeContext"):
        return rule(rules.DischargeContext(avals, out_avals, is_reference, False), *values, **params)
    return rule(avals, out_avals, *values, **params)


def is_reference(aval: Any) -> bool:
    """Whether an abstract value is that of a mutable reference."""
    from jax._src.state.types import AbstractRef

    return isinstance(aval, AbstractRef)


def bind_jit(like: dict[str, Any], jaxpr: Any, args: Sequence[Any], name: str, in_like: Sequence[int | None],
             out_like: Sequence[int | None]) -> list[Any]:
    """Bind the jit primitive on a new jaxpr, keeping the settings of an existing call.

    ``in_like[i]`` is the operand of the old call whose sharding and layout the new operand ``i`` has, or None for a new one;
    ``out_like`` likewise.  Donation is dropped: an operand may be a residual as well.
    """
    unspecified = _unspecified()

    def pick(old: Sequence[Any], which: Sequence[int | None], default: Any) -> tuple[Any, ...]:
        return tuple(default if i is None else old[i] for i in which)

    params = dict(
        like,
        jaxpr=jaxpr,
        name=name,
        in_shardings=pick(like["in_shardings"], in_like, unspecified),
        out_shardings=pick(like["out_shardings"], out_like, unspecified),
        in_layouts=pick(like["in_layouts"], in_like, None),
        out_layouts=pick(like["out_layouts"], out_like, None),
        donated_invars=(False,) * len(in_like),
    )
    return jit_p.bind(*args, **params)


@functools.cache
def inlined() -> dict[str, Any]:
    """The settings of a jit call that asks to be spliced into the program around it, and for nothing else."""
    (eqn,) = jax.make_jaxpr(jax.jit(lambda x: x))(1.0).eqns
    inline = eqn.params["inline"]
    return dict(eqn.params, inline=True if isinstance(inline, bool) else type(inline).JAX_EARLY)


def _unspecified() -> Any:
    from jax._src.named_sharding import UNSPECIFIED  # the sharding that leaves the choice to the compiler

    return UNSPECIFIED


def is_inlined(params: dict[str, Any]) -> bool:
    """Whether a jit call asks to be spliced into the program around it; ``inline`` is an enumeration since 0.11."""
    inline = params["inline"]
    return inline is True or getattr(inline, "name", "") == "JAX_EARLY"


def has_explicit_layout(params: dict[str, Any]) -> bool:
    """Whether a jit call fixes a sharding, a layout or a compiler option that a plain ``jax.jit`` would lose."""
    unspecified = _unspecified()
    return (
        any(s is not unspecified for s in (*params["in_shardings"], *params["out_shardings"]))
        or any(layout is not None for layout in (*params["in_layouts"], *params["out_layouts"]))
        or bool(params["compiler_options_kvs"])
    )


def bind_custom_jvp(fun: Callable[..., list[Any]], jvp: Callable[..., list[Any]], args: Sequence[Any]) -> list[Any]:
    """Bind jax's call-with-a-pushforward primitive: ``jvp(*primals, *tangents)`` returns primals then tangents, flat.

    Tangents that are zero arrive, and may leave, as :class:`SymbolicZero`.

    The primitive is the carrier that every jax trace knows; whoever differentiates it asks its own trace.
    """
    info = _debug_info("dualrev rule", fun, args, {})
    return custom_jvp_call_p.bind(*args, subfuns=(_wrap_init(fun, debug_info=info), _wrap_init(jvp, debug_info=info)),
                                  symbolic_zeros=True)


def call_bwd(bwd: Any, residuals: Sequence[Any], cotangents: Sequence[Any]) -> list[Any]:
    """Call the flattened backward function of a ``custom_vjp``; since 0.11 it returns ``(cotangents, logs)``.

    A None that the user returned arrives as a zero of a class of jax's own, and is None again.
    """
    result = bwd.call_wrapped(*residuals, *cotangents)
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], (list, tuple)):
        result = result[0]
    return [None if is_symbolic_zero(ct) else ct for ct in result]


def is_symbolic_zero(x: Any) -> bool:
    """Whether ``x`` is one of jax's two kinds of zero that are no arrays."""
    return type(x) is Zero or type(x) is SymbolicZero


def defined_at(fun: Any) -> str:
    """``name at file:line`` of the user's function that a wrapped function calls, or that a jaxpr was traced from."""
    return str(fun.debug_info.func_src_info)


class _Moving(_partial_eval.DynamicJaxprTracer):
    """Stands for a tangent of unknown value among the contents of a tracer.

    ``jax.closure_convert`` looks there for what may be differentiated, and knows the classes of jax's own tracers only: it takes a
    value that is being traced for one that may be.
    """

    __slots__ = ()

    def __init__(self, aval: Any):
        self.aval = aval

    def _short_repr(self) -> str:
        return "a tangent or cotangent"


def contents(aval: Any, **values: Any) -> list[tuple[str, Any]]:
    """What a tracer of ours answers when jax asks what it holds."""
    return [*values.items(), ("derivative", _Moving(aval))]


def forget(fun: Any) -> None:
    """Forget what a wrapped function stored of its results' structure, as if it had not been called.

    Of the function and the forward function of a custom_vjp, jax expects one to be called, once.
    """
    for store in fun.stores:
        if store is not None:
            store.reset()


def convert_to(x: Any, aval: Any) -> Any:
    """``x`` with the dtype of ``aval``, weakly typed if that is."""
    weak = bool(getattr(aval, "weak_type", False))
    own = typeof(x)
    if own.dtype == aval.dtype and own.weak_type == weak:
        return x
    return jax.lax.convert_element_type_p.bind(x, new_dtype=aval.dtype, weak_type=weak, sharding=None)


def _flat_tree() -> Callable[[Any], Any]:
    """What jax's own functions of shards return is a flat tree with the specs beside it; it has a module of its own since 0.11."""
    try:
        from jax._src.flattree import flatten
    except ImportError:
        from jax._src.tree_util import FlatTree

        return FlatTree.flatten
    return flatten


def bind_shard_map(fun: Callable[..., tuple[Sequence[Any], Sequence[Any]]], args: Sequence[Any], in_specs: Sequence[Any],
                   like: dict[str, Any]) -> list[Any]:
    """Run ``fun`` on each shard, with the mesh and the settings of an existing ``shard_map``.

    ``fun`` returns its results and a spec for each, which need not be known before it has run: the public ``jax.shard_map`` asks
    for them first.
    """
    flatten = _flat_tree()

    def flat(*shards: Any) -> Any:
        results, specs = fun(*shards)
        return flatten(list(results)).with_aux(tuple(specs))

    info = _debug_info("shard_map", fun, args, {}).with_unknown_names()
    settings = {name: like[name] for name in ("mesh", "check_vma", "newly_manual_axes")}
    return list(primitive("shard_map").bind(*args, subfuns=(flat,), in_specs=tuple(in_specs), debug_info=info, **settings))  # type: ignore[union-attr]


def rebind_shard_map(params: dict[str, Any], args: Sequence[Any]) -> list[Any]:
    """Bind a ``shard_map`` by what :func:`stage_shard_map` made of it."""
    shard_map = primitive("shard_map")
    assert shard_map is not None
    if "run" in params:
        return bind_shard_map(params["run"], args, params["in_specs"], params)
    return list(shard_map.bind(*args, **shard_map.get_bind_params(params)))


def stage_shard_map(fun: Callable[..., Any], args: Sequence[Any],
                    settings: dict[str, Any]) -> tuple[list[Any], dict[str, Any], Callable[[Sequence[Any]], Any]]:
    """``(operands, parameters, pack)`` of a ``shard_map`` that arrives at a trace as a function.

    The operands are what the function closes over and then ``args``; the parameters hold a jaxpr and the specs of its results,
    and ``pack`` arranges results as whoever bound the function expects them.  A function whose control flow reads values cannot be
    staged: the parameters hold ``run`` instead, which returns results and specs when it is run on shards.
    """
    bound: list[Any] = []

    def bind(*args: Any) -> list[Any]:
        bound[:] = [primitive("shard_map").bind(*args, subfuns=(fun,), **settings)]  # type: ignore[union-attr]
        return list(bound[0])

    def run(*shards: Any) -> tuple[list[Any], Sequence[Any]]:
        results, specs = fun(*shards).unpack_aux()
        bound[:] = [results]
        return list(results), specs

    try:
        jaxpr = stage(bind, [typeof(x) for x in args])
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerIntegerConversionError, jax.errors.TracerArrayConversionError):
        return list(args), dict(settings, run=run), lambda results: bound[0].update(results)
    (eqn,) = jaxpr.jaxpr.eqns
    found = dict(zip((*jaxpr.jaxpr.constvars, *jaxpr.jaxpr.invars), (*jaxpr.consts, *args), strict=True))
    operands = [atom.val if is_literal(atom) else found[atom] for atom in eqn.invars]
    return operands, eqn.params, bound[0].update


def spmd_axis_names() -> Sequence[Any]:
    """Mesh axes that a ``vmap`` around has taken for itself."""
    from jax._src.core import get_axis_env  # the named axes of the moment

    return tuple(get_axis_env().spmd_axis_names)


def varying(aval: Any) -> frozenset[Any]:
    """The mesh axes along which a value differs from shard to shard, as far as ``check_vma=True`` keeps track."""
    mat = getattr(aval, "mat", None)
    return frozenset() if mat is None else mat.varying


def vary_as(x: Any, aval: Any) -> Any:
    """``x``, typed as varying over all the mesh axes that ``aval`` varies over."""
    axes = varying(aval)
    return vary_over(x, axes) if axes else x


def vary_over(x: Any, axes: frozenset[Any]) -> Any:
    missing = tuple(sorted(axes - varying(typeof(x)), key=str)) if x.dtype != float0 else ()
    return jax.lax.pcast(x, missing, to="varying") if missing else x


def is_placed_alike(x: Any, y: Any) -> bool:
    """Whether two abstract values lie on a mesh in the same way, as far as types keep track of it."""
    return all(getattr(x, name, None) == getattr(y, name, None) for name in ("mat", "sharding"))


def explicit_sharding(aval: Any) -> Any | None:
    """The sharding of an abstract value where it is part of its type (the mesh has explicit axes), else None."""
    sharding = getattr(aval, "sharding", None)
    if sharding is None or sharding.mesh.empty or not sharding.mesh.explicit_axes:
        return None
    return sharding


def cotangent_sharding(aval: Any) -> Any | None:
    """As :func:`explicit_sharding`, of cotangents."""
    return None if explicit_sharding(aval) is None else explicit_sharding(cotangent_aval(aval))


def in_mesh_context() -> bool:
    """Whether the user set a mesh."""
    return not jax.sharding.get_abstract_mesh().empty


def on_own_mesh(function: Callable[..., Any], values: Sequence[Any]) -> Any:
    """``function(*values)`` where axes of the mesh that the values lie on may be of other types than in the context.

    ``auto_axes`` makes explicit axes automatic for a while; when what ran inside is pulled back, that is over.
    """
    for x in values:
        if x is not None:
            mesh = typeof(x).sharding.mesh
            if not mesh.empty and mesh != jax.sharding.get_abstract_mesh():
                with jax.sharding.use_abstract_mesh(mesh):
                    return function(*values)
    return function(*values)


def resharded(x: Any, sharding: Any | None) -> Any:
    """``x`` with another explicit sharding; None leaves it where it is."""
    return x if sharding is None or typeof(x).sharding == sharding else jax.reshard(x, sharding)


def stacked_aval(aval: Any, n: int) -> Any:
    """The abstract value of ``n`` values along a new first axis."""
    sharding = explicit_sharding(aval)
    if sharding is None:
        return aval.update(shape=(n, *aval.shape))
    spec = sharding.spec.update(partitions=(None, *sharding.spec))
    return aval.update(shape=(n, *aval.shape), sharding=sharding.update(spec=spec))


def cotangent_aval(aval: Any) -> Any:
    """The abstract value of cotangents: that of tangents, but what is reduced over a mesh axis has an unreduced cotangent."""
    return aval.to_ct_aval()


def is_array_like(x: Any) -> bool:
    """Whether jax accepts ``x`` as an array operand."""
    if isinstance(x, (jax.Array, np.ndarray, np.generic, bool, int, float, complex)):
        return True
    try:
        typeof(x)
    except TypeError:
        return False
    return True


def binds_functions(primitive: Any) -> bool:
    """Whether what an equation of the primitive holds as jaxprs is bound as functions (``custom_jvp_call``, ``shard_map``)."""
    return type(primitive).get_bind_params is not Primitive.get_bind_params


def entrywise_primitive(name: str, function: Callable[..., Any]) -> Any:
    """A primitive of our own: ``function`` of arrays of one shape, entry by entry, with the dtype of the first for its result."""
    return _front_batched(name, function, lambda x, *_, **__: x.update(weak_type=False))


def _front_batched(name: str, function: Callable[..., Any], abstract: Callable[..., Any]) -> Any:
    """A primitive of our own that takes batches as axes in front."""
    from jax.interpreters import batching, mlir  # how a primitive is told of vmap, and of the compiler

    new = Primitive(name)
    new.def_impl(functools.partial(_run_compiled, function))
    new.def_abstract_eval(abstract)
    mlir.register_lowering(new, mlir.lower_fun(function, multiple_results=False))

    def batch(args: Sequence[Any], dims: Sequence[Any], **params: Any) -> tuple[Any, int]:
        size = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
        front = [jax.lax.broadcast(x, (size,)) if d is None else jax.numpy.moveaxis(x, d, 0) for x, d in zip(args, dims, strict=True)]
        return new.bind(*front, **params), 0

    batching.primitive_batchers[new] = batch
    return new


def program_primitive(name: str, run: Callable[..., list[Any]], batch: Callable[..., dict[str, Any]],
                      rule: Callable[..., list[Any]]) -> Any:
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

    def abstract(*avals: Any, **params: Any) -> Any:
        jaxpr = stage(functools.partial(run, **params), avals)
        return jaxpr.out_avals, jaxpr.effects

    new.def_effectful_abstract_eval(abstract)
    mlir.register_lowering(new, mlir.lower_fun(run, multiple_results=True))

    def batched(axis: Any, args: Sequence[Any], dims: Sequence[Any], **params: Any) -> tuple[list[Any], list[int | None]]:
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
    run: Callable[..., list[Any]]
    rule: Callable[..., list[Any]]

    def bind_with_trace(self, trace: Any, args: Any, avals: Any, params: dict[str, Any], /) -> Any:
        # jax's derivatives look a primitive up in a registry of their own; asked by a custom rule, they need no entry.
        if type(trace).__name__ in ("JVPTrace", "LinearizeTrace"):
            with set_current_trace(trace):
                return bind_custom_jvp(functools.partial(self.run, **params), functools.partial(self.rule, params), args)
        return super().bind_with_trace(trace, args, avals, params)


def _bound_primitive(name: str) -> Any:
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


def _standing_in() -> Any:
    """A primitive without operands for a value that a program turns out to need while it is traced."""
    new = Primitive("standing_in")
    new.def_abstract_eval(lambda *, aval, index: aval)
    return new


_standing_in_p = _standing_in()


def current_trace() -> Any:
    """The trace that operations go to now."""
    return _trace_ctx.trace


def stand_in(trace: Any, aval: Any, index: int) -> Any:
    """A tracer of ``trace`` for a value that will be given later, under a number."""
    with set_current_trace(trace):
        return _standing_in_p.bind(aval=aval, index=index)


def with_stand_ins(jaxpr: Any) -> tuple[Any, list[int]]:
    """A closed jaxpr whose inputs are followed by what was a :func:`stand_in`, and their numbers."""
    body = jaxpr.jaxpr
    found = [eqn for eqn in body.eqns if eqn.primitive is _standing_in_p]
    rest = [eqn for eqn in body.eqns if eqn.primitive is not _standing_in_p]
    info = body.debug_info.with_unknown_names()
    more = [*body.invars, *[eqn.outvars[0] for eqn in found]]
    return ClosedJaxpr(body.replace(invars=more, eqns=rest, debug_info=info), jaxpr.consts), [eqn.params["index"] for eqn in found]


def _run_compiled(function: Callable[..., Any], *args: Any, **params: Any) -> Any:
    return _compiled(function, tuple(params.items()))(*args)


@functools.cache
def _compiled(function: Callable[..., Any], params: tuple[Any, ...]) -> Callable[..., Any]:
    return jax.jit(functools.partial(function, **dict(params)))


class ForeignRules(NamedTuple):
    """What another library registered with jax for a primitive of its own; None for what it did not."""

    jvp: Callable[..., Any] | None  # (primals, tangents, **params) -> (outs, tangents out)
    linearization: Callable[..., Any] | None  # (is_vjp, which move, *primals, **params) -> outs and a function of tangents
    transpose: Callable[..., Any] | None  # (cotangents, *operands, **params) -> cotangents; linear operands are `undefined`
    fancy_transpose: Callable[..., Any] | None  # the same, with an `accumulator` for each linear operand, which it adds to
    undefined: Any
    accumulator: Any


def foreign_rules(primitive: Any) -> ForeignRules | None:
    """The rules of a primitive that another library defined, or None where jax defined it: its own rules are never read."""
    module = owner_of(primitive)
    if module is None or is_of_jax(module):
        return None
    from jax._src.interpreters.ad import (
        UndefinedPrimal,
        ValAccum,
        fancy_transposes,
        primitive_jvps,
        primitive_linearizations,
        primitive_transposes,
    )

    return ForeignRules(primitive_jvps.get(primitive), primitive_linearizations.get(primitive), primitive_transposes.get(primitive),
                        fancy_transposes.get(primitive), UndefinedPrimal, ValAccum)


_owners: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def owner_of(primitive: Any) -> str | None:
    """The module that defines a primitive, or None if that cannot be told.

    It is one that holds the primitive under a name, and of several the one that its functions are from.  A primitive that no module
    holds is from where its functions are, which jax may have wrapped.
    """
    found = _owners.get(primitive)
    if found is None:
        modules = [(name, getattr(module, "__dict__", {})) for name, module in list(sys.modules.items())]
        holding = [name for name, members in modules if any(x is primitive for x in list(members.values()))]
        functions = [name for name in _modules_of(primitive) if not is_of_jax(name)]
        candidates = [*filter(is_of_jax, holding), *[name for name in functions if name in holding], *holding, *functions]
        if candidates:
            found = _owners[primitive] = candidates[0]
    return found


def is_of_jax(module: str) -> bool:
    """Whether a module is one of jax's own."""
    return module.split(".")[0] in ("jax", "jaxlib")


#: Modules whose functions say nothing of who defined a primitive that they implement.
_OF_ALL = frozenset(["builtins", "functools", "numpy"])


def _modules_of(primitive: Any) -> Iterator[str]:
    """The modules of the functions that define a primitive, and of those that they wrap."""
    waiting: list[Any] = [getattr(primitive, "abstract_eval", None), getattr(primitive, "impl", None)]
    seen: set[int] = set()
    while waiting:
        found = waiting.pop(0)
        if id(found) in seen or not (callable(found) or isinstance(found, (list, tuple))):
            continue
        seen.add(id(found))
        if isinstance(found, (list, tuple)):
            waiting.extend(found)
            continue
        module = getattr(found, "__module__", None)
        if isinstance(module, str) and module.split(".")[0] not in _OF_ALL:
            yield module
        if isinstance(found, functools.partial):
            waiting += [found.func, *found.args]
        waiting.append(getattr(found, "__wrapped__", None))
        waiting += [cell.cell_contents for cell in getattr(found, "__closure__", None) or () if _is_filled(cell)]


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  (a cell of a variable that has no value yet raises)
    except ValueError:
        return False
    return True


def primitive(name: str) -> Any:
    """The primitive of this name, or None where this release of jax has none.

    For primitives without a public name, and those that only some releases have (``log2``, ``one_minus_square`` and
    ``polynomial`` came with 0.12).
    """
    found = _primitives().get(name)
    if found is None and "jax.experimental.sparse" in sys.modules:
        return _sparse_primitives().get(name)
    return found


def host_array_primitives() -> tuple[Any, Any]:
    """The primitives that make one array of those that hosts hold, and back, for programs that have imported their module."""
    from jax.experimental import multihost_utils

    return multihost_utils.host_local_array_to_global_array_p, multihost_utils.global_array_to_host_local_array_p


def kernel_primitives() -> tuple[Any, Any, Any]:
    """The call of a Pallas kernel, and its masked reads and writes, for programs that have one: importing their module takes time."""
    from jax._src.pallas.pallas_call import pallas_call_p
    from jax._src.pallas.primitives import load_p, swap_p

    return pallas_call_p, load_p, swap_p


def open_and_closed(jaxpr: Any) -> tuple[Any, Any]:
    """A jaxpr without constants in both forms, which are two classes in 0.10: kernels are held open."""
    body = getattr(jaxpr, "jaxpr", jaxpr)
    return body, jaxpr if hasattr(jaxpr, "consts") else ClosedJaxpr(body, ())


@functools.cache
def _sparse_primitives() -> dict[str, Any]:
    """The primitives of sparse arrays, for programs that use them: importing their modules takes time."""
    from jax.experimental.sparse import api, bcoo, bcsr, coo, csr, linalg

    return {str(value): value for module in (api, bcoo, bcsr, coo, csr, linalg) for value in vars(module).values()
            if isinstance(value, Primitive)}


@functools.cache
def _primitives() -> dict[str, Any]:
    from jax._src import (
        ad_checkpoint,
        ad_util,
        callback,
        checkify,
        core,
        custom_batching,
        custom_derivatives,
        debugging,
        dispatch,
        ffi,
        hijax,
        pjit,
        random,
        shard_map,
        xla_metadata,
    )
    from jax._src.core import Primitive
    from jax._src.lax import ann, control_flow, convolution, fft, lax, linalg, other, parallel, slicing, special
    from jax._src.lax import windowed_reductions as windowed
    from jax._src.lax.control_flow import solves
    from jax._src.random import prng
    from jax._src.state import discharge
    from jax._src.state import primitives as state

    modules: tuple[Any, ...] = (core, ad_checkpoint, ad_util, debugging, dispatch, random, prng, lax, slicing, control_flow, windowed,
                                convolution, ann, linalg, fft, other, parallel, special, solves, state, discharge, pjit, shard_map,
                                callback, checkify, custom_batching, custom_derivatives, ffi, hijax, xla_metadata)
    return {str(value): value for module in modules for value in vars(module).values() if isinstance(value, Primitive)}
