"""Every line of the test table, through both engines, against jax.

For each case the same derivatives are computed by dualrev's engines and by jax: push and pull, and the four nestings of order 2
(forward over reverse, reverse over reverse, reverse over forward, forward over forward).

- *staged*: order 1 and, in the first dtype, forward over reverse, traced to one program; the other nestings for the leading line;
- *vmapped*: under vmap, against jax sample by sample, to forward over reverse, for the leading line;
- *jitted* and *un-jitted*: order 1, compiled as one and on concrete values, for the leading line.

The leading line is the first of each primitive, in double precision: what batches, compiled and un-jitted evaluation and the other
nestings add to a row does not depend on its parameters.

Staged programs are evaluated one operation at a time: operations of one shape are compiled once for the whole suite, while a
program for each case would spend the suite's time in the compiler.
"""

from __future__ import annotations

import functools
import pathlib
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import promoting
from cases import CASES, ELSEWHERE, Case, Constant

import dualrev.calls.families  # noqa: F401  (fills the table)
from dualrev._jax.jaxprs import jaxpr_as_fun
from dualrev._jax.primitives import primitive
from dualrev.engines.forward import push_through
from dualrev.engines.reverse import linearize
from dualrev.table.rows import load_optional, rows

RTOL = {"float64": 1e-10, "complex128": 1e-10, "float32": 2e-5, "complex64": 2e-5, "float16": 2e-2, "bfloat16": 1e-1}
#: Compared at order 1, staged only.
LOW = ("float32", "float16", "bfloat16", "complex64")
Flat = list[Any]

# ----------------------------------------------------------------------------------------- the two ways to differentiate


def moves(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact) if hasattr(x, "dtype") else False


class Dualrev:
    """Push by the forward engine, pull by the reverse engine; ``along_tape`` does both with one tape."""

    @staticmethod
    def push(f: Callable[..., Flat], xs: Flat, ts: Flat) -> Flat:
        outs, tangents = push_through(f, xs, ts)
        return [jnp.zeros_like(out) if t is None else t for out, t in zip(outs, tangents, strict=True)]

    @staticmethod
    def pull(f: Callable[..., Flat], xs: Flat, cts: Flat) -> Flat:
        _, tape = linearize(f, xs, [True] * len(xs))
        return [jnp.zeros_like(x) if ct is None else ct for x, ct in zip(xs, tape.pull(*cts), strict=True)]

    @staticmethod
    def along_tape(f: Callable[..., Flat], xs: Flat, ts: Flat, cts: Flat) -> tuple[Flat, Flat]:
        """A push and a pull of one tape; no pull where there are no cotangents."""
        outs, tape = linearize(f, xs, [True] * len(xs))
        pushed = [jnp.zeros_like(out) if t is None else t  # type: ignore[arg-type]  # no output is unknown
                  for out, t in zip(outs, tape.push(*ts), strict=True)]
        return pushed, [jnp.zeros_like(x) if ct is None else ct for x, ct in zip(xs, tape.pull(*cts), strict=True)] if cts else []


class Jax:
    """The oracle."""

    @staticmethod
    def push(f: Callable[..., Flat], xs: Flat, ts: Flat) -> Flat:
        return jax.jvp(f, xs, ts)[1]

    @staticmethod
    def pull(f: Callable[..., Flat], xs: Flat, cts: Flat) -> Flat:
        return list(jax.vjp(f, *xs)[1](cts))



def as_list(outs: Any) -> Flat:
    return list(outs) if isinstance(outs, (tuple, list)) else [outs]


