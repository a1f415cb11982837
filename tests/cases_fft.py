"""Lines for discrete Fourier transforms."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from cases import Maker, case, normal
from jax import lax

COMPLEX = ("complex128", "complex64")
REAL = ("float64", "float32")


def transform(kind: str, *lengths: int) -> Any:
    return lambda x: lax.fft(x, kind, lengths)


def line(label: str, fun: Any, *makers: Maker, dtypes: Any = REAL[:1]) -> Any:
    return case("fft", fun, *makers, dtypes=dtypes, label=label)


def composed(label: str, fun: Any, *makers: Maker, dtypes: Any = REAL[:1]) -> Any:
    """A function of ``jax.numpy.fft``: padding, scaling and conjugation around the primitive."""
    return case("fft", fun, *makers, dtypes=dtypes, label=label, order=1, vmap=False)


CASES = [
    line("FFT", transform("FFT", 4), normal(2, 4), dtypes=COMPLEX),
    line("RFFT", transform("RFFT", 4), normal(2, 4), dtypes=REAL),
    line("IRFFT", transform("IRFFT", 4), normal(2, 3), dtypes=COMPLEX),
    line("IFFT", transform("IFFT", 3), normal(3), dtypes=COMPLEX),
    line("RFFT odd", transform("RFFT", 3), normal(3)),
    line("IRFFT odd", transform("IRFFT", 5), normal(3), dtypes=COMPLEX[:1]),
    *[line(f"{kind} of size {n}", transform(kind, n), normal(m), dtypes=dtypes)
      for kind, m, n, dtypes in (("RFFT", 1, 1, REAL[:1]), ("RFFT", 2, 2, REAL[:1]), ("IRFFT", 1, 1, COMPLEX[:1]))],
    line("no batch", transform("FFT", 2), normal(0, 2), dtypes=COMPLEX[:1]),
    line("FFT, two axes", transform("FFT", 3, 2), normal(2, 3, 2), dtypes=COMPLEX[:1]),
    line("RFFT, three axes", transform("RFFT", 2, 3, 4), normal(2, 3, 4)),
    line("IRFFT, three axes", transform("IRFFT", 2, 3, 4), normal(2, 3, 3), dtypes=COMPLEX[:1]),

    composed("fft of a real array, padded", lambda x: jnp.fft.fft(x, n=5, axis=0, norm="ortho"), normal(3, 2)),
    composed("ifft cut off", lambda x: jnp.fft.ifft(x, n=2, norm="forward"), normal(3), dtypes=COMPLEX[:1]),
    composed("rfft padded", lambda x: jnp.fft.rfft(x, n=4, norm="ortho"), normal(3)),
    composed("irfft padded", lambda x: jnp.fft.irfft(x, n=7, norm="ortho"), normal(3), dtypes=COMPLEX[:1]),
    composed("irfft cut off", lambda x: jnp.fft.irfft(x, n=2, axis=0), normal(3, 2), dtypes=COMPLEX[:1]),
    composed("hfft", lambda x: jnp.fft.hfft(x, n=6), normal(4), dtypes=COMPLEX[:1]),
    composed("ihfft", lambda x: jnp.fft.ihfft(x, n=5, norm="ortho"), normal(4)),
    composed("fft2", lambda x: jnp.fft.fft2(x, axes=(0, 2), norm="ortho"), normal(2, 2, 3), dtypes=COMPLEX[:1]),
    composed("rfft2", lambda x: jnp.fft.rfft2(x, s=(2, 3)), normal(3, 2)),
    composed("irfft2", lambda x: jnp.fft.irfft2(x, s=(3, 4)), normal(2, 3), dtypes=COMPLEX[:1]),
    composed("fftn of four axes", lambda x: jnp.fft.fftn(x), normal(2, 1, 2, 3), dtypes=COMPLEX[:1]),
    composed("rfftn", lambda x: jnp.fft.rfftn(x, s=(3, 2, 2)), normal(2, 2, 3)),
    composed("irfftn of a real array", lambda x: jnp.fft.irfftn(x, norm="forward"), normal(2, 2, 3)),
]
