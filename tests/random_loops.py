"""Small loops at random: what they carry, stack and read, and what a step does, is drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

SHAPES = ((), (), (1,), (2,), (3,), (5,), (2, 3), (3, 2), (1, 4), (4, 4), (3, 1, 2), (17,), (40, 30), (0,), (2, 0))
DTYPES = ("float64",) * 8 + ("float32",) * 4 + ("int32", "int64", "bool", "uint32", "bfloat16", "complex64", "complex128", "int8")
#: The share of loops that hold what no kernel may: other dtypes, arrays without entries.
RARELY = 0.25
Value = Any


class Draw:
    """Draws a loop; each draw with the same seed makes the same."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.anything = self.rng.random() < RARELY

    def below(self, n: int) -> int:
        return int(self.rng.integers(n))

    def one(self, of: Any) -> Any:
        return of[self.below(len(of))]

    def shape(self) -> tuple[int, ...]:
        return self.one(SHAPES if self.anything else SHAPES[:-2])

    def dtype(self) -> str:
        return self.one(DTYPES if self.anything else DTYPES[:-4])

    def array(self, shape: tuple[int, ...], dtype: str) -> Value:
        x = self.rng.normal(size=shape)
        if dtype == "bool":
            return jnp.asarray(x > 0)
        if "int" in dtype:
            return jnp.asarray(self.rng.integers(0, 4, size=shape), dtype)
        if "complex" in dtype:
            x = x + 1j * self.rng.normal(size=shape)
        return jnp.asarray(x, dtype)


