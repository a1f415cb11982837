"""What ``jax_debug_nans`` and ``jax_debug_infs`` raise, and object to."""

from __future__ import annotations

import jax
import numpy as np
from jax._src.api_util import InternalFloatingPointError as _Invalid  # what jax_debug_nans raises before jit has looked closer

from dualrev._jax.traces import Tracer

#: What ``jax_debug_nans`` and ``jax_debug_infs`` raise.
INVALID_VALUE: tuple[type[Exception], ...] = (FloatingPointError, _Invalid)


def is_invalid(x: object) -> bool:
    """Whether an array holds what ``jax_debug_nans`` or ``jax_debug_infs`` objects to."""
    if not isinstance(x, jax.Array) or isinstance(x, Tracer) or not jax.dtypes.issubdtype(x.dtype, np.inexact):
        return False
    values = np.asarray(x)
    values = values if values.dtype.kind in "fc" else values.astype(np.float32)
    return bool((jax.debug_nans.value and np.isnan(values).any()) or (jax.debug_infs.value and np.isinf(values).any()))
