"""Discrete Fourier transforms.

With ``ω = exp(-2πi/n)``, along each of the last axes (the others are batches)::

    fft(x)[k] = Σ_j x[j] ω^(jk)           ifft(x)[j] = Σ_k x[k] ω^(-jk) / n

``rfft`` is the ``fft`` of real entries along its last axis, of which it keeps the half ``k ≤ n/2`` that determines the rest.
``irfft`` is its inverse: with ``share[k]`` = 1 where an entry of the half spectrum stands for itself (``k = 0``, and
``k = n/2`` for an even ``n``) and 2 where it stands for its mirror image too ::

    irfft(x)[j] = Σ_k share[k] Re(x[k] ω^(-jk)) / n                                  (1)

The matrices of ``fft`` and ``ifft`` are symmetric: each is its own transpose.  For the pairing ``Re Σ ct·t`` of the others ::

    Re Σ_k ct[k] rfft(t)[k]  = Σ_j t[j] Σ_k Re(ct[k] ω^(jk))
    Σ_j ct[j] irfft(t)[j]    = Re Σ_k t[k] · share[k]/n · conj(Σ_j ct[j] ω^(jk))

The first sum over ``k`` is (1) of ``n conj(ct)/share``, as ``Re(z) = Re(conj(z))``; the last one over ``j`` is ``rfft(ct)``.
Further axes, which are complex, replace ``n`` by the product of all lengths and nothing else.
"""

from __future__ import annotations

import math

import numpy as np
from jax import Array, lax

from dualrev._jax.avals import DType, ShapedArray
from dualrev._jax.primitives import primitive
from dualrev.table.forms import linear


def share(n: int, dtype: DType) -> np.ndarray:
    """How many entries of a spectrum of length ``n`` each entry of its half stands for."""
    k = np.arange(n // 2 + 1)
    return np.where(2 * k % n == 0, 1, 2).astype(dtype)


def along_last(weights: np.ndarray, x: Array) -> Array:
    """``weights`` for each entry of the last axis, in the shape of ``x``."""
    return lax.broadcast_in_dim(weights, x.shape, (x.ndim - 1,))


def fft_adjoint(ct: Array, _: ShapedArray, *, fft_type: lax.FftType, fft_lengths: tuple[int, ...]) -> Array:
    size, n = math.prod(fft_lengths), fft_lengths[-1]
    if fft_type == lax.FftType.RFFT:
        weights = along_last(size / share(n, ct.dtype), ct)
        return lax.fft(lax.mul(weights, lax.conj(ct)), lax.FftType.IRFFT, fft_lengths)
    if fft_type == lax.FftType.IRFFT:
        half = lax.fft(ct, lax.FftType.RFFT, fft_lengths)
        return lax.mul(along_last(share(n, half.dtype) / size, half), lax.conj(half))
    return lax.fft(ct, fft_type, fft_lengths)


linear(primitive("fft"), fft_adjoint)
