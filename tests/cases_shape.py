"""Lines of the test table for operations that move, choose, copy or convert entries."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from cases import ALL, RC, Case, bind, bools, case, constant, fixed, ints, normal, real_normal, scalar
from jax import lax
from jax.ad_checkpoint import checkpoint_name

ELSEWHERE = dict.fromkeys(("to_edtype", "from_edtype"), "test_values.py") | dict.fromkeys(("tap", "perturbed"), "test_taps_composed.py")

CASES: list[Case] = [
    # same entries
    case("reshape", lambda x: lax.reshape(x, (2, 6)), normal(3, 4), dtypes=ALL),
    case("reshape", lambda x: lax.reshape(x, (8, 3), (2, 0, 1)), normal(3, 4, 2), label="of a transpose"),
    case("reshape", lambda x: lax.reshape(x, ()), normal(1, 1), label="to scalar"),
    case("reshape", lambda x: lax.reshape(x, (0, 5)), normal(2, 0), label="empty"),
    case("squeeze", lambda x: lax.squeeze(x, (0, 2)), normal(1, 3, 1, 2), dtypes=RC),
    case("squeeze", lambda x: lax.squeeze(x, (-1,)), normal(1), label="to scalar"),
    case("transpose", lambda x: lax.transpose(x, (2, 0, 1)), normal(2, 3, 4), dtypes=ALL),
    case("transpose", lambda x: x.T, normal(0, 3), label="empty"),
    case("rev", lambda x: lax.rev(x, (0, 2)), normal(2, 3, 4), dtypes=RC),
    case("rev", lambda x: lax.rev(x, (0,)), normal(0), label="empty"),

    # repeated entries
    case("broadcast_in_dim", lambda x: lax.broadcast_in_dim(x, (2, 3, 4), (1,)), normal(3), dtypes=ALL),
    case("broadcast_in_dim", lambda x: lax.broadcast_in_dim(x, (2, 3, 4), (0, 2)), normal(2, 1), label="size 1"),
    case("broadcast_in_dim", lambda x: lax.broadcast_in_dim(x, (2, 1, 3), (0, 2)), normal(2, 3), label="new size 1"),
    case("broadcast_in_dim", lambda x: lax.broadcast(x, (2, 3)), normal(), label="scalar"),
    case("broadcast_in_dim", lambda x: lax.broadcast(x, (0, 3)), normal(2), label="to empty"),
    case("broadcast_in_dim", lambda x: lax.broadcast_in_dim(x, (0, 2), (0, 1)), normal(1, 2), label="size 1 to empty"),
    case("tile", lambda x: bind("tile", reps=(2, 1, 3))(x), normal(2, 3, 2), dtypes=RC),
    case("tile", lambda x: bind("tile", reps=(0, 2))(x), normal(2, 3), label="to empty"),

    # parts of arrays
    case("slice", lambda x: lax.slice(x, (1, 0), (3, 3)), normal(4, 5), dtypes=ALL),
    case("slice", lambda x: lax.slice(x, (0, 1), (7, 6), (3, 2)), normal(7, 8), label="strides", dtypes=RC),
    case("slice", lambda x: lax.slice(x, (2,), (2,), (3,)), normal(5), label="empty"),
    case("slice", lambda x: lax.slice(x, (0,), (0,)), normal(0), label="of empty"),
    case("rev", lambda x: x[::-2], normal(7), label="negative stride"),
    case("split", lambda x: lax.split(x, (1, 0, 3), 1), normal(2, 4), dtypes=RC),
    case("split", lambda x: lax.split(x, (2, 2))[1], normal(4), label="one part used"),
    case("concatenate", lambda x, y, z: lax.concatenate((x, y, z), 1), normal(2, 3), normal(2, 1), normal(2, 0), dtypes=ALL),
    case("concatenate", lambda x, y: lax.concatenate((x, y, x), 0), constant(normal(2)), normal(3), label="some constant"),
    case("concatenate", lambda x: bind("concatenate", dimension=0)(x), normal(2), label="one"),
    case("pad", lambda x, v: lax.pad(x, v, ((1, 2, 0), (0, 1, 2))), normal(3, 4), normal(), dtypes=ALL),
    case("pad", lambda x, v: lax.pad(x, v, ((-1, 2, 0), (1, -2, 0))), normal(3, 4), normal(), label="negative"),
    case("pad", lambda x, v: lax.pad(x, v, ((-1, -2, 1), (-2, 1, 2))), normal(5, 4), normal(),
         label="negative and interior", dtypes=RC),
    case("pad", lambda x, v: lax.pad(x, v, ((-3, -1, 0),)), normal(4), normal(), label="all cut"),
    case("pad", lambda x, v: lax.pad(x, v, ((2, 1, 3),)), normal(0), normal(), label="of empty"),
    case("pad", lambda x, v: lax.pad(x, v, ((2, 1, 3),)), normal(1), normal(), label="of one"),
    case("pad", lambda x, v: lax.pad(x, v, ((1, 1, 0),)), constant(normal(3)), normal(), label="value only",
         oracle=lambda x, v: lax.concatenate((v.reshape(1), x, v.reshape(1)), 0)),
    case("pad", lambda x, v: lax.pad(x, v, ((1, 1, 0),)), normal(3), constant(scalar(0.0)), label="operand only"),
    case("pad", lambda x: lax.pad(x, np.float64(2.0), ()), normal(), label="scalar"),
    case("stack", lambda x, y: bind("stack", axis=1)(x, y), normal(2, 3), normal(2, 3), dtypes=RC),
    case("stack", lambda x, y: bind("stack", axis=0)(x, y, x), normal(), constant(normal()), label="scalars"),
    case("unstack", lambda x: bind("unstack", axis=1)(x), normal(2, 3), dtypes=RC),
    case("unstack", lambda x: bind("unstack", axis=0)(x)[1], normal(3), label="one part used"),

    # choices
    case("select_n", lambda p, x, y: lax.select_n(p, x, y), bools(3, 4), normal(3, 4), normal(3, 4), dtypes=ALL),
    case("select_n", lambda p, x, y: lax.select_n(p, x, y), fixed(True), normal(3), normal(3), label="scalar predicate"),
    case("select_n", lambda i, x, y, z: lax.select_n(i, x, y, z), ints(0, 3, 7), normal(7), normal(7), normal(7),
         label="three", dtypes=RC),
    case("select_n", lambda i, x, y, z: lax.select_n(i, x, y, z), fixed(2, np.int32), normal(2), constant(normal(2)), normal(2),
         label="scalar index"),
    case("select_n", lambda i, x: lax.select_n(i, x), ints(0, 1, 3), normal(3), label="one"),
    case("select_n", lambda x, y: lax.select_n(x > 0, x * y, y), normal(0), normal(0), label="empty"),
    case("select_n", lambda x: jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1.0)), 0.0), normal(6), label="where twice"),
    case("select_n", lambda p, x: lax.select_n(p, jnp.ones(3, "int32"), jnp.zeros(3, "int32")).astype(x.dtype) * x, bools(3), normal(3),
         label="integers"),

    # dtypes
    case("convert_element_type", lambda x: lax.convert_element_type(x, "float32"), normal(3, 2), rtol=1e-6),
    case("convert_element_type", lambda x: lax.convert_element_type(x, "float64"), normal(3, 2),
         dtypes=("float32", "bfloat16", "float16")),
    case("convert_element_type", lambda x: lax.convert_element_type(x, "complex128"), normal(3), label="to complex"),
    case("convert_element_type", lambda x: (lax.convert_element_type(x * 9, "int32"), x), normal(3), label="to integer"),
    case("convert_element_type", lambda x: x * lax.convert_element_type(lax.convert_element_type(x * 9, "int32"), "float64"), normal(3),
         label="to integer and back"),
    case("convert_element_type", lambda i, x: x * lax.convert_element_type(i, "float64"), ints(0, 9, 3), normal(3),
         label="from integer"),
    case("convert_element_type", lambda x: x * lax.convert_element_type(x > 0, "float64"), normal(5), label="from boolean"),
    case("convert_element_type", lambda x: jnp.asarray(lax.real(x), "float64").astype("complex128") * x.astype("complex128"), normal(3),
         dtypes=("complex64",), label="real part"),
    case("reduce_precision", lambda x: lax.reduce_precision(x, 8, 7) * x, normal(3, 2), rtol=1e-2, order=1),
    case("reduce_precision", lambda x: lax.reduce_precision(x, 11, 52), normal(3), label="same precision"),

    # copies
    case("copy", lambda x: x * bind("copy")(x), normal(3), dtypes=RC),
    case("copy", lambda x: jnp.array(x, copy=True), normal(3), label="jnp.array"),
    case("name", lambda x: checkpoint_name(x * x, "kept") * x, normal(3)),
    case("tie", lambda x, y: bind("tie")(x, y) * y, normal(3), normal(3)),
    case("device_put", lambda x: jax.device_put(x, jax.devices()[0]) * x, normal(3)),
    case("device_put", lambda x, i: jax.device_put((x, i), jax.devices()[0]), normal(3), ints(0, 5, 2), label="with integers"),
    case("optimization_barrier", lambda x, y: lax.optimization_barrier((x, y))[0] * y, normal(3), normal(3)),
    case("optimization_barrier", lambda x, i, y: lax.optimization_barrier((x * x, i, y)), normal(3), ints(0, 5, 2), constant(normal(2)),
         label="with integers"),
    case("optimization_barrier", lambda z, x: lax.optimization_barrier((z, x)), normal(3), real_normal(2),
         dtypes=("complex128",),
         label="complex and real"),
]
