"""Faults at places that are drawn, in compiled loops and their derivatives: is the cause named, and what does the look cost?"""

from __future__ import annotations

import collections
import functools
import pathlib
import re
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import checkify

import dualrev as dr
from benchmarks import timing
from papers.NaNsInLoops.planted import ENTRIES, EXAMPLES, Planted, planted
from papers.reproduction import Outcome, Paper, Progress, Row

PAPER = Paper(
    key="NaNsInLoops", title="Where a NaN came from, in compiled loops and their derivatives",
    claim="of a NaN or an infinity in the result of a compiled loop or its derivative, the operation, line, step and direction are "
          "named, at no more than twice the time of the compiled program",
    where="a result of our own; the numbers that it is to reach were set before it was measured",
    differs="no paper: the criteria stand in the paper's column")

Program = Callable[..., Any]
TIMED_STEPS, TIMED_ENTRIES = 200, 2000


def program(p: Planted, derivatives: Any) -> Program:
    """What fails: the function, or its derivative by ``derivatives``, which is dualrev or jax."""
    def pushed(x: jax.Array, flag: jax.Array) -> jax.Array:
        moved: jax.Array = derivatives.jvp(lambda x: p.fun(x, flag), (x,), (jnp.ones_like(x),))[1]
        return moved

    ways: dict[str, Program] = {"function": p.fun, "pull": derivatives.grad(p.fun), "push": pushed}
    return jax.vmap(ways[p.way]) if p.example else ways[p.way]


def inputs(p: Planted) -> tuple[jax.Array, jax.Array]:
    """Values at which the program fails; of several examples, one does."""
    x = jnp.linspace(0.1, 0.9, ENTRIES)
    if not p.example:
        return x, jnp.ones(())
    return jnp.outer(jnp.array([1.0, 1.1, 0.9]), x), (jnp.arange(EXAMPLES) == p.example[0]).astype(float)


def found_by_us(p: Planted) -> dict[str, bool]:
    report = dr.where_nan(program(p, dr))(*inputs(p))
    if np.isfinite(report.value).all():
        raise AssertionError(f"the fault in {p} has no effect")
    made = report.made
    parts = {"operation": report.operation == p.operation, "line": (report.file, report.line) == (p.file, p.line),
             "step": made is not None and (made.steps, made.example) == (p.steps, p.example), "direction": report.where == p.where}
    return {**parts, "all": all(parts.values())}


def found_by_checkify(p: Planted) -> bool | None:
    """Whether the error of jax's ``checkify`` was raised at the line; None where jax has no such derivative."""
    try:
        error, _ = jax.jit(checkify.checkify(program(p, jax), errors=checkify.float_checks))(*inputs(p))
    except ValueError as refused:
        if "Reverse-mode differentiation" not in str(refused):
            raise
        return None
    try:
        error.throw()
    except checkify.JaxRuntimeError as raised:
        frames = re.findall(rf'File "{re.escape(p.file)}", line (\d+)', "".join(traceback.format_exception(raised)))
        return frames[-1:] == [str(p.line)]
    return False