class Problem:
    """A case at one dtype: its arguments, and all the derivatives to compare."""

    def __init__(self, case: Case, dtype: str, sample: int = 0):
        self.case = case
        self.rng = np.random.default_rng([zlib.crc32(f"{case.primitive} {case.label} {dtype}".encode()), sample])
        kind = jnp.dtype(dtype)
        self.args = [jnp.asarray(maker(self.rng, kind)) for maker in case.makers]
        self.active = [moves(x) and not isinstance(maker, Constant) for x, maker in zip(self.args, case.makers, strict=True)]
        self.order = 1 if dtype in LOW else case.order
        outs = jax.eval_shape(lambda *args: as_list(case.fun(*args)), *self.args)
        self.moving_outs = [jnp.issubdtype(out.dtype, jnp.inexact) for out in outs]
        self.xs = [x for x, moves in zip(self.args, self.active, strict=True) if moves]
        self.outs = [out for out, moves in zip(outs, self.moving_outs, strict=True) if moves]
        self.constants = [x for x, moves in zip(self.args, self.active, strict=True) if not moves]
        self.ts = [[self.random(x) for x in self.xs] for _ in range(2)]
        self.cts = [[self.random(out) for out in self.outs] for _ in range(2)]

    def random(self, like: Any) -> Any:
        x = self.rng.standard_normal(like.shape)
        if jnp.issubdtype(like.dtype, jnp.complexfloating):
            x = x + 1j * self.rng.standard_normal(like.shape)
        return jnp.asarray(x).astype(like.dtype)

    @property
    def inputs(self) -> tuple[Any, ...]:
        return self.constants, self.xs, self.ts, self.cts

    def derivatives(self, by: Any, level: int, constants: Flat, xs: Flat, ts: list[Flat], cts: list[Flat]) -> dict[str, Flat]:
        """The derivatives of the case, by name, with the primal outputs.

        Level 1 is order 1, level 2 adds one nesting of order 2, level 3 the others.
        """

        def f(*xs: Any) -> Flat:
            moving, still = iter(xs), iter(constants)
            args = [next(moving) if active else next(still) for active in self.active]
            fun = self.case.oracle if by is Jax and self.case.oracle is not None else self.case.fun
            return [out for out, moves in zip(as_list(fun(*args)), self.moving_outs, strict=True) if moves]

        def push(*xs_ts: Any) -> Flat:
            return by.push(f, list(xs_ts[: len(xs)]), list(xs_ts[len(xs):]))

        def pull(*xs_cts: Any) -> Flat:
            return by.pull(f, list(xs_cts[: len(xs)]), list(xs_cts[len(xs):]))

        results = {"out": f(*xs), "push": push(*xs, *ts[0])}
        ct = cts[0] if self.case.reverse else []
        if by is Jax:
            results |= {"tape push": results["push"], "pull": pull(*xs, *ct) if ct else []}
        else:
            results["tape push"], results["pull"] = by.along_tape(f, xs, ts[0], ct)
        if not self.case.reverse:
            return results
        if level >= 2:
            results["forward over reverse"] = by.push(pull, [*xs, *cts[0]], [*ts[0], *cts[1]])
        if level >= 3:
            results["reverse over reverse"] = by.pull(pull, [*xs, *cts[0]], ts[0])
            results["reverse over forward"] = by.pull(push, [*xs, *ts[0]], cts[0])
            results["forward over forward"] = by.push(push, [*xs, *ts[0]], [*ts[1], *ts[0]])
        return results

    def compute(self, by: Any, level: int) -> Callable[..., dict[str, Flat]]:
        """As a function of :attr:`inputs`.  jax's own rules, and oracles, are formulas that promote."""
        derivatives = functools.partial(self.derivatives, by, level)
        return promoting()(derivatives) if by is Jax else derivatives


def staged(fun: Callable[..., Any], *args: Any) -> Any:
    """``fun(*args)``, traced first, then evaluated one operation at a time."""
    jaxpr, out = jax.make_jaxpr(fun, return_shape=True)(*args)
    results = jaxpr_as_fun(jaxpr)(*jax.tree_util.tree_leaves(args))
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(out), results)


def compare(got: dict[str, Flat], expected: dict[str, Flat], rtol: float, how: str) -> None:
    for what, values in expected.items():
        if what not in got:
            continue
        for i, (a, b) in enumerate(zip(got[what], values, strict=True)):
            assert a.shape == b.shape and a.dtype == b.dtype, f"{how}, {what}[{i}]: {a.shape} {a.dtype}, jax {b.shape} {b.dtype}"
            wide = np.complex128 if jnp.issubdtype(b.dtype, jnp.complexfloating) else np.float64
            left, right = np.asarray(a).astype(wide), np.asarray(b).astype(wide)
            finite = np.abs(right[np.isfinite(right)])
            # An entry may be the small difference of large terms: rounding is measured by the largest entry.
            atol = rtol * max(1.0, float(finite.max())) if finite.size else rtol
            np.testing.assert_allclose(left, right, rtol=rtol, atol=atol, err_msg=f"{how}, {what}[{i}]")


# ---------------------------------------------------------------------------------------------------------------- tests


