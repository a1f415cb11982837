"""Random directions, and the pairing of tangents with cotangents, in double precision."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt


def wide(x: npt.ArrayLike) -> np.ndarray:
    """An array as numbers of double precision."""
    return np.asarray(x, np.complex128 if jnp.iscomplexobj(x) else np.float64)


def pair(us: Sequence[npt.ArrayLike | None], vs: Sequence[npt.ArrayLike | None]) -> float:
    """``Re Σ uᵢ vᵢ``; an absent tangent is zero."""
    return float(sum(np.real(np.sum(wide(u) * wide(v))) for u, v in zip(us, vs, strict=True) if u is not None and v is not None))


def normal(rng: np.random.Generator, x: jax.Array) -> jax.Array:
    """A direction at ``x`` of normally distributed entries."""
    t: np.ndarray = rng.standard_normal(x.shape)
    if jnp.iscomplexobj(x):
        t = t + 1j * rng.standard_normal(x.shape)
    return jnp.asarray(t, x.dtype)


def relative(rng: np.random.Generator, x: jax.Array) -> jax.Array:
    """A direction at ``x`` whose entries are between a half and one and a half of those of ``x``, or of a tenth of their mean size.

    A small step along it stays where functions such as the logarithm are defined, and no entry is left out.
    """
    sizes = np.abs(wide(x))
    finite = sizes[np.isfinite(sizes)]
    mean = float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0
    sizes = np.where(np.isfinite(sizes), np.maximum(sizes, 0.1 * mean if mean else 1.0), 1.0)
    t: np.ndarray = sizes * rng.uniform(0.5, 1.5, x.shape) * rng.choice([-1.0, 1.0], x.shape)
    if jnp.iscomplexobj(x):
        t = t * np.exp(2j * np.pi * rng.uniform(size=x.shape))
    return jnp.asarray(t, x.dtype)
