"""Steps of random programs: operations of every kind, made of the table's lines and of jax's functions.

A step is drawn once, with its parameters, for operands of given shapes and dtypes; the same step then stands in many programs, so that
its operations are compiled once.  Values stay of order one, so that agreement to rounding means agreement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from cases import CASES, Case, Constant
from jax import lax

Array = Any
Rng = np.random.Generator


class Drawn(NamedTuple):
    """A step with its parameters: a function of one array or of two."""

    name: str
    fun: Callable[..., Array]
    #: The line of the test table that it is made of.
    case: Case | None = None


def squash(x: Array) -> Array:
    """Of order one, and smooth, whatever ``x`` is."""
    return x / (1 + lax.square(lax.real(x)) + lax.square(lax.imag(x))) if jnp.iscomplexobj(x) else lax.tanh(x)


def one_of(rng: Rng, choices: Sequence[Any]) -> Any:
    return choices[int(rng.integers(len(choices)))]


REAL_UNARY: dict[str, Callable[[Array], Array]] = {
    "sin": lax.sin, "cos": lax.cos, "tanh": lax.tanh, "exp": lambda x: lax.exp(squash(x)), "logistic": lax.logistic,
    "log1p": lambda x: lax.log1p(x * x), "sqrt": lambda x: lax.sqrt(1 + x * x), "rsqrt": lambda x: lax.rsqrt(1 + x * x),
    "cbrt": lambda x: lax.cbrt(2 + x * x), "atan": lax.atan, "asinh": lax.asinh, "sinh": lambda x: lax.sinh(squash(x)),
    "expm1": lambda x: lax.expm1(squash(x)), "exp2": lambda x: lax.exp2(squash(x)), "square": lax.square, "neg": lax.neg,
    "abs": lambda x: lax.abs(x + 0.123), "integer_pow": lambda x: lax.integer_pow(x, 3),
    "acos": lambda x: lax.acos(x / (2 + x * x)),
    "floor": lambda x: x + lax.floor(x * 0.3 + 0.1234), "sign": lambda x: x * lax.sign(x + 0.0123),
    "tan": lambda x: lax.tan(squash(x)),
    "erf": lax.erf, "atanh": lambda x: lax.atanh(x / (2 + x * x)), "stop": lambda x: x * lax.stop_gradient(x),
    "pow": lambda x: lax.pow(1 + x * x, jnp.asarray(1.5, x.dtype)), "log": lambda x: lax.log(1.5 + x * x),
    "copy": lambda x: jnp.array(x, copy=True), "jit": lambda x: jax.jit(lambda y: y * lax.sin(y))(x),
    "scan": lambda x: lax.scan(lambda c, _: (lax.sin(c) * 0.9 + x * 0.1, None), x, None, length=2)[0],
    "cond": lambda x: lax.cond((lax.real(x) if jnp.iscomplexobj(x) else x).sum() > 0.01, lax.sin, lambda y: y * y, x),
    "checkpoint": lambda x: jax.checkpoint(lambda y: lax.sin(y) * y)(x), "relu": lambda x: jax.nn.relu(x + 0.0123),
}
COMPLEX_UNARY: dict[str, Callable[[Array], Array]] = {
    **{name: REAL_UNARY[name] for name in ("sin", "cos", "exp", "square", "neg", "integer_pow", "copy", "jit", "scan",
                                           "checkpoint",
                                           "cond")},
    "conj": lax.conj, "swap": lambda x: lax.complex(lax.imag(x), lax.real(x)),
    "modulus": lambda x: lax.complex(lax.abs(x), lax.real(x)),
    "real": lambda x: lax.convert_element_type(lax.real(x), x.dtype), "sqrt": lambda x: lax.sqrt(x * lax.conj(x) + 2 + 0.5 * x),
}
BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "add": lax.add, "sub": lax.sub, "mul": lax.mul, "div": lambda x, y: x / (2 + lax.square(squash(y))),
}
REAL_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    **BINARY, "max": lambda x, y: lax.max(x, y + 0.0123), "min": lambda x, y: lax.min(x - 0.0321, y),
    "atan2": lambda x, y: lax.atan2(x, 2 + y * y), "rem": lambda x, y: lax.rem(x, y * y + 2.3),
    "select": lambda x, y: lax.select(x > 0.01, y, x * y), "clamp": lambda x, y: lax.clamp(y - 1.017, x, y + 0.513),
    "hypot": lambda x, y: lax.sqrt(x * x + y * y + 1), "pow": lambda x, y: lax.pow(1.5 + x * x, squash(y)),
}


def unary(rng: Rng, x: Any) -> Drawn:
    table = COMPLEX_UNARY if jnp.iscomplexobj(x) else REAL_UNARY
    name = one_of(rng, sorted(table))
    return Drawn(name, table[name])


def binary(rng: Rng, x: Any, y: Any) -> Drawn | None:
    """None where the operands have no common type."""
    if x.shape != y.shape or x.dtype != y.dtype:
        return None
    table = BINARY if jnp.iscomplexobj(x) else REAL_BINARY
    name = one_of(rng, sorted(table))
    return Drawn(name, table[name])


def moving(rng: Rng, x: Any) -> Drawn | None:
    """Transposes, reshapes, slices, pads, gathers: whatever moves entries about.  None where the operand is too small."""
    rank = x.ndim
    kind = one_of(rng, ["transpose", "reshape", "rev", "broadcast", "concatenate", "pad", "slice", "gather", "dynamic_slice",
                        "dynamic_update_slice", "scatter_add", "scatter", "squeeze", "sort", "roll", "scatter_mul"])

    def drawn(fun: Callable[[Array], Array]) -> Drawn:
        return Drawn(kind, fun)

    if kind == "reshape":
        return drawn(lambda x: lax.reshape(x, (x.size,)))
    if kind == "broadcast":
        position = int(rng.integers(rank + 1))
        shape = (*x.shape[:position], 2, *x.shape[position:])
        dims = [i for i in range(rank + 1) if i != position]
        return drawn(lambda x: lax.broadcast_in_dim(x, shape, dims))
    if kind == "squeeze":
        return drawn(lambda x: lax.sin(lax.expand_dims(x, (0,))))
    if not rank or not x.size:
        return None
    if kind == "transpose":
        order = tuple(map(int, rng.permutation(rank)))
        return drawn(lambda x: lax.transpose(x, order))
    axis = int(rng.integers(rank))
    n = x.shape[axis]
    index = [int(i) for i in rng.integers(0, n, int(rng.integers(1, 4)))]
    where = tuple([slice(None)] * axis + [np.array(index)])
    once = (*where[:-1], np.unique(np.array(index)))
    start, size, stride = int(rng.integers(n)), int(rng.integers(1, n + 1)), int(rng.integers(1, 3))
    loose = int(rng.integers(-1, n + 1))
    if kind == "rev":
        return drawn(lambda x: lax.rev(x, (axis,)))
    if kind == "concatenate":
        return drawn(lambda x: lax.concatenate([x, lax.sin(x), x], axis))
    if kind == "pad":
        config = [(0, 0, 0)] * rank
        config[axis] = (int(rng.integers(-1, 3)), int(rng.integers(3)), int(rng.integers(2)))
        return drawn(lambda x: lax.pad(x, x.sum() * 0.1, config))
    if kind == "slice":
        return drawn(lambda x: lax.slice_in_dim(x, start, n, stride, axis))
    if kind == "gather":
        return drawn(lambda x: x[where])
    if kind == "dynamic_slice":
        return drawn(lambda x: lax.dynamic_slice_in_dim(x, jnp.asarray(loose), size, axis))
    if kind == "dynamic_update_slice":
        return drawn(lambda x: lax.dynamic_update_slice_in_dim(x, lax.sin(lax.slice_in_dim(x, 0, 1, axis=axis)), loose, axis))
    if kind == "scatter_add":
        return drawn(lambda x: x.at[where].add(lax.sin(x[where])))
    if kind == "scatter":
        return drawn(lambda x: x.at[once].set(lax.sin(x[once]), unique_indices=True))
    if kind == "scatter_mul" and not jnp.iscomplexobj(x):
        return drawn(lambda x: x.at[once].multiply(lax.cos(x[once]), unique_indices=True))
    if kind == "sort" and not jnp.iscomplexobj(x):
        return drawn(lambda x: lax.sort(x + lax.sin(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), dimension=axis))
    return drawn(lambda x: jnp.roll(x, 1, axis))


def reduction(rng: Rng, x: Any) -> Drawn | None:
    if not x.ndim or not x.size:
        return None
    axis, reverse = int(rng.integers(x.ndim)), bool(rng.integers(2))

    def distinct(y: Array) -> Array:
        return y + lax.sin(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)

    def window(y: Array) -> Array:
        size = [1] * y.ndim
        size[axis] = min(2, y.shape[axis])
        return lax.reduce_window(y, np.zeros((), y.dtype)[()], lax.add, tuple(size), (1,) * y.ndim, "VALID")

    table: dict[str, Callable[[Array], Array]] = {
        "sum": lambda y: jnp.sum(y, axis), "mean": lambda y: jnp.mean(y, axis), "prod": lambda y: jnp.prod(squash(y), axis),
        "cumsum": lambda y: lax.cumsum(y, axis, reverse), "cumprod": lambda y: lax.cumprod(squash(y), axis, reverse),
    }
    if not jnp.iscomplexobj(x):
        table |= {
            "max": lambda y: jnp.max(distinct(y), axis), "min": lambda y: jnp.min(distinct(y), axis),
            "cummax": lambda y: lax.cummax(distinct(y), axis, reverse),
            "cumlogsumexp": lambda y: lax.cumlogsumexp(y, axis, reverse),
            "logsumexp": lambda y: jax.scipy.special.logsumexp(y, axis), "softmax": lambda y: jax.nn.softmax(y, axis),
            "argmax": lambda y: y * lax.convert_element_type(lax.argmax(y.reshape(-1), 0, np.int32), y.dtype) * 0.1,
            "window": window,
        }
    name = one_of(rng, sorted(table))
    return Drawn(name, table[name])


def contraction(rng: Rng, x: Any, y: Any) -> Drawn | None:
    """None where no axes of the operands have equal lengths."""
    pairs = [(p, q) for p in range(x.ndim) for q in range(y.ndim) if x.shape[p] == y.shape[q]]
    if x.dtype != y.dtype or not pairs:
        return None
    p, q = one_of(rng, pairs)
    batch = one_of(rng, [None, *[(m, n) for m, n in pairs if m != p and n != q]])
    dims = (((p,), (q,)), (((batch[0],), (batch[1],)) if batch else ((), ())))
    return Drawn("dot_general", lambda x, y: lax.dot_general(x, y, dims) * 0.3)


def conversion(rng: Rng, x: Any) -> Drawn:
    dtype = "float64" if x.dtype == np.float32 else one_of(rng, ["complex128"] if jnp.iscomplexobj(x) else ["float64", "complex128"])
    return Drawn(f"to {dtype}", lambda x: lax.convert_element_type(x, dtype))


def measure(x: Array) -> Array:
    """A real number of order one that depends on every entry."""
    return jnp.sum(lax.real(squash(x)) if jnp.iscomplexobj(x) else squash(x)) / max(x.size, 1)


# ----------------------------------------------------------------------------------------------- steps from the test table


def is_inexact(x: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(x), jnp.inexact))


#: jax cannot push several tangents through a ragged contraction at once: of its axes, it batches only the first.
UNBATCHED = {"ragged_dot_general"}
USABLE = [c for c in CASES if c.reverse and {"float64", "complex128"} & set(c.dtypes) and c.primitive not in UNBATCHED]


class TableLine:
    """A line of the test table: its function at its own arguments, which move with a number that the program has computed."""

    def __init__(self, case: Case, dtype: str, rng: Rng):
        self.case = case
        args = [maker(rng, jnp.dtype(dtype)) for maker in case.makers]
        self.args = [jnp.asarray(a) for a in args]
        self.moves = [is_inexact(a) and not isinstance(m, Constant) for a, m in zip(self.args, case.makers, strict=True)]
        self.directions = [0.01 * rng.standard_normal(np.shape(a)) for a in self.args]

    def __call__(self, size: Array, fun: Callable[..., Any] | None = None) -> Array:
        args = [a + (size * d).astype(a.dtype) if m else a for a, d, m in zip(self.args, self.directions, self.moves, strict=True)]
        outs = (fun or self.case.fun)(*args)
        leaves = [out for out in jax.tree_util.tree_leaves(outs) if is_inexact(out)]
        return squash(sum((jnp.sum(leaf) for leaf in leaves[1:]), leaves[0]))

    def in_jax(self, size: Array) -> Array:
        return self(size, self.case.oracle)
