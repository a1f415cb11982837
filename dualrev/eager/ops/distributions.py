"""Random tensors with the parameters of their distributions in tensors, and tensors filled with random numbers in place."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev._jax.traces import Tracer
from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Device, DType
from dualrev.eager.core.caches import caches
from dualrev.eager.core.evaluation import Evaluation, cast
from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.inplace import change
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.arguments import OPTIONS, taking
from dualrev.eager.ops.checks import broadcast
from dualrev.eager.ops.creation import finished
from dualrev.eager.ops.generator import Generator, default_generator, key_from
from dualrev.eager.ops.outputs import all_into
from dualrev.eager.ops.registry import both, function, method
from dualrev.eager.ops.sampling import draw, floating, randn, whole

_DRAW = "torch.Generator generator = None"
_INTO = f"{_DRAW}, Tensor out = None"


def _given(result: Tensor, out: Tensor | None, name: str) -> Tensor:
    return result if out is None else all_into(out, result, name)


def _holds(condition: bool | jax.Array, error: str) -> None:
    """Raise where a condition is known to be false."""
    if not isinstance(condition, Tracer) and not bool(np.all(np.asarray(condition))):
        raise RuntimeError(error)


def _known(t: Tensor) -> Any:
    """The value of a tensor as numpy's array, unless it is being traced."""
    array = array_of(t)
    return array if isinstance(array, Tracer) else np.asarray(array)


def _spread(x: float | jax.Array, z: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.asarray(x).astype(z.dtype), z.shape)


# The gradient of a draw with respect to the parameters of its distribution is zero, as PyTorch has it.
_NORMAL = Op("Normal", lambda mean, std, z: lax.stop_gradient(_spread(mean, z) + _spread(std, z) * z))
_BERNOULLI = Op("Bernoulli", lambda p, u: lax.stop_gradient((u < p).astype(p.dtype)))
_POISSON_DRAW = Evaluation(lambda words, rate: jax.random.poisson(key_from(words), rate, rate.shape))
#: A number plus a multiple of random values, in their dtype.
_SCALED = Evaluation(lambda z, shift, factor: shift + factor * z)
_EXP = Evaluation(jnp.exp)
_TRIALS = Evaluation(lambda u, p: jnp.maximum(jnp.ceil(jnp.log1p(-u) / jnp.log1p(-p)), 1))
_POISSON = Op("Poisson", lambda rate, drawn: lax.stop_gradient(drawn.astype(rate.dtype)))


@function
@taking(f"Tensor mean, Tensor std, *, {_INTO}", f"Tensor mean, float std = 1, *, {_INTO}", f"float mean, Tensor std, *, {_INTO}",
        f"float mean, float std, tuple of ints size, *, {_INTO}, {OPTIONS}")
def normal(mean: float | Tensor, std: float | Tensor = 1, size: Sequence[int] | None = None, *, generator: Generator | None = None,
           out: Tensor | None = None, dtype: DType | None = None, device: Device | None = None, requires_grad: bool = False) -> Tensor:
    """Normal random numbers: one for each entry of the means and standard deviations, or ``size`` of them."""
    _check_std(std)
    if size is not None:
        made = randn(size, generator=generator, out=out, dtype=dtype, device=device)
        return made.mul_(std).add_(mean).requires_grad_(requires_grad)
    arrays = [array_of(x) for x in (mean, std) if isinstance(x, Tensor)]
    floating(arrays[0].dtype, "normal_kernel_cpu")
    broadcast(*arrays)
    z = wrap(draw("randn", np.broadcast_shapes(*[x.shape for x in arrays]), arrays[0].dtype, generator=generator))
    return _given(apply(_NORMAL, (mean, std, z)), out, "normal")


def _check_std(std: float | Tensor, words: str = "normal expects std >= 0.0, but found std {}") -> None:
    if not isinstance(std, Tensor):
        _holds(std >= 0, words.format(_short(std)))
    elif not isinstance(array_of(std), Tracer):
        _holds(array_of(std) >= 0, "normal expects all elements of std >= 0.0")


def _short(x: object) -> str:
    """A number as C++ prints it."""
    return f"{x:g}" if isinstance(x, (int, float)) else str(x)


