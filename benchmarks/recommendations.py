"""What ``dr.explain`` recommends, against all that it compares: ``python -m benchmarks.recommendations``.

For each program, the variants that ``dr.explain`` prices are made by their lines of code, compiled and timed: the least processor time
of some rounds, on one processor (with ``OPENBLAS_NUM_THREADS=1``, or LAPACK's threads wait for each other there); those that are
compiled to the same program have one time.  That of what is recommended, with nothing measured, is set against the least.  Programs are
scenarios by their tags, with gradients of what is scalar, Jacobians of what is not, and Hessians of those with that tag; and functions
of many shapes, below, with Jacobians and Hessians.
The last line says for how many of them the recommendation is within 1.2 of the fastest; ``GOAL`` of them should be.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import pathlib
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

import dualrev
from benchmarks.libraries import use_double
from benchmarks.prediction import on_one_processor, processor_seconds
from benchmarks.scenarios import SCENARIOS
from dualrev.inspection.explanation import Explanation
from dualrev.inspection.explanation.measuring import HOPELESS
from dualrev.problems.scenario import TAGS

#: No more than this over the fastest variant is a good recommendation, and so many should be.
GOOD, GOAL = 1.2, 0.9
#: Each variant is timed so often; the least time counts.
ROUNDS = 3
DEFAULT_TAGS = ("tour", "libraries", "hessian", "jacobian", "compiled", "loops")
#: Jacobians and Hessians with more passes than this take too long.
MOST_PASSES = 2000

Kind = Literal["grad", "jacobian", "hessian"]


@dataclass(frozen=True)
class Case:
    """A derivative of a program."""

    name: str
    kind: Kind
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


def _x(n: int) -> jax.Array:
    return jnp.linspace(0.5, 1.7, n)


def _weights(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape) / shape[0] ** 0.5)


def banded(x: jax.Array) -> jax.Array:
    return jnp.sin(x[1:]) * x[:-1] + jnp.exp(x[1:])


def arrow(x: jax.Array) -> jax.Array:
    return (x * x + x[0] * x).at[0].set(jnp.sum(x * jnp.sin(x)))


def blocks(x: jax.Array) -> jax.Array:
    y = x.reshape(-1, 4)
    return jnp.tanh(y @ _weights(4, 4)).reshape(-1)


def grid(x: jax.Array) -> jax.Array:
    n = round(len(x) ** 0.5)
    u = x.reshape(n, n)
    return (u + 0.1 * (jnp.roll(u, 1, 0) + jnp.roll(u, -1, 0) + jnp.roll(u, 1, 1) + jnp.roll(u, -1, 1)) - u**3).reshape(-1)


def layers(*widths: int) -> Callable[[jax.Array], jax.Array]:
    def function(x: jax.Array) -> jax.Array:
        for pair in itertools.pairwise(widths):
            x = jnp.tanh(x @ _weights(*pair))
        return x

    return function


def decay(steps: int, outputs: int) -> Callable[[jax.Array], jax.Array]:
    """States of a simulation, by its parameters."""
    def function(p: jax.Array) -> jax.Array:
        def step(y: jax.Array, _: None) -> tuple[jax.Array, None]:
            return y + 0.01 * (jnp.roll(y, 1) * p[0] - jnp.sin(y) * jnp.sum(p)), None

        return jax.lax.scan(step, jnp.linspace(0.0, 1.0, outputs), None, length=steps)[0]

    return function


def mixed(x: jax.Array) -> jax.Array:
    return jnp.stack([jnp.prod(jnp.sin(x)), jnp.sum(jnp.exp(-x)), jnp.max(x) * x[0]])


def solved(x: jax.Array) -> jax.Array:
    a = jnp.outer(jnp.sin(x), x) + 5.0 * jnp.eye(len(x))
    return jnp.linalg.solve(a, x**2)


def chained(x: jax.Array) -> jax.Array:
    return jnp.sum((x[1:] - x[:-1] ** 2) ** 2 + jnp.exp(x[1:]))


def coupled(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.sin(jnp.outer(x, x))) + jnp.sum(x) ** 3


def polynomial(x: jax.Array) -> jax.Array:
    for _ in range(6):
        x = x * jnp.sin(x) + 0.5
    return jnp.sum(x)


def shaped() -> Iterator[Case]:
    """Functions of many shapes."""
    vectors: list[tuple[str, Callable[[jax.Array], jax.Array], tuple[int, ...]]] = [
        ("banded", banded, (20, 200, 1500)), ("arrow", arrow, (20, 300)), ("blocks", blocks, (16, 256)), ("grid", grid, (100, 900)),
        ("dense layers", layers(30, 40, 30), (30,)), ("wide layers", layers(10, 60, 200), (10,)),
        ("narrowing layers", layers(200, 60, 10), (200,)), ("autoencoder", layers(120, 40, 6, 40, 120), (120,)),
        ("simulation, 3 parameters", decay(100, 50), (3,)), ("simulation, 40 parameters", decay(50, 8), (40,)),
        ("three numbers", mixed, (5, 50, 500)), ("solve", solved, (8, 40)), ("softmax", jax.nn.softmax, (10, 100))]
    for name, function, sizes in vectors:
        for n in sizes:
            yield Case(f"{name}, {n}", "jacobian", function, (_x(n),))
    scalars: list[tuple[str, Callable[[jax.Array], jax.Array], tuple[int, ...]]] = [
        ("chained", chained, (10, 100, 600)), ("coupled", coupled, (5, 60)), ("polynomial", polynomial, (8, 200))]
    for name, function, sizes in scalars:
        for n in sizes:
            yield Case(f"{name}, {n}", "grad", function, (_x(n),))
            yield Case(f"{name}, {n}", "hessian", function, (_x(n),))


def of_scenarios(tags: set[str]) -> Iterator[Case]:
    """The derivatives of the scenarios that are asked for."""
    for scenario in SCENARIOS:
        if scenario.program is None or not tags & set(scenario.tags) or scenario.inputs is None or scenario.outputs is None:
            continue
        arguments = tuple(jax.tree.map(jnp.asarray, scenario.draw()))
        if scenario.outputs == 1:
            yield Case(scenario.name, "grad", scenario.program, arguments)
            if "hessian" in scenario.tags and scenario.inputs <= MOST_PASSES:
                yield Case(scenario.name, "hessian", scenario.program, arguments)
        elif min(scenario.inputs, scenario.outputs) <= MOST_PASSES:
            yield Case(scenario.name, "jacobian", scenario.program, arguments)


def seconds_of_variants(case: Case, found: Explanation, budget: float) -> dict[str, float]:
    """The processor's time of each variant that is not hopeless."""
    least = min(v.seconds for v in found.variants)
    own = getattr(case.function, "__name__", "")  # a functools.partial has none
    name = own if own.isidentifier() else "f"
    programs: dict[str, str] = {}
    runs: dict[str, Callable[[], Any]] = {}
    for variant in found.variants:
        if variant.seconds <= HOPELESS * least or variant.name == found.recommended:
            derivative = eval(variant.code, {"dr": dualrev, "jax": jax, name: case.function})
            compiled = derivative.lower(*case.arguments).compile()
            programs[variant.name] = text = operations(compiled.as_text())
            runs.setdefault(text, functools.partial(compiled, *case.arguments))
    times = [{text: processor_seconds(run, budget) for text, run in runs.items()} for _ in range(ROUNDS)]
    return {name: min(seconds[text] for seconds in times) for name, text in programs.items()}


