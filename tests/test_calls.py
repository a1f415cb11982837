"""Calls of one program: each has the derivative of what it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.experimental.xla_metadata
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import FACES, Face, assert_same
from jax import lax
from releases import here

import dualrev
from dualrev._jax.primitives import primitive
from dualrev.errors import NoDerivativeError

X = jnp.array([0.3, 0.5, 0.7])


def plain(x: Any) -> Any:
    return jnp.sin(x) * x[0]


def by_composite(x: Any) -> Any:
    return lax.composite(plain, "test.plain")(x)


def by_custom_vmap(x: Any) -> Any:
    f = jax.custom_batching.custom_vmap(plain)
    f.def_vmap(lambda axis_size, in_batched, x: (jax.vmap(plain)(x), True))
    return f(x)


def by_sequential_vmap(x: Any) -> Any:
    return jax.custom_batching.sequential_vmap(plain)(x)


def by_eval_jaxpr(x: Any) -> Any:
    call = primitive("eval_jaxpr")
    jaxpr = jax.make_jaxpr(plain)(x)
    name = "call_jaxpr" if "closed_call" not in known_calls() else "jaxpr"
    return call.bind(x, **{name: jaxpr})[0]


def known_calls() -> set[str]:
    return set(filter(here, ("call", "closed_call")))


def by_call_through_jit(x: Any) -> Any:
    return jax.jit(by_eval_jaxpr)(x)


FUNCTIONS = [by_composite, by_custom_vmap, by_sequential_vmap, by_eval_jaxpr, by_call_through_jit]


@pytest.mark.parametrize("face", FACES, ids=str)
@pytest.mark.parametrize("f", [pytest.param(f, marks=pytest.mark.thorough if f is by_composite else (), id=f.__name__)
                               for f in FUNCTIONS])
def test_derivatives_are_those_of_the_program(f: Callable[..., Any], face: Face) -> None:
    def total(g: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x: jnp.sum(g(x) ** 2)

    assert_same(face.jacobian(f)(X), jax.jacobian(plain)(X))
    assert_same(jax.jit(face.grad(total(f)))(X), jax.grad(total(plain))(X))
    assert_same(face.hessian(total(f))(X), jax.hessian(total(plain))(X))
    assert_same(jax.vmap(face.grad(total(f)))(jnp.stack([X, 2 * X])), jax.vmap(jax.grad(total(plain)))(jnp.stack([X, 2 * X])))


def test_composite_has_no_derivative_in_jax() -> None:
    with pytest.raises(ValueError, match="composite not implemented"):
        jax.jacobian(by_composite)(X)


def test_remat_opt() -> None:
    """The forward function of a ``custom_vjp`` that may drop its residuals, differentiated once more."""

    @jax.custom_vjp
    def f(x: Any) -> Any:
        return jnp.sin(x)

    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (ct * jnp.cos(x),), optimize_remat=True)

    def total(x: Any) -> Any:
        return jnp.sum(jax.jit(f)(x) ** 2)

    assert_same(dualrev.grad(total)(X), jax.grad(total)(X))
    assert_same(jax.jit(dualrev.hessian(total))(X), jnp.diag(2 * jnp.cos(2 * X)))


# ------------------------------------------------------------------------------------------------------------- linear_call


def scaled(a: Any, x: Any) -> Any:
    """``x`` times sin ``a``, declared linear in ``x``."""
    return jax.custom_derivatives.linear_call(lambda a, x: jnp.sin(a) * x, lambda a, ct: jnp.sin(a) * ct, a, x)


@pytest.mark.parametrize("face", FACES, ids=str)
def test_linear_call(face: Face) -> None:
    a = jnp.array(0.4)
    def total(x: Any) -> Any:
        return jnp.sum(scaled(a, x) ** 3)

    assert_same(face.jvp(total, (X,), (X,)), jax.jvp(total, (X,), (X,)))
    if face.engine == "reverse":  # jax has no rule to batch it, so no basis can be swept
        assert_same(jax.jit(face.grad(total))(X), jax.grad(total)(X))
        assert_same(jax.jit(lambda x: dualrev.hvp(total, (x,), (x,)))(X), jax.jvp(jax.grad(total), (X,), (X,))[1])
    assert_same(dualrev.linear_transpose(lambda x: scaled(a, x), X)(X)[0], jnp.sin(a) * X)
    # By what it is not linear in, jax has no derivative; the program has one.
    assert_same(face.jvp(lambda a: jnp.sum(scaled(a, X)), (a,), (a / a,))[1], jnp.cos(a) * jnp.sum(X))
    if face.engine == "reverse":
        assert_same(face.grad(lambda a: jnp.sum(scaled(a, X * a)))(a), jnp.sum(X) * (jnp.cos(a) * a + jnp.sin(a)))


def test_linear_call_is_transposed_as_stated() -> None:
    """Not as its program would be."""
    def f(x: Any) -> Any:
        return jax.custom_derivatives.linear_call(lambda _, x: 2.0 * x, lambda _, ct: 5.0 * ct, (), x)

    assert float(dualrev.grad(f)(1.0)) == 5.0
    assert float(dualrev.jvp(f, (1.0,), (1.0,))[1]) == 2.0


# --------------------------------------------------------------------------------------------------------------- callbacks


def host_sin(x: Any) -> Any:
    return jax.pure_callback(lambda x: np.sin(x), jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="sequential")


@pytest.mark.parametrize("face", FACES, ids=str)
@pytest.mark.parametrize("compiled", [False, True])
def test_callbacks_say_that_they_have_no_derivative(face: Face, compiled: bool) -> None:
    from jax.experimental import io_callback

    def effect(x: Any) -> Any:
        return io_callback(lambda x: np.sin(x), jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    for f, message in ((host_sin, "Pure callbacks do not support JVP"), (effect, "IO callbacks do not support JVP")):
        g = jax.jit(f) if compiled else f
        with pytest.raises(NoDerivativeError, match=message + r".*test_calls\.py.*@dualrev\.rule"):
            face.grad(lambda x, g=g: jnp.sum(g(x)))(X)
        assert_same(face.grad(lambda x, g=g: jnp.sum(x * g(lax.stop_gradient(x))))(X), jnp.sin(X))


@pytest.mark.parametrize("face", FACES, ids=str)
def test_callback_with_a_rule(face: Face) -> None:
    f = dualrev.rule(partials=[lambda x: jnp.cos(x)])(host_sin)
    assert_same(face.grad(lambda x: jnp.sum(f(x)))(X), jnp.cos(X))
    assert_same(jax.jit(face.jacobian(face.grad(lambda x: jnp.sum(f(x)))))(X), -jnp.diag(jnp.sin(X)))


@pytest.mark.parametrize("face", FACES, ids=str)
def test_observers_pass_through(face: Face, capfd: pytest.CaptureFixture[str]) -> None:
    def f(x: Any) -> Any:
        jax.debug.print("seen {}", x[0])
        return jnp.sum(x ** 2)

    assert_same(face.grad(f)(X), 2 * X)
    jax.effects_barrier()
    assert "seen 0.3" in capfd.readouterr().out


@pytest.mark.parametrize("face", FACES, ids=str)
def test_checks_pass_through(face: Face) -> None:
    from jax.experimental import checkify

    def f(x: Any) -> Any:
        checkify.check(x[0] > 0, "{} is not positive", x[0])
        return jnp.sum(x ** 2)

    error, gradient = checkify.checkify(face.grad(f))(X)
    assert error.get() is None
    assert_same(gradient, 2 * X)
    assert "is not positive" in str(checkify.checkify(face.grad(f))(-X)[0].get())


@pytest.mark.parametrize("face", FACES, ids=str)
def test_sink(face: Face) -> None:
    def f(x: Any) -> Any:
        primitive("dce_sink").bind(x, prevent_mlir_dce=False)
        return jnp.sum(x ** 2)

    assert_same(face.grad(f)(X), 2 * X)


@pytest.mark.parametrize("face", FACES, ids=str)
def test_foreign_calls_have_no_derivative(face: Face) -> None:
    called = jax.ffi.ffi_call("nobody_home", jax.ShapeDtypeStruct(X.shape, X.dtype))
    with pytest.raises(NoDerivativeError, match="FFI call cannot be differentiated"):
        jax.make_jaxpr(face.grad(lambda x: jnp.sum(called(x))))(X)


def on_the_host(f: Any) -> Any:
    from jax.experimental import compute_on

    wrap: Any = getattr(compute_on, "compute_on2", compute_on.compute_on)  # the first name until 0.11
    return wrap(f, compute_type="device_host", out_memory_spaces=jax.memory.Space.Device)


def tagged(f: Any) -> Any:
    from jax.experimental import scheduling_groups, xla_metadata

    wrap = getattr(xla_metadata, "xla_metadata_call", None) or scheduling_groups.xla_metadata_call
    return wrap(f, tag="x")


def in_order(f: Any) -> Any:
    from jax._src.program_order import program_order

    return program_order(f, enforce=False, exclude_argnames="x")


ANNOTATED = {"compute_on": on_the_host, "xla_metadata_call": tagged, **({"program_order": in_order} if here("program_order") else {})}


@pytest.mark.parametrize("transform", ["jacobian", "jacfwd", "jacrev", "hessian"])
@pytest.mark.parametrize("name", ANNOTATED)
def test_annotated_calls(name: str, transform: str) -> None:
    f, expected = ANNOTATED[name](plain), getattr(jax, transform)(plain)(X)
    assert_same(getattr(dualrev, transform)(f)(X), expected)
    assert_same(jax.jit(getattr(dualrev, transform)(jax.jit(f)))(X), expected)
    assert_same(jax.vmap(getattr(dualrev, transform)(f))(jnp.stack([X, X]))[1], expected)


@pytest.mark.parametrize("name", ANNOTATED)
def test_derivatives_of_annotated_calls_are_annotated(name: str) -> None:
    f = ANNOTATED[name](plain)
    program = jax.make_jaxpr(dualrev.grad(lambda x: jnp.sum(f(x))))(X)
    calls = [eqn for eqn in program.eqns if str(eqn.primitive) == name]
    assert [eqn.primitive.name for eqn in program.eqns].count("cos") == 0
    assert len(calls) == 2  # the function and its pull
    assert [any(eqn.params.get("exclude_mask", (i == 0,))) for i, eqn in enumerate(calls)] == [True, False]
    for eqn in calls:
        assert eqn.params.get("compute_type", "device_host") == "device_host"
        assert "tag" not in eqn.params or eqn.params["tag"] == "x"
        assert eqn.params.get("xla_metadata", (("tag", "x"),)) == (("tag", "x"),)


def test_fused_calls() -> None:
    """They are lowered for CUDA alone: here the traced programs."""
    from jax.experimental.fused import fused

    f = fused(out_spaces=(jax.memory.Space.Device,))(lambda x: jnp.sin(x) * x[0])
    program = jax.make_jaxpr(dualrev.grad(lambda x: jnp.sum(f(x))))(X)
    calls = [eqn for eqn in program.eqns if str(eqn.primitive) == "fused_call"]
    assert len(calls) == 2
    assert {space.name for eqn in calls for space in eqn.params["out_spaces"]} == {"Device"}

    def evaluate(program: Any, *args: Any) -> Any:
        env = dict(zip(program.jaxpr.invars, args, strict=True))

        def read(v: Any) -> Any:
            return v.val if hasattr(v, "val") else env[v]

        for eqn in program.eqns:
            operands = [read(v) for v in eqn.invars]
            if str(eqn.primitive) == "fused_call":
                outs = evaluate(eqn.params["jaxpr"], *operands)
            else:
                outs = eqn.primitive.bind(*operands, **eqn.params)
            env.update(zip(eqn.outvars, outs if eqn.primitive.multiple_results else [outs], strict=True))
        return [read(v) for v in program.jaxpr.outvars]

    assert_same(evaluate(program, X)[0], jax.grad(lambda x: jnp.sum(plain(x)))(X))


@pytest.mark.parametrize("face", FACES, ids=str)
@pytest.mark.skipif(not here("shard_alike"), reason="until 0.11")
def test_shard_alike(face: Face) -> None:
    alike = primitive("shard_alike").bind
    one = face.jacobian(jax.jit(lambda x: jnp.sin(alike(x, X)[0]) * alike(x, X)[1]))(X)
    assert_same(one, jax.jacobian(lambda x: jnp.sin(x) * X)(X))
    both = face.jacobian(jax.jit(lambda x: (lambda y, z: y * z)(*alike(jnp.sin(x), x))))(X)
    assert_same(both, jax.jacobian(lambda x: jnp.sin(x) * x)(X))


def test_buffer_callbacks_have_no_derivative() -> None:
    from jax.experimental.buffer_callback import buffer_callback

    called = buffer_callback(lambda *_: None, jax.ShapeDtypeStruct(X.shape, X.dtype))
    with pytest.raises(NoDerivativeError, match="Buffer callbacks do not support JVP"):
        jax.make_jaxpr(dualrev.grad(lambda x: jnp.sum(called(x))))(X)


@pytest.mark.skipif("xla_metadata_call2" not in dir(jax.experimental.xla_metadata), reason="since 0.12")
def test_the_tag_of_derivatives() -> None:
    from jax.experimental import xla_metadata

    f = xla_metadata.xla_metadata_call2(plain, {"tag": "x"}, ad_metadata={"of": "pull"})  # type: ignore[attr-defined] # since 0.12
    program = jax.make_jaxpr(dualrev.grad(lambda x: jnp.sum(f(x))))(X)
    tags = [eqn.params["xla_metadata"] for eqn in program.eqns if str(eqn.primitive) == "xla_metadata_call"]
    assert tags == [(("tag", "x"),), (("of", "pull"),)]


@pytest.mark.parametrize("face", FACES, ids=str)
def test_stage_is_the_identity(face: Face) -> None:
    assert_same(face.grad(lambda x: jnp.sum(primitive("stage").bind(x) ** 2))(X), 2 * X)


@pytest.mark.parametrize("face", FACES, ids=str)
def test_arrays_of_hosts(face: Face) -> None:
    """Here on one host, whose part is the whole."""
    from jax.experimental import multihost_utils as hosts
    from jax.sharding import Mesh, PartitionSpec

    mesh, spec = Mesh(np.array(jax.devices()[:1]), ("i",)), PartitionSpec("i")

    def f(x: Any) -> Any:
        whole = hosts.host_local_array_to_global_array(x, mesh, spec)
        return jnp.sum(hosts.global_array_to_host_local_array(whole ** 2, mesh, spec) * x)

    assert_same(face.grad(f)(X), 3 * X ** 2)
