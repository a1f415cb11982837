"""Bessel functions of the first and second kind, and Airy's: their values, for neither PyTorch nor jax has a derivative of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import scipy.special

from dualrev._jax.traces import Tracer
from dualrev.eager.core import dtypes
from dualrev.eager.core.evaluation import kept
from dualrev.eager.core.operation import Op
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor, array_of, wrap

#: By PyTorch's names, what scipy has.
_OF: dict[str, Callable[..., Any]] = {
    "airy_ai": lambda x: scipy.special.airy(x)[0], "bessel_j0": scipy.special.j0, "bessel_j1": scipy.special.j1,
    "bessel_y0": scipy.special.y0, "bessel_y1": scipy.special.y1, "modified_bessel_k0": scipy.special.k0,
    "modified_bessel_k1": scipy.special.k1, "scaled_modified_bessel_k0": scipy.special.k0e,
    "scaled_modified_bessel_k1": scipy.special.k1e, "spherical_bessel_j0": lambda x: scipy.special.spherical_jn(0, x)}
NAMES = tuple(_OF)
#: Those whose argument has the name ``x`` in PyTorch.
_OF_X = ("airy_ai", "spherical_bessel_j0", "scaled_modified_bessel_k0", "scaled_modified_bessel_k1")


def bessel(name: str) -> Callable[[Tensor], Tensor]:
    """The function of a name; integers become the default float.

    The function raises TypeError for what is no tensor, and NotImplementedError for complex numbers and floats of 16 bits.
    """
    def values(x: Any) -> Any:
        return np.asarray(_OF[name](np.asarray(x, np.float64)), _dtype(x.dtype))

    # What is being traced has no value yet: the compiled program calls back.
    traced = Op(name, lambda x: jax.lax.stop_gradient(jax.pure_callback(
        values, jax.ShapeDtypeStruct(x.shape, _dtype(x.dtype)), jax.lax.stop_gradient(x), vmap_method="expand_dims")))

    def of(input: Tensor) -> Tensor:  # noqa: A002
        if not isinstance(input, Tensor):
            argument = "x" if name in _OF_X else "input"
            raise TypeError(f"special_{name}(): argument '{argument}' (position 1) must be Tensor, not {type(input).__name__}")
        array = array_of(input)
        if array.dtype.kind not in "biu" and array.dtype not in (np.float32, np.float64):
            raise NotImplementedError(f"\"{name}_cpu\" not implemented for '{dtypes.type_name(array.dtype)}'\n.float() gives a copy of "
                                      "which it is")
        return apply(traced, (input.detach(),)) if isinstance(array, Tracer) else wrap(kept(values(array)))

    of.__name__ = of.__qualname__ = name
    of.__doc__ = f"{name} of each entry; no derivative goes through it."
    return of


def _dtype(dtype: np.dtype) -> np.dtype:
    return dtypes.get_default_dtype().numpy if dtype.kind in "biu" else dtype
