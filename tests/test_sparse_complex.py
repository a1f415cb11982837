"""Sparse derivatives of complex functions against jax's: holomorphic ones, gradients by complex inputs, complex outputs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_close
from jax import lax

import dualrev

Array = Any
dr: Any = dualrev
X = jnp.linspace(0.5, 1.5, 9)
Z = lax.complex(X, jnp.cos(3 * X))


def arrow(z: Array) -> Array:
    return (z * z + z[0] * z).at[0].set(jnp.sum(z * jnp.sin(z)))


def moduli(z: Array) -> Array:
    return jnp.abs(z[1:]) ** 2 * jnp.real(z[:-1]) + jnp.imag(z[1:] * jnp.conj(z[:-1]))


def phases(x: Array) -> Array:
    return jnp.exp(lax.complex(x[:-1], x[1:]))


def energy(z: Array) -> Array:
    return jnp.sum(z[1:] ** 2 * z[:-1] + jnp.exp(z[1:]))


def agree(found: Any, expected: Any) -> None:
    for a, b in zip(jax.tree.leaves(found, is_leaf=lambda x: hasattr(x, "todense")), jax.tree.leaves(expected), strict=True):
        a = a.todense() if hasattr(a, "todense") else a
        assert a.dtype == b.dtype and a.shape == b.shape
        assert_close(a, b)


@pytest.mark.parametrize("engine", ["auto", *[pytest.param(e, marks=pytest.mark.thorough) for e in ("forward", "reverse")]])
def test_holomorphic_functions(engine: str) -> None:
    """Three passes of both kinds; a pull is not conjugated."""
    expected = jax.jacrev(arrow, holomorphic=True)(Z)
    agree(dr.jacobian(arrow, sparse=True, holomorphic=True, engine=engine)(Z), expected)


@pytest.mark.thorough
def test_gradients_by_complex_inputs() -> None:
    agree(dr.jacobian(moduli, sparse=True)(Z), jax.jacrev(moduli)(Z))
    assert dr.sparse.plan(moduli, Z).forward_colours == 0


@pytest.mark.thorough
def test_complex_outputs() -> None:
    agree(dr.jacobian(phases, sparse=True)(X), jax.jacfwd(phases)(X))


@pytest.mark.thorough
def test_hessians() -> None:
    agree(dr.hessian(energy, sparse=True, holomorphic=True)(Z), jax.hessian(energy, holomorphic=True)(Z))


@pytest.mark.thorough
@pytest.mark.parametrize("form", ["bcoo", "csr", "dense"])
def test_trees_of_several_dtypes(form: str) -> None:
    def of_real(x: Array) -> Any:
        return x**2, jnp.fft.fft(x)[:2], jnp.exp(lax.complex(x, x)).astype(jnp.complex64), x.astype(jnp.float32)

    agree(dr.jacobian(of_real, sparse=True, format=form)(X), jax.jacfwd(of_real)(X))

    def of_complex(d: Any) -> Any:
        return jnp.real(d[0]) * d[1], jnp.abs(d[0])

    agree(dr.jacobian(of_complex, sparse=True, format=form)((Z, X)), jax.jacrev(of_complex)((Z, X)))
    single = Z.astype(jnp.complex64)
    agree(dr.jacobian(moduli, sparse=True, format=form)(single), jax.jacrev(moduli)(single))


@pytest.mark.thorough
def test_under_transformations() -> None:
    J = dr.jacobian(arrow, sparse=True, holomorphic=True, format="dense", chunk_size=2)
    expected = jax.jacfwd(arrow, holomorphic=True)
    agree(jax.jit(J)(Z), expected(Z))
    both = jnp.stack([Z, jnp.conj(Z)])
    agree(jax.vmap(J)(both), jax.vmap(expected)(both))
    agree(dr.grad(lambda z: jnp.sum(jnp.abs(J(z))))(Z), jax.grad(lambda z: jnp.sum(jnp.abs(expected(z))))(Z))


@pytest.mark.thorough
@pytest.mark.parametrize("f", [arrow, moduli])
def test_patterns(f: Any) -> None:
    expected = jax.jacfwd(arrow, holomorphic=True)(Z) if f is arrow else jax.jacrev(f)(Z)
    np.testing.assert_array_equal(dr.sparse.jacobian_pattern(f)(Z).todense(), expected != 0)


@pytest.mark.thorough
def test_patterns_that_are_given() -> None:
    mask = np.array(jax.jacfwd(arrow, holomorphic=True)(Z) != 0)
    agree(dr.jacobian(arrow, sparse=True, holomorphic=True, pattern=mask, check=True)(Z), jax.jacfwd(arrow, holomorphic=True)(Z))
    mask[3, 0] = mask[0, 5] = False
    with pytest.raises(dr.errors.PatternError, match=r"row 0: columns 5; row 3: columns 0\. Add them"):
        dr.jacobian(arrow, sparse=True, holomorphic=True, pattern=mask, check=True)(Z)


@pytest.mark.parametrize(("make", "kind", "match"), [
    (lambda: dr.jacobian(arrow, sparse=True)(Z), TypeError, "requires real-valued outputs .*pass holomorphic=True"),
    (lambda: dr.jacobian(moduli, sparse=True, engine="forward")(Z), TypeError, "requires real-valued inputs"),
    (lambda: dr.jacobian(phases, sparse=True, engine="reverse")(X), TypeError, "requires real-valued outputs"),
    (lambda: dr.jacobian(arrow, sparse=True, holomorphic=True)(X), TypeError, "holomorphic=True requires inputs with complex dtype"),
    (lambda: dr.jacobian(moduli, sparse=True, holomorphic=True)(Z), TypeError, "holomorphic=True requires outputs with complex"),
    (lambda: dr.hessian(lambda z: jnp.sum(jnp.abs(z)), sparse=True)(Z), TypeError, "requires real-valued inputs"),
    (lambda: dr.hessian(lambda x: jnp.sum(phases(x)), sparse=True)(X), TypeError, "hessian: the outputs are complex"),
    (lambda: dr.jacobian(moduli, sparse=True, pattern=np.ones((8, 9)), check=True)(Z), dr.errors.OptionError, "has complex inputs"),
], ids=range(8))
def test_errors(make: Any, kind: Any, match: str) -> None:
    with pytest.raises(kind, match=match):
        make()
