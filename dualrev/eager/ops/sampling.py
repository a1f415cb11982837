"""Random tensors."""

from __future__ import annotations

import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dualrev.eager.core import dtypes
from dualrev.eager.core.modes import mode
from dualrev.eager.graph.inplace import write
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.arguments import OUT, taking
from dualrev.eager.ops.checks import cpp
from dualrev.eager.ops.creation import LIKE, dtype_for, finished, like
from dualrev.eager.ops.registry import function


class Generator:
    """A source of random numbers: a key that each draw replaces."""

    def __init__(self, device: Any = "cpu"):
        self.device = dtypes.device(device)
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

    def seed(self) -> int:
        """Start from a number that the system draws, and return it."""
        drawn = int.from_bytes(os.urandom(4), "little")
        self.manual_seed(drawn)
        return drawn

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
            with jax.ensure_compile_time_eval():
                self._state = wrap(jax.random.PRNGKey(self._seed))
        return self._state

    def key(self) -> Any:
        """A new key; under ``vmap``, one for all examples or for each, as it says."""
        for randomness, _ in mode.examples:
            if randomness == "error":
                raise RuntimeError("vmap: called random operation while in randomness error mode. Please either use the 'same' or "
                                   "'different' randomness flags on vmap or perform the randomness operation out of vmap")
        kept = self._begun()
        state, key = _split(array_of(kept))
        write(kept, state)
        for randomness, example in mode.examples:
            if randomness == "different" and example is not None:
                key = jax.random.fold_in(key, example)
        return key


_split = jax.jit(lambda state: tuple(jax.random.split(state)), inline=True)
default_generator = Generator().manual_seed(int.from_bytes(os.urandom(4), "little"))


@function
def manual_seed(seed: int) -> Generator:
    """Start the random numbers of the process from a seed."""
    return default_generator.manual_seed(seed)


@function
def seed() -> int:
    """Start the random numbers of the process from a number that the system draws, and return it."""
    return default_generator.seed()


@function
def initial_seed() -> int:
    """The seed that the random numbers of the process started from."""
    return default_generator.initial_seed()


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
        rand=lambda key: _uniform(key, shape, dtype),
        randn=lambda key: jax.random.normal(key, shape, dtype),
        randint=lambda key: jax.random.randint(key, shape, bounds[0], bounds[1], bounds[2]).astype(dtype),
        perm=lambda key: jax.random.permutation(key, bounds[0]).astype(dtype),
        bernoulli=lambda key: jax.random.bernoulli(key, bounds[0], shape).astype(dtype),
        exponential=lambda key: jax.random.exponential(key, shape, dtype),
        cauchy=lambda key: jax.random.cauchy(key, shape, dtype),
        gumbel=lambda key: jax.random.gumbel(key, shape, dtype),
    )
    return jax.jit(draws[kind], inline=True)


