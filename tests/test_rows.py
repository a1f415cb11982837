"""What rows say of operations, against the operations themselves: kind, ``linear_in``, ``selects``, ``partials`` and ``second``.

A line of the test table is run until it comes to the primitive; with the operands that it has there, each fact is checked by numbers:

- linearity by random combinations of the operands, jointly or, of a product, in each factor;
- a derivative that is the same everywhere by pushes at two points, one that is zero by its absence;
- a diagonal Jacobian by a push of masked tangents, its entries by the partials;
- axes by tangents with factors along them;
- selection by operands that are constants, each of which can be told in the result;
- second derivatives against ``jax.jvp`` of ``jax.jvp``, or differences of pushes where a line says that jax cannot, or is wrong.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_close, promoting
from cases import CASES, Case
from jax import lax
from row_uses import Use, combined, filled, is_float, use_of

import dualrev as dr
from dualrev._jax.calls import cond_p
from dualrev._jax.new_primitives import entrywise_primitive
from dualrev.table.axes import kept, reduced
from dualrev.table.partials import ElementwiseRow
from dualrev.table.rows import AllBut, Row, rows

DOUBLE = ("float64", "complex128")

#: Operations whose tangents jax takes for Hermitian, and so they are here.
HERMITIAN = {"cholesky", "eigh"}


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
        both = [None if s is None else combined(a, s, b, t) for s, t in zip(x, y, strict=True)]
        left = use.run(filled(both, use.operands))
        first, second = use.run(filled(x, use.operands)), use.run(filled(y, use.operands))
        agree(left, [combined(a, s, b, t) for s, t in zip(first, second, strict=True)], f"{row.primitive} is not linear in {together}")


def check_kind(use: Use) -> None:
    row, moving = use.row, use.moving
    if not moving:
        return
    t = use.random(moving, 3)
    if row.kind == "zero":
        assert all(moved is None for moved in row.first(use.operands, t, use.params)), f"{row.primitive} has a tangent"
    elif row.kind == "linear":
        # An operand in which it is not linear may have no derivative and choose, as the operand of select_and_gather_add does.
        elsewhere = filled(use.random([i for i in moving if i in row.linear_in] or moving, 4), use.operands)
        agree(use.push(elsewhere, t), use.push(use.operands, t), f"the derivative of {row.primitive} is not the same everywhere")
    elif row.kind == "product":
        assert isinstance(row.linear_in, frozenset) and len(row.linear_in) == 2, f"{row.primitive} has other than two factors"
        elsewhere = filled(use.random([*row.linear_in], 5), use.operands)
        scaled = [combined(2, x, 0, x) if i in row.linear_in else x for i, x in enumerate(elsewhere)]
        fourfold = [combined(4, out, 0, out) for out in use.run(elsewhere)]
        agree(use.run(scaled), fourfold, f"{row.primitive} is not the product of two operands")
    elif row.kind == "diagonal":
        assert row.is_diagonal, f"{row.primitive} has no partials"


def check_partials(use: Use) -> None:
    """Entry ``j`` of the tangent of the result is ``Σᵢ partialsᵢ[j] tᵢ[j]``."""
    row, moving = use.row, use.moving
    if not row.is_diagonal or not moving:
        return
    (out,) = row.bind(use.operands, use.params)
    operands = [jnp.asarray(np.broadcast_to(np.asarray(x), out.shape)) for x in use.operands]
    wide = use._replace(operands=operands)
    t = wide.random(moving, 6)
    keep = np.random.default_rng(7).integers(0, 2, out.shape)
    factors = row.partials(use.operands, use.params, use.active)
    assert all(f is None or (f.shape == out.shape and f.dtype == out.dtype) for f in factors)
    expected = sum([np.asarray(f) * np.asarray(t[i]) for i, f in enumerate(factors) if f is not None], np.zeros(out.shape, out.dtype))
    agree(wide.push(operands, t), [expected], f"partials of {row.primitive}")
    masked = [None if x is None else jnp.asarray(np.asarray(x) * keep.astype(x.dtype)) for x in t]
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


def has_axis(x: Any, symbols: Any, name: int, n: int) -> bool:
    """Whether an operand has the axis of a symbol, in its full length or among others."""
    return any(s and name in s and (len(s) > 1 or length == n) for length, s in zip(x.shape, symbols, strict=True))


def check_axes(use: Use) -> None:
    """A factor along an axis of operands is one along that axis of the results; a sum over an axis is that of its slices."""
    row = use.row
    if row.kind not in ("linear", "product", "diagonal") or not use.moving or (axes := row.axes(use.operands, use.params)) is None:
        return
    rng = np.random.default_rng(9)
    linear = [i for i in use.moving if i in row.linear_in] or use.moving
    each = [[i] for i in linear] if row.kind == "product" else [linear]
    for moving in each:
        t = use.random(moving, 10)
        whole = use.push(use.operands, t)
        shapes = [(x.shape, symbols) for i, (x, symbols) in enumerate(zip(use.operands, axes.operands, strict=True)) if i in moving]
        lengths: dict[int, int] = {}
        for shape, symbols in shapes:
            for n, s in zip(shape, symbols, strict=True):
                if s and len(s) == 1:
                    lengths[s[0]] = max(n, lengths.get(s[0], n))  # an operand that is broadcast along it has length 1
        for name, n in {**lengths, **axes.lengths}.items():
            if name in axes.summed:
                slices = [use.push([piece(x, symbols, name, k) for x, symbols in zip(use.operands, axes.operands, strict=True)],
                                   [None if x is None else piece(x, symbols, name, k)
                                    for x, symbols in zip(t, axes.operands, strict=True)]) for k in range(n)]
                agree([sum(np.asarray(s[0]) for s in slices)], whole, f"{row.primitive} is not the sum over axis {name}")
                continue
            w = 2.0 ** (rng.permutation(n) % 8 - 4)  # which no rounding changes
            # An operand without the axis, or that is broadcast along it, is read at all places of it.
            along = [x if x is not None and has_axis(x, symbols, name, n) else None
                     for x, symbols in zip(t, axes.operands, strict=True)]
            scaled = [None if x is None else weighted(x, symbols, name, w, axes.lengths)
                      for x, symbols in zip(along, axes.operands, strict=True)]
            agree(use.push(use.operands, scaled), [weighted(x, symbols, name, w, axes.lengths)
                                                   for x, symbols in zip(use.push(use.operands, along), axes.results, strict=True)],
                  f"{row.primitive} does not keep axis {name}")


def piece(x: Any, symbols: Any, name: int, k: int) -> Any:
    """A slice of length one along the axis of a symbol, of an array that has it."""
    return lax.slice_in_dim(x, k, k + 1, axis=list(symbols).index((name,))) if (name,) in symbols else x


def weighted(x: Any, symbols: Any, name: int, w: Any, lengths: Any) -> Any:
    """``x`` times factors along the axis of a symbol, which may share that axis with other symbols."""
    found = np.asarray(x)
    for axis, s in enumerate(symbols):
        if s and name in s:
            own = np.ones([lengths.get(k, len(w)) for k in s]) * w.reshape([-1 if k == name else 1 for k in s])
            found = found * own.reshape([-1 if a == axis else 1 for a in range(found.ndim)])
    return jnp.asarray(found.astype(x.dtype))


def check_second(use: Use, by_jax: bool = True) -> None:
    """``D²f[t, t]``, by jax or by differences of pushes."""
    t = use.random(use.moving, 8)
    if str(use.row.primitive) in HERMITIAN:
        t = [None if s is None else combined(0.5, s, 0.5, np.conj(np.swapaxes(s, -1, -2))) for s in t]
    outs, found = use.row.bind(use.operands, use.params), use.row.second(use.operands, t, use.params)
    got = [np.zeros(out.shape, out.dtype) if s is None else s for out, s in zip(outs, found, strict=True) if is_float(out)]
    what = f"second derivative of {use.row.primitive}"
    if by_jax:
        agree(got, second_by_jax(use, t), what, 1e-7)
    else:
        agree(got, second_by_differences(use, t), what, 1e-5)


def second_by_jax(use: Use, tangents: Sequence[Any]) -> list[Any]:
    def at(*xs: Any) -> list[Any]:
        given = iter(xs)
        return use.run([next(given) if moves else x for x, moves in zip(use.operands, use.active, strict=True)])

    xs, ts = (tuple([values[i] for i in use.moving]) for values in (use.operands, tangents))
    with promoting():
        found: list[Any] = jax.jvp(lambda *xs: jax.jvp(at, xs, ts)[1], xs, ts)[1]
    return found


def second_by_differences(use: Use, tangents: Sequence[Any]) -> list[Any]:
    h = 1e-5
    ends = [use.push([x if t is None else combined(1, x, step, t) for x, t in zip(use.operands, tangents, strict=True)], tangents)
            for step in (h, -h)]
    return [combined(0.5 / h, a, -0.5 / h, b) for a, b in zip(*ends, strict=True) if is_float(a)]


# ---------------------------------------------------------------------------------------------------------------- tests


def leading(cases: Sequence[Case]) -> dict[str, Case]:
    """The first case of each primitive."""
    found: dict[str, Case] = {}
    for case in cases:
        found.setdefault(case.primitive, case)
    return found


FIRST = {id(case) for case in leading(CASES).values()}
LINES = [(case, dtype) for case in CASES for dtype in case.dtypes if dtype in DOUBLE]


def is_leading(case: Case, dtype: str) -> bool:
    return id(case) in FIRST and dtype == case.dtypes[0]


def identify(case: Case, dtype: str) -> str:
    return "-".join(part for part in (case.primitive, case.label.replace(" ", "_"), dtype) if part)


def parameters(in_short: Callable[[Case, str], bool]) -> list[Any]:
    return [pytest.param(case, dtype, id=identify(case, dtype), marks=() if in_short(case, dtype) else pytest.mark.thorough)
            for case, dtype in LINES]


@pytest.mark.parametrize(("case", "dtype"), parameters(is_leading))
def test_what_a_row_says_is_so(case: Case, dtype: str) -> None:
    use = use_of(case, dtype)
    for check in (check_linear, check_kind, check_partials, check_selects, check_axes):
        check(use)


#: One operation of each kind, and of each form; second derivatives of all others take their time.
SHORT = {"sin", "div", "mul", "dot_general", "select_n", "reduce_max", "max", "gather", "custom_linear_solve"}


@pytest.mark.parametrize(("case", "dtype"), parameters(lambda case, dtype: is_leading(case, dtype) and case.primitive in SHORT))
def test_second_derivatives(case: Case, dtype: str) -> None:
    if case.order < 2:
        return
    use = use_of(case, dtype)
    if not use.moving or use.row.kind == "zero":
        return
    try:
        check_second(use)
    except (AssertionError, NotImplementedError, TypeError, ValueError):
        if case.oracle is None:
            raise
        check_second(use, by_jax=False)


def test_selection_by_an_index_of_programs() -> None:
    assert rows[cond_p].selects == {0} and rows[cond_p].kind == "call"


def test_a_row_that_chooses_says_what_its_options_have_in_common() -> None:
    row = rows[lax.mul_p]
    assert row.kind == "product" and row.linear_in == {0, 1} and row.cost == "entrywise"
    solve = rows[lax.linalg.triangular_solve_p]
    a, b = jnp.eye(2), jnp.ones((2, 1))
    assert solve.kind == "program" and solve.linear_in == {1}
    assert solve.choose([a, b], [False, True], {}).kind == "linear"
    assert solve.choose([a, b], [True, True], {}).kind == "program"
    sign = rows[lax.sign_p]
    assert [sign.choose([jnp.ones((), dtype)], [True], {}).kind for dtype in ("float64", "complex128")] == ["zero", "program"]


def test_a_gather_that_fills_is_not_linear() -> None:
    """It adds the fill value, which scales with nothing; its derivative is the same everywhere."""
    x, places = jnp.arange(3.0), jnp.array([1, 7])
    eqn = jax.make_jaxpr(lambda x: x.at[places].get(mode="fill", fill_value=5.0))(x).eqns[-1]
    assert str(eqn.primitive) == "gather"
    operands, active = [x, places[:, None]], [True, False]
    use = Use(rows[lax.gather_p].choose(operands, active, eqn.params), operands, active, eqn.params)
    assert use.row.kind == "linear" and 0 not in use.row.linear_in
    check_kind(use)
    with pytest.raises(AssertionError, match="not linear"):
        check_linear(use._replace(row=lying(use.row, linear_in=frozenset((0,)))))


def test_what_a_partial_derivative_depends_on_is_no_promise_of_the_users() -> None:
    """A user's ``x y + x + y`` has the partials ``y + 1`` and ``x + 1``, which each read the other operand alone."""
    primitive = entrywise_primitive("affine_product", lambda x, y: x * y + x + y)
    dr.rule(primitive, partials=[lambda _, y: y + 1, lambda x, _: x + 1])
    row = rows.pop(primitive)
    assert row.kind == "diagonal" and not row.linear_in
    check_partials(Use(row, [jnp.arange(3.0), jnp.ones(3)], [True, True], {}))


