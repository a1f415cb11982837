"""Mixed modes: regions that are pushed through under reverse mode, and pulled back through under forward mode."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import promoting
from jax import lax

import dualrev as dr

W = jnp.ones(5)
MANY = jnp.arange(15.0).reshape(3, 5) / 4


def assert_close(got: Any, expected: Any) -> None:
    trees: list[Any] = [jax.tree.structure(got), jax.tree.structure(expected)]
    assert trees[0] == trees[1]
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def newton(a: Any) -> Any:
    return lax.while_loop(lambda s: jnp.abs(s**2 - a) > 1e-13 * a, lambda s: (s + a / s) / 2, a)


def through(root: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda w: root(jnp.sum(w**2) + 1)


def block(w: Any) -> Any:
    a = jnp.sum(w**2) + 1
    with dr.region("forward"):
        return newton(a)


def python_loop(w: Any) -> Any:
    a = s = jnp.sum(w**2) + 1
    with dr.region("forward"):
        while abs(s**2 - a) > 1e-13 * a:
            s = (s + a / s) / 2
    return s


decorated = through(dr.region("forward")(newton))
exact = through(jnp.sqrt)


def reverse_twice(f: Any) -> Any:
    return dr.jacrev(dr.jacrev(f))


DERIVATIVES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "grad": (dr.grad, jax.grad),
    "by the forward engine": (lambda f: dr.grad(f, engine="forward"), jax.grad),
    "hessian": (dr.hessian, jax.hessian),
    "reverse over reverse": (reverse_twice, jax.hessian),
    "reverse over forward": (lambda f: dr.jacrev(dr.jacfwd(f)), jax.hessian),
    "forward over forward": (lambda f: dr.jacfwd(dr.jacfwd(f)), jax.hessian),
    "jax over ours": (lambda f: jax.jacfwd(dr.grad(f)), jax.hessian),
}


@pytest.mark.thorough
@pytest.mark.parametrize("wrap", ["plain", "jit inside", "jit outside"])
@pytest.mark.parametrize("derivative", DERIVATIVES)
@pytest.mark.parametrize("f", [decorated, block, python_loop], ids=["decorated", "block", "python_loop"])
def test_newton_under_reverse_mode(f: Any, derivative: str, wrap: str) -> None:
    if f is python_loop and wrap != "plain":
        pytest.skip("Python looks at values")
    ours, oracle = DERIVATIVES[derivative]
    if wrap == "jit inside":
        f = jax.jit(f)
    got = (jax.jit(ours(f)) if wrap == "jit outside" else ours(f))(W)
    assert_close(got, oracle(exact)(W))


def test_the_example_and_that_its_inside_is_not_taped() -> None:
    np.testing.assert_allclose(dr.grad(decorated)(W), np.full(5, 1 / np.sqrt(6)), rtol=1e-12)
    taped, region = (dr.linearize(f, W)[1].residual_bytes for f in (through(newton), decorated))
    assert region <= 2 * W.nbytes < taped


def test_third_order() -> None:
    def third(f: Any, d: Any) -> Any:
        return d.grad(d.grad(d.grad(f)))(0.7)

    assert_close(third(lambda x: dr.region("forward")(newton)(x * x + 1), dr), third(lambda x: jnp.sqrt(x * x + 1), jax))


def test_jax_differentiates_a_region_too() -> None:
    assert_close(jax.grad(decorated)(W), jax.grad(exact)(W))
    assert_close(jax.hessian(decorated)(W), jax.hessian(exact)(W))
    assert_close(dr.jacrev(jax.grad(decorated))(W), jax.hessian(exact)(W))


@pytest.mark.parametrize("f", [decorated, block], ids=["decorated", "block"])
def test_vmap_of_a_gradient(f: Any) -> None:
    assert_close(jax.vmap(dr.grad(f))(MANY), jax.vmap(jax.grad(exact))(MANY))


def closing(root: Any, mark: Any) -> Callable[..., Any]:
    """Each example has a region; what it closes over is shared by all."""

    def loss(c: Any, many: Any) -> Any:
        inner = mark(lambda w: root(jnp.sum(w**2) + c))
        return jnp.sum(jax.vmap(inner, in_axes=1)(many.T) * jnp.arange(3.0))

    return loss


def test_closures_and_vmap_inside() -> None:
    ours, oracle = closing(newton, dr.region("forward")), closing(jnp.sqrt, lambda f: f)
    assert_close(dr.grad(ours, (0, 1))(1.5, MANY), jax.grad(oracle, (0, 1))(1.5, MANY))
    assert_close(jax.jit(dr.hessian(ours, (0, 1)))(1.5, MANY), jax.hessian(oracle, (0, 1))(1.5, MANY))


def shapes_inside(f: Any, *args: Any) -> set[tuple[int, ...]]:
    """The shapes of all values in a traced program and the programs inside it."""
    found: set[tuple[int, ...]] = set()

    def search(jaxpr: Any) -> None:
        for eqn in jaxpr.eqns:
            found.update(v.aval.shape for v in eqn.outvars if hasattr(v.aval, "shape"))
            for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")):
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    search(inner)

    search(jax.make_jaxpr(f)(*args).jaxpr)
    return found


def test_each_example_has_a_matrix_of_its_own() -> None:
    batch = jnp.ones((7, 3))
    shapes = shapes_inside(dr.grad(lambda x: jnp.sum(jax.vmap(dr.region("forward")(jnp.sin))(x))), batch)
    assert max(int(np.prod(shape)) for shape in shapes) <= 7 * 3 * 3


def test_nothing_inside_is_taped() -> None:
    def chain(x: Any) -> Any:
        for _ in range(50):
            x = jnp.sin(x)
        return x

    def in_block(x: Any) -> Any:
        with dr.region("forward"):
            return chain(x)

    for f in (dr.region("forward")(chain), in_block):
        _, J = dr.linearize(f, jnp.float64(0.3))
        assert J.residual_bytes == 8  # one derivative
    assert dr.linearize(chain, jnp.float64(0.3))[1].residual_bytes > 8


Z = jnp.array([0.3 + 0.4j, 1 - 0.5j, -0.2 + 1j])


def mixed(z: Any, n: Any) -> dict[str, Any]:
    return {"y": z * jnp.exp(1j * z) / n.astype(complex) + jnp.conj(z) ** 2, "r": jnp.abs(z), "i": n + 1}


def mixed_loss(f: Any) -> Callable[[Any], Any]:
    def loss(z: Any) -> Any:
        out = f(z * z, jnp.arange(1, 4))
        return jnp.sum(jnp.real(out["y"]) * jnp.imag(out["y"])) + jnp.sum(out["r"] * out["i"].astype(float))

    return loss


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.thorough
def test_complex_values_integers_and_trees(mode: Any) -> None:
    def in_block(z: Any, n: Any) -> Any:
        with dr.region(mode):
            return mixed(z, n)

    for f in (dr.region(mode)(mixed), in_block):
        expected = jax.grad(mixed_loss(mixed))(Z)
        assert_close(dr.grad(mixed_loss(f))(Z), expected)
        assert_close(dr.grad(mixed_loss(f), engine="forward")(Z), expected)
        assert_close(jax.jit(dr.grad(jax.jit(mixed_loss(f))))(Z), expected)
        assert_close(dr.jvp(mixed_loss(f), (Z,), (Z + 1,)), jax.jvp(mixed_loss(mixed), (Z,), (Z + 1,)))

        def second(d: Any, g: Any) -> Any:
            return d.jacrev(lambda x: d.grad(mixed_loss(g))(x.astype(complex)).real)(Z.real)

        assert_close(second(dr, f), second(jax, mixed))


X = jnp.array([0.3, 1.0, 2.0])
Y = jnp.array([0.1, -0.4, 0.7])


@promoting()
def nested(x: Any, y: Any, region: Any = dr.region) -> Any:
    a, z = x * 2, jnp.exp(1j * y)
    with region("forward"):
        b = jnp.sin(a) * y
        c = jnp.tanh(b @ b)
        jnp.outer(b, b)
        with region("reverse"):
            d = jnp.cos(b) + a
        e = d * c
        q = jnp.abs(z * z + e)
        n = jnp.argmax(e)
    with region("reverse"):
        r = q * c
    return jnp.sum(r * e + d) * n + jnp.sum(b) + jnp.sum(jnp.real(z))


def without(x: Any, y: Any) -> Any:
    return nested(x, y, lambda _: contextlib.nullcontext())


@pytest.mark.thorough
@pytest.mark.parametrize("f", [nested, jax.jit(nested)], ids=["plain", "jit"])
def test_nested_blocks(f: Any) -> None:
    gradient, hessian = jax.grad(without, (0, 1))(X, Y), jax.hessian(without, (0, 1))(X, Y)
    assert_close(dr.grad(f, (0, 1))(X, Y), gradient)
    assert_close(dr.grad(f, (0, 1), engine="forward")(X, Y), gradient)
    assert_close(jax.grad(f, (0, 1))(X, Y), gradient)
    assert_close(dr.hessian(f, (0, 1))(X, Y), hessian)
    assert_close(dr.jacrev(dr.grad(f, (0, 1)), (0, 1))(X, Y), hessian)


def marked(x: Any) -> Any:
    with dr.region("forward"):
        return jnp.sin(x) * x


def unmarked(x: Any) -> Any:
    return jnp.sin(x) * x


def in_control_flow(body: Any) -> Callable[[Any], Any]:
    def f(x: Any) -> Any:
        ys = lax.scan(lambda c, a: (body(c * a), body(c)), x, jnp.arange(1.0, 4.0))[1]
        return ys.sum() + lax.cond(x > 0, body, jnp.cos, x) + lax.fori_loop(0, 3, lambda _, x: body(x), x) + jax.checkpoint(body)(x)

    return f


@pytest.mark.thorough
@pytest.mark.parametrize("body", [marked, dr.region("forward")(unmarked), dr.region("reverse")(unmarked)],
                         ids=["block", "forward", "reverse"])
def test_inside_control_flow(body: Any) -> None:
    f, oracle = in_control_flow(body), in_control_flow(unmarked)
    assert_close(dr.grad(f)(0.3), jax.grad(oracle)(0.3))
    assert_close(dr.hessian(f)(0.3), jax.hessian(oracle)(0.3))
    assert_close(jax.vmap(dr.grad(f))(X), jax.vmap(jax.grad(oracle))(X))
    assert_close(jax.jit(reverse_twice(f))(0.3), jax.hessian(oracle)(0.3))


def test_rules_inside_hold() -> None:
    @jax.custom_vjp
    def by_vjp(x: Any) -> Any:
        return x

    by_vjp.defvjp(lambda x: (x, None), lambda _, ct: (7 * ct,))

    @jax.custom_jvp
    def by_jvp(x: Any) -> Any:
        return x

    by_jvp.defjvp(lambda p, t: (p[0], 5 * t[0]))
    ours = dr.rule(jnp.sin, partials=[lambda _: 10.0])

    def f(x: Any) -> Any:
        return jnp.sum(by_vjp(by_jvp(ours(x))))

    def in_block(x: Any) -> Any:
        with dr.region("forward"):
            return f(x)

    for g in (dr.region("forward")(f), dr.region("reverse")(f), in_block):
        assert_close(dr.grad(g)(X), jnp.full(3, 350.0))
        assert_close(dr.grad(g, engine="forward")(X), jnp.full(3, 350.0))
        assert_close(jax.jit(dr.grad(jax.jit(g)))(X), jnp.full(3, 350.0))


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_named_axes_and_linear_functions(mode: Any) -> None:
    def share(x: Any) -> Any:
        return x / lax.psum(x, "i")

    def total(f: Any) -> Callable[[Any], Any]:
        return lambda x: jnp.sum(jax.vmap(f, axis_name="i")(x) ** 2)

    f = total(dr.region(mode)(share))
    assert_close(dr.grad(f)(X), jax.grad(total(share))(X))
    assert_close(dr.hessian(f)(X), jax.hessian(total(share))(X))
    linear = dr.region(mode)(lambda x: 3 * x[::-1])
    assert_close(dr.linear_transpose(jax.vmap(linear), jnp.ones((2, 3)))(MANY[:2, :3])[0], 3 * MANY[:2, 2::-1])


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_edges(mode: Any) -> None:
    region = dr.region(mode)
    assert_close(dr.grad(region(lambda x, y: jnp.sum(x) + y), (0, 1))(jnp.zeros(0), 1.0), (jnp.zeros(0), jnp.ones(())))
    assert_close(dr.grad(lambda x: x * region(lambda x: (lax.stop_gradient(x), 2.0))(x)[0])(2.0), jnp.array(2.0))
    assert_close(dr.grad(region(lambda x, kind, *, k: x * k if kind == "k" else x))(1.0, "k", k=4.0), jnp.array(4.0))
    with jax.disable_jit():
        assert_close(dr.grad(region(lambda x: jnp.sin(x) * x))(0.3), jax.grad(unmarked)(0.3))
    wide = dr.grad(region(lambda x: x * x), cotangent_dtype=jnp.float32)(jnp.bfloat16(1.5))
    assert (wide.dtype, float(wide)) == (jnp.float32, 3.0)


def test_an_exception_closes_a_block() -> None:
    def f(x: Any) -> Any:
        y = x
        with contextlib.suppress(KeyError), dr.region("forward"):
            y = x * x
            raise KeyError
        return newton(lax.stop_gradient(x)) * 0 + y * x

    assert_close(dr.grad(f)(2.0), jnp.array(12.0))


def test_wrong_uses() -> None:
    with pytest.raises(ValueError, match=r"mode must be 'forward' or 'reverse'; got 'backward'"):
        dr.region("backward")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'mode'"):
        dr.region()  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="got <function"):
        dr.region(newton)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a function; got 3"):
        dr.region("forward")(3)  # type: ignore[arg-type]
