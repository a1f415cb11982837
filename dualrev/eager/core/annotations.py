"""Types that signatures name: what PyTorch's functions take as a number, a dtype, a device, dimensions or sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import jax
import numpy as np

from dualrev.eager.core import dtypes

#: A Python number; a bool is an int.
Scalar: TypeAlias = float | complex
#: A value inside an operation: an array, or a number that jax takes as one.
Number: TypeAlias = jax.Array | Scalar
#: The entries of a tensor: an array of jax or, where it is small, of numpy.
Values: TypeAlias = jax.Array | np.ndarray
#: A dtype of PyTorch's name, of numpy's, or a Python or numpy type.
DType: TypeAlias = dtypes.dtype | np.dtype | type
#: A device, its name, or the number of a GPU.
Device: TypeAlias = dtypes.device | str | int
#: Dimensions to reduce; None is all.
Dims: TypeAlias = int | list[int] | tuple[int, ...] | None
#: One number for all spatial dimensions, or one for each.
Sizes: TypeAlias = int | Sequence[int]
