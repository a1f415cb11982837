"""Discrete Fourier transforms under PyTorch's names: ``torch.fft``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dualrev.eager.core import dtypes
from dualrev.eager.core.annotations import Device, Dims, DType, Sizes
from dualrev.eager.core.dtypes import numpy_of
from dualrev.eager.core.operation import family
from dualrev.eager.graph.recording import apply
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.ops.creation import finished
from dualrev.eager.ops.dimensions import dim_of
from dualrev.eager.ops.outputs import all_into
from dualrev.eager.ops.precision import with_precision

_NORMS = (None, "backward", "forward", "ortho")


def _floating(x: jax.Array) -> jax.Array:
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(dtypes.get_default_dtype().numpy)


def _family(name: str, fun: Callable[..., jax.Array], real: bool = False) -> Callable[..., Any]:
    def of(x: jax.Array, sizes: Any, dims: Any, norm: str | None) -> jax.Array:
        if real and jnp.issubdtype(x.dtype, jnp.complexfloating):
            raise RuntimeError(f"{name} expects a real input tensor, but got {dtypes.type_name(x.dtype)}")
        return fun(_floating(x), sizes, dims, norm)

    return family("FftR2C" if real else "FftC2R" if name in ("irfft", "irfftn", "hfft") else "FftC2C", of)


_ONE: dict[str, Any] = {name: _family(name, getattr(jnp.fft, name), name in ("rfft", "ihfft"))
                        for name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")}
_ONE_OF_REAL: dict[str, Any] = {name: _family(name, getattr(jnp.fft, name), True) for name in ("fft", "ifft")}
_MANY: dict[str, Any] = {name: _family(name, getattr(jnp.fft, name), name == "rfftn") for name in ("fftn", "ifftn", "rfftn", "irfftn")}


_padded = family("ConstantPadNd", lambda x, grown: jnp.pad(x, grown))


def _grown(x: Tensor, sizes: dict[int, int]) -> Tensor:
    """Padded with zeros to sizes along dimensions, where these are longer: an operation of its own in PyTorch."""
    grown = tuple([(0, max(sizes.get(d, n) - n, 0)) for d, n in enumerate(x.shape)])
    return apply(_padded(grown), (x,)) if any(n for _, n in grown) else x


def _checked(name: str, norm: str | None) -> str | None:
    if norm not in _NORMS:
        raise RuntimeError(f'Invalid normalization mode: "{norm}"')
    return norm


def _along(name: str, x: Tensor, n: int | None, dim: int, norm: str | None, out: Tensor | None) -> Tensor:
    d = dim_of(dim, x.ndim)
    if x.ndim == 0:
        raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
    size = x.shape[d] if n is None else n
    if name in ("irfft", "hfft") and n is None:
        size = 2 * (x.shape[d] - 1)
    if size < 1:
        raise RuntimeError(f"Invalid number of data points ({size}) specified")
    # One of real numbers is another node in PyTorch.
    op = _ONE_OF_REAL[name] if name in _ONE_OF_REAL and not x.is_complex() else _ONE[name]
    if n is not None:
        x = _grown(x, {d: n // 2 + 1 if name in ("irfft", "hfft") else int(n)})
    found = apply(op(None if n is None else int(n), d, _checked(name, norm)), (x,))
    return found if out is None else all_into(out, found, f"fft_{name}")


def fft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Tensor | None = None) -> Tensor:  # noqa: A002
    """The transform along a dimension, cut or padded with zeros to ``n`` entries.

    >>> from dualrev import eager as torch
    >>> torch.fft.fft(torch.ones(4)).real
    tensor([4., 0., 0., 0.])
    """
    return _along("fft", input, n, dim, norm, out)


def ifft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Tensor | None = None) -> Tensor:  # noqa: A002
    """The inverse transform along a dimension."""
    return _along("ifft", input, n, dim, norm, out)


def rfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Tensor | None = None) -> Tensor:  # noqa: A002
    """The first half of the transform of real entries."""
    return _along("rfft", input, n, dim, norm, out)


def irfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Tensor | None = None) -> Tensor:  # noqa: A002
    """The inverse of ``rfft``, with ``n`` entries."""
    return _along("irfft", input, n, dim, norm, out)


def hfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Tensor | None = None) -> Tensor:  # noqa: A002
    """The transform of a Hermitian signal, of which the first half is given."""
    return _along("hfft", input, n, dim, norm, out)


def ihfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None, *, out: Tensor | None = None) -> Tensor:  # noqa: A002
    """The inverse of ``hfft``."""
    return _along("ihfft", input, n, dim, norm, out)


def _over(name: str, x: Tensor, s: Sizes | None, dim: Dims, norm: str | None, out: Tensor | None) -> Tensor:
    given = None if dim is None else ((dim,) if isinstance(dim, int) else tuple(dim))
    dims = None if given is None else tuple([dim_of(d, x.ndim) for d in given])
    if dims is not None and len(set(dims)) != len(dims):
        raise RuntimeError("FFT dims must be unique")
    sizes = None
    if s is not None:
        sizes = (s,) if isinstance(s, int) else tuple(s)
        if dims is None:
            if len(sizes) > x.ndim:
                raise RuntimeError(f"Got shape with {len(sizes)} values but input tensor only has {x.ndim} dimensions.")
            dims = tuple(range(x.ndim - len(sizes), x.ndim))
        if len(dims) != len(sizes):
            raise RuntimeError("When given, dim and shape arguments must have the same length")
        sizes = tuple([x.shape[d] if n == -1 else int(n) for n, d in zip(sizes, dims, strict=True)])
    if sizes is not None and dims is not None:
        x = _grown(x, dict(zip(dims, [*sizes[:-1], sizes[-1] // 2 + 1 if name == "irfftn" else sizes[-1]], strict=True)))
    found = apply(_MANY[name](sizes, tuple(range(x.ndim)) if dims is None else dims, _checked(name, norm)), (x,))
    return found if out is None else all_into(out, found, f"fft_{name}")


def fftn(input: Tensor, s: Sizes | None = None, dim: Dims = None, norm: str | None = None, *, out: Tensor | None = None) -> Tensor:  # noqa: A002
    """The transform over several dimensions, by default over all."""
    return _over("fftn", input, s, dim, norm, out)


def ifftn(input: Tensor, s: Sizes | None = None, dim: Dims = None, norm: str | None = None, *, out: Tensor | None = None) -> Tensor:  # noqa: A002
    """The inverse of ``fftn``."""
    return _over("ifftn", input, s, dim, norm, out)


def rfftn(input: Tensor, s: Sizes | None = None, dim: Dims = None, norm: str | None = None, *, out: Tensor | None = None) -> Tensor:  # noqa: A002
    """The transform of real entries over several dimensions, of the last of which the first half is given."""
    return _over("rfftn", input, s, dim, norm, out)


def irfftn(input: Tensor, s: Sizes | None = None, dim: Dims = None, norm: str | None = None, *, out: Tensor | None = None) -> Tensor:  # noqa: A002
    """The inverse of ``rfftn``."""
    return _over("irfftn", input, s, dim, norm, out)


def fft2(input: Tensor, s: Sizes | None = None, dim: Dims = (-2, -1), norm: str | None = None, *,  # noqa: A002
         out: Tensor | None = None) -> Tensor:
    """The transform over two dimensions."""
    return _over("fftn", input, s, dim, norm, out)


def ifft2(input: Tensor, s: Sizes | None = None, dim: Dims = (-2, -1), norm: str | None = None, *,  # noqa: A002
          out: Tensor | None = None) -> Tensor:
    """The inverse of ``fft2``."""
    return _over("ifftn", input, s, dim, norm, out)


def rfft2(input: Tensor, s: Sizes | None = None, dim: Dims = (-2, -1), norm: str | None = None, *,  # noqa: A002
          out: Tensor | None = None) -> Tensor:
    """As ``rfftn``, over two dimensions."""
    return _over("rfftn", input, s, dim, norm, out)


def irfft2(input: Tensor, s: Sizes | None = None, dim: Dims = (-2, -1), norm: str | None = None, *,  # noqa: A002
           out: Tensor | None = None) -> Tensor:
    """The inverse of ``rfft2``."""
    return _over("irfftn", input, s, dim, norm, out)


def fftfreq(n: int, d: float = 1.0, *, out: Tensor | None = None, dtype: DType | None = None, device: Device | None = None,
            requires_grad: bool = False) -> Tensor:
    """The frequencies of the entries of a transform of ``n`` samples that are ``d`` apart."""
    values = np.fft.fftfreq(n, d).astype(numpy_of(dtype or dtypes.get_default_dtype()))
    return finished(values, requires_grad, device, out, "fft_fftfreq")


def rfftfreq(n: int, d: float = 1.0, *, out: Tensor | None = None, dtype: DType | None = None, device: Device | None = None,
             requires_grad: bool = False) -> Tensor:
    """As ``fftfreq``, of ``rfft``."""
    values = np.fft.rfftfreq(n, d).astype(numpy_of(dtype or dtypes.get_default_dtype()))
    return finished(values, requires_grad, device, out, "fft_rfftfreq")


def _shifted(x: Tensor, dim: Dims, sign: int) -> Tensor:
    dims = tuple(range(x.ndim)) if dim is None else tuple([dim_of(d, x.ndim) for d in ((dim,) if isinstance(dim, int) else dim)])
    shifts = tuple([x.shape[d] // 2 if sign > 0 else (x.shape[d] + 1) // 2 for d in dims])
    return x.roll(shifts, dims)


def fftshift(input: Tensor, dim: Dims = None) -> Tensor:  # noqa: A002
    """The entries of a transform ordered by frequency, from the most negative one."""
    return _shifted(input, dim, 1)


def ifftshift(input: Tensor, dim: Dims = None) -> Tensor:  # noqa: A002
    """The inverse of ``fftshift``."""
    return _shifted(input, dim, -1)


def _last(x: Tensor, s: Any, dim: Dims) -> tuple[list[int], list[Any]]:
    """The dimensions, and the size of each or None; without either, all dimensions."""
    given = range(x.ndim - (x.ndim if s is None else len(s)), x.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    dims = [dim_of(d, x.ndim) for d in given]
    return dims, [None] * len(dims) if s is None else list(s)


def _of_hermitian(x: Tensor, s: Any, dim: Dims, norm: str | None) -> Tensor:
    """``hfft`` along the last dimension, after ``fft`` along the others."""
    dims, sizes = _last(x, s, dim)
    if dims[:-1]:
        x = fftn(x, sizes[:-1] if s is not None else None, dims[:-1], norm)
    return hfft(x, sizes[-1], dims[-1], norm)


def hfft2(input: Tensor, s: Sizes | None = None, dim: Dims = (-2, -1), norm: str | None = None) -> Tensor:  # noqa: A002
    """The transform of a signal that is Hermitian in time, along two dimensions: real."""
    return _of_hermitian(input, s, dim, norm)


def hfftn(input: Tensor, s: Sizes | None = None, dim: Dims = None, norm: str | None = None) -> Tensor:  # noqa: A002
    """The transform of a signal that is Hermitian in time: real."""
    return _of_hermitian(input, s, dim, norm)


def _to_hermitian(x: Tensor, s: Any, dim: Dims, norm: str | None) -> Tensor:
    """The inverse: ``ihfft`` along the last dimension, then ``ifft`` along the others."""
    dims, sizes = _last(x, s, dim)
    x = ihfft(x, sizes[-1], dims[-1], norm)
    return ifftn(x, sizes[:-1] if s is not None else None, dims[:-1], norm) if dims[:-1] else x


def ihfft2(input: Tensor, s: Sizes | None = None, dim: Dims = (-2, -1), norm: str | None = None) -> Tensor:  # noqa: A002
    """The inverse of ``hfft2``: half of a Hermitian signal."""
    return _to_hermitian(input, s, dim, norm)


def ihfftn(input: Tensor, s: Sizes | None = None, dim: Dims = None, norm: str | None = None) -> Tensor:  # noqa: A002
    """The inverse of ``hfftn``: half of a Hermitian signal."""
    return _to_hermitian(input, s, dim, norm)


globals().update(with_precision("fft", globals()))
