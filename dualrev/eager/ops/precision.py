"""Dtypes that operations compute in under ``autocast``: PyTorch's lists for the CPU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from dualrev.eager.core import dtypes
from dualrev.eager.core.modes import mode
from dualrev.eager.graph.tensor import Tensor, array_of

F = TypeVar("F", bound=Callable[..., Any])


def _casting(fun: F, chosen: Callable[[list[Tensor]], dtypes.dtype]) -> F:
    """The function, which casts tensors of floating point under ``autocast``; operations inside are not cast again."""
    @functools.wraps(fun)
    def cast(*args: Any, **kwargs: Any) -> Any:
        wanted = mode.autocast
        if wanted is None:
            return fun(*args, **kwargs)
        found: list[Tensor] = []
        _each(args, found.append)
        _each(kwargs, found.append)
        target = chosen([t for t in found if _casts(t)])
        mode.autocast = None
        try:
            args, kwargs = _each(args, lambda t: t.to(target)), _each(kwargs, lambda t: t.to(target))
            return fun(*args, **kwargs)
        finally:
            mode.autocast = wanted

    return cast  # type: ignore[return-value]


def _each(x: Any, change: Callable[[Tensor], Any]) -> Any:
    """Containers with each tensor that may be cast changed."""
    if isinstance(x, Tensor):
        return change(x) if _casts(x) else x
    if type(x) in (list, tuple):
        return type(x)([_each(y, change) for y in x])
    return {k: _each(v, change) for k, v in x.items()} if type(x) is dict else x


def _casts(t: Tensor) -> bool:
    """Whether autocast looks at a tensor: those of 64 bits and whole numbers stay as they are."""
    dtype = dtypes.of(array_of(t).dtype)
    return dtype.is_floating_point and dtype != dtypes.float64


def low_precision(fun: F) -> F:
    """A decorator: under ``autocast``, compute in its dtype."""
    return _casting(fun, lambda tensors: mode.autocast)  # type: ignore[arg-type, return-value]


def full_precision(fun: F) -> F:
    """A decorator: under ``autocast``, compute in float32."""
    return _casting(fun, lambda tensors: dtypes.float32)


def widest_precision(fun: F) -> F:
    """A decorator: under ``autocast``, compute in the widest dtype of the tensors."""
    def widest(tensors: list[Tensor]) -> dtypes.dtype:
        return dtypes.float32 if any(t.dtype == dtypes.float32 for t in tensors) or not tensors else tensors[0].dtype

    return _casting(fun, widest)


#: The functions that are computed in float32, by their places: those of PyTorch's list for the CPU, and what is made of them.
_FULL = {
    "torch": """cdist cholesky cholesky_inverse cholesky_solve geqrf inverse lu lu_solve nanquantile orgqr ormqr pinverse polar prod qr
                quantile stft svd trace triangular_solve view_as_complex""",
    "linalg": """cholesky cholesky_ex cond eig eigh eigvals eigvalsh householder_product inv inv_ex lstsq lu_factor lu_factor_ex
                 lu_solve matrix_rank qr solve solve_ex svd svdvals tensorinv tensorsolve
                 ldl_factor ldl_factor_ex ldl_solve""",
    "fft": "fft fft2 fftn hfft hfft2 hfftn ifft ifft2 ifftn ihfft ihfft2 ihfftn irfft irfft2 irfftn rfft rfft2 rfftn",
    "functional": """avg_pool3d cosine_embedding_loss grid_sample hinge_embedding_loss local_response_norm max_unpool1d max_unpool2d
                     max_unpool3d multi_margin_loss multilabel_margin_loss poisson_nll_loss soft_margin_loss triplet_margin_loss""",
}
#: Those that are computed in the narrower dtype, for they are made of products.
_LOW = {
    "torch": "chain_matmul corrcoef cov",
    "linalg": "multi_dot vecdot",
    "fft": "",
    "functional": "affine_grid prelu",
}


def _narrowed(fun: F) -> F:
    """A decorator: under ``autocast``, compute in float32, with a result of its dtype, for the last step is a product."""
    single = full_precision(fun)

    @functools.wraps(fun)
    def narrowed(*args: Any, **kwargs: Any) -> Any:
        wanted = mode.autocast
        return single(*args, **kwargs) if wanted is None else single(*args, **kwargs).to(wanted)

    return narrowed  # type: ignore[return-value]


def with_precision(place: str, functions: dict[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Those of the functions that ``autocast`` looks at, by name, with what it does."""
    full = {name: full_precision(functions[name]) for name in _FULL[place].split() if name in functions}
    if place == "linalg":
        full["pinv"] = _narrowed(functions["pinv"])
    return {**full, **{name: low_precision(functions[name]) for name in _LOW[place].split() if name in functions}}
