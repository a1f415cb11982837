"""The pictures of the site, made while it is built: nothing here is committed."""

from __future__ import annotations

import io
import json
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import matplotlib

import dualrev as dr

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  (after the backend is chosen)

PAPERS = pathlib.Path(__file__).parent.parent.parent
LIGHT, DARK = "#1f2328", "#e6e8eb"


def arrow(x: jax.Array) -> jax.Array:
    return (x * x + x[0] * x).at[0].set(jnp.sum(x * x))


def network(weights: list[jax.Array], x: jax.Array) -> jax.Array:
    for w in weights:
        x = jax.nn.silu(x @ w)
    return jnp.sum(x**2)


def loss(w: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.tanh(x @ w) ** 2)


def gain(ink: str) -> str:
    """The gain of sparse derivatives at the largest size, from the recorded reproduction of Hill and Dalle."""
    rows = json.loads((PAPERS / "HillDalle2025" / "result.json").read_text())["rows"]
    end = ": time of dense over sparse"
    gains = {row["name"].removesuffix(end): row["ours"] for row in rows if row["name"].endswith(end)}
    with pyplot.rc_context({"text.color": ink, "axes.labelcolor": ink, "xtick.color": ink, "ytick.color": ink, "axes.edgecolor": ink,
                            "font.size": 11, "svg.fonttype": "none"}):
        figure, axes = pyplot.subplots(figsize=(7.2, 1.9), layout="constrained")
        names = sorted(gains, key=lambda name: gains[name])
        bars = axes.barh(names, [gains[name] for name in names], color="#4b6bfb", height=0.6)
        axes.bar_label(bars, [f"{gains[name]:,.0f}" for name in names], padding=4)
        axes.set_xscale("log")
        axes.set_xlim(1, 2 * max(gains.values()))
        axes.set_xlabel("time of jax's dense derivative over dualrev's sparse one")
        axes.spines[["top", "right"]].set_visible(False)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        pyplot.close(figure)
    return file.getvalue()


def made() -> dict[str, str]:
    """The text of each picture, an SVG, by its path in the site."""
    weights = [jnp.ones((16, 16))] * 8
    makers: dict[str, Callable[[], str]] = {
        "gain-light": lambda: gain(LIGHT),
        "gain-dark": lambda: gain(DARK),
        "arrow": lambda: dr.sparse.plan(arrow, jnp.ones(12))._repr_svg_(),
        "timeline": lambda: dr.timeline(network, weights, jnp.ones((512, 16))).svg,
        "drawing": lambda: dr.draw(loss, jnp.ones((4, 3)), jnp.ones((8, 4))).svg,
    }
    return {f"pictures/{name}.svg": make() for name, make in makers.items()}
