"""What rows say of operations, against the operations themselves: kind, ``linear_in``, ``selects``, ``partials`` and ``second``.

A line of the test table is run until it comes to the primitive; with the operands that it has there, each fact is checked by numbers:

- linearity by random combinations of the operands, jointly or, of a product, in each factor;
- a derivative that is the same everywhere by pushes at two points, one that is zero by its absence;
- a diagonal Jacobian by a push of masked tangents, its entries by the partials;
- selection by operands that are constants, each of which can be told in the result;
- second derivatives against ``jax.jvp`` of ``jax.jvp``, or differences of pushes where jax has no derivative.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import promoting
from cases import CASES, Case, Constant

import dualrev.calls.families  # noqa: F401  (fills the table)
from dualrev._jax.jaxprs import is_literal
from dualrev.table.rows import Expansion, Row, row_of

DOUBLE = ("float64", "complex128")

#: Operations that a line of the table reaches only where they cannot be run alone: under the names of axes, or inside of a kernel.
UNREACHED: set[str] = set()

#: Operations of which jax has no second derivative, or chooses vectors in another way: against differences of pushes.
BY_DIFFERENCES: set[str] = set()


class Use(NamedTuple):
    """One use of a row: the operands at which an operation is evaluated, and which of them depend on what is differentiated."""

    row: Row
    operands: list[Any]
    active: list[bool]
    params: dict[str, Any]

    def run(self, operands: Sequence[Any]) -> list[Any]:
        """The floating-point results."""
        return [out for out in self.row.bind(operands, self.params) if is_float(out)]

    def push(self, operands: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
        """The tangents of all results; zeros where there is none."""
        pushed = self.row.jvp(operands, tangents, self.params)
        assert not isinstance(pushed, Expansion)
        outs, moved = pushed
        return [jnp.zeros(out.shape, out.dtype) if t is None else t for out, t in zip(outs, moved, strict=True)]

    def random(self, which: Sequence[int], seed: int) -> list[Any]:
        """Random numbers in place of some operands, None for the others."""
        rng = np.random.default_rng([zlib.crc32(str(self.row.primitive).encode()), seed])
        return [normal(rng, x) if i in which else None for i, x in enumerate(self.operands)]

    @property
    def moving(self) -> list[int]:
        return [i for i, moves in enumerate(self.active) if moves]


def is_float(x: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(x), jnp.inexact))


def normal(rng: np.random.Generator, like: Any) -> Any:
    x = rng.standard_normal(like.shape)
    if jnp.issubdtype(like.dtype, jnp.complexfloating):
        x = x + 1j * rng.standard_normal(like.shape)
    return jnp.asarray(x).astype(like.dtype)


def filled(values: Sequence[Any], operands: Sequence[Any]) -> list[Any]:
    return [x if value is None else value for value, x in zip(values, operands, strict=True)]


class _Reached(Exception):  # noqa: N818  (a signal)
    """The primitive that was looked for, its operands, which of them are active, its parameters."""


CALLS = {"jit", "closed_call", "eval_jaxpr", "remat2", "custom_jvp_call", "custom_vjp_call", "custom_lin"}


def follow(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], active: Sequence[bool], name: str) -> tuple[list[Any], list[bool]]:
    """Run a jaxpr, operation by operation, until it comes to a primitive."""
    env: dict[Any, tuple[Any, bool]] = {v: (x, False) for v, x in zip(jaxpr.constvars, consts, strict=True)}
    env.update(zip(jaxpr.invars, zip(args, active, strict=True), strict=True))

    def read(atom: Any) -> tuple[Any, bool]:
        return (jnp.asarray(atom.val, atom.aval.dtype), False) if is_literal(atom) else env[atom]

    for eqn in jaxpr.eqns:
        pairs = [read(atom) for atom in eqn.invars]
        operands, flags = [x for x, _ in pairs], [flag and is_float(x) for x, flag in pairs]
        if str(eqn.primitive) == name:
            raise _Reached(eqn.primitive, operands, flags, dict(eqn.params))
        inner = next((eqn.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in eqn.params), None)
        if inner is not None and str(eqn.primitive) in CALLS:
            outs, out_flags = follow(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands, flags, name)
        else:
            given = eqn.primitive.get_bind_params(eqn.params)
            functions, params = given if isinstance(given, tuple) else ((), given)  # until 0.11 what is bound may be functions
            found = eqn.primitive.bind(*functions, *operands, **params)
            outs = list(found) if eqn.primitive.multiple_results else [found]
            out_flags = [any(flags)] * len(outs)
        env.update(zip(eqn.outvars, zip(outs, out_flags, strict=True), strict=True))
    pairs = [read(atom) for atom in jaxpr.outvars]
    return [x for x, _ in pairs], [flag for _, flag in pairs]


def use_of(case: Case, dtype: str) -> Use | None:
    """The first use of a case's primitive that can be run alone."""
    rng = np.random.default_rng(zlib.crc32(f"{case.primitive} {case.label} {dtype}".encode()))
    args = [jnp.asarray(maker(rng, jnp.dtype(dtype))) for maker in case.makers]
    active = [is_float(x) and not isinstance(maker, Constant) for x, maker in zip(args, case.makers, strict=True)]
    closed = jax.make_jaxpr(case.fun)(*args)
    try:
        follow(closed.jaxpr, closed.consts, args, active, case.primitive)
    except _Reached as found:
        primitive, operands, flags, params = found.args
        row = row_of(primitive, "read")
        return Use(row.choose(operands, flags, params), operands, flags, params)
    return None


