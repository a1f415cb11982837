"""Random scenarios, made of the table's operations.

A program is a list of steps; each takes arrays that earlier steps made and appends one more.  Shapes, dtypes, operations and
their parameters are drawn; the values stay of order one, so that agreement to rounding means agreement.  Any line of the test table
can be a step: its arguments then move a little with what the program has computed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cases import CASES, Case, Constant
from hypothesis import strategies as st
from jax import lax

from dualrev.problems.scenario import Scenario, alone

Draw = Callable[[st.SearchStrategy[Any]], Any]
Array = Any
Step = Callable[[list[Array]], Array]


def squash(x: Array) -> Array:
    """Of order one, and smooth, whatever ``x`` is."""
    return x / (1 + lax.square(lax.real(x)) + lax.square(lax.imag(x))) if jnp.iscomplexobj(x) else lax.tanh(x)


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


def unary(draw: Draw, x: Array) -> Step:
    table = COMPLEX_UNARY if jnp.iscomplexobj(x) else REAL_UNARY
    f = table[draw(st.sampled_from(sorted(table)))]
    return lambda env: f(env[-1])


def binary(draw: Draw, x: Array, others: list[tuple[int, Any]]) -> Step:
    table = BINARY if jnp.iscomplexobj(x) else REAL_BINARY
    f = table[draw(st.sampled_from(sorted(table)))]
    same = [i for i, a in others if a.shape == x.shape and a.dtype == x.dtype]
    i = draw(st.sampled_from(same))
    return (lambda env: f(env[-1], env[i])) if draw(st.booleans()) else (lambda env: f(env[i], env[-1]))


def shape_step(draw: Draw, x: Array) -> Step:
    """Transposes, reshapes, slices, pads, gathers: whatever moves entries about."""
    rank = x.ndim
    kind = draw(st.sampled_from(["transpose", "reshape", "rev", "broadcast", "concatenate", "pad", "slice", "gather",
                                 "dynamic_slice",
                                 "dynamic_update_slice", "scatter_add", "scatter", "squeeze", "sort", "roll", "scatter_mul"]))
    if kind == "transpose" and rank:
        order = draw(st.permutations(range(rank)))
        return lambda env: lax.transpose(env[-1], order)
    if kind == "reshape":
        return lambda env: lax.reshape(env[-1], (x.size,))
    if kind == "broadcast" and rank < 3:
        position = draw(st.integers(0, rank))
        shape = (*x.shape[:position], 2, *x.shape[position:])
        dims = [i for i in range(rank + 1) if i != position]
        return lambda env: lax.broadcast_in_dim(env[-1], shape, dims)
    if kind == "squeeze" and rank < 3:
        return lambda env: lax.sin(lax.expand_dims(env[-1], (0,)))
    if not rank or not x.size:
        return lambda env: env[-1] * 0.5
    axis = draw(st.integers(0, rank - 1))
    n = x.shape[axis]
    index = draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=3))
    where = tuple([slice(None)] * axis + [np.array(index)])
    if kind == "rev":
        return lambda env: lax.rev(env[-1], (axis,))
    if kind == "concatenate" and n < 5:
        return lambda env: lax.concatenate([env[-1], lax.sin(env[-1]), env[-1]], axis)
    if kind == "pad" and n < 6:
        config = [(0, 0, 0)] * rank
        config[axis] = draw(st.tuples(st.integers(-1, 2), st.integers(0, 2), st.integers(0, 1)))
        return lambda env: lax.pad(env[-1], lax.convert_element_type(env[0].sum() * 0.1, x.dtype), config)
    if kind == "slice":
        start = draw(st.integers(0, n - 1))
        stride = draw(st.integers(1, 2))
        return lambda env: lax.slice_in_dim(env[-1], start, n, stride, axis)
    if kind == "gather":
        return lambda env: env[-1][where]
    if kind == "dynamic_slice":
        start = draw(st.integers(-1, n))
        size = draw(st.integers(1, n))
        return lambda env: lax.dynamic_slice_in_dim(env[-1], jnp.asarray(start), size, axis)
    if kind == "dynamic_update_slice":
        start = draw(st.integers(-1, n))
        return lambda env: lax.dynamic_update_slice_in_dim(env[-1], lax.sin(lax.slice_in_dim(env[-1], 0, 1, axis=axis)), start,
                                                           axis)
    if kind == "scatter_add":
        return lambda env: env[-1].at[where].add(lax.sin(env[-1][where]))
    if kind == "scatter":
        return lambda env: env[-1].at[(*where[:-1], np.unique(np.array(index)))].set(
            lax.sin(env[-1][(*where[:-1], np.unique(np.array(index)))]), unique_indices=True)
    if kind == "scatter_mul" and not jnp.iscomplexobj(x):
        return lambda env: env[-1].at[(*where[:-1], np.unique(np.array(index)))].multiply(
            lax.cos(env[-1][(*where[:-1], np.unique(np.array(index)))]), unique_indices=True)
    if kind == "sort" and not jnp.iscomplexobj(x):
        return lambda env: lax.sort(env[-1] + lax.sin(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), dimension=axis)
    return lambda env: jnp.roll(env[-1], 1, axis)


def reduction(draw: Draw, x: Array) -> Step:
    if not x.ndim or not x.size:
        return lambda env: lax.sin(env[-1])
    axis = draw(st.integers(0, x.ndim - 1))
    names = ["sum", "cumsum", "cumprod", "prod", "mean"]
    if not jnp.iscomplexobj(x):
        names += ["max", "min", "cummax", "cumlogsumexp", "logsumexp", "argmax", "window", "softmax"]
    kind = draw(st.sampled_from(names))
    reverse = draw(st.booleans())

    def distinct(y: Array) -> Array:
        return y + lax.sin(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)

    def window(y: Array) -> Array:
        size = [1] * x.ndim
        size[axis] = min(2, x.shape[axis])
        return lax.reduce_window(y, np.zeros((), x.dtype)[()], lax.add, tuple(size), (1,) * x.ndim, "VALID")

    table: dict[str, Callable[[Array], Array]] = {
        "sum": lambda y: jnp.sum(y, axis), "mean": lambda y: jnp.mean(y, axis), "prod": lambda y: jnp.prod(squash(y), axis),
        "cumsum": lambda y: lax.cumsum(y, axis, reverse), "cumprod": lambda y: lax.cumprod(squash(y), axis, reverse),
        "max": lambda y: jnp.max(distinct(y), axis), "min": lambda y: jnp.min(distinct(y), axis),
        "cummax": lambda y: lax.cummax(distinct(y), axis, reverse),
        "cumlogsumexp": lambda y: lax.cumlogsumexp(y, axis, reverse),
        "logsumexp": lambda y: jax.scipy.special.logsumexp(y, axis), "softmax": lambda y: jax.nn.softmax(y, axis),
        "argmax": lambda y: y * lax.convert_element_type(lax.argmax(y.reshape(-1), 0, np.int32), x.dtype) * 0.1,
        "window": window,
    }
    f = table[kind]
    return lambda env: f(env[-1])


def contraction(draw: Draw, x: Array, others: list[tuple[int, Any]]) -> Step:
    candidates = [(i, a, p, q) for i, a in others if a.dtype == x.dtype and a.ndim + x.ndim <= 5
                  for p in range(x.ndim) for q in range(a.ndim) if x.shape[p] == a.shape[q]]
    if not candidates:
        return lambda env: env[-1] * env[-1]
    i, a, p, q = draw(st.sampled_from(candidates))
    pairs = [(m, n) for m in range(x.ndim) for n in range(a.ndim) if (m, n) != (p, q) and m != p and n != q
             and x.shape[m] == a.shape[n]]
    batch = draw(st.sampled_from([None, *pairs]))
    dims = (((p,), (q,)), (((batch[0],), (batch[1],)) if batch else ((), ())))
    return lambda env: lax.dot_general(env[-1], env[i], dims) * 0.3


def conversion(draw: Draw, x: Array) -> Step:
    dtype = draw(st.sampled_from(["float64", "complex128"] if not jnp.iscomplexobj(x) else ["complex128"]))
    if x.dtype == np.float32:
        return lambda env: lax.convert_element_type(env[-1], np.float64)
    return lambda env: lax.convert_element_type(env[-1], dtype)


# ----------------------------------------------------------------------------------------------- steps from the test table


def is_inexact(x: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(x), jnp.inexact))


#: jax cannot push several tangents through a ragged contraction at once: of its axes, it batches only the first.
UNBATCHED = {"ragged_dot_general"}
USABLE = [c for c in CASES if c.reverse and {"float64", "complex128"} & set(c.dtypes) and c.primitive not in UNBATCHED]


class TableStep:
    """A line of the test table: its function at its own arguments, which move with the newest value."""

    def __init__(self, case: Case, dtype: str, seed: int):
        self.case = case
        rng = np.random.default_rng(seed)
        args = [maker(rng, jnp.dtype(dtype)) for maker in case.makers]
        self.args = [jnp.asarray(a) for a in args]
        self.moves = [is_inexact(a) and not isinstance(m, Constant) for a, m in zip(self.args, case.makers, strict=True)]
        self.directions = [0.01 * rng.standard_normal(np.shape(a)) for a in self.args]

    def __call__(self, env: list[Array], fun: Callable[..., Any] | None = None) -> Array:
        x = env[-1]
        size = jnp.sum(lax.real(squash(x)) if jnp.iscomplexobj(x) else squash(x)) / max(x.size, 1)
        args = [a + (size * d).astype(a.dtype) if m else a for a, d, m in zip(self.args, self.directions, self.moves, strict=True)]
        outs = (fun or self.case.fun)(*args)
        leaves = [out for out in jax.tree_util.tree_leaves(outs) if is_inexact(out)]
        return squash(sum((jnp.sum(leaf) for leaf in leaves[1:]), leaves[0]))

    def in_jax(self, env: list[Array]) -> Array:
        return self(env, self.case.oracle)


def table_step(draw: Draw, x: Any) -> Step:
    dtype = "complex128" if jnp.iscomplexobj(x) and draw(st.booleans()) else "float64"
    cases = [c for c in USABLE if dtype in c.dtypes]
    return TableStep(draw(st.sampled_from(cases)), dtype, draw(st.integers(0, 3)))


def of_steps(steps: list[Step], names: list[str], inputs: list[np.ndarray], outputs: int) -> Scenario:
    """The steps as a scenario, whose order and engines are those that all lines of the table among them have."""
    table = [step.case for step in steps if isinstance(step, TableStep)]

    def run(inputs: Any, in_jax: bool = False) -> Array:
        env = list(inputs)
        for step in steps:
            env.append(step.in_jax(env) if in_jax and isinstance(step, TableStep) else step(env))
        return squash(env[-1]) + 0.1 * env[-1] if len(steps) % 2 else env[-1]

    return Scenario(
        f"{' > '.join(names)}; inputs {[f'{x.dtype}{list(x.shape)}' for x in inputs]}", run, alone(lambda: inputs), tags=("random",),
        inputs=sum(x.size for x in inputs), outputs=outputs, oracle=functools.partial(run, in_jax=True),
        order=min((case.order for case in table), default=2), rtol=max((case.rtol or 0.0 for case in table), default=0.0),
        # The forward engine's pull sweeps a basis.
        engines=("forward", "reverse") if all(case.vmap for case in table) else ("reverse",))


@st.composite
def scenarios(draw: Draw, longest: int = 6) -> Scenario:
    """A program of two steps or more."""
    dtype = draw(st.sampled_from(["float64", "float64", "complex128", "float32"]))
    shapes = draw(st.lists(st.sampled_from([(), (2,), (3,), (2, 3), (3, 2), (1, 3), (2, 1, 3), (0, 2)]), min_size=1,
                           max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    inputs = []
    for shape in shapes:
        x = rng.standard_normal(shape)
        inputs.append((x + 1j * rng.standard_normal(shape) if dtype == "complex128" else x).astype(dtype))
    steps: list[Step] = []
    names: list[str] = []
    avals: list[Any] = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs]
    for _ in range(draw(st.integers(2, longest))):
        x = avals[-1]
        others = list(enumerate(avals))
        kind = draw(st.sampled_from(["table", "unary", "table", "binary", "table", "shape", "table", "reduction", "contraction",
                                     "conversion"]))
        if kind == "table" and x.dtype == np.float32:
            kind = "unary"
        proto = Proto(x)
        on_two: dict[str, Any] = {"binary": binary, "contraction": contraction}
        on_one: dict[str, Any] = {"unary": unary, "shape": shape_step, "reduction": reduction, "conversion": conversion,
                                  "table": table_step}
        step = on_two[kind](draw, proto, others) if kind in on_two else on_one[kind](draw, proto)
        out = jax.eval_shape(lambda env, step=step: step(env), avals)
        if out.size > 200:
            continue
        steps.append(step)
        names.append(f"{step.case.primitive} {step.case.label}".strip() if isinstance(step, TableStep) else kind)
        avals.append(jax.ShapeDtypeStruct(out.shape, out.dtype))
    return of_steps(steps, names, inputs, avals[-1].size)


class Proto:
    """The shape and dtype of the newest value, as much of an array as the drawing of a step looks at."""

    def __init__(self, aval: Any):
        self.shape, self.dtype, self.size, self.ndim = aval.shape, aval.dtype, aval.size, len(aval.shape)
