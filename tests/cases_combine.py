"""Cases of ``dualrev/rules/combine.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cases import RC, Case, case, distinct, fixed, normal, uniform
from jax import lax

Array = Any


def times(x: Array, y: Array) -> Array:
    return x * y


def log_add(x: Array, y: Array) -> Array:
    """Not what it is at ``(-inf, -inf)``, where the value is nan."""
    top = jnp.maximum(x, y)
    return top + jnp.log(jnp.exp(x - top) + jnp.exp(y - top))


def hypotenuse(x: Array, y: Array) -> Array:
    """The derivative at ``(0, 0)`` is nan."""
    return jnp.sqrt(x * x + y * y)


def affine(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
    """Composition, which does not commute."""
    return first[0] * second[0], second[0] * first[1] + second[1]


def best(x: tuple[Array, Array], y: tuple[Array, Array]) -> tuple[Array, Array]:
    """The larger value, and where it stands."""
    wins = x[0] >= y[0]
    return jnp.where(wins, x[0], y[0]), jnp.where(wins, x[1], y[1])


def merged(x: tuple[Array, Array], y: tuple[Array, Array]) -> tuple[Array, Array]:
    """The largest value, and the sum of exponentials relative to it."""
    top = jnp.maximum(x[0], y[0])
    return top, x[1] * jnp.exp(x[0] - top) + y[1] * jnp.exp(y[0] - top)


def reduce(operation: Callable[..., Any], initial: Any, *dimensions: int) -> Callable[..., Any]:
    def run(*xs: Array) -> Any:
        initials = tuple(jnp.asarray(i, x.dtype) for i, x in zip(np.atleast_1d(initial), xs, strict=True))
        return lax.reduce(xs, initials, lambda x, y: operation(x, y) if len(xs) > 1 else (operation(x[0], y[0]),), dimensions)
    return run


def over_windows(operation: Callable[..., Any], initial: Any, sizes: Sequence[int], strides: Sequence[int] | None = None,
                 padding: Any = "VALID", **kwargs: Any) -> Callable[..., Any]:
    def run(*xs: Array) -> Any:
        initials = tuple(np.asarray(i, x.dtype) for i, x in zip(np.atleast_1d(initial), xs, strict=True))
        return lax.reduce_window(xs, initials, lambda x, y: operation(x, y) if len(xs) > 1 else (operation(x[0], y[0]),),
                                 tuple(sizes), strides, padding, **kwargs)
    return run


def in_order(operation: Callable[..., Any], initial: Any, lists: Sequence[Sequence[int]]) -> Callable[..., Any]:
    """Entries of vectors combined one after the other."""
    def run(*xs: Array) -> Any:
        results = []
        for places in lists:
            total = tuple(jnp.asarray(i, x.dtype) for i, x in zip(np.atleast_1d(initial), xs, strict=True))
            for i in places:
                entry = tuple(x[i] for x in xs)
                total = operation(total, entry) if len(xs) > 1 else (operation(total[0], entry[0]),)
            results.append(total)
        return tuple(jnp.stack(r) for r in zip(*results, strict=True))
    return run


def windowed(operation: Callable[..., Any], initial: Any, n: int, size: int, stride: int, low: int, high: int, base: int, dilation: int,
             *makers: Any, label: str, **kwargs: Any) -> Case:
    """Windows of a vector, and the same by hand."""
    places = range(-low, (n - 1) * base + 1 + high - (size - 1) * dilation, stride)
    lists = [[p // base for p in range(start, start + size * dilation, dilation) if 0 <= p <= (n - 1) * base and p % base == 0]
             for start in places]
    return case("reduce_window", over_windows(operation, initial, [size], [stride], [(low, high)], base_dilation=[base],
                                              window_dilation=[dilation]), *makers, label=label,
                oracle=in_order(operation, initial, lists), **kwargs)


def applied(f: Callable[[Array], Array], indices: Any, x: Any, *, label: str, oracle: Callable[[Array], Array], **kwargs: Any) -> Case:
    return case("scatter", lambda x: x.at[indices].apply(f, **kwargs), x, label=f"apply, {label}", oracle=oracle)


def sine_twice(x: Array) -> Array:
    """What applying the sine at 1, 3, 1 gives."""
    return x.at[1].set(jnp.sin(jnp.sin(x[1]))).at[3].set(jnp.sin(x[3]))


INF = np.inf

CASES = [
    case("reduce", reduce(times, 1, 1), normal(2, 5), dtypes=(*RC, "float32", "bfloat16"), oracle=lambda x: x.prod(1)),
    case("reduce", reduce(affine, (1, 0), 0), normal(5), normal(5), label="order matters",
         oracle=lambda a, b: tuple(z[0] for z in in_order(affine, (1, 0), [range(5)])(a, b))),
    case("reduce", reduce(times, 1, 2, 0), normal(2, 3, 2), oracle=lambda x: x.prod((0, 2)), label="two axes"),
    case("reduce", reduce(times, 1), normal(3), oracle=lambda x: x, label="no axis"),
    case("reduce", reduce(times, 1, 0), normal(0, 2), label="size 0"),
    case("reduce", reduce(times, 1, 1), normal(0, 3), label="nothing left"),
    case("reduce", reduce(log_add, -INF, 0), uniform(-800, 800, 4), oracle=lambda x: jax.nn.logsumexp(x, 0), label="log of a sum"),
    case("reduce", reduce(best, (-INF, 0), 1), distinct(2, 4), fixed(np.arange(8.0).reshape(2, 4)), label="value and place"),
    # jax differentiates no reduction with an integer operand, and no windowed one in reverse.
    case("reduce", lambda x, i: reduce(best, (-INF, -1), 1)(x, i)[0], distinct(2, 3), fixed(np.arange(6, dtype=np.int32).reshape(2, 3)),
         oracle=lambda x, _: x.max(1), label="value and integer"),
    case("reduce", reduce(merged, (-INF, 0), 0), normal(3), normal(3), label="two moving",
         oracle=lambda x, s: (x.max(0), (s * jnp.exp(x - x.max(0))).sum(0))),
    # jax drops an initial value that is not the identity from what it evaluates with tangents.
    case("reduce", reduce(lambda x, y: x + y, 5, 0), normal(3), oracle=lambda x: 5 + x.sum(0), label="initial value"),

    windowed(times, 1, 6, 3, 1, 0, 0, 1, 1, normal(6), label="", dtypes=(*RC, "float32", "bfloat16")),
    windowed(affine, (1, 0), 5, 4, 1, 2, 1, 1, 1, normal(5), normal(5), label="order matters"),
    windowed(times, 1, 7, 3, 2, 1, 2, 2, 2, normal(7), label="everything"),
    windowed(hypotenuse, 0, 4, 3, 1, 3, 3, 1, 1, normal(4), label="wide padding"),
    windowed(log_add, -INF, 4, 2, 1, 1, 1, 2, 1, normal(4), label="padding and holes"),
    windowed(times, 1, 5, 2, 2, -1, -1, 1, 1, normal(5), label="negative padding"),
    windowed(best, (-INF, -1), 5, 3, 1, 1, 1, 1, 1, distinct(5), fixed(np.arange(5, dtype=np.int32)), label="value and integer"),
    case("reduce_window", over_windows(times, 1, [2, 3], [1, 2], "SAME"), normal(3, 4), label="two axes",
         oracle=lambda x: jnp.stack([jnp.pad(x, ((0, 1), (0, 1)), constant_values=1)[i:i + 2, j:j + 3].prod()
                                     for i in range(3) for j in (0, 2)]).reshape(3, 2)),
    case("reduce_window", lambda x: over_windows(times, 1, [2, 2])(x)[0], normal(0, 3), label="size 0",
         oracle=lambda x: jnp.zeros((0, 2), x.dtype) + x.sum()),
    case("reduce_window", lambda x: over_windows(times, 1, [3])(x)[0], normal(2), label="no window",
         oracle=lambda x: x[:0]),

    applied(jnp.sin, np.array([1, 3, 1]), normal(4), label="duplicates", oracle=sine_twice),
    applied(jnp.sin, np.array([3, 0]), normal(4, 2), label="unique", unique_indices=True,
            oracle=lambda x: x.at[np.array([3, 0])].set(jnp.sin(x[np.array([3, 0])]))),
    applied(jnp.log, np.array([0, 9]), uniform(1, 2, 3), label="out of bounds", oracle=lambda x: x.at[0].set(jnp.log(x[0]))),
    applied(jnp.exp, np.s_[1:3], normal(4), label="slice",
            oracle=lambda x: x.at[1:3].set(jnp.exp(x[1:3]))),
]
