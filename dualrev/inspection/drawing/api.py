"""``draw``: the tape of a function, or a linear map, as a picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax.tree_util import tree_leaves

from dualrev import errors
from dualrev._jax.calls import jit_p
from dualrev._jax.jaxprs import ClosedJaxpr, Var, is_literal
from dualrev._jax.source_lines import line_of
from dualrev._jax.trees import PyTree
from dualrev.calls.derived_programs import apart
from dualrev.functional.api import linearize
from dualrev.functional.checks import check_callable, name_of
from dualrev.functional.operators import PICTURES, Operator
from dualrev.inspection.drawing.drawings import By, Content, Drawing
from dualrev.inspection.drawing.items import Item, number
from dualrev.inspection.drawing.reading import read, type_of
from dualrev.inspection.drawing.tapes import attach, items_of
from dualrev.inspection.tracing import Call
from dualrev.linear.residuals import size
from dualrev.time_model import Constants, constants

#: An input that at most so many operations read is drawn as a box of its own; of so many at most.
READERS, ENDS = 3, 6


def draw(f: Callable[..., PyTree] | Operator, *args: PyTree, by: By | None = None, max_boxes: int = 40, **kwargs: PyTree) -> Drawing:
    r"""Draw the program of a function with what reverse mode stores of it, or the tape of a linear map.

    A box is an operation, with the type of its result, the bytes that the tape of :math:`f` keeps there, and its predicted time; an
    arrow is a value.  Calls of compiled functions, loops, branches, rules of the user's and ``jax.named_scope`` are frames around what
    they hold.  Those with the most heat are opened first, as long as there is room; others are one box, and listed.

    Args:
      f: a function of arrays or pytrees of them; or what ``linearize`` returned, with its transposes, sums and products.
      args, kwargs: the arguments of ``f``; ``jax.ShapeDtypeStruct`` in place of arrays draws without running anything.
      by: what the colours show: ``"time"`` (predicted by :mod:`dualrev.time_model`), ``"flops"`` or ``"bytes"`` (stored for the
        pull); by default the time, and of a linear map, of which only these are known, the bytes.
      max_boxes: the most boxes, inputs and outputs not counted.

    Returns:
      A :class:`~dualrev.inspection.drawing.drawings.Drawing`: a notebook shows it, ``.save("f.svg")`` and ``.save("f.png")`` write
      it, ``.folded`` lists what is drawn as one box, ``print`` gives a summary.

    Raises:
      TypeError: ``f`` is neither a function nor a linear map, or a linear map came with arguments.
      ValueError: an unknown ``by``; ``max_boxes`` below 1; the time or flops of a linear map.
      ConcretizationTypeError: Python control flow of ``f`` reads its arguments, so that it has no program; ``draw`` what
        ``linearize`` returns.

    >>> import jax, jax.numpy as jnp, dualrev as dr
    >>> def f(w, x):
    ...     return jnp.sum(jnp.tanh(w @ x) ** 2)
    >>> drawing = dr.draw(f, jnp.ones((3, 2)), jnp.ones(2), by="bytes")
    >>> drawing.boxes, drawing.svg[:4], drawing.folded
    (4, '<svg', ())
    >>> dr.draw(f, jnp.ones((3, 2)), jnp.ones(2), max_boxes=2).boxes
    2

    Source: the layout is [SugiyamaEtAl1981].
    """
    if isinstance(max_boxes, bool) or not isinstance(max_boxes, int) or max_boxes < 1:
        raise ValueError(f"draw: max_boxes must be a whole number of at least 1; got {max_boxes!r}")
    if by not in (None, "time", "flops", "bytes"):
        raise ValueError(f"draw: by must be 'time', 'flops' or 'bytes'; got {by!r}")
    if isinstance(f, Operator):
        if args or kwargs:
            raise TypeError("draw: a linear map is drawn as it is; arguments belong to a function")
        if by in ("time", "flops"):
            raise ValueError(f"draw: of a linear map the bytes are known that it keeps; got by={by!r}. Draw the function")
        return Drawing(content_of_map(f), "bytes", max_boxes)
    with errors.calling("draw"), apart():
        check_callable(f)
        return Drawing(content_of_call(Call("draw", f, args, kwargs), constants()), by or "time", max_boxes)


def content_of_map(operator: Operator) -> Content:
    """The operations on the tape of a linear map; arrows are tangents."""
    made = operator.as_map()
    notes = (f"{made.structure.inputs} -> {made.structure.outputs}", "Arrows are tangents of a push; a pull goes against them.")
    with apart():
        items = items_of(operator._map)
    return Content(f"linear map of {made.structure.name}", items, notes=notes, has_times=False)


def content_of_call(call: Call, prices: Constants) -> Content:
    """The program of a call, with what the tape of the function keeps."""
    program, named, line = _without_calls_around(call.staged(call.function), call.names)
    few = _ends(program, named)
    ends = {v: name for v, name in named.items() if v in few}
    items = read(program, {v: name for v, name in named.items() if v not in ends}, line, prices)
    left: list[int] = []

    def linearized(*leaves: Any) -> list[Any]:
        tape = linearize(call.function, *leaves)[1].tape
        left.append(attach(items, tape))
        return tree_leaves(tape)

    if call.is_concrete:
        linearized(*call.leaves)
    else:
        call.staged(linearized)
    notes = []
    if any(inner.inputs for item in items for inner in item.walk()):
        notes.append("← x: reads the input x.")
    if left[-1]:
        notes.append(f"{size(left[-1])} more are stored by operations that only the derivative has.")
    inputs = [Item(name, type_of(v.aval), writes=frozenset([v]), kind="input") for v, name in ends.items()]
    results = program.jaxpr.outvars
    outputs = [Item(number(len(results), "result") if len(results) > 1 else "result", type_of(results[0].aval), kind="output",
                    reads=frozenset(v for v in results if not is_literal(v)))] if results else []
    return Content(name_of(call.fun), items, inputs, outputs, tuple(notes))


def _without_calls_around(program: ClosedJaxpr, names: list[str]) -> tuple[ClosedJaxpr, dict[Var, str], str]:
    """The program inside, where all of it is one compiled function, the names of its inputs, and the line of the call."""
    body, line = program.jaxpr, ""
    named: dict[Var, str] = dict(zip(body.invars, names, strict=True))
    while len(body.eqns) == 1 and body.eqns[0].primitive is jit_p and list(body.outvars) == list(body.eqns[0].outvars):
        (eqn,) = body.eqns
        program, line = eqn.params["jaxpr"], line_of(eqn.source_info) or line
        body = program.jaxpr
        named = {v: named[a] for v, a in zip(body.invars, eqn.invars, strict=True) if not is_literal(a) and a in named}
    return program, named, line


def _ends(program: ClosedJaxpr, names: dict[Var, str]) -> set[Var]:
    """The inputs that are drawn as boxes: arrows from inputs that are read everywhere would hide the rest."""
    body = program.jaxpr
    readers = {v: sum(any(a is v for a in eqn.invars) for eqn in body.eqns) for v in body.invars}
    few = [v for v, count in readers.items() if 0 < count <= READERS and v in names]
    if len(few) > ENDS:  # of trees of parameters each operation names those that it reads
        few = [v for v in few if names[v].isidentifier()]
    return set(few if len(few) <= ENDS else ())


def _for_notebooks(operator: Operator) -> str:
    """What a notebook shows of a linear map, below its figures."""
    return Drawing(content_of_map(operator), "bytes", 40).svg


PICTURES.append(_for_notebooks)
