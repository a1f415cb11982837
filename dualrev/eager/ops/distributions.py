"""Random tensors with the parameters of their distributions in tensors, and tensors filled with random numbers in place."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dualrev._jax.traces import Tracer
from dualrev.eager.core import dtypes
from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.inplace import change
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, wrap
from dualrev.eager.ops.arguments import OPTIONS, taking
from dualrev.eager.ops.checks import broadcast
from dualrev.eager.ops.creation import finished
from dualrev.eager.ops.generator import Generator, default_generator
from dualrev.eager.ops.outputs import all_into
from dualrev.eager.ops.registry import both, function, method
from dualrev.eager.ops.sampling import draw, floating, randn, whole

_DRAW = "torch.Generator generator = None"
_INTO = f"{_DRAW}, Tensor out = None"


def _given(result: Tensor, out: Tensor | None, name: str) -> Tensor:
    return result if out is None else all_into(out, result, name)


def _holds(condition: Any, error: str) -> None:
    """Raise where a condition is known to be false."""
    if not isinstance(condition, Tracer) and not bool(np.all(np.asarray(condition))):
        raise RuntimeError(error)


def _spread(x: Any, z: Any) -> Any:
    return jnp.broadcast_to(jnp.asarray(x).astype(z.dtype), z.shape)


# The gradient of a draw with respect to the parameters of its distribution is zero, as PyTorch has it.
_NORMAL = Op("Normal", lambda mean, std, z: lax.stop_gradient(_spread(mean, z) + _spread(std, z) * z))
_BERNOULLI = Op("Bernoulli", lambda p, u: lax.stop_gradient((u < p).astype(p.dtype)))
_POISSON = Op("Poisson", lambda rate, drawn: lax.stop_gradient(drawn.astype(rate.dtype)))


@function
@taking(f"Tensor mean, Tensor std, *, {_INTO}", f"Tensor mean, float std = 1, *, {_INTO}", f"float mean, Tensor std, *, {_INTO}",
        f"float mean, float std, tuple of ints size, *, {_INTO}, {OPTIONS}")
def normal(mean: Any, std: Any = 1, size: Any = None, *, generator: Any = None, out: Any = None, dtype: Any = None,
           device: Any = None, requires_grad: bool = False) -> Tensor:
    """Normal random numbers: one for each entry of the means and standard deviations, or ``size`` of them."""
    _check_std(std)
    if size is not None:
        made = randn(size, generator=generator, out=out, dtype=dtype, device=device)
        return made.mul_(std).add_(mean).requires_grad_(requires_grad)
    of = mean if isinstance(mean, Tensor) else std
    floating(array_of(of).dtype, "normal_kernel_cpu")
    arrays = [array_of(x) for x in (mean, std) if isinstance(x, Tensor)]
    broadcast(*arrays)
    z = wrap(draw("randn", np.broadcast_shapes(*[x.shape for x in arrays]), array_of(of).dtype, generator=generator))
    return _given(apply(_NORMAL, (mean, std, z)), out, "normal")


def _check_std(std: Any, words: str = "normal expects std >= 0.0, but found std {}") -> None:
    if not isinstance(std, Tensor):
        _holds(std >= 0, words.format(_short(std)))
    elif not isinstance(array_of(std), Tracer):
        _holds(array_of(std) >= 0, "normal expects all elements of std >= 0.0")


def _short(x: Any) -> str:
    """A number as C++ prints it."""
    return f"{x:g}" if isinstance(x, (int, float)) else str(x)


@both
@taking(f"Tensor input, *, {_INTO}", f"Tensor input, float p, *, {_DRAW}")
def bernoulli(input: Tensor, p: float | None = None, *, generator: Any = None, out: Any = None) -> Tensor:  # noqa: A002
    """Bernoulli random numbers, with the probabilities in a tensor, or with probability ``p``."""
    array = array_of(input)
    if p is None:
        floating(array.dtype, "bernoulli_tensor_cpu_p_")
        _holds((array >= 0) & (array <= 1), "Expected p_in >= 0 && p_in <= 1 to be true, but got false.\nthe input holds probabilities")
        return _given(apply(_BERNOULLI, (input, wrap(draw("rand", array.shape, array.dtype, generator=generator)))), out, "bernoulli")
    return finished(draw("bernoulli", array.shape, array.dtype, _probability("bernoulli_", p), generator=generator))


def _probability(name: str, p: Any) -> float:
    p = float(p)
    if not 0 <= p <= 1:
        raise RuntimeError(f"{name} expects p to be in [0, 1], but got p={_short(p)}")
    return p


@function
@taking("Tensor input, torch.Generator generator = None")
def poisson(input: Tensor, generator: Any = None) -> Tensor:  # noqa: A002
    """Poisson random numbers of these rates."""
    rate = array_of(input)
    floating(rate.dtype, "poisson_cpu")
    _holds(rate >= 0, "invalid Poisson rate, expected rate to be non-negative")
    drawn = jax.random.poisson((generator or default_generator).key(), rate, rate.shape)
    return apply(_POISSON, (input, wrap(drawn)))


@both
@taking(f"Tensor input, int num_samples, bool replacement = False, *, {_INTO}")
def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *, generator: Any = None, out: Any = None) -> Tensor:  # noqa: A002
    """Indices drawn with the weights in each row, with or without replacement.

    Raises:
      RuntimeError: a row has no weights, or fewer entries than are drawn without replacement.
    """
    weights = array_of(input)
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
    _holds(jnp.isfinite(weights) & (weights >= 0), "probability tensor contains either `inf`, `nan` or element < 0")
    _holds(weights.sum(-1) > 0, "invalid multinomial distribution (sum of probabilities <= 0)")
    # Gumbel trick: the argmax of log weights plus Gumbel noise has the distribution of the weights; the next largest is the next draw.
    shape = (*weights.shape[:-1], num_samples, weights.shape[-1]) if replacement else weights.shape
    noise = draw("gumbel", shape, weights.dtype, generator=generator)
    logs = jnp.log(weights)
    found = jnp.argmax(logs[..., None, :] + noise, -1) if replacement else lax.top_k(logs + noise, int(num_samples))[1]
    return _given(wrap(found.astype(dtypes.numpy_of(dtypes.int64))), out, "multinomial")


# ----------------------------------------------------------------------------------------------------------------- in place

# A tensor that is filled depends on nothing: the gradient of its old value is zero.
_FILLED = family("Fill", lambda x, values: lax.stop_gradient(values.astype(x.dtype)))


def _fill(t: Tensor, values: Any) -> Tensor:
    return change(t, _FILLED(), (wrap(values),))


def _draws(t: Tensor, kind: str, kernel: str, generator: Generator | None) -> Any:
    array = array_of(t)
    return draw(kind, array.shape, floating(array.dtype, kernel), generator=generator)


def _fills(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: a method that fills a tensor with the array that the function returns."""
    def decorate(fun: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fun)
        def filled(self: Tensor, **named: Any) -> Tensor:
            return _fill(self, fun(self, **named))

        del filled.__wrapped__  # type: ignore[attr-defined]  # the function that is called has the method's arguments, not its
        return method(taking(f"{signature}, *, {_DRAW}", method=True)(filled))

    return decorate