@both
@taking(f"Tensor input, *, {_INTO}", f"Tensor input, float p, *, {_DRAW}")
def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None, out: Tensor | None = None) -> Tensor:  # noqa: A002
    """Bernoulli random numbers, with the probabilities in a tensor, or with probability ``p``."""
    array = _known(input)
    if p is None:
        floating(array.dtype, "bernoulli_tensor_cpu_p_")
        _holds((array >= 0) & (array <= 1), "Expected p_in >= 0 && p_in <= 1 to be true, but got false.  (Could this error message be "
               "improved?  If so, please report an enhancement request to PyTorch.)\nthe input holds probabilities")
        return _given(apply(_BERNOULLI, (input, wrap(draw("rand", array.shape, array.dtype, generator=generator)))), out, "bernoulli")
    return finished(draw("bernoulli", array.shape, array.dtype, _probability("bernoulli_", p), generator=generator))


def _probability(name: str, p: float) -> float:
    p = float(p)
    if not 0 <= p <= 1:
        raise RuntimeError(f"{name} expects p to be in [0, 1], but got p={_short(p)}")
    return p


@function
@taking("Tensor input, torch.Generator generator = None")
def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:  # noqa: A002
    """Poisson random numbers of these rates."""
    rate = _known(input)
    floating(rate.dtype, "poisson_cpu")
    _holds(rate >= 0, "invalid Poisson rate, expected rate to be non-negative")
    drawn = _POISSON_DRAW((generator or default_generator).key(), rate)
    return apply(_POISSON, (input, wrap(drawn)))


@caches.memoized
def _chosen(without_replacement: int) -> Evaluation:
    """The places of the largest perturbed logarithms: one in each row, or so many."""
    def places(weights: jax.Array, noise: jax.Array) -> jax.Array:
        logs = jnp.log(weights)
        if not without_replacement:
            return jnp.argmax(logs[..., None, :] + noise, -1)
        return lax.top_k(logs + noise, without_replacement)[1].astype(dtypes.long_dtype())

    return Evaluation(places)


@both
@taking(f"Tensor input, int num_samples, bool replacement = False, *, {_INTO}")
def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None,  # noqa: A002
                out: Tensor | None = None) -> Tensor:
    """Indices drawn with the weights in each row, with or without replacement.

    Raises:
      RuntimeError: a row has no weights, or fewer entries than are drawn without replacement.
    """
    weights = _known(input)
    if weights.ndim not in (1, 2):
        raise RuntimeError(f"prob_dist must be 1 or 2 dim\nthe shape is {list(weights.shape)}")
    if not jnp.issubdtype(weights.dtype, jnp.floating):
        raise RuntimeError("multinomial only supports floating-point dtypes for input, got: "
                           f"{dtypes.type_name(weights.dtype)}\nconvert it first: weights.float()")
    if num_samples <= 0:
        raise RuntimeError("cannot sample n_sample <= 0 samples")
    if not replacement and num_samples > weights.shape[-1]:
        raise RuntimeError("cannot sample n_sample > prob_dist.size(-1) samples without replacement\n"
                           f"{num_samples} of {weights.shape[-1]}; replacement=True draws again and again")
    _holds(np.isfinite(weights) & (weights >= 0), "probability tensor contains either `inf`, `nan` or element < 0")
    _holds(weights.sum(-1) > 0, "invalid multinomial distribution (sum of probabilities <= 0)")
    # Gumbel trick: the argmax of log weights plus Gumbel noise has the distribution of the weights; the next largest is the next draw.
    shape = (*weights.shape[:-1], num_samples, weights.shape[-1]) if replacement else weights.shape
    noise = draw("gumbel", shape, weights.dtype, generator=generator)
    return _given(wrap(_chosen(0 if replacement else int(num_samples))(weights, noise)), out, "multinomial")


# ----------------------------------------------------------------------------------------------------------------- in place

# A tensor that is filled depends on nothing: the gradient of its old value is zero.
_FILLED = family("Fill", lambda x, values: lax.stop_gradient(values.astype(x.dtype)))


def _fill(t: Tensor, values: jax.Array) -> Tensor:
    return change(t, _FILLED(), (wrap(values),))


def _draws(t: Tensor, kind: str, kernel: str, generator: Generator | None) -> jax.Array:
    array = array_of(t)
    return draw(kind, array.shape, floating(array.dtype, kernel), generator=generator)


