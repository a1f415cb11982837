"""Propagation of uncertainty: a mode of differentiation in which each value carries how uncertain it is.

An input ``x`` of mean ``μ`` and covariance ``C = S Sᵀ`` is a point that may lie along the ``k`` columns of ``S``.  To second order in
``S``, a function of it has

    covariance  (Df S)(Df S)ᵀ      and mean      f(μ) + Df[b] + ½ Σₖ D²f[Sₖ, Sₖ],

where ``b`` is the shift of the mean that ``x`` itself has collected.  So the parts of a value are the pair ``(S, b)``, and one
operation maps them by its push and by its second derivative.  Both come from its row; nothing about an operation is said here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from dualrev.modes import Mode, Row, evaluate


@dataclass(frozen=True)  # modes are keys of caches: two with the same number of directions give the same programs
class Uncertainty(Mode):
    """Parts ``(S, b)``: ``k`` directions, stacked in front of the axes of the value, and the shift of its mean."""

    k: int
    name = "uncertainty"
    leading = (1, 0)  # S has one axis more than the value, in front; b has none

    def zero(self, aval: Any) -> Any:
        return jnp.zeros((self.k, *aval.shape), aval.dtype), jnp.zeros(aval.shape, aval.dtype)

    def row(self, row: Row, primals: Sequence[Any], parts: Sequence[Any], params: dict[str, Any]) -> Any:
        directions = [None if p is None else p[0] for p in parts]
        shifts = [None if p is None else p[1] for p in parts]
        outs = row.bind(primals, params)
        moved = jax.vmap(lambda ts: row.first(primals, ts, params))(directions)
        bent = jax.vmap(lambda ts: row.second(primals, ts, params))(directions)
        shifted = row.first(primals, shifts, params)
        return outs, [None if m is None else (m, s if b is None else s + b.sum(0) / 2)  # type: ignore[operator]
                      for m, b, s in zip(moved, bent, shifted, strict=True)]


def propagate(f: Callable[[Any], Any], mean: jax.Array, covariance: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean and the covariance of ``f(x)``, for an uncertain vector ``x``."""
    directions = jnp.linalg.cholesky(covariance).T
    out, parts = evaluate(Uncertainty(len(directions)), f, (mean,), ((directions, jnp.zeros_like(mean)),))
    if parts is None:  # f is constant
        return out, jnp.zeros((out.size, out.size), out.dtype)
    moved, shift = parts
    columns = moved.reshape(len(directions), -1)
    return out + shift, columns.T @ columns


def flight(launch: jax.Array) -> jax.Array:
    """How far and how high a ball is after one second: launched at a speed and an angle, in air that slows it down."""
    speed, angle = launch
    start = jnp.array([0.0, 0.0]), speed * jnp.stack([jnp.cos(angle), jnp.sin(angle)])

    def step(state: Any, _: Any) -> tuple[Any, None]:
        place, velocity = state
        drag = 0.05 * jnp.sqrt(velocity @ velocity) * velocity
        return (place + 0.02 * velocity, velocity - 0.02 * (drag + jnp.array([0.0, 9.81]))), None

    (place, _), _ = jax.lax.scan(step, start, length=50)
    return place
