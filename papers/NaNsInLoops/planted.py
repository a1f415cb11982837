"""Programs with one loop and one fault at a place that is drawn: what they return is not finite, and it is known why."""

from __future__ import annotations

import pathlib
import random
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: Lines of a step that are finite and have finite derivatives: ``x`` is the latest value, ``y`` the one before.
SAFE = ("jnp.sin(x) + 0.5 * y", "jnp.tanh(x * y)", "0.9 * x + jnp.cos(y)", "jnp.where(x > 0, x, 0.1 * x) + y", "x / (1.0 + y * y)",
        "jnp.exp(-x * x) + y", "jnp.log1p(x * x) - 0.3 * y", "jnp.roll(x, 1) + 0.1 * y", "jnp.sqrt(1.0 + x * x) + 0.2 * y",
        "0.5 * (x + jnp.mean(x)) + 0.1 * y", "jnp.arctan2(x, 1.0 + y * y)", "jnp.maximum(x, y) + 0.1 * x")
#: Zero, with a derivative of 1; the operation that has the fault sees it where ``bad``.
_ZERO = "x - lax.stop_gradient(x)"
#: What a line computes, and the operation that makes the first NaN or infinity, in the function ...
IN_FUNCTION = (("jnp.log(jnp.where(bad, -1.0, 1.5 + jnp.cos(x)))", "log"), ("jnp.sqrt(jnp.where(bad, -0.5, 1.5 + jnp.sin(x)))", "sqrt"),
               ("jnp.where(bad, 0.0, x) / jnp.where(bad, 0.0, 2.0)", "div"),
               ("jnp.arccos(jnp.where(bad, 1.5, 0.5 * jnp.tanh(x)))", "acos"),
               ("jnp.where(bad, -0.5, 1.5 + jnp.sin(x)) ** (0.3 + 0.0 * y)", "pow"),
               ("jnp.log1p(jnp.where(bad, -3.0, x * x))", "log1p"),
               ("jnp.exp(jnp.where(bad, 1e4, 0.1 * x)) / (1.0 + jnp.where(bad, jnp.inf, x * x))", "exp"),
               ("jnp.arctanh(jnp.where(bad, 2.0, 0.5 * jnp.tanh(x)))", "atanh"))
#: ... and in the derivative alone: the values are finite.
IN_DERIVATIVE = ((f"jnp.sqrt(jnp.where(bad, {_ZERO}, 1.5 + jnp.sin(x)))", "sqrt"),
                 (f"jnp.where(bad, {_ZERO}, 1.5 + jnp.sin(x)) ** (0.3 + 0.0 * lax.stop_gradient(y))", "pow"),
                 (f"jnp.arccos(jnp.where(bad, 1.0 + ({_ZERO}), 0.5 * jnp.tanh(x)))", "acos"),
                 (f"jnp.arcsin(jnp.where(bad, -1.0 + ({_ZERO}), 0.5 * jnp.tanh(x)))", "asin"),
                 (f"jnp.sqrt(jnp.where(bad, {_ZERO}, 3.0 + jnp.sin(x)) ** 2)", "sqrt"))
#: In the pull alone: ``where`` chooses another tangent, and pulls a cotangent of 0 through what it does not choose.
IN_PULL = ((f"jnp.where(bad, 0.0, jnp.log(jnp.where(bad, {_ZERO}, 1.5 + jnp.sin(x))))", "log"),
           (f"jnp.where(bad, 0.0, jnp.sqrt(jnp.where(bad, {_ZERO}, 1.5 + jnp.sin(x))))", "sqrt"))
#: The loop, how its step is called, and the lengths of the loops, outermost first.
LOOPS = {
    "scan": ("lax.scan(lambda x, i: (step(x, i, 0, flag), None), x, jnp.arange(40))[0]", (40,)),
    "backwards": ("lax.scan(lambda x, i: (step(x, i, 0, flag), None), x, jnp.arange(40), reverse=True)[0]", (40,)),
    "fori_loop": ("lax.fori_loop(0, 40, lambda i, x: step(x, i, 0, flag), x)", (40,)),
    "while_loop": ("lax.while_loop(lambda s: (s[0] < 40) & ~(jnp.max(s[1]) > 1e9), lambda s: (s[0] + 1, step(s[1], s[0], 0, flag)), "
                   "(0, x))[1]", (40,)),
    "nested": ("lax.scan(lambda x, i: (lax.scan(lambda x, j: (step(x, i, j, flag), None), x, jnp.arange(7))[0], None), x, "
               "jnp.arange(6))[0]", (6, 7)),
    "vmap": ("lax.scan(lambda x, i: (step(x, i, 0, flag), None), x, jnp.arange(40))[0]", (40,)),
}
#: How a program is run: of the function, its reverse or its forward derivative.
WAYS = ("function", "pull", "push")
ENTRIES, EXAMPLES = 6, 3


@dataclass(frozen=True)
class Planted:
    """A program ``fun(x, flag)``, the way in which it fails, and what is to be found."""

    fun: Callable[..., Any]
    file: str
    loop: str
    way: str
    operation: str
    where: str
    line: int
    steps: tuple[int, ...]
    example: tuple[int, ...]


def planted(seed: int, folder: pathlib.Path) -> Planted:
    """Everything is drawn from the seed: the fault, its line, step, entry and example, the loop, and the other lines."""
    rng = random.Random(seed)
    loop = rng.choice(list(LOOPS))
    call, lengths = LOOPS[loop]
    steps = tuple([rng.randrange(n) for n in lengths])
    way = rng.choice(WAYS)
    in_function = way == "function" or rng.random() < 0.4
    fault, operation = rng.choice(IN_FUNCTION if in_function else IN_DERIVATIVE + IN_PULL if way == "pull" else IN_DERIVATIVE)
    body = [rng.choice(SAFE) for _ in range(6)]
    place = rng.randrange(len(body))
    body[place] = fault
    at = f"(i == {steps[0]}) & (j == {steps[1] if len(steps) > 1 else 0}) & (jnp.arange({ENTRIES}) == {rng.randrange(ENTRIES)})"
    lines = ["import jax.numpy as jnp", "from jax import lax", "", "", "def step(x, i, j, flag):", "    y = x",
             f"    bad = {at} & (flag > 0)"]
    lines += [f"    x, y = {text}, x" for text in body]
    lines += ["    return 0.5 * jnp.tanh(y) + jnp.tanh(x)", "", "", "def fun(x, flag):",
              f"    return jnp.sum({call} * jnp.arange(1.0, {ENTRIES + 1}.0))"]
    path = folder / f"planted_{seed}.py"
    path.write_text("\n".join(lines) + "\n")
    where = "function" if in_function else way
    example = (rng.randrange(EXAMPLES),) if loop == "vmap" else ()
    return Planted(runpy.run_path(str(path))["fun"], str(path), loop, way, operation, where, 8 + place, steps, example)
