"""Rows of the table under the modes of higher order, Laplacian and Taylor, against nested pushes of jax.

For a line of the test table: the sum of the second derivatives along two directions, their difference, and all of them; and the
coefficients of a curve to order 3.  The suite checks one line for each kind and form of row in each family, and ``python -m
tests.test_higher_order_rows`` all leading lines, in minutes.  Both modes also go through calls, loops and rules of users:
``test_laplacian.py`` and ``test_taylor.py``.
"""

from __future__ import annotations

import functools
import pathlib
import sys
import traceback
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import promoting
from cases import CASES, Case
from test_rules import LOW, RTOL, Flat, Jax, Problem, compare, identify, leading, staged

from dualrev._jax.primitives import primitive
from dualrev.engines.laplacian import SecondDerivatives
from dualrev.engines.parts import evaluate
from dualrev.engines.taylor import Taylor
from dualrev.table.mode import Mode
from dualrev.table.rows import load_optional, rows

ORDER = 3
#: In the short suite.
SHORT = ("tanh", "div", "dot_general")


def function_of(problem: Problem, constants: Flat, fun: Callable[..., Any]) -> Callable[..., Flat]:
    def f(*xs: Any) -> Flat:
        moving, still = iter(xs), iter(constants)
        outs = fun(*[next(moving) if active else next(still) for active in problem.active])
        outs = list(outs) if isinstance(outs, (tuple, list)) else [outs]
        return [out for out, moves in zip(outs, problem.moving_outs, strict=True) if moves]

    return f


def by_dualrev(problem: Problem, order: int, constants: Flat, xs: Flat, ts: list[Flat]) -> dict[str, Flat]:
    f = function_of(problem, constants, problem.case.fun)

    def parts(mode: Mode, given: list[Any]) -> tuple[Flat, list[Any]]:
        return evaluate(mode, f, xs, given)

    both = [jnp.stack(pair) for pair in zip(*ts, strict=True)]
    outs, found = parts(Taylor(order), [(a, b, None)[:order] for a, b in zip(*ts, strict=True)])
    results = {"out": outs}
    for k in range(order):
        results[f"order {k + 1}"] = [jnp.zeros_like(x) if p is None or p[k] is None else p[k] for x, p in zip(outs, found, strict=True)]
    if order == 1:
        return results
    for mode in (SecondDerivatives(2), SecondDerivatives(2, is_summed=False), SecondDerivatives(2, n_minus=1)):
        outs, pairs = parts(mode, [(b, None) for b in both])
        name = "all" if not mode.is_summed else "difference" if mode.n_minus else "sum"
        results[name] = [jnp.zeros(x.shape if mode.is_summed else (2, *x.shape), x.dtype) if p is None or p[1] is None else p[1]
                         for x, p in zip(outs, pairs, strict=True)]
    return results


def by_jax(problem: Problem, order: int, constants: Flat, xs: Flat, ts: list[Flat]) -> dict[str, Flat]:
    f = function_of(problem, constants, problem.case.oracle or problem.case.fun)

    def along(a: Flat, b: Flat | None) -> list[Flat]:
        """The derivatives of f(x + s a + s² b) by s."""
        def curve(s: Any) -> Flat:
            square = [0 * x if b is None else s.astype(x.dtype) ** 2 * y for x, y in zip(xs, a if b is None else b, strict=True)]
            return f(*[x + s.astype(x.dtype) * y + z for x, y, z in zip(xs, a, square, strict=True)])

        found: list[Callable[[Any], Flat]] = [curve]
        for _ in range(order):
            found.append(functools.partial(lambda previous, s: Jax.push(lambda s: previous(s), [s], [jnp.ones_like(s)]), found[-1]))
        return [derivative(jnp.zeros(())) for derivative in found]

    outs, *coefficients = along(*ts)
    results = {"out": outs}
    for k, derivatives in enumerate(coefficients):
        results[f"order {k + 1}"] = [x / (1, 2, 6)[k] for x in derivatives]
    if order > 1:
        first, second = along(ts[0], None)[2], along(ts[1], None)[2]
        results["sum"] = [a + b for a, b in zip(first, second, strict=True)]
        results["difference"] = [a - b for a, b in zip(first, second, strict=True)]
        results["all"] = [jnp.stack(pair) for pair in zip(first, second, strict=True)]
    return results


LINES = [case for case in leading(CASES) if case.dtypes[0] not in LOW]


def representatives() -> list[Case]:
    """A line for each kind and form of row in each file of rows, and those of the short suite."""
    found: dict[Any, Case] = {name: case for case in LINES if (name := case.primitive) in SHORT}
    for case in LINES:
        row = rows[primitive(case.primitive)]
        found.setdefault((row.kind, row.form, row.where.split(":")[0]), case)
    return list({id(case): case for case in found.values()}.values())


load_optional()


@pytest.mark.parametrize("case", [pytest.param(case, id=identify(case, case.dtypes[0]),
                                               marks=() if case.primitive in SHORT else pytest.mark.thorough)
                                  for case in representatives()])
def test_row(case: Case) -> None:
    check(case, case.dtypes[0])


def check(case: Case, dtype: str) -> None:
    problem = Problem(case, dtype)
    order = 1 if problem.order == 1 else ORDER
    constants, xs, ts, _ = problem.inputs
    got = staged(functools.partial(by_dualrev, problem, order), constants, xs, ts)
    expected = staged(promoting()(functools.partial(by_jax, problem, order)), constants, xs, ts)
    if not all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(expected)):  # at poles: order 1 alone is defined
        keep = ("out", "order 1")
        got, expected = ({name: values[name] for name in keep} for values in (got, expected))
    compare(got, expected, 100 * (case.rtol or RTOL[dtype]), "higher order")


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    failed = 0
    for line in LINES:
        try:
            check(line, line.dtypes[0])
        except Exception:
            failed += 1
            print(identify(line, line.dtypes[0]))
            traceback.print_exc()
    print(f"{len(LINES)} lines, {failed} failed")
