"""Rules of users' own: functions and primitives, each of the statements, and what happens when one is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

import dualrev as dr
from dualrev._jax import libraries
from dualrev._jax.libraries import owner_of
from dualrev.errors import RuleError
from dualrev.table.rows import rows
from dualrev.testing import DerivativeError, check_grads, check_rule


@pytest.fixture(autouse=True)
def table_as_it_was() -> Iterator[None]:
    """Rows for the primitives of these tests go when the test does."""
    before = dict(rows)
    yield
    rows.clear()
    rows.update(before)


X = jnp.array([0.5, 1.5, -2.0])
Y = jnp.array([2.0, -1.0, 3.0])


def plain(x: Any, y: Any) -> Any:
    return x**2 * y


@dr.rule(partials=[lambda x, y, *, out: 2 * out / x, lambda x, _: x**2])
def by_partials(x: Any, y: Any) -> Any:
    return plain(x, y)


def product_rule(ts: Any, x: Any, y: Any) -> Any:
    t, t_y = ts
    return (0 if t is None else 2 * x * y * t) + (0 if t_y is None else x**2 * t_y)


by_pushforward = dr.rule(plain, pushforward=product_rule)
by_adjoint = dr.rule(plain, adjoint=lambda ct, x, y: (2 * x * y * ct, x**2 * ct))


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
@pytest.mark.parametrize("f", [by_partials, by_pushforward, by_adjoint])
@pytest.mark.parametrize("library", [dr, jax], ids=["dualrev", "jax"])
def test_each_statement_gives_both_modes(f: Any, library: Any, wrap: Callable[..., Any]) -> None:
    def derivatives(g: Any, d: Any) -> Any:
        def total(x: Any, y: Any) -> Any:
            return jnp.sum(g(x, y) ** 2)

        return (d.grad(total, (0, 1))(X, Y), d.hessian(total)(X, Y), d.jvp(lambda x: g(x, Y), (X,), (Y,)), jax.vmap(d.grad(g))(X, Y),
                d.jacrev(lambda y: g(X, y))(Y))

    got = wrap(lambda: derivatives(f, library))()
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(derivatives(plain, jax)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_trees_keywords_and_arguments_that_are_not_arrays() -> None:
    @dr.rule(pushforward=lambda t, tree, kind, *, scale: {"out": scale * t["a"]}, nondiff_argnums=1)
    def f(tree: dict[str, Any], kind: str, *, scale: float) -> dict[str, Any]:
        assert kind == "linear"
        return {"out": scale * tree["a"]}

    value, gradient = dr.value_and_grad(lambda tree: f(tree, "linear", scale=3.0)["out"])({"a": 2.0, "unused": 1.0})
    assert (float(value), float(gradient["a"]), float(gradient["unused"])) == (6.0, 3.0, 0.0)


def test_a_partial_of_an_argument_that_does_not_move_is_not_evaluated() -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("this partial was evaluated")

    f = dr.rule(plain, partials=[lambda x, y: 2 * x * y, never])
    assert float(dr.grad(f)(3.0, 2.0)) == float(dr.jvp(lambda x: f(x, 2.0), (3.0,), (1.0,))[1]) == 12.0


def primitive(name: str) -> Any:
    p = Primitive(name)
    p.def_impl(lambda x: x * 3)
    p.def_abstract_eval(lambda x: x)
    mlir.register_lowering(p, mlir.lower_fun(lambda x: x * 3, multiple_results=False))
    batching.defvectorized(p)
    return p


@pytest.mark.parametrize("statement", [{"partials": [3.0]}, {"pushforward": lambda t, _: 3 * t}, {"adjoint": lambda ct, _: 3 * ct}],
                         ids=["partials", "pushforward", "adjoint"])
def test_a_primitive_gets_a_row(statement: Any) -> None:
    triple = dr.rule(primitive("triple"), **statement)
    check_rule(triple, 2.0)
    gradient = jax.jit(jax.vmap(dr.grad(dr.grad(lambda x: triple.bind(x) ** 2))))
    np.testing.assert_array_equal(gradient(X), np.full(3, 18.0))


@pytest.mark.parametrize("engine", ["forward", "reverse"])
@pytest.mark.parametrize(("name", "statement"), [
    ("partials", {"partials": [lambda x: jnp.zeros(2)]}),
    ("pushforward", {"pushforward": lambda t, x: jnp.zeros(2)}),
    ("adjoint", {"adjoint": lambda ct, x: jnp.zeros(2)}),
])
def test_a_rule_of_the_wrong_shape_is_named(name: str, statement: Any, engine: Any) -> None:
    f = dr.rule(lambda x: 3 * x, **statement)
    f.__name__ = "thrice"
    wrong = dr.rule(primitive("wrong_" + name), **statement)
    with pytest.raises(RuleError, match=f"the rule for .*{name}"):
        dr.jvp(f, (2.0,), (1.0,), engine=engine)
    if name == "adjoint" and engine == "forward":
        return  # the push of a linear primitive is the primitive: its adjoint is not used
    with pytest.raises(RuleError, match=f"the rule for wrong_{name}"):
        dr.vjp(wrong.bind, 2.0)[1](1.0) if engine == "reverse" else dr.jvp(wrong.bind, (2.0,), (1.0,))


def test_exactly_one_statement() -> None:
    with pytest.raises(TypeError, match="exactly one of partials=, pushforward=, adjoint=, bilinear=, definition=; got none"):
        dr.rule(plain)
    with pytest.raises(TypeError, match="got partials, adjoint"):
        dr.rule(plain, partials=[1, 1], adjoint=lambda ct, x, y: (ct, ct))
    with pytest.raises(RuleError, match="1 partials for 2 arguments"):
        dr.grad(dr.rule(plain, partials=[1]))(1.0, 2.0)


@pytest.mark.parametrize(("modes", "words"), [(["fwd"], r"forward mode \(push\), order 1, input args\[0\]\[2\]"),
                                              (["rev"], r"reverse mode \(pull\), order 1, input args\[0\]\[2\]")])
def test_check_rule_says_what_is_wrong(modes: list[str], words: str) -> None:
    f = dr.rule(lambda x: x**2, partials=[lambda x: 2 * x + (x < -1).astype(x.dtype)])
    with pytest.raises(DerivativeError, match=words):
        check_rule(f, X, modes=modes)


def test_check_grads_finds_a_wrong_second_derivative() -> None:
    @dr.rule(partials=[lambda x, *, out: jax.lax.stop_gradient(2 * x)])
    def square(x: Any) -> Any:
        return x**2

    check_grads(square, (0.7,), order=1)
    with pytest.raises(DerivativeError, match="order 2"):
        check_grads(square, (0.7,), order=2)


@pytest.mark.promotes
def test_check_grads_of_trees_complex_numbers_and_integers() -> None:
    def f(tree: dict[str, Any], n: Any) -> dict[str, Any]:
        return {"a": jnp.sin(tree["z"]) * jnp.abs(tree["z"]) ** 2, "n": n + 1}

    check_grads(f, ({"z": jnp.array([1 + 2j, 0.3 - 1j])}, 3))
    with pytest.raises(ValueError, match="needs an input of floating or complex dtype"):
        check_grads(lambda n: n, (3,))
    with pytest.raises(ValueError, match="modes must be"):
        check_grads(jnp.sin, (1.0,), modes=("forward",))


# ------------------------------------------------------------------------------------- products, definitions, and what jax sees


def circular(x: Any, y: Any) -> Any:
    """``out[k] = Σ x[i] y[k - i]``, indices modulo the length."""
    n = x.shape[0]
    return jnp.sum(x[:, None] * y[(np.arange(n) - np.arange(n)[:, None]) % n], 0)


def reversed_(x: Any) -> Any:
    return jnp.roll(x[::-1], 1)


CIRCULAR = [lambda ct, x, y: circular(ct, reversed_(y)), lambda ct, x, y: circular(ct, reversed_(x))]


def own_primitive(name: str, function: Callable[..., Any], result: Callable[..., Any]) -> Any:
    """A primitive of this file: compiled from a function, of vectors, with batches in a loop."""
    p = Primitive(name)
    p.def_impl(jax.jit(function))
    p.def_abstract_eval(result)
    mlir.register_lowering(p, mlir.lower_fun(function, multiple_results=False))

    def batched(args: Any, dims: Any) -> Any:
        in_axes = tuple(dims)
        return jax.lax.map(lambda each: p.bind(*[e if d is not None else x for e, x, d in zip(each, args, in_axes, strict=True)]),
                           tuple(jnp.moveaxis(x, d, 0) if d is not None else jnp.zeros(len(args[in_axes.index(0)]))
                                 for x, d in zip(args, in_axes, strict=True))), 0

    batching.primitive_batchers[p] = batched
    return p


def norm(x: Any) -> Any:
    return jnp.sqrt(jnp.sum(x * x))


def opaque_norm(x: Any) -> Any:
    """A function that nothing can look into."""
    return jax.pure_callback(lambda x: np.sqrt(np.sum(np.asarray(x) ** 2)), jax.ShapeDtypeStruct((), x.dtype), x,
                             vmap_method="sequential")


FUNCTIONS = {
    "bilinear": (dr.rule(circular, bilinear=CIRCULAR), circular),
    "definition": (dr.rule(lambda x, y: opaque_norm(x) * y, definition=lambda x, y: norm(x) * y), lambda x, y: norm(x) * y),
}


#: What jax makes of the plain functions, by form.
EXPECTED: dict[str, list[Any]] = {}


def with_primitive(form: str) -> tuple[Any, Any]:
    if form == "bilinear":
        p = dr.rule(own_primitive("circular", circular, lambda x, y: x), bilinear=CIRCULAR)
        return p.bind, circular
    p = dr.rule(own_primitive("norm", norm, lambda x: x.update(shape=())), definition=norm)
    return lambda x, y: p.bind(x) * y, lambda x, y: norm(x) * y


@pytest.mark.parametrize("engine", ["forward", "reverse", "jax"])
@pytest.mark.parametrize("target", [pytest.param("function", marks=pytest.mark.thorough), "primitive"])
@pytest.mark.parametrize("form", ["bilinear", "definition"])
def test_products_and_definitions(form: str, target: str, engine: Any) -> None:
    """Order 1 and 2, plain, compiled and batched, by each engine and by jax, against jax on the plain function."""
    f, plain = FUNCTIONS[form] if target == "function" else with_primitive(form)

    def derivatives(g: Any, d: Any, **engine: Any) -> Any:
        def total(x: Any, y: Any) -> Any:
            return jnp.sum(g(x, y) ** 3)

        def along(x: Any, y: Any) -> Any:
            return d.jvp(g, (x, y), (Y, X), **engine)[1]

        batch = jnp.stack([X, Y, X + Y])
        return (d.grad(total, (0, 1), **engine)(X, Y), along(X, Y), d.jacobian(along, (0, 1), **engine)(X, Y),
                d.hessian(total, (0, 1), **engine)(X, Y), d.jvp(d.grad(total, **engine), (X, Y), (Y, X), **engine),
                jax.vmap(d.grad(total, (0, 1), **engine))(batch, batch[::-1]),
                jax.vmap(d.grad(total, 1, **engine), (0, None))(batch, Y))

    library, options = (jax, {}) if engine == "jax" else (dr, {"engine": engine})
    if form not in EXPECTED:
        EXPECTED[form] = jax.tree.leaves(derivatives(plain, jax))
    expected = EXPECTED[form]
    for wrap in (lambda run: run, jax.jit):
        got = jax.tree.leaves(wrap(lambda: derivatives(f, library, **options))())
        assert len(got) == len(expected)
        for a, b in zip(got, expected, strict=True):
            assert a.dtype == b.dtype == np.float64
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("statement", [{"partials": [3.0]}, {"pushforward": lambda t, _: 3 * t}, {"adjoint": lambda ct, _: 3 * ct},
                                       {"definition": lambda x: 3 * x}], ids=lambda s: next(iter(s)))
def test_jax_sees_the_rule_of_a_primitive(statement: Any) -> None:
    triple = dr.rule(primitive("triple"), **statement)

    def f(x: Any) -> Any:
        return jnp.sum(triple.bind(x) ** 2)

    for d in (dr, jax):
        np.testing.assert_array_equal(jax.jit(jax.vmap(d.grad(d.grad(f))))(X), np.full(3, 18.0))
        np.testing.assert_array_equal(d.grad(f)(X), 18 * X)
        assert float(d.jvp(f, (X,), (Y,))[1]) == float(18 * X @ Y)
        np.testing.assert_array_equal(d.jvp(d.grad(f), (X,), (Y,))[1], 18 * Y)
    np.testing.assert_array_equal(jax.linearize(triple.bind, X)[1](Y), 3 * Y)
    np.testing.assert_array_equal(jax.grad(dr.grad(f))(2.0), dr.grad(jax.grad(f))(2.0))
    if "adjoint" in statement:
        np.testing.assert_array_equal(jax.linear_transpose(triple.bind, X)(Y)[0], 3 * Y)


def test_a_rule_that_is_stated_again_holds_for_jax_too() -> None:
    p = dr.rule(primitive("wrong_first"), partials=[2.0])
    assert float(jax.grad(p.bind)(1.0)) == float(dr.grad(p.bind)(1.0)) == 2.0
    dr.rule(p, definition=lambda x: 3 * x)
    assert float(jax.grad(p.bind)(1.0)) == float(dr.grad(p.bind)(1.0)) == 3.0


def test_several_results_of_which_one_has_no_derivative() -> None:
    p = Primitive("divided")
    p.multiple_results = True
    p.def_impl(lambda x, *, by: [x / by, jnp.floor(x).astype(int)])
    p.def_abstract_eval(lambda x, *, by: [x, x.update(dtype=np.dtype(int))])
    mlir.register_lowering(p, mlir.lower_fun(lambda x, *, by: [x / by, jnp.floor(x).astype(int)], multiple_results=True))
    dr.rule(p, pushforward=lambda t, x, *, by: [t / by, None])

    def f(x: Any) -> Any:
        quotient, whole = p.bind(x, by=4.0)
        return jnp.sum(quotient ** 2) + jnp.sum(whole).astype(x.dtype)

    for d in (dr, jax):
        np.testing.assert_allclose(d.grad(f)(X), X / 8, rtol=1e-14)
        np.testing.assert_allclose(jax.jit(d.grad(f))(X), X / 8, rtol=1e-14)


def test_a_new_row_is_in_force_at_once() -> None:
    """Programs that were derived from the row before are forgotten."""
    f = jax.jit(lambda x: jax.lax.sin(x) * 3)
    assert float(dr.grad(f)(0.0)) == 3.0 and float(dr.jvp(f, (0.0,), (1.0,))[1]) == 3.0
    dr.rule(jax.lax.sin_p, partials=[lambda x: 2 * jnp.cos(x)])
    assert float(dr.grad(f)(0.0)) == 6.0 and float(dr.jvp(f, (0.0,), (1.0,))[1]) == 6.0


def test_nothing_is_registered_for_primitives_of_jax_or_of_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    from jax._src.interpreters.ad import primitive_jvps

    before = dict(primitive_jvps)
    dr.rule(jax.lax.sin_p, partials=[lambda x: 2 * jnp.cos(x)])
    assert float(dr.grad(jax.lax.sin)(0.0)) == 2.0 and float(jax.grad(jax.lax.sin)(0.0)) == 1.0
    registered = primitive("registered")
    primitive_jvps[registered] = before[registered] = lambda primals, tangents: (registered.bind(*primals), 5 * tangents[0])
    dr.rule(registered, partials=[3.0])
    assert float(dr.grad(registered.bind)(1.0)) == 3.0 and float(jax.grad(registered.bind)(1.0)) == 5.0
    foreign = primitive("of_another_library")
    monkeypatch.setattr(libraries, "owner_of", lambda p: "numpy.linalg" if p is foreign else owner_of(p))
    dr.rule(foreign, partials=[3.0])
    assert float(dr.grad(foreign.bind)(1.0)) == 3.0
    assert primitive_jvps == before
    with pytest.raises(NotImplementedError, match="of_another_library"):
        jax.grad(foreign.bind)(1.0)


@pytest.mark.parametrize(("statement", "words"), [
    ({"partials": lambda x, y: y}, "partials must be a list with a function or a number for each argument; got <function"),
    ({"partials": ["x", 1.0]}, r"partials\[0\] must be a function or a number, or None for an argument without influence; got 'x'"),
    ({"pushforward": [lambda t, x: t]}, r"pushforward must be a function; got \[<function"),
    ({"adjoint": 2.0}, "adjoint must be a function; got 2.0"),
    ({"definition": "x * y"}, r"definition must be a function; got 'x \* y'"),
    ({"bilinear": lambda ct, x, y: ct}, "bilinear must be a list with a function for each argument; got <function"),
    ({"bilinear": [lambda ct, x, y: ct]}, "an adjoint for each of the two arguments .*; got 1 adjoint. State a product of more"),
    ({"bilinear": CIRCULAR + CIRCULAR[:1]}, "got 3 adjoints"),
    ({"bilinear": [lambda ct, x, y: ct, 2.0]}, r"bilinear\[1\] must be a function, or None .*; got 2.0"),
])
@pytest.mark.parametrize("target", [plain, jax.lax.mul_p], ids=["function", "primitive"])
def test_what_is_no_statement(statement: Any, words: str, target: Any) -> None:
    with pytest.raises(TypeError, match=f"rule: .*{words}"):
        dr.rule(target, **statement)


def test_a_primitive_has_no_static_arguments() -> None:
    with pytest.raises(TypeError, match="nondiff_argnums is for functions; got 1 for the primitive 'mul'"):
        dr.rule(jax.lax.mul_p, bilinear=CIRCULAR, nondiff_argnums=1)


@pytest.mark.parametrize(("statement", "words"), [
    ({"bilinear": [*CIRCULAR, None]}, "3 adjoints"),
    ({"partials": [1.0, 1.0, None]}, "3 partials"),
    ({"adjoint": [CIRCULAR[0], CIRCULAR[1], CIRCULAR[0]]}, "3 adjoints"),
    ({"bilinear": [lambda ct, x, y: ct[:1], CIRCULAR[1]]}, r"cotangent of operand 0 of type float64\[1\]; expected float64\[3\]"),
    ({"definition": lambda x, y: x[:1]}, r"returns for output 0 a value of type float64\[1\]; the primitive's is float64\[3\]"),
    ({"definition": lambda x, y: circular(x, y).astype(np.float32)}, r"a value of type float32\[3\]; the primitive's is float64\[3\]"),
])
def test_a_wrong_rule_of_a_primitive_says_what_it_is(statement: Any, words: str) -> None:
    p = dr.rule(own_primitive("wrong_product", circular, lambda x, y: x), **statement)
    with pytest.raises(RuleError, match=words) as caught:
        dr.grad(lambda x: jnp.sum(p.bind(x, Y)))(X)
    said = "".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
    assert "wrong_product" in said and "test_custom.py:" in said
    with pytest.raises(RuleError, match=words):
        jax.grad(lambda x: jnp.sum(p.bind(x, Y)))(X)


@pytest.mark.parametrize(("statement", "words"), [
    ({"bilinear": [*CIRCULAR, None]}, "3 adjoints for 2 arguments; state one for each"),
    ({"bilinear": [lambda ct, x, y: ct[:1], CIRCULAR[1]]}, r"\(bilinear\): the cotangent of argument leaf 0 has shape \(1,\)"),
    ({"definition": lambda x, y: x[:1]}, r"\(definition\): the program returns for output 0 .* float64\[1\], .*float64\[3\]"),
    ({"definition": lambda x, y: (x, y)}, r"\(definition\): the program returns the structure PyTreeDef\(\(\*, \*\)\), but"),
])
@pytest.mark.parametrize("library", [dr, jax], ids=["dualrev", "jax"])
def test_a_wrong_rule_of_a_function_says_what_it_is(statement: Any, words: str, library: Any) -> None:
    f = dr.rule(circular, **statement)
    with pytest.raises(RuleError, match=f"the rule for circular.*{words}"):
        library.grad(lambda x: jnp.sum(f(x, Y)))(X)


def test_a_product_with_an_index_and_a_definition_with_trees() -> None:
    @dr.rule(bilinear=[lambda ct, w, i, x: jnp.zeros(w.shape).at[i].set(ct * x), None, lambda ct, w, i, x: ct * w[i]])
    def picked(w: Any, i: Any, x: Any) -> Any:
        return w[i] * x

    for d in (dr, jax):
        np.testing.assert_array_equal(d.grad(lambda w: picked(w, 1, 5.0))(X), [0.0, 5.0, 0.0])
        assert float(d.grad(picked, 2)(X, 1, 5.0)) == 1.5

    @dr.rule(definition=lambda tree, kind, *, scale: {"out": norm(tree["x"]) * scale}, nondiff_argnums=1)
    def measured(tree: Any, kind: str, *, scale: float) -> Any:
        assert kind == "norm"
        return {"out": opaque_norm(tree["x"]) * scale}

    for d in (dr, jax):
        gradient = d.grad(lambda tree: measured(tree, "norm", scale=2.0)["out"])({"x": X, "unused": Y})
        np.testing.assert_allclose(gradient["x"], 2 * X / norm(X), rtol=1e-14)
        np.testing.assert_array_equal(gradient["unused"], np.zeros(3))
