"""Functions to differentiate, each written once and free of any differentiation library."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from benchmarks.functions.namespaces import JAX


@dataclass(frozen=True)
class Program:
    """A function, and a point.

    The function takes a pytree of arrays, by which it is differentiated, and then its data; ahead of them an array namespace, where it
    is ``portable``: any library that has the namespace's operations runs it.  Others use what only jax has: scans with many outputs,
    while loops, updates at indices.
    """

    name: str
    written: Callable[..., Any]
    draw: Callable[[], tuple[Any, ...]]
    portable: bool = False
    #: What is asked for instead of the gradient, by a library with jax's calls, such as a Jacobian that is known to be sparse.
    derivative: Callable[[Any], Callable[..., Any]] | None = None
    #: What jax finds in another way, where it cannot take the derivative in this one.
    otherwise: Callable[[], Any] | None = None
    #: Steps of its scan, which is a loop in Python where a library has none.
    steps: int = 0

    def on(self, namespace: Any) -> Callable[..., Any]:
        """The function of the pytree and the data."""
        if self.portable:
            return functools.partial(self.written, namespace)
        if namespace is not JAX:
            raise NotImplementedError(f"{self.name} is written in jax")
        return self.written

    def function(self, inputs: Any) -> Any:
        """The function in jax, with its data as constants."""
        return self.on(JAX)(inputs, *_data(self.draw))

    def make_inputs(self) -> Any:
        return jax.tree.map(jax.numpy.asarray, self.draw()[0])


@functools.cache
def _data(draw: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
    """What a program's inputs are followed by, drawn once, outside whatever is being traced."""
    with jax.ensure_compile_time_eval():
        return jax.tree.map(jax.numpy.asarray, draw()[1:])


def alone(make_inputs: Callable[[], Any]) -> Callable[[], tuple[Any, ...]]:
    """Inputs of a function that has no data."""
    return lambda: (make_inputs(),)


def drawn(rng: np.random.Generator, *shape: int, dtype: str = "float32") -> np.ndarray:
    """Normal numbers whose squares sum to 1 along the first axis, as weights begin."""
    return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(dtype)
