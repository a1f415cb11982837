"""``where_nan``: a function that says where the NaN in its results came from."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import tree_flatten, tree_leaves, tree_unflatten

from dualrev import errors
from dualrev._jax.jaxprs import ClosedJaxpr
from dualrev._jax.traces import Tracer
from dualrev._jax.trees import PyTree
from dualrev.functional import checks
from dualrev.inspection.anew import anew
from dualrev.inspection.finiteness.calls import Call, check_results, result_names
from dualrev.inspection.finiteness.entries import Kind, are_good, bad_entries, first_bad, is_good_on_host
from dualrev.inspection.finiteness.origins import Found, Origin
from dualrev.inspection.finiteness.report import NanReport, Operation, describe, of_input
from dualrev.inspection.finiteness.search import search
from dualrev.inspection.finiteness.unjitted import READS_VALUES, first_made

#: How many compiled programs one function keeps, each for other values of what is no array among the arguments.
KEPT = 64

#: On a CPU, results of up to this many arrays and entries are looked at by the host, which takes less than one more result does.
LEAVES_ON_HOST, ENTRIES_ON_HOST = 4, 8192


def where_nan(fun: Callable[..., PyTree], *, infinities: bool = True) -> Callable[..., NanReport]:
    r"""A function that evaluates another one and reports where a NaN or an infinity in its results came from.

    The results are looked at in the compiled program that computes them.  Where all are finite, that is all that happens.  Else the
    program is taken apart, from the first bad entry back: an operation is passed over if its result is good once the bad entries
    that went in are replaced by numbers, so that the operation that is found *made* the number, and the result is due to it.  A NaN
    that is made and not used, as in a branch that ``where`` does not choose, is not reported, nor are infinities in the middle of
    a program, as in masks, unless a NaN is made from them.

    A function whose Python code reads values (``if x > 0``) can't be traced: it is evaluated as it stands, and where a result is not
    finite once more under ``jax_debug_nans``, which names the first NaN, used or not.

    Args:
      fun: a function of arrays and pytrees of them: a model, its gradient, a jitted one, one under ``vmap``.  Floats and arrays among
        its arguments are operands of the compiled program; everything else, Python integers too, is held.
      infinities: whether results that are infinite are reported, where none is NaN.

    Returns:
      A function with the arguments of ``fun`` that returns a :class:`~dualrev.inspection.finiteness.report.NanReport`: the operation,
      in the function, its pull or its push; the user's line; the values that went in; the step of each loop; the example of each
      ``vmap``; the usual cause and cure.  It is true where something was found, and ``.value`` is what ``fun`` returned.

    Raises:
      TypeError: ``fun`` is not callable, or returns what is no array; the call is inside ``jit``, where there are no values.

    >>> import jax.numpy as jnp, dualrev as dr
    >>> report = dr.where_nan(dr.grad(lambda x: jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0))))(jnp.array([4.0, 0.0]))
    >>> report.operation, report.where, report.kind, report.index
    ('sqrt', 'pull', 'nan', (1,))
    >>> report.made.equation, report.made.values
    ('div', ('0.5', '0'))
    >>> bool(dr.where_nan(dr.grad(jnp.sin))(1.0))
    False

    Source: the rule "a cause is what changes the outcome when it is changed" is that of [Lewis1973].
    """
    with errors.calling("where_nan"):
        checks.check_callable(fun)
    name = checks.name_of(fun)
    programs: dict[Hashable, Callable[..., Any]] = {}
    #: The latest call whose results were good, and its program: for a short program, most of the time is what Python does around it.
    recent: list[tuple[Call, Callable[..., Any]]] = []

    @functools.wraps(fun, updated=())
    def report(*args: PyTree, **kwargs: PyTree) -> NanReport:
        for call, program in recent:
            arrays = call.arrays_like(args, kwargs)
            if arrays is not None:
                value, good = _looked_at(program(*arrays), infinities)
                if good:
                    return NanReport.of_good(name, infinities, value)
        call = Call(fun, args, kwargs)
        if any(isinstance(x, Tracer) for x in call.leaves):
            raise TypeError(f"where_nan({name}) was called on values that are being traced, as inside jit or vmap; call it outside, on "
                            f"where_nan(jax.jit({name})) or where_nan(jax.vmap({name})), or use dr.finite()")
        program = _program(call, name, infinities, programs)
        try:
            value, good = _looked_at(program(*call.arrays), infinities)
        except READS_VALUES:  # its Python code reads values: it runs as it is
            return _unjitted(lambda: fun(*args, **kwargs), name, infinities)
        if good:
            recent[:] = [(call.without_arrays(), program)]
            return NanReport.of_good(name, infinities, value)
        with anew():
            jaxpr = jax.jit(lambda *arrays: call.without_arrays()(*arrays)).trace(*call.arrays).jaxpr
        return locate(jaxpr, call.arrays, check_results(value, name), result_names(value), call.names, name,
                      infinities, value)

    return report


class _Looked(NamedTuple):
    """Results, and whether they are good, by the program that computed them."""

    value: PyTree
    good: jax.Array


def _program(call: Call, name: str, infinities: bool, programs: dict[Hashable, Callable[..., Any]]) -> Any:
    """The compiled program of a call: its results, with whether they are good unless the host sees that sooner."""
    try:
        key: Hashable = call.key
        found = programs.get(key)
    except TypeError:
        key = found = None
    if found is None:
        kept = call.without_arrays()

        def program(*arrays: jax.Array) -> PyTree | _Looked:
            result = kept(*arrays)
            leaves = check_results(result, name)
            if jax.default_backend() == "cpu" and len(leaves) <= LEAVES_ON_HOST and sum(map(np.size, leaves)) <= ENTRIES_ON_HOST:
                return result
            # Without the barrier, the compiler computes the results once to be looked at, and once to be returned.
            leaves, tree = tree_flatten(result)
            leaves = list(lax.optimization_barrier(leaves))
            return _Looked(tree_unflatten(tree, leaves), are_good(leaves, infinities))

        found = jax.jit(program)
        if key is not None:
            if len(programs) >= KEPT:
                programs.clear()
            programs[key] = found
    return found


def _looked_at(found: PyTree | _Looked, infinities: bool) -> tuple[PyTree, bool]:
    """The results of a program, and whether they are good."""
    if type(found) is _Looked:
        return found.value, bool(np.asarray(found.good))
    for x in tree_leaves(found):
        if not is_good_on_host(x, infinities):
            return found, False
    return found, True


def _unjitted(run: Callable[[], PyTree], name: str, infinities: bool) -> NanReport:
    """The report on a function that can't be traced."""
    value = run()
    results = check_results(value, name)
    kinds: tuple[Kind, ...] = ("nan", "inf") if infinities else ("nan",)
    for kind in kinds:
        for path, x in zip(result_names(value), results, strict=True):
            if (entry := first_bad(jnp.asarray(x), kind)) is not None:
                return NanReport(name, kind, path, entry, first_made(run, kind), None, (), infinities, value)
    return NanReport(name, infinities=infinities, value=value)


