"""``out=``: results written into a given tensor."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from dualrev.eager.core import dtypes
from dualrev.eager.core.evaluation import cast
from dualrev.eager.core.modes import mode
from dualrev.eager.graph.inplace import check_may_change, narrows, write
from dualrev.eager.graph.tensor import Tensor, array_of, described


def into(out: object, array: Any, name: str) -> Tensor:
    """Write an array into a tensor; an empty tensor takes its shape.

    Raises:
      TypeError: ``out`` is no tensor.
      RuntimeError: it requires grad, its dtype is narrower, or its shape is another.
    """
    if not isinstance(out, Tensor):
        raise TypeError(f"{name}(): argument 'out' must be Tensor, not {type(out).__name__}")
    if mode.grad and out.requires_grad:
        refused(name)
    old = array_of(out)
    if narrows(array.dtype, old.dtype):
        raise RuntimeError(f"result type {dtypes.type_name(array.dtype)} can't be cast to the desired output type "
                           f"{dtypes.type_name(old.dtype)}\n" + described(out))
    if old.shape != array.shape and (old.size or out._view is not None):
        raise RuntimeError(f"out= has shape {list(old.shape)}, and the result has shape {list(array.shape)}\n" + described(out)
                           + f"; give one of shape {list(array.shape)}, or torch.empty(0), which takes any")
    if mode.grad:
        check_may_change(out)
    write(out, cast(array, old.dtype))
    return out


#: The kernels that PyTorch names instead of its functions.
_KERNELS = {"linalg_inv": "linalg_inv_ex", "linalg_solve": "_linalg_solve_ex", "linalg_svdvals": "_linalg_svd", "special_erf": "erf",
            "diff": "sub"}


def refused(name: str) -> None:
    """Raise PyTorch's refusal to differentiate through ``out=``."""
    if name in ("softmax", "log_softmax"):
        raise RuntimeError(f"derivative for aten::{name} is not implemented\ncall it without out=, or under torch.no_grad()")
    name = _KERNELS.get(name, name)
    raise RuntimeError(f"{name}(): functions with out=... arguments don't support automatic differentiation, but one of the arguments "
                       "requires grad.\ncall it without out=, or under torch.no_grad()")


def with_out(fun: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function, which writes its result into ``out`` where that is given."""
    sig = inspect.signature(fun)
    given = [*sig.parameters.values()]
    if "out" in sig.parameters:
        return fun

    @functools.wraps(fun)
    def writing(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        result = fun(*args, **kwargs)
        return result if out is None else all_into(out, result, name)

    writing.__dict__["__signature__"] = sig.replace(parameters=[*given, inspect.Parameter("out", inspect.Parameter.KEYWORD_ONLY,
                                                                                         default=None)])
    return writing


def all_into(out: Any, result: Any, name: str) -> Any:
    """Write a result, or each of several, into ``out``."""
    if isinstance(result, tuple):
        if not isinstance(out, (tuple, list)) or len(out) != len(result):
            raise TypeError(f"{name}(): argument 'out' must be tuple of {len(result)} Tensors, not {type(out).__name__}")
        for o, r in zip(out, result, strict=True):
            all_into(o, r, name)
        return type(result)(*out) if hasattr(result, "_fields") else tuple(out)
    if result.requires_grad:
        refused(name)
    return into(out, array_of(result), name)
