"""Sparse derivatives, Laplacians, series and Hessian-vector products on 8 virtual devices: numbers are those of one device."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import dualrev as dr
from benchmarks.sharded.cases import layers, network
from benchmarks.sharded.collectives import traffic

pytestmark = pytest.mark.promotes


def mesh_of(*sizes: int, kind: AxisType = AxisType.Auto) -> Mesh:
    return jax.make_mesh(sizes, ("a", "b")[: len(sizes)], axis_types=(kind,) * len(sizes))


X = jnp.asarray(np.random.default_rng(0).standard_normal(30))


def chain(x: Any) -> Any:
    """Eleven entries in a row."""
    return jnp.sin(sum(jnp.roll(x, k) * x for k in range(-5, 6)))


def arrow(x: Any) -> Any:
    return (x * x[0]).at[0].set(jnp.sum(x**2))


def neighbours(x: Any) -> Any:
    return jnp.sum(jnp.exp(x[1:] * x[:-1]))


def on(mesh: Mesh, x: Any, *names: Any) -> Any:
    return jax.device_put(x, NamedSharding(mesh, P(*names)))


@pytest.mark.parametrize(("f", "options"), [
    pytest.param(chain, {"engine": "forward"}, id="pushes"),
    pytest.param(chain, {"engine": "reverse"}, id="pulls"),
    pytest.param(arrow, {}, id="both"),
    pytest.param(arrow, {"substitution": True, "costs": (1.0, 1.0)}, id="substitution"),
    pytest.param(chain, {"engine": "forward", "chunk_size": 1}, id="one at a time"),
])
@pytest.mark.parametrize("sizes", [(8,), (4, 2)], ids=str)
def test_colours_are_spread_over_devices(f: Any, options: dict[str, Any], sizes: tuple[int, ...]) -> None:
    mesh = mesh_of(*sizes)
    plan = dr.sparse.plan(f, X, mesh=mesh, **options)
    chunk = {"chunk_size": options["chunk_size"]} if "chunk_size" in options else {}
    J = dr.sparse.jacobian(f, plan=plan, **chunk)
    for x in (X, on(mesh, X), on(mesh, X, None)):
        np.testing.assert_allclose(J(x).todense(), jax.jacobian(f)(X), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(jax.jit(lambda x: J(x).data)(X), dr.sparse.jacobian(f, plan=dr.sparse.plan(f, X, **options))(X).data,
                               rtol=1e-12)


def test_hessians_values_and_dense_results() -> None:
    mesh = mesh_of(8)
    plan = dr.sparse.plan(neighbours, X, derivative="hessian", mesh=mesh)
    value, H = dr.sparse.value_and_hessian(neighbours, plan=plan)(X)
    np.testing.assert_allclose(value, neighbours(X), rtol=1e-14)
    np.testing.assert_allclose(H.todense(), jax.hessian(neighbours)(X), rtol=1e-12, atol=1e-14)
    plan = dr.sparse.plan(chain, X, mesh=mesh)
    (value, aux), J = dr.sparse.value_and_jacobian(lambda x: (chain(x), "kept"), has_aux=True, plan=plan, format="dense")(X)
    np.testing.assert_allclose(value, chain(X), rtol=1e-14)
    np.testing.assert_allclose(J, jax.jacobian(chain)(X), rtol=1e-12, atol=1e-14)
    assert aux == "kept"


def test_each_device_takes_its_share_and_entries_are_gathered_once() -> None:
    mesh = mesh_of(8)
    plan = dr.sparse.plan(chain, X, engine="forward", mesh=mesh)
    assert plan.forward_colours >= 11
    compiled = jax.jit(lambda x: dr.sparse.jacobian(chain, plan=plan)(x).data).lower(on(mesh, X)).compile()
    assert dict(traffic(compiled).counts) == {"all-gather": 1}
    each, text = -(-plan.forward_colours // 8), str(compiled.as_text())
    assert f"f64[{each},30]" in text and f"f64[{plan.forward_colours},30]" not in text
    assert f"on 8 devices ('a': 8), each of which takes at most {each} forward and 0 reverse passes" in str(plan)


def test_sparse_derivatives_on_devices_are_differentiated() -> None:
    mesh = mesh_of(8)
    plan = dr.sparse.plan(neighbours, X, derivative="hessian", mesh=mesh)

    def penalty(x: Any) -> Any:
        return jnp.sum(dr.sparse.hessian(neighbours, plan=plan)(x).data ** 2)

    expected = jax.grad(lambda x: jnp.sum(jax.hessian(neighbours)(x) ** 2))(X)
    np.testing.assert_allclose(jax.jit(dr.grad(penalty))(X), expected, rtol=1e-10, atol=1e-12)


def test_plans_are_kept_with_their_axes(tmp_path: pathlib.Path) -> None:
    mesh = mesh_of(4, 2)
    dr.sparse.plan(chain, X, mesh=mesh).save(tmp_path / "plan.npz")
    found = dr.sparse.load(tmp_path / "plan.npz", mesh=mesh)
    np.testing.assert_allclose(dr.sparse.jacobian(chain, plan=found)(X).todense(), jax.jacobian(chain)(X), rtol=1e-12, atol=1e-14)
    with pytest.raises(ValueError, match=r"'a': 4, 'b': 2; got none"):
        dr.sparse.load(tmp_path / "plan.npz")
    with pytest.raises(ValueError, match=r"'a': 4, 'b': 2; got 'a': 8"):
        dr.sparse.load(tmp_path / "plan.npz", mesh=mesh_of(8))


def test_a_mesh_that_changed_between_plan_and_call() -> None:
    plan = dr.sparse.plan(chain, X, mesh=mesh_of(8))
    J = dr.sparse.jacobian(chain, plan=plan)
    with jax.set_mesh(mesh_of(4, 2)), pytest.raises(ValueError, match=r"'a': 8, and the mesh that was set has 'a': 4, 'b': 2"):
        J(X)
    few = Mesh(np.array(jax.devices()[:2]), ("a",), axis_types=(AxisType.Auto,))
    with pytest.raises(ValueError, match=r"'a': 8, and array 0 of the arguments, of shape \(30,\), lies on a mesh with axes 'a': 2"):
        J(on(few, X, "a"))
    with pytest.raises(ValueError, match=r"array 0 .* lies on 1 device"):
        J(jax.device_put(X, jax.devices()[3]))


def test_what_is_no_mesh_of_automatic_axes() -> None:
    with pytest.raises(TypeError, match=r"mesh must be a jax\.sharding\.Mesh"):
        dr.sparse.plan(chain, X, mesh=8)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="axis 'a' of the mesh, of size 8, is of the kind Explicit"):
        dr.sparse.plan(chain, X, mesh=mesh_of(8, kind=AxisType.Explicit))


# --------------------------------------------------------------------------------------------------------------------- samples

PARAMS = layers(0, 4, 8, 1)
POINTS = np.random.default_rng(1).standard_normal((16, 4))


def solution(params: Any, x: Any) -> Any:
    return network(params, x[None])[0, 0]


@pytest.mark.parametrize("name", ["laplacian", "biharmonic", "series", "sparse"])
def test_samples_are_spread_over_devices_and_nothing_is_sent(name: str) -> None:
    def at(x: Any) -> Any:
        def f(x: Any) -> Any:
            return solution(PARAMS, x)

        if name == "series":
            return dr.jet(f, (x,), ([jnp.ones(4), jnp.zeros(4), jnp.zeros(4)],))
        if name == "sparse":
            return dr.sparse.hessian(f, format="dense")(x)
        return getattr(dr, name)(f)(x)

    mesh = mesh_of(8)
    points = on(mesh, POINTS, "a")
    compiled = jax.jit(jax.vmap(at)).lower(points).compile()
    found = compiled(points)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(jax.jit(jax.vmap(at))(POINTS)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-13)
        assert x.addressable_shards[0].data.shape[0] == 2
    assert not traffic(compiled).counts


def test_a_loss_of_laplacians() -> None:
    """Points on devices: one sum over them for the gradient by the parameters."""
    def loss(params: Any, points: Any) -> Any:
        return jnp.sum(jax.vmap(lambda x: dr.laplacian(lambda x: solution(params, x))(x)[1])(points) ** 2)

    mesh = mesh_of(8)
    params, points = jax.tree.map(lambda x: on(mesh, x), PARAMS), on(mesh, POINTS, "a")
    compiled = jax.jit(dr.value_and_grad(loss)).lower(params, points).compile()
    expected = jax.jit(jax.value_and_grad(lambda p, points: jnp.sum(
        jax.vmap(lambda x: jnp.trace(jax.hessian(lambda x: solution(p, x))(x)))(points) ** 2)))(PARAMS, POINTS)
    for x, y in zip(jax.tree.leaves(compiled(params, points)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-11)
    assert set(traffic(compiled).counts) == {"all-reduce"}


@pytest.mark.parametrize("spec", [P(), P("a")], ids=["data parallel", "fully sharded"])
def test_products_with_hessians(spec: P) -> None:
    mesh = mesh_of(8)
    params, batch = layers(0, 8, 16, 8), np.random.default_rng(2).standard_normal((16, 8))

    def product(library: Any, params: Any, v: Any, batch: Any) -> Any:
        def loss(params: Any) -> Any:
            return jnp.sum(network(params, batch) ** 2)

        return dr.hvp(loss, (params,), (v,)) if library is dr else jax.jvp(jax.grad(loss), (params,), (v,))[1]

    shardings = jax.tree.map(lambda _: NamedSharding(mesh, spec), params)
    v = jax.tree.map(np.cos, params)
    placed = [jax.device_put(x, shardings) for x in (params, v)]
    compiled = [jax.jit(lambda *args, library=library: product(library, *args), out_shardings=shardings).lower(
        *placed, on(mesh, batch, "a")).compile() for library in (dr, jax)]
    for x, y in zip(jax.tree.leaves(compiled[0](*placed, on(mesh, batch, "a"))), jax.tree.leaves(product(jax, params, v, batch)),
                    strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-12)
        assert x.sharding.is_equivalent_to(NamedSharding(mesh, spec), x.ndim)
    ours, theirs = map(traffic, compiled)
    assert ours.count <= theirs.count and ours.nbytes <= theirs.nbytes
