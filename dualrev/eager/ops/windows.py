"""Windows of signals: Hann, Hamming, Blackman, Bartlett and Kaiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Device, DType
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.arguments import layout, strided
from dualrev.eager.ops.creation import finished
from dualrev.eager.ops.registry import function


def _made(name: str, n: int, periodic: bool, weights: Callable[[np.ndarray], Any], dtype: DType | None, device: Device | None,
          requires_grad: bool) -> Tensor:
    """The weights at ``n`` points from 0 to 1; a periodic window leaves out the last of ``n + 1``."""
    kind = dtypes.numpy_of(dtypes.get_default_dtype() if dtype is None else dtype)
    if kind.kind not in "fV":
        raise RuntimeError(f"{name} expects floating point dtypes, got: {dtypes.type_name(kind)}")
    if n < 0:
        raise RuntimeError(f"{name} requires non-negative window_length, got window_length={n}")
    size = n + periodic
    at = np.arange(n) / max(size - 1, 1)
    return finished(np.asarray(np.ones(n) if n == 1 else weights(at), np.float64).astype(kind), requires_grad, device)


@function
def hann_window(window_length: int, periodic: bool = True, *, dtype: DType | None = None, layout: layout = strided,
                device: Device | None = None, pin_memory: bool = False, requires_grad: bool = False) -> Tensor:
    """``(1 - cos(2 pi n / N)) / 2``, with N the length, or one less where it is not periodic.

    >>> from dualrev import eager as torch
    >>> torch.hann_window(4)
    tensor([0.0000, 0.5000, 1.0000, 0.5000])
    """
    return _made("hann_window", window_length, periodic, lambda at: 0.5 - 0.5 * np.cos(2 * np.pi * at), dtype, device, requires_grad)


@function
def hamming_window(window_length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, *, dtype: DType | None = None,
                   layout: layout = strided, device: Device | None = None, pin_memory: bool = False, requires_grad: bool = False
                   ) -> Tensor:
    """``alpha - beta cos(2 pi n / N)``."""
    return _made("hamming_window", window_length, periodic, lambda at: alpha - beta * np.cos(2 * np.pi * at), dtype, device,
                 requires_grad)


@function
def blackman_window(window_length: int, periodic: bool = True, *, dtype: DType | None = None, layout: layout = strided,
                    device: Device | None = None, pin_memory: bool = False, requires_grad: bool = False) -> Tensor:
    """``.42 - .5 cos(2 pi n / N) + .08 cos(4 pi n / N)``."""
    return _made("blackman_window", window_length, periodic,
                 lambda at: 0.42 - 0.5 * np.cos(2 * np.pi * at) + 0.08 * np.cos(4 * np.pi * at), dtype, device, requires_grad)


@function
def bartlett_window(window_length: int, periodic: bool = True, *, dtype: DType | None = None, layout: layout = strided,
                    device: Device | None = None, pin_memory: bool = False, requires_grad: bool = False) -> Tensor:
    """A triangle: ``1 - |2 n / N - 1|``."""
    return _made("bartlett_window", window_length, periodic, lambda at: 1 - np.abs(2 * at - 1), dtype, device, requires_grad)


@function
def kaiser_window(window_length: int, periodic: bool = True, beta: float = 12.0, *, dtype: DType | None = None,
                  layout: layout = strided, device: Device | None = None, pin_memory: bool = False, requires_grad: bool = False
                  ) -> Tensor:
    """``i0(beta sqrt(1 - (2 n / N - 1)**2)) / i0(beta)``."""
    def weights(at: np.ndarray) -> Any:
        return np.i0(beta * np.sqrt(1 - (2 * at - 1) ** 2)) / np.i0(beta)

    return _made("kaiser_window", window_length, periodic, weights, dtype, device, requires_grad)
