"""Hooks on saved tensors, and detection of NaN in backward: ``torch.autograd.graph``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dualrev.eager.core.modes import Mode, ModeBlock, mode
from dualrev.eager.graph.interception import apply_intercepted
from dualrev.eager.graph.node import Node as Node


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

    def __init__(self, pack_hook: Callable[[Any], Any], unpack_hook: Callable[[Any], Any]):
        self._pair = (pack_hook, unpack_hook)
        Mode.packs = True

    def settings(self) -> dict[str, Any]:
        return {"packers": (*mode.packers, self._pair), "handler": apply_intercepted}


class save_on_cpu(saved_tensors_hooks):
    """A block in which saved tensors are kept in the memory of the host."""

    def __init__(self, pin_memory: bool = False):
        super().__init__(lambda t: (t.device, t.cpu()), lambda kept: kept[1].to(kept[0]))


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

    def settings(self) -> dict[str, Any]:
        return {"anomaly": self._check}


class set_detect_anomaly(detect_anomaly):
    """As :class:`detect_anomaly`, from now on, or inside a ``with`` block."""

    def __init__(self, mode: bool, check_nan: bool = True):
        super().__init__(mode and check_nan)
        self._before = globals()["mode"].anomaly
        globals()["mode"].anomaly = mode and check_nan

    def __enter__(self) -> Any:
        mode.anomaly = self._before
        return super().__enter__()