def lying(row: Row, **facts: Any) -> Row:
    """A copy of a row that says something else."""
    copied = copy.copy(row)
    for name, value in facts.items():
        setattr(copied, name, value)
    return copied


def example(primitive: str) -> Use:
    case = leading(CASES)[primitive]
    return use_of(case, case.dtypes[0])


SIN = ElementwiseRow(lax.sin_p, lambda x, *, accuracy: lax.sin(x, accuracy=accuracy))


#: A check, an operation, what its row says instead, and the error.
LIES: list[tuple[Callable[[Use], None], str, dict[str, Any], str]] = [
    (check_linear, "sin", {"linear_in": frozenset((0,))}, "sin is not linear"),
    (check_linear, "mul", {"kind": "linear"}, "mul is not linear in"),
    (check_linear, "div", {"linear_in": frozenset((0, 1))}, "div is not linear in"),
    (check_linear, "reduce_precision", {"linear_in": frozenset((0,))}, "reduce_precision is not linear"),
    (check_linear, "select_n", {"linear_in": AllBut(), "kind": "product", "selects": frozenset()}, "select_n is not linear in"),
    (check_kind, "sin", {"kind": "zero"}, "sin has a tangent"),
    (check_kind, "sin", {"kind": "linear"}, "not the same everywhere"),
    (check_kind, "add", {"kind": "product"}, "not the product"),
    (check_kind, "concatenate", {"kind": "product"}, "other than two"),
    (check_kind, "cumsum", {"kind": "diagonal"}, "has no partials"),
    (check_partials, "sin", {"stated": SIN.stated}, "partials of sin"),
    (check_axes, "reduce_sum", {"axes": lambda x, _: reduced(x[0].ndim, range(x[0].ndim))}, "reduce_sum is not the sum"),
    (check_axes, "rev", {"axes": lambda x, _: kept(x[0].ndim)}, "rev does not keep axis"),
    (check_axes, "cumsum", {"axes": lambda x, _: kept(x[0].ndim)}, "cumsum does not keep"),
    (check_selects, "clamp", {"selects": frozenset((1,))}, "clamp"),
    (check_selects, "select_n", {"selects": frozenset((1,))}, "select_n"),
]