@_fills("float mean = 0.0, float std = 1.0")
def normal_(self: Tensor, mean: Any = 0.0, std: Any = 1.0, generator: Any = None) -> Any:
    """Normal random numbers, in place."""
    _check_std(std)
    z = _draws(self, "randn", "normal_kernel_cpu", generator)
    return jnp.asarray(float(mean), z.dtype) + jnp.asarray(float(std), z.dtype) * z


@_fills("float from = 0.0, float to = 1.0")
def uniform_(self: Tensor, to: Any = 1.0, generator: Any = None, **named: Any) -> Any:
    """Uniform random numbers from ``from`` to ``to``, in place."""
    low = named.get("from", 0.0)
    u = _draws(self, "rand", "check_uniform_bounds", generator)
    if low > to:
        raise RuntimeError(f"uniform_ expects to return a [from, to) range, but found from={_short(low)} > to={_short(to)}")
    return jnp.asarray(float(low), u.dtype) + jnp.asarray(float(to) - float(low), u.dtype) * u


@_fills("float lambd = 1.0")
def exponential_(self: Tensor, lambd: Any = 1.0, generator: Any = None) -> Any:
    """Exponential random numbers of a rate, in place."""
    if lambd <= 0:
        raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={_short(lambd)}")
    drawn = _draws(self, "exponential", "exponential_cpu", generator)
    return drawn / jnp.asarray(float(lambd), drawn.dtype)


@_fills("float mean = 1.0, float std = 2.0")
def log_normal_(self: Tensor, mean: Any = 1.0, std: Any = 2.0, generator: Any = None) -> Any:
    """Random numbers whose logarithms are normal, in place."""
    if std <= 0:
        raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={_short(std)}")
    z = _draws(self, "randn", "log_normal_cpu", generator)
    return jnp.exp(jnp.asarray(float(mean), z.dtype) + jnp.asarray(float(std), z.dtype) * z)


@_fills("float median = 0.0, float sigma = 1.0")
def cauchy_(self: Tensor, median: Any = 0.0, sigma: Any = 1.0, generator: Any = None) -> Any:
    """Cauchy random numbers, in place."""
    if sigma <= 0:
        raise RuntimeError(f"cauchy_ expects sigma > 0.0, but found sigma={_short(sigma)}")
    z = _draws(self, "cauchy", "cauchy_cpu", generator)
    return jnp.asarray(float(median), z.dtype) + jnp.asarray(float(sigma), z.dtype) * z


@_fills("float p")
def geometric_(self: Tensor, p: Any, generator: Any = None) -> Any:
    """The number of trials until an event of probability ``p`` occurs, in place."""
    if not 0 < p < 1:
        raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={_short(p)}")
    u = draw("rand", array_of(self).shape, jnp.float32, generator=generator)
    return jnp.maximum(jnp.ceil(jnp.log1p(-u) / jnp.log1p(jnp.float32(-p))), 1).astype(array_of(self).dtype)


@method
@taking(f"Tensor p, *, {_DRAW}", f"float p = 0.5, *, {_DRAW}", method=True)
def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Any = None) -> Tensor:
    """Bernoulli random numbers with one probability, or one for each entry, in place."""
    array = array_of(self)
    if isinstance(p, Tensor):
        return _fill(self, array_of(bernoulli(p.detach().expand(self.shape), generator=generator)))
    return _fill(self, draw("bernoulli", array.shape, array.dtype, _probability("bernoulli_", p), generator=generator))


@method
@taking(f"*, {_DRAW}", f"int to, *, {_DRAW}", f"int from, int? to, *, {_DRAW}", method=True)
def random_(self: Tensor, to: Any = None, generator: Any = None, **named: Any) -> Tensor:
    """Integers from ``from`` (0) up to, and without, ``to``, by default the largest that the dtype holds exactly; in place."""
    array = array_of(self)
    if to is None:
        most = 2 ** (jnp.finfo(array.dtype).nmant + 1) + 1 if array.dtype.kind in "fV" else jnp.iinfo(array.dtype).max if (
            array.dtype.kind in "iu") else 2
        to = min(most, jnp.iinfo(dtypes.numpy_of(dtypes.int64)).max)
    return _fill(self, whole(array.shape, array.dtype, named.get("from", 0), to, generator))
