"""Random tensors: uniform, normal, integers, permutations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Device, DType
from dualrev.eager.core.caches import caches
from dualrev.eager.core.evaluation import Evaluation
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.arguments import OUT, taking
from dualrev.eager.ops.creation import LIKE, dtype_for, finished, like
from dualrev.eager.ops.generator import Generator, default_generator, key_from
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
def _drawer(kind: str, shape: tuple[int, ...], dtype: np.dtype) -> Evaluation:
    """The evaluation of random values from the words of a key, and from bounds."""
    draws: dict[str, Callable[..., jax.Array]] = dict(
        rand=lambda key: _uniform(key, shape, dtype),
        randn=lambda key: jax.random.normal(key, shape, dtype),
        randint=lambda key, low, high: jax.random.randint(key, shape, low, high, dtypes.long_dtype()).astype(dtype),
        perm=lambda key: jax.random.permutation(key, shape[0]).astype(dtype),
        bernoulli=lambda key, p: jax.random.bernoulli(key, jnp.asarray(p, jnp.float32), shape).astype(dtype),
        exponential=lambda key: jax.random.exponential(key, shape, dtype),
        cauchy=lambda key: jax.random.cauchy(key, shape, dtype),
        gumbel=lambda key: jax.random.gumbel(key, shape, dtype),
    )
    return Evaluation(lambda words, *bounds: draws[kind](key_from(words), *bounds))


def _uniform(key: jax.Array, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
    if not jnp.issubdtype(dtype, jnp.complexfloating):
        return jax.random.uniform(key, shape, dtype)
    parts = jax.random.uniform(key, (2, *shape), jnp.finfo(dtype).dtype)
    return lax.complex(parts[0], parts[1])


def draw(kind: str, shape: Sequence[int], dtype: np.dtype, *bounds: Any, generator: Generator | None = None) -> jax.Array:
    """An array of random values of a kind that ``_drawer`` lists."""
    return _drawer(kind, tuple([int(n) for n in shape]), np.dtype(dtype))((generator or default_generator).key(), *bounds)


def floating(dtype: np.dtype, kernel: str) -> np.dtype:
    """The dtype, if it is a float; the refusal names PyTorch's kernel.

    Raises:
      NotImplementedError: it is not.
    """
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise NotImplementedError(f'"{kernel}" not implemented for \'{dtypes.type_name(dtype)}\'\n'
                                  "random numbers that are not whole need a dtype of floating point; torch.randint draws whole ones")
    return dtype


def whole(shape: Sequence[int], dtype: np.dtype, low: int, high: int, generator: Generator | None) -> jax.Array:
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
    most = np.iinfo(np.int64).max
    return draw("randint", shape, dtype, low, min(high, most), generator=generator)


# PyTorch lists each function that takes a generator twice, with it and without.
_GENERATOR = "torch.Generator? generator, "


def _with_and_without(before: str, after: str) -> tuple[str, str]:
    return f"{before}, *, {_GENERATOR}{after}", f"{before}, *, {after}"


@function
@taking(*_with_and_without("tuple of ints size", OUT))
def rand(size: Sequence[int], *, generator: Generator | None = None, out: Tensor | None = None, dtype: DType | None = None,
         device: Device | None = None, requires_grad: bool = False) -> Tensor:
    """Uniform random numbers from 0 to 1."""
    kind = floating(dtype_for(dtype, out), "check_uniform_bounds")
    return finished(draw("rand", size, kind, generator=generator), requires_grad, device, out, "rand")


@function
@taking(*_with_and_without("tuple of ints size", OUT))
def randn(size: Sequence[int], *, generator: Generator | None = None, out: Tensor | None = None, dtype: DType | None = None,
          device: Device | None = None, requires_grad: bool = False) -> Tensor:
    """Normal random numbers.

    >>> from dualrev import eager as torch
    >>> torch.randn(2, 3).shape, torch.randn(size=(), requires_grad=True).requires_grad
    (torch.Size([2, 3]), True)
    """
    kind = floating(dtype_for(dtype, out), "normal_kernel_cpu")
    return finished(draw("randn", size, kind, generator=generator), requires_grad, device, out, "randn")


@function
@taking(*_with_and_without("int high, tuple of ints size", OUT), *_with_and_without("int low, int high, tuple of ints size", OUT))
def randint(high: int, size: Sequence[int], low: int = 0, *, generator: Generator | None = None, out: Tensor | None = None,
            dtype: DType | None = None, device: Device | None = None, requires_grad: bool = False) -> Tensor:
    """Random integers from ``low`` (0) up to, and without, ``high``."""
    kind = dtype_for(dtype, out, dtypes.int64)
    return finished(whole(size, kind, low, high, generator), requires_grad, device, out, "randint")


@function
@taking(*_with_and_without("int n", OUT))
def randperm(n: int, *, generator: Generator | None = None, out: Tensor | None = None, dtype: DType | None = None,
             device: Device | None = None, requires_grad: bool = False) -> Tensor:
    """A random permutation of the integers below ``n``."""
    if n < 0:
        raise RuntimeError(f"Trying to create tensor with negative dimension {n}: [{n}]")
    array = draw("perm", (int(n),), dtype_for(dtype, out, dtypes.int64), generator=generator)
    return finished(array, requires_grad, device, out, "randperm")


@function
@taking(*_with_and_without("Tensor input", LIKE))
def rand_like(input: Tensor, *, generator: Generator | None = None, dtype: DType | None = None, device: Device | None = None,  # noqa: A002
              requires_grad: bool = False) -> Tensor:
    """As ``rand``, with the shape and dtype of a tensor."""
    return rand(input.shape, generator=generator, **like(input, dtype, device), requires_grad=requires_grad)


@function
@taking(*_with_and_without("Tensor input", LIKE))
def randn_like(input: Tensor, *, generator: Generator | None = None, dtype: DType | None = None, device: Device | None = None,  # noqa: A002
               requires_grad: bool = False) -> Tensor:
    """As ``randn``, with the shape and dtype of a tensor."""
    return randn(input.shape, generator=generator, **like(input, dtype, device), requires_grad=requires_grad)


@function
@taking(*_with_and_without("Tensor input, int low, int high", LIKE), *_with_and_without("Tensor input, Tensor high", LIKE),
        *_with_and_without("Tensor input, int high", LIKE))
def randint_like(input: Tensor, high: int | Tensor, low: int = 0, *, generator: Generator | None = None, dtype: DType | None = None,  # noqa: A002
                 device: Device | None = None, requires_grad: bool = False) -> Tensor:
    """As ``randint``, with the shape and dtype of a tensor."""
    return randint(low, int(high), input.shape, generator=generator, **like(input, dtype, device), requires_grad=requires_grad)
