"""The backward pass: from the outputs down, each node pulls once all that depends on it has."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dualrev._jax import line_of, source
from dualrev.eager.core import dtypes
from dualrev.eager.core.modes import mode
from dualrev.eager.core.operation import Op
from dualrev.eager.graph.interception import check_nan, unpack
from dualrev.eager.graph.node import Node
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Storage, Tensor, array_of, wrap

_add = jax.jit(jnp.add, inline=True)
ADD = Op("Add", jnp.add)
_SINGLE = (True,)
#: Leaves that several threads accumulate into.
_lock = threading.Lock()

FREED = ("Trying to backward through the graph a second time (or directly access saved tensors after they have already been freed). "
         "Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). Specify retain_graph=True if "
         "you need to backward through the graph a second time or if you need to access saved tensors after calling backward.")


class Walk:
    """One backward pass.  Gradients on their way are arrays, or tensors where the pass is recorded itself."""

    def __init__(self, retain: bool, create: bool, captured: dict[Any, int] | None):
        self.retain = retain
        self.create = create
        #: Where gradients are wanted, ``(node, slot)`` or ``(leaf, 0)``; None: at all leaves.
        self.captured = captured
        self.found: dict[Any, Any] = {}
        self.where = source()
        self.add: Callable[[Any, Any], Any] = (lambda a, b: apply(ADD, (a, b))) if create else _add
        self.needed: set[Node] | None = None
        self.goals = {target for target, _ in captured or ()}

    def run(self, roots: Sequence[tuple[Any, Any]], program: Callable[..., dict[Any, Any] | None] | None = None) -> dict[Any, Any]:
        """Gradients at leaves, or at what is captured, by ``(target, slot)``, from ``((target, slot), gradient)``.

        ``program(self, roots)`` finds them too, or says None.
        """
        before, mode.grad = mode.grad, self.create
        try:
            roots = [(edge, conjugate(ct)) for edge, ct in roots]
            found = None if program is None else program(self, roots)
            if found is None:
                found = self.through(roots)
            return {key: ct if ct is None else conjugate(ct) for key, ct in found.items()}
        finally:
            mode.grad = before

    def through(self, roots: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
        """The walk, node by node."""
        if self.captured is not None:
            self.needed = self._needed([target for (target, _), _ in roots])
        waiting: list[tuple[int, Node]] = []
        arrived: dict[Any, list[Any]] = {}
        add = self.add

        def send(edge: Any, ct: Any) -> None:
            target, slot = edge
            cts = arrived.get(target)
            if cts is None:
                if isinstance(target, Node):
                    if self.needed is not None and target not in self.needed:
                        return
                    cts = [None] * target.n_out
                    heapq.heappush(waiting, (-target.number, target))
                else:
                    cts = [None]
                    leaves.append(target)
                arrived[target] = cts
            cts[slot] = ct if cts[slot] is None else add(cts[slot], ct)

        leaves: list[Tensor] = []
        for edge, ct in roots:
            send(edge, ct)
        while waiting:
            node = heapq.heappop(waiting)[1]
            cts = arrived.pop(node)
            if node.slot_hooks:
                self._run_slot_hooks(node, cts)
            if self.captured is not None:
                for slot, ct in enumerate(cts):
                    if (node, slot) in self.captured:
                        self.found[(node, slot)] = ct
                if not self._leads_on(node):
                    continue
            pulled = self.pull(node, cts)
            for edge, ct in pulled:
                send(edge, ct)
        for leaf in leaves:
            ct = arrived.pop(leaf)[0]
            if self.captured is None or (leaf, 0) in self.captured:
                if leaf._hooks:
                    ct = self.run_hooks(leaf._hooks, ct)
                self.found[(leaf, 0)] = ct
        return self.found

    # ------------------------------------------------------------------------------------------------- one node

    def pull(self, node: Node, cts: list[Any]) -> list[tuple[Any, Any]]:
        """What a node sends on: ``(edge, gradient)`` for each input that gets one."""
        if node.prehooks:
            for hook in list(node.prehooks.values()):
                given = hook(tuple([self.tensor(ct) for ct in cts]))
                if given is not None:
                    cts = [self.value(ct) for ct in (given if isinstance(given, tuple) else (given,))]
        moved = self._pull_recorded(node, cts) if node.record is not None else node.pull_custom(cts, self)  # type: ignore[attr-defined]
        if mode.anomaly:
            check_nan(node, [ct for _, ct in moved])
        if not self.retain and node.saved:
            node.saved, node.inputs, node.freed = None, None, self.where
        edges = node.edges
        if node.hooks:
            return self._run_node_hooks(node, cts, moved)
        return [(edges[i], ct) for i, ct in moved if edges[i] is not None]

    def _pull_recorded(self, node: Node, cts: list[Any]) -> list[tuple[int, Any]]:
        saved, record = node.saved, node.record
        assert record is not None
        if saved is None:
            raise RuntimeError(FREED + _freed(node))
        checks = node.checks
        for i in range(0, len(checks), 3):
            if checks[i + 1].version != checks[i + 2]:
                raise RuntimeError(_modified(node, saved, *checks[i: i + 3]))
        if not self.create:
            if mode.packs:
                saved = unpack(saved)
            if len(cts) == 1:
                pull, positions = record.single or record.pull_of(_SINGLE)
                return list(zip(positions, pull(*saved, cts[0]), strict=False))
            pull, positions = record.pull_of(tuple([ct is not None for ct in cts]))
            return list(zip(positions, pull(*saved, *[ct for ct in cts if ct is not None]), strict=False))
        mask = tuple([ct is not None for ct in cts])
        _, positions = record.pull_of(mask)
        saved = unpack(saved)
        operands: list[Any]
        if record.has_new:
            operands = [joined(x, edge) for x, edge in zip(unpack(node.inputs or ()), node.edges, strict=True)]
        else:
            operands = [joined(x, node.edges[where] if kind == 0 else (node, where) if kind == 1 else None)
                        for x, (kind, where) in zip(saved, record.sources, strict=True)]
        results = apply(record.pull_op(mask), [*operands, *[ct for ct in cts if ct is not None]])
        return list(zip(positions, results, strict=True))

    # ---------------------------------------------------------------------------------------------------- hooks

    def tensor(self, ct: Any) -> Any:
        """A gradient on its way as the user sees it."""
        if ct is None:
            return None
        ct = conjugate(ct)
        return ct if isinstance(ct, Tensor) else wrap(ct)

    def value(self, ct: Any) -> Any:
        """A gradient from the user as it goes on."""
        return conjugate(array_of(ct) if isinstance(ct, Tensor) and not self.create else ct)

    def run_hooks(self, hooks: dict[int, Any], ct: Any) -> Any:
        for key, hook in list(hooks.items()):
            if key >= 0 and ct is not None:
                given = hook(self.tensor(ct))
                if given is not None:
                    _check_hook(hook, ct, given)
                    ct = self.value(given)
        return ct

    def _run_slot_hooks(self, node: Node, cts: list[Any]) -> None:
        assert node.slot_hooks is not None
        for slot, hooks in node.slot_hooks.items():
            cts[slot] = self.run_hooks(hooks, cts[slot])
            retained = hooks.get(-1)
            t = retained() if retained is not None else None
            if t is not None and cts[slot] is not None:
                accumulate(t, conjugate(cts[slot]), self.create)

    def _run_node_hooks(self, node: Node, cts: list[Any], moved: list[tuple[int, Any]]) -> list[tuple[Any, Any]]:
        grads: list[Any] = [None] * len(node.edges)
        for i, ct in moved:
            grads[i] = ct
        for hook in list((node.hooks or {}).values()):
            given = hook(tuple([self.tensor(ct) for ct in grads]), tuple([self.tensor(ct) for ct in cts]))
            if given is not None:
                grads = [self.value(ct) for ct in (given if isinstance(given, tuple) else (given,))]
        return [(edge, ct) for edge, ct in zip(node.edges, grads, strict=True) if edge is not None and ct is not None]

    # ---------------------------------------------------------------------------------- passes to some tensors only

    def _needed(self, roots: Sequence[Any]) -> set[Node]:
        """The nodes through which something that is captured is reached."""
        assert self.captured is not None
        seen: set[Node] = set()
        waiting = [x for x in roots if isinstance(x, Node)]
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting.extend([e[0] for e in node.edges if e is not None and isinstance(e[0], Node)])
        self.needed = set()
        for node in sorted(seen, key=lambda n: n.number):
            if node in self.goals or self._leads_on(node):
                self.needed.add(node)
        return self.needed

    def _leads_on(self, node: Node) -> bool:
        return any(edge is not None and (edge[0] in self.goals or edge[0] in (self.needed or ())) for edge in node.edges)


def conjugate(ct: Any) -> Any:
    """A gradient in the other convention: PyTorch's of a complex tensor is the conjugate of what pulls take and give."""
    if ct is None or (array_of(ct) if isinstance(ct, Tensor) else ct).dtype.kind != "c":
        return ct
    return ct.conj()


