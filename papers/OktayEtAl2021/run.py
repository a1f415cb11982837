"""Randomized automatic differentiation: pulls from samples of what is kept, against small batches, and for a reactor."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import dualrev as dr
from papers.reproduction import Outcome, Paper, Progress, Row

PAPER = Paper(
    key="OktayEtAl2021", title="Randomized automatic differentiation",
    claim="for a fixed memory, gradients from samples of the activations train a feedforward network in fewer steps than a small "
          "batch; they optimize the control of a reaction-diffusion equation from a thousandth of the states",
    where="Oktay et al. 2021, abstract, sections 4.2 and 5; fractions of their repository",
    differs="8 x 8 digits and three layers of 128 instead of MNIST and CIFAR-10; a reaction-diffusion equation of our own on a grid of "
            "32 x 32; one entry of each stratum is kept, instead of entries drawn from all of an array")

Weights = list[jax.Array]

#: Of the descent.
RATE = 0.3


@functools.cache
def digits() -> tuple[jax.Array, jax.Array]:
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ModuleNotFoundError:
        raise SystemExit("papers: the digits come with scikit-learn; install the extra: pip install 'dualrev[papers]'") from None
    images, labels = datasets.load_digits(return_X_y=True)
    return jnp.asarray(images / 16, "float32"), jnp.asarray(labels, "int32")


def loss(weights: Weights, images: jax.Array, labels: jax.Array) -> jax.Array:
    h = images
    for w in weights[:-1]:
        h = jax.nn.relu(h @ w)
    scores = h @ weights[-1]
    return jnp.mean(jax.nn.logsumexp(scores, 1) - jnp.take_along_axis(scores, labels[:, None], 1)[:, 0])


def network(key: jax.Array) -> Weights:
    widths = (64, 128, 128, 128, 10)
    keys = jax.random.split(key, len(widths))
    return [jax.random.normal(k, (a, b), "float32") * (2 / a) ** 0.5 for k, a, b in zip(keys, widths, widths[1:], strict=False)]


def gradient(one_in: int) -> Callable[..., Weights]:
    """The gradient by pulls from samples; all of it for 1."""
    def found(key: jax.Array, weights: Weights, images: jax.Array, labels: jax.Array) -> Weights:
        estimate = dr.estimators.randomized_vjp(lambda weights: loss(weights, images, labels), one_in=one_in, least=2000)
        result: Weights = estimate(key, weights)[1](jnp.float32(1))[0]
        return result
    return found


def kept(batch: int, one_in: int) -> int:
    """Bytes that the pull keeps beside the weights and the images, which are there anyway."""
    images, labels = digits()
    weights = network(jax.random.key(0))
    _, pull = dr.estimators.randomized_vjp(lambda weights: loss(weights, images[:batch], labels[:batch]), one_in=one_in,
                                           least=2000)(jax.random.key(0), weights)
    return sum(r.nbytes for r in pull.residuals() if r.kind != "input" and r.shape != (batch, 64))


def train(seed: int, batch: int, one_in: int, steps: int) -> np.ndarray:
    """The loss on all images after each step, of a plain gradient descent with batches."""
    images, labels = digits()

    def step(weights: Weights, key: jax.Array) -> tuple[Weights, jax.Array]:
        drawn, sampled = jax.random.split(key)
        chosen = jax.random.choice(drawn, len(images), (batch,), replace=False)
        g = gradient(one_in)(sampled, weights, images[chosen], labels[chosen])
        weights = [w - jnp.float32(RATE) * d for w, d in zip(weights, g, strict=True)]
        return weights, loss(weights, images, labels)

    keys = jax.random.split(jax.random.key(seed), steps)
    return np.asarray(jax.jit(lambda keys: lax.scan(step, network(jax.random.key(100 + seed)), keys)[1])(keys))


def spread(batch: int, one_in: int, many: int) -> tuple[float, float]:
    """E|g - ∇f|² / |∇f|² at the first weights, and the distance of the mean from the gradient of all images in standard errors."""
    images, labels = digits()
    weights = network(jax.random.key(100))
    flat: Callable[[Weights], jax.Array] = lambda tree: jnp.concatenate([jnp.ravel(x) for x in tree])  # noqa: E731

    def one(key: jax.Array) -> jax.Array:
        drawn, sampled = jax.random.split(key)
        chosen = jax.random.choice(drawn, len(images), (batch,), replace=False)
        return flat(gradient(one_in)(sampled, weights, images[chosen], labels[chosen]))

    exact = np.asarray(flat(dr.grad(loss)(weights, images, labels)), float)
    found = np.asarray(jax.jit(lambda keys: lax.map(one, keys))(jax.random.split(jax.random.key(7), many)), float)
    error = np.sum((found - exact) ** 2, 1).mean() / np.sum(exact**2)
    return float(error), float(np.linalg.norm(found.mean(0) - exact) / (np.linalg.norm(found.std(0)) / many**0.5))


POINTS, TIMES = 32, 200


def flux(control: jax.Array) -> jax.Array:
    """The mean over time of u, with u' = Δu / 40 + control u on the unit square, u = 0 around it."""
    x = (jnp.arange(POINTS, dtype="float32") + 0.5) / POINTS
    start = jnp.outer(jnp.sin(np.pi * x), jnp.sin(np.pi * x)).astype("float32")

    def step(state: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], None]:
        u, total = state
        wide = jnp.pad(u, 1)
        laplacian = wide[2:, 1:-1] + wide[:-2, 1:-1] + wide[1:-1, 2:] + wide[1:-1, :-2] - 4 * u
        u = u + jnp.float32(0.2) * laplacian + jnp.float32(0.02) * (control * u)
        return (u, total + u), None

    return lax.scan(step, (start, jnp.zeros_like(start)), None, length=TIMES)[0][1] / TIMES


