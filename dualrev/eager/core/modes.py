"""What is in force in a thread: whether operations are recorded, and what else watches them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any


class _Mode(threading.local):
    """The modes of one thread.  A new thread records, as in PyTorch."""

    #: Whether operations on tensors that require grad are recorded.
    grad = True
    #: Whether ``inference_mode`` is on.
    inference = False
    #: Whether backward looks for NaN.
    anomaly = False
    #: ``(pack, unpack)`` of saved tensors, innermost last.
    packers: tuple[tuple[Callable[[Any], Any], Callable[[Any], Any]], ...] = ()
    #: Whether saved tensors were ever packed in this process.
    packs = False  # set on the class: what one thread packs another may unpack
    #: How many levels of forward-mode differentiation are open.
    dual_level = 0
    #: What learns which storages are read and written, while a whole step is being compiled.
    watcher: Any = None
    #: For each ``vmap`` around: what it says of random numbers, and the number of the example.
    examples: tuple[tuple[str, Any], ...] = ()
    #: Whether operations are more than evaluated and recorded: any of the last three is set.
    special = False


mode = _Mode()


class _Block:
    """A ``with`` block that sets modes, which also decorates functions."""

    def settings(self) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__name__} must say how")

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


class no_grad(_Block, metaclass=_Decorates):
    """Operations inside are not recorded: their results do not require grad.

    >>> from dualrev import eager as torch
    >>> x = torch.tensor([1.0], requires_grad=True)
    >>> with torch.no_grad():
    ...     (x * 2).requires_grad
    False
    """

    def settings(self) -> dict[str, Any]:
        return {"grad": False, "dual_level": 0}


class enable_grad(_Block, metaclass=_Decorates):
    """Operations inside are recorded, also within ``no_grad``.

    >>> from dualrev import eager as torch
    >>> x = torch.tensor([1.0], requires_grad=True)
    >>> with torch.no_grad(), torch.enable_grad():
    ...     (x * 2).requires_grad
    True
    """

    def settings(self) -> dict[str, Any]:
        return {"grad": True}


class set_grad_enabled(_Block):
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


class inference_mode(_Block):
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
