"""Mixed precision: ``torch.amp``, with bfloat16 on the CPU."""

from __future__ import annotations

import functools
import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from dualrev.eager import cuda
from dualrev.eager.core import dtypes
from dualrev.eager.core.modes import ModeBlock, mode, no_grad
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.ops.creation import tensor
from dualrev.eager.optim.optimizer import Optimizer


class autocast(ModeBlock):
    """A block, or a decorator, in which products of matrices and convolutions are computed in a narrower dtype.

    Losses are computed in float32, and what joins tensors in the widest of their dtypes, as PyTorch's lists for the CPU say; all else
    is computed in the dtype of its arguments.  Call backward outside.

    >>> from dualrev import eager as torch
    >>> layer = torch.nn.Linear(2, 3)
    >>> with torch.autocast("cpu"):
    ...     y = layer(torch.ones(4, 2))
    >>> y.dtype
    torch.bfloat16
    """

    def __init__(self, device_type: str, dtype: dtypes.dtype | None = None, enabled: bool = True, cache_enabled: bool | None = None):
        if not isinstance(device_type, str):
            raise ValueError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
        self.device = dtypes.device(device_type).type
        self.fast_dtype = get_autocast_dtype(device_type) if dtype is None else dtype
        if enabled and device_type == "cuda" and not cuda.is_available():
            warnings.warn("User provided device_type of 'cuda', but CUDA is not available. Disabling", stacklevel=2)
            enabled = False
        if enabled and self.fast_dtype not in (dtypes.bfloat16, dtypes.float16):
            kind = device_type.upper()
            warnings.warn(f"In {kind} autocast, but the target dtype is not supported. Disabling autocast.\n"
                          f"{kind} Autocast only supports dtype of torch.bfloat16, torch.float16 currently.", stacklevel=2)
            enabled = False
        self._enabled = enabled

    def settings(self) -> dict[str, object]:
        return {"autocast": self.fast_dtype if self._enabled else None}


