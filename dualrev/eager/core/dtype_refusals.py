"""Operations that PyTorch has no kernel of for some dtypes: they are refused in its words, by their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dualrev.eager.core.dtypes import type_name

#: The kernels that take no whole numbers and no truth values.
_KERNELS = {"BinaryCrossEntropy": "binary_cross_entropy", "CholeskyInverse": "cholesky_inverse_out_cpu",
            "CholeskySolve": "cholesky_solve_cpu", "Elu": "elu_cpu", "Gelu": "GeluKernelImpl", "Lerp": "lerp_kernel_scalar",
            "MseLoss": "mse_cpu", "NativeBatchNorm": "batch_norm", "NativeLayerNorm": "LayerNormKernelImpl", "Softplus": "softplus_cpu"}
#: Functions of matrices that say what they expect, and the kernels that they name for floats of 16 bits, or None.
_MATRICES = {"LinalgInvEx": ("linalg.inv", None), "LinalgSlogdet": ("linalg.slogdet", None), "LinalgDet": ("linalg.det", "lu_cpu"),
             "LinalgSolveEx": ("linalg.solve", "lu_cpu"), "LinalgCholeskyEx": ("linalg.cholesky", "cholesky_cpu")}


def refusing(name: str, fun: Callable[..., Any]) -> Callable[..., Any]:
    """The function of arrays behind an operation, which refuses dtypes that the operation of this name does not take.

    It runs when the operation is traced, which is once for each set of dtypes.
    """
    if name in _KERNELS:
        return lambda *args: fun(*_without_whole_numbers(_KERNELS[name], args))
    if name in _MATRICES:
        return lambda *args: fun(*_of_matrices(*_MATRICES[name], args))
    return fun


def no_kernel(kernel: str, dtype: Any) -> NotImplementedError:
    """PyTorch's refusal of a dtype that a kernel does not take."""
    return NotImplementedError(f"\"{kernel}\" not implemented for '{type_name(dtype)}'\nconvert it first: x.float()")


def _without_whole_numbers(kernel: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The operands, of which one has to be a float: the others are promoted to its dtype; a Python number does not count."""
    arrays = [x for x in args if hasattr(x, "dtype") and not getattr(x, "weak_type", False)]
    if arrays and all(x.dtype.kind in "biu" for x in arrays):
        raise no_kernel(kernel, arrays[0].dtype)
    return args


def _of_matrices(name: str, kernel: str | None, args: tuple[Any, ...]) -> tuple[Any, ...]:
    dtype = args[0].dtype
    if dtype.kind in "biu":
        raise RuntimeError(f"{name}: Expected a floating point or complex tensor as input. Got {type_name(dtype)}\n"
                           "convert it first: x.float()")
    if dtype.kind in "fV" and dtype.itemsize == 2:
        if kernel is None:
            raise RuntimeError(f"{name}: Low precision dtypes not supported. Got {type_name(dtype)}\nconvert it first: x.float()")
        raise no_kernel(kernel, dtype)
    return args