@pytest.mark.parametrize(("check", "primitive", "facts", "message"), LIES,
                         ids=[f"{check.__name__}-{primitive}-{'-'.join(facts)}" for check, primitive, facts, _ in LIES])
def test_a_row_that_says_what_is_not_so(check: Callable[[Use], None], primitive: str, facts: dict[str, Any], message: str) -> None:
    use = example(primitive)
    check(use)
    with pytest.raises(AssertionError, match=message):
        check(use._replace(row=lying(use.row, **facts)))


def test_a_jacobian_that_is_not_diagonal() -> None:
    """Factors that are right for one tangent are not right for a part of it."""
    x = jnp.arange(9.0)
    use = Use(rows[lax.rev_p], [x], [True], {"dimensions": (0,)})
    (t,) = use.random([0], 6)
    row = lying(use.row, is_diagonal=True, partials=lambda *_: [lax.rev(t, (0,)) / t])
    with pytest.raises(AssertionError, match="is not diagonal"):
        check_partials(use._replace(row=row))


def test_more_than_a_choice() -> None:
    use = Use(lying(rows[lax.add_p], selects=frozenset((0,))), [jnp.arange(3.0), jnp.ones(3)], [False, True], {})
    with pytest.raises(AssertionError, match="more than a choice"):
        check_selects(use)


