"""Pushes and pulls together, chosen by what each costs: ten systems of equations, eight of them with dense rows and columns."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

import dualrev as dr
from benchmarks import timing
from dualrev.problems import brusselator, collocation, fitting, stationarity
from papers.reproduction import Outcome, Paper, Progress, Row

PAPER = Paper(
    key="WeightedBicolouring", title="Cost-weighted two-sided colouring (a result of our own)",
    claim="weighted by the costs of a push and a pull, colours of both kinds give the Jacobians of at least 5 of 10 real systems at "
          "least 3 times as fast as the better single mode, and none more slowly",
    where="a question that the papers on two-sided colouring leave open: they minimise the number of colours",
    differs="ten systems of dualrev/problems, on a CPU in double precision")

Vector = Callable[[jax.Array], jax.Array]


def flat(f: Callable[..., Any], inputs: Any, *data: Any) -> tuple[Vector, jax.Array]:
    """A function of a pytree as one of a vector, and the vector."""
    x, unravel = ravel_pytree(inputs)
    return lambda x: ravel_pytree(f(unravel(x), *data))[0], x


def problems(n: int) -> dict[str, tuple[Vector, jax.Array]]:
    """Each with about ``n`` unknowns; the last two have no dense rows."""
    side = int(n**0.5)
    photos = fitting.pictures(n // 36, n * 5 // 18, n * 10 // 9)
    return {
        "swing-up, free final time": flat(collocation.swing_up, collocation.swing_up_guess(n // 5)),
        "periodic orbit": flat(collocation.periodic_orbit, collocation.orbit_guess(n // 2)),
        "travelling pulse": flat(collocation.travelling_pulse, collocation.pulse_guess(n // 2)),
        "Bratu continuation": flat(collocation.continuation, collocation.branch_guess(side)),
        "drop (KKT)": flat(stationarity.drop, stationarity.drop_guess(side)),
        "hanging chain (KKT)": flat(stationarity.hanging_chain, stationarity.chain_guess(n)),
        "bundle, free network": flat(fitting.free_network, *photos),
        "decays, shared rates": flat(fitting.global_decays, *fitting.decays(n // 3, 6, 3)),
        "bundle, one lens": flat(fitting.reprojection, *photos),
        "Brusselator": flat(brusselator.rate, brusselator.state(int((n / 2) ** 0.5))),
    }


def measured_costs(f: Vector, x: jax.Array, budget: float) -> tuple[float, float]:
    """Seconds of one more push and of one more pull under ``vmap``: the slopes between few and many."""
    out = f(x)
    few, many = 16, 200

    def run(pass_of: Callable[[jax.Array, jax.Array], Any], like: jax.Array, k: int) -> Callable[[], Any]:
        vectors = jax.random.normal(jax.random.key(0), (k, like.size), like.dtype)
        program = jax.jit(lambda x, vectors: jax.vmap(lambda v: pass_of(x, v))(vectors)).lower(x, vectors).compile()
        return lambda: program(x, vectors)

    def push(x: jax.Array, v: jax.Array) -> jax.Array:
        return dr.jvp(f, (x,), (v,))[1]

    def pull(x: jax.Array, v: jax.Array) -> Any:
        return dr.vjp(f, x)[1](v)

    runs = [run(push, x, few), run(push, x, many), run(pull, out, few), run(pull, out, many)]
    low, high, low_pull, high_pull = map(statistics.median, zip(*timing.interleaved(runs, budget, time.process_time), strict=True))
    return max(high - low, 1e-3 * high) / (many - few), max(high_pull - low_pull, 1e-3 * high_pull) / (many - few)


@dataclass(frozen=True)
class Found:
    """Of one system: costs, and pushes and pulls, time of each plan, and ratios of times in the same rounds."""

    costs: tuple[float, float]
    predicted: tuple[float, float]
    passes: dict[str, tuple[int, int]]
    #: Over the time of the plan by predicted costs, the one that users get.
    ratios: dict[str, float]

    @property
    def gain(self) -> float:
        """How many times as fast as the better single mode."""
        return min(self.ratios["pushes"], self.ratios["pulls"])

    @property
    def fewer(self) -> float:
        """The passes of the better single mode over those of the fewest of both kinds."""
        return min(self.passes["pushes"][0], self.passes["pulls"][1]) / sum(self.passes["fewest"])


def measure(f: Vector, x: jax.Array, budget: float) -> Found:
    costs = measured_costs(f, x, budget)
    plan = functools.partial(dr.sparse.plan, f, x)
    plans = {"pushes": plan(engine="forward"), "pulls": plan(engine="reverse"), "fewest": plan(costs=(1.0, 1.0)), "predicted": plan(),
             "measured": plan(costs=costs)}
    same: dict[bytes, Any] = {}  # plans with the same colours are one program
    for each in plans.values():
        same.setdefault(each.column_colours.tobytes() + each.row_colours.tobytes(), each)
    programs = {key: jax.jit(dr.jacobian(f, sparse=each)).lower(x).compile() for key, each in same.items()}
    dense = np.asarray(jax.jit(jax.jacfwd(f))(x))
    for program in programs.values():
        if not np.allclose(program(x).todense(), dense, rtol=1e-8, atol=1e-8 * np.abs(dense).max()):
            raise AssertionError("a sparse Jacobian is not that of jax")
    rounds = timing.interleaved([lambda p=p: p(x).data for p in programs.values()], budget, time.process_time)
    columns = dict(zip(programs, zip(*rounds, strict=True), strict=True))
    times = {name: columns[each.column_colours.tobytes() + each.row_colours.tobytes()] for name, each in plans.items()}
    ratios = {name: statistics.median(a / b for a, b in zip(column, times["predicted"], strict=True)) for name, column in times.items()}
    return Found(costs, plans["predicted"].costs, {name: (p.forward_colours, p.reverse_colours) for name, p in plans.items()}, ratios)


def run(quick: bool, progress: Progress) -> Outcome:
    chosen = problems(400 if quick else 1000)
    if quick:
        chosen = {name: chosen[name] for name in ("hanging chain (KKT)", "Brusselator")}
    found = {name: measure(f, x, 0.2 if quick else 1.0) for name, (f, x) in progress(chosen.items(), "systems")}
    names = list(found)
    gains = {name: one.gain for name, one in found.items()}
    large = sum(gain >= 3 for gain in gains.values())
    slowest = max(1 / gain for gain in gains.values())
    others = {name: one.ratios["measured"] for name, one in found.items() if one.passes["measured"] != one.passes["fewest"]}
    low, high = min(others.values(), default=1.0), max(others.values(), default=1.0)
    differ = sum(one.passes["predicted"] != one.passes["fewest"] for one in found.values())

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(2, 1))
        left.barh(np.arange(len(names)) - 0.2, [gains[name] for name in names], 0.38, label="time")
        left.barh(np.arange(len(names)) + 0.2, [found[name].fewer for name in names], 0.38, label="passes")
        left.axvline(1, color="black", linewidth=0.8)
        left.axvline(3, color="black", linewidth=0.8, linestyle="--")
        left.set_yticks(range(len(names)), names)
        left.invert_yaxis()
        left.set(xscale="log", xlabel="the better single mode over both together")
        left.legend()
        pairs = [(one.costs[1] / one.costs[0], one.predicted[1] / one.predicted[0]) for one in found.values()
                 if one.predicted != (1.0, 1.0)]
        ends = [min(map(min, pairs)) / 1.5, 1.5 * max(map(max, pairs))]
        right.plot(ends, ends, color="black", linewidth=0.8)
        right.plot(*zip(*pairs, strict=True), "o")
        right.set(xscale="log", yscale="log", xlabel="pull over push, measured", ylabel="predicted")

    rows = [Row(f"{name}: {p['fewest'][0]} pushes and {p['fewest'][1]} pulls for {min(p['pushes'][0], p['pulls'][1]):,} passes, ratio",
                None, found[name].fewer, found[name].fewer >= 1) for name in names for p in [found[name].passes]]
    rows += [Row(f"{name}: time of the better single mode over both", None, gain, gain >= 1 / 1.05, 0.9)
             for name, gain in gains.items()]
    rows += [Row("systems at least 3 times as fast", f"goal: {1 if quick else 5}", large, large >= (1 if quick else 5)),
             Row("the slowest: time over the better single mode", "goal: 1.05", slowest, slowest <= 1.05, 0.1),
             Row("systems in which predicted costs choose other passes than the fewest", None, differ, bool(differ)),
             Row("systems in which measured times choose other passes than the fewest", None, len(others), bool(others), 10.0),
             Row("the best plan by measured costs: time over the fewest passes", None, low, low < 0.95, 0.9),
             Row("the worst plan by measured costs: time over the fewest passes", None, high, high < 1.05, 0.9)]
    span = f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}"
    then = f", whose time is then {span} of the other plans'" if others else ""
    sentence = (f"{large} of {len(names)} systems are at least 3 times as fast as by the better single mode, and none takes more than "
                f"{slowest:.2f} of its time. That is due to pushes and pulls together, not to weights: predicted costs choose other "
                f"passes than the fewest in {differ} systems, and measured ones in {len(others)}{then}.")
    return Outcome(tuple(rows), sentence, draw)
