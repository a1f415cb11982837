"""Random tensors: uniform, normal, integers, permutations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dualrev.eager.core import dtypes
from dualrev.eager.core.caches import caches
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.arguments import OUT, taking
from dualrev.eager.ops.creation import LIKE, dtype_for, finished, like
from dualrev.eager.ops.generator import Generator, default_generator
from dualrev.eager.ops.registry import function


@function
def manual_seed(seed: int) -> Generator:
    """Start the random numbers of the process from a seed."""
    return default_generator.manual_seed(seed)


@function
def seed() -> int:
    """Start the random numbers of the process from a seed that the system draws, and return it."""
    return default_generator.seed()


@function
def initial_seed() -> int:
    """The seed that the random numbers of the process started from."""
    return default_generator.initial_seed()


@function
def get_rng_state() -> Tensor:
    """The state of the random numbers of the process, to be saved with a checkpoint."""
    return default_generator.get_state()


@function
def set_rng_state(new_state: Tensor) -> None:
    """Continue the random numbers of the process from a saved state."""
    default_generator.set_state(new_state)


@caches.memoized
def _drawer(kind: str, shape: tuple[int, ...], dtype: Any, *bounds: Any) -> Any:
    """A compiled function from a key to random values."""
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
    return caches.jit(draws[kind], inline=True)


def _uniform(key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    if not jnp.issubdtype(dtype, jnp.complexfloating):
        return jax.random.uniform(key, shape, dtype)
    parts = jax.random.uniform(key, (2, *shape), jnp.finfo(dtype).dtype)
    return lax.complex(parts[0], parts[1])


def draw(kind: str, shape: tuple[int, ...], dtype: Any, *bounds: Any, generator: Generator | None = None) -> Any:
    """An array of random values of a kind that ``_drawer`` lists."""
    return _drawer(kind, tuple(shape), dtype, *bounds)((generator or default_generator).key())


def floating(dtype: Any, kernel: str) -> Any:
    """The dtype, if it is a float; the refusal names PyTorch's kernel.

    Raises:
      NotImplementedError: it is not.
    """
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise NotImplementedError(f'"{kernel}" not implemented for \'{dtypes.type_name(dtype)}\'\n'
                                  "random numbers that are not whole need a dtype of floating point; torch.randint draws whole ones")
    return dtype


def whole(shape: tuple[int, ...], dtype: Any, low: int, high: int, generator: Generator | None) -> Any:
    """Random integers from ``low`` up to, and without, ``high``.

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
                raise RuntimeError(f"{name} is out of bounds for {dtypes.cpp_name(dtype)}\n"
                                   f"{value} is not from {bounds.min} to {bounds.max}")
    wide = jax.dtypes.canonicalize_dtype(jnp.int64)
    if high - 1 > jnp.iinfo(wide).max or low < jnp.iinfo(wide).min:
        raise RuntimeError(f"whole numbers up to {high} need 64-bit arithmetic, which is off\n"
                           "call jax.config.update('jax_enable_x64', True) at the start of the program")
    return draw("randint", shape, dtype, low, high, wide, generator=generator)


# PyTorch lists each function that takes a generator twice, with it and without.
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
    """Random integers from ``low`` (0) up to, and without, ``high``."""
    kind = dtype_for(dtype, out, dtypes.int64)
    return finished(whole(size, kind, low, high, generator), requires_grad, device, out, "randint")


@function
@taking(*_with_and_without("int n", OUT))
def randperm(n: int, *, generator: Any = None, out: Any = None, dtype: Any = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:
    """A random permutation of the integers below ``n``."""
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