def locate(jaxpr: ClosedJaxpr, args: Sequence[jax.Array], results: Sequence[jax.Array], names: Sequence[str], arguments: Sequence[str],
           name: str, infinities: bool, value: PyTree = None) -> NanReport:
    """The report on results of a program, of which one has a NaN or an infinity."""
    kinds: tuple[Kind, ...] = ("nan", "inf") if infinities else ("nan",)
    for kind in kinds:
        bad = [i for i, x in enumerate(results) if bad_entries(x, kind).any()]
        if bad:
            break
    else:
        return NanReport(name, infinities=infinities, value=value)
    args = [x if isinstance(x, jax.Array) else jnp.asarray(x) for x in args]
    results = [x if isinstance(x, jax.Array) else jnp.asarray(x) for x in results]
    entry = first_bad(results[bad[0]], kind)
    assert entry is not None
    found = search(jaxpr, args, bad[0], entry, kind)
    # An infinity that was given is no fault by itself: masks are made of them.
    causes = [x for x in found if x.kind == kind or (isinstance(x, Origin) and x.eqn is not None)]
    told = [_described(x, args, arguments) for x in causes]
    made = told[0] if told else None
    became = next((x for x in told if x.kind == kind), None) if made is not None and made.kind != kind else None
    others = tuple(x for x in told if x is not made and x is not became)
    return NanReport(name, kind, names[bad[0]], entry, made, became, others, infinities, value)


def _described(found: Found, args: Sequence[jax.Array], arguments: Sequence[str]) -> Operation:
    if isinstance(found, Origin):
        return describe(found)
    return of_input(found.kind, arguments[found.index], found.entry, jnp.asarray(args[found.index]))
