"""A whole imperative step as one compiled program."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import tree_flatten, tree_unflatten

from dualrev._jax import Tracer, is_array_like, jaxpr_as_fun, line_of, with_stand_ins
from dualrev.eager.compiled.guards import Guards
from dualrev.eager.compiled.watching import Given, Leaf, Watcher, setting
from dualrev.eager.core import dtypes
from dualrev.eager.core.modes import mode
from dualrev.eager.graph.backward_pass import accumulate
from dualrev.eager.graph.inplace import write
from dualrev.eager.graph.tensor import Storage, Tensor, array_of, described, wrap

#: For how many sorts of arguments a step keeps programs, and how many for each.
KEPT, KEPT_ALIKE = 64, 8


class Program:
    """A compiled step, with what it takes, and what becomes of its results."""

    def __init__(self, step: Callable[..., Any], tree: Any, leaves: list[Any], moves: list[bool], arrays: list[Any]):
        #: Whether the next call is to trace again.
        self.once = False
        watchers: list[Watcher] = []
        guards = self.guards = Guards(step)
        shared = _twins(leaves)

        def traced(*values: Any) -> list[Any]:
            watcher = Watcher(guards)
            watchers.append(watcher)
            given = iter(values)
            args = [_like(next(given), x) if m else x for x, m in zip(leaves, moves, strict=True)]
            args = [args[k] for k in shared]
            moving = [x for x, m in zip(args, moves, strict=True) if m]
            with watcher:
                in_args, kwargs = tree_unflatten(tree, args)
                result = step(*in_args, **kwargs)
            del in_args, kwargs
            outs, self.out_tree = tree_flatten(result)
            #: Of each result, what makes it of an array: a tensor, the array itself; None if it is fixed.
            self.kinds = [wrap if isinstance(x, Tensor) else _itself if isinstance(x, Tracer) else None for x in outs]
            self.fixed = [x if kind is None else None for x, kind in zip(outs, self.kinds, strict=True)]
            found = [array_of(x) if isinstance(x, Tensor) else x for x, kind in zip(outs, self.kinds, strict=True) if kind is not None]
            del result, outs, args
            return [*found, *self._effects(watcher, moving)]

        try:
            jaxpr, self.order = with_stand_ins(jax.make_jaxpr(traced)(*arrays))
        finally:
            for watcher in watchers:
                watcher.restore()
        watchers[0].check_rates()
        self.inputs = watchers[0].inputs
        #: What the step itself has changed of what it was decided by.
        self.changed = guards.changed()
        #: Storages from outside that are read, and those that are written.
        self.read = {id(x.storage): k for k, x in enumerate(self.inputs) if isinstance(x, Given) and x.owner is None}
        #: Tensors and gradients from outside.
        self.outside: list[Any] = [*watchers[0].leaves.values(), *[x for x in self.inputs if isinstance(x, Given)]]
        evaluate = jaxpr_as_fun(jaxpr)
        n_args, order = len(arrays), self.order
        changed = set(self.written)
        self.changing = [k for k in order if k in changed]
        self.staying = [k for k in order if k not in changed]

        def run(changing: Any, spare: Any, staying: Any, arrays: Any) -> Any:
            values = dict(zip((*self.changing, *self.staying), (*changing, *staying), strict=True))
            return evaluate(*arrays, *[values[k] for k in order])

        assert len(jaxpr.jaxpr.invars) == n_args + len(order)
        self.run = jax.jit(run, donate_argnums=(0, 1), keep_unused=True)

    def _effects(self, watcher: Watcher, moving: list[Any]) -> list[Any]:
        """The values that a traced step has changed, after noting where they belong."""
        inputs = watcher.inputs
        #: Inputs that are replaced.
        self.written = [k for k, x in enumerate(inputs) if isinstance(x, Given) and x.storage.array is not x.tracer]
        #: Arguments that were changed in place.
        self.moved = [k for k, t in enumerate(moving) if isinstance(t, Tensor) and t._storage.version]
        #: Leaves whose gradient is a new one, and those that get None or another tensor.
        self.grads: list[Leaf] = []
        self.assigned: list[tuple[Leaf, Any]] = []
        #: Arguments that got a gradient.
        self.arg_grads: list[int] = []
        #: Shape and dtype of each new gradient.
        self.grad_avals: list[tuple[Any, Any]] = []
        states = {id(x.storage): x for x in inputs if isinstance(x, Given)}
        places = {id(t): k for k, t in enumerate(moving)}
        results = [inputs[k].storage.array for k in self.written]  # type: ignore[union-attr]
        results += [moving[k]._storage.array for k in self.moved]
        grads, arg_grads = [], []
        for key, leaf in list(watcher.leaves.items()):
            g = leaf.tensor._grad
            if leaf.before is not None and id(leaf.before._storage) in states:
                states[id(leaf.before._storage)].owner = leaf.tensor
            if key in places:
                del watcher.leaves[key]
                if g is not None:
                    self.arg_grads.append(places[key])
                    arg_grads.append(g._storage.array)
            elif g is None or id(g._storage) in states:
                if g is not leaf.before:
                    self.assigned.append((leaf, g))
            else:
                self.grads.append(leaf)
                grads.append(array_of(g))
                self.grad_avals.append((grads[-1].shape, grads[-1].dtype))
        known = {id(leaf.tensor._grad._storage) for leaf in self.grads if leaf.tensor._grad is not None}
        watcher.seen.clear()
        kept = {id(s): (s, where) for s, where in [(ref(), where) for ref, where in watcher.made]
                if s is not None and isinstance(s.array, Tracer) and id(s) not in known and id(s) not in states}
        #: Tensors that the step made and left somewhere, and where it made them.
        self.kept = [(weakref.ref(s), where) for s, where in kept.values()]
        return [*results, *grads, *arg_grads, *[s.array for s, _ in kept.values()]]

    def fits(self) -> bool:
        """Whether what was true of tensors from outside when the step was traced still is."""
        if self.once:
            return False
        return all(x.is_same() for x in self.outside) and self.guards.changed() is None

    def check(self, others: Sequence[Program]) -> None:
        """Raise if the step reads what an earlier call left, and leaves another tensor in its place: programs would not see that."""
        if self.changed is not None and any(other.changed == self.changed for other in others):
            raise RuntimeError(f"a compiled step changes {self.changed}, which it depends on\nwhen the program runs, Python does not, "
                               "so that it would stay as it is; change it outside the step, or keep it in a tensor and change that in "
                               "place")
        left = {id(ref()) for other in others for ref, _ in other.kept}
        for x in self.inputs:
            # Two references are those of this loop: the tensor is no longer where it was.
            if self.kept and type(x) is Given and id(x.storage) in left and sys.getrefcount(x.storage) == 2:
                made = ", ".join(dict.fromkeys([line_of(where) for _, where in self.kept]))
                raise RuntimeError("a compiled step reads a tensor that an earlier call has left outside, and leaves a new one "
                                   f"outside\nmade at {made}; when the program runs, Python does not, so that nothing puts the new one "
                                   "in the old one's place: change the old one in place, with copy_(), or take it as an argument and "
                                   "return it")

    def _refuse(self, moving: list[Any]) -> None:
        """Raise where arguments are more than values: parts of a graph, or other names of what the step changes."""
        for k in self.arg_grads:
            node = moving[k].grad_fn
            if node is not None:
                raise RuntimeError(f"backward inside a compiled step has reached an argument that {node.name()} computed outside"
                                   + (f", at {node.line()}" if node.line() else "") + "\na program goes back to its arguments and not "
                                   "further; compute it inside the step, or pass it .detach()ed")
        places: dict[int, Any] = {}
        for k, t in enumerate(moving):
            if not isinstance(t, Tensor):
                continue
            key = id(t._storage)
            at = self.read.get(key)
            other = places.setdefault(key, (k, t))
            if (at is not None and (k in self.moved or at in self.written)) or (
                    other[1] is not t and (k in self.moved or other[0] in self.moved)):
                raise RuntimeError("a compiled step changes in place an argument that shares its values with "
                                   + ("a tensor that it takes from outside" if at is not None else "another argument")
                                   + f"\n{described(t)}; its program takes them as separate: pass a .clone(), or use one of them only")

    def __call__(self, arrays: list[Any], moving: list[Any]) -> Any:
        inputs = self.inputs
        self._refuse(moving)
        storages = [_storage(inputs[k]) for k in self.changing]
        staying = [_value(inputs[k]) for k in self.staying]
        spare = [_spare(leaf.tensor, *aval) for leaf, aval in zip(self.grads, self.grad_avals, strict=True)]
        outs = self.run([_own(s) for s in storages], spare, staying, arrays)
        found = iter(outs)
        results = [x if kind is None else kind(next(found)) for kind, x in zip(self.kinds, self.fixed, strict=True)]
        for k in self.written:
            storage = _storage(inputs[k])
            storage.array = next(found)
            storage.version += 1
        for k in self.moved:
            write(moving[k], next(found))
        for leaf in self.grads:
            leaf.tensor._grad = wrap(next(found))
        for k in self.arg_grads:
            accumulate(moving[k], next(found), False)
        for ref, _ in self.kept:
            x, kept = next(found), ref()
            if kept is not None:
                kept.array = x
                kept.version += 1
        for leaf, g in self.assigned:
            leaf.tensor._grad = g
        return tree_unflatten(self.out_tree, results)


def _storage(x: Any) -> Storage:
    """Where the value of an input is now."""
    return x.storage if x.owner is None else x.owner._grad._storage


def _value(x: Any) -> Any:
    return _storage(x).array if type(x) is Given else setting(*x)

def jit(step: Callable[..., Any]) -> Callable[..., Any]:
    """Compile an imperative step, with its backward, optimizer, in-place changes and random draws, into one program.

    The first call traces the step, and runs the program; later calls run it again, and Python no longer takes part: what it decided
    in the first is decided.  Tensors that are changed have the same numbers as without.  Arrays that the step replaces, parameters
    and the state of optimizers, are given to the program to reuse.  It is traced anew for arguments of other shapes or dtypes, when
    a gradient is there that was not, and when a tensor from outside has another storage, hooks or ``requires_grad``; and when Python
    might decide otherwise: numbers, strings, tensors and functions that the step and the functions it calls know by a name, attributes
    and members of modules, ``train()`` and ``eval()``, settings of optimizers.  Other objects' attributes, and what is in lists and
    dictionaries, are not looked at.

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
    programs: dict[Any, list[Program]] = {}

    @functools.wraps(step)
    def call(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = tree_flatten((args, kwargs))
        if mode.watcher is not None:
            return step(*args, **kwargs)
        moves = [isinstance(x, Tensor) or (is_array_like(x) and hasattr(x, "shape")) for x in leaves]
        moving = [x for x, m in zip(leaves, moves, strict=True) if m]
        arrays = [array_of(x) if isinstance(x, Tensor) else x for x in moving]
        for a in arrays:
            if isinstance(a, Tracer):
                return step(*args, **kwargs)
        kinds = tuple([(x._requires_grad if isinstance(x, Tensor) else None) if m else (type(x), repr(x) if type(x) is float else x)
                       for x, m in zip(leaves, moves, strict=True)])
        avals = tuple([(a.shape, a.dtype, getattr(a, "weak_type", False)) for a in arrays])
        key = tree, kinds, avals, _twins(leaves), mode.grad, mode.inference, dtypes.get_default_dtype()
        known = programs.get(key, ())
        for program in known:
            if program.fits():
                return program(arrays, moving)
        program = Program(step, tree, leaves, moves, arrays)
        # A step that made a tensor and left it somewhere may go another way when it finds it; once.
        program.once = bool(program.kept or program.changed) and not known
        program.check(known)
        while len(programs) >= KEPT and key not in programs:
            programs.pop(next(iter(programs)))
        programs[key] = [program, *known][:KEPT_ALIKE]
        return program(arrays, moving)

    return call


#: How often an array is referred to that belongs to one storage alone, as seen from where it is counted.
_ALONE = 3


def _own(storage: Storage) -> Any:
    """The value of a storage, to be given away: a copy where something else refers to it."""
    x = storage.array
    return x if sys.getrefcount(x) <= _ALONE else jnp.copy(x)


def _spare(t: Tensor, shape: tuple[int, ...], dtype: Any) -> Any:
    """Memory for a gradient: that of the one which it replaces, unless something else refers to that; fresh pages take time."""
    g = t._grad
    if g is not None and g._view is None and sys.getrefcount(g) <= _ALONE and sys.getrefcount(g._storage) <= _ALONE:
        x = g._storage.array
        if sys.getrefcount(x) <= _ALONE and x.shape == shape and x.dtype == dtype:
            return x
    return jnp.empty(shape, dtype)


def _itself(x: Any) -> Any:
    return x


def _twins(leaves: list[Any]) -> tuple[int, ...]:
    """For each argument, the place where it is first given."""
    first: dict[int, int] = {}
    return tuple([first.setdefault(id(x), k) if isinstance(x, Tensor) else k for k, x in enumerate(leaves)])


def _like(x: Any, given: Any) -> Any:
    if not isinstance(given, Tensor):
        return x
    t = wrap(x)
    t._requires_grad = given._requires_grad
    return t