def _fills(signature: str) -> Callable[[Callable[..., jax.Array]], Callable[..., Tensor]]:
    """A decorator: a method that fills a tensor with the array that the function returns."""
    def decorate(fun: Callable[..., jax.Array]) -> Callable[..., Tensor]:
        @functools.wraps(fun)
        def filled(self: Tensor, **named: Any) -> Tensor:
            return _fill(self, fun(self, **named))

        del filled.__wrapped__  # the function that is called has the method's arguments, not its
        return method(taking(f"{signature}, *, {_DRAW}", method=True)(filled))

    return decorate


@_fills("float mean = 0.0, float std = 1.0")
def normal_(self: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> jax.Array:
    """Normal random numbers, in place."""
    _check_std(std)
    z = _draws(self, "randn", "normal_kernel_cpu", generator)
    return _SCALED(z, float(mean), float(std))


@_fills("float from = 0.0, float to = 1.0")
def uniform_(self: Tensor, to: float = 1.0, generator: Generator | None = None, **named: Any) -> jax.Array:
    """Uniform random numbers from ``from`` to ``to``, in place."""
    low = named.get("from", 0.0)
    u = _draws(self, "rand", "check_uniform_bounds", generator)
    if low > to:
        raise RuntimeError(f"uniform_ expects to return a [from, to) range, but found from={_short(low)} > to={_short(to)}")
    return _SCALED(u, float(low), float(to) - float(low))


@_fills("float lambd = 1.0")
def exponential_(self: Tensor, lambd: float = 1.0, generator: Generator | None = None) -> jax.Array:
    """Exponential random numbers of a rate, in place."""
    if lambd <= 0:
        raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={_short(lambd)}")
    drawn = _draws(self, "exponential", "exponential_cpu", generator)
    return _SCALED(drawn, 0.0, 1.0 / float(lambd))


@_fills("float mean = 1.0, float std = 2.0")
def log_normal_(self: Tensor, mean: float = 1.0, std: float = 2.0, generator: Generator | None = None) -> jax.Array:
    """Random numbers whose logarithms are normal, in place."""
    if std <= 0:
        raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={_short(std)}")
    z = _draws(self, "randn", "log_normal_cpu", generator)
    return _EXP(_SCALED(z, float(mean), float(std)))


@_fills("float median = 0.0, float sigma = 1.0")
def cauchy_(self: Tensor, median: float = 0.0, sigma: float = 1.0, generator: Generator | None = None) -> jax.Array:
    """Cauchy random numbers, in place."""
    if sigma <= 0:
        raise RuntimeError(f"cauchy_ expects sigma > 0.0, but found sigma={_short(sigma)}")
    z = _draws(self, "cauchy", "cauchy_cpu", generator)
    return _SCALED(z, float(median), float(sigma))


@_fills("float p")
def geometric_(self: Tensor, p: float, generator: Generator | None = None) -> jax.Array:
    """The number of trials until an event of probability ``p`` occurs, in place."""
    if not 0 < p < 1:
        raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={_short(p)}")
    u = draw("rand", array_of(self).shape, np.dtype(np.float32), generator=generator)
    return cast(_TRIALS(u, float(p)), array_of(self).dtype)


@method
@taking(f"Tensor p, *, {_DRAW}", f"float p = 0.5, *, {_DRAW}", method=True)
def bernoulli_(self: Tensor, p: float | Tensor = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Bernoulli random numbers with one probability, or one for each entry, in place."""
    array = array_of(self)
    if isinstance(p, Tensor):
        return _fill(self, array_of(bernoulli(p.detach().expand(self.shape), generator=generator)))
    return _fill(self, draw("bernoulli", array.shape, array.dtype, _probability("bernoulli_", p), generator=generator))


@method
@taking(f"*, {_DRAW}", f"int to, *, {_DRAW}", f"int from, int? to, *, {_DRAW}", method=True)
def random_(self: Tensor, to: int | None = None, generator: Generator | None = None, **named: Any) -> Tensor:
    """Integers from ``from`` (0) up to, and without, ``to``, by default the largest that the dtype holds exactly; in place."""
    array = array_of(self)
    if to is None:
        most = 2 ** (jnp.finfo(array.dtype).nmant + 1) + 1 if array.dtype.kind in "fV" else jnp.iinfo(array.dtype).max if (
            array.dtype.kind in "iu") else 2
        to = min(most, jnp.iinfo(dtypes.numpy_of(dtypes.int64)).max)
    return _fill(self, whole(array.shape, array.dtype, named.get("from", 0), to, generator))