# -------------------------------------------------------------------------------------------------------------- the checks


def agree(left: Sequence[Any], right: Sequence[Any], what: str, rtol: float = 1e-9) -> None:
    assert len(left) == len(right), what
    for a, b in zip(left, right, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        low = any(np.dtype(x.dtype).itemsize // (2 if np.iscomplexobj(x) else 1) < 8 for x in (a, b))
        wide = np.complex128 if np.iscomplexobj(b) else np.float64
        a, b = a.astype(wide), b.astype(wide)
        finite = np.abs(b[np.isfinite(b)])
        scale = max(1.0, float(finite.max())) if finite.size else 1.0
        np.testing.assert_allclose(a, b, rtol=0.0, atol=(1e-2 if low else rtol) * scale, err_msg=what)


def check_linear(use: Use) -> None:
    """The operation is linear in ``linear_in``: jointly, or in each factor of a product."""
    row = use.row
    linear = [i for i, x in enumerate(use.operands) if i in row.linear_in and is_float(x)]
    a, b = 0.7, -1.3
    for together in [[i] for i in linear] if row.kind == "product" else [linear] * bool(linear):
        x, y = use.random(together, 1), use.random(together, 2)
        both = [None if s is None else (a * s + b * t).astype(s.dtype) for s, t in zip(x, y, strict=True)]
        left = use.run(filled(both, use.operands))
        first, second = use.run(filled(x, use.operands)), use.run(filled(y, use.operands))
        agree(left, [a * s + b * t for s, t in zip(first, second, strict=True)], f"{row.primitive} is not linear in {together}")


def check_kind(use: Use) -> None:
    row, moving = use.row, use.moving
    if not moving:
        return
    t = use.random(moving, 3)
    if row.kind == "zero":
        pushed = row.jvp(use.operands, t, use.params)
        assert not isinstance(pushed, Expansion) and all(moved is None for moved in pushed[1]), f"{row.primitive} has a tangent"
    elif row.kind == "linear":
        # An operand in which it is not linear may have no derivative and choose, as the operand of select_and_gather_add does.
        elsewhere = filled(use.random([i for i in moving if i in row.linear_in] or moving, 4), use.operands)
        agree(use.push(elsewhere, t), use.push(use.operands, t), f"the derivative of {row.primitive} is not the same everywhere")
    elif row.kind == "product":
        assert isinstance(row.linear_in, frozenset) and len(row.linear_in) == 2, f"{row.primitive} has other than two factors"
        elsewhere = filled(use.random([*row.linear_in], 5), use.operands)
        scaled = [2 * x if i in row.linear_in else x for i, x in enumerate(elsewhere)]
        agree(use.run(scaled), [4 * out for out in use.run(elsewhere)], f"{row.primitive} is not the product of two operands")
    elif row.kind == "diagonal":
        assert row.is_diagonal


def check_partials(use: Use) -> None:
    """Entry ``j`` of the tangent of the result is ``Σᵢ partialsᵢ[j] tᵢ[j]``."""
    row, moving = use.row, use.moving
    if not row.is_diagonal or not moving:
        return
    (out,) = row.bind(use.operands, use.params)
    operands = [jnp.broadcast_to(x, out.shape) for x in use.operands]
    wide = use._replace(operands=operands)
    t = wide.random(moving, 6)
    keep = jnp.asarray(np.random.default_rng(7).integers(0, 2, out.shape))
    factors = row.partials(use.operands, use.params, use.active)
    assert all(f is None or (f.shape == out.shape and f.dtype == out.dtype) for f in factors)
    expected = sum([f * t[i] for i, f in enumerate(factors) if f is not None], jnp.zeros(out.shape, out.dtype))
    agree(wide.push(operands, t), [expected], f"partials of {row.primitive}")
    masked = [None if x is None else x * keep.astype(x.dtype) for x in t]
    agree(wide.push(operands, masked), [expected * keep.astype(out.dtype)], f"the Jacobian of {row.primitive} is not diagonal")


def check_selects(use: Use) -> None:
    """Each entry of the result is that of one of the other operands, at the same place."""
    row = use.row
    if not row.selects or row.kind == "call":
        return
    assert not any(use.active[i] for i in row.selects), f"{row.primitive} has a derivative by what selects"
    given = [x if i in row.selects else jnp.full_like(x, i) for i, x in enumerate(use.operands)]
    (out,) = row.bind(given, use.params)
    others = [i for i in range(len(given)) if i not in row.selects]
    assert np.isin(np.asarray(out), others).all(), f"{row.primitive} computes more than a choice"
    assert all(given[i].shape == out.shape for i in others)


def check_second(use: Use) -> None:
    """``D²f[t, t]``."""
    moving = use.moving
    t = use.random(moving, 8)
    outs = row_outs = use.row.bind(use.operands, use.params)
    found = use.row.second(use.operands, t, use.params)
    assert len(found) == len(row_outs)
    got = [jnp.zeros(out.shape, out.dtype) if s is None else s for out, s in zip(outs, found, strict=True) if is_float(out)]

    def at(*xs: Any) -> list[Any]:
        given = iter(xs)
        return use.run([next(given) if moves else x for x, moves in zip(use.operands, use.active, strict=True)])

    xs, ts = tuple([use.operands[i] for i in moving]), tuple([t[i] for i in moving])
    if str(use.row.primitive) not in BY_DIFFERENCES:
        push: Callable[..., Any] = lambda *xs: jax.jvp(at, xs, ts)[1]  # noqa: E731
        with promoting():
            expected = jax.jvp(push, xs, ts)[1]
        agree(got, expected, f"second derivative of {use.row.primitive}", 1e-7)
        return
    h = 1e-5
    ends = [use.push([x if s is None else x + (step * s).astype(x.dtype) for x, s in zip(use.operands, t, strict=True)], t)
            for step in (h, -h)]
    slopes = [(a - b) / (2 * h) for a, b, out in zip(*ends, outs, strict=True) if is_float(out)]
    agree(got, slopes, f"second derivative of {use.row.primitive}", 1e-5)


CHECKS = (check_linear, check_kind, check_partials, check_selects)

# ---------------------------------------------------------------------------------------------------------------- tests


def leading(cases: Sequence[Case]) -> dict[str, Case]:
    """The first case of each primitive."""
    found: dict[str, Case] = {}
    for case in cases:
        found.setdefault(case.primitive, case)
    return found


FIRST = {id(case) for case in leading(CASES).values()}
PARAMETERS = [pytest.param(case, dtype, id="-".join(part for part in (case.primitive, case.label.replace(" ", "_"), dtype) if part),
                           marks=() if id(case) in FIRST and dtype == case.dtypes[0] else pytest.mark.thorough)
              for case in CASES for dtype in case.dtypes if dtype in DOUBLE]


@pytest.mark.parametrize(("case", "dtype"), PARAMETERS)
def test_what_a_row_says_is_so(case: Case, dtype: str) -> None:
    use = use_of(case, dtype)
    assert (use is None) == (case.primitive in UNREACHED), f"{case.primitive}: reached {use is not None}"
    if use is None:
        return
    for check in CHECKS:
        check(use)
    if case.order == 2 and use.moving and use.row.kind != "zero":
        check_second(use)
