"""The storages, gradients and settings that a step reads and writes, noted while it is traced."""

from __future__ import annotations

import weakref
from typing import Any, TypeAlias

import jax

from dualrev._jax.jaxprs import stand_in
from dualrev._jax.source_lines import SourceInfo, source
from dualrev._jax.traces import Tracer, current_trace
from dualrev.eager.compiled.guards import Guards
from dualrev.eager.core.annotations import Number
from dualrev.eager.core.evaluation import aval_of
from dualrev.eager.core.modes import mode
from dualrev.eager.graph.interception import apply_intercepted
from dualrev.eager.graph.storage import Storage
from dualrev.eager.graph.tensor import Tensor

#: The settings of an optimizer's group by name.
Settings: TypeAlias = dict[str, Any]


class Given:
    """A storage from outside whose value a step reads, with the tensor through which it was first read."""

    __slots__ = ("before", "owner", "requires_grad", "storage", "tensor", "tracer")

    def __init__(self, t: Tensor, tracer: jax.Array):
        self.storage = t._storage
        self.tensor = weakref.ref(t)
        self.requires_grad = t._requires_grad
        self.before = t._storage.array
        self.tracer = tracer
        #: The leaf whose gradient it was at first: its gradient is the input at later calls.
        self.owner: Tensor | None = None

    def is_same(self) -> bool:
        """Whether the tensor still has the storage."""
        t = self.tensor() if self.owner is None else None
        return t is None or (t._storage is self.storage and t._requires_grad == self.requires_grad)


class Leaf:
    """A tensor whose ``.grad`` a step reads or sets."""

    __slots__ = ("before", "had_one", "hooks", "read", "tensor")

    def __init__(self, t: Tensor, read: bool):
        self.tensor = t
        self.before = t._grad
        self.had_one = t._grad is not None
        self.hooks = hooks_of(t)
        #: Whether it was read before it was replaced.
        self.read = read

    def is_same(self) -> bool:
        """Whether there is a gradient now if there was one, and the same hooks."""
        t = self.tensor
        return (not self.read or (t._grad is not None) == self.had_one) and hooks_of(t) == self.hooks


def hooks_of(t: Tensor) -> Any:
    """The ids of a leaf's hooks, or None."""
    return (tuple(t._hooks or ()), tuple(t._after_hooks or ())) if t._hooks or t._after_hooks else None


class Watcher:
    """While a step is traced, replaces each value from outside by a tracer when the step first reads it."""

    def __init__(self, guards: Guards) -> None:
        self.trace = current_trace()
        #: The modules, names and settings that Python decides by.
        self.guards = guards
        #: The inputs of the program: storages, and settings of optimizers ``(group, name)``.
        self.inputs: list[Given | tuple[Settings, str]] = []
        self.seen: dict[int, Storage] = {}
        self.leaves: dict[int, Leaf] = {}
        self.numbers: dict[tuple[int, str], jax.Array] = {}
        self.rates: list[tuple[Settings, str, object]] = []
        self.made: list[tuple[weakref.ref[Storage], SourceInfo]] = []

    def __enter__(self) -> Watcher:
        self._before = mode.watcher, mode.handler
        mode.watcher, mode.handler = self, apply_intercepted
        return self

    def __exit__(self, *_: object) -> None:
        mode.watcher, mode.handler = self._before

    def read(self, t: Tensor) -> None:
        """The value of a tensor is about to be read, or replaced."""
        storage = t._storage
        if id(storage) in self.seen:
            return
        self.seen[id(storage)] = storage
        array = storage.array
        if array is not None and not isinstance(array, Tracer):
            tracer = stand_in(self.trace, aval_of(array), len(self.inputs))
            self.inputs.append(Given(t, tracer))
            storage.array = tracer

    def born(self, storage: Storage) -> None:
        """A tensor was made: if it outlives the step, the program gives it a value."""
        self.made.append((weakref.ref(storage), source()))

    def leaf(self, t: Tensor, replaced: bool = False) -> None:
        """The gradient of a tensor is about to be read, or replaced."""
        if id(t) not in self.leaves:
            self.leaves[id(t)] = Leaf(t, not replaced)

    def number(self, group: Settings, name: str) -> jax.Array:
        """A setting of an optimizer as an input of the program: it may change from call to call."""
        found = self.numbers.get((id(group), name))
        if found is None:
            found = self.numbers[(id(group), name)] = stand_in(self.trace, aval_of(setting(group, name)), len(self.inputs))
            self.inputs.append((group, name))
            self.rates.append((group, name, group[name]))
        return found

    def check_rates(self) -> None:
        """Raise if the step has changed a setting itself, after restoring it."""
        for group, name, before in self.rates:
            now = group[name]
            if now is not before and now != before:
                group[name] = before
                raise RuntimeError(f"a compiled step changes the setting {name!r} of an optimizer, from {before} to {now}\nwhen the "
                                   "program runs, Python does not, so that it would stay as it is; change it outside: the program "
                                   "reads it at each call")

    def restore(self) -> None:
        """Restore the values that tracers have replaced."""
        for x in self.inputs:
            if isinstance(x, Given):
                x.storage.array = x.before
                x.before = x.tracer = None  # type: ignore[assignment]  # it is not used any more
        for leaf in self.leaves.values():
            leaf.tensor._grad, leaf.before = leaf.before, None


def setting(group: Settings, name: str) -> Number:
    """A setting as an operand, always a float."""
    return float(group[name])
