"""Derivatives of a solver's result: by the equation that it solves, and through its iterations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import dualrev as dr
from papers.reproduction import Outcome, Paper, Progress, Row

PAPER = Paper(
    key="BlondelEtAl2022", title="Efficient and modular implicit differentiation",
    claim="the error of the implicit derivative at an approximate solution is at most a constant times the solution's error, and below "
          "that of unrolled iterations; the adjoint iteration converges at the primal's rate [Christianson1994]",
    where="Blondel et al. 2022, theorem 1 and figure 3; Christianson 1994, theorem 1",
    differs="ridge regression with random data in place of the diabetes data set")

LAM = 5.0


def data() -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 10)) * np.linspace(0.3, 2.0, 10)
    return jnp.asarray(x), jnp.asarray(x @ rng.normal(size=10) + rng.normal(size=40))


def run(quick: bool, progress: Progress) -> Outcome:
    X, y = data()

    def residual(w: jax.Array, lam: jax.Array) -> jax.Array:
        """The gradient of the loss ``|Xw - y|²/2 + lam |w|²/2``, zero at the solution."""
        return X.T @ (X @ w - y) + lam * w

    def iterate(lam: jax.Array, steps: int) -> jax.Array:
        size = 1 / (jnp.linalg.norm(X, 2) ** 2 + LAM)
        return jax.lax.fori_loop(0, steps, lambda _, w: w - size * residual(w, lam), jnp.zeros(10))

    matrix = X.T @ X + LAM * jnp.eye(10)
    solution = jnp.linalg.solve(matrix, X.T @ y)
    exact = -jnp.linalg.solve(matrix, solution)  # of (XᵀX + lam) w = Xᵀy by lam
    steps = [5, 20, 80] if quick else [2, 5, 10, 20, 40, 80, 160, 320]
    of_iterate, implicit, unrolled, adjoint = [], [], [], []
    for k in progress(steps, "iterations"):
        of_iterate.append(float(jnp.linalg.norm(iterate(LAM, k) - solution)))
        solver = dr.implicit(lambda lam, k=k: iterate(lam, k), residual)
        implicit.append(float(jnp.linalg.norm(dr.jacobian(solver)(LAM) - exact)))
        unrolled.append(float(jnp.linalg.norm(dr.jacobian(lambda lam, k=k: iterate(lam, k), engine="forward")(LAM) - exact)))
        # The adjoint iteration of Christianson: u <- c + (∂step/∂w)ᵀ u, as often as the solver iterated.
        step = 1 / (jnp.linalg.norm(X, 2) ** 2 + LAM)
        pull = dr.vjp(lambda w, step=step: w - step * residual(w, LAM), solution)[1]
        u = jax.lax.fori_loop(0, k, lambda _, u, pull=pull: solution + pull(u)[0], jnp.zeros(10))
        adjoint.append(float(jnp.linalg.norm(step * u - jnp.linalg.solve(matrix, solution))))
    constant = float(np.linalg.norm(np.linalg.inv(matrix), 2))  # the implicit error is exactly -(XᵀX + lam)⁻¹ (w - w*)
    bounded = sum(a <= constant * b * (1 + 1e-6) + 1e-12 for a, b in zip(implicit, of_iterate, strict=True))
    ahead = sum(a <= b + 1e-12 for a, b in zip(implicit, unrolled, strict=True))
    # Rates between the last two numbers of steps before rounding takes over.
    far = [i for i, e in enumerate(of_iterate) if e > 1e-9][-2:]
    def rate(errors: list[float]) -> float:
        return (errors[far[1]] / errors[far[0]]) ** (1 / (steps[far[1]] - steps[far[0]]))

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for name, errors in (("implicit", implicit), ("unrolled", unrolled), ("adjoint iteration", adjoint)):
            axes.plot(of_iterate, errors, marker="o", label=name)
        axes.plot(of_iterate, [constant * e for e in of_iterate], color="black", linewidth=0.8, linestyle="--", label="bound")
        axes.set(xscale="log", yscale="log", xlabel="error of the iterate", ylabel="error of the derivative")
        axes.invert_xaxis()
        axes.legend()

    n = len(steps)
    rows = (Row(f"iterates at which the implicit error is within the bound, of {n}", n, bounded, bounded == n),
            Row(f"iterates at which implicit is closer than unrolled, of {n}", n, ahead, ahead == n),
            Row("error of one iterate over the one before, solver", None, rate(of_iterate), True, 1e-3),
            Row("the same, adjoint iteration", "the solver's", rate(adjoint), abs(rate(adjoint) / rate(of_iterate) - 1) < 0.02, 1e-3))
    return Outcome(rows, "The implicit derivative is within the bound at every iterate, and the unrolled one lags behind it; the "
                         "adjoint iteration converges at the solver's rate.", draw)
