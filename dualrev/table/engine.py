"""What rows need from an engine: the push of a program, its tape, and the transpose of a linear program.

A row whose derivative is a program needs an engine, and engines import the table.  So the table declares these functions, and the
engines provide them when they are imported (:func:`provide`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax

from dualrev._jax.avals import ShapedArray
from dualrev.linear.maps import Tangent, Tape
from dualrev.options.settings import Active

if TYPE_CHECKING:
    from dualrev.table.rows import Operand

_provided: dict[str, Callable[..., Any]] = {}


def provide(**functions: Callable[..., Any]) -> None:
    """Register an engine's implementations, by name."""
    _provided.update(functions)


def push_through(fun: Callable[..., Sequence[jax.Array]], primals: Sequence[jax.Array],
                 tangents: Sequence[Tangent]) -> tuple[list[jax.Array], list[Tangent]]:
    """``(outs, tangents out)`` of a function of arrays; a tangent of None is zero."""
    result: tuple[list[jax.Array], list[Tangent]] = _provided["push_through"](fun, primals, tangents)
    return result


def linearize(fun: Callable[..., Sequence[jax.Array]], primals: Sequence[Operand], active: Sequence[Active],
              is_linear: bool = False) -> tuple[Sequence[Operand], Tape]:
    """``(outs, tape)`` of a function of arrays, as :func:`dualrev.engines.reverse.linearize` gives them."""
    result: tuple[Sequence[Operand], Tape] = _provided["linearize"](fun, primals, active, is_linear)
    return result


def transpose(fun: Callable[..., Sequence[jax.Array]], avals: Sequence[ShapedArray]) -> Tape:
    """The tape of a linear function of arrays, from the abstract values of its inputs alone."""
    tape: Tape = _provided["transpose"](fun, avals)
    return tape
