"""Operations of ``jax.experimental.hijax``: the derivatives that their classes state, beside those of jax."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import hijax

import dualrev

Base: Any = getattr(hijax, "HiPrim", None) or hijax.VJPHiPrimitive
X = jnp.array([0.3, -1.2, 2.0])
#: What each rule multiplies the true derivative by, so that it shows which of them was used.
PUSHED, PULLED = 3.0, 5.0


class Plain(Base):  # type: ignore[misc]
    """``(sin(x) y, x + y)`` of two arrays."""

    def __init__(self, aval: Any):
        self.in_avals, self.out_aval = (aval, aval), (aval, aval)
        self.params: dict[str, Any] = {}
        super().__init__()

    def expand(self, x: Any, y: Any) -> Any:
        return jnp.sin(x) * y, x + y

    def batch(self, axis_data: Any, args: Any, dims: Any) -> Any:
        x, y = (jnp.broadcast_to(a, (axis_data.size, *a.shape)) if d is None else jnp.moveaxis(a, d, 0)
                for a, d in zip(args, dims, strict=True))
        aval = jax.typeof(x)
        return type(self)(aval)(x, y), (0, 0)


def filled(t: Any, like: Any) -> Any:
    return jnp.zeros_like(like) if isinstance(t, hijax.Zero) else t


class Pushes(Plain):
    def jvp(self, primals: Any, tangents: Any) -> Any:
        (x, y), (u, v) = primals, (filled(t, x) for t, x in zip(tangents, primals, strict=True))
        return self(x, y), (PUSHED * (jnp.cos(x) * y * u + jnp.sin(x) * v), u + v)


class Linearizes(Plain):
    def lin(self, nzs_in: Any, x: Any, y: Any) -> Any:
        return self(x, y), (x, y)

    def linearized(self, residuals: Any, u: Any, v: Any) -> Any:
        x, y = residuals
        u, v = filled(u, x), filled(v, y)
        return PUSHED * (jnp.cos(x) * y * u + jnp.sin(x) * v), u + v


class Pulls(Plain):
    def vjp_fwd(self, nzs_in: Any, x: Any, y: Any) -> Any:
        return self(x, y), {"x": x, "y": y}

    def vjp_bwd_retval(self, res: Any, cts: Any) -> Any:
        a, b = (filled(ct, res["x"]) for ct in cts)
        return PULLED * jnp.cos(res["x"]) * res["y"] * a + b, PULLED * jnp.sin(res["x"]) * a + b


class Adds(Pulls):
    vjp_bwd_retval = Base.vjp_bwd_retval

    def vjp_bwd(self, res: Any, cts: Any, *accumulators: Any) -> None:
        for accumulator, ct in zip(accumulators, Pulls.vjp_bwd_retval(self, res, cts), strict=True):
            if hasattr(accumulator, "accum"):  # not for an operand that is not differentiated
                accumulator.accum(ct)


class Both(Pulls):
    jvp = Pushes.jvp


def f(kind: Any) -> Any:
    operation = kind(jax.typeof(X))
    return lambda x: jnp.sum(operation(x, x**2)[0] ** 2 + operation(jnp.cos(x), jnp.ones_like(x))[1])


def by_columns(g: Any) -> Any:
    return jnp.stack([jax.jvp(g, (X,), (unit,))[1] for unit in jnp.eye(3)])


WRAPS: dict[str, Any] = {
    "plain": lambda g: g, "jit": jax.jit, "scan": lambda g: lambda x: lax.scan(lambda c, _: (g(x) * c, None), 1.0, None, length=2)[0],
    "vmap": lambda g: lambda x: jnp.sum(jax.vmap(g)(jnp.stack([x, 2 * x]))),
}


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("kind", [Pulls, Both, Adds])
def test_pulls(kind: Any, wrap: str) -> None:
    g = WRAPS[wrap](f(kind))
    np.testing.assert_allclose(dualrev.grad(g)(X), jax.grad(g)(X), rtol=1e-12)


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("kind", [Pushes, Both, Linearizes])
def test_pushes(kind: Any, wrap: str) -> None:
    expected = jax.jvp(WRAPS[wrap](f(Pushes)), (X,), (jnp.cos(X),))
    np.testing.assert_allclose(dualrev.jvp(WRAPS[wrap](f(kind)), (X,), (jnp.cos(X),)), expected, rtol=1e-12)


def test_either_mode_follows_from_the_rule_of_the_other() -> None:
    pushed = by_columns(f(Pushes))
    np.testing.assert_allclose(dualrev.grad(f(Pushes))(X), pushed, rtol=1e-12)
    np.testing.assert_allclose(dualrev.grad(f(Linearizes))(X), pushed, rtol=1e-12)
    pulled = jax.grad(f(Pulls))(X)
    np.testing.assert_allclose(dualrev.jvp(f(Pulls), (X,), (jnp.cos(X),))[1], pulled @ jnp.cos(X), rtol=1e-12)
    assert np.max(np.abs(pushed - pulled)) > 1  # so that it matters which rule was used


def test_without_a_rule_it_is_that_of_the_expansion() -> None:
    expected = jax.grad(lambda x: jnp.sum((jnp.sin(x) * x**2) ** 2 + jnp.cos(x)))(X)
    np.testing.assert_allclose(dualrev.grad(f(Plain))(X), expected, rtol=1e-12)
    np.testing.assert_allclose(dualrev.jacfwd(f(Plain))(X), expected, rtol=1e-12)


class Right(Plain):
    def vjp_fwd(self, nzs_in: Any, x: Any, y: Any) -> Any:
        return self(x, y), (x, y)

    def vjp_bwd_retval(self, res: Any, cts: Any) -> Any:
        (x, y), (a, b) = res, (filled(ct, res[0]) for ct in cts)
        return jnp.cos(x) * y * a + b, jnp.sin(x) * a + b


@pytest.mark.thorough
def test_second_derivatives_differentiate_the_rule() -> None:
    expected = jax.hessian(lambda x: jnp.sum((jnp.sin(x) * x**2) ** 2 + jnp.cos(x)))(X)
    np.testing.assert_allclose(dualrev.hessian(f(Right))(X), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dualrev.jacrev(dualrev.grad(f(Right)))(X), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dualrev.laplacian(f(Right))(X)[1], jnp.trace(expected), rtol=1e-12)


def test_a_rule_of_another_structure() -> None:
    class Wrong(Pulls):
        def vjp_fwd(self, nzs_in: Any, x: Any, y: Any) -> Any:
            return [x, y], x

    with pytest.raises(TypeError, match="a rule of Wrong returns results of the structure"):
        dualrev.grad(f(Wrong))(X)


@pytest.mark.skipif(not hasattr(hijax, "vjp_from_jvp"), reason="jax 0.10 derives no rules from others")
def test_rules_that_jax_derives_are_derived_here() -> None:
    class Derived(Pushes):
        vjp_fwd, vjp_bwd_retval = getattr(hijax, "vjp_from_jvp", (None, None))

    np.testing.assert_allclose(dualrev.grad(f(Derived))(X), by_columns(f(Pushes)), rtol=1e-12)


def test_an_operand_that_is_not_differentiated_has_an_accumulator_that_says_so() -> None:
    seen: list[list[str]] = []

    class Watched(Adds):
        def vjp_bwd(self, res: Any, cts: Any, *accumulators: Any) -> None:
            seen.append([type(accumulator).__name__ for accumulator in accumulators])
            super().vjp_bwd(res, cts, *accumulators)

    operation = Watched(jax.typeof(X))

    def g(x: Any, y: Any) -> Any:
        return jnp.sum(operation(x, y)[0])

    np.testing.assert_allclose(dualrev.grad(g)(X, X**2), jax.grad(g)(X, X**2), rtol=1e-12)
    ours, theirs = seen
    assert ours == theirs == ["ValAccum", "NullAccum"]


def test_a_value_of_another_type_than_an_array() -> None:
    class Pair(hijax.HiType):
        def str_short(self, short_dtypes: Any = False, mesh_axis_types: Any = False) -> Any:
            return "Pair"

        def to_tangent_aval(self) -> Any:
            return self

    class Held:
        pass

    hijax.register_hitype(Held, lambda _: Pair())
    with pytest.raises(TypeError, match=r"grad needs arrays as .*; .* has the type .*hijax defines. Differentiate a function of the"):
        dualrev.grad(lambda pair: 1.0)(Held())
    with pytest.raises(TypeError, match=r"jvp needs arrays as primals; primals.0. has the type"):
        dualrev.jvp(lambda pair: 1.0, (Held(),), (Held(),))
