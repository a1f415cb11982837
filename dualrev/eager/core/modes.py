"""The modes of a thread: whether operations are recorded, and what else is to be done with them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any


class Mode(threading.local):
    """The modes of one thread.  A new thread records, as in PyTorch."""

    #: Whether operations on tensors that require grad are recorded.
    grad = True
    #: Whether ``inference_mode`` is on.
    inference = False
    #: Whether backward looks for NaN.
    anomaly = False
    #: The functions ``(pack, unpack)`` for saved tensors, innermost last.
    packers: tuple[tuple[Callable[[Any], Any], Callable[[Any], Any]], ...] = ()
    #: Whether saved tensors were ever packed in this process.  Set on the class: one thread packs, another may unpack.
    packs = False
    #: The number of the open level of forward-mode differentiation, or 0.
    dual_level = 0
    #: While a whole step is being compiled, the object that notes which storages it reads and writes.
    watcher: Any = None
    #: For each enclosing ``vmap``: its ``randomness``, and the number of the example.
    examples: tuple[tuple[str, Any], ...] = ()
    #: What runs operations instead of the usual evaluation and recording; set where ``packers``, ``dual_level`` or ``watcher`` is.
    handler: Callable[[Any, Sequence[Any]], Any] | None = None


mode = Mode()


class ModeBlock:
    """A ``with`` block that sets modes, which also decorates functions."""

    def settings(self) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__name__} must define settings()")

    def __enter__(self) -> Any:
        settings = self.settings()
        stack = self.__dict__.setdefault("_stack", [])
        stack.append({name: getattr(mode, name) for name in settings})
        for name, value in settings.items():
            setattr(mode, name, value)
        return self

    def __exit__(self, *_: object) -> None:
        for name, value in self._stack.pop().items():  # type: ignore[attr-defined]
            setattr(mode, name, value)

    def __call__(self, fun: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fun)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with self:
                return fun(*args, **kwargs)

        return inside


class _Decorates(type):
    """``@no_grad`` without parentheses decorates too."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and callable(args[0]):
            return super().__call__()(args[0])
        return super().__call__(*args, **kwargs)


class no_grad(ModeBlock, metaclass=_Decorates):
    """Operations inside are not recorded: their results do not require grad.

    >>> from dualrev import eager as torch
    >>> x = torch.tensor([1.0], requires_grad=True)
    >>> with torch.no_grad():
    ...     (x * 2).requires_grad
    False
    """

    def settings(self) -> dict[str, Any]:
        return {"grad": False, "dual_level": 0}


class enable_grad(ModeBlock, metaclass=_Decorates):
    """Operations inside are recorded, also within ``no_grad``.

    >>> from dualrev import eager as torch
    >>> x = torch.tensor([1.0], requires_grad=True)
    >>> with torch.no_grad(), torch.enable_grad():
    ...     (x * 2).requires_grad
    True
    """

    def settings(self) -> dict[str, Any]:
        return {"grad": True}


class set_grad_enabled(ModeBlock):
    """Whether operations are recorded: from now on, or inside a ``with`` block.

    >>> from dualrev import eager as torch
    >>> with torch.set_grad_enabled(False):
    ...     torch.is_grad_enabled()
    False
    """

    def __init__(self, mode: bool):
        _check_flag("set_grad_enabled", mode)
        self._flag = mode
        self._before = globals()["mode"].grad
        globals()["mode"].grad = mode

    def settings(self) -> dict[str, Any]:
        return {"grad": self._flag}

    def __enter__(self) -> Any:
        mode.grad = self._before
        return super().__enter__()

    def __call__(self, fun: Callable[..., Any]) -> Callable[..., Any]:
        mode.grad = self._before
        return super().__call__(fun)


class inference_mode(ModeBlock):
    """As :class:`no_grad`, and what is made inside can never be recorded.

    >>> from dualrev import eager as torch
    >>> with torch.inference_mode():
    ...     torch.ones(2).is_inference()
    True
    """

    def __new__(cls, mode: Any = True) -> Any:
        if callable(mode) and not isinstance(mode, bool):
            return cls()(mode)
        return super().__new__(cls)

    def __init__(self, mode: bool = True):
        self._flag = bool(mode)

    def settings(self) -> dict[str, Any]:
        return {"grad": False, "inference": True, "dual_level": 0} if self._flag else {"inference": False, "grad": True}


def _check_flag(call: str, flag: Any) -> None:
    if not isinstance(flag, bool):
        raise TypeError(f"{call}(): argument 'mode' must be bool, not {type(flag).__name__}")


def is_grad_enabled() -> bool:
    """Whether operations are recorded here.

    >>> from dualrev import eager as torch
    >>> torch.is_grad_enabled()
    True
    """
    return mode.grad


def is_inference_mode_enabled() -> bool:
    """Whether ``inference_mode`` is on here."""
    return mode.inference
