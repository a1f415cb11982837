"""Primitives that another library defined, with the derivative that it registered with jax: each way to register one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax._src.interpreters.ad import fancy_transposes, primitive_linearizations  # they have no public name
from jax.extend.core import Primitive
from jax.extend.core.primitives import scan_p
from jax.interpreters import ad, batching, mlir

import dualrev as dr
from dualrev import errors
from dualrev._jax.libraries import foreign_rules, owner_of
from dualrev.calls.foreign import ForeignRow
from dualrev.table.rows import row_of, rows

X = jnp.array([0.5, -1.5, 2.0])
A = jnp.array([[2.0, 1.0, 0.0], [0.5, 3.0, 1.0], [0.0, -1.0, 4.0]])


def define(name: str, function: Callable[..., Any], many: bool = False) -> Primitive:
    """A primitive that computes a function, as libraries define one."""
    new = Primitive(name)
    new.multiple_results = many
    new.def_impl(function)

    def abstract(*avals: Any, **params: Any) -> Any:
        outs = jax.eval_shape(functools.partial(function, **params), *avals)
        return jax.tree.map(lambda out: jax.core.ShapedArray(out.shape, out.dtype), outs)

    new.def_abstract_eval(abstract)
    mlir.register_lowering(new, mlir.lower_fun(function, multiple_results=many))

    def batch(args: Any, dims: Any, **params: Any) -> Any:
        outs = jax.vmap(lambda *xs: function(*xs, **params), in_axes=tuple(dims))(*args)
        return outs, ([0] * len(outs) if many else 0)

    batching.primitive_batchers[new] = batch
    return new


# Entry by entry, by one JVP for each operand.
power_p = define("own_power", lambda x, y, *, scale: scale * x**3 * y)
ad.defjvp(power_p, lambda t, x, y, scale: t * 3 * scale * x**2 * y, lambda t, x, y, scale: power_p.bind(x, t, scale=scale))
ad.primitive_transposes[power_p] = lambda ct, x, y, *, scale: (None, power_p.bind(x, ct, scale=scale))

# By a whole JVP that reads zeros.
mix_p = define("own_mix", lambda x, y: jnp.sin(x) * y)


def _mix_jvp(primals: Any, tangents: Any) -> Any:
    (x, y), (t, u) = primals, tangents
    assert all(t.aval.shape == x.shape for t, x in zip(tangents, primals, strict=True))  # both kinds of tangents have an aval
    out = mix_p.bind(x, y)
    moved = ad.Zero(u.aval) if type(t) is ad.Zero else jnp.cos(x) * y * t
    return out, moved if type(u) is ad.Zero else ad.add_tangents(moved, jnp.sin(x) * u)


ad.primitive_jvps[mix_p] = _mix_jvp

# Linear, in each of the registered forms.
shift_p = define("own_shift", lambda x, *, by: jnp.roll(x, by))
ad.deflinear2(shift_p, lambda ct, x, *, by: (shift_p.bind(ct, by=-by),))
turn_p = define("own_turn", lambda x, *, factor: factor * x[::-1])
ad.deflinear(turn_p, lambda ct, *, factor: (turn_p.bind(ct, factor=factor),))
times_p = define("own_times", lambda x, y: x @ y)
ad.defbilinear(times_p, lambda ct, x, y: jnp.outer(ct, y), lambda ct, x, y: ct @ x)
sum_p = define("own_sum", lambda x: [x.sum(), 2 * x], many=True)
ad.primitive_jvps[sum_p] = lambda primals, tangents: (sum_p.bind(*primals), sum_p.bind(*map(ad.instantiate_zeros, tangents)))


def _sum_transpose(cts: Any, x: Any) -> None:
    for ct, factor in zip(cts, (1.0, 2.0), strict=True):
        if type(ct) is not ad.Zero:
            x.accum(jnp.broadcast_to(factor * ct, x.aval.shape))


fancy_transposes[sum_p] = _sum_transpose

# Several results, of which one is an integer; the JVP binds the primitive itself, which is transposed through itself.
solve_p = define("own_solve", lambda a, b, *, options: [jnp.linalg.solve(a, b), jnp.int32(a.shape[0])], many=True)


def _solve_jvp(primals: Any, tangents: Any, *, options: Any) -> Any:
    (a, b), (t, u) = primals, tangents
    x, n = solve_p.bind(a, b, options=options)
    right = [] if type(u) is ad.Zero else [u]
    right += [] if type(t) is ad.Zero else [-(t @ x)]
    moved, _ = solve_p.bind(a, functools.reduce(jnp.add, right), options=options)
    return [x, n], [moved, ad.Zero(jax.typeof(n).to_tangent_aval())]


def _solve_transpose(cts: Any, a: Any, b: Any, *, options: Any) -> Any:
    assert ad.is_undefined_primal(b)
    assert not ad.is_undefined_primal(a)
    assert type(cts[1]) is ad.Zero
    ct, _ = solve_p.bind(a.T, ad.instantiate_zeros(cts[0]), options=options)
    return [None, ct]


ad.primitive_jvps[solve_p] = _solve_jvp
ad.primitive_transposes[solve_p] = _solve_transpose

# By a linearization alone: since 0.11 it returns a tree of residuals beside the list.
bend_p = define("own_bend", lambda x: jnp.tanh(x))


def _bend_linearization(is_vjp: bool, nonzero: Any, x: Any) -> Any:
    out = bend_p.bind(x)
    if jax.__version__.startswith("0.10."):
        return out, True, [1 - out**2], lambda residuals, t: residuals[0] * t
    return out, True, [1 - out**2], None, lambda residuals, _, t: residuals[0] * t


primitive_linearizations[bend_p] = _bend_linearization

# A flat one.
flat_p = define("own_flat", lambda x: jnp.round(x))
ad.primitive_jvps[flat_p] = lambda primals, tangents: (flat_p.bind(*primals), ad.Zero(tangents[0].aval))


def solve(a: Any, b: Any, options: Any = ()) -> Any:
    x, n = solve_p.bind(a, b, options=options)
    return x * n.astype(x.dtype)


PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "defjvp": lambda x: power_p.bind(x, jnp.cos(x), scale=0.5),
    "jvp with zeros": lambda x: mix_p.bind(x, jnp.ones(3)) + mix_p.bind(jnp.ones(3), x**2) + mix_p.bind(x, x),
    "deflinear2": lambda x: shift_p.bind(x**2, by=1) * x,
    "deflinear": lambda x: turn_p.bind(jnp.sin(x), factor=3.0) * x,
    "defbilinear": lambda x: times_p.bind(A * x[None], jnp.sin(x)),
    "fancy transpose": lambda x: jnp.multiply(*sum_p.bind(jnp.sin(x))) + sum_p.bind(x)[1] ** 2,
    "through itself": lambda x: solve(A + jnp.outer(x, x), jnp.sin(x)),
    "through itself, one operand": lambda x: solve(A, x**2),
    "linearization": lambda x: bend_p.bind(x) * x,
    "flat": lambda x: flat_p.bind(x) * x,
}
#: jax's jvp has no use for a linearization.
JAX_PROGRAMS = {**PROGRAMS, "linearization": lambda x: jnp.tanh(x) * x}

AROUND: dict[str, Callable[[Any], Any]] = {
    "jit": jax.jit,
    "scan": lambda f: lambda x: lax.scan(lambda c, w: (f(c) * 0.1 * w, c), x, jnp.array([1.0, 2.0]))[0],
    "cond": lambda f: lambda x: lax.cond(x[0] > 0, f, jnp.sin, x),
    "checkpoint": lambda f: jax.checkpoint(lambda x: f(jnp.sin(x))),
    "while": lambda f: lambda x: lax.while_loop(lambda c: c[1] < 2, lambda c: (0.1 * f(c[0]), c[1] + 1), (x, 0))[0],
}


def total(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: jnp.sum(f(x) ** 2)


def agree(found: Any, expected: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), found, expected)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_way_to_register_in_every_mode(name: str) -> None:
    f, g = PROGRAMS[name], JAX_PROGRAMS[name]
    t = jnp.array([1.0, -2.0, 0.5])

    def derivatives(d: Any, f: Any) -> Any:
        def all_of(x: Any, t: Any) -> Any:
            h = total(f)
            pull = d.vjp(f, x)[1]
            return (d.jvp(f, (x,), (t,)), pull(t), d.linearize(f, x)[1](t), d.jacfwd(f)(x), d.jacrev(f)(x), d.hessian(h)(x),
                    d.jacrev(d.grad(h))(x), d.jvp(d.grad(h), (x,), (t,)), jax.vmap(d.grad(h))(jnp.stack([x, t])),
                    jax.vmap(pull)(jnp.stack([x, t])))

        return jax.jit(all_of)(X, t)

    agree(derivatives(dr, f), derivatives(jax, g))


def together(programs: dict[str, Callable[[Any], Any]]) -> Callable[[Any], Any]:
    return lambda x: 0.1 * sum(programs[name](x) for name in ("defjvp", "deflinear2", "through itself", "linearization"))


@pytest.mark.parametrize("around", AROUND)
def test_inside_programs(around: str) -> None:
    f, g = (total(AROUND[around](together(programs))) for programs in (PROGRAMS, JAX_PROGRAMS))
    # jax pulls through no while loop.
    expected = (jax.jacfwd(g), jax.jacfwd(jax.jacfwd(g))) if around == "while" else (jax.grad(g), jax.hessian(g))
    agree(*(jax.jit(lambda x, fs=fs: [f(x) for f in fs])(X) for fs in ((dr.grad(f), dr.hessian(f)), expected)))


def test_eagerly() -> None:
    f, g = total(together(PROGRAMS)), jax.jit(total(together(JAX_PROGRAMS)))
    agree((dr.grad(f)(X), dr.jvp(f, (X,), (X,))), (jax.grad(g)(X), jax.jvp(g, (X,), (X,))))


@pytest.mark.parametrize("engine", ["forward", "reverse"])
def test_options(engine: Any) -> None:
    f = total(lambda x: jnp.where(x > 0, mix_p.bind(jnp.sqrt(x), x), 0.0))
    at = jnp.array([0.0, 1.0, 4.0])
    expected = jax.grad(lambda x: jnp.sum((jnp.sin(jnp.sqrt(x)) * x) ** 2))(at[1:])
    found = dr.grad(f, engine=engine, zero_wins=True)(at)
    agree(found[1:], expected)
    assert found[0] == 0
    single = dr.grad(lambda x: jnp.sum(shift_p.bind(x, by=1) * x), cotangent_dtype=jnp.float64)(X.astype("float32"))
    assert single.dtype == jnp.float64


def test_a_linear_map_crosses_vmap() -> None:
    pulls = jax.vmap(lambda x: dr.vjp(lambda x: solve(A + jnp.outer(x, x), x), x)[1])(jnp.stack([X, 2 * X]))
    found = jax.vmap(lambda pull, ct: pull(ct))(pulls, jnp.stack([X, X]))[0]
    agree(found, jnp.stack([jax.vjp(lambda x: solve(A + jnp.outer(x, x), x), c * X)[1](X)[0] for c in (1, 2)]))


def test_a_parameter_that_cannot_be_hashed() -> None:
    def f(x: Any) -> Any:
        return jnp.sum(solve(A * x[None], x**2, options={"tolerance": 1e-6}) ** 2)

    agree((dr.grad(f)(X), dr.jvp(f, (X,), (X,))), (jax.grad(f)(X), jax.jvp(f, (X,), (X,))))


# -------------------------------------------------------------- primitives whose vmap is another primitive, as Equinox makes them


write_p = Primitive("own_write")  # of two operands, the second written into the first at an index
write_p.multiple_results = True
batched_p = Primitive("own_batched")
batched_p.multiple_results = True


def _write(xs: Any, x: Any, i: Any) -> Any:
    return [xs.at[i].set(x)]


def _write_jvp(primals: Any, tangents: Any) -> Any:
    (xs, x, i), (t, u, _) = primals, tangents
    filled = [ad.instantiate_zeros(t), ad.instantiate_zeros(u)]
    return write_p.bind(xs, x, i), write_p.bind(*filled, i)


def _write_transpose(cts: Any, xs: Any, x: Any, i: Any) -> Any:
    (ct,) = cts
    if type(ct) is ad.Zero or ct is None:
        return [None, None, None]
    return [ct.at[i].set(0.0) if ad.is_undefined_primal(xs) else None, ct[i] if ad.is_undefined_primal(x) else None, None]


def _batched(*args: Any, axes: Any) -> Any:
    return jax.vmap(_write, in_axes=axes)(*args)


def _batched_jvp(primals: Any, tangents: Any, *, axes: Any) -> Any:
    size = next(x.shape[0] for x, a in zip(primals, axes, strict=True) if a is not None)
    moving = [ad.Zero(jax.core.ShapedArray(x.shape[1:], x.dtype).to_tangent_aval()) if type(t) is ad.Zero and a is not None else t
              for x, t, a in zip(primals, tangents, axes, strict=True)]
    axes_t = tuple([None if type(t) is ad.Zero else a for t, a in zip(tangents, axes, strict=True)])
    return jax.vmap(_write_jvp, in_axes=(axes, axes_t), axis_size=size)(primals, tuple(moving))


def _batched_transpose(cts: Any, *operands: Any, axes: Any) -> Any:
    given = [ad.UndefinedPrimal(jax.core.ShapedArray(x.aval.shape[1:], x.aval.dtype))
             if ad.is_undefined_primal(x) and a is not None else x for x, a in zip(operands, axes, strict=True)]
    axes_in = tuple([None if ad.is_undefined_primal(x) else a for x, a in zip(operands, axes, strict=True)])
    return jax.vmap(lambda *xs: tuple(_write_transpose(*xs)), in_axes=(0, *axes_in), out_axes=axes)(tuple(cts), *given)


for _primitive, _function in ((write_p, _write), (batched_p, _batched)):
    _primitive.def_impl(_function)
    mlir.register_lowering(_primitive, mlir.lower_fun(_function, multiple_results=True))
write_p.def_abstract_eval(lambda xs, x, i: [xs])
batched_p.def_abstract_eval(lambda xs, x, i, *, axes: [xs])
ad.primitive_jvps.update({write_p: _write_jvp, batched_p: _batched_jvp})
ad.primitive_transposes.update({write_p: _write_transpose, batched_p: _batched_transpose})


def _write_batch(args: Any, dims: Any) -> Any:
    size = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
    front = [jnp.broadcast_to(args[0], (size, *args[0].shape)) if dims[0] is None else jnp.moveaxis(args[0], dims[0], 0)]
    front += [x if d is None else jnp.moveaxis(x, d, 0) for x, d in zip(args[1:], dims[1:], strict=True)]
    outs = batched_p.bind(*front, axes=(0, *[None if d is None else 0 for d in dims[1:]]))
    return outs, [0] * len(outs)


def _batched_batch(args: Any, dims: Any, *, axes: Any) -> Any:
    outs = jax.vmap(functools.partial(_batched, axes=axes), in_axes=tuple(dims))(*args)
    return outs, [0] * len(outs)


batching.primitive_batchers[write_p] = _write_batch
batching.primitive_batchers[batched_p] = _batched_batch


def test_a_primitive_whose_vmap_is_another() -> None:
    def f(x: Any, i: Any) -> Any:
        (out,) = write_p.bind(jnp.sin(x), x[0] * x[2], i)
        return jnp.sum(out**2)

    def batch(d: Any) -> Any:
        return jax.jit(lambda xs, i: (
            jax.vmap(d.grad(f))(xs, i), jax.vmap(d.hessian(f))(xs, i), d.grad(lambda xs: jax.vmap(f)(xs, i).sum())(xs),
            d.jvp(lambda xs: jax.vmap(f)(xs, i), (xs,), (xs,))))(jnp.stack([X, 2 * X]), jnp.array([1, 2]))

    agree(batch(dr), batch(jax))


# ----------------------------------------------------------------------------------------------------- what is not allowed


half_p = define("own_half", lambda x: 0.5 * x)  # linear, but nobody said how it is transposed
ad.primitive_jvps[half_p] = lambda primals, tangents: (half_p.bind(*primals), half_p.bind(*map(ad.instantiate_zeros, tangents)))
only_transposed_p = define("own_only_transposed", lambda x: 2 * x)
ad.primitive_transposes[only_transposed_p] = lambda ct, x: (2 * ct,)
bare_p = define("own_bare", lambda x: 2 * x)
outer_p = define("own_outer", lambda x: x**2)
ad.primitive_jvps[outer_p] = lambda primals, tangents: (outer_p.bind(*primals), bare_p.bind(primals[0] * tangents[0]))


def test_a_jvp_without_a_transpose() -> None:
    agree(dr.jvp(half_p.bind, (X,), (X,)), (0.5 * X, 0.5 * X))
    agree(dr.linearize(half_p.bind, X)[1](X), 0.5 * X)
    with pytest.raises(errors.MissingRuleError, match=r"Transpose rule .* for 'own_half' not implemented: grad met 'own_half' of \S*"
                       r"test_foreign.*applied to a tangent.*primitive_transposes\[own_half_p\].*forward mode"):
        dr.grad(lambda x: half_p.bind(x).sum())(X)
    with pytest.raises(NotImplementedError, match="own_half"):
        jax.grad(lambda x: half_p.bind(x).sum())(X)


def test_a_transpose_without_a_jvp() -> None:
    for call in (dr.grad, dr.jacfwd):
        with pytest.raises(errors.MissingRuleError, match=r"only a transpose is registered.*deflinear2"):
            call(lambda x: only_transposed_p.bind(x).sum())(X)
    agree(dr.linear_transpose(only_transposed_p.bind, X)(X)[0], 2 * X)


def test_no_rule_at_all() -> None:
    with pytest.raises(errors.MissingRuleError, match=r"'own_bare' of \S*test_foreign; no derivative is registered.*"):
        dr.grad(lambda x: bare_p.bind(x).sum())(X)
    agree(dr.jvp(outer_p.bind, (X,), (X,)), jax.jvp(outer_p.bind, (X,), (X,)))
    # A linear map that cannot be applied to a tangent says so: it is never zero in silence.
    for use in (lambda: dr.linearize(outer_p.bind, X)[1](X), lambda: dr.grad(lambda x: outer_p.bind(x).sum())(X)):
        with pytest.raises(errors.MissingRuleError, match="own_bare"):
            use()


def test_the_distribution_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "distributions", lambda: {str(owner_of(bare_p)).split(".")[0]: ["numpy"]})
    with pytest.raises(errors.MissingRuleError, match=rf"'own_bare' of \S+ \(numpy {np.__version__}\)"):
        dr.grad(lambda x: bare_p.bind(x).sum())(X)


wrong_p = define("own_wrong", lambda x: x)
WRONG: dict[str, tuple[Any, Any, str]] = {
    "shape": (lambda p, t: (p[0], jnp.ones(2)), None, r"registered JVP of 'own_wrong'.*tangent of output 0 of type float64\[2\]; "
              r"expected float64\[3\]"),
    "dtype": (lambda p, t: (p[0], t[0].astype("float32")), None, r"tangent of output 0 of type float32\[3\]; expected float64\[3\]"),
    "transposed dtype": (lambda p, t: (p[0], wrong_p.bind(*t)), lambda ct, x: (ct.astype("float32"),),
                         r"registered transpose of 'own_wrong'.*cotangent of operand 0 of type float32\[3\]; expected float64\[3\]"),
    "transposed count": (lambda p, t: (p[0], wrong_p.bind(*t)), lambda ct, x: (ct, ct), "returns 2 cotangents; expected 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_rule_returns_is_checked(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    jvp, transpose, message = WRONG[case]
    monkeypatch.setitem(ad.primitive_jvps, wrong_p, jvp)
    monkeypatch.setitem(ad.primitive_transposes, wrong_p, transpose)
    with pytest.raises(errors.RuleError, match=message):
        dr.grad(lambda x: wrong_p.bind(x).sum())(X)


@pytest.fixture
def table_as_it_was() -> Iterator[None]:
    before = dict(rows)
    yield
    rows.clear()
    rows.update(before)


@pytest.mark.usefixtures("table_as_it_was")
def test_a_row_of_the_user_comes_first() -> None:
    stated_p = define("own_stated", lambda x: x**2)
    ad.defjvp(stated_p, lambda t, x: 2 * x * t)
    agree(dr.grad(stated_p.bind)(3.0), 6.0)
    dr.rule(stated_p, partials=[lambda x: 7.0 * x])
    agree(dr.grad(stated_p.bind)(3.0), 21.0)
    agree(dr.jvp(stated_p.bind, (3.0,), (1.0,))[1], 21.0)


def test_a_rule_may_be_registered_later() -> None:
    late_p = define("own_late", lambda x: x**2)
    with pytest.raises(errors.MissingRuleError, match="own_late"):
        dr.grad(late_p.bind)(3.0)
    ad.defjvp(late_p, lambda t, x: 2 * x * t)
    agree(dr.grad(late_p.bind)(3.0), 6.0)
    ad.defjvp(late_p, lambda t, x: 5 * x * t)
    agree(dr.grad(late_p.bind)(3.0), 15.0)


def test_the_rules_of_jax_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor what a library registers for a primitive of jax's."""
    for primitive in (lax.sin_p, lax.dot_general_p, scan_p):
        assert str(owner_of(primitive)).startswith("jax")
        monkeypatch.setitem(ad.primitive_jvps, primitive, lambda *_, **__: pytest.fail("a rule of jax's was called"))
        assert foreign_rules(primitive) is None
    from jax._src.interpreters.ad import custom_lin_p

    monkeypatch.setitem(ad.primitive_jvps, custom_lin_p, lambda *_, **__: pytest.fail("a rule of jax's was called"))
    with pytest.raises(errors.MissingRuleError, match=r"left out on purpose.*The primitive is jax's own"):
        row_of(custom_lin_p, "forward")
    assert not any(isinstance(row, ForeignRow) for row in rows.values())


def test_wrapped_functions_tell_whose_a_primitive_is() -> None:
    held = [define("own_held", lambda x: x)]
    assert owner_of(held[0]) == __name__
    assert owner_of(solve_p) == __name__
    assert owner_of(Primitive("nobody's")) is None