def is_real(x: Value) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def is_inexact(x: Value) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def fitted(x: Value, shape: tuple[int, ...], dtype: Any) -> Value:
    """``x`` with another shape and dtype, its entries repeated or summed."""
    if x.dtype != dtype:
        if jnp.issubdtype(x.dtype, jnp.complexfloating) and not jnp.issubdtype(dtype, jnp.complexfloating):
            x = jnp.real(x)
        if is_real(x) and not jnp.issubdtype(dtype, jnp.inexact):
            x = jnp.round(4 * lax.stop_gradient(jnp.tanh(x)) + 0.2)
        x = x.astype(dtype)
    if x.shape == shape:
        return x
    n = int(np.prod(shape))
    if x.size == n:
        return x.reshape(shape)
    if x.ndim <= len(shape) and x.size and all(a in (1, b) for a, b in zip(x.shape[::-1], shape[::-1], strict=False)):
        return jnp.broadcast_to(x, shape)
    if not x.size:
        return jnp.zeros(shape, dtype)
    flat = x.ravel()
    if x.size > n:
        return flat[:n].reshape(shape)
    return jnp.concatenate([flat] * (n // x.size + 1))[:n].reshape(shape)


UNARY: dict[str, Callable[[Value], Value]] = {
    "sin": jnp.sin, "cos": jnp.cos, "tanh": jnp.tanh, "exp": lambda x: jnp.exp(jnp.tanh(x)), "log": lambda x: jnp.log(1.5 + x * x),
    "sqrt": lambda x: jnp.sqrt(1 + x * x), "neg": lambda x: -x, "square": jnp.square, "cube": lambda x: jnp.tanh(x)**3,
    "div": lambda x: 1 / (2 + x * x), "expm1": lambda x: jnp.expm1(jnp.tanh(x)), "log1p": lambda x: jnp.log1p(x * x),
    "atan": jnp.arctan, "sinh": lambda x: jnp.sinh(jnp.tanh(x)), "pow": lambda x: (1.2 + x * x)**0.7,
}
REAL: dict[str, Callable[[Value], Value]] = {
    "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid, "abs": jnp.abs, "erf": jax.scipy.special.erf, "softplus": jax.nn.softplus,
    "clip": lambda x: jnp.clip(x, -0.6, 0.7), "cbrt": lambda x: jnp.cbrt(1 + x * x), "silu": jax.nn.silu, "atan2": lambda x: (
        jnp.arctan2(x, 1 + x * x)), "softmax": lambda x: jax.nn.softmax(x.ravel()).reshape(x.shape) if x.size else x,
    "logsumexp": lambda x: x - jax.scipy.special.logsumexp(x) if x.size else x, "rem": lambda x: jnp.fmod(x, 1.37),
    "norm": lambda x: x / (1 + jnp.sqrt(1e-3 + jnp.sum(x * x))), "erfc": lambda x: jax.scipy.special.erfc(x),
    "gamma": lambda x: jax.scipy.special.gammaln(1.5 + x * x), "cumsum": lambda x: jnp.cumsum(x.ravel()).reshape(x.shape) * 0.1,
    "sort": lambda x: jnp.sort(x.ravel()).reshape(x.shape),
}
#: Those of ``REAL`` that no kernel may hold.
APART = frozenset(("gamma", "cumsum", "sort"))
INTEGER: dict[str, Callable[[Value], Value]] = {
    "plus": lambda x: x + jnp.ones((), x.dtype), "double": lambda x: x * jnp.full((), 2, x.dtype),
    "and": lambda x: x & jnp.full((), 3, x.dtype), "shift": lambda x: x >> jnp.ones((), x.dtype), "not": lambda x: ~x,
    "min": lambda x: jnp.minimum(x, jnp.full((), 5, x.dtype)), "rem": lambda x: lax.rem(x, jnp.full(x.shape, 3, x.dtype)),
}
BINARY: dict[str, Callable[[Value, Value], Value]] = {
    "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y, "div": lambda x, y: x / (1.5 + y * y),
    "max": jnp.maximum, "min": jnp.minimum, "hypot": lambda x, y: jnp.sqrt(1 + x * x + y * y),
}
MOVES = ("reverse", "transpose", "slice", "pad", "concat", "stack", "reshape", "spread", "dynamic", "update", "gather", "rolled",
         "entry", "strided", "set")
REDUCTIONS = ("sum", "max", "mean", "prod", "argmax", "any", "all_sum", "min")
CALLS = ("cond", "scan", "fori", "while", "jit", "custom", "checkpoint", "switch", "vmap", "linear")


def step_of(draw: Draw, depth: int, size: int) -> Callable[[list[Value]], Value]:
    """A function of a list of values to one value; what it does is drawn once."""
    kind = draw.one(("unary",) * 4 + ("binary",) * 5 + ("move",) * 5 + ("reduce",) * 3 + ("dot",) * 2 + ("select", "constant", "cast")
                    + ("call",) * (2 if depth else 0))
    i, j, k = draw.below(size), draw.below(size), draw.below(size)
    which, at, flag = draw.below(1000), draw.below(7), draw.below(2)
    dtype, shape = draw.dtype(), draw.shape()
    inner = block(draw, depth - 1, 1 + draw.below(4), 3) if kind == "call" else None
    other = block(draw, depth - 1, 1 + draw.below(3), 3) if kind == "call" else None
    steps = draw.below(4)

    def named(names: Any) -> Any:
        return names[which % len(names)]

    def step(values: list[Value]) -> Value:
        x, y, z = values[i], values[j], values[k]
        if kind == "unary":
            if not is_inexact(x):
                return INTEGER[named(list(INTEGER))](x) if x.dtype != bool else ~x
            both = {**UNARY, **REAL} if is_real(x) else UNARY
            if x.dtype == jnp.bfloat16 or not draw.anything:
                both = {name: f for name, f in both.items() if name not in APART}
            return both[named(list(both))](x)
        if kind == "binary":
            y = fitted(y, x.shape if flag else y.shape if y.shape in ((), x.shape) else x.shape, x.dtype)
            if x.dtype == bool:
                return x ^ y
            if not is_inexact(x):
                return named([lax.add, lax.mul, lax.max, lax.bitwise_and])(x, jnp.broadcast_to(y, x.shape))
            if not is_real(x):
                return BINARY[named(["add", "sub", "mul"])](x, y)
            return BINARY[named(list(BINARY))](x, y)
        if kind == "move":
            return moved(named(MOVES), x, y, z, at, shape)
        if kind == "reduce":
            return reduced(named(REDUCTIONS), x, at)
        if kind == "dot":
            return product(which, x, y)
        if kind == "select":
            chosen = fitted(x, y.shape, y.dtype)
            return jnp.where(y > z.astype(y.dtype).ravel()[0], chosen, y) if (
                is_real(y) and z.size and not jnp.iscomplexobj(z)) else jnp.where(fitted(z, y.shape, bool), chosen, y)
        if kind == "constant":
            return jnp.full(shape, at, dtype) if flag else jnp.arange(at + 1).astype(dtype)
        if kind == "cast":
            return fitted(x, x.shape, dtype)
        assert inner is not None and other is not None
        return called(named(CALLS), inner, other, x, y, z, steps, at)

    return step


def moved(name: str, x: Value, y: Value, z: Value, at: int, shape: tuple[int, ...]) -> Value:
    axis = at % x.ndim if x.ndim else None
    if name == "spread":
        return jnp.broadcast_to(x, (2 + at % 3, *x.shape))
    if name == "stack":
        return jnp.stack([x, fitted(y, x.shape, x.dtype)], axis=at % (x.ndim + 1))
    if name == "reshape":
        return fitted(x, shape, x.dtype)
    if axis is None or not x.shape[axis]:
        return x
    n = x.shape[axis]
    index = fitted(z, (), "int32") if z.size else jnp.int32(at)
    part = [slice(None)] * x.ndim
    if name == "reverse":
        return lax.rev(x, (axis,))
    if name == "transpose":
        return jnp.moveaxis(x, axis, 0)
    if name == "slice":
        part[axis] = slice(at % n, None)
    elif name == "entry":
        part[axis] = at % n
    elif name == "strided":
        part[axis] = slice(at % n, None, 2)
    elif name == "pad":
        return lax.pad(x, jnp.zeros((), x.dtype), [(at % 3, at % 2, at % 2 if d == axis else 0) for d in range(x.ndim)])
    elif name == "concat":
        return jnp.concatenate([x, fitted(y, x.shape, x.dtype)], axis)
    elif name == "dynamic":
        return lax.dynamic_slice_in_dim(x, index, max(n // 2, 1), axis)
    elif name == "update":
        return lax.dynamic_update_index_in_dim(x, fitted(y, x.shape[:axis] + x.shape[axis + 1:], x.dtype), index, axis)
    elif name == "gather":
        return jnp.take(x, fitted(z, (3,), "int32") % n if z.size else jnp.arange(3) % n, axis)
    elif name == "set":
        return x.at[(at % x.shape[0],)].set(fitted(y, x.shape[1:], x.dtype))
    else:
        return jnp.roll(x, at, axis)
    return x[tuple(part)]


def reduced(name: str, x: Value, at: int) -> Value:
    axis = at % x.ndim if x.ndim else None
    if not x.size or (axis is not None and name == "all_sum"):
        axis = None
    if name == "any" or x.dtype == bool:
        return jnp.any(x != 0, axis)
    if not x.size or jnp.iscomplexobj(x):
        return jnp.sum(x, axis).astype(x.dtype)
    if name == "argmax":
        return jnp.argmax(x, axis)
    if name == "mean" and is_real(x):
        return jnp.mean(x, axis)
    if name == "prod":
        return jnp.prod(jnp.tanh(x) if is_real(x) else x, axis).astype(x.dtype)
    if name in ("max", "min"):
        return (jnp.max if name == "max" else jnp.min)(x, axis)
    return jnp.sum(x, axis).astype(x.dtype)


def product(which: int, x: Value, y: Value) -> Value:
    """A contraction of two arrays, of every form: of matrices, of a matrix and a vector, of vectors, with and without a batch."""
    m, k, n, batch = 1 + which % 5, 1 + which % 7, 1 + which // 7 % 9, 1 + which // 63 % 3
    if which % 11 == 0:
        k, n = 30, 1
    form = ("mk,kn->mn", "km,kn->mn", "mk,nk->mn", "km,nk->nm", "bmk,bkn->bmn", "bmk,bk->bm", "k,k->", "mk,k->m", "k,km->m", "m,n->mn",
            "bk,bk->b")[which % 11]
    if not is_inexact(x):
        return x
    length = {"m": m, "k": k, "n": n, "b": batch}
    left, right = form.split("->")[0].split(",")
    ends = [fitted(v, tuple(length[c] for c in names), x.dtype) for v, names in ((x, left), (y, right))]
    return jnp.einsum(form, *ends) * 0.3


def called(name: str, inner: Any, other: Any, x: Value, y: Value, z: Value, steps: int, at: int) -> Value:
    arguments = [x, y, z]
    if name in ("cond", "switch"):
        index = fitted(z, (), "int32") if z.size else jnp.int32(0)
        last: Callable[..., Value] = lambda *v: fitted(other([*v]), shape.shape, shape.dtype)  # noqa: E731
        shape = jax.eval_shape(lambda *v: inner([*v]), *arguments)
        branches = [lambda *v: inner([*v]), last, lambda *v: fitted(v[0], shape.shape, shape.dtype)]
        if name == "cond":
            return lax.cond(index > 0, *branches[:2], *arguments)
        return lax.switch(index, branches, *arguments)
    if name == "jit":
        return jax.jit(lambda *v: inner([*v]))(*arguments)
    if name == "checkpoint":
        return jax.checkpoint(lambda *v: inner([*v]))(*arguments)
    if name == "vmap":
        return jax.vmap(lambda v: inner([v, y, z]))(jnp.stack([x, x]))
    if name == "linear":
        return inner([x, y, y])
    if name == "custom":
        @jax.custom_jvp
        def twice(v: Value) -> Value:
            return fitted(inner([v, v, v]), v.shape, v.dtype)

        twice.defjvp(lambda primals, tangents: (twice(*primals), tangents[0] * jnp.cos(primals[0]).astype(primals[0].dtype)))
        return twice(x) if is_real(x) else x

    def body(i: Value, c: Value) -> Value:
        return fitted(inner([c, y, jnp.asarray(i)]), x.shape, x.dtype)

    if name == "fori":
        return lax.fori_loop(at % 2, at % 2 + steps, body, x)
    if name == "while":
        return lax.while_loop(lambda c: c[0] < steps, lambda c: (c[0] + 1, body(c[0], c[1])), (jnp.int32(0), x))[1]
    if at % 2:
        return lax.scan(lambda c, t: (body(t, c), fitted(other([c, y, t]), (2,), x.dtype)), x, jnp.arange(steps), reverse=at == 3)[1]
    return lax.scan(lambda c, _: ((c[0] + 1, body(*c)), None), (jnp.int32(0), x), None, length=steps)[0][1]


def block(draw: Draw, depth: int, length: int, size: int) -> Callable[[list[Value]], Value]:
    """A few steps, each of which reads what was computed before."""
    steps = [step_of(draw, max(depth, 0), size + n) for n in range(length)]

    def run(values: list[Value]) -> Value:
        values = list(values)
        for step in steps:
            x = step(values)
            values.append(x if x.size <= 3000 else fitted(x, (4,), x.dtype))
        return values[-1]

    return run


class Loop:
    """A loop over ``xs`` from ``init``, with constants: what it carries, stacks and reads is drawn."""

    def __init__(self, seed: int):
        draw = self.draw = Draw(seed)
        self.init = [draw.array(draw.shape(), draw.dtype()) for _ in range(1 + draw.below(3))]
        self.length = draw.one((0, 1, 2, 3, 5)) if draw.anything else draw.one((1, 2, 3, 5))
        self.xs = [draw.array((self.length, *draw.shape()), draw.dtype()) for _ in range(draw.below(3))]
        self.consts = [draw.array(draw.shape(), draw.dtype()) for _ in range(draw.below(3))]
        size = len(self.init) + len(self.xs) + len(self.consts)
        self.steps = [step_of(draw, 2, size + n) for n in range(2 + draw.below(10))]
        total = size + len(self.steps)
        self.carried = [draw.one((-1, draw.below(total), total - 1 - draw.below(2))) for _ in self.init]
        self.stacked = [draw.one((draw.below(total), total - 1)) for _ in range(draw.below(3))]
        #: For each array, the number that it consists of, if it is a constant of the program.
        self.known = [draw.one((None, None, None, None, 0, 1)) for _ in range(size)]
        self.settings = {"reverse": bool(draw.below(2)), "unroll": draw.one((1, 1, 1, 2))}

    def step(self, consts: list[Value], carry: list[Value], x: list[Value]) -> tuple[list[Value], list[Value]]:
        values = [*carry, *x, *consts]
        for step in self.steps:
            y = step(values)
            values.append(y if y.size <= 3000 else fitted(y, (4,), y.dtype))
        new = [c if n < 0 else fitted(values[n], c.shape, c.dtype) for n, c in zip(self.carried, carry, strict=True)]
        return new, [values[n] for n in self.stacked]

    def __call__(self, around: Callable[..., Any], init: list[Value], xs: list[Value], consts: list[Value]) -> Any:
        def run(init: list[Value], xs: list[Value]) -> Any:
            return lax.scan(lambda c, x: self.step(consts, c, x), init, xs, length=self.length, **self.settings)

        return around(run, init, xs)
