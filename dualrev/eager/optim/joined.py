"""Small parameters updated together: their entries as one vector, which one program updates.

A rule that works entry by entry gives the same numbers for a vector of all entries as for each parameter.  Numpy takes as long for a
small array as for a number, so that one vector takes a fraction of the time of many arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.core.caches import PROGRAM, caches
from dualrev.eager.core.evaluation import TreeEvaluation, promoting
from dualrev.eager.graph.inplace import write
from dualrev.eager.graph.tensor import Tensor, array_of

#: Parameters of more entries in all are updated one by one, compiled.
ENTRIES = 2 ** 18
#: The programs by the class of their optimizer and its settings: they hold nothing of an optimizer.
_programs = caches.table(PROGRAM)
F = TypeVar("F", bound=Callable[..., Any])
#: Vectors by the parameters that they consist of, each with the numbers of these.
_Parts: TypeAlias = "dict[tuple[int, ...], tuple[_Vector, Sequence[int]]]"
#: Which parameters can be updated together: those with equal dtypes, and equal numbers in their states.
_Kind: TypeAlias = tuple[Hashable, ...]


def entrywise(update: F) -> F:
    """Mark an ``update`` that works entry by entry, and that reads nothing but its arguments and the class of its optimizer."""
    update.is_entrywise = True  # type: ignore[attr-defined]
    return update


def updated(optimizer: Any, p: Any, g: Any, state: dict[str, Any], settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The new value and state of a parameter; rules that are not about matrices take complex numbers as pairs of real ones."""
    if not jnp.iscomplexobj(p) or optimizer.of_matrices:
        return optimizer.update(p, g, state, settings)
    pairs = {name for name, x in state.items() if jnp.iscomplexobj(x)}
    value, after = optimizer.update(_pairs(p), _pairs(g), {k: _pairs(x) if k in pairs else x for k, x in state.items()}, settings)
    return _complex(value), {k: _complex(x) if k in pairs else x for k, x in after.items()}


def _pairs(x: Any) -> Any:
    return jnp.stack([x.real, x.imag], -1)


def _complex(x: Any) -> Any:
    return jax.lax.complex(x[..., 0], x[..., 1])


class _Vector:
    """The entries of some parameters, and of their states, one after the other; and the arrays that are parts of it."""

    __slots__ = ("ends", "parts", "state", "values")

    def __init__(self, params: Sequence[Tensor], states: Sequence[dict[str, Tensor]]):
        #: Where each parameter ends.
        self.ends = np.cumsum([array_of(p).size for p in params]).tolist()
        self.take([array_of(p) for p in params], [{k: array_of(x) for k, x in s.items()} for s in states])

    def take(self, values: Sequence[Any], states: Sequence[dict[str, Any]]) -> None:
        """Join arrays."""
        self.values = flat(values)
        self.state = {k: x if x.ndim == 0 else flat([s[k] for s in states]) for k, x in states[0].items()}
        self.parts = [[x, *s.values()] for x, s in zip(values, states, strict=True)]

    def is_current(self, params: Sequence[Tensor], states: Sequence[dict[str, Tensor]]) -> bool:
        """Whether the parameters and states still have the arrays that are parts of it."""
        for p, s, arrays in zip(params, states, self.parts, strict=True):
            if p._storage.array is not arrays[0] or p._view is not None or len(s) + 1 != len(arrays):
                return False
            for x, array in zip(s.values(), arrays[1:], strict=True):
                if x._storage.array is not array:
                    return False
        return True

    def give(self, values: Any, state: dict[str, Any], params: Sequence[Tensor], states: Sequence[dict[str, Tensor]]) -> None:
        """Write new entries into parameters and states, and keep the vector for the next step."""
        self.values, self.state = values, state
        start = 0
        self.parts = []
        for p, s, end in zip(params, states, self.ends, strict=True):
            shape = p._storage.array.shape if p._view is None else array_of(p).shape
            parts = [values[start: end].reshape(shape)]
            write(p, parts[0])
            for name, old in s.items():
                new = state[name]
                parts.append(new if new.ndim == 0 else new[start: end].reshape(shape))
                write(old, parts[-1])
            self.parts.append(parts)
            start = end


def flat(arrays: Sequence[Any]) -> Any:
    """The entries of arrays, one after the other."""
    return arrays[0].reshape(-1) if len(arrays) == 1 else np.concatenate([x.reshape(-1) for x in arrays])


class Joined:
    """The vectors of an optimizer's group, kept from step to step."""

    def __init__(self) -> None:
        self._vectors: dict[tuple[int, ...], _Vector] = {}

    def step(self, rule: type[Any], key: Hashable, params: Sequence[Tensor], states: Sequence[dict[str, Tensor]],
             numbers: dict[str, Any]) -> bool:
        """Update parameters that have gradients; false where they are to be updated one by one."""
        grads = [array_of(p._grad) for p in params]  # type: ignore[arg-type]
        if not all(type(g) is np.ndarray for g in grads):
            return False
        named = tuple([id(p) for p in params])
        known = self._vectors.get(named)
        parts: _Parts
        if known is not None and known.is_current(params, states):
            # As it was after the last step: all in one vector.
            parts = {named: (known, range(len(params)))}
        else:
            parts = self._parted(params, grads, states)
        program = _program(rule, key)
        results = [program.on_host(vector.values, flat([grads[i] for i in where]), vector.state, numbers)
                   for vector, where in parts.values()]
        if not results or None in results:
            return False
        for (vector, where), result in zip(parts.values(), results, strict=True):
            values, state = result[0]  # type: ignore[index]
            vector.give(values, state, [params[i] for i in where], [states[i] for i in where])
        self._vectors = {name: vector for name, (vector, _) in parts.items()}
        return True

    def _parted(self, params: Sequence[Tensor], grads: Sequence[Any], states: Sequence[dict[str, Tensor]]) -> _Parts:
        """The vectors of parameters that can be updated together, and which these are; none where some are large, or jax's."""
        values, arrays = [array_of(p) for p in params], [[array_of(x) for x in s.values()] for s in states]
        if not all(type(x) is np.ndarray for x in values) or sum(x.size for x in values) > ENTRIES:
            return {}
        if not all(type(x) is np.ndarray and x.shape in ((), p.shape) for p, s in zip(values, arrays, strict=True) for x in s):
            return {}
        kinds: dict[_Kind, list[int]] = {}
        for i, (p, g, s, a) in enumerate(zip(values, grads, states, arrays, strict=True)):
            counts = [(name, x.dtype, None if x.ndim else x.tobytes()) for name, x in zip(s, a, strict=True)]
            kinds.setdefault((p.dtype, g.dtype, *counts), []).append(i)
        found: _Parts = {}
        for where in kinds.values():
            some, of_some = [params[i] for i in where], [states[i] for i in where]
            named = tuple([id(p) for p in some])
            vector = self._vectors.get(named)
            found[named] = (vector if vector is not None and vector.is_current(some, of_some) else _Vector(some, of_some)), where
        return found


def _program(rule: type[Any], key: Any) -> TreeEvaluation:
    """The program that updates a vector."""
    found: TreeEvaluation | None = _programs.get((rule, key))
    if found is None:
        optimizer = object.__new__(rule)  # an update reads only its class

        def run(values: Any, grads: Any, state: dict[str, Any], numbers: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            new, after = updated(optimizer, values, grads, state, {**dict(key), **numbers})
            return new.astype(values.dtype), after

        found = _programs.keep((rule, key), TreeEvaluation(promoting(run)))
    return found