def finite_loop(x: jax.Array) -> jax.Array:
    """A loop without a fault, which takes milliseconds."""
    def step(x: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
        y = jnp.sin(x) + 0.5 * jnp.roll(x, 1)
        z = jnp.tanh(x * y) / jnp.sqrt(1.0 + y * y)
        return 0.5 * y + jnp.exp(-z * z), None

    return jnp.sum(lax.scan(step, x, jnp.arange(TIMED_STEPS))[0])


def value_of(looked: Program, x: jax.Array) -> Any:
    return looked(x).value


def second_of(checked: Program, x: jax.Array) -> Any:
    return checked(x)[1]


def slowdowns(budget: float) -> dict[str, dict[str, float]]:
    """Times over that of the compiled program, of the loop and its gradient, where all is finite."""
    x = jnp.linspace(0.1, 0.9, TIMED_ENTRIES)
    found = {}
    for name, ours, theirs in (("loop", finite_loop, finite_loop), ("gradient", dr.grad(finite_loop), jax.grad(finite_loop))):
        plain, other = jax.jit(ours), jax.jit(theirs)
        looked = dr.where_nan(ours)
        checked = jax.jit(checkify.checkify(theirs, errors=checkify.float_checks))

        def waited(run: Program) -> Callable[[], Any]:
            return lambda: jax.block_until_ready(run(x))

        runs = [waited(run) for run in (plain, functools.partial(value_of, looked), other, functools.partial(second_of, checked))]
        rounds = timing.interleaved(runs, budget, time.process_time)
        found[name] = {"where_nan": statistics.median(r[1] / r[0] for r in rounds),
                       "checkify": statistics.median(r[3] / r[2] for r in rounds)}
    return found


def run(quick: bool, progress: Progress) -> Outcome:
    seeds = range(3) if quick else range(100, 130)  # 0 to 11 were tried while the generator was written
    many = len(seeds)
    with tempfile.TemporaryDirectory() as folder:
        programs = [planted(seed, pathlib.Path(folder)) for seed in seeds]
        ours = [found_by_us(p) for p in progress(programs, "faults")]
        theirs = [found_by_checkify(p) for p in progress(programs, "faults, by checkify")]
    times = slowdowns(0.3 if quick else 3.0)
    right = {part: sum(each[part] for each in ours) for part in ("all", "operation", "line", "step", "direction")}
    lines, refused = sum(each is True for each in theirs), sum(each is None for each in theirs)
    worst = max(each["where_nan"] for each in times.values())
    kinds = collections.Counter((p.loop, p.where) for p in programs)

    def draw(figure: Any) -> None:
        left, right_axes = figure.subplots(1, 2)
        names = sorted({loop for loop, _ in kinds})
        bottom = np.zeros(len(names))
        for where in ("function", "pull", "push"):
            counts = np.array([kinds[name, where] for name in names])
            left.barh(names, counts, left=bottom, label=f"in the {where}")
            bottom += counts
        left.set(xlabel=f"faults that were drawn; {right['all']} of {many} named exactly")
        left.legend()
        places = np.arange(len(times))
        for k, name in enumerate(("where_nan", "checkify")):
            right_axes.bar(places + 0.4 * k - 0.2, [each[name] for each in times.values()], 0.38, label=name)
        right_axes.axhline(1, color="black", linewidth=0.8)
        right_axes.axhline(2, color="black", linewidth=0.8, linestyle="--")
        right_axes.set_xticks(places, list(times))
        right_axes.set(ylabel="time over the compiled program's")
        right_axes.legend()

    goal = int(np.ceil(0.95 * many))
    rows = [Row(f"faults of {many} whose operation, line, step and direction are named", f"goal: {goal}", right["all"],
                right["all"] >= goal)]
    rows += [Row(f"... the {part} alone", None, right[part], right[part] >= goal) for part in list(right)[1:]]
    rows += [Row(f"... whose line jax's checkify names; it names no step, and jax cannot differentiate {refused} of the {many}",
                 None, lines, lines <= right["line"], 0.1)]
    rows += [Row(f"time of where_nan over the compiled {name}'s, all finite", "goal: 2", each["where_nan"], each["where_nan"] <= 2, 0.5)
             for name, each in times.items()]
    rows += [Row(f"time of checkify over the compiled {name}'s, all finite", None, each["checkify"], True, 0.9)
             for name, each in times.items()]
    slow = max(each["checkify"] for each in times.values())
    return Outcome(tuple(rows), f"{right['all']} of {many} faults are named exactly, with the step of the loop; a look that finds "
                   f"nothing takes at most {worst:.2f} of the compiled program's time. checkify names the line of {lines}, at up to "
                   f"{slow:.1f} times the time.", draw)