def _uniform(key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    if not jnp.issubdtype(dtype, jnp.complexfloating):
        return jax.random.uniform(key, shape, dtype)
    parts = jax.random.uniform(key, (2, *shape), jnp.finfo(dtype).dtype)
    return lax.complex(parts[0], parts[1])


def draw(kind: str, shape: tuple[int, ...], dtype: Any, *bounds: Any, generator: Generator | None = None) -> Any:
    """Random values: uniform, normal, whole numbers, a permutation, ones with a probability, and of other distributions."""
    return _drawer(kind, tuple(shape), dtype, *bounds)((generator or default_generator).key())


def floating(dtype: Any, kernel: str) -> Any:
    """The dtype, if it is of floating point; the refusal names PyTorch's kernel.

    Raises:
      NotImplementedError: it is not.
    """
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise NotImplementedError(f'"{kernel}" not implemented for \'{dtypes.type_name(dtype)}\'\n'
                                  "random numbers that are not whole need a dtype of floating point; torch.randint draws whole ones")
    return dtype


def whole(shape: tuple[int, ...], dtype: Any, low: int, high: int, generator: Generator | None) -> Any:
    """Whole numbers from ``low`` up to, and without, ``high``.

    Raises:
      RuntimeError: there are none, or the dtype does not hold them.
    """
    low, high = int(low), int(high)
    if low >= high:
        raise RuntimeError(f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}")
    if dtype.kind in "iu":
        bounds = jnp.iinfo(dtype)
        for name, value in (("from", low), ("to - 1", high - 1)):
            if not bounds.min <= value <= bounds.max:
                raise RuntimeError(f"{name} is out of bounds for {cpp(dtype)}\n{value} is not from {bounds.min} to {bounds.max}")
    wide = jax.dtypes.canonicalize_dtype(jnp.int64)
    if high - 1 > jnp.iinfo(wide).max or low < jnp.iinfo(wide).min:
        raise RuntimeError(f"whole numbers up to {high} need 64-bit arithmetic, which is off\n"
                           "call jax.config.update('jax_enable_x64', True) at the start of the program")
    return draw("randint", shape, dtype, low, high, wide, generator=generator)


# PyTorch lists each function of a generator twice; the second time it has none.
_GENERATOR = "torch.Generator? generator, "


def _with_and_without(before: str, after: str) -> tuple[str, str]:
    return f"{before}, *, {_GENERATOR}{after}", f"{before}, *, {after}"


@function
@taking(*_with_and_without("tuple of ints size", OUT))
def rand(size: Any, *, generator: Any = None, out: Any = None, dtype: Any = None, device: Any = None,
         requires_grad: bool = False) -> Tensor:
    """Uniform random numbers from 0 to 1."""
    kind = floating(dtype_for(dtype, out), "check_uniform_bounds")
    return finished(draw("rand", size, kind, generator=generator), requires_grad, device, out, "rand")


@function
@taking(*_with_and_without("tuple of ints size", OUT))
def randn(size: Any, *, generator: Any = None, out: Any = None, dtype: Any = None, device: Any = None,
          requires_grad: bool = False) -> Tensor:
    """Normal random numbers.

    >>> from dualrev import eager as torch
    >>> torch.randn(2, 3).shape, torch.randn(size=(), requires_grad=True).requires_grad
    (torch.Size([2, 3]), True)
    """
    kind = floating(dtype_for(dtype, out), "normal_kernel_cpu")
    return finished(draw("randn", size, kind, generator=generator), requires_grad, device, out, "randn")


@function
@taking(*_with_and_without("int high, tuple of ints size", OUT), *_with_and_without("int low, int high, tuple of ints size", OUT))
def randint(high: int, size: Any, low: int = 0, *, generator: Any = None, out: Any = None, dtype: Any = None, device: Any = None,
            requires_grad: bool = False) -> Tensor:
    """Random whole numbers from ``low``, or 0, up to, and without, ``high``."""
    kind = dtype_for(dtype, out, dtypes.int64)
    return finished(whole(size, kind, low, high, generator), requires_grad, device, out, "randint")


@function
@taking(*_with_and_without("int n", OUT))
def randperm(n: int, *, generator: Any = None, out: Any = None, dtype: Any = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    """The numbers below ``n`` in random order."""
    if n < 0:
        raise RuntimeError(f"Trying to create tensor with negative dimension {n}: [{n}]")
    array = draw("perm", (int(n),), dtype_for(dtype, out, dtypes.int64), int(n), generator=generator)
    return finished(array, requires_grad, device, out, "randperm")


@function
@taking(*_with_and_without("Tensor input", LIKE))
def rand_like(input: Tensor, *, generator: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:  # noqa: A002
    """As ``rand``, with the shape and dtype of a tensor."""
    return rand(input.shape, generator=generator, **like(input, dtype, device), requires_grad=requires_grad)


@function
@taking(*_with_and_without("Tensor input", LIKE))
def randn_like(input: Tensor, *, generator: Any = None, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:  # noqa: A002
    """As ``randn``, with the shape and dtype of a tensor."""
    return randn(input.shape, generator=generator, **like(input, dtype, device), requires_grad=requires_grad)


@function
@taking(*_with_and_without("Tensor input, int low, int high", LIKE), *_with_and_without("Tensor input, Tensor high", LIKE),
        *_with_and_without("Tensor input, int high", LIKE))
def randint_like(input: Tensor, high: Any, low: int = 0, *, generator: Any = None, dtype: Any = None, device: Any = None,  # noqa: A002
                 requires_grad: bool = False) -> Tensor:
    """As ``randint``, with the shape and dtype of a tensor."""
    return randint(low, int(high), input.shape, generator=generator, **like(input, dtype, device), requires_grad=requires_grad)
