"""Operations that are alike: the same on other entries of the same arrays.

``sin(x[1])`` and ``sin(x[2])`` are alike, and so are ``sin(x[1]) * x[0]`` and ``sin(x[2]) * x[1]``: operations are alike if primitive
and parameters are equal and each operand is the same value, or a constant of the same type, or the result of operations that are
alike.  So none of them depends on another one, and they may be computed together.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from jax import lax

from dualrev._jax.avals import ShapedArray, is_extended
from dualrev._jax.jaxprs import Atom, DropVar, JaxprEqn, Var, is_literal
from dualrev._jax.sharding import explicit_sharding, varying
from dualrev._jax.traces import Tracer
from dualrev.programs.common_subexpressions import frozen
from dualrev.programs.partition import Graph

#: The number of entries up to which a value is small: arrays of many small values are what computing them one by one costs anyway.
SMALL = 64

#: The number of operations that are worth computing together.
MANY = 16

#: Whether operations of an equation's kind may be computed together: entry by entry, moving entries, or linear in them.
Allowed: TypeAlias = Callable[[JaxprEqn], bool]


@dataclass
class Alike:
    """Equations that are alike; the results are rows of one array, in the order of :attr:`eqns` once they are sorted."""

    number: int
    eqns: list[JaxprEqn] = field(default_factory=list)
    #: Whether they take parts of one array, at starts that are among their parameters.
    is_slice: bool = False

    def operands(self, k: int) -> list[Atom]:
        return [eqn.invars[k] for eqn in self.eqns]


class Classes:
    """The classes of a program's small operations; those of which there are many, and what they read, are ``chosen``."""

    def __init__(self, graph: Graph, allowed: Allowed):
        self.consts: dict[Var, np.ndarray[Any, Any]] = {
            v: np.asarray(x) for v, x in graph.consts.items() if not isinstance(x, Tracer) and is_small(v)}
        eqns = [eqn for eqn in graph.eqns if may_be_alike(eqn) and allowed(eqn)]
        self._assign(eqns, set())
        # Where an array is itself a small part of another one, like few others, its entries are what is alike.
        few = {v for v, number in self._of.items() if len(self._classes[number].eqns) < MANY}
        if any(eqn.primitive is lax.slice_p and eqn.invars[0] in few for eqn in eqns):
            self._assign(eqns, few)
        self.chosen = self._choose()
        #: The row of each result among those of its class.
        self.rows: dict[Var, int] = {}
        for number in sorted(self.chosen):
            found = self._classes[number]
            found.eqns.sort(key=lambda eqn: self._order(found, eqn))
            self.rows.update((eqn.outvars[0], i) for i, eqn in enumerate(found.eqns))

    def _assign(self, eqns: Sequence[JaxprEqn], arrays: set[Var]) -> None:
        """Number the classes, and put each equation into one; ``arrays``: what is small itself, and of which entries are taken."""
        self._of: dict[Var, int] = {}
        self._classes: list[Alike] = []
        numbers: dict[Hashable, int] = {}
        for eqn in eqns:
            source = eqn.invars[0]
            is_slice = eqn.primitive is lax.slice_p and (is_literal(source) or source not in self._of or source in arrays)
            try:
                number = numbers.setdefault(self._key(eqn, is_slice), len(numbers))
            except TypeError:  # a parameter cannot be hashed
                continue
            if number == len(self._classes):
                self._classes.append(Alike(number, [], is_slice))
            self._classes[number].eqns.append(eqn)
            self._of[eqn.outvars[0]] = number

    def of(self, atom: Atom) -> Alike | None:
        """The chosen class of the operation that computes a value."""
        if is_literal(atom) or atom not in self.rows:
            return None
        return self._classes[self._of[atom]]

    def numbered(self, number: int) -> Alike:
        return self._classes[number]

    def _key(self, eqn: JaxprEqn, is_slice: bool) -> Hashable:
        params = eqn.params
        if is_slice:
            sizes = tuple([b - a for a, b in zip(params["start_indices"], params["limit_indices"], strict=True)])
            return (lax.slice_p, eqn.invars[0], sizes, eqn.ctx)
        return (eqn.primitive, tuple(map(self._operand, eqn.invars)), tuple([(k, frozen(v)) for k, v in params.items()]), eqn.ctx)

    def _operand(self, atom: Atom) -> Hashable:
        if is_literal(atom):
            return ("constant", *_type(atom))
        if atom in self._of:
            return ("alike", self._of[atom])
        return ("constant", *_type(atom)) if atom in self.consts else ("same", atom)

    def _choose(self) -> set[int]:
        pending = [c.number for c in self._classes if len(c.eqns) >= MANY]
        chosen: set[int] = set()
        while pending:
            number = pending.pop()
            if number in chosen:
                continue
            chosen.add(number)
            found = self._classes[number]
            for k in range(len(found.eqns[0].invars)):
                atoms = found.operands(k)
                if not is_literal(atoms[0]) and atoms[0] in self._of and any(atom is not atoms[0] for atom in atoms):
                    pending.append(self._of[atoms[0]])
        return chosen

    def _order(self, alike: Alike, eqn: JaxprEqn) -> tuple[int, ...]:
        """Neighbours in an array are neighbours among what is computed from them."""
        if alike.is_slice:
            return tuple(eqn.params["start_indices"])
        return tuple([self.rows.get(atom, 0) for atom in eqn.invars if not is_literal(atom)])


def _type(atom: Atom) -> tuple[Hashable, ...]:
    return atom.aval.shape, atom.aval.dtype, atom.aval.weak_type  # type: ignore[attr-defined]  # constants are arrays


def is_small(v: Var) -> bool:
    """Whether a value is an array of few entries, on one device."""
    aval = v.aval
    if not isinstance(aval, ShapedArray) or is_extended(aval.dtype) or not all(isinstance(n, int) for n in aval.shape):
        return False
    return 0 < aval.size <= SMALL and explicit_sharding(aval) is None and not varying(aval)


def may_be_alike(eqn: JaxprEqn) -> bool:
    """Whether an operation has one small result of a strong type, and does nothing else."""
    if eqn.effects or len(eqn.outvars) != 1 or not eqn.invars:
        return False
    (out,) = eqn.outvars
    if isinstance(out, DropVar) or not is_small(out) or out.aval.weak_type:  # type: ignore[attr-defined]
        return False
    return eqn.primitive is not lax.slice_p or not eqn.params["strides"] or set(eqn.params["strides"]) == {1}


def constant(atom: Atom, consts: dict[Var, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any] | None:
    """The value of a number that stands in the program, or of a small constant."""
    if is_literal(atom):
        return np.asarray(atom.val, atom.aval.dtype)  # type: ignore[attr-defined]
    return consts.get(atom)


def progression(numbers: Sequence[int]) -> tuple[int, int] | None:
    """``(first, step)`` of numbers at equal distances above zero, or None."""
    if len(numbers) == 1:
        return numbers[0], 1
    step = numbers[1] - numbers[0]
    if step <= 0 or any(b - a != step for a, b in pairwise(numbers)):
        return None
    return numbers[0], step
