"""Modules: how they are called, moved and switched between training and evaluation.

What a module holds stands in :mod:`dualrev.eager.nn.modules.members`, how it is saved in :mod:`dualrev.eager.nn.modules.state`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

from dualrev.eager.core import dtypes
from dualrev.eager.core.hooks import RemovableHandle, changes
from dualrev.eager.core.modes import mode, no_grad
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.nn.modules.backward_hooks import Grads, call_watched
from dualrev.eager.nn.modules.state import Stateful

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class _WithKwargs:
    """A hook that gets the keyword arguments too."""

    def __init__(self, hook: Callable[..., Any]):
        self.hook = hook


class _Always:
    """A forward hook that is called also after an error."""

    def __init__(self, hook: Any):
        self.hook = hook


def _call_hook(hook: Any, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    if isinstance(hook, _Always):
        hook = hook.hook
    return hook.hook(module, args, kwargs, result) if isinstance(hook, _WithKwargs) else hook(module, args, result)


class Module(Stateful):
    """A part of a model: parameters, buffers, modules inside it, and ``forward``.

    >>> from dualrev import eager as torch
    >>> class Twice(torch.nn.Module):
    ...     def forward(self, x):
    ...         return 2 * x
    >>> Twice()(torch.ones(1))
    tensor([2.])
    """

    training: bool

    if TYPE_CHECKING:
        def modules(self) -> Iterator[Module]: ...
        def children(self) -> Iterator[Module]: ...
        def named_modules(self, memo: set[Any] | None = None, prefix: str = "", remove_duplicate: bool = True
                          ) -> Iterator[tuple[str, Module]]: ...
        def named_children(self) -> Iterator[tuple[str, Module]]: ...

    def __init__(self) -> None:
        super().__init__()
        for name in _HOOKS:
            object.__setattr__(self, name, {})
        object.__setattr__(self, "training", True)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if mode.watcher is not None:
            mode.watcher.guards.module(self)
        if not (self._forward_hooks or self._forward_pre_hooks or self._backward_hooks or self._backward_pre_hooks):
            return self.forward(*args, **kwargs)
        if not any(isinstance(hook, _Always) for hook in self._forward_hooks.values()):
            return self._with_hooks(args, kwargs, set())
        called: set[int] = set()
        try:
            return self._with_hooks(args, kwargs, called)
        except Exception:
            self._after_error(args, kwargs, called)
            raise

    def _with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any], called: set[int]) -> Any:
        for hook in list(self._forward_pre_hooks.values()):
            if isinstance(hook, _WithKwargs):
                given = hook.hook(self, args, kwargs)
                if given is not None:
                    if not isinstance(given, tuple) or len(given) != 2:
                        raise RuntimeError("forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got "
                                           f"{given}.")
                    args, kwargs = given
            else:
                given = hook(self, args)
                if given is not None:
                    args = given if isinstance(given, tuple) else (given,)
        if self._backward_hooks or self._backward_pre_hooks:
            return call_watched(self, args, kwargs)
        return self._finish(args, kwargs, self.forward(*args, **kwargs), called)

    def _finish(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, called: set[int] | None = None) -> Any:
        for number, hook in list(self._forward_hooks.items()):
            if called is not None:
                called.add(number)
            given = _call_hook(hook, self, args, kwargs, result)
            if given is not None:
                result = given
        return result

    def _after_error(self, args: tuple[Any, ...], kwargs: dict[str, Any], called: set[int]) -> None:
        """Call the hooks that are always called, and were not; their own errors are warnings."""
        for number, hook in list(self._forward_hooks.items()):
            if isinstance(hook, _Always) and number not in called:
                try:
                    _call_hook(hook, self, args, kwargs, None)
                except Exception as error:
                    warnings.warn("module forward hook with ``always_call=True`` raised an exception that was silenced as another "
                                  f"error was raised in forward: {error!s}", stacklevel=3)

    # ---------------------------------------------------------------------------------------------- training, gradients

    def train(self, mode: bool = True) -> Self:
        """Set the training mode of this module and of those inside, each by its own ``train``."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        changes.count += 1
        object.__setattr__(self, "training", mode)
        for module in self.children():
            module.train(mode)
        return self

    def eval(self) -> Self:
        """Set the evaluation mode: ``train(False)``."""
        return self.train(False)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters."""
        for p in self.parameters():
            if set_to_none:
                p.grad = None
            elif p.grad is not None:
                p.grad = p.grad.detach().zero_()

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Whether operations on the parameters are recorded."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    # --------------------------------------------------------------------------------------------- devices and dtypes

    def apply(self, fn: Callable[[Module], object]) -> Self:
        """Call ``fn`` on each module, the innermost first."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Replace the value of each parameter, gradient and buffer by ``fn`` of it."""
        changes.count += 1
        for module in self.children() if recurse else ():
            module._apply(fn)
        with no_grad():
            for p in self._parameters.values():
                if p is not None:
                    p.data = fn(p.detach())
                    if p.grad is not None:
                        p._grad = fn(p.grad)
            for name, x in self._buffers.items():
                if x is not None:
                    self._buffers[name] = fn(x)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Parameters and buffers in another dtype or on another device; whole numbers keep their dtype."""
        dtype = kwargs.get("dtype") or next((a for a in args if isinstance(a, dtypes.dtype)), None)
        if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
            raise TypeError(f"nn.Module.to only accepts floating point or complex dtypes, but got desired dtype={dtype!r}")
        others = tuple([a for a in args if not isinstance(a, dtypes.dtype)])
        other_kwargs = {k: v for k, v in kwargs.items() if k != "dtype"}
        if any(isinstance(a, Tensor) for a in others) or isinstance(kwargs.get("tensor"), Tensor):
            t = kwargs.get("tensor") or next(a for a in others if isinstance(a, Tensor))
            return self.to(t.device, t.dtype)

        def convert(x: Tensor) -> Tensor:
            if x.is_floating_point() or x.dtype.is_complex:
                return x.to(*args, **kwargs)
            return x.to(*others, **other_kwargs)

        return self._apply(convert)

    def type(self, dst_type: dtypes.dtype) -> Self:
        """All parameters and buffers in a dtype."""
        return self._apply(lambda x: x.to(dst_type))

    def _floats(self, dtype: dtypes.dtype) -> Self:
        return self._apply(lambda x: x.to(dtype) if x.is_floating_point() else x)

    def half(self) -> Self:
        """In float16."""
        return self._floats(dtypes.float16)

    def bfloat16(self) -> Self:
        """In bfloat16."""
        return self._floats(dtypes.bfloat16)

    def double(self) -> Self:
        """In float64."""
        return self._floats(dtypes.float64)

    def float(self) -> Self:
        """In float32."""
        return self._floats(dtypes.float32)

    def cpu(self) -> Self:
        """On the CPU."""
        return self._apply(lambda x: x.cpu())

    def cuda(self, device: Any = None) -> Self:
        """On the GPU."""
        return self._apply(lambda x: x.cuda(device))

    # ------------------------------------------------------------------------------------------------------- hooks

    def register_forward_hook(self, hook: Callable[..., object], *, prepend: bool = False, with_kwargs: bool = False,
                              always_call: bool = False) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after forward; a result other than None replaces the output.

        With ``with_kwargs`` the hook is called ``hook(module, args, kwargs, output)``; with ``always_call`` also when forward, or a
        hook before it, raises an error: the output is then None.
        """
        given: Any = _WithKwargs(hook) if with_kwargs else hook
        return RemovableHandle(self._forward_hooks, _Always(given) if always_call else given, prepend)

    def register_forward_pre_hook(self, hook: Callable[..., object], *, prepend: bool = False, with_kwargs: bool = False
                                  ) -> RemovableHandle:
        """Call ``hook(module, args)`` before forward; a result other than None replaces the arguments.

        With ``with_kwargs`` the hook is called ``hook(module, args, kwargs)``, and returns both.
        """
        return RemovableHandle(self._forward_pre_hooks, _WithKwargs(hook) if with_kwargs else hook, prepend)

    def register_full_backward_hook(self, hook: Callable[[Self, Grads, Grads], object], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` in backward; a result other than None replaces grad_input."""
        return RemovableHandle(self._backward_hooks, hook, prepend)

    def register_full_backward_pre_hook(self, hook: Callable[[Self, Grads], object], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_output)`` in backward before the module's own; a result other than None replaces grad_output."""
        return RemovableHandle(self._backward_pre_hooks, hook, prepend)

    # ------------------------------------------------------------------------------------------------------- looks

    def extra_repr(self) -> str:
        """The text in the parentheses of ``repr``."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        inside = [f"({name}): " + repr(m).replace("\n", "\n  ") for name, m in self._modules.items()]
        lines = [*(extra.split("\n") if extra else ()), *inside]
        if not lines:
            return f"{self._get_name()}()"
        if len(lines) == 1 and not inside:
            return f"{self._get_name()}({extra})"
        return f"{self._get_name()}(\n  " + "\n  ".join(lines) + "\n)"


#: The arguments that makers of tensors take.
_FACTORY = ("device", "dtype", "memory_format")


def factory_kwargs(kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """The arguments for makers of tensors among those of a module: its own, and those under ``factory_kwargs``.

    Raises:
      TypeError: an argument is none of them, or given twice.
    """
    given = {} if kwargs is None else kwargs
    if not given.keys() <= {*_FACTORY, "factory_kwargs"}:
        raise TypeError(f"unexpected kwargs {given.keys() - {*_FACTORY, 'factory_kwargs'}}")
    found = dict(given.get("factory_kwargs", {}))
    for name in _FACTORY:
        if name in given:
            if name in found:
                raise TypeError(f"{name} specified twice, in **kwargs and in factory_kwargs")
            found[name] = given[name]
    if not found.keys() <= set(_FACTORY):
        raise TypeError(f"unexpected factory_kwargs {found.keys() - set(_FACTORY)}")
    return found
