"""Backward pass: visit nodes in reverse topological order; a node runs after all its consumers."""

from __future__ import annotations

import concurrent.futures
import heapq
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar, overload

import jax

from dualrev._jax.source_lines import source
from dualrev.eager.core.modes import mode
from dualrev.eager.graph.accumulation import ADD, accumulate, add
from dualrev.eager.graph.anomaly import check_nan
from dualrev.eager.graph.backward_errors import check_hook, freed_at, modified
from dualrev.eager.graph.node import Edge, Node, Pulled
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.saved import FREED, unpack
from dualrev.eager.graph.tensor import Cotangent, Hook, Tensor, array_of, wrap

_SINGLE = (True,)
#: What gradients go to: a node, or a leaf; and which of its outputs.
Target: TypeAlias = Node | Tensor
Place: TypeAlias = tuple[Target, int]
#: The outputs that a backward pass starts from, with their gradients.
Roots: TypeAlias = Sequence[tuple[Place, Cotangent]]
Gradients: TypeAlias = dict[Place, Any]
#: The places whose gradients are asked for, with their numbers; None is all leaves.
Captured: TypeAlias = dict[Place, int] | None
C = TypeVar("C", Tensor, jax.Array, Cotangent, Cotangent | None)
#: How many backward passes may run inside each other in one thread.
_DEEPEST = 30