def operations(text: str) -> str:
    """A compiled program without where it is from: variants that are compiled to the same are timed as one."""
    return re.sub(r",? ?metadata=\{[^}]*\}", "", text[text.index("\n\n%" if "\n\n%" in text else "\nENTRY"):])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="PATTERN", help="programs whose name has this in it, a regular expression")
    parser.add_argument("--kind", nargs="+", default=["grad", "jacobian", "hessian"], choices=["grad", "jacobian", "hessian"])
    parser.add_argument("--tag", nargs="*", default=list(DEFAULT_TAGS), choices=list(TAGS), metavar="TAG",
                        help="scenarios with any of these")
    parser.add_argument("--no-shapes", action="store_true", help="without the functions of many shapes")
    parser.add_argument("--seconds", type=float, default=0.03, help="time for a round of each variant")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="add what was found to this file")
    options = parser.parse_args()
    on_one_processor()
    use_double()
    console = Console(width=150, highlight=False)
    ratios: dict[str, list[float]] = {}
    kept: dict[str, Any] = {}
    for case in (*([] if options.no_shapes else shaped()), *of_scenarios(set(options.tag))):
        if case.kind not in options.kind or not re.search(options.only, case.name):
            continue
        try:
            found = dualrev.explain(case.function, *case.arguments, derivative=case.kind, argnums=0)
            seconds = seconds_of_variants(case, found, options.seconds)
        except Exception as error:  # one program that fails is told of, and the others are measured
            console.print(f"{case.kind} of {case.name}: {type(error).__name__}: {str(error)[:100]}", style="red", markup=False)
            ratios.setdefault(f"{case.kind} (failed)", []).append(float("inf"))
            continue
        best = min(seconds, key=lambda name: seconds[name])
        ratio = seconds[found.recommended] / seconds[best]
        ratios.setdefault(case.kind, []).append(ratio)
        kept[f"{case.kind} of {case.name}"] = {"recommended": found.recommended, "measured": seconds,
                                               "predicted": {v.name: v.seconds for v in found.variants}}
        others = ", ".join(f"{name} {1e6 * found[name].seconds:,.0f}/{1e6 * x:,.0f}" for name, x in seconds.items())
        console.print(f"{case.kind:8} {case.name:40.40} {found.recommended:28.28} {ratio:6.2f} of {best}, "
                      f"predicted/measured us: {others}",
                      style="" if ratio <= GOOD else "red", markup=False, soft_wrap=True)
    if options.json:
        before = json.loads(options.json.read_text()) if options.json.exists() else {}
        options.json.write_text(json.dumps({**before, **kept}, indent=1) + "\n")
    every = [x for of in ratios.values() for x in of]
    for kind, of in [*ratios.items(), ("all", every)]:
        if of:
            console.print(f"{kind}: within {GOOD} of the fastest in {sum(x <= GOOD for x in of)} of {len(of)}, median "
                          f"{statistics.median(of):.2f}, worst {max(of):.2f}")
    return int(not every or sum(x <= GOOD for x in every) < GOAL * len(every))


if __name__ == "__main__":
    sys.exit(main())
