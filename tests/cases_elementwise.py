"""Lines of the test table for elementwise operations and those that are flat."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cases import (
    ALL,
    ALL_FLOATS,
    C128,
    F64,
    RC,
    Case,
    bind,
    bools,
    case,
    constant,
    distinct,
    fixed,
    ints,
    normal,
    real_normal,
    scalar,
    tied,
    uniform,
    values,
)
from jax import lax

from dualrev._jax.avals import JAX_VERSION

NAN, INF = float("nan"), float("inf")

ELSEWHERE = {"gap": "test_accuracy.py"}  # 1 - x², of which asin and acosh are made


def unary(name: str, fun: Any, maker: Any = None, dtypes: tuple[str, ...] = ALL) -> list[Case]:
    """A matrix, a scalar, an empty array and one of size 1; the matrix alone in low precision."""
    domain = maker or normal
    wide, low = split(dtypes)
    shapes = [domain(3, 4), domain(), domain(0, 3), domain(1)]
    lines = [case(name, lambda *xs: [fun(x) for x in xs], *shapes, dtypes=wide)]
    return [*lines, case(name, fun, domain(3, 4), dtypes=low)] if low else lines


def binary(name: str, fun: Any, left: Any = None, right: Any = None, dtypes: tuple[str, ...] = ALL) -> list[Case]:
    """Two matrices, and empty ones; a scalar and sizes of 1 that broadcast, on either side; one operand only; low precision."""
    x, y = left or normal, right or normal
    wide, low = split(dtypes)
    lines = [
        case(name, lambda a, b, c, d: [fun(a, b), fun(c, d)], x(3, 4), y(3, 4), x(0, 3), y(0, 3), dtypes=wide),
        case(name, lambda a, b, s: [fun(s, b), fun(a, s)], x(3, 4), y(3, 4), between_or(x, y)(), label="scalars"),
        case(name, fun, x(3, 1), y(1, 4), label="sizes of 1", vmap=False),
        case(name, lambda a, b, c, d: [fun(a, b), fun(c, d)], x(5), constant(y(5)), constant(x(5)), y(5), label="one side"),
    ]
    return [*lines, case(name, fun, x(3, 4), y(3, 4), dtypes=low)] if low else lines


def split(dtypes: tuple[str, ...]) -> tuple[list[str], list[str]]:
    return [d for d in dtypes if d in RC], [d for d in dtypes if d not in RC]


def between_or(x: Any, y: Any) -> Any:
    return y if x is normal else x


def between(low: float, high: float) -> Any:
    return lambda *shape: uniform(low, high, *shape)


positive = between(0.2, 3.0)
inside = between(-0.9, 0.9)

def full_clamp(low: Any, x: Any, high: Any) -> Any:
    """``clamp`` with bounds of the operand's shape."""
    return lax.clamp(jnp.broadcast_to(low, x.shape), x, jnp.broadcast_to(high, x.shape))


