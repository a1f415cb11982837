"""Hooks on saved tensors, and detection of NaN in backward: ``torch.autograd.graph``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Self

from dualrev._jax.source_lines import source
from dualrev.eager.core.hooks import RemovableHandle
from dualrev.eager.core.modes import Mode, ModeBlock, mode
from dualrev.eager.graph.interception import apply_intercepted
from dualrev.eager.graph.node import AccumulateGrad
from dualrev.eager.graph.node import Node as Node
from dualrev.eager.graph.tensor import Tensor, described

#: The modes, where an argument has the name ``mode``.
_modes = mode


class saved_tensors_hooks(ModeBlock):
    """A block in which the graph keeps ``pack(tensor)`` for each saved tensor; backward calls ``unpack(packed)``.

    >>> from dualrev import eager as torch
    >>> x = torch.tensor([3.0], requires_grad=True)
    >>> with torch.autograd.graph.saved_tensors_hooks(lambda t: t.numpy(), lambda a: torch.from_numpy(a)):
    ...     y = x * x
    >>> y.backward()
    >>> x.grad
    tensor([6.])
    """

    def __init__(self, pack_hook: Callable[[Tensor], object], unpack_hook: Callable[[Any], Tensor]):
        self._pair = (pack_hook, unpack_hook)
        Mode.packs = True

    def settings(self) -> dict[str, object]:
        if mode.packers_refusal is not None:
            raise RuntimeError(mode.packers_refusal)
        return {"packers": (*mode.packers, self._pair), "handler": apply_intercepted}


class disable_saved_tensors_hooks(ModeBlock):
    """A block in which ``saved_tensors_hooks`` are refused, with this message, and which is refused inside such hooks."""

    def __init__(self, error_message: str):
        self._message = error_message

    def settings(self) -> dict[str, object]:
        if mode.packers:
            raise RuntimeError(self._message)
        return {"packers_refusal": self._message}


class save_on_cpu(saved_tensors_hooks):
    """A block in which saved tensors are kept in the memory of the host."""

    def __init__(self, pin_memory: bool = False):
        super().__init__(lambda t: (t.device, t.cpu()), lambda kept: kept[1].to(kept[0]))


class allow_mutation_on_saved_tensors(ModeBlock):
    """A block in which tensors that backward needs may be changed in place: it uses their values of the forward pass.

    >>> from dualrev import eager as torch
    >>> x = torch.tensor([3.0], requires_grad=True)
    >>> with torch.autograd.graph.allow_mutation_on_saved_tensors():
    ...     y = x * 2
    ...     z = y ** 2
    ...     _ = y.zero_()
    ...     z.backward()
    >>> x.grad
    tensor([24.])
    """

    def settings(self) -> dict[str, object]:
        if mode.mutable:
            raise RuntimeError("allow_mutation_on_saved_tensors contexts cannot be nested")
        return {"mutable": True}


class _Handles:
    """The handles of a hook on several tensors."""

    def __init__(self, handles: Sequence[RemovableHandle]):
        self.handles = handles

    def remove(self) -> None:
        """Take the hook away from all."""
        for handle in self.handles:
            handle.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def register_multi_grad_hook(tensors: Sequence[Tensor], fn: Callable[[Any], None], *, mode: str = "all") -> _Handles:
    """Call a function in each backward pass with the gradients of several tensors.

    Args:
      tensors: tensors that require grad.
      fn: takes the gradients, None for tensors that get none; with ``mode="any"`` the first gradient that is computed.
      mode: "all" or "any".

    >>> from dualrev import eager as torch
    >>> a, b = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    >>> _ = torch.autograd.graph.register_multi_grad_hook((a, b), lambda grads: print(len(grads)))
    >>> (a * b).backward()
    2
    """
    if mode not in ("all", "any"):
        raise ValueError(f"Expects mode to be one of ('all', 'any') but got {mode}")
    if mode == "any":
        last: list[Any] = [None]

        def first(ct: Tensor) -> None:
            if last[0] is not _modes.backward_pass:
                last[0] = _modes.backward_pass
                fn(ct)

        return _Handles([t.register_hook(first) for t in tensors if t.requires_grad])
    found: list[Tensor | None] = []
    missing = [0]
    running: list[Any] = [None]

    def hook(i: int) -> Callable[[Tensor], None]:
        def note(ct: Tensor) -> None:
            if running[0] is not _modes.backward_pass:  # the first gradient of this pass
                running[0] = _modes.backward_pass
                found[:] = [None] * len(tensors)
                missing[0] = _reached(tensors, running[0].roots)
            found[i] = ct
            missing[0] -= 1
            if missing[0] == 0:
                running[0] = None
                fn(list(found))

        return note

    return _Handles([t.register_hook(hook(i)) for i, t in enumerate(tensors)])


def _reached(tensors: Sequence[Tensor], roots: Any) -> int:
    """How many of the tensors a backward pass gives gradients to."""
    seen: set[Any] = set()
    waiting = [target for (target, _), _ in roots]
    while waiting:
        target = waiting.pop()
        if id(target) not in seen:
            seen.add(id(target))
            if isinstance(target, Node):
                waiting += [edge[0] for edge in target.edges if edge is not None]
    return sum(id(t if t._node is None else t._node) in seen for t in tensors)


class detect_anomaly(ModeBlock):
    """A block in which backward raises where a pull returns a NaN, with the line that ran the operation forward.

    >>> from dualrev import eager as torch
    >>> x = torch.tensor([0.0], requires_grad=True)
    >>> with torch.autograd.detect_anomaly():
    ...     try:
    ...         (x.sqrt() * 0).sum().backward()
    ...     except RuntimeError as error:
    ...         print(str(error).splitlines()[0])
    Function 'SqrtBackward0' returned nan values in its 0th output.
    """

    def __init__(self, check_nan: bool = True):
        self._check = check_nan

    def settings(self) -> dict[str, object]:
        return {"anomaly": self._check}


class set_detect_anomaly(detect_anomaly):
    """As :class:`detect_anomaly`, from now on, or inside a ``with`` block."""

    def __init__(self, mode: bool, check_nan: bool = True):
        super().__init__(mode and check_nan)
        self._before = globals()["mode"].anomaly
        globals()["mode"].anomaly = mode and check_nan

    def __enter__(self) -> Self:
        mode.anomaly = self._before
        return super().__enter__()


class GradientEdge(NamedTuple):
    """Where the gradient of a tensor goes: a node, and which of its outputs."""

    node: Any
    output_nr: int


def get_gradient_edge(tensor: Tensor) -> GradientEdge:
    """The node that computed a tensor, or the entry of a leaf, and which output of it the tensor is.

    Raises:
      RuntimeError: the tensor does not require grad.
    """
    if not tensor.requires_grad:
        raise RuntimeError("It is not possible to get the gradient edge for a Tensor that does not require gradients\n"
                           + described(tensor))
    node = tensor.grad_fn
    return GradientEdge(AccumulateGrad(tensor) if node is None else node, tensor.output_nr)


def increment_version(tensor: Tensor | Iterable[Tensor]) -> None:
    """Count a change of tensors in place, which a backward pass that needs them refuses."""
    for t in (tensor,) if isinstance(tensor, Tensor) else tensor:
        t._counter.version += 1
        t._counter.changed = source()
