"""Tensors: a value in a storage, and its place in the graph.

The operators and methods of tensors stand in the modules that define the operations: ``dualrev.eager.ops`` lists them, and
``methods.pyi`` declares them for editors and type checkers.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from dualrev._jax.source_lines import SourceInfo, line_of
from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Scalar, Values
from dualrev.eager.core.hooks import RemovableHandle
from dualrev.eager.core.modes import mode
from dualrev.eager.graph.node import Node
from dualrev.eager.graph.storage import Storage, View

if TYPE_CHECKING:
    from dualrev.eager.graph.methods import Methods

    class _Declared(Methods["Tensor"]):
        """The methods that the modules of ``ops`` register."""
else:
    _Declared = object


class Tensor(_Declared):
    """An array that remembers how it was computed, with PyTorch's semantics.

    Args:
      data: nested sequences of numbers or an array, which become the default float, or a tensor, which keeps its dtype; or the
        sizes of a tensor of zeros, as PyTorch has it: ``Tensor(2, 3)``.  :func:`tensor` infers dtypes.
      requires_grad: whether operations on it are recorded.

    >>> from dualrev import eager as torch
    >>> x = torch.tensor([5.0], requires_grad=True)
    >>> (x ** 2).backward()
    >>> print(x.grad)
    tensor([10.])
    """

    __slots__ = ("__dict__", "__weakref__", "_counter", "_node", "_requires_grad", "_slot", "_storage", "_view")

    # Attributes that few tensors have stand in their __dict__.
    _grad: Tensor | None = None
    _generation: int = 0
    _hooks: dict[int, Hook] | None = None
    _after_hooks: dict[int, Callable[[Tensor], None]] | None = None
    #: Hooks of the node that adds a leaf's gradient: those before, and those after.
    _accumulate_hooks: tuple[dict[int, Any], dict[int, Any]] | None = None
    _retains = False
    _made: SourceInfo | None = None
    _tangent: tuple[int, Tensor] | None = None
    _inference = False
    name: str | None = None

    if TYPE_CHECKING:
        _storage: Storage
        _counter: Storage
        _requires_grad: bool
        _node: Node | None
        _slot: int
        _view: View | None

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    # ---------------------------------------------------------------------------------------------- autograd

    @property
    def requires_grad(self) -> bool:
        """Whether operations on it are recorded."""
        if self._view is not None:
            refresh(self)
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if self.grad_fn is not None:
            if value:
                return
            raise RuntimeError("you can only change requires_grad flags of leaf variables. If you want to use a computed variable in a "
                               "subgraph that doesn't require differentiation use var_no_grad = var.detach().\n" + described(self))
        if value and not jnp.issubdtype(array_of(self).dtype, jnp.inexact):
            raise RuntimeError("only Tensors of floating point dtype can require gradients\n" + described(self)
                               + "; .float() gives a copy that can")
        if value and self._inference and not mode.inference:
            raise RuntimeError("Setting requires_grad=True on inference tensor outside InferenceMode is not allowed.\n"
                               ".clone() of it outside gives a tensor that can require grad")
        self._requires_grad = bool(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set ``requires_grad``."""
        self.requires_grad = requires_grad
        return self

    @property
    def grad(self) -> Tensor | None:
        """The gradient that backward has accumulated, or None."""
        if mode.watcher is not None:
            mode.watcher.leaf(self)
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(f"assigned grad expected to be a Tensor or None but got grad of type {type(value).__name__}")
            if value.shape != self.shape:
                raise RuntimeError(f"attempting to assign a gradient of size '{list(value.shape)}' to a tensor of size "
                                   f"'{list(self.shape)}'. Please ensure that the gradient and the tensor are the same size\n"
                                   + described(self))
            if value.dtype != self.dtype:
                got = dtypes.cpp_name(array_of(value).dtype)
                raise RuntimeError(f"attempting to assign a gradient with dtype '{got}' to a tensor with "
                                   f"grad_dtype '{dtypes.type_name(array_of(self).dtype)}'. The gradient must match the tensor's "
                                   "grad_dtype (defaults to the tensor's dtype).\n" + described(self))
        if mode.watcher is not None:
            mode.watcher.leaf(self, replaced=True)
        self._grad = value

    @property
    def grad_fn(self) -> Node | None:
        """The node that computed it, or None for a leaf."""
        if self._view is not None:
            refresh(self)
        return self._node

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation computed it."""
        return self.grad_fn is None

    @property
    def output_nr(self) -> int:
        return self._slot

    @property
    def _version(self) -> int:
        return self._counter.version

    def is_inference(self) -> bool:
        """Whether it was made under ``inference_mode``."""
        return self._inference

    def register_hook(self, hook: Hook) -> RemovableHandle:
        """Call ``hook(grad)`` when the gradient of this tensor is complete; a result other than None replaces the gradient."""
        if not self.requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient\n" + described(self))
        node = self.grad_fn
        if node is None:
            if self._hooks is None:
                self._hooks = {}
            return RemovableHandle(self._hooks, hook)
        return RemovableHandle(node.hooks_of(self._slot), hook)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> RemovableHandle:
        """Call ``hook(tensor)`` after a gradient has been added to ``.grad`` of this leaf."""
        if not self.requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient\n" + described(self))
        if self.grad_fn is not None:
            raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors\n" + described(self))
        if self._after_hooks is None:
            self._after_hooks = {}
        return RemovableHandle(self._after_hooks, hook)

    def retain_grad(self) -> None:
        """Keep the gradient of this tensor in ``.grad`` also if it is not a leaf."""
        if not self.requires_grad:
            raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False\n" + described(self))
        node = self.grad_fn
        if node is None or self._retains:
            return
        self._retains = True
        # The key -1 marks the hook that the backward pass runs last.
        node.hooks_of(self._slot)[-1] = weakref.ref(self)

    @property
    def retains_grad(self) -> bool:
        """Whether ``retain_grad`` was called."""
        return self._retains

    def __deepcopy__(self, memo: dict[int, object]) -> Tensor:
        if self.grad_fn is not None:
            raise RuntimeError("Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the "
                               "moment.\n" + described(self) + "; .detach() it first")
        copy = memo[id(self)] = _new(type(self))
        fill(copy, np.array(array_of(self)))
        copy._requires_grad = self._requires_grad
        if self._grad is not None and type(self) is Tensor:
            copy._grad = self._grad.detach().clone()
        return copy

    def __reduce__(self) -> tuple[Callable[..., Tensor], tuple[object, ...]]:
        return _restored, (type(self), np.asarray(array_of(self)), self.requires_grad)


# ------------------------------------------------------------------------------------------------------------------ values

#: What can stand beside a tensor.
Operand: TypeAlias = Tensor | Scalar | jax.Array | np.ndarray
#: What can stand in ``x[...]``: a tuple has a part for each dimension.
Index: TypeAlias = Tensor | int | slice | types.EllipsisType | jax.Array | np.ndarray | Sequence[object] | None
#: A cotangent: an array, or a tensor where the backward pass itself is recorded.
Cotangent: TypeAlias = Tensor | jax.Array
#: A hook on a tensor gets its gradient, and may return another one.
Hook: TypeAlias = Callable[[Tensor], Tensor | None]

_new = object.__new__


def fill(t: Tensor, array: Values) -> None:
    """Make ``t``, which has just been allocated, a leaf of an array."""
    t._storage = t._counter = Storage(array)
    t._requires_grad = False
    t._node = None
    t._slot = 0
    t._view = None


def _restored(kind: type[Tensor], array: np.ndarray, requires_grad: bool) -> Tensor:
    t = _new(kind)
    fill(t, array)
    t._requires_grad = requires_grad
    return t


def wrap(array: Values) -> Tensor:
    """A new tensor of an array."""
    t: Tensor = _new(Tensor)
    storage = t._storage = t._counter = _new(Storage)
    storage.array = array  # type: ignore[assignment]  # as Storage declares it
    storage.version = 0
    storage.changed = None
    t._requires_grad = False
    t._node = None
    t._slot = 0
    t._view = None
    return t


def array_of(t: Tensor) -> jax.Array:
    """The value of a tensor now."""
    if mode.watcher is not None:
        mode.watcher.read(t)
    view = t._view
    return t._storage.array if view is None else view_array(t, view)


def view_array(t: Tensor, view: View) -> jax.Array:
    """The value of a view, recomputed if the base's value was replaced."""
    base = t._storage.array
    if view.seen is not base:
        array = base
        for step in view.path:
            array = step.plain(array)
        view.array, view.seen = array, base
    return view.array


def refresh(t: Tensor) -> None:
    """Renew a view whose base was changed by a recorded operation."""
    view = t._view
    if view is not None and view.generation != view.base._generation:
        view.renew(t)


def described(t: Tensor) -> str:
    """A tensor in words: dtype, shape and name, and where it was made."""
    array = t._storage.array if t._view is None else t._view.array
    words = f"{dtypes.of(array.dtype)!r} tensor of shape {list(array.shape)}"
    if t.name:
        words = f"'{t.name}', {words}"
    if t._node is not None:
        line = t._node.line()
        return f"this is output {t._slot} of {t._node.name()}, a {words}" + (f", made at {line}" if line else "")
    made = "" if t._made is None else line_of(t._made)
    return f"this is a leaf, a {words}" + (f", made at {made}" if made else "")
