"""What a row may ask of an engine: to evaluate a program with tangents, to write it on a tape, to transpose it.

Rows whose derivative is a program need an engine, and engines read the table.  So the table says what it needs, and the engines, which
stand above it, say how when they are imported (:func:`provide`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dualrev.linear.maps import Tape
from dualrev.options.settings import Active

_provided: dict[str, Callable[..., Any]] = {}


def provide(**functions: Callable[..., Any]) -> None:
    """Say how an engine does what is named here."""
    _provided.update(functions)


def push_through(fun: Callable[..., Sequence[Any]], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """``(outs, tangents out)`` of a flat function; a tangent of None is zero."""
    result: tuple[list[Any], list[Any]] = _provided["push_through"](fun, primals, tangents)
    return result


def linearize(fun: Callable[..., Sequence[Any]], primals: Sequence[Any], active: Sequence[Active],
              is_linear: bool = False) -> tuple[list[Any], Tape]:
    """``(outs, tape)`` of a flat function, as :func:`dualrev.engines.reverse.linearize` gives them."""
    result: tuple[list[Any], Tape] = _provided["linearize"](fun, primals, active, is_linear)
    return result


def transpose(fun: Callable[..., Sequence[Any]], avals: Sequence[Any]) -> Tape:
    """The tape of a linear flat function, found from the abstract values of its inputs alone."""
    tape: Tape = _provided["transpose"](fun, avals)
    return tape
