"""Nested derivatives must not mix their perturbations: every pair of modes, jax's, and dual numbers without tags."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import dualrev as dr
from papers.reproduction import Outcome, Paper, Progress, Row

PAPER = Paper(
    key="SiskindPearlmutter2008", title="Nesting forward-mode AD in a functional framework",
    claim="d/dx (x · d/dy (x + y) at y = 1) at x = 1 is 1; forward mode that does not tell perturbations apart says 2",
    where="Siskind & Pearlmutter 2008, section 2; the derivative of a function-valued function: Manzyuk et al. 2019, section 3",
    differs="the higher-order case has the shifted function as a closure, as arrays are what Python's systems differentiate")

Derivative = Callable[[Callable[[Any], Any]], Callable[[Any], Any]]


@dataclass(frozen=True)
class Untagged:
    """A dual number that does not know which derivative it belongs to."""

    value: Any
    tangent: Any

    def __add__(self, other: Any) -> Untagged:
        other = other if isinstance(other, Untagged) else Untagged(other, 0.0)
        return Untagged(self.value + other.value, self.tangent + other.tangent)

    def __mul__(self, other: Any) -> Untagged:
        other = other if isinstance(other, Untagged) else Untagged(other, 0.0)
        return Untagged(self.value * other.value, self.value * other.tangent + self.tangent * other.value)

    __radd__, __rmul__ = __add__, __mul__


def untagged(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The confused derivative: an outer perturbation is taken for an inner one."""
    def derivative(x: Any) -> Any:
        out = f(Untagged(x.value if isinstance(x, Untagged) else x, 1.0))
        return out.tangent

    return derivative


def forward(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: dr.jvp(f, (x,), (jnp.ones_like(x),))[1]


def backward(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: dr.vjp(f, x)[1](jnp.ones_like(x))[0]


def jax_forward(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: jax.jvp(f, (x,), (jnp.ones_like(x),))[1]


def nested(outer: Derivative, inner: Derivative) -> float:
    """The paper's example, whose value is 1."""
    return float(outer(lambda x: x * inner(lambda y: x + y)(1.0))(1.0))


def shifted(outer: Derivative, inner: Derivative) -> float:
    """The derivative by ``u`` at 0 of the derivative of ``h`` shifted by ``u``, for h = sin at 1: sin''(1) [ManzyukEtAl2019]."""
    return float(outer(lambda u: inner(lambda x: jnp.sin(x + u))(1.0))(0.0))


def run(quick: bool, progress: Progress) -> Outcome:
    modes: dict[str, Derivative] = {"forward": forward, "reverse": backward, "jit(forward)": lambda f: jax.jit(forward(f)),
                                    "jit(reverse)": lambda f: jax.jit(backward(f)), "jax forward": jax_forward, "jax reverse": jax.grad}
    pairs = list(itertools.product(modes, repeat=2))
    first: dict[tuple[str, str], float] = {}
    second: dict[tuple[str, str], float] = {}
    for pair in progress(pairs, "pairs of modes"):
        first[pair] = nested(modes[pair[0]], modes[pair[1]])
        second[pair] = shifted(modes[pair[0]], modes[pair[1]])
    right, expected = sum(v == 1.0 for v in first.values()), -float(jnp.sin(1.0))
    close = sum(abs(v - expected) < 1e-12 for v in second.values())
    confused = float(untagged(lambda x: x * untagged(lambda y: x + y)(1.0))(1.0))

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        names = list(modes)
        axes.imshow([[first[a, b] for b in names] for a in names], vmin=0, vmax=2, cmap="PuOr")
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="inner derivative", ylabel="outer derivative", title="the paper's example: 1 is right, 2 is confused")
        for i, a in enumerate(names):
            for j, b in enumerate(names):
                axes.text(j, i, f"{first[a, b]:g}", ha="center", va="center")

    rows = (Row("the example, dual numbers without tags", 2, confused, confused == 2.0),
            Row(f"pairs of modes that give 1, of {len(pairs)}", len(pairs), right, right == len(pairs)),
            Row(f"pairs of modes right on the shifted function, of {len(pairs)}", len(pairs), close, close == len(pairs)))
    return Outcome(rows, f"{right} of {len(pairs)} nestings of forward and reverse mode, jitted or not, ours and jax's mixed, are "
                         "right; dual numbers without tags are wrong as the paper says.", draw)
