"""``jit``: a whole imperative step as one compiled program."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeAlias, TypeVar

import jax
import numpy as np
from jax.tree_util import PyTreeDef, tree_flatten, tree_unflatten

from dualrev._jax.avals import is_array_like
from dualrev._jax.jaxprs import jaxpr_as_fun, with_stand_ins
from dualrev._jax.source_lines import line_of
from dualrev._jax.traces import Tracer
from dualrev.eager.compiled.guards import Guards
from dualrev.eager.compiled.operands import itself, like_given, own, spare_for, storage_in, twins, value_in
from dualrev.eager.compiled.watching import Given, Leaf, Watcher
from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Number
from dualrev.eager.core.caches import PROGRAM, caches
from dualrev.eager.core.evaluation import compiled, wide
from dualrev.eager.core.modes import mode
from dualrev.eager.graph.accumulation import accumulate
from dualrev.eager.graph.inplace import write
from dualrev.eager.graph.tensor import Tensor, array_of, described, wrap

#: How many programs a step keeps for arguments of the same shapes and dtypes.
ALIKE = 8

P = ParamSpec("P")
R = TypeVar("R")
Arrays: TypeAlias = list[jax.Array]


class Program:
    """A compiled step: its inputs, its program, and where the results go."""

    def __init__(self, step: Callable[..., object], tree: PyTreeDef, leaves: list[Any], dynamic: list[bool], arrays: Arrays):
        #: Whether it runs only once: the next call traces again.
        self.once = False
        watchers: list[Watcher] = []
        guards = self.guards = Guards(step)
        shared = twins(leaves)

        def traced(*values: jax.Array) -> Arrays:
            watcher = Watcher(guards)
            watchers.append(watcher)
            given = iter(values)
            args = [like_given(next(given), x) if d else x for x, d in zip(leaves, dynamic, strict=True)]
            args = [args[k] for k in shared]
            values_in = [x for x, d in zip(args, dynamic, strict=True) if d]
            before = [x._storage.array if isinstance(x, Tensor) else None for x in values_in]
            with watcher:
                in_args, kwargs = tree_unflatten(tree, args)
                result = step(*in_args, **kwargs)
            del in_args, kwargs
            outs, self.out_tree = tree_flatten(result)
            #: For each result, the function from its array to it: a tensor, the array itself; None where it is fixed.
            self.kinds = [wrap if isinstance(x, Tensor) else itself if isinstance(x, Tracer) else None for x in outs]
            self.fixed = [x if kind is None else None for x, kind in zip(outs, self.kinds, strict=True)]
            found = [array_of(x) if isinstance(x, Tensor) else x for x, kind in zip(outs, self.kinds, strict=True) if kind is not None]
            del result, outs, args
            return [*found, *self._effects(watcher, values_in, before)]

        try:
            with wide():
                jaxpr, self.order = with_stand_ins(jax.make_jaxpr(traced)(*arrays))
        finally:
            for watcher in watchers:
                watcher.restore()
        watchers[0].check_rates()
        self.inputs = watchers[0].inputs
        #: What the step changed itself among the things that Python decides by.
        self.changed = guards.changed()
        #: Storages from outside that are read, by id, with their place among the inputs.
        self.read = {id(x.storage): k for k, x in enumerate(self.inputs) if isinstance(x, Given) and x.owner is None}
        #: Tensors and gradients from outside, which must be as they were.
        self.outside: list[Leaf | Given] = [*watchers[0].leaves.values(), *[x for x in self.inputs if isinstance(x, Given)]]
        evaluate = jaxpr_as_fun(jaxpr)
        n_args, order = len(arrays), self.order
        changed = set(self.written)
        self.changing = [k for k in order if k in changed]
        self.staying = [k for k in order if k not in changed]

        def run(changing: Arrays, spare: Arrays, staying: list[Number], arrays: Arrays) -> Sequence[jax.Array]:
            values = dict(zip((*self.changing, *self.staying), (*changing, *staying), strict=True))
            return evaluate(*arrays, *[values[k] for k in order])

        assert len(jaxpr.jaxpr.invars) == n_args + len(order)
        self.run = compiled(run, donate_argnums=(0, 1), keep_unused=True)

    def _effects(self, watcher: Watcher, arguments: list[Any], before: list[Any]) -> Arrays:
        """The values that a traced step has changed, after noting where each goes."""
        inputs = watcher.inputs
        #: Inputs whose value the step replaces.
        self.written = [k for k, x in enumerate(inputs) if isinstance(x, Given) and x.storage.array is not x.tracer]
        #: Arguments that the step changes in place.
        self.changed_arguments = [k for k, (t, x) in enumerate(zip(arguments, before, strict=True))
                                  if isinstance(t, Tensor) and t._storage.array is not x]
        #: Leaves that get a new gradient, and those whose gradient becomes None or another tensor.
        self.grads: list[Leaf] = []
        self.assigned: list[tuple[Leaf, Tensor | None]] = []
        #: Arguments that get a gradient.
        self.arg_grads: list[int] = []
        #: Shape and dtype of each new gradient.
        self.grad_avals: list[tuple[tuple[int, ...], np.dtype]] = []
        states = {id(x.storage): x for x in inputs if isinstance(x, Given)}
        places = {id(t): k for k, t in enumerate(arguments)}
        results = [inputs[k].storage.array for k in self.written]  # type: ignore[union-attr]
        results += [arguments[k]._storage.array for k in self.changed_arguments]
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
        #: Tensors that the step made and that outlive it, and the lines that made them.
        self.kept = [(weakref.ref(s), where) for s, where in kept.values()]
        return [*results, *grads, *arg_grads, *[s.array for s, _ in kept.values()]]

    def fits(self) -> bool:
        """Whether all that the program depends on is as it was when the step was traced."""
        if self.once:
            return False
        return all(x.is_same() for x in self.outside) and self.guards.changed() is None

    def check(self, others: Sequence[Program]) -> None:
        """Raise if the step reads a tensor that an earlier call left and leaves a new one instead: a program would not see it."""
        if self.changed is not None and any(other.changed == self.changed for other in others):
            raise RuntimeError(f"a compiled step changes {self.changed}, which it depends on\nwhen the program runs, Python does not, "
                               "so that it would stay as it is; change it outside the step, or keep it in a tensor and change that in "
                               "place")
        left = {id(ref()) for other in others for ref, _ in other.kept}
        for x in self.inputs:
            # The two references are those of this loop: nothing else holds the tensor any more.
            if self.kept and type(x) is Given and id(x.storage) in left and sys.getrefcount(x.storage) == 2:
                made = ", ".join(dict.fromkeys([line_of(where) for _, where in self.kept]))
                raise RuntimeError("a compiled step reads a tensor that an earlier call has left outside, and leaves a new one "
                                   f"outside\nmade at {made}; when the program runs, Python does not, so that nothing puts the new one "
                                   "in the old one's place: change the old one in place, with copy_(), or take it as an argument and "
                                   "return it")

    def _refuse(self, arguments: list[Any]) -> None:
        """Raise where arguments are more than values: parts of a graph, or aliases of what the step changes."""
        for k in self.arg_grads:
            node = arguments[k].grad_fn
            if node is not None:
                raise RuntimeError(f"backward inside a compiled step has reached an argument that {node.name()} computed outside"
                                   + (f", at {node.line()}" if node.line() else "") + "\na program goes back to its arguments and not "
                                   "further; compute it inside the step, or pass it .detach()ed")
        places: dict[int, tuple[int, Tensor]] = {}
        for k, t in enumerate(arguments):
            if not isinstance(t, Tensor):
                continue
            key = id(t._storage)
            at = self.read.get(key)
            other = places.setdefault(key, (k, t))
            if (at is not None and (k in self.changed_arguments or at in self.written)) or (
                    other[1] is not t and (k in self.changed_arguments or other[0] in self.changed_arguments)):
                raise RuntimeError("a compiled step changes in place an argument that shares its values with "
                                   + ("a tensor that it takes from outside" if at is not None else "another argument")
                                   + f"\n{described(t)}; its program takes them as separate: pass a .clone(), or use one of them only")

    def __call__(self, arrays: Arrays, arguments: list[Any]) -> Any:
        inputs = self.inputs
        self._refuse(arguments)
        storages = [storage_in(inputs[k]) for k in self.changing]
        staying = [value_in(inputs[k]) for k in self.staying]
        spare = [spare_for(leaf.tensor, *aval) for leaf, aval in zip(self.grads, self.grad_avals, strict=True)]
        outs = self.run([own(s) for s in storages], spare, staying, arrays)
        found = iter(outs)
        results = [x if kind is None else kind(next(found)) for kind, x in zip(self.kinds, self.fixed, strict=True)]
        for k in self.written:
            storage = storage_in(inputs[k])
            storage.array = next(found)
            storage.version += 1
        for k in self.changed_arguments:
            write(arguments[k], next(found))
        for leaf in self.grads:
            leaf.tensor._grad = wrap(next(found))
        for k in self.arg_grads:
            accumulate(arguments[k], next(found), False)
        for ref, _ in self.kept:
            x, kept = next(found), ref()
            if kept is not None:
                kept.array = x
                kept.version += 1
        for leaf, g in self.assigned:
            leaf.tensor._grad = g
        return tree_unflatten(self.out_tree, results)


def jit(step: Callable[P, R]) -> Callable[P, R]:
    """Compile an imperative step, with its backward, optimizer, in-place changes and random draws, into one program.

    The first call traces the step and runs the program; later calls run the program, and not Python: what Python decided in the
    first call stays decided.  Tensors that the step changes get the same numbers as without ``jit``.  Arrays that it replaces,
    parameters and the state of optimizers, are donated to the program.  The step is traced again for arguments of other shapes or
    dtypes, when a gradient is there that was not, and when a tensor from outside has another storage, hooks or ``requires_grad``; and
    when Python might decide otherwise: when numbers, strings, tensors or functions have changed that the step and the functions it
    calls know by a name, or attributes and members of modules, ``train()`` and ``eval()``, settings of optimizers.  Attributes of other
    objects, and the contents of lists and dictionaries, are not checked.

    Args:
      step: a function of tensors and other arguments; numbers, strings and the like are static: other values are compiled anew.  It
        returns a pytree, whose tensors are detached.

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
    programs = caches.table(PROGRAM)

    @functools.wraps(step)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        leaves, tree = tree_flatten((args, kwargs))
        if mode.watcher is not None:
            return step(*args, **kwargs)
        dynamic = [isinstance(x, Tensor) or (is_array_like(x) and hasattr(x, "shape")) for x in leaves]
        arguments = [x for x, d in zip(leaves, dynamic, strict=True) if d]
        arrays = [array_of(x) if isinstance(x, Tensor) else x for x in arguments]
        for a in arrays:
            if isinstance(a, Tracer):
                return step(*args, **kwargs)
        kinds = tuple([(x._requires_grad if isinstance(x, Tensor) else None) if d else (type(x), repr(x) if type(x) is float else x)
                       for x, d in zip(leaves, dynamic, strict=True)])
        avals = tuple([(a.shape, a.dtype, getattr(a, "weak_type", False)) for a in arrays])
        key = tree, kinds, avals, twins(leaves), mode.grad, mode.inference, mode.autocast, dtypes.get_default_dtype()
        known = programs.get(key, ())
        for program in known:
            if program.fits():
                return program(arrays, arguments)
        program = Program(step, tree, leaves, dynamic, arrays)
        # A step that made a tensor and left it somewhere may decide otherwise when it finds it, once.
        program.once = bool(program.kept or program.changed) and not known
        program.check(known)
        programs.keep(key, [program, *known][:ALIKE])
        return program(arrays, arguments)

    return call