class BackwardPass:
    """One backward pass.  Cotangents are arrays, or tensors where the pass itself is recorded (``create``)."""

    def __init__(self, retain: bool, create: bool, captured: Captured):
        self.retain = retain
        self.create = create
        #: The targets whose gradients are asked for, ``(node, slot)`` or ``(leaf, 0)``; None for all leaves.
        self.captured = captured
        self.found: Gradients = {}
        self.where = source()
        self.add: Callable[[Cotangent, Cotangent], Cotangent] = (lambda a, b: apply(ADD, (a, b))) if create else add
        self.needed: set[Node] | None = None
        self.goals = {target for target, _ in captured or ()}

    def run(self, roots: Roots, program: Callable[[BackwardPass, Roots], Gradients | None] | None = None) -> Gradients:
        """The gradients of leaves, or of the captured targets, by ``(target, slot)``.

        Args:
          roots: ``((target, slot), gradient)`` of each output.
          program: ``program(self, roots)`` returns the same gradients by a compiled program, or None if there is none.
        """
        if mode.backward_depth >= _DEEPEST:
            return _in_another_thread(lambda: self.run(roots, program))
        before, mode.grad = mode.grad, self.create
        outer, mode.backward_pass = mode.backward_pass, self
        mode.backward_depth += 1
        try:
            roots = [(edge, conjugate(ct)) for edge, ct in roots]
            self.roots = roots
            found = None if program is None else program(self, roots)
            if found is None:
                found = self.visit(roots)
            return {key: ct if ct is None else conjugate(ct) for key, ct in found.items()}
        finally:
            mode.grad = before
            mode.backward_pass = outer
            mode.backward_depth -= 1

    def visit(self, roots: Roots) -> Gradients:
        """Visit the nodes one by one."""
        if self.captured is not None:
            self.needed = self._needed([target for (target, _), _ in roots])
        waiting: list[tuple[int, Node]] = []
        arrived: dict[Target, list[Any]] = {}
        add = self.add

        def send(edge: Place, ct: Cotangent) -> None:
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
            for edge, ct in self.pull(node, cts):
                send(edge, ct)
        for leaf in leaves:
            total = arrived.pop(leaf)[0]
            if self.captured is None or (leaf, 0) in self.captured:
                if leaf._hooks:
                    total = self.run_hooks(leaf._hooks, total)
                self.found[(leaf, 0)] = total
        return self.found

    # ------------------------------------------------------------------------------------------------- one node

    def pull(self, node: Node, cts: list[Cotangent | None]) -> list[tuple[Place, Any]]:
        """The cotangents of a node's inputs, ``(edge, cotangent)`` for each input that gets one."""
        if node.prehooks:
            for hook in list(node.prehooks.values()):
                given = hook(tuple([self.tensor(ct) for ct in cts]))
                if given is not None:
                    cts = [self.value(ct) for ct in (given if isinstance(given, tuple) else (given,))]
        pulled = self._pull_recorded(node, cts) if node.record is not None else node.pull_custom(cts, self)
        if mode.anomaly:
            check_nan(node, [ct for _, ct in pulled])
        if not self.retain and node.saved:
            node.saved, node.inputs, node.freed = None, None, self.where
        edges = node.edges
        if node.hooks:
            return self._run_node_hooks(node, cts, pulled)
        return [(edges[i], ct) for i, ct in pulled if edges[i] is not None]  # type: ignore[misc]

    def _pull_recorded(self, node: Node, cts: list[Cotangent | None]) -> Pulled:
        saved, record = node.saved, node.record
        assert record is not None
        if saved is None:
            raise RuntimeError(FREED + freed_at(node))
        checks = node.checks
        for i in range(0, 0 if mode.mutable else len(checks), 3):
            if checks[i + 1].version != checks[i + 2]:
                raise RuntimeError(modified(node, *checks[i: i + 3]))
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
        operands: list[object]
        if record.has_new:
            inputs = unpack(node.inputs or ())
            operands = [joined(inputs[i], node.edges[i]) for i in record.read]
        else:
            operands = [joined(x, node.edges[where] if kind == 0 else (node, where) if kind == 1 else None)
                        for x, (kind, where) in zip(saved, record.sources, strict=True)]
        results = apply(record.pull_op(mask), [*operands, *[ct for ct in cts if ct is not None]])
        return list(zip(positions, results, strict=True))

    # ---------------------------------------------------------------------------------------------------- hooks

    def tensor(self, ct: Cotangent | None) -> Tensor | None:
        """A cotangent as the user sees it: a tensor, in PyTorch's convention."""
        if ct is None:
            return None
        ct = conjugate(ct)
        return ct if isinstance(ct, Tensor) else wrap(ct)

    def value(self, ct: Cotangent | None) -> Cotangent | None:
        """A cotangent that the user gave, in the convention of pulls."""
        return conjugate(array_of(ct) if isinstance(ct, Tensor) and not self.create else ct)

    def run_hooks(self, hooks: dict[int, Hook], ct: Cotangent | None) -> Cotangent | None:
        """The cotangent after a tensor's hooks."""
        for key, hook in list(hooks.items()):
            if key >= 0 and ct is not None:
                given = hook(self.tensor(ct))  # type: ignore[arg-type]
                if given is not None:
                    check_hook(hook, ct, given)
                    ct = self.value(given)
        return ct

    def _run_slot_hooks(self, node: Node, cts: list[Cotangent | None]) -> None:
        assert node.slot_hooks is not None
        for slot, hooks in node.slot_hooks.items():
            cts[slot] = self.run_hooks(hooks, cts[slot])
            retained = hooks.get(-1)
            t = retained() if retained is not None else None
            if t is not None and cts[slot] is not None:
                accumulate(t, conjugate(cts[slot]), self.create)  # type: ignore[arg-type]

    def _run_node_hooks(self, node: Node, cts: list[Cotangent | None], pulled: Pulled) -> list[tuple[Place, Any]]:
        grads: list[Cotangent | None] = [None] * len(node.edges)
        for i, ct in pulled:
            grads[i] = ct
        for hook in list((node.hooks or {}).values()):
            given = hook(tuple([self.tensor(ct) for ct in grads]), tuple([self.tensor(ct) for ct in cts]))
            if given is not None:
                grads = [self.value(ct) for ct in (given if isinstance(given, tuple) else (given,))]
        return [(edge, ct) for edge, ct in zip(node.edges, grads, strict=True) if edge is not None and ct is not None]

    # ------------------------------------------------------------------------------- gradients of some targets only

    def _needed(self, roots: Sequence[Target]) -> set[Node]:
        """The nodes from which a captured target is reached."""
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
        """Whether an input of a node is captured, or leads to a captured target."""
        return any(edge is not None and (edge[0] in self.goals or edge[0] in (self.needed or ())) for edge in node.edges)


def _in_another_thread(run: Callable[[], Gradients]) -> Gradients:
    """The result of a backward pass that starts inside many others, whose frames have used up this thread's stack."""
    settings = {**vars(mode), "backward_depth": 0}
    with concurrent.futures.ThreadPoolExecutor(1, initializer=lambda: vars(mode).update(settings)) as thread:
        return thread.submit(run).result()


def conjugate(ct: C) -> C:
    """A cotangent in the other convention: PyTorch's gradient of a complex tensor is the conjugate of jax's cotangent."""
    if ct is None or (array_of(ct) if isinstance(ct, Tensor) else ct).dtype.kind != "c":
        return ct
    return ct.conj()


@overload
def joined(value: jax.Array, edge: None) -> jax.Array: ...
@overload
def joined(value: jax.Array, edge: tuple[Any, int]) -> Tensor: ...
def joined(value: jax.Array, edge: Edge) -> jax.Array | Tensor:
    """A saved value as a tensor at its old place in the graph."""
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
    """A node whose input is its output."""

    __slots__ = ()

    def pull_custom(self, cts: list[Cotangent | None], backward_pass: BackwardPass) -> Pulled:
        return [(0, cts[0])]