@pytest.mark.parametrize("by_jax", [True, False])
def test_second_derivatives_that_are_wrong(by_jax: bool) -> None:
    use = example("sin")
    check_second(use, by_jax)
    twice = lying(use.row, second=lambda *args: [2 * s for s in use.row.second(*args) if s is not None])
    with pytest.raises(AssertionError, match="second derivative"):
        check_second(use._replace(row=twice), by_jax)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128", "bfloat16"])
def test_a_divisor_of_many_entries_divides_their_sum(dtype: str) -> None:
    """``x / c`` with a scalar ``c``: its cotangent is one quotient, in all but half precision, whose products could overflow."""
    x = jnp.asarray(np.linspace(-1, 2, 12).reshape(3, 4)).astype(dtype)
    c = jnp.asarray(1.7, dtype)

    def f(x: Any, c: Any) -> Any:
        return jnp.real(lax.reduce_sum(lax.tanh(lax.div(x, c)), (0, 1)))

    def derivatives(d: Any) -> Any:
        first = d.grad(f, (0, 1))(x, c)
        return [*first, d.grad(lambda c: f(x, c))(c), *d.grad(lambda x, c: jnp.real(d.grad(f, 1)(x, c)), (0, 1))(x, c)]

    for found, expected in zip(derivatives(dr), derivatives(jax), strict=True):
        assert_close(found, expected)
    found = jax.make_jaxpr(dr.grad(f, 1))(x, c).eqns
    quotients = [eqn for eqn in found if eqn.primitive is lax.div_p and eqn.outvars[0].aval.shape]
    assert len(quotients) == (2 if dtype == "bfloat16" else 1)
