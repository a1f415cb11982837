"""Linear and bilinear maps, and classes as vectors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.core import dtypes
from dualrev.eager.core.operation import Op, family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of
from dualrev.eager.ops.checks import first_outside, same_dtype
from dualrev.eager.ops.precision import low_precision


def _linear_of(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    if x.dtype.itemsize != 2:
        return jnp.matmul(x, w.T) + b
    # Floats of 16 bits are rounded once, after the bias is added.
    return (jnp.matmul(x, w.T, preferred_element_type=jnp.float32) + b.astype(jnp.float32)).astype(x.dtype)


_LINEAR = Op("Addmm", _linear_of)
_LINEAR_PLAIN = Op("Mm", lambda x, w: jnp.matmul(x, w.T))


@low_precision
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: A002
    """``x @ weight.T + bias``."""
    x, w = array_of(input).shape, array_of(weight).shape
    if x[-1] != w[1]:
        shown = "x".join(map(str, x if len(x) > 1 else (1, *x)))
        raise RuntimeError(f"mat1 and mat2 shapes cannot be multiplied ({shown} and {w[1]}x{w[0]})\n"
                           f"the layer takes {w[1]} features")
    same_dtype(array_of(input), array_of(weight), "mat1 and mat2 must have the same dtype, but got {A} and {B}")
    return apply(_LINEAR_PLAIN, (input, weight)) if bias is None else apply(_LINEAR, (input, weight, bias))


def _bilinear_of(x: jax.Array, y: jax.Array, w: jax.Array, *bias: jax.Array) -> jax.Array:
    out = jnp.einsum("...i,kij,...j->...k", x, w, y)
    return out + bias[0] if bias else out


_BILINEAR = Op("Bilinear", _bilinear_of)


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x1 @ weight[k] @ x2 + bias[k]`` for each ``k``."""
    for i, x in enumerate((input1, input2)):
        if x.shape[-1] != weight.shape[i + 1]:
            raise RuntimeError(f"bilinear(): input{i + 1} size does not match weight size: got {x.shape[-1]} but expected "
                               f"{weight.shape[i + 1]}")
    return apply(_BILINEAR, (input1, input2, weight, *(() if bias is None else (bias,))))


_one_hot = family("OneHot", lambda x, n: jax.nn.one_hot(x, n, dtype=dtypes.long_dtype()))


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """One-hot vectors of classes."""
    if array_of(tensor).dtype not in (np.int64, dtypes.long_dtype()):
        raise RuntimeError("one_hot is only applicable to index tensor of type LongTensor.\nx.long() converts it")
    if num_classes < 0 and (wrong := first_outside(array_of(tensor), 2 ** 62)) is not None:
        raise RuntimeError(f"Class values must be non-negative.\nthere is {wrong}")
    if num_classes >= 0 and (wrong := first_outside(array_of(tensor), num_classes)) is not None:
        raise RuntimeError(f"Class values must be {'smaller than num_classes' if wrong > 0 else 'non-negative'}.\n"
                           f"there is {wrong}, and num_classes={num_classes}")
    return apply(_one_hot(int(tensor.max().item()) + 1 if num_classes < 0 else num_classes), (tensor,))