CASES: list[Case] = [
    # arithmetic
    *unary("neg", lax.neg),
    *binary("add", lax.add),
    case("add", lambda x: lax.add(x, x), normal(3), label="twice"),
    case("add_any", bind("add_any"), normal(3, 2), normal(3, 2), dtypes=ALL),
    *binary("sub", lax.sub),
    *binary("mul", lax.mul),
    case("mul", lambda x: lax.mul(x, x), normal(3), label="twice", dtypes=RC),
    *([case("mul", lambda x, y: lax.mul(x, y, out_dtype="float64"), normal(2, 3), normal(1, 3), label="wider",
            dtypes=("float32", "bfloat16")),
       case("mul", lambda x, y: lax.mul(x, y, out_dtype="complex128"), normal(2), normal(), label="complex"),
       case("mul", lambda x: lax.mul(x, x, out_dtype="float64"), normal(2), label="wider, twice", dtypes=("float32",)),
       case("mul", lambda x, y: lax.mul(x, y, out_dtype="float64"), normal(2), ints(1, 4, 2), label="float and integer",
            dtypes=("float32",))] if "out_dtype" in inspect.signature(lax.mul).parameters else []),
    *binary("div", lax.div, right=positive),
    case("div", lax.div, values(1.0, -2.0, 3.0), values(1e-160, 1e160, -7.0), label="large and small", order=1),
    *binary("rem", lax.rem, right=positive, dtypes=ALL_FLOATS),
    case("rem", lax.rem, values(5.5, -5.5, 5.5, -5.5, 6.0, 0.0), values(2.0, 2.0, -2.0, -2.0, 3.0, 1.0), label="signs and jumps"),
    *unary("square", lax.square),
    *unary("one_minus_square", bind("one_minus_square")),
    case("one_minus_square", bind("one_minus_square"), values(1.0, -1.0, 0.0, 1e-300), label="edges"),
    case("integer_pow", lambda x: [lax.integer_pow(x, y) for y in (-3, -1, 0, 1, 2, 3, 6)], positive(3, 4), dtypes=RC),
    case("integer_pow", lambda x: [lax.integer_pow(x, y) for y in (0, 1, 2, 3, 4)], values(0.0, -1.0, 2.0), label="at zero"),
    *binary("pow", lax.pow, left=positive),
    case("pow", lax.pow, normal(6), constant(fixed([0, 1, 2, 3, -1, -2], np.int32)), label="whole exponents", dtypes=RC),
    case("pow", lax.pow, values(0.0, 0.0, 0.0), constant(fixed([0, 1, 2], np.int64)), label="zero to whole exponents",
         oracle=lambda x, _: x * x * np.array([0.0, 0.0, 1.0]) + x * np.array([0.0, 1.0, 0.0]) + np.array([1.0, 0.0, 0.0])),
    case("pow", lax.pow, constant(scalar(2.0)), normal(3), label="constant base"),
    case("pow", lambda x: lax.pow(x, np.int32(3)), normal(3), label="scalar whole exponent"),
    # jax has NaN for the derivative of x⁰ at 0, and hence for the second one of x¹.
    case("pow", lax.pow, values(0.0, 0.0, 0.0, 2.0), constant(values(1.0, 2.0, 3.0, 0.0)), label="zero to float exponents",
         oracle=lambda x, _: (x * np.array([1.0, 0, 0, 0]) + x * x * np.array([0, 1.0, 0, 0]) + x * x * x * np.array([0, 0, 1.0, 0])
                              + np.array([0, 0, 0, 1.0]))),
    case("pow", lax.pow, values(0.0, 0.0, 1.0), values(1.0, 2.0, 0.0), label="zero and both move", order=1),
    case("pow", lax.pow, values(0.0), values(0.0), label="zero to zero", order=1, oracle=lambda x, y: 1.0 + 0.0 * x + 0.0 * y),
    case("pow", lax.pow, constant(values(-2.0, -1.5)), constant(values(2.0, 3.0)), label="constant", order=1),
    *[case("polynomial", bind("polynomial"), normal(3, 2), *[normal(3, 2)] * n, label=f"{n} coefficients", dtypes=RC)
      for n in (1, 2, 4)],
    case("polynomial", bind("polynomial"), normal(3), normal(), normal(3), normal(), label="scalar coefficients"),
    case("polynomial", bind("polynomial"), constant(normal(3)), normal(3), constant(normal(3)), normal(3), label="some coefficients"),
    case("polynomial", lambda x: bind("polynomial")(x, *[np.float64(k) for k in range(11)]), normal(2), label="long"),

    # exponentials and logarithms
    *unary("exp", lax.exp),
    *unary("exp2", lax.exp2),
    *unary("expm1", lax.expm1),
    case("expm1", lax.expm1, values(1e-20, -1e-9, 0.0, 3.0), label="small"),
    *unary("log", lax.log, positive),
    *unary("log2", bind("log2", accuracy=None), positive),
    *unary("log1p", lax.log1p, positive),
    case("log1p", lax.log1p, values(1e-20, -1e-9, 0.0, -0.5), label="small"),
    *unary("logistic", lax.logistic),
    case("logistic", lax.logistic, values(-800.0, -40.0, 0.0, 40.0, 800.0), label="large"),

    # roots
    *unary("sqrt", lax.sqrt, positive),
    case("sqrt", lax.sqrt, values(0.0, 1.0), label="zero", order=1),
    *unary("rsqrt", lax.rsqrt, positive),
    *unary("cbrt", lax.cbrt, distinct, dtypes=ALL_FLOATS),
    case("cbrt", lax.cbrt, values(0.0, -8.0), label="zero", order=1),

    # trigonometry
    *unary("sin", lax.sin),
    *unary("cos", lax.cos),
    *unary("tan", lax.tan, inside),
    *unary("asin", lax.asin, inside),
    *unary("acos", lax.acos, inside),
    case("asin", lax.asin, normal(4), label="far", dtypes=C128),
    case("asin", lax.asin, values(1.0, -1.0), label="edges"),
    *unary("atan", lax.atan),
    *binary("atan2", lax.atan2, dtypes=ALL),
    case("atan2", lax.atan2, values(0.0, 0.0, 1.0, -1.0), values(1.0, -1.0, 0.0, 0.0), label="axes"),

    # hyperbolic
    *unary("sinh", lax.sinh),
    *unary("cosh", lax.cosh),
    *unary("tanh", lax.tanh),
    case("tanh", lax.tanh, values(-800.0, -20.0, 0.0, 3.0, 800.0), label="large"),
    *unary("asinh", lax.asinh),
    case("asinh", lax.asinh, values(-1e10, -1.0, 0.0, 1.0, 1e10), label="large"),
    *unary("acosh", lax.acosh, between(1.2, 4.0)),
    case("acosh", lax.acosh, values(1.0, 1e4, 1e9), label="edges"),
    # With one root in place of two, jax before 0.12 has the wrong sign on the left half of the plane.
    case("acosh", lax.acosh, normal(4), label="far", dtypes=C128,
         oracle=lambda x: lax.log(x + lax.sqrt(x - 1) * lax.sqrt(x + 1))),
    *unary("atanh", lax.atanh, inside),

    # error functions
    *unary("erf", lax.erf, dtypes=ALL_FLOATS),
    *unary("erfc", lax.erfc, dtypes=ALL_FLOATS),

    # extrema and pieces
    *binary("max", lax.max, dtypes=ALL_FLOATS),
    *binary("min", lax.min, dtypes=ALL_FLOATS),
    case("max", lax.max, tied(4, 5), tied(4, 5), label="ties"),
    case("min", lax.min, tied(4, 5), tied(4, 5), label="ties"),
    case("max", lambda x: lax.max(x, x), normal(3), label="itself"),
    case("max", lax.max, values(NAN, 1.0, INF, -INF), values(1.0, NAN, INF, 0.0), label="not finite", order=1),
    case("min", lax.min, values(NAN, 1.0, INF, -INF), values(1.0, NAN, INF, 0.0), label="not finite", order=1),
    case("clamp", lax.clamp, normal(3, 4), normal(3, 4), normal(3, 4), dtypes=ALL_FLOATS),
    # jax's own rule fails when a scalar bound moves.
    case("clamp", lax.clamp, scalar(-0.5), normal(3, 4), scalar(0.5), label="scalar bounds", dtypes=ALL_FLOATS, oracle=full_clamp),
    case("clamp", lax.clamp, scalar(-0.5), normal(5), normal(5), label="one scalar bound", oracle=full_clamp),
    case("clamp", lax.clamp, constant(scalar(-0.5)), normal(5), constant(scalar(0.5)), label="constant bounds"),
    case("clamp", lax.clamp, scalar(-0.5), scalar(1.0), scalar(0.5), label="scalars"),
    case("clamp", lax.clamp, tied(9), tied(9), tied(9), label="ties and crossed bounds"),
    *unary("abs", lax.abs),
    case("abs", lax.abs, values(0.0, -0.0, 1.0, -1.0), label="zero", order=1),
    case("abs", lax.abs, values(0.0, 1.0, 1j, -1 - 1j), label="zero", dtypes=C128, order=1),
    *unary("sign", lax.sign, dtypes=ALL_FLOATS),
    case("sign", lax.sign, values(0.0, -1.0), label="zero"),
    *([case("sign", lax.sign, normal(3, 2), label="complex", dtypes=C128),
       case("sign", lax.sign, values(0.0, 1.0, 1j), label="zero", dtypes=C128, order=1)] if JAX_VERSION >= (0, 12) else []),

    # real and complex
    case("real", lax.real, normal(3, 2), dtypes=C128),
    case("imag", lax.imag, normal(3, 2), dtypes=C128),
    case("conj", lax.conj, normal(3, 2), dtypes=RC),
    case("complex", lax.complex, real_normal(3, 2), real_normal(3, 2), dtypes=F64),
    case("complex", lax.complex, real_normal(), real_normal(3, 2), label="scalar", dtypes=F64),
    case("complex", lambda x: lax.complex(x, lax.full_like(x, 1.5)), real_normal(3), label="real part only", dtypes=F64),
    case("complex", lambda x: lax.complex(lax.full_like(x, 1.5), x), real_normal(3), label="imaginary part only", dtypes=F64),
    case("real", lambda z: lax.real(z) * lax.imag(z), normal(4), label="not holomorphic", dtypes=C128),
    case("conj", lambda z: lax.conj(z) * z * z, normal(4), label="not holomorphic", dtypes=C128),

    # flat
    *[line for name, fun in (("floor", lax.floor), ("ceil", lax.ceil), ("round", lax.round)) for line in (
        case(name, lambda x, fun=fun: (fun(x), x * fun(x)), normal(3, 4), dtypes=ALL_FLOATS),
        case(name, lambda x, fun=fun: x * fun(x), values(0.0, 1.0, -0.5, 2.5), label="jumps"))],
    *[case(name, lambda x, y, name=name: jnp.where(bind(name)(x, y), x, y * y), tied(7), tied(7))
      for name in ("eq", "ne", "ge", "gt", "le", "lt", "eq_to", "le_to", "lt_to")],
    case("is_finite", lambda x: jnp.where(lax.is_finite(x), x * x, 0.0), values(1.0, 2.0, -3.0)),
    *[case(name, lambda x, i, name=name: x * bind(name)(lax.convert_element_type(x * 4, "int32"), i).astype(x.dtype), normal(5),
           ints(0, 4, 5))
      for name in ("and", "or", "xor", "shift_left", "shift_right_arithmetic", "shift_right_logical", "mulhi")],
    *[case(name, lambda x, name=name: x * bind(name)(lax.convert_element_type(x * 4, "int32")).astype(x.dtype), normal(5))
      for name in ("not", "population_count", "clz")],
    case("and", lambda x, b: jnp.where((x > 0) & b, x * x, x), normal(5), bools(5), label="booleans"),
    case("bitcast_convert_type", lambda x: (lax.bitcast_convert_type(x, "int64"), x * x), normal(5)),
    case("bitcast_convert_type", lambda x: x * lax.bitcast_convert_type(lax.bitcast_convert_type(x, "int64"), "float64"), normal(5),
         label="there and back"),
    *[case(name, lambda x, fun=fun: x * fun(x, 0, "int32").astype(x.dtype)[None], tied(4, 3)) for name, fun in
      (("argmax", lax.argmax), ("argmin", lax.argmin))],
    case("iota", lambda x: x * lax.iota(x.dtype, 4), normal(4)),
    case("reduce_and", lambda x: jnp.where((x > 0).all(0), x * x, x), normal(4, 3)),
    case("reduce_or", lambda x: jnp.where((x > 0).any(0), x * x, x), normal(4, 3)),
    case("reduce_xor", lambda x: jnp.where(lax.reduce_xor(x > 0, (0,)), x * x, x), normal(4, 3)),
    case("stop_gradient", lambda x: x * bind("stop_gradient")(x), normal(3), dtypes=RC),
    case("nextafter", lambda x, y: lax.nextafter(x, y) * x, normal(4), constant(normal(4))) if JAX_VERSION >= (0, 12) else
    case("nextafter", lambda x, y: x + lax.nextafter(y, y), normal(4), constant(normal(4))),

    # random numbers
    case("random_bits", lambda x: x * jax.random.uniform(jax.random.key(3), (4,), x.dtype), normal(4)),
    case("random_seed", lambda x: x * jax.random.normal(jax.random.key(x.size), (4,), x.dtype), normal(4)),
    case("random_split", lambda x: x * jax.random.normal(jax.random.split(jax.random.key(0))[1], (4,), x.dtype), normal(4)),
    case("random_wrap", lambda x: x * jax.random.normal(jax.random.PRNGKey(0), (4,), x.dtype), normal(4)),
    case("random_unwrap", lambda x: x * jax.random.key_data(jax.random.key(0))[0].astype(x.dtype) + x * x, normal(4)),
    case("random_fold_in", lambda x: x * jax.random.normal(jax.random.fold_in(jax.random.key(0), 1), (4,), x.dtype), normal(4)),
    case("random_clone", lambda x: x * jax.random.normal(jax.random.clone(jax.random.key(0)), (4,), x.dtype), normal(4)),
    case("rng_bit_generator", lambda x: x * lax.rng_bit_generator(np.arange(4, dtype=np.uint32), (4,))[1].astype(x.dtype), normal(4)),
]