def reactor(one_in: int, steps: int) -> tuple[np.ndarray, int]:
    """The loss after each step of Adam, and the bytes that a pull keeps."""
    target = flux(jnp.where(jnp.arange(POINTS)[:, None] < POINTS // 2, 0.5, -0.5) * jnp.ones((POINTS, POINTS), "float32"))
    optimizer = optax.adam(0.01)
    estimate = dr.estimators.randomized_vjp(flux, one_in=one_in)

    def step(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        control, memory = state
        found, pull = estimate(key, control)
        difference = found - target
        updates, memory = optimizer.update(pull(2 * difference / difference.size)[0], memory)
        return (control + updates, memory), jnp.mean(difference**2)

    control = jnp.zeros((POINTS, POINTS), "float32")
    keys = jax.random.split(jax.random.key(3), steps)
    losses = jax.jit(lambda keys: lax.scan(step, (control, optimizer.init(control)), keys)[1])(keys)
    pull = jax.eval_shape(lambda key, control: estimate(key, control)[1], keys[0], control)
    return np.asarray(losses), sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(pull) if x.size >= TIMES)


def steps_to(losses: np.ndarray, goal: float) -> int:
    """The first step from which the loss, over 20 steps, is below a goal."""
    smooth = np.convolve(losses, np.ones(20) / 20, "valid")
    return int(np.argmax(smooth < goal)) + 20 if (smooth < goal).any() else len(losses) + 1


def run(quick: bool, progress: Progress) -> Outcome:
    batch, one_in, steps, goal = 150, 10, 60 if quick else 600, 0.6 if quick else 0.05
    whole, sampled = kept(batch, 1), kept(batch, one_in)
    small = batch * sampled // whole
    ours, other = f"1 in {one_in} kept", f"batch of {small}"
    ways = {"all kept": (batch, 1), ours: (batch, one_in), other: (small, 1)}
    errors = {name: spread(*ways[name], 60 if quick else 400) for name in progress([ours, other], "variances")}
    seeds = range(1 if quick else 3)
    if quick:
        del ways["all kept"]  # which is there for the figure
    curves = {name: np.mean([train(seed, *way, steps) for seed in seeds], 0) for name, way in progress(ways.items(), "networks")}
    taken = {name: steps_to(curve, goal) for name, curve in curves.items()}
    found = {s: reactor(s, 40 if quick else 400) for s in progress([1, 10] if quick else [1, 10, 100, 1000], "reactors")}
    exact, least = found[1], max(found)

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for name, curve in curves.items():
            left.plot(np.convolve(curve, np.ones(20) / 20, "valid"), linewidth=1, label=name)
        left.set(yscale="log", xlabel="steps", ylabel="loss of the network, mean of 20 steps")
        left.legend()
        for s, (losses, n) in found.items():
            right.plot(losses, linewidth=1, label=f"{'all' if s == 1 else f'1 in {s:,}'} kept, {n / 1e3:,.0f} kB")
        right.set(yscale="log", xlabel="steps", ylabel="loss of the reactor")
        right.legend()

    rows = (
        Row("distance of the mean from the gradient, in standard errors", "0", round(errors[ours][1], 2), errors[ours][1] < 4, 1.0),
        Row(f"bytes kept of the activations, batch {batch}, 1 in {one_in}, over all", None, sampled / whole, sampled < whole / 2),
        Row(f"batch of which all is kept in these bytes, of {batch}", None, small, small < batch),
        Row(f"E|g - ∇f|² at the start, {ours}, over that of a {other}", None, errors[ours][0] / errors[other][0],
            errors[ours][0] < errors[other][0], 0.3),
        Row(f"steps to a loss of {goal}, {ours}, over those of a {other}", "below 1", taken[ours] / taken[other],
            taken[ours] < taken[other], 0.3),
        Row("bytes kept by the reactor, 1 in 10, over all", "0.1", found[10][1] / exact[1], found[10][1] < 0.2 * exact[1]),
        Row("loss of the reactor after all steps over the first, all kept", None, float(exact[0][-1] / exact[0][0]),
            bool(exact[0][-1] < exact[0][0]), 0.3),
        *[Row(f"the same, 1 in {s:,}", "close to it", float(losses[-1] / losses[0]),
              bool(losses[-1] < 10 * exact[0][-1]), 0.5) for s, (losses, _) in found.items() if s > 1])
    return Outcome(rows, f"Without bias; in {sampled / whole:.2f} of the bytes a network reaches its loss in {taken[ours]} steps, with "
                   f"a batch of {small} in {taken[other]}, although the estimate's variance at the start is "
                   f"{errors[ours][0] / errors[other][0]:.1f} times as large; the reactor's loss falls by "
                   f"{exact[0][0] / exact[0][-1]:,.0f}, from 1 in {least:,} of its states, {found[least][1] / exact[1]:.3f} of the "
                   f"bytes, by {found[least][0][0] / found[least][0][-1]:,.0f}.", draw)