def joined(value: Any, edge: Any) -> Any:
    """A value as a tensor that stands where it stood in the graph."""
    if edge is None:
        return value
    target, slot = edge
    t = wrap(value)
    t._requires_grad = True
    if isinstance(target, Node):
        t._node, t._slot = target, slot
        return t
    if target._view is None and target._storage.array is value:
        return target
    t._node = Identity(None, "Identity", [(target, 0)], (), (), None, 1)
    return t


class Identity(Node):
    """Hands on what arrives."""

    __slots__ = ()

    def pull_custom(self, cts: list[Any], walk: Walk) -> list[tuple[int, Any]]:
        return [(0, cts[0])]


def accumulate(t: Tensor, ct: Any, create: bool) -> None:
    """Add a gradient to ``.grad``."""
    if mode.watcher is not None:
        mode.watcher.leaf(t)
    with _lock:
        grad = t._grad
        if grad is None:
            t._grad = ct if isinstance(ct, Tensor) else wrap(ct)
        elif create:
            t._grad = apply(ADD, (grad, ct))
        else:
            from dualrev.eager.graph.inplace import write

            write(grad, _add(array_of(grad), ct))
    if t._after_hooks:
        for hook in list(t._after_hooks.values()):
            hook(t)


# ------------------------------------------------------------------------------------------------------------------ errors

