"""Lines for special functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cases import ALL_FLOATS, case, constant, normal, scalar, uniform, values
from jax import lax

inf = np.inf


def unit_interval() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on (0, 1), dense near 0: ``v⁴`` at those of Gauss and Legendre."""
    v, weights = np.polynomial.legendre.leggauss(100)
    v = (v + 1) / 2
    return v**4, 2 * v**3 * weights


NODES, WEIGHTS = unit_interval()


def igamma(a: Any, x: Any) -> Any:
    """What jax cannot differentiate twice in ``a``, as a sum that it can."""
    t = x[..., None] * NODES
    density = jnp.exp((a[..., None] - 1) * jnp.log(t) - t - lax.lgamma(a)[..., None])
    return jnp.sum(density * WEIGHTS, -1) * x


def igamma_grad_a(a: Any, x: Any) -> Any:
    return jax.jvp(lambda a: igamma(a, x), (a,), (jnp.ones_like(a),))[1]


def betainc(a: Any, b: Any, x: Any) -> Any:
    t = x[..., None] * NODES
    constant = lax.lgamma(a + b) - lax.lgamma(a) - lax.lgamma(b)
    density = jnp.exp((a[..., None] - 1) * jnp.log(t) + (b[..., None] - 1) * jnp.log1p(-t) + constant[..., None])
    return jnp.sum(density * WEIGHTS, -1) * x


def zeta(s: Any, q: Any) -> Any:
    """What jax differentiates in another function only: a long sum, and three terms of its tail's expansion."""
    w = q + 400
    head = jnp.sum(jnp.power(q[..., None] + np.arange(400), -s[..., None]), -1)
    return head + jnp.power(w, -s) * (w / (s - 1) + 0.5 + s / (12 * w) - s * (s + 1) * (s + 2) / (720 * w**3))


def sample(draw: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a: draw(jax.random.key(3), a, dtype=a.dtype)


CASES = [
    case("lgamma", lax.lgamma, uniform(0.5, 5, 2, 2), dtypes=ALL_FLOATS),
    case("lgamma", lax.lgamma, values(-0.5, -2.25, 1e-3, 1e3, 1e15), label="wide"),
    case("lgamma", lax.lgamma, values(0.0, -1.0, inf), order=1, label="poles"),
    case("lgamma", lax.lgamma, normal(0, 2), label="size 0"),
    case("digamma", lax.digamma, uniform(0.5, 5, 2, 2), dtypes=ALL_FLOATS),
    case("digamma", lax.digamma, values(-0.5, -2.25, 1e-3, 1e3), label="wide"),
    case("polygamma", lax.polygamma, constant(values(0.0, 1.0, 2.0)), uniform(0.5, 5, 3), dtypes=ALL_FLOATS),
    case("polygamma", lax.polygamma, constant(values(0.0, 1.0, 2.0, 3.0)), values(-1.5, -2.25, 1e-2, 1e3), label="wide"),
    case("zeta", lax.zeta, uniform(1.5, 4, 3), uniform(0.5, 5, 3), vmap=False, oracle=zeta),
    case("zeta", lax.zeta, values(1.1, 2.0, 9.0), values(0.1, 50.0, 8.0), order=1, dtypes=("float64", "float32"),
         label="wide", vmap=False, oracle=jax.scipy.special.zeta),

    case("igamma", lax.igamma, uniform(0.5, 5, 4), uniform(0.1, 6, 4), order=1, dtypes=ALL_FLOATS),
    case("igamma", lax.igamma, values(2.0, 2.0), values(0.0, 800.0), order=1, vmap=False, label="ends"),
    case("igamma", lambda a, x: lax.igamma(jnp.broadcast_to(a, x.shape), x), scalar(1.5), uniform(0.5, 4, 3), vmap=False,
         oracle=lambda a, x: igamma(jnp.broadcast_to(a, x.shape), x), label="order 2"),
    case("igammac", lax.igammac, uniform(0.5, 5, 3), uniform(0.1, 6, 3), order=1, vmap=False),
    case("igamma_grad_a", lax.igamma_grad_a, uniform(1, 3, 3), uniform(0.5, 4, 3), order=1, vmap=False, oracle=igamma_grad_a),

    case("regularized_incomplete_beta", lax.betainc, uniform(1, 3, 3), uniform(0.5, 3, 3), uniform(0.1, 0.9, 3), order=1,
         vmap=False, oracle=betainc),
    case("regularized_incomplete_beta", lax.betainc, constant(uniform(0.5, 3, 2)), constant(uniform(0.5, 3, 2)),
         uniform(0.1, 0.9, 2), dtypes=ALL_FLOATS, label="all floats"),
    case("regularized_incomplete_beta", lax.betainc, constant(values(2.0, 2.0)), constant(values(3.0, 3.0)), values(0.0, 1.0),
         order=1, label="ends"),
    case("regularized_incomplete_beta", lax.betainc, values(0.9, 20.0, 15.0), values(2.0, 0.3, 30.0), values(0.3, 0.7, 0.2),
         oracle=betainc, label="order 2", rtol=1e-8, vmap=False),

    case("random_gamma", sample(jax.random.gamma), uniform(0.3, 9, 2), dtypes=("float64", "float32"), order=1),
    case("random_gamma", sample(jax.random.loggamma), uniform(0.1, 2, 2), order=1, vmap=False, label="logarithm"),

    case("erf_inv", lax.erf_inv, uniform(-0.9, 0.9, 2, 2), dtypes=ALL_FLOATS),
    case("erf_inv", lax.erf_inv, values(0.0, 0.999, -0.99), label="wide"),
    case("erf_inv", lax.erf_inv, values(-1.0, 1.0, 1.5), order=1, label="ends"),

    case("bessel_i0e", lax.bessel_i0e, uniform(-3, 3, 2, 2), dtypes=ALL_FLOATS),
    case("bessel_i0e", lax.bessel_i0e, values(0.0), order=1, label="zero"),
    case("bessel_i0e", lax.bessel_i0e, values(20.0, -24.5, 26.0, -100.0), label="wide", vmap=False, rtol=1e-9),
    case("bessel_i1e", lax.bessel_i1e, uniform(-3, 3, 2, 2), dtypes=ALL_FLOATS),
    case("bessel_i1e", lax.bessel_i1e, values(0.0, 1e-20), order=1, label="zero"),
    case("bessel_i1e", lax.bessel_i1e, values(20.0, -24.5, 26.0, -100.0), label="wide", vmap=False, rtol=1e-9),
]
