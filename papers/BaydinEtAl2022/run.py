"""Forward gradients: no bias, a variance that grows with the number of inputs, and what they cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import dualrev as dr
from benchmarks import timing
from papers.reproduction import Outcome, Paper, Progress, Row

PAPER = Paper(
    key="BaydinEtAl2022", title="Gradients without backpropagation",
    claim="pushes along random directions estimate gradients without bias, up to twice as fast as backpropagation",
    where="Baydin et al. 2022, abstract and theorem 1; E|g - ∇f|² = (n + 1)|∇f|² follows from the normal distribution's fourth moment",
    differs="jitted CPU code instead of a GPU; the loss after training is not compared")


def network(widths: tuple[int, ...], batch: int) -> tuple[Callable[[Any], jax.Array], list[jax.Array]]:
    """The loss of a network as a function of its weights, and weights."""
    keys = jax.random.split(jax.random.key(0), len(widths))
    weights = [jax.random.normal(k, (a, b)) / a**0.5 for k, a, b in zip(keys, widths, widths[1:], strict=False)]
    x = jax.random.normal(keys[-1], (batch, widths[0]))

    def loss(weights: list[jax.Array]) -> jax.Array:
        h = x
        for w in weights[:-1]:
            h = jnp.maximum(h @ w, 0)
        return jnp.mean(jax.nn.logsumexp(h @ weights[-1], 1))

    return loss, weights


def moments(samples: int, many: int) -> tuple[float, float, int]:
    """The distance of the mean from the gradient in standard errors, the mean squared error over |∇f|², and the number of inputs."""
    loss, weights = network((5, 4, 3), 8)
    gradient = np.concatenate([np.ravel(g) for g in dr.grad(loss)(weights)])
    estimate = jax.jit(jax.vmap(lambda key: dr.estimators.forward_gradient(loss, samples=samples)(key, weights)[1]))
    found = np.concatenate([np.reshape(g, (many, -1)) for g in estimate(jax.random.split(jax.random.key(1), many))], 1)
    error = np.sum((found - gradient) ** 2, 1)
    standard = np.linalg.norm(found.std(0)) / many**0.5
    return float(np.linalg.norm(found.mean(0) - gradient) / standard), float(error.mean() / np.sum(gradient**2)), gradient.size


def cost(width: int, budget: float) -> tuple[float, float]:
    """Times of one forward gradient and of one gradient by reverse mode over that of the loss."""
    loss, weights = network((width, width, width, 10), 64)
    key = jax.random.key(2)
    value, forward, reverse = (jax.jit(f).lower(*args).compile() for f, args in (
        (loss, (weights,)), (dr.estimators.forward_gradient(loss, distribution="rademacher"), (key, weights)),
        (dr.value_and_grad(loss), (weights,))))
    rounds = timing.interleaved([lambda: value(weights), lambda: forward(key, weights), lambda: reverse(weights)], budget)
    return statistics.median(f / v for v, f, _ in rounds), statistics.median(r / v for v, _, r in rounds)


def run(quick: bool, progress: Progress) -> Outcome:
    many = 4000 if quick else 40_000
    samples = [1, 8] if quick else [1, 2, 4, 8, 16, 32]
    found = {k: moments(k, many) for k in progress(samples, "samples")}
    n = found[1][2]
    widths = [64, 128] if quick else [64, 128, 256, 512, 1024]
    ratios = {w: cost(w, 0.5 if quick else 4.0) for w in progress(widths, "widths")}
    forward, reverse = ratios[widths[-1]]

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        left.plot(samples, [found[k][1] for k in samples], "o", label="measured")
        left.plot(samples, [(n + 1) / k for k in samples], linewidth=0.8, label="(n + 1) / k")
        left.set(xscale="log", yscale="log", xlabel="directions k", ylabel=f"E|g - ∇f|² / |∇f|², n = {n}")
        left.legend()
        right.plot(widths, [ratios[w][0] for w in widths], marker="o", label="forward gradient")
        right.plot(widths, [ratios[w][1] for w in widths], marker="o", label="reverse mode")
        right.set(xscale="log", xlabel="width", ylabel="time over the loss's", ylim=(0, None))
        right.legend()

    rows = [Row(f"distance of the mean from the gradient, in standard errors, k = {k}", "0", round(found[k][0], 2), found[k][0] < 4,
                1.0) for k in samples[:2]]
    rows += [Row(f"E|g - ∇f|² / |∇f|², n = {n}, k = {k}", round((n + 1) / k, 3), found[k][1], abs(found[k][1] * k / (n + 1) - 1) < 0.1,
                 0.1) for k in samples]
    rows.append(Row(f"time of reverse mode over a forward gradient's, width {widths[-1]}", "up to 2", reverse / forward,
                    reverse / forward > 1, 0.5))
    return Outcome(tuple(rows), f"Without bias, and with the variance that follows; at width {widths[-1]:,} a forward gradient takes "
                   f"{forward:.2f} times the loss and reverse mode {reverse:.2f}.", draw)
