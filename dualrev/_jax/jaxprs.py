"""Traced programs: their classes, and how they are made, copied and evaluated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import jax
from jax._src import source_info_util  # the user's line that belongs to what is traced
from jax._src.config import trace_context as trace_context  # the settings of jax that a trace depends on, as a key
from jax._src.core import JaxprEqnContext as JaxprEqnContext  # the settings that an equation was traced under
from jax._src.interpreters.partial_eval import trace_to_jaxpr_dynamic as _trace_to_jaxpr  # traces a flat function, and caches nothing
from jax._src.linear_util import wrap_init as _wrap_init  # a flat function as tracing takes it
from jax.extend.core import ClosedJaxpr as ClosedJaxpr
from jax.extend.core import DebugInfo as DebugInfo  # what a program was traced from
from jax.extend.core import DropVar as DropVar  # a result that nothing reads
from jax.extend.core import Jaxpr as Jaxpr  # to put equations together that belong to a part of a program
from jax.extend.core import JaxprEqn as JaxprEqn
from jax.extend.core import Literal as Literal  # an operand that is a number in the program
from jax.extend.core import Var as Var  # to name the values of a program that is spliced into another
from jax.extend.core import jaxpr_as_fun as jaxpr_as_fun  # evaluates a closed jaxpr under the current trace

from dualrev._jax.avals import ShapedArray
from dualrev._jax.primitives import Primitive
from dualrev._jax.traces import Trace, set_current_trace

if TYPE_CHECKING:
    from typing_extensions import TypeIs

#: What an equation reads.
Atom: TypeAlias = Var | Literal

#: A function of arrays, which returns several.
FlatFunction: TypeAlias = Callable[..., Sequence[jax.Array]]


def stage(fun: FlatFunction, avals: Sequence[ShapedArray]) -> ClosedJaxpr:
    """Trace a flat function to a closed jaxpr.

    It is ``jax.make_jaxpr`` without its cache and without names of arguments, in a tenth of the time.
    """
    code = getattr(fun, "__code__", None)
    where = getattr(fun, "__name__", "program") if code is None else f"{code.co_name} at {code.co_filename}:{code.co_firstlineno}"
    wrapped = _wrap_init(lambda *args: jax.tree_util.tree_leaves(fun(*args)), debug_info=DebugInfo("jit", where, None, None))
    body, _, consts = _trace_to_jaxpr(wrapped, avals)
    return _closed(body, consts)


def _closed(body: Jaxpr, consts: Sequence[jax.Array]) -> ClosedJaxpr:
    """A jaxpr with its constants; since 0.11 the class of jaxprs has a place for them."""
    return body.with_consts(consts) if hasattr(body, "with_consts") else ClosedJaxpr(body, consts)


def jaxpr_out_avals(jaxpr: ClosedJaxpr) -> list[ShapedArray]:
    return list(jaxpr.out_avals)


def is_literal(atom: Atom) -> TypeIs[Literal]:
    """Whether an operand of an equation is a number that stands in the program."""
    return hasattr(atom, "val")


def copy_jaxpr(jaxpr: ClosedJaxpr | Jaxpr) -> ClosedJaxpr:
    """A closed jaxpr with the same equations, and an identity of its own.

    What is cached for as long as a jaxpr lives must not keep it alive; where it needs the equations, it holds a copy.
    ``remat2`` carries an open jaxpr, without constants, in 0.10; since 0.11 there is one class for both.
    """
    body: Jaxpr = getattr(jaxpr, "jaxpr", jaxpr)  # type: ignore[arg-type]
    return ClosedJaxpr(body.replace(eqns=list(body.eqns)), list(getattr(jaxpr, "consts", ())))


def hoisted(jaxpr: ClosedJaxpr) -> tuple[ClosedJaxpr, list[jax.Array]]:
    """A closed jaxpr that takes its constants as its first operands, and the constants."""
    body = jaxpr.jaxpr
    info = body.debug_info._replace(arg_names=None, result_paths=None)
    return ClosedJaxpr(body.replace(constvars=[], invars=[*body.constvars, *body.invars], debug_info=info), []), list(jaxpr.consts)


@contextlib.contextmanager
def as_traced(eqn: JaxprEqn) -> Iterator[None]:
    """Operations inside the block have the user's line and the settings of an equation."""
    info = eqn.source_info
    stack = source_info_util.current_name_stack() + info.name_stack
    with source_info_util.user_context(info.traceback, name_stack=stack), eqn.ctx.manager:
        yield


def binds_functions(primitive: Primitive) -> bool:
    """Whether what an equation of the primitive holds as jaxprs is bound as functions (``custom_jvp_call``, ``shard_map``)."""
    return type(primitive).get_bind_params is not Primitive.get_bind_params


def _standing_in() -> Primitive:
    """A primitive without operands for a value that a program turns out to need while it is traced."""
    new = Primitive("standing_in")
    new.def_abstract_eval(lambda *, aval, index: aval)
    return new

_standing_in_p = _standing_in()


def stand_in(trace: Trace, aval: ShapedArray, index: int) -> jax.Array:
    """A tracer of ``trace`` for a value that will be given later, under a number."""
    with set_current_trace(trace):
        return _standing_in_p.bind(aval=aval, index=index)


def with_stand_ins(jaxpr: ClosedJaxpr) -> tuple[ClosedJaxpr, list[int]]:
    """A closed jaxpr whose inputs are followed by what was a :func:`stand_in`, and their numbers."""
    body = jaxpr.jaxpr
    found = [eqn for eqn in body.eqns if eqn.primitive is _standing_in_p]
    rest = [eqn for eqn in body.eqns if eqn.primitive is not _standing_in_p]
    info = body.debug_info.with_unknown_names()
    more = [*body.invars, *[eqn.outvars[0] for eqn in found]]
    return ClosedJaxpr(body.replace(invars=more, eqns=rest, debug_info=info), jaxpr.consts), [eqn.params["index"] for eqn in found]


def open_and_closed(jaxpr: ClosedJaxpr | Jaxpr) -> tuple[Jaxpr, ClosedJaxpr]:
    """A jaxpr without constants in both forms, which are two classes in 0.10: kernels are held open."""
    body: Jaxpr = getattr(jaxpr, "jaxpr", jaxpr)  # type: ignore[arg-type]
    return body, jaxpr if hasattr(jaxpr, "consts") else ClosedJaxpr(body, ())  # type: ignore[return-value]
