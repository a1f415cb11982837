"""GradBench's protocol: one message a line, one answer a line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

import jax

import dualrev
from benchmarks.gradbench import ba, descent, det, gmm, ht, kmeans, lstm, ode, sums
from benchmarks.gradbench.problem import Fields, InputError, Problem

PROBLEMS: Mapping[str, Problem] = {
    "hello": sums.HELLO,
    "gmm": gmm.PROBLEM,
    "ba": ba.PROBLEM,
    "ht": ht.PROBLEM,
    "lstm": lstm.PROBLEM,
    "kmeans": kmeans.PROBLEM,
    "lse": sums.LSE,
    "llsq": sums.LLSQ,
    "ode": ode.PROBLEM,
    "det": det.PROBLEM,
    "particle": descent.PARTICLE,
    "saddle": descent.SADDLE,
}
MOST_RUNS = 1_000_000


def serve(messages: Iterable[str], out: TextIO) -> None:
    for line in messages:
        if line.strip():
            print(json.dumps(answer(line), allow_nan=False), file=out, flush=True)


def answer(line: str) -> dict[str, Any]:
    """The answer to one message; whatever is wrong with it is said in the answer."""
    message: Any = None
    try:
        message = json.loads(line, parse_constant=_refuse)
        if not isinstance(message, dict):
            raise InputError("a message must be a JSON object")
        return {"id": message.get("id"), **respond(message)}
    except Exception as error:
        found = message.get("id") if isinstance(message, dict) else None
        return {"id": found, "success": False, "error": f"{type(error).__name__}: {error}"}


def _refuse(constant: str) -> Any:
    raise InputError(f"{constant} is not JSON")


def respond(message: dict[str, Any]) -> dict[str, Any]:
    match message.get("kind"):
        case "start":
            return {"tool": "dualrev"}
        case "define":
            problem_of(message)
            return {"success": True}
        case "evaluate":
            return evaluate(message)
        case "analysis":
            return {}
        case kind:
            raise InputError(f"no such kind of message: {kind!r}")


def problem_of(message: dict[str, Any]) -> Problem:
    module = message.get("module")
    if not isinstance(module, str) or module not in PROBLEMS:
        raise InputError(f"no such module: {module!r}; there are {', '.join(PROBLEMS)}")
    return PROBLEMS[module]


def evaluate(message: dict[str, Any]) -> dict[str, Any]:
    problem, name = problem_of(message), message.get("function")
    if not isinstance(name, str) or name not in problem.functions:
        raise InputError(f"no such function: {name!r}; {message['module']} has {', '.join(problem.functions)}")
    if "input" not in message:
        raise InputError("an evaluation must have an input")
    given = message["input"]
    fields = Fields(given if isinstance(given, dict) else {"x": given})  # hello's input is a bare number
    runs = fields.integer("min_runs", 1, MOST_RUNS) if "min_runs" in fields.value else 1
    seconds = fields.number("min_seconds") if "min_seconds" in fields.value else 0.0
    arguments = problem.read(fields)
    result, nanoseconds = timed(problem, name, arguments, runs, seconds)
    if not all(map(is_finite, jax.tree.leaves(result))):
        raise InputError("the result is not finite")
    return {"success": True, "output": problem.written(name, result, arguments),
            "timings": [{"name": "evaluate", "nanoseconds": n} for n in nanoseconds]}


def is_finite(x: Any) -> bool:
    return bool(jax.numpy.all(jax.numpy.isfinite(x)))


def timed(problem: Problem, name: str, arguments: tuple[Any, ...], runs: int, seconds: float) -> tuple[Any, list[int]]:
    """The result, and the time of each of at least so many runs in at least so many seconds.

    The clock does not see conversions, nor the compiler, which is why there is one run before the first that counts; it stops when
    results are there, not when they are on their way.
    """
    function = problem.compiled(name, dualrev)
    arguments = jax.block_until_ready(problem.on_device(arguments))
    jax.block_until_ready(function(*arguments))
    nanoseconds: list[int] = []
    while len(nanoseconds) < runs or sum(nanoseconds) < seconds * 1e9:
        start = time.perf_counter_ns()
        result = jax.block_until_ready(function(*arguments))
        nanoseconds.append(time.perf_counter_ns() - start)
    return result, nanoseconds
