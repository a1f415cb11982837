"""A whole imperative step as one compiled program."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import tree_flatten, tree_unflatten

from dualrev._jax import Tracer, is_array_like, jaxpr_as_fun
from dualrev.eager.dispatch import constant
from dualrev.eager.modes import mode
from dualrev.eager.tensors import Storage, Tensor, array_of, wrap


class Watcher:
    """Learns what a step reads and writes: storages, gradients of leaves, numbers of optimizers."""

    def __init__(self) -> None:
        self.storages: dict[int, Storage] = {}
        self.before: dict[int, Any] = {}
        self.leaves: dict[int, tuple[Tensor, Tensor | None]] = {}
        self.numbers: dict[tuple[int, str], dict[str, Any]] = {}
        self.given: dict[tuple[int, str], Any] = {}

    def read(self, storage: Storage) -> None:
        if id(storage) not in self.before:
            self.storages[id(storage)] = storage
            self.before[id(storage)] = storage.array

    def write(self, storage: Storage) -> None:
        self.read(storage)

    def leaf(self, t: Tensor) -> None:
        """A tensor whose ``.grad`` is about to be set."""
        self.leaves.setdefault(id(t), (t, t._grad))

    def number(self, group: dict[str, Any], name: str) -> Any:
        self.numbers[(id(group), name)] = group
        found = self.given.get((id(group), name))
        return constant(group[name]) if found is None else found


class Program:
    """A compiled step, with the state that it reads and writes."""

    __slots__ = ("grads", "leaves", "results", "run", "written")

    grads: list[Any]
    leaves: list[Any]
    results: Any
    run: Callable[..., Any]
    written: list[int]


def jit(step: Callable[..., Any]) -> Callable[..., Any]:
    """Compile an imperative step, with its backward, optimizer, in-place changes and random draws, into one program.

    The first call runs as it is written, to see what it reads; the second is traced; later ones run the program, in which
    Python no longer takes part.  Tensors that are changed have the same numbers as without.

    Args:
      step: a function of tensors and other arguments; numbers, strings and the like are fixed in the program, and it is compiled
        anew for others.  It returns a pytree, whose tensors are detached.

    Raises:
      RuntimeError: Python looks at the value of a tensor: in a condition, ``item()``, ``print``.

    >>> from dualrev import eager as torch
    >>> w = torch.tensor(1.0, requires_grad=True)
    >>> optimizer = torch.optim.SGD([w], lr=0.125)
    >>> @torch.jit
    ... def step(x):
    ...     optimizer.zero_grad()
    ...     loss = (w * x - 6) ** 2
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> for _ in range(3):
    ...     loss = step(torch.tensor(2.0))
    >>> w
    tensor(3., requires_grad=True)
    """
    programs: dict[Any, Program] = {}
    known: dict[Any, Watcher] = {}

    @functools.wraps(step)
    def call(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = tree_flatten((args, kwargs))
        moves = [isinstance(x, Tensor) or (is_array_like(x) and hasattr(x, "shape")) for x in leaves]
        arrays = [array_of(x) if isinstance(x, Tensor) else x for x, m in zip(leaves, moves, strict=True) if m]
        key = (tree, tuple([None if m else x for x, m in zip(leaves, moves, strict=True)]),
               tuple([(a.shape, str(a.dtype)) for a in arrays]), mode.grad, mode.inference)
        if mode.watcher is not None or any(isinstance(a, Tracer) for a in arrays):
            return step(*args, **kwargs)
        if key not in known:
            known[key] = watcher = Watcher()
            with _Watching(watcher):
                result = step(*args, **kwargs)
            passed = {id(x._storage) for x in leaves if isinstance(x, Tensor)}
            for i in passed:
                watcher.storages.pop(i, None)
            return _detached(result)
        program = programs.get(key)
        if program is None:
            program = programs[key] = _traced(step, tree, leaves, moves, arrays, known[key])
        return program.run(arrays)

    return call


def _detached(result: Any) -> Any:
    leaves, tree = tree_flatten(result)
    return tree_unflatten(tree, [x.detach() if isinstance(x, Tensor) else x for x in leaves])


class _Watching:
    def __init__(self, watcher: Watcher):
        self.watcher = watcher

    def __enter__(self) -> None:
        self._before = mode.watcher, mode.special
        mode.watcher, mode.special = self.watcher, True

    def __exit__(self, *_: object) -> None:
        mode.watcher, mode.special = self._before


def _traced(step: Callable[..., Any], tree: Any, leaves: list[Any], moves: list[bool], arrays: list[Any], first: Watcher) -> Program:
    """Trace the step, with what it is known to read as inputs; what turns out to be read besides is added, and it is traced again."""
    state = {i: s for i, s in first.storages.items() if s.array is not None and not isinstance(s.array, Tracer)}
    numbers = dict(first.numbers)
    while True:
        program, missing = _trace_once(step, tree, leaves, moves, arrays, list(state.values()), numbers)
        if not missing:
            return program
        state.update(missing)


def _trace_once(step: Callable[..., Any], tree: Any, leaves: list[Any], moves: list[bool], arrays: list[Any], state: list[Storage],
                numbers: dict[tuple[int, str], dict[str, Any]]) -> tuple[Program, dict[int, Storage]]:
    watcher = Watcher()
    program = Program()
    numbered = list(numbers.items())
    missing: dict[int, Storage] = {}
    originals = [s.array for s in state]

    def traced(state_in: Any, numbers_in: Any, arrays_in: Any) -> Any:
        for s, x in zip(state, state_in, strict=True):
            s.array = x
        watcher.given = {k: x for (k, _), x in zip(numbered, numbers_in, strict=True)}
        values = iter(arrays_in)
        args, kwargs = tree_unflatten(tree, [_like(next(values), x) if m else x for x, m in zip(leaves, moves, strict=True)])
        with _Watching(watcher):
            result = step(*args, **kwargs)
        for i, x in watcher.before.items():
            if not isinstance(x, Tracer):
                missing[i] = watcher.storages[i]
        outs, out_tree = tree_flatten(result)
        tensors = [isinstance(x, Tensor) for x in outs]
        program.results = (out_tree, tensors, [None if is_t else x for x, is_t in zip(outs, tensors, strict=True)])
        program.written = [i for i, (s, x) in enumerate(zip(state, state_in, strict=True)) if s.array is not x]
        program.leaves = [(t, t._grad, before) for t, before in watcher.leaves.values()]
        program.grads = [g for _, g, _ in program.leaves if g is not None and isinstance(g._storage.array, Tracer)
                         and not any(g._storage is s for s in state)]
        return ([array_of(x) for x, is_t in zip(outs, tensors, strict=True) if is_t], [state[i].array for i in program.written],
                [array_of(g) for g in program.grads])

    try:
        current = [constant(group[name]) for (_, name), group in numbered]
        jaxpr = jax.make_jaxpr(traced)(originals, current, arrays)
    finally:
        for i, s in watcher.storages.items():
            if not isinstance(watcher.before[i], Tracer):
                s.array = watcher.before[i]
        for s, x in zip(state, originals, strict=True):
            s.array = x
        for t, before in watcher.leaves.values():
            t._grad = before
    if not missing:
        _complete(program, jaxpr, state, numbered)
    return program, missing


def _complete(program: Program, jaxpr: Any, state: list[Storage], numbered: list[Any]) -> None:
    out_tree, tensors, fixed = program.results
    written, grads, leaves = program.written, program.grads, program.leaves
    kept = [i for i in range(len(state)) if i not in set(written)]
    n_results, n_written = sum(tensors), len(written)
    evaluate = jaxpr_as_fun(jaxpr)

    def run(changing: Any, staying: Any, numbers: Any, arrays: Any) -> Any:
        values: list[Any] = [None] * len(state)
        for i, x in (*zip(written, changing, strict=True), *zip(kept, staying, strict=True)):
            values[i] = x
        return evaluate(*values, *numbers, *arrays)

    compiled = jax.jit(run, donate_argnums=0)

    def call(arrays: Any) -> Any:
        changing = [_own(state[i]) for i in written]
        outs = compiled(changing, [state[i].array for i in kept], [constant(group[name]) for (_, name), group in numbered], arrays)
        for i, x in zip(written, outs[n_results: n_results + n_written], strict=True):
            state[i].array = x
            state[i].version += 1
        for g, x in zip(grads, outs[n_results + n_written:], strict=True):
            g._storage.array = x
        for t, g, _ in leaves:
            t._grad = g
        values = iter(outs[:n_results])
        return tree_unflatten(out_tree, [wrap(next(values)) if is_t else x for is_t, x in zip(tensors, fixed, strict=True)])

    program.run = call


#: How often an array is referred to that belongs to one storage alone, as seen from where it is counted.
_ALONE = 3


def _own(storage: Storage) -> Any:
    """The value of a storage, to be given away: a copy where something else refers to it."""
    x = storage.array
    return x if sys.getrefcount(x) <= _ALONE else jnp.copy(x)


def _like(x: Any, given: Any) -> Any:
    if not isinstance(given, Tensor):
        return x
    t = wrap(x)
    t._requires_grad = given._requires_grad
    return t