def get_autocast_dtype(device_type: str) -> dtypes.dtype:
    """The dtype that ``autocast`` takes where none is given."""
    return dtypes.bfloat16 if device_type == "cpu" else dtypes.float16


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether ``autocast`` is on here."""
    return mode.autocast is not None


def is_autocast_available(device_type: str) -> bool:
    """Whether there is an ``autocast`` for a kind of device."""
    return device_type in ("cpu", "cuda")


def custom_fwd(fwd: Callable[..., Any] | None = None, *, device_type: str = "cpu", cast_inputs: dtypes.dtype | None = None
               ) -> Callable[..., Any]:
    """A decorator of ``forward`` of an ``autograd.Function``: under ``autocast``, inputs are cast, and nothing inside is."""
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)

    @functools.wraps(fwd)
    def run(*args: Any, **kwargs: Any) -> Any:
        args[0]._autocast = mode.autocast if cast_inputs is None else None
        if cast_inputs is None or mode.autocast is None:
            return fwd(*args, **kwargs)
        given = [x.to(cast_inputs) if isinstance(x, Tensor) and x.is_floating_point() and x.dtype != dtypes.float64 else x
                 for x in args]
        with autocast(device_type, enabled=False):
            return fwd(*given, **kwargs)

    return run


def custom_bwd(bwd: Callable[..., Any] | None = None, *, device_type: str = "cpu") -> Callable[..., Any]:
    """A decorator of ``backward`` of an ``autograd.Function``: it runs under the ``autocast`` that its ``forward`` ran under."""
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)

    @functools.wraps(bwd)
    def run(*args: Any, **kwargs: Any) -> Any:
        kind = getattr(args[0], "_autocast", None)
        with autocast(device_type, kind, enabled=kind is not None):
            return bwd(*args, **kwargs)

    return run


class GradScaler:
    """Losses times a factor, so that gradients of few bits do not vanish; steps whose gradients are not finite are left out.

    >>> from dualrev import eager as torch
    >>> w = torch.tensor([1.0], requires_grad=True)
    >>> optimizer, scaler = torch.optim.SGD([w], lr=0.5), torch.amp.GradScaler("cpu")
    >>> scaler.scale((w ** 2).sum()).backward()
    >>> _ = scaler.step(optimizer)
    >>> scaler.update()
    >>> w
    tensor([0.], requires_grad=True)
    """

    def __init__(self, device: str = "cuda", init_scale: float = 2.0 ** 16, growth_factor: float = 2.0, backoff_factor: float = 0.5,
                 growth_interval: int = 2000, enabled: bool = True):
        self._device, self._enabled = device, enabled
        if enabled and device == "cuda" and not cuda.is_available():
            warnings.warn("torch.cuda.amp.GradScaler is enabled, but CUDA is not available.  Disabling.", stacklevel=2)
            self._enabled = False
        if self._enabled and growth_factor <= 1.0:
            raise AssertionError("The growth factor must be > 1.0.")
        if self._enabled and backoff_factor >= 1.0:
            raise AssertionError("The backoff factor must be < 1.0.")
        self._init_scale, self._growth_factor, self._backoff_factor = init_scale, growth_factor, backoff_factor
        self._growth_interval, self._tracker = growth_interval, 0
        self._scale: Tensor | None = None
        #: For each optimizer, by id: how far it is since the last update, and whether a gradient is not finite.
        self._states: defaultdict[int, dict[str, Any]] = defaultdict(lambda: {"stage": "ready", "found": None})

    def _begun(self, caller: str) -> Tensor:
        if self._scale is None:
            raise AssertionError(f"Attempted {caller} but _scale is None.  This may indicate your script did not use "
                                 "scaler.scale(loss or outputs) earlier in the iteration.")
        return self._scale

    def scale(self, outputs: Any) -> Any:
        """The outputs times the factor."""
        if not self._enabled:
            return outputs
        if self._scale is None:
            self._scale = tensor(float(self._init_scale))
        if isinstance(outputs, Tensor):
            return outputs * self._scale
        if isinstance(outputs, Iterable):
            scaled = map(self.scale, outputs)
            return type(outputs)(scaled) if isinstance(outputs, (list, tuple)) else scaled  # type: ignore[call-arg]
        raise ValueError("outputs must be a Tensor or an iterable of Tensors")

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients of an optimizer's parameters by the factor: to clip them, for example."""
        if not self._enabled:
            return
        scale, state = self._begun("unscale_"), self._states[id(optimizer)]
        if state["stage"] == "unscaled":
            raise RuntimeError("unscale_() has already been called on this optimizer since the last update().")
        if state["stage"] == "stepped":
            raise RuntimeError("unscale_() is being called after step().")
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if any(g.dtype == dtypes.float16 for g in grads):
            raise ValueError("Attempting to unscale FP16 gradients.")
        inverse = float(np.float32(1 / float(scale)))
        with no_grad():
            for g in grads:
                g.mul_(inverse)
        state["found"] = not all(np.all(np.isfinite(np.asarray(array_of(g), np.float64))) for g in grads) if grads else None
        state["stage"] = "unscaled"

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        """Step with the gradients divided by the factor, unless one of them is not finite."""
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise RuntimeError("Closure use is not currently supported if GradScaler is enabled.")
        self._begun("step")
        state = self._states[id(optimizer)]
        if state["stage"] == "stepped":
            raise RuntimeError("step() has already been called since the last update().")
        if state["stage"] == "ready":
            self.unscale_(optimizer)
        if state["found"] is None:
            raise AssertionError("No inf checks were recorded for this optimizer.")
        result = None if state["found"] else optimizer.step(*args, **kwargs)
        state["stage"] = "stepped"
        return result

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """A smaller factor after gradients that were not finite, a larger one after many steps that were; or a given one."""
        if not self._enabled:
            return
        scale = self._begun("update")
        if new_scale is not None:
            scale.fill_(float(new_scale))
        else:
            found = [state["found"] for state in self._states.values() if state["found"] is not None]
            if not found:
                raise AssertionError("No inf checks were recorded prior to update.")
            self._tracker = 0 if any(found) else self._tracker + 1
            if any(found):
                scale.fill_(float(scale) * self._backoff_factor)
            elif self._tracker == self._growth_interval:
                self._tracker = 0
                grown = float(np.float32(float(scale) * self._growth_factor))
                if math.isfinite(grown):
                    scale.fill_(grown)
        self._states.clear()

    def get_scale(self) -> float:
        """The factor."""
        return 1.0 if not self._enabled else float(self._init_scale if self._scale is None else self._scale)

    def get_growth_factor(self) -> float:
        """What the factor is multiplied with when it grows."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Choose what the factor is multiplied with when it grows."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """What the factor is multiplied with when it shrinks."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Choose what the factor is multiplied with when it shrinks."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """After how many steps the factor grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Choose after how many steps the factor grows."""
        self._growth_interval = new_interval

    def is_enabled(self) -> bool:
        """Whether losses are scaled."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """The factor and the settings; nothing where it is not enabled."""
        return {} if not self._enabled else {
            "scale": self.get_scale(), "growth_factor": self._growth_factor, "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval, "_growth_tracker": self._tracker}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the state of another scaler."""
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError("The source state dict is empty, possibly because it was saved from a disabled instance of GradScaler.")
        self._init_scale = state_dict["scale"]
        if self._scale is not None:
            self._scale.fill_(state_dict["scale"])
        self._growth_factor, self._backoff_factor = state_dict["growth_factor"], state_dict["backoff_factor"]
        self._growth_interval, self._tracker = state_dict["growth_interval"], state_dict["_growth_tracker"]


class _OfCuda:
    """``torch.cuda.amp``: the older names."""

    GradScaler = GradScaler

    class autocast(autocast):
        """As ``torch.amp.autocast("cuda")``."""

        def __init__(self, enabled: bool = True, dtype: dtypes.dtype = dtypes.float16, cache_enabled: bool = True):
            super().__init__("cuda", dtype, enabled, cache_enabled)


cuda.amp = _OfCuda
