"""Laplacians and Taylor series beside their peers, in groups of ``python -m benchmarks.figures``.

- ``laplacian``: over folx, where it is installed, over the trace of ``jax.hessian`` and over a push of a push for each input; networks
  applied to each of several particles over folx with sparse Jacobians;
- ``jet``: over ``jax.experimental.jet`` and over nested pushes, at run time and to build (trace and compile).
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.jet import jet as jax_jet
from rich.console import Console

import dualrev as dr
from benchmarks.timing import Figure, checked, compare

Function = Callable[[Any], Any]
ACTIVATIONS: dict[str, Function] = {"tanh": jnp.tanh, "silu": jax.nn.silu, "gelu": jax.nn.gelu}
SIZES = (50, 100)
BATCHES = (1, 32)
ORDERS = (2, 4, 6, 8, 10)


def weights(*sizes: int) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(m, n)) / m**0.5, "float32") for m, n in pairwise(sizes)]


def perceptron(activation: Function, *sizes: int) -> Function:
    matrices = weights(*sizes)

    def f(x: Any) -> Any:
        for w in matrices[:-1]:
            x = activation(x @ w)
        return jnp.sum(x @ matrices[-1])

    return f


def attention(n: int, width: int) -> Function:
    q, k, v, out = weights(width, width, width, width, width)

    def f(x: Any) -> Any:
        x = x.reshape(n, width)
        scores = jax.nn.softmax((x @ q) @ (x @ k).T / width**0.5)
        return jnp.sum(jnp.tanh(scores @ (x @ v) @ out))

    return f


def per_particle(activation: Function, d: int, width: int, depth: int) -> Function:
    """A network applied to each of several particles, and a sum over them."""
    matrices = weights(d, *[width] * depth, 1)

    def f(x: Any) -> Any:
        for w in matrices[:-1]:
            x = activation(x @ w)
        return jnp.sum(x @ matrices[-1])

    return f


def recurrent(width: int, steps: int, n: int) -> Function:
    inward, w = weights(n, width, width)

    def f(x: Any) -> Any:
        h, _ = lax.scan(lambda h, _: (jnp.tanh(h @ w + x @ inward), None), jnp.zeros(width, "float32"), length=steps)
        return jnp.sum(h**2)

    return f


def by_hessian(f: Function) -> Function:
    return lambda x: (f(x), jnp.trace(jax.hessian(lambda v: f(v.reshape(x.shape)))(x.ravel())))


def by_pushes(f: Function) -> Function:
    """A push of a push along each input."""
    def second(x: Any, v: Any) -> Any:
        return jax.jvp(lambda x: jax.jvp(f, (x,), (v,))[1], (x,), (v,))[1]

    return lambda x: (f(x), jnp.sum(jax.vmap(partial(second, x))(
        jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape))))


def peers() -> dict[str, tuple[Callable[[Function], Function], dict[str, float]]]:
    """Each peer, and the largest ratio that counts as reached by it; "" is for programs that have no goal of their own."""
    found: dict[str, tuple[Callable[[Function], Function], dict[str, float]]] = {
        "trace of jax.hessian": (by_hessian, {"RNN": 0.45}), "nested pushes": (by_pushes, {"tanh 50, batch 32": 0.55})}
    if importlib.util.find_spec("folx") is None:
        Console(stderr=True).print("folx is not installed: its Laplacians were not timed")
        return found
    import folx

    def by_folx(f: Function, threshold: float = 0) -> Function:
        def run(x: Any) -> Any:
            result = folx.forward_laplacian(f, sparsity_threshold=threshold)(x)
            return result.x, result.laplacian

        return run

    return {"folx": (by_folx, {"": 0.9}), "folx, sparse": (partial(by_folx, threshold=6), {"": 1.0}), **found}


def laplacian(budget: float) -> list[Figure]:
    programs: list[tuple[str, Function, jax.Array]] = []
    for name, activation in ACTIVATIONS.items():
        for d in SIZES:
            for batch in BATCHES:
                x = jax.random.normal(jax.random.key(0), (batch, d), "float32")
                programs.append((f"{name} {d}, batch {batch}", perceptron(activation, d, 256, 256, 256, 1), x))
    programs.append(("attention", attention(8, 16), jax.random.normal(jax.random.key(1), (1, 128), "float32")))
    programs.append(("RNN", recurrent(128, 20, 50), jax.random.normal(jax.random.key(2), (1, 50), "float32")))
    for label, f, batch, n, d in (("particles 8 x 3, silu 64 x 4", per_particle(jax.nn.silu, 3, 64, 4), 16, 8, 3),
                                  ("particles 16 x 3, tanh 64 x 4", per_particle(jnp.tanh, 3, 64, 4), 1, 16, 3),
                                  ("particles 100 x 4, silu 100 x 10", per_particle(jax.nn.silu, 4, 100, 10), 4, 100, 4)):
        programs.append((label, f, jax.random.normal(jax.random.key(3), (batch, n, d), "float32")))
    figures = []
    for label, f, xs in programs:
        for peer, (of, goals) in peers().items():
            has_particles = label.startswith("particles")
            if (label == "RNN" and peer.startswith("folx")) or (peer == "folx, sparse") != (has_particles and peer.startswith("folx")):
                continue  # folx has no rule for scan
            if "100" in label and has_particles and peer != "folx, sparse":
                continue  # which would take seconds
            wrap: Callable[[Function], Function] = jax.vmap if len(xs) > 1 else lambda g: g
            x = xs if len(xs) > 1 else xs[0]
            ours, theirs = (jax.jit(wrap(g)) for g in (dr.laplacian(f), of(f)))
            difference = checked(ours(x), theirs(x), 1e-3)
            figures.append(compare(f"laplacian over {peer}", label, partial(ours, x), partial(theirs, x), budget,
                                   goals.get(label, goals.get("")), difference))
    return figures


def nested(f: Function, order: int) -> Callable[[Any, Any], Any]:
    """The last derivative of f(x + t v) by pushes of pushes."""
    def run(x: Any, v: Any) -> Any:
        def curve(t: Any) -> Any:
            return f(x + t * v)

        derivative = curve
        for _ in range(order):
            derivative = partial(lambda previous, t: jax.jvp(previous, (t,), (jnp.ones_like(t),))[1], derivative)
        return derivative(jnp.zeros((), x.dtype))

    return run


def jet(budget: float) -> list[Figure]:
    matrices = weights(256, 256, 256, 256)
    figures = []
    x, v = jnp.linspace(-1, 1, 256, dtype="float32"), jnp.cos(jnp.arange(256, dtype="float32"))
    for name, activation in ACTIVATIONS.items():
        def f(x: Any, activation: Function = activation) -> Any:
            for w in matrices:
                x = activation(x @ w)
            return x

        for order in ORDERS:
            def series(of: Any, x: Any, v: Any, f: Function = f, order: int = order) -> Any:
                return of(f, (x,), ((v, *[jnp.zeros_like(v)] * (order - 1)),))[1][-1]

            def build(of: Any, series: Any = series) -> Any:
                jax.clear_caches()
                return jax.jit(partial(series, of)).lower(x, v).compile()

            ours, theirs = build(dr.jet), build(jax_jet)
            difference = checked(ours(x, v), theirs(x, v), 1e-2)
            label = f"{name}, order {order}"
            figures.append(compare("jet over jax's", label, partial(ours, x, v), partial(theirs, x, v), budget, 0.7, difference))
            if order <= 4:
                pushes = jax.jit(nested(f, order)).lower(x, v).compile()
                figures.append(compare("jet over nested pushes", label, partial(ours, x, v), partial(pushes, x, v), budget, 1.0,
                                       checked(ours(x, v), pushes(x, v), 1e-2)))
            seconds = []
            for of in (dr.jet, jax_jet):
                start = time.perf_counter()
                build(of)
                seconds.append(time.perf_counter() - start)
            ratio = seconds[0] / seconds[1]
            figures.append(Figure("jet to build over jax's", label, seconds[0] * 1e6, seconds[1] * 1e6, ratio, (ratio, ratio), ratio,
                                  1, 0.0, 0.7))
    return figures
