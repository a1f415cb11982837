"""Rules that users attach with jax's decorators: what they may return, in every mode and inside every call, as jax takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax._src.ad_util import Zero
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero, linear_call
from jax.experimental.ode import odeint
from jax.extend.core import jaxpr_as_fun

import dualrev as dr
from dualrev.errors import CustomRuleError, InvalidValueError, NonLinearError, RuleError

FLOAT0 = jax.dtypes.float0
X = np.array([0.5, 1.5])


def close(got: Any, expected: Any, rtol: float = 1e-12) -> None:
    structures: list[Any] = [jax.tree.structure(got), jax.tree.structure(expected)]
    assert structures[0] == structures[1]
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert jnp.shape(a) == jnp.shape(b)
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=1e-13)


def with_vjp(fun: Callable[..., Any], bwd: Callable[..., Any], **options: Any) -> Any:
    f = jax.custom_vjp(fun)
    f.defvjp(lambda *args: (fun(*args), args), bwd, **options)
    return f


def looped(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, y: lax.scan(lambda c, _: (f(c, y), None), x, None, length=2)[0]


def chosen(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, y: lax.cond(x > 0, f, lambda x, y: x, x, y)


def while_short(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, y: lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, f(c[1], y)), (0, x))[1]


def batched(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, y: jnp.sum(jax.vmap(f, (None, 0))(x, jnp.stack([y, y]))) / 2


# ------------------------------------------------------------------------------------------------- None for a float that moves

#: In the rule of this product the second argument has no influence: a derivative by ``y`` is zero, one by ``x`` is ``y``.
half = with_vjp(lambda x, y: x * y, lambda r, g: (g * r[1], None))
remat_half = with_vjp(lambda x, y: x * y, lambda r, g: (g * r[1], None), optimize_remat=True)
by_gradient = jax.custom_gradient(lambda x, y: (x * y, lambda g: (g * y, None)))
WRAPPED = [lambda f: f, jax.jit, jax.checkpoint, chosen, batched, looped]


@pytest.mark.parametrize("f", [half, remat_half, by_gradient], ids=["custom_vjp", "optimize_remat", "custom_gradient"])
@pytest.mark.parametrize("wrap", WRAPPED, ids=["plain", "jit", "checkpoint", "cond", "vmap", "scan"])
def test_none_stands_for_zero_inside_every_call(f: Any, wrap: Callable[..., Any]) -> None:
    g = wrap(f)
    close(dr.grad(g, (0, 1))(2.0, 3.0), jax.grad(g, (0, 1))(2.0, 3.0))


@pytest.mark.parametrize("wrap", WRAPPED[:3], ids=["plain", "jit", "checkpoint"])
def test_none_stands_for_zero_in_every_mode(wrap: Callable[..., Any]) -> None:
    f = wrap(half)

    def squared(x: Any, y: Any) -> Any:
        return f(x, y) ** 2

    second = jax.jacrev(jax.grad(squared, (0, 1)), (0, 1))(2.0, 3.0)
    close(dr.jvp(f, (2.0, 3.0), (1.0, 10.0)), (6.0, 3.0))
    close(dr.linearize(f, 2.0, 3.0)[1](1.0, 10.0), 3.0)
    close(dr.jacfwd(f, (0, 1))(2.0, 3.0), (3.0, 0.0))
    close(dr.hessian(squared, (0, 1), engine="reverse" if wrap is jax.jit else None)(2.0, 3.0), second)
    close(dr.hvp(squared, (2.0, 3.0), (1.0, 10.0)), tuple(row[0] * 1.0 + row[1] * 10.0 for row in second))


def test_none_in_a_loop_of_unknown_length() -> None:
    close(dr.grad(while_short(half), (0, 1))(2.0, 3.0), (9.0, 0.0))


TREE = {"a": 2.0, "b": (3.0, 4.0)}
RETURNED = {
    "a subtree": lambda r, g: (None, g * r[0]["a"]),
    "a branch": lambda r, g: ({"a": g * r[1], "b": None}, None),
    "a leaf": lambda r, g: ({"a": g * r[1], "b": (None, g * r[0]["b"][0])}, g * r[0]["a"]),
    "everything": lambda r, g: (None, None),
    "in a list": lambda r, g: [None, g * r[0]["a"]],
}


@pytest.mark.parametrize("name", RETURNED)
def test_none_for_a_part(name: str) -> None:
    f = with_vjp(lambda p, y: p["a"] * y + p["b"][0] * p["b"][1], RETURNED[name])
    for g in (f, jax.jit(f)):
        close(dr.grad(g, (0, 1))(TREE, 5.0), jax.grad(g, (0, 1))(TREE, 5.0))
    close(dr.jacrev(dr.grad(lambda y: f(TREE, y) ** 2))(5.0), jax.jacrev(jax.grad(lambda y: f(TREE, y) ** 2))(5.0))


def symbolic() -> Any:
    def fwd(x: Any, y: Any) -> Any:
        assert type(x) is CustomVJPPrimal
        return x.value * y.value, (x.value if y.perturbed else None, y.value if x.perturbed else None)

    def bwd(residuals: Any, g: Any) -> Any:
        x, y = residuals
        return (SymbolicZero(g.aval) if type(g) is SymbolicZero else None) if y is None else g * y, None if x is None else g * x

    f = jax.custom_vjp(lambda x, y: x * y)
    f.defvjp(fwd, bwd, symbolic_zeros=True)
    return f


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint], ids=["plain", "jit", "checkpoint"])
def test_symbolic_zeros_both_ways(wrap: Callable[..., Any]) -> None:
    f = wrap(symbolic())
    for argnums in (0, 1, (0, 1)):
        close(dr.grad(f, argnums)(2.0, 3.0), jax.grad(f, argnums)(2.0, 3.0))
    close(jax.vmap(dr.grad(f, 1), (0, None))(X, 3.0), X)
    close(dr.grad(dr.grad(lambda x: f(x, x) * x))(2.0), 12.0)  # x³


def test_a_pull_takes_the_zeros_of_jax() -> None:
    def through(library: Any) -> Any:
        out, pull = library.vjp(lambda x, y: (x * y, jnp.sin(x)), 2.0, 3.0)
        zero = Zero(jax.typeof(out[0]).to_tangent_aval())  # what jax's transposition hands to a pull inside a backward function
        return pull((1.0, zero)), pull((zero, 1.0)), pull((zero, zero))

    close(through(dr), through(jax))


# ------------------------------------------------------------------------------------------------------------ number formats


def thrice(value: Any) -> Any:
    f = jax.custom_vjp(lambda x: x * jnp.asarray(3, x.dtype))
    f.defvjp(lambda x: (x * jnp.asarray(3, x.dtype), None), lambda _, g: (value,))
    return f


FORMATS = [(np.float32, 3), (np.float32, np.int32(3)), (np.float32, np.uint32(3)), (np.float32, np.float64(3)), (np.float32, 3.0),
           (jnp.bfloat16, np.float16(3)), (np.float16, jnp.bfloat16(3)), (np.float64, np.float32(3)), (np.float64, 3.0),
           (np.complex64, np.float32(3))]


@pytest.mark.parametrize(("dtype", "value"), FORMATS, ids=[f"{np.dtype(d)}-{type(v).__name__}" for d, v in FORMATS])
def test_a_number_in_another_format_is_that_number(dtype: Any, value: Any) -> None:
    f, x = thrice(value), jnp.asarray(X, dtype)
    tolerance = 4 * float(jnp.finfo(dtype).eps)
    options: Any = dict(holomorphic=True) if dtype is np.complex64 else {}
    gradient = dr.grad(lambda w: f(jnp.sin(w)), **options)
    jitted = jax.jit(dr.jacrev(lambda w: jax.jit(f)(jnp.sin(w)), **options))
    for got in (jax.vmap(gradient)(x), jax.vmap(jitted)(x), gradient(x[0])[None]):
        assert got.dtype == dtype
        np.testing.assert_allclose(np.asarray(got, np.complex128).real, 3 * np.cos(X)[: len(got)], rtol=tolerance)


WRONG = {
    "complex64": np.complex64(3),
    "bool": np.bool_(True),
    "float0": np.zeros((), FLOAT0),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.vmap], ids=["plain", "jit", "vmap"])
def test_what_is_no_such_number_names_the_rule(name: str, wrap: Callable[..., Any]) -> None:
    f = thrice(WRONG[name])
    x = jnp.asarray(X if wrap is jax.vmap else X[0], np.float32)
    with pytest.raises(CustomRuleError) as caught:
        dr.jacrev(lambda w: wrap(f)(jnp.sin(w)))(x)
    for words in ("backward function <lambda> at ", "test_user_rules.py:", "custom_vjp function", f"type {name}[",
                  "type float32[", "Return a tuple with one cotangent for each argument", "jacrev"):
        assert words in str(caught.value)


def bad_shape(x: Any) -> Any:
    return x * 2.0


def rule_of_bad_shape(_: Any, g: Any) -> Any:
    return (jnp.ones(3),)


def rule_of_bad_structure(_: Any, g: Any) -> Any:
    return g, g


def rule_that_returns_nothing(_: Any, g: Any) -> None:
    return None


@pytest.mark.parametrize(("rule", "error"), [(rule_of_bad_shape, ValueError), (rule_of_bad_structure, TypeError),
                                             (rule_that_returns_nothing, TypeError)])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_what_jax_refuses_names_the_rule(rule: Any, error: type[Exception], wrap: Callable[..., Any]) -> None:
    f = jax.custom_vjp(bad_shape)
    f.defvjp(lambda x: (x * 2.0, None), rule)
    with pytest.raises(error, match=rf"(?s)Custom VJP bwd rule.*{rule.__name__} at .*test_user_rules.py:\d+, .* bad_shape at .*None"):
        dr.grad(lambda x: wrap(f)(x))(1.0)


@pytest.mark.parametrize("tangent", [np.ones(2), 3j, np.zeros((), FLOAT0), (1.0,), None])
def test_a_wrong_tangent_names_the_rule(tangent: Any) -> None:
    f = jax.custom_jvp(bad_shape)
    f.defjvp(lambda primals, tangents: (f(*primals), tangent))
    for call in (lambda: dr.jvp(f, (1.0,), (1.0,)), lambda: dr.grad(jax.jit(f))(1.0)):
        with pytest.raises(TypeError, match=r"(?s)Custom JVP rule.*JVP rule .*test_user_rules.py:\d+.* bad_shape at .*Return the pair"):
            call()


def test_a_wrong_forward_function_is_named() -> None:
    f = jax.custom_vjp(bad_shape)
    f.defvjp(lambda x: x * 2.0, lambda _, g: (g,))
    with pytest.raises(TypeError, match=r"(?s)Custom VJP fwd rule.*forward function .*test_user_rules.py:\d+"):
        dr.grad(f)(1.0)


def test_programs_refuse_operands_of_other_types() -> None:
    """Whatever hands it on, a value of another type than that of a derivative program is not read as if it had that type."""
    _, pullback = dr.vjp(jax.jit(lambda x: jnp.sin(x) * 2), jnp.float32(1))
    pull = pullback.linear_map.pull
    for move, ct in ((pull, np.int32(1)), (jax.jit(pull), np.int32(1)), (jax.vmap(pull), np.ones(2, np.int32))):
        with pytest.raises(RuleError, match=r"pull_<lambda> takes a value of type float32\[\] and was given one of type int32\[\]"):
            move(jnp.asarray(ct))


def test_the_transpose_of_a_linear_call() -> None:
    def call(transposed: Any) -> Any:
        return lambda x: linear_call(lambda r, x: x * r, lambda r, ct: transposed(ct), np.float32(2), jnp.sin(x))

    x = np.float32(1)
    np.testing.assert_allclose(dr.grad(call(lambda ct: (2 * ct).astype(np.int32)))(x), 2 * np.cos(1.0), rtol=1e-6)
    with pytest.raises(RuleError, match=r"linear_call .*test_user_rules.py.*float32\[2\] for an argument of type float32\[\]"):
        dr.grad(call(lambda ct: jnp.stack([ct, ct])))(x)


# ----------------------------------------------------------------------------------------------------- tangents that are numbers

TANGENTS = {"zero": lambda t: 0.0, "an array": lambda t: np.zeros(()), "moving": lambda t: 3.0 * t}


@pytest.mark.parametrize("name", TANGENTS)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
@pytest.mark.thorough
def test_tangents_that_are_numbers(name: str, wrap: Callable[..., Any]) -> None:
    f = jax.custom_jvp(lambda x: 3.0 * x)
    f.defjvp(lambda primals, tangents: (3.0 * primals[0], TANGENTS[name](tangents[0])))
    g = wrap(f)

    def outer(x: Any) -> Any:
        return jnp.sin(g(x)) * x

    close(dr.jvp(g, (2.0,), (1.0,)), jax.jvp(g, (2.0,), (1.0,)))
    close(dr.grad(outer)(2.0), jax.grad(outer)(2.0))
    close(dr.hessian(outer)(2.0), jax.hessian(outer)(2.0))
    close(jax.vmap(dr.jacfwd(outer))(X), jax.vmap(jax.jacfwd(outer))(X))


def test_a_tangent_that_is_a_constant() -> None:
    f = jax.custom_jvp(lambda x: 3.0 * x)
    f.defjvp(lambda primals, tangents: (3.0 * primals[0], 3.0))
    close(dr.jvp(f, (2.0,), (1.0,)), (6.0, 3.0))
    with pytest.raises(NonLinearError, match=r"grad needs the transpose of the JVP rule .*test_user_rules.py:\d+.*a constant output"):
        dr.grad(f)(2.0)


def test_the_value_of_a_function_may_be_a_literal_of_a_program() -> None:
    program = jaxpr_as_fun(jax.make_jaxpr(lambda x: (3.0, np.float32(2)))(1.0))
    for k, value in enumerate((3.0, 2.0)):
        close(dr.value_and_grad(lambda x, k=k: program(x)[k])(1.0), (value, 0.0))


# ------------------------------------------------------------------------------------------------------------------ random keys


def scaled(key: Any, x: Any) -> Any:
    return x * jax.random.uniform(key, dtype=np.float64)


key_jvp = jax.custom_jvp(lambda key, x: (key, scaled(key, x)))
key_jvp.defjvp(lambda primals, tangents: (key_jvp(*primals), (tangents[0], scaled(primals[0], tangents[1]))))
key_vjp = jax.custom_vjp(lambda key, x: (key, scaled(key, x)))
key_vjp.defvjp(lambda key, x: ((key, scaled(key, x)), key), lambda key, g: (np.zeros(key.shape, FLOAT0), scaled(key, g[1])))


@pytest.mark.parametrize("f", [key_jvp, key_vjp], ids=["custom_jvp", "custom_vjp"])
@pytest.mark.thorough
def test_rules_of_functions_with_random_keys(f: Any) -> None:
    key, keys = jax.random.key(0), jax.random.split(jax.random.key(1), 2)
    u, us = scaled(key, 1.0), [float(scaled(k, 1.0)) for k in keys]

    def chain(x: Any) -> Any:
        return lax.scan(lambda c, k: (f(k, c)[1], f(k, c)[0]), x, keys)[0]

    for g in (f, jax.jit(f)):
        close(dr.grad(lambda x, g=g: g(key, x)[1] ** 2)(0.5), u**2)
        close(dr.hessian(lambda x, g=g: g(key, x)[1] ** 2)(0.5), 2 * u**2)
        close(dr.jvp(lambda x, g=g: g(key, x)[1], (0.5,), (1.0,))[1], u)
        close(dr.linearize(g, key, 0.5)[1](np.zeros((), FLOAT0), 1.0)[1], u)
        close(jax.vmap(dr.grad(lambda k, x, g=g: g(k, x)[1], 1))(keys, X), np.array(us))
    close(dr.grad(chain)(0.5), us[0] * us[1])
    close(dr.jacfwd(chain)(0.5), us[0] * us[1])


# ------------------------------------------------------------------------------------------------------ closures that are converted


def integral(f: Callable[..., Any], x: Any) -> Any:
    """``x f(x)``, with a rule that knows of what ``f`` closes over."""
    converted, consts = jax.closure_convert(f, x)
    return _integral(converted, x, *consts)


def _integral_plain(f: Any, x: Any, *consts: Any) -> Any:
    return f(x, *consts) * x


_integral = jax.custom_vjp(_integral_plain, nondiff_argnums=(0,))
_integral.defvjp(lambda f, x, *consts: (_integral_plain(f, x, *consts), (x, consts)),
                 lambda f, r, g: dr.vjp(lambda x, *c: _integral_plain(f, x, *c), r[0], *r[1])[1](g))


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_what_a_converted_function_closes_over(wrap: Callable[..., Any]) -> None:
    f = wrap(lambda a, b: integral(lambda x: jnp.sin(a * x) + b * x, 2.0))

    def plain(a: Any, b: Any) -> Any:
        return (jnp.sin(a * 2.0) + b * 2.0) * 2.0

    close(dr.grad(f, (0, 1))(0.5, 0.7), jax.grad(plain, (0, 1))(0.5, 0.7))
    close(jax.vmap(dr.grad(f), (0, None))(X, 0.7), jax.vmap(jax.grad(plain), (0, None))(X, 0.7))
    close(dr.grad(lambda a: jnp.sum(jax.vmap(f, (0, None))(a, 0.7)))(X), jax.vmap(jax.grad(plain), (0, None))(X, 0.7))
    close(dr.jvp(f, (0.5, 0.7), (1.0, 2.0)), jax.jvp(plain, (0.5, 0.7), (1.0, 2.0)))
    close(dr.hessian(f, (0, 1))(0.5, 0.7), jax.hessian(plain, (0, 1))(0.5, 0.7))
    close(jax.jit(dr.grad(dr.grad(f)))(0.5, 0.7), jax.grad(jax.grad(plain))(0.5, 0.7))


def decayed(rate: Any) -> Any:
    """``exp(-rate)``, by an integrator whose right-hand side closes over the rate."""
    return odeint(lambda y, t: -rate * y, jnp.ones(()), jnp.array([0.0, 1.0]), rtol=1e-9, atol=1e-9)[-1]


def test_an_integrator_whose_right_hand_side_closes_over_the_parameter() -> None:
    close(dr.grad(decayed)(0.7), -np.exp(-0.7), rtol=1e-7)
    close(dr.jacfwd(decayed, custom_vjp_jvp="differentiate_primal")(0.7), -np.exp(-0.7), rtol=1e-7)


def test_a_push_that_has_no_transpose_names_the_rule_and_the_way_out() -> None:
    with pytest.raises(NonLinearError) as caught:
        dr.jacfwd(decayed)(0.7)
    for words in ("jacfwd pushes tangents at ", "test_user_rules.py:", "(decayed) through the custom_vjp function _odeint at",
                  "_odeint_rev at", "custom_vjp_jvp='differentiate_primal'"):
        assert words in str(caught.value)


# ---------------------------------------------------------------------------------------------------------------- rules for vmap

#: The rule for vmap computes ten times the function, so that results tell whether it was used.
told = custom_vmap(lambda x, y: jnp.sin(x) * y)


@told.def_vmap
def _(axis_size: int, in_batched: Any, x: Any, y: Any) -> Any:
    assert any(in_batched)
    return 10.0 * jnp.sin(x) * y, True


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_a_vmap_rule_holds_for_the_push(wrap: Callable[..., Any]) -> None:
    f = wrap(told)

    def both(x: Any) -> Any:
        return dr.jvp(lambda x: f(x, 2.0), (x,), (x,))

    one, ten = (2 * np.sin(X), 2 * X * np.cos(X)), (20 * np.sin(X), 20 * X * np.cos(X))
    close(both(X[0]), (one[0][0], one[1][0]))
    close(jax.vmap(both)(X), ten)
    close(dr.jvp(lambda x: jax.vmap(f, (0, None))(x, 2.0), (X,), (X,)), ten)
    close(dr.jvp(jax.vmap(both), (X,), (np.ones(2),))[1], (20 * np.cos(X), 20 * (np.cos(X) - X * np.sin(X))))
    # Where tangents alone are batched the function is called once: it has no members for the rule to see.
    close(jax.vmap(lambda t: dr.jvp(lambda x: f(x, 2.0), (X[0],), (t,)))(X), (np.full(2, one[0][0]), 2 * X * np.cos(X[0])))
    close(dr.hessian(lambda x: f(x, 2.0))(0.5), -2 * np.sin(0.5))


def test_a_vmap_rule_of_another_structure_is_refused() -> None:
    f = custom_vmap(lambda x: x * 2.0)
    f.def_vmap(lambda size, batched, x: ((x, x), (True, True)))
    with pytest.raises(RuleError, match=r"the vmap rule of a custom_vmap function returns the pair \(out, out_batched\)"):
        jax.vmap(lambda x: dr.jvp(f, (x,), (x,)))(X)


# ----------------------------------------------------------------------------------------------------------------- names in errors


def test_an_error_that_is_kept_names_the_call_that_meets_it() -> None:
    bad = with_vjp(lambda x: x * 2.0, lambda r, g: (g * g,))
    jitted = jax.jit(lambda x: bad(x) + 1.0)
    for name, call in {"jvp": lambda: dr.jvp(jitted, (1.0,), (1.0,)), "jacfwd": lambda: dr.jacfwd(jitted)(1.0),
                       "hessian": lambda: dr.hessian(jitted, engine="forward")(1.0)}.items():
        with pytest.raises(NonLinearError) as caught:
            call()
        text = str(caught.value)
        assert text.startswith(f"{name} pushes tangents")
        assert f"{name} needs a linear function" in text
        assert all(f"{other} needs" not in text for other in ("jvp", "jacfwd", "hessian") if other != name)


def slope_at_zero(x: Any) -> Any:
    return jnp.sqrt(x) * 0.0


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint], ids=["plain", "jit", "checkpoint"])
def test_an_invalid_value_is_traced_to_the_line(wrap: Callable[..., Any]) -> None:
    f = wrap(slope_at_zero)
    calls = [lambda: dr.grad(f)(0.0), lambda: dr.jacrev(f)(0.0), lambda: jax.jit(dr.grad(f))(0.0),
             lambda: dr.linearize(f, 0.0)[1](1.0), lambda: dr.jvp(f, (0.0,), (1.0,))]
    with jax.debug_nans(True):
        for call in calls[: 5 if wrap is not jax.checkpoint else 3]:
            with pytest.raises(InvalidValueError, match=r"'(sqrt|mul)' at .*test_user_rules.py:\d+:\d+ \(slope_at_zero\)"):
                call()
    assert np.isnan(dr.grad(f)(0.0))
