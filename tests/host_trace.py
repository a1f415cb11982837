"""A trace that evaluates programs with NumPy, operation by operation, and compiles nothing but what NumPy lacks.

The fuzzer runs thousands of small programs, each once: compiling their operations would take nearly all of the time.  Under this trace
the engines see values that they can't read, as under ``jit``; loops, branches and calls run in Python.  An operation that is not in the
table below runs in jax, compiled once for each type of its operands.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Trace, Tracer
from jax.extend.core import set_current_trace

from dualrev._jax.avals import ShapedArray, typeof
from dualrev._jax.jaxprs import is_literal
from dualrev._jax.traces import EvalTrace


class Host(Tracer):  # type: ignore[type-arg]
    """A NumPy array as a value of the trace."""

    __slots__ = ("is_weak", "value")

    def __init__(self, trace: Trace, value: np.ndarray, is_weak: bool):
        super().__init__(trace, ShapedArray(value.shape, value.dtype, weak_type=is_weak))
        self.value = value
        self.is_weak = is_weak

    def to_concrete_value(self) -> np.ndarray:
        return self.value


class HostTrace(Trace):
    def __init__(self, parent: Trace):
        super().__init__()
        self.requires_low = False
        self.parent = parent

    def stage_value(self, val: Any) -> Any:
        return val

    def value(self, x: Any) -> Any:
        """A NumPy array; what is none, such as a key, as it is."""
        if isinstance(x, Host):
            return x.value
        dtype = getattr(x, "dtype", None)
        if dtype is not None and not isinstance(dtype, np.dtype):
            return x
        return np.asarray(x, typeof(x).dtype)

    def result(self, x: Any, is_weak: bool) -> Any:
        if isinstance(x, np.ndarray):
            return Host(self, x, is_weak)
        return x if not isinstance(x, jax.Array) or not isinstance(x.dtype, np.dtype) else Host(self, np.asarray(x), is_weak)

    def process_primitive(self, primitive: Any, tracers: Sequence[Any], params: dict[str, Any], /) -> Any:
        values = [self.value(x) for x in tracers]
        outs = apply(self, primitive, values, params)
        if primitive.multiple_results:
            return [self.result(x, False) for x in outs]
        is_weak = params.get("weak_type", bool(tracers))
        if is_weak and "weak_type" not in params:
            is_weak = all(x.is_weak if type(x) is Host else getattr(typeof(x), "weak_type", False) for x in tracers)
        return self.result(outs, bool(is_weak))

    def process_call(self, primitive: Any, fun: Any, tracers: Sequence[Any], params: dict[str, Any], /) -> Any:
        with set_current_trace(self):
            return fun.call_wrapped(*tracers)

    def process_custom_jvp_call(self, primitive: Any, fun: Any, jvp: Any, tracers: Sequence[Any], /, **_: Any) -> Any:
        with set_current_trace(self):
            return fun.call_wrapped(*tracers)

    def process_custom_vjp_call(self, primitive: Any, fun: Any, fwd: Any, bwd: Any, tracers: Sequence[Any], /, **_: Any) -> Any:
        with set_current_trace(self):
            return fun.call_wrapped(*tracers)


@contextlib.contextmanager
def on_host() -> Iterator[None]:
    """Operations inside the block go to NumPy; what they give is turned into arrays by :func:`arrays`."""
    with np.errstate(all="ignore"), set_current_trace(HostTrace(EvalTrace())):  # also inside another such block
        yield


def arrays(results: Any) -> Any:
    """NumPy arrays in place of values of the trace."""
    return jax.tree.map(lambda x: x.value if isinstance(x, Host) else x, results)


# ------------------------------------------------------------------------------------------------------------ evaluation


def apply(trace: HostTrace, primitive: Any, values: Sequence[Any], params: dict[str, Any]) -> Any:
    """The result of one operation, or the list of its results."""
    if (call := CALLS.get(primitive.name)) is not None:
        return call(trace, values, **params)
    function = TABLE.get(primitive.name)
    if function is not None and all(isinstance(x, np.ndarray) and x.dtype.kind in "fciub" for x in values):
        try:
            found = function(*values, **params)
        except TypeError:  # NumPy has no such function of complex numbers
            found = None
        if found is not None:
            return found
    with set_current_trace(trace.parent):
        return primitive.bind(*[jnp.asarray(x) if isinstance(x, np.ndarray) and x.dtype != jax.dtypes.float0 else x for x in values],
                              **params)


def literal(atom: Any) -> np.ndarray:
    return np.asarray(atom.val, atom.aval.dtype)


def run(trace: HostTrace, jaxpr: Any, consts: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    """The results of a program."""
    body = getattr(jaxpr, "jaxpr", jaxpr)
    env = dict(zip((*body.constvars, *body.invars), (*[trace.value(c) for c in consts], *values), strict=True))
    for eqn in body.eqns:
        ins = [literal(atom) if is_literal(atom) else env[atom] for atom in eqn.invars]
        with set_current_trace(trace), eqn.ctx.manager:
            if eqn.primitive.name in ("custom_jvp_call", "custom_vjp_call"):
                inner = eqn.params.get("call_jaxpr", eqn.params.get("fun_jaxpr"))
                outs = run(trace, inner, inner.consts, ins)
            else:
                outs = apply(trace, eqn.primitive, ins, eqn.params)
        env.update(zip(eqn.outvars, (outs if eqn.primitive.multiple_results else [outs]), strict=True))
        for v in eqn.outvars:
            if isinstance(env[v], jax.Array):
                env[v] = trace.value(env[v])
    return [literal(atom) if is_literal(atom) else env[atom] for atom in body.outvars]


def _jit(trace: HostTrace, values: Sequence[Any], *, jaxpr: Any, **_: Any) -> list[Any]:
    return run(trace, jaxpr, getattr(jaxpr, "consts", ()), values)


def _scan(trace: HostTrace, values: Sequence[Any], *, jaxpr: Any, length: int, reverse: bool, num_consts: int, num_carry: int,
          **_: Any) -> list[Any] | None:
    consts, carry, xs = values[:num_consts], list(values[num_consts: num_consts + num_carry]), values[num_consts + num_carry:]
    stacks: list[list[Any]] = [[] for _ in jaxpr.out_avals[num_carry:]]
    for i in range(length):
        k = length - 1 - i if reverse else i
        outs = run(trace, jaxpr, jaxpr.consts, [*consts, *carry, *[x[k] for x in xs]])
        carry = outs[:num_carry]
        for stack, y in zip(stacks, outs[num_carry:], strict=True):
            stack.append(y)
    ys = [np.stack(stack[::-1] if reverse else stack) if stack else np.zeros((0, *a.shape), a.dtype)
          for stack, a in zip(stacks, jaxpr.out_avals[num_carry:], strict=True)]
    return [*carry, *ys]


def _while(trace: HostTrace, values: Sequence[Any], *, cond_jaxpr: Any, cond_nconsts: int, body_jaxpr: Any, body_nconsts: int,
           **_: Any) -> list[Any]:
    cond_consts, body_consts = values[:cond_nconsts], values[cond_nconsts: cond_nconsts + body_nconsts]
    carry = list(values[cond_nconsts + body_nconsts:])

    def goes_on() -> np.ndarray:
        found: np.ndarray = run(trace, cond_jaxpr, cond_jaxpr.consts, [*cond_consts, *carry])[0]
        return found

    while (which := goes_on()).any():
        new = run(trace, body_jaxpr, body_jaxpr.consts, [*body_consts, *carry])
        # Under vmap the condition has an axis, and members that are done stay as they are.
        carry = [np.where(which.reshape(which.shape + (1,) * (n.ndim - which.ndim)), n, c) if which.ndim else n
                 for n, c in zip(new, carry, strict=True)]
    return carry


def _cond(trace: HostTrace, values: Sequence[Any], *, branches: Any, **_: Any) -> list[Any]:
    branch = branches[int(np.clip(values[0], 0, len(branches) - 1))]
    return run(trace, branch, branch.consts, values[1:])


CALLS: dict[str, Callable[..., Any]] = {
    "jit": _jit, "pjit": _jit,
    "closed_call": lambda trace, values, *, call_jaxpr, **_: run(trace, call_jaxpr, call_jaxpr.consts, values),
    "remat2": lambda trace, values, *, jaxpr, **_: run(trace, jaxpr, getattr(jaxpr, "consts", ()), values),
    "checkpoint": lambda trace, values, *, jaxpr, **_: run(trace, jaxpr, getattr(jaxpr, "consts", ()), values),
    "scan": _scan, "while": _while, "cond": _cond,
}


# --------------------------------------------------------------------------------------------------------- the operations


def _of(function: Callable[..., Any]) -> Callable[..., Any]:
    """An operation without parameters that matter, in the dtype of its operands."""
    def operation(*values: Any, **_: Any) -> Any:
        return np.asarray(function(*values), values[0].dtype)

    return operation


def _compared(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, y, **_: np.asarray(function(x, y))


def _div(x: Any, y: Any, **_: Any) -> Any:
    return np.asarray(x / y, x.dtype) if x.dtype.kind in "fc" else None


def _convert(x: Any, *, new_dtype: Any, **_: Any) -> Any:
    if not isinstance(new_dtype, np.dtype) or new_dtype.name == "bfloat16" or (x.dtype.kind == "f" and new_dtype.kind in "iu"):
        return None
    return np.asarray((x.real if x.dtype.kind == "c" and new_dtype.kind != "c" else x).astype(new_dtype))


def _broadcast(x: Any, *dynamic: Any, shape: Any, broadcast_dimensions: Any, **_: Any) -> Any:
    lengths = [1] * len(shape)
    for n, d in zip(x.shape, broadcast_dimensions, strict=True):
        lengths[d] = n
    return np.broadcast_to(x.reshape(tuple(lengths)), shape)


def _reduced(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, *, axes, **_: np.asarray(function(x, axis=tuple(axes)), x.dtype) if x.size else None


def _cumulated(function: Callable[..., Any]) -> Callable[..., Any]:
    def operation(x: Any, *, axis: int, reverse: bool, **_: Any) -> Any:
        found = np.flip(function(np.flip(x, axis), axis=axis), axis) if reverse else function(x, axis=axis)
        return np.asarray(found, x.dtype)

    return operation


def _pad(x: Any, value: Any, *, padding_config: Any, **_: Any) -> Any:
    if any(low < 0 or high < 0 for low, high, _ in padding_config) or not x.size:
        return None
    axes = list(zip(x.shape, padding_config, strict=True))
    out = np.full([low + high + n + (n - 1) * inner for n, (low, high, inner) in axes], value, x.dtype)
    out[tuple([slice(low, low + n + (n - 1) * inner, inner + 1) for n, (low, _, inner) in axes])] = x
    return out


def _dot(x: Any, y: Any, *, dimension_numbers: Any, preferred_element_type: Any = None, **_: Any) -> Any:
    (x_in, y_in), (x_batch, y_batch) = dimension_numbers
    if x.dtype != y.dtype or preferred_element_type not in (None, x.dtype):
        return None
    left, right = list(range(x.ndim)), list(range(x.ndim, x.ndim + y.ndim))
    for i, j in (*zip(x_in, y_in, strict=True), *zip(x_batch, y_batch, strict=True)):
        right[j] = left[i]
    out = [*[left[i] for i in x_batch], *[left[i] for i in range(x.ndim) if i not in (*x_in, *x_batch)],
           *[right[j] for j in range(y.ndim) if j not in (*y_in, *y_batch)]]
    return np.asarray(np.einsum(x, left, y, right, out), x.dtype)


def _dynamic_slice(x: Any, *starts: Any, slice_sizes: Any, **_: Any) -> Any:
    at = [min(max(int(s), 0), n - size) for s, n, size in zip(starts, x.shape, slice_sizes, strict=True)]
    return x[tuple([slice(s, s + size) for s, size in zip(at, slice_sizes, strict=True)])]


def _dynamic_update_slice(x: Any, update: Any, *starts: Any, **_: Any) -> Any:
    at = [min(max(int(s), 0), n - size) for s, n, size in zip(starts, x.shape, update.shape, strict=True)]
    out = np.array(x)
    out[tuple([slice(s, s + size) for s, size in zip(at, update.shape, strict=True)])] = update
    return out


def _select(which: Any, *cases: Any, **_: Any) -> Any:
    return np.asarray(np.where(which, cases[1], cases[0])) if which.dtype == bool and len(cases) == 2 else None


def _sign(x: Any, **_: Any) -> Any:
    return np.asarray(np.sign(x)) if x.dtype.kind in "fi" else None


def _integer_pow(x: Any, *, y: int, **_: Any) -> Any:
    return np.asarray(x**y if y >= 0 or x.dtype.kind not in "fc" else 1 / x**-y, x.dtype)


def _iota(*, dtype: Any, shape: Any, dimension: int, **_: Any) -> Any:
    along = np.arange(shape[dimension], dtype=dtype).reshape(tuple([-1 if k == dimension else 1 for k in range(len(shape))]))
    return np.broadcast_to(along, shape)


UNARY = ["sin", "cos", "tan", "tanh", "exp", "exp2", "expm1", "log", "log1p", "sqrt", "sinh", "cosh", "floor", "ceil", "square"]
TABLE: dict[str, Callable[..., Any]] = {
    **{name: _of(getattr(np, name)) for name in UNARY},
    "add": _of(np.add), "sub": _of(np.subtract), "mul": lambda x, y, **p: None if p.get("out_dtype") else np.asarray(x * y),
    "add_any": _of(np.add), "neg": _of(np.negative), "div": _div, "atan2": _of(np.arctan2), "asinh": _of(np.arcsinh),
    "atan": _of(np.arctan), "rsqrt": _of(lambda x: 1 / np.sqrt(x)), "logistic": _of(lambda x: 1 / (1 + np.exp(-x))), "sign": _sign,
    "abs": lambda x, **_: np.asarray(np.abs(x)), "real": lambda x, **_: np.asarray(x.real), "imag": lambda x, **_: np.asarray(x.imag),
    "conj": lambda x, **_: np.asarray(np.conj(x)) if x.dtype.kind == "c" else None,
    "max": lambda x, y, **_: np.asarray(np.maximum(x, y)) if x.dtype.kind != "c" else None,
    "min": lambda x, y, **_: np.asarray(np.minimum(x, y)) if x.dtype.kind != "c" else None,
    "eq": _compared(np.equal), "ne": _compared(np.not_equal), "is_finite": lambda x, **_: np.asarray(np.isfinite(x)),
    "lt": _compared(np.less), "le": _compared(np.less_equal), "gt": _compared(np.greater), "ge": _compared(np.greater_equal),
    "and": _of(np.bitwise_and), "or": _of(np.bitwise_or), "xor": _of(np.bitwise_xor), "not": _of(np.invert),
    "integer_pow": _integer_pow, "select_n": _select, "convert_element_type": _convert, "broadcast_in_dim": _broadcast, "iota": _iota,
    "reshape": lambda x, *_, new_sizes, dimensions=None, **__: x.reshape(new_sizes) if dimensions is None else None,
    "squeeze": lambda x, *, dimensions, **_: np.squeeze(x, tuple(dimensions)),
    "transpose": lambda x, *, permutation, **_: np.transpose(x, permutation),
    "rev": lambda x, *, dimensions, **_: np.flip(x, tuple(dimensions)),
    "concatenate": lambda *xs, dimension, **_: np.concatenate(xs, dimension),
    "slice": lambda x, *, start_indices, limit_indices, strides, **_: x[tuple([
        slice(a, b, c) for a, b, c in zip(start_indices, limit_indices, strides or (1,) * x.ndim, strict=True)])],
    "reduce_sum": _reduced(np.sum), "reduce_prod": _reduced(np.prod), "reduce_and": _reduced(np.all), "reduce_or": _reduced(np.any),
    "cumsum": _cumulated(np.cumsum), "cumprod": _cumulated(np.cumprod), "pad": _pad, "dot_general": _dot, "copy": lambda x, **_: x,
    "copy_p": lambda x, **_: x, "stop_gradient": lambda x, **_: x, "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice, "clamp": lambda a, x, b, **_: np.asarray(np.clip(x, a, b), x.dtype),
}
