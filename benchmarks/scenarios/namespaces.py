"""The operations that programs are written in, as each library has them.

What libraries call alike (``exp``, ``where``, ``einsum``, ...) is theirs; here stands what they call differently.  An operation that
one of them lacks is a ``NotImplementedError``: its programs are left out there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev.problems.scenario import Scenario


class Namespace:
    """NumPy's names."""

    def __init__(self, module: Any):
        self.module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def array(self, x: np.ndarray) -> Any:
        return x

    def sigmoid(self, x: Any) -> Any:
        return 0.5 * self.tanh(0.5 * x) + 0.5

    def relu(self, x: Any) -> Any:
        return self.maximum(x, 0.0)

    def gelu(self, x: Any) -> Any:
        """In its form with tanh."""
        return 0.5 * x * (1 + self.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    def logsumexp(self, x: Any, axis: int) -> Any:
        largest = self.max(x, axis=axis, keepdims=True)
        return self.sum(largest, axis=axis) + self.log(self.sum(self.exp(x - largest), axis=axis))

    def softmax(self, x: Any) -> Any:
        """Along the last axis."""
        weights = self.exp(x - self.max(x, axis=-1, keepdims=True))
        return weights / self.sum(weights, axis=-1, keepdims=True)

    def split(self, x: Any, parts: int) -> Any:
        """Equal parts along the last axis."""
        return self.module.split(x, parts, axis=-1)

    def scan(self, step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, xs: Any, length: int) -> tuple[Any, list[Any]]:
        """A loop in Python: the last carry, and what each step gives."""
        outs = []
        for k in range(length):
            carry, out = step(carry, None if xs is None else xs[k])
            outs.append(out)
        return carry, outs if outs[0] is None else self.stack(outs)

    def conv(self, x: Any, kernel: Any) -> Any:
        """Images (batch, height, width, channels) and a kernel (height, width, channels, channels), to images of that size."""
        raise NotImplementedError(f"{self.module.__name__} has no convolution of images")

    def halve(self, x: Any) -> Any:
        """Means over squares of four places."""
        n, h, w, c = x.shape
        return self.mean(x.reshape((n, h // 2, 2, w // 2, 2, c)), axis=(2, 4))


class JaxNamespace(Namespace):
    sigmoid = staticmethod(jax.nn.sigmoid)
    relu = staticmethod(jax.nn.relu)
    gelu = staticmethod(jax.nn.gelu)
    softmax = staticmethod(jax.nn.softmax)

    def array(self, x: np.ndarray) -> Any:
        return jnp.asarray(x)

    def logsumexp(self, x: Any, axis: int) -> Any:
        return jax.nn.logsumexp(x, axis=axis)

    def solve_lower(self, factor: Any, x: Any) -> Any:
        return jax.scipy.linalg.solve_triangular(factor, x, lower=True)

    def scan(self, step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, xs: Any, length: int) -> Any:
        return lax.scan(step, carry, xs, length=length)

    def conv(self, x: Any, kernel: Any) -> Any:
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def halve(self, x: Any) -> Any:
        return lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4


class TorchNamespace(Namespace):
    """PyTorch's names: of PyTorch, and of dualrev's imperative face."""

    def array(self, x: np.ndarray) -> Any:
        return self.module.tensor(x)

    def sum(self, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return x.sum() if axis is None else x.sum(axis, keepdims)

    def mean(self, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return x.mean() if axis is None else x.mean(axis, keepdims)

    def stack(self, xs: Any, axis: int = 0) -> Any:
        return self.module.stack(list(xs), axis)

    def split(self, x: Any, parts: int) -> Any:
        return x.chunk(parts, -1)

    def logsumexp(self, x: Any, axis: int) -> Any:
        return x.logsumexp(axis)

    def softmax(self, x: Any) -> Any:
        return x.softmax(-1)

    def sigmoid(self, x: Any) -> Any:
        return x.sigmoid()

    def relu(self, x: Any) -> Any:
        return x.relu()

    def gelu(self, x: Any) -> Any:
        return self.module.nn.functional.gelu(x, approximate="tanh")

    def solve_lower(self, factor: Any, x: Any) -> Any:
        if not hasattr(self.module.linalg, "solve_triangular"):
            return self.module.linalg.solve(factor, x)
        columns = x[:, None] if x.ndim == 1 else x
        return self.module.linalg.solve_triangular(factor, columns, upper=False).reshape(x.shape)

    def conv(self, x: Any, kernel: Any) -> Any:
        """PyTorch counts channels before places; the views cost nothing."""
        return self.module.nn.functional.conv2d(x.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1), padding="same").permute(0, 2, 3, 1)

    def halve(self, x: Any) -> Any:
        return self.module.nn.functional.avg_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


class AutogradNamespace(Namespace):
    def solve_lower(self, factor: Any, x: Any) -> Any:
        from autograd.scipy.linalg import solve_triangular

        return solve_triangular(factor, x, lower=True)


JAX = JaxNamespace(jnp)


def on(namespace: Any, scenario: Scenario) -> Callable[..., Any]:
    """The program of a scenario in the library that has the namespace."""
    if namespace is JAX:
        if scenario.program is None:
            raise NotImplementedError("the program contains its own derivatives")
        return scenario.program
    if scenario.portable is None:
        raise NotImplementedError("the program is written in jax")
    return functools.partial(scenario.portable, namespace)