def _freed(node: Node) -> str:
    made, freed = node.line(), line_of(node.freed) if node.freed is not None else ""
    return (f"\nthe graph of {node.name()}" + (f", made at {made}," if made else "")
            + (f" was freed by the backward at {freed}" if freed else " was freed") + "; give that one retain_graph=True")


def _modified(node: Node, saved: Sequence[Any], place: int, counter: Storage, version: int) -> str:
    is_out = place < 0
    k = (~place if is_out else place) - 1
    array = saved[k]
    assert node.record is not None
    where = node.record.sources[k][1]
    edge = (node, where) if is_out else node.edges[where]
    producer = edge[0] if edge is not None and isinstance(edge[0], Node) else None
    which = f", which is output {edge[1]} of {producer.op_name.partition(':')[0]}," if producer is not None and edge is not None else ""
    text = (f"one of the variables needed for gradient computation has been modified by an inplace operation: "
            f"[torch.{dtypes.type_name(array.dtype)}Tensor {list(array.shape)}]{which} is at version {counter.version}; expected "
            "version "
            f"{version} instead. Hint: enable anomaly detection to find the operation that failed to compute its gradient, with "
            "torch.autograd.set_detect_anomaly(True, check_nan=False).")
    made = producer.line() if producer is not None else ""
    changed = line_of(counter.changed) if counter.changed is not None else ""
    text += f"\n{node.name()}" + (f", at {node.line()}," if node.line() else "") + " saved it for backward"
    text += f"; it was made at {made}" if made else ""
    text += f"; it was changed at {changed}" if changed else ""
    return text + "; change a .clone() of it instead, or use the operation that is not in place"


def _check_hook(hook: Any, ct: Any, given: Any) -> None:
    name = getattr(hook, "__name__", type(hook).__name__)
    if not isinstance(given, Tensor):
        raise TypeError(f"expected Variable, but hook returned '{type(given).__name__}'\na hook returns a tensor or None")
    if tuple(given.shape) != tuple(ct.shape):
        raise RuntimeError(f"hook '{name}' has changed the size of value\nfrom {list(ct.shape)} to {list(given.shape)}")
    was, got = (array_of(x).dtype if isinstance(x, Tensor) else x.dtype for x in (ct, given))
    if was != got:
        raise RuntimeError(f"hook '{name}' has changed the type of value (was torch.{dtypes.type_name(was)}Tensor got "
                           f"torch.{dtypes.type_name(got)}Tensor)\nreturn it .to the dtype of what came")
