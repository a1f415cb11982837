"""The operations of a gradient over those of its function: counted from the traced programs, for any number of inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import dualrev as dr
from papers.modes.counting import cost
from papers.reproduction import Outcome, Paper, Progress, Row

PAPER = Paper(
    key="BaurStrassen1983", title="The complexity of partial derivatives",
    claim="a gradient takes at most 5 times the operations of its function, whatever the number of inputs",
    where="Baur & Strassen 1983; the bound as in Griewank & Walther 2008, section 3.3",
    differs="operations on arrays are counted, an entry of an elementwise operation as one and a product of a contraction as two")


def speelpenning(x: jax.Array) -> jax.Array:
    """The product of all inputs, one multiplication after the other."""
    out = x[0]
    for i in range(1, x.shape[0]):
        out = out * x[i]
    return out


def helmholtz(x: jax.Array) -> jax.Array:
    """The free energy of a mixed fluid, with a dense quadratic form [GriewankWalther2008, example 3]."""
    n = x.shape[0]
    matrix = jnp.asarray(np.cos(np.arange(n * n)).reshape(n, n))
    volume = jnp.sum(x) / (2 * n)
    return jnp.sum(x * jnp.log(x / (1 - volume))) - (x @ matrix @ x) / volume * jnp.log((1 + 2 * volume) / (1 + volume))


def network(x: jax.Array) -> jax.Array:
    """Two layers whose weights are the inputs."""
    width = round((x.shape[0] / 2) ** 0.5)
    first, second = x[: 2 * width * width].reshape(2, width, width)
    batch = jnp.asarray(np.sin(np.arange(8.0 * width)).reshape(8, width))
    return jnp.sum(jnp.tanh(jnp.tanh(batch @ first) @ second))


def chain(x: jax.Array) -> jax.Array:
    """A loop of 50 steps of a nonlinear recurrence."""
    return jnp.sum(jax.lax.scan(lambda c, _: (jnp.sin(c) * jnp.roll(c, 1) + x, None), x, None, length=50)[0])


def run(quick: bool, progress: Progress) -> Outcome:
    sizes = [8, 32] if quick else [8, 32, 128, 512]
    programs: dict[str, Callable[[jax.Array], jax.Array]] = {
        "product of all inputs": speelpenning, "Helmholtz energy": helmholtz, "network of two layers": network,
        "loop of 50 steps": chain}
    found: dict[str, list[float]] = {name: [] for name in programs}
    for name, n in progress([(name, n) for name in programs for n in sizes], "programs"):
        n = 2 * round((n / 2) ** 0.5) ** 2 if name.startswith("network") else n
        x = jnp.linspace(0.5, 0.9, n)
        f = programs[name]
        found[name].append(cost(jax.make_jaxpr(dr.value_and_grad(f))(x)).flops / cost(jax.make_jaxpr(f)(x)).flops)

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for name, ratios in found.items():
            axes.plot(sizes, ratios, marker="o", label=name)
        axes.axhline(5, color="black", linewidth=0.8, linestyle="--", label="bound")
        axes.set(xscale="log", xlabel="inputs", ylabel="operations of value and gradient over the function's", ylim=(0, 6))
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))

    rows = tuple(Row(f"{name}, largest ratio", "at most 5", round(max(ratios), 3), max(ratios) <= 5, 0.25)
                 for name, ratios in found.items())
    worst = max(row.ours for row in rows)
    return Outcome(rows, f"The largest ratio is {worst:.2f}, and it does not grow with the number of inputs.", draw)
