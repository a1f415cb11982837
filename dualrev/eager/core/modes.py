"""The modes of a thread: whether operations are recorded, and what else is to be done with them."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

if TYPE_CHECKING:
    import jax

P = ParamSpec("P")
R = TypeVar("R")


class Mode(threading.local):
    """The modes of one thread.  A new thread records, as in PyTorch."""

    #: Whether operations on tensors that require grad are recorded.
    grad = True
    #: Whether ``inference_mode`` is on.
    inference = False
    #: Whether backward looks for NaN.
    anomaly = False
    #: The functions ``(pack, unpack)`` for saved tensors, innermost last.
    packers: tuple[tuple[Callable[[Any], object], Callable[[Any], Any]], ...] = ()
    #: Whether saved tensors were ever packed in this process.  Set on the class: one thread packs, another may unpack.
    packs = False
    #: The number of the open level of forward-mode differentiation, or 0.
    dual_level = 0
    #: While a whole step is being compiled, the object that notes which storages it reads and writes.
    watcher: Any = None
    #: For each enclosing ``vmap``: its ``randomness``, and the number of the example.
    examples: tuple[tuple[str, jax.Array | None], ...] = ()
    #: The dtype that products are computed in under ``autocast``, or None.
    autocast: Any = None
    #: The backward pass that is running, or None.
    backward_pass: Any = None
    #: What hooks of saved tensors are refused with, or None where they are allowed.
    packers_refusal: str | None = None
    #: Whether saved tensors may be changed in place.
    mutable = False
    #: How many backward passes are running inside each other.
    backward_depth = 0
    #: Whether values may be traced by a transformation of functions of arrays, which knows nothing of this graph.
    functional = False
    #: Whether ``no_grad`` cuts derivatives there; ``detach`` does in any case.
    cuts = True
    #: Whether what is being traced there has the dtypes of jax without 64 bits.
    narrow = False
    #: Whether operations on known values are evaluated at once, whatever is being traced around them.
    known = False
    #: The state of the default source of random numbers there, in place of its own.
    random: Any = None
    #: What runs operations instead of the usual evaluation and recording; set where ``packers``, ``dual_level``, ``watcher`` or
    #: ``functional`` is.
    handler: Callable[[Any, Sequence[object]], Any] | None = None


mode = Mode()


class ModeBlock:
    """A ``with`` block that sets modes, which also decorates functions."""

    def settings(self) -> dict[str, object]:
        raise NotImplementedError(f"{type(self).__name__} must define settings()")

    def __enter__(self) -> Self:
        settings = self.settings()
        stack = self.__dict__.setdefault("_stack", [])
        stack.append({name: getattr(mode, name) for name in settings})
        for name, value in settings.items():
            setattr(mode, name, value)
        return self

    def __exit__(self, *_: object) -> None:
        for name, value in self._stack.pop().items():  # type: ignore[attr-defined]
            setattr(mode, name, value)

    def __call__(self, fun: Callable[P, R]) -> Callable[P, R]:
        if inspect.isgeneratorfunction(fun):
            return self._around(fun)  # type: ignore[return-value]

        @functools.wraps(fun)
        def inside(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return fun(*args, **kwargs)

        return inside

    def _around(self, fun: Callable[P, Generator[Any, Any, R]]) -> Callable[P, Generator[Any, Any, R]]:
        """A generator whose body runs inside the block, and whose caller does not."""
        @functools.wraps(fun)
        def steps(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, R]:
            generator = fun(*args, **kwargs)
            go_on: Callable[[], Any] = functools.partial(next, generator)
            while True:
                try:
                    with self:
                        given = go_on()
                except StopIteration as end:
                    return end.value
                try:
                    go_on = functools.partial(generator.send, (yield given))
                except GeneratorExit:
                    with self:
                        generator.close()
                    raise
                except BaseException as error:
                    go_on = functools.partial(generator.throw, error)

        return steps


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

    def settings(self) -> dict[str, object]:
        return {"grad": False, "dual_level": 0}


class enable_grad(ModeBlock, metaclass=_Decorates):
    """Operations inside are recorded, also within ``no_grad``.

    >>> from dualrev import eager as torch
    >>> x = torch.tensor([1.0], requires_grad=True)
    >>> with torch.no_grad(), torch.enable_grad():
    ...     (x * 2).requires_grad
    True
    """

    def settings(self) -> dict[str, object]:
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

    def settings(self) -> dict[str, object]:
        return {"grad": self._flag}

    def __enter__(self) -> Self:
        mode.grad = self._before
        return super().__enter__()

    def __call__(self, fun: Callable[P, R]) -> Callable[P, R]:
        mode.grad = self._before
        return super().__call__(fun)


class set_multithreading_enabled(ModeBlock):
    """Whether PyTorch's backward passes use a thread for each device: here a backward pass runs in the thread that calls it.

    >>> from dualrev import eager as torch
    >>> with torch.autograd.set_multithreading_enabled(False):
    ...     pass
    """

    def __init__(self, mode: bool):
        if not isinstance(mode, bool):
            raise TypeError("set_multithreading_enabled(): argument 'enabled' (position 1) must be bool, not "
                            f"{type(mode).__name__}")

    def settings(self) -> dict[str, object]:
        return {}


class inference_mode(ModeBlock):
    """As :class:`no_grad`, and what is made inside can never be recorded.

    >>> from dualrev import eager as torch
    >>> with torch.inference_mode():
    ...     torch.ones(2).is_inference()
    True
    """

    def __new__(cls, mode: bool | Callable[P, R] = True) -> Any:
        if callable(mode) and not isinstance(mode, bool):
            return cls()(mode)
        return super().__new__(cls)

    def __init__(self, mode: bool = True):
        self._flag = bool(mode)

    def settings(self) -> dict[str, object]:
        return {"grad": False, "inference": True, "dual_level": 0} if self._flag else {"inference": False, "grad": True}


def _check_flag(call: str, flag: object) -> None:
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