def names(jaxpr: Any) -> set[str]:
    """The primitives of a jaxpr, and of those inside it."""
    found = set()
    for eqn in jaxpr.eqns:
        found.add(str(eqn.primitive))
        for value in jax.tree_util.tree_leaves(list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                found |= names(inner)
    return found


def identify(case: Case, dtype: str) -> str:
    return "-".join(part for part in (case.primitive, case.label.replace(" ", "_"), dtype) if part)


def leading(cases: Sequence[Case]) -> list[Case]:
    """The first case of each primitive."""
    seen: dict[str, Case] = {}
    for case in cases:
        seen.setdefault(case.primitive, case)
    return list(seen.values())


LEADING = {id(case) for case in leading(CASES)}


def is_thorough(case: Case, dtype: str) -> bool:
    """All but the leading line of each row in its first dtype."""
    return id(case) not in LEADING or dtype != case.dtypes[0]


PARAMETERS = [pytest.param(case, dtype, id=identify(case, dtype), marks=pytest.mark.thorough if is_thorough(case, dtype) else ())
              for case in CASES for dtype in case.dtypes]


@pytest.mark.parametrize(("case", "dtype"), PARAMETERS)
def test_rule(case: Case, dtype: str) -> None:
    """Engines agree with jax and with each other, traced, vmapped and un-jitted."""
    leads = id(case) in LEADING and dtype == case.dtypes[0]
    assert primitive(case.primitive) is not None, f"jax has no primitive {case.primitive!r}: if that is so, say so in tests/releases.py"
    samples = [Problem(case, dtype, sample) for sample in range(2 if case.vmap and leads else 1)]
    first = samples[0]
    rtol = case.rtol or RTOL[dtype]
    assert case.primitive in names(jax.make_jaxpr(case.fun)(*first.args).jaxpr), f"the function does not use {case.primitive}"

    level = 1 if first.order == 1 or dtype != case.dtypes[0] else 2
    expected = [staged(first.compute(Jax, level), *first.inputs)]
    expected += [staged(first.compute(Jax, 1), *sample.inputs) for sample in samples[1:]]
    got = staged(first.compute(Dualrev, level), *first.inputs)
    compare(got, expected[0], rtol, "staged")
    compare({"tape push": got["tape push"]}, {"tape push": got["push"]}, rtol, "the engines' pushes")
    if case.reverse:
        check_inner_product(first, got["push"], got["pull"], rtol)
    if len(samples) > 1:
        stack = functools.partial(jax.tree_util.tree_map, lambda *leaves: jnp.stack(leaves))
        batched = jax.vmap(first.compute(Dualrev, 1))
        compared = [{name: e[name] for name in expected[1]} for e in expected]
        compare(staged(batched, *stack(*[sample.inputs for sample in samples])), stack(*compared), rtol, "vmapped")
    if leads:
        compare(first.compute(Dualrev, 1)(*first.inputs), expected[0], rtol, "un-jitted")


@pytest.mark.thorough
@pytest.mark.parametrize("case", [pytest.param(case, id=identify(case, case.dtypes[0])) for case in leading(CASES)
                                  if case.order == 2 and case.reverse and case.dtypes[0] not in LOW])
def test_other_nestings(case: Case) -> None:
    """Reverse over reverse, reverse over forward, forward over forward."""
    problem = Problem(case, case.dtypes[0])
    by = [staged(problem.compute(side, 3), *problem.inputs) for side in (Dualrev, Jax)]
    compare(by[0], by[1], case.rtol or RTOL[case.dtypes[0]], "staged")


def check_inner_product(problem: Problem, pushed: Sequence[Any], pulled: Sequence[Any], rtol: float) -> None:
    """<J t, c> = <t, J' c>, by the real part where real and complex values mix."""

    def pair(left: Sequence[Any], right: Sequence[Any]) -> tuple[float, float]:
        products = [np.asarray(x).astype(complex) * np.asarray(y).astype(complex) for x, y in zip(left, right, strict=True)]
        return sum(p.sum().real for p in products), sum(np.abs(p).sum() for p in products)

    with np.errstate(invalid="ignore"):  # infinite derivatives at the edge of a domain
        left, size = pair(pushed, problem.cts[0])
        right, other = pair(problem.ts[0], pulled)
    if np.isfinite(left) and np.isfinite(right):
        assert abs(left - right) <= rtol * max(1.0, size, other), f"<J t, c> = {left} but <t, J' c> = {right}"


def test_every_row_has_a_case() -> None:
    load_optional()
    covered = {case.primitive for case in CASES}
    missing = {str(p) for p, row in rows.items() if not row.is_users_own} - covered - set(ELSEWHERE)
    assert not missing, f"rows without a line in tests/cases_<family>.py: {sorted(missing)}"
    for name, file in ELSEWHERE.items():
        assert (pathlib.Path(__file__).parent / file).exists(), f"{name} is said to be tested in {file}, which does not exist"


def test_every_case_has_a_row() -> None:
    load_optional()
    missing = {case.primitive for case in CASES if primitive(case.primitive) not in rows}
    assert not missing, f"lines of the test table whose primitive has no row: {sorted(missing)}"
