"""Random tensors."""

from __future__ import annotations

import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dualrev.eager import dtypes
from dualrev.eager.creation import _float, _sizes, finished
from dualrev.eager.dtypes import numpy_of
from dualrev.eager.inplace import check_may_change, write
from dualrev.eager.modes import mode
from dualrev.eager.names import FUNCTIONS, function, method
from dualrev.eager.tensors import Tensor, array_of, wrap

# ------------------------------------------------------------------------------------------------------------------ random

class Generator:
    """A source of random numbers: a key that each draw replaces."""

    def __init__(self, device: Any = "cpu"):
        self._state: Tensor | None = None
        self._seed = 0

    def manual_seed(self, seed: int) -> Generator:
        self._seed = int(seed)
        if self._state is not None:
            with jax.ensure_compile_time_eval():
                write(self._state, jax.random.PRNGKey(self._seed))  # a compiled step refers to this one
        return self

    def initial_seed(self) -> int:
        return self._seed

    def get_state(self) -> Tensor:
        """Where the source is, as bytes."""
        return wrap(lax.bitcast_convert_type(array_of(self._begun()), jnp.uint8).ravel())

    def set_state(self, new_state: Tensor) -> None:
        """Go on from where another source, or this one, was."""
        array = array_of(new_state)
        if array.dtype != jnp.uint8 or array.shape != (8,):
            raise TypeError(f"expected the 8 bytes of a get_state(), got {array.dtype}{list(array.shape)}\n"
                            "the states of PyTorch's generators are others")
        write(self._begun(), lax.bitcast_convert_type(array.reshape(2, 4), jnp.uint32))

    def _begun(self) -> Tensor:
        if self._state is None:
            self._state = wrap(jax.random.PRNGKey(self._seed))
        return self._state

    def key(self) -> Any:
        """A new key."""
        if self._state is None:
            with jax.ensure_compile_time_eval():
                self._state = wrap(jax.random.PRNGKey(self._seed))
        state, key = _split(array_of(self._state))
        write(self._state, state)
        return key


_split = jax.jit(lambda state: tuple(jax.random.split(state)), inline=True)
default_generator = Generator().manual_seed(int.from_bytes(os.urandom(4), "little"))


@function
def manual_seed(seed: int) -> Generator:
    """Start the random numbers of the process from a seed."""
    return default_generator.manual_seed(seed)


@function
def get_rng_state() -> Tensor:
    """Where the random numbers of the process are: to be saved with a checkpoint."""
    return default_generator.get_state()


@function
def set_rng_state(new_state: Tensor) -> None:
    """Let the random numbers of the process go on from where they were."""
    default_generator.set_state(new_state)


@functools.lru_cache(maxsize=1024)
def _drawer(kind: str, shape: tuple[int, ...], dtype: Any, *bounds: Any) -> Any:
    draws = dict(
        rand=lambda key: jax.random.uniform(key, shape, dtype),
        randn=lambda key: jax.random.normal(key, shape, dtype),
        randint=lambda key: jax.random.randint(key, shape, bounds[0], bounds[1], dtype),
        perm=lambda key: jax.random.permutation(key, bounds[0]).astype(dtype),
        bernoulli=lambda key: jax.random.bernoulli(key, bounds[0], shape).astype(dtype),
    )
    return jax.jit(draws[kind], inline=True)


def draw(kind: str, shape: tuple[int, ...], dtype: Any, *bounds: Any, generator: Generator | None = None) -> Any:
    """Random values: uniform, normal, whole numbers, a permutation, or ones with a probability."""
    return _drawer(kind, tuple(shape), dtype, *bounds)((generator or default_generator).key())


@function
def rand(*size: Any, generator: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Uniform random numbers from 0 to 1."""
    return finished(draw("rand", _sizes(size), _float(dtype), generator=generator), requires_grad, device)


@function
def randn(*size: Any, generator: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Normal random numbers."""
    return finished(draw("randn", _sizes(size), _float(dtype), generator=generator), requires_grad, device)


@function
def randint(low: int, high: Any, size: Any = None, *, generator: Any = None, dtype: Any = None, device: Any = None) -> Tensor:
    """Random whole numbers from ``low`` up to, and without, ``high``."""
    if size is None:
        low, high, size = 0, low, high
    return finished(draw("randint", _sizes((size,)), numpy_of(dtype or dtypes.int64), low, high, generator=generator), False, device)


@function
def randperm(n: int, *, generator: Any = None, dtype: Any = None) -> Tensor:
    """The numbers below ``n`` in random order."""
    return finished(draw("perm", (n,), numpy_of(dtype or dtypes.int64), n, generator=generator))


def _like(name: str) -> None:
    make = FUNCTIONS[name]

    def like(input: Tensor, *args: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:  # noqa: A002
        size: tuple[Any, ...] = (tuple(input.shape), *args) if name == "full" else tuple(input.shape)
        return make(*size, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)

    like.__name__, like.__doc__ = f"{name}_like", f"As ``{name}``, with the shape and dtype of a tensor."
    function(like)

    def new(self: Tensor, *args: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        return make(*args, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)

    new.__name__, new.__doc__ = f"new_{name}", f"As ``{name}``, with the dtype of this tensor."
    method(new)


for _name in ("zeros", "ones", "empty", "full", "rand", "randn"):
    _like(_name)


def _filled(kind: str, moved: Any) -> Any:
    def fill(self: Tensor, a: float = 0.0, b: float = 1.0, *, generator: Any = None) -> Tensor:

        if mode.grad and self._requires_grad:
            check_may_change(self)
        array = array_of(self)
        write(self, moved(draw(kind, array.shape, array.dtype, generator=generator), a, b))
        return self

    return fill


Tensor.normal_ = _filled("randn", lambda z, mean, std: mean + std * z)  # type: ignore[attr-defined]
Tensor.uniform_ = _filled("rand", lambda u, low, high: low + (high - low) * u)  # type: ignore[attr-defined]
