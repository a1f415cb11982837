"""A traced program, evaluated with its taps: with a perturbation for each place, and with what each place gives.

:class:`Tapped` knows which taps are wanted.  It evaluates a program equation by equation; an operation that holds a program with such
a tap has a :class:`Holder`, which says what becomes of the places of the program, and evaluates the operation with their perturbations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax import lax

from dualrev import errors
from dualrev._jax.jaxprs import Atom, ClosedJaxpr, Jaxpr, JaxprEqn, Var, as_traced, is_literal
from dualrev._jax.new_primitives import perturbed_p, tap_p
from dualrev._jax.source_lines import line_of
from dualrev.inspection.taps.marks import is_asked
from dualrev.inspection.taps.places import Found, Perturbations, Place, in_front, taps_held
from dualrev.programs.functions import as_arrays

T = TypeVar("T")


class Holder(ABC):
    """What is to be done with an operation that holds a program with taps."""

    @abstractmethod
    def places(self, tapped: Tapped, eqn: JaxprEqn) -> list[Place]:
        """The places of the operation, in the order in which they are evaluated."""

    @abstractmethod
    def evaluate(self, tapped: Tapped, eqn: JaxprEqn, args: list[jax.Array],
                 perturbations: Perturbations) -> tuple[list[jax.Array], list[Found]]:
        """The results of the operation, and what each of its places gives."""


class Tapped:
    """Programs with the taps that are wanted: ``is_wanted(name)``.

    ``record``: for how many steps of a ``while`` loop values are kept; None for the last step alone.
    """

    def __init__(self, is_wanted: Callable[[str], bool], record: int | None, holders: dict[str, Holder]):
        self.is_wanted = is_wanted
        self.record = record
        self.holders = holders

    def places(self, program: ClosedJaxpr | Jaxpr) -> list[Place]:
        """The places of a program, in the order in which they are evaluated."""
        return [place for eqn in program.eqns for place in self.places_of(eqn)]

    def places_of(self, eqn: JaxprEqn) -> list[Place]:
        if eqn.primitive is tap_p:
            return [Place.of(eqn)] if self.is_wanted(eqn.params["name"]) else []
        held = [inner for inner in taps_held(eqn) if self.is_wanted(inner.params["name"])]
        if not held:
            return []
        holder = self.holders.get(str(eqn.primitive))
        if holder is None:
            raise errors.TapError(
                f"{errors.CALL}: the tap {held[0].params['name']!r}{_at(held[0])} stands in a program that '{eqn.primitive}'{_at(eqn)} "
                "holds, and that operation hands no values out of it. Tap what it takes or what it returns.")
        return holder.places(self, eqn)

    def evaluate(self, program: ClosedJaxpr, args: Sequence[jax.Array],
                 perturbations: Perturbations) -> tuple[list[jax.Array], list[Found]]:
        """The results of a program, and what each of its places gives, with a perturbation or None for each."""
        body = program.jaxpr
        env: dict[Var, jax.Array] = dict(zip((*body.constvars, *body.invars), (*program.consts, *args), strict=True))
        given = iter(perturbations)
        found: list[Found] = []

        def value(atom: Atom) -> jax.Array:
            return atom.val if is_literal(atom) else env[atom]

        for eqn in body.eqns:
            operands = [value(atom) for atom in eqn.invars]
            with as_traced(eqn):
                places = self.places_of(eqn)
                mine = [next(given) for _ in places]
                if eqn.primitive is tap_p:
                    (x,) = as_arrays(operands)  # it may be a number that stands in the program
                    outs, new = self._tap(eqn, x, mine)
                elif places:
                    outs, new = self.holders[str(eqn.primitive)].evaluate(self, eqn, operands, mine)
                else:
                    outs, new = rebound(eqn, operands), []
            found += new
            env.update(zip(eqn.outvars, outs, strict=True))
        return [value(atom) for atom in body.outvars], found

    def _tap(self, eqn: JaxprEqn, x: jax.Array, perturbations: Perturbations) -> tuple[list[jax.Array], list[Found]]:
        if is_asked():  # a function around is traced for its taps, too
            (x,) = rebound(eqn, [x])
        found = []
        for perturbation in perturbations:  # one, or none where the tap is not wanted
            order = in_front(x.ndim, eqn.params["axes"])
            if perturbation is not None:
                x = perturbed_p.bind(x, _transposed(perturbation, tuple(np.argsort(order))))
            found.append(Found(_transposed(x, tuple(order)), lax.full((), True)))
        return [x], found

    def flat(self, program: ClosedJaxpr, places: Sequence[Place], given: Sequence[bool]) -> Callable[..., list[jax.Array]]:
        """The program as a flat function of its operands and then of perturbations, for the places in ``given``.

        It returns the results, and then two arrays for each place.
        """
        n = len(program.in_avals)

        def run(*flat: jax.Array) -> list[jax.Array]:
            outs, found = self.evaluate(program, flat[:n], spread(flat[n:], given))
            return [*outs, *[x for each in found for x in each]]

        return run


def rebound(eqn: JaxprEqn, operands: Sequence[jax.Array]) -> list[jax.Array]:
    """The results of an equation as it stands."""
    out = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
    return list(out) if eqn.primitive.multiple_results else [out]


def present(perturbations: Perturbations) -> tuple[list[jax.Array], list[bool]]:
    """The perturbations that there are, and which those are."""
    return [e for e in perturbations if e is not None], [e is not None for e in perturbations]


def spread(values: Sequence[T], given: Sequence[bool]) -> list[T | None]:
    """Undo :func:`present`."""
    found = iter(values)
    return [next(found) if flag else None for flag in given]


def paired(flat: Sequence[jax.Array]) -> list[Found]:
    """What places gave, from the flat results of :meth:`Tapped.flat`."""
    return [Found(value, reached) for value, reached in zip(flat[::2], flat[1::2], strict=True)]


def closed(program: ClosedJaxpr | Jaxpr) -> ClosedJaxpr:
    """A program as a closed jaxpr; some operations hold an open one."""
    return program if isinstance(program, ClosedJaxpr) else ClosedJaxpr(program, [])



def _transposed(x: jax.Array, order: tuple[int, ...]) -> jax.Array:
    return x if order == tuple(range(x.ndim)) else lax.transpose(x, order)


def _at(eqn: JaxprEqn) -> str:
    line = line_of(eqn.source_info)
    return f" at {line}" if line else ""
