"""Checkpoints: what they store, what they evaluate again, and that the derivatives are those without one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import FACES, Face, assert_close, assert_same, promoting
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import dualrev
from dualrev import policies
from dualrev.errors import NonReplayableError
from dualrev.programs.partition import eqns_within

pytestmark = pytest.mark.thorough

DRAW = np.random.default_rng(0)
W = jnp.asarray(DRAW.normal(size=(4, 4)) / 2)
X = jnp.asarray(DRAW.normal(size=4))
LAYERS = [jnp.asarray(DRAW.normal(size=(8, 8)) / 3) for _ in range(3)]
ROWS = jnp.asarray(DRAW.normal(size=(5, 8)))

POLICIES = {
    "none": None,
    "nothing": policies.nothing_saveable,
    "everything": policies.everything_saveable,
    "dots": policies.dots_saveable,
    "dots without batch": policies.dots_with_no_batch_dims_saveable,
    "dots offloaded": policies.offload_dot_with_no_batch_dims("device", "pinned_host"),
    "anything": policies.save_anything_except_these_names("pre1"),
    "names but": policies.save_any_names_but_these("pre1"),
    "names": policies.save_only_these_names("act0", "pre2"),
    "both": policies.save_from_both_policies(policies.save_only_these_names("act0"), policies.dots_saveable),
    "names offloaded": policies.save_and_offload_only_these_names(
        names_which_can_be_saved=["pre0"], names_which_can_be_offloaded=["act1"], offload_src="device", offload_dst="pinned_host"),
    "auto": "auto",
}
#: What jax stores here is more: it keeps partials, and a value beside its name.
AT_MOST = ("everything", "anything")


def named(policy: Any) -> str:
    return getattr(policy, "__name__", str(policy))


def network(layers: Any, x: Any) -> Any:
    for i, w in enumerate(layers):
        x = checkpoint_name(x @ w, f"pre{i}")
        x = checkpoint_name(jnp.tanh(x), f"act{i}") * jnp.sin(x)
    return x


def squares(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: jnp.sum(jnp.abs(f(*args)) ** 2)


def bytes_of(f: Callable[..., Any], *args: Any) -> int:
    return dualrev.linearize(f, *args)[1].residual_bytes


def bytes_of_jax(f: Callable[..., Any], *args: Any) -> int:
    return sum({id(x): x.nbytes for x in jax.tree.leaves(jax.vjp(f, *args)[1])}.values())


def primitives(f: Callable[..., Any], *args: Any) -> Iterator[str]:
    return (str(eqn.primitive) for eqn in eqns_within(jax.make_jaxpr(f)(*args)))


def contractions(f: Callable[..., Any], *args: Any) -> int:
    return sum(name == "dot_general" for name in primitives(f, *args))


# ------------------------------------------------------------------------------------------------------------------- memory


def waves(x: Any) -> Any:
    for _ in range(10):
        x = jnp.sin(x)
    return x


def test_chain_of_ten_stores_one_array() -> None:
    x = jnp.linspace(0.0, 1.0, 1000)
    assert bytes_of(waves, x) == 10 * x.nbytes
    out, J = dualrev.linearize(dualrev.checkpoint(waves, policy="auto"), x)
    assert J.residual_bytes == x.nbytes
    assert [r.kind for r in J.residuals()] == ["input"]
    assert_same((out, J @ x, J.T @ x), (waves(x), jax.jvp(waves, (x,), (x,))[1], jax.vjp(waves, x)[1](x)[0]))
    assert bytes_of(dualrev.checkpoint(waves, policy=policies.everything_saveable), x) == 10 * x.nbytes


@pytest.mark.parametrize("policy", [None, "auto"])
def test_derivatives_of_derivatives_store_what_the_policy_says(policy: Any) -> None:
    x = jnp.linspace(0.0, 1.0, 1000)
    f = dualrev.checkpoint(waves, policy=policy)
    assert bytes_of(dualrev.grad(lambda x: jnp.sum(waves(x))), x) > 20 * x.nbytes
    # The input and the cotangent of the output.
    assert bytes_of(dualrev.grad(lambda x: jnp.sum(f(x))), x) == 2 * x.nbytes


@pytest.mark.parametrize("name", POLICIES)
def test_policies_store_what_jax_stores(name: str) -> None:
    f = dualrev.checkpoint(network, policy=POLICIES[name])  # type: ignore[arg-type]
    found, expected = bytes_of(f, LAYERS, ROWS), bytes_of_jax(f, LAYERS, ROWS)
    if name in AT_MOST:
        assert found == bytes_of(network, LAYERS, ROWS) < expected
    else:
        assert found == expected
    gradient = jax.jit(dualrev.grad(squares(f), (0, 1)))
    assert_same(gradient(LAYERS, ROWS), jax.grad(squares(network), (0, 1))(LAYERS, ROWS))
    assert contractions(gradient, LAYERS, ROWS) == contractions(jax.grad(squares(f), (0, 1)), LAYERS, ROWS)


@pytest.mark.parametrize("policy", ["auto", policies.dots_saveable])
def test_no_contraction_runs_twice(policy: Any) -> None:
    plain = contractions(dualrev.grad(squares(network), (0, 1)), LAYERS, ROWS)
    assert contractions(dualrev.grad(squares(dualrev.checkpoint(network, policy=policy)), (0, 1)), LAYERS, ROWS) == plain
    assert contractions(dualrev.grad(squares(dualrev.checkpoint(network)), (0, 1)), LAYERS, ROWS) == plain + 3


def body_of(policy: Any) -> Callable[..., Any]:
    def body(x: Any, w: Any) -> Any:
        return network([w], x), jnp.sum(x)

    return body if policy == "plain" else dualrev.checkpoint(body, policy=policy, prevent_cse=False)


@pytest.mark.parametrize("name", ["none", "dots", "names but", "auto"])
def test_scan_over_a_checkpointed_body(name: str) -> None:
    stacked = jnp.stack(LAYERS * 4)
    f = lambda ws, x: lax.scan(body_of(POLICIES[name]), x, ws)[0]  # noqa: E731
    assert bytes_of(f, stacked, ROWS) == bytes_of_jax(f, stacked, ROWS)
    # Every step's carry, and one array for each value that the policy stores.
    assert bytes_of(f, stacked, ROWS) == stacked.nbytes + {"none": 12, "dots": 24, "names but": 36, "auto": 24}[name] * ROWS.nbytes
    plain = lambda ws, x: lax.scan(body_of("plain"), x, ws)[0]  # noqa: E731
    assert_same(jax.jit(dualrev.grad(squares(f), (0, 1)))(stacked, ROWS), jax.grad(squares(plain), (0, 1))(stacked, ROWS))


def test_policy_has_a_say_inside_a_loop() -> None:
    stacked = jnp.stack(LAYERS * 4)
    f = lambda ws, x: lax.scan(body_of("plain"), x, ws)[0]  # noqa: E731
    for policy in ("auto", policies.dots_saveable):
        checkpointed = dualrev.checkpoint(f, policy=policy)  # type: ignore[call-overload]
        assert bytes_of(checkpointed, stacked, ROWS) == stacked.nbytes + 24 * ROWS.nbytes < bytes_of(f, stacked, ROWS)
        assert contractions(dualrev.grad(squares(checkpointed)), stacked, ROWS) == contractions(dualrev.grad(squares(f)), stacked, ROWS)
    assert bytes_of(dualrev.checkpoint(f), stacked, ROWS) == stacked.nbytes + ROWS.nbytes


def test_what_is_small_is_stored() -> None:
    """Not the array that it was computed from: reductions do not run twice, and a comparison takes an eighth."""
    x = jnp.linspace(-1.0, 1.0, 1000)
    total = dualrev.linearize(dualrev.checkpoint(lambda x: jnp.sin(jnp.sum(x)), policy="auto"), x)[1]
    assert total.residual_bytes == 8
    f = dualrev.checkpoint(lambda x, y: jnp.where(jnp.exp(y) > 1.0, 2.0 * x, x), policy="auto")
    assert bytes_of(f, x, x) == 1000


def test_each_array_is_held_once() -> None:
    x = jnp.ones(100)
    out, J = dualrev.linearize(dualrev.checkpoint(lambda x: (jnp.exp(x), x * jnp.exp(x)), policy=policies.everything_saveable), x)
    held = jax.tree.leaves(J.tape)
    assert len({id(leaf) for leaf in held}) == len(held) and any(leaf is out[0] for leaf in held) and any(leaf is x for leaf in held)


@pytest.mark.parametrize("prevent_cse", [True, False, (True, False)])
def test_what_runs_again_is_tied_to_the_cotangent(prevent_cse: Any) -> None:
    f = dualrev.checkpoint(lambda x, y: jnp.sin(jnp.sin(x) * jnp.exp(y)), prevent_cse=prevent_cse)
    saving = dualrev.checkpoint(lambda x: jnp.sin(jnp.sin(W @ x)), prevent_cse=prevent_cse is not False, policy="auto")
    assert ("optimization_barrier" in primitives(dualrev.grad(squares(saving)), X)) is (prevent_cse is not False)
    for d in (dualrev, jax):
        assert ("optimization_barrier" in primitives(dualrev.grad(squares(f)), X, X)) is (prevent_cse is not False)
        assert_same(d.jvp(f, (X, X), (X, X))[1], jax.jvp(lambda x, y: jnp.sin(jnp.sin(x) * jnp.exp(y)), (X, X), (X, X))[1])


def test_the_outer_policy_decides_what_an_inner_checkpoint_keeps_meanwhile() -> None:
    inner = dualrev.checkpoint(waves, policy=policies.everything_saveable)
    x = jnp.ones(1000)
    outer = dualrev.checkpoint(lambda x: inner(jnp.exp(x)))
    assert bytes_of(outer, x) == x.nbytes
    assert bytes_of(lambda x: inner(jnp.exp(x)), x) == 10 * x.nbytes
    everything = dualrev.checkpoint(lambda x: dualrev.checkpoint(waves)(jnp.exp(x)), policy=policies.everything_saveable)
    assert bytes_of(everything, x) == x.nbytes


# -------------------------------------------------------------------------------------------------------------------- values


@jax.custom_vjp
def trebled(x: Any) -> Any:
    return jnp.sin(x)


trebled.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (3.0 * ct * jnp.cos(x),))


def nested(x: Any) -> Any:
    return jax.checkpoint(lambda y: jnp.sin(jnp.exp(W @ y)))(jnp.tanh(W @ x)) * x


def compiled(x: Any) -> Any:
    return jax.jit(lambda y: jax.nn.silu(W @ y) * y)(jnp.sin(x))


@jax.jit
def layer(y: Any) -> Any:
    return jnp.tanh(W @ y) * y


def twice(x: Any) -> Any:
    return layer(layer(jnp.cos(x)))


def dropout(x: Any) -> Any:
    kept = jax.random.bernoulli(jax.random.key(0), 0.5, x.shape)
    return jnp.where(kept, W @ jnp.sin(x), 0.0) * x


def sorted_(x: Any) -> Any:
    return (jnp.sin(x)[jnp.argsort(x)] * jnp.exp(x)) @ W


@promoting()
def spectrum(x: Any) -> Any:
    z = jnp.fft.fft(jnp.exp(1j * x) * x)
    return z * jnp.conj(W @ z)


def looped(x: Any) -> Any:
    return lax.scan(lambda c, _: (jnp.tanh(W @ c) * c, None), x, None, length=3)[0]


def branched(x: Any) -> Any:
    return lax.cond(x[0] > 0, lambda y: jnp.sin(W @ y) * y, lambda y: jnp.cos(y) @ W, x)


FUNCTIONS = [nested, compiled, twice, dropout, sorted_, spectrum, looped, branched]


@pytest.mark.parametrize("policy", [None, "auto", policies.dots_saveable], ids=named)
@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
def test_derivatives_are_those_without_a_checkpoint(f: Callable[..., Any], policy: Any) -> None:
    total, plain = squares(dualrev.checkpoint(f, policy=policy)), squares(f)
    batch = jnp.stack([X, 2 * X])
    assert_same(dualrev.grad(total)(X), jax.grad(plain)(X))
    assert_same(jax.jit(jax.vmap(dualrev.grad(total)))(batch), jax.vmap(jax.grad(plain))(batch))
    assert_same(jax.jit(dualrev.jvp, static_argnums=0)(total, (X,), (X,)), jax.jvp(plain, (X,), (X,)))
    second = jax.jvp(jax.grad(plain), (X,), (X,))[1]
    assert_same(jax.jit(lambda x: dualrev.jvp(dualrev.grad(total), (x,), (x,))[1])(X), second)
    assert_same(jax.jit(lambda x: dualrev.vjp(dualrev.grad(total), x)[1](x)[0])(X), second)


@pytest.mark.parametrize("policy", [None, "auto"])
def test_users_rule_inside(policy: Any) -> None:
    f = lambda x: trebled(W @ x) * trebled(x)  # noqa: E731
    total = squares(dualrev.checkpoint(f, policy=policy))
    assert_same(dualrev.grad(total)(X), jax.grad(squares(f))(X))
    assert_same(jax.jit(dualrev.jacrev(dualrev.grad(total)))(X), jax.jacrev(jax.grad(squares(f)))(X))


def test_jax_follows_the_automatic_policy() -> None:
    f = dualrev.checkpoint(network, policy="auto")
    plain = jax.grad(squares(network))
    assert_same(jax.grad(squares(f))(LAYERS, ROWS), plain(LAYERS, ROWS))
    assert contractions(jax.grad(squares(f)), LAYERS, ROWS) == contractions(plain, LAYERS, ROWS)
    assert bytes_of_jax(f, LAYERS, ROWS) < bytes_of_jax(network, LAYERS, ROWS)


def test_map_that_left_jit() -> None:
    J = jax.jit(lambda x: dualrev.linearize(dualrev.checkpoint(waves, policy="auto"), x)[1])(X)
    assert J.residual_bytes == X.nbytes
    assert_same((J @ X, J.T @ X), (jax.jvp(waves, (X,), (X,))[1], jax.vjp(waves, X)[1](X)[0]))


# ------------------------------------------------------------------------------------------------------------------- effects


@pytest.mark.parametrize("policy", [None, "auto", policies.everything_saveable], ids=named)
def test_prints_print_as_often_as_in_jax(policy: Any, capfd: pytest.CaptureFixture[str]) -> None:
    def f(x: Any) -> Any:
        y = jnp.sin(x)
        jax.debug.print("seen {}", y[0])
        return jnp.sum(jnp.sin(y))

    def count(gradient: Any) -> int:
        gradient(X)
        jax.effects_barrier()
        return capfd.readouterr().out.count("seen")

    g = dualrev.checkpoint(f, policy=policy)
    assert count(dualrev.grad(g)) == count(jax.jit(dualrev.grad(g)))
    if policy is None:
        assert count(dualrev.grad(g)) == count(jax.grad(g)) == 2
    else:
        assert count(dualrev.grad(g)) >= 1


@pytest.mark.parametrize("face", FACES, ids=named)
def test_effects_that_must_not_happen_twice(face: Face) -> None:
    from jax.experimental import io_callback

    def f(x: Any) -> Any:
        return jnp.sum(io_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), lax.stop_gradient(x), ordered=True) * x)

    checkpointed = dualrev.checkpoint(f)
    with pytest.raises(NotImplementedError, match="Effects not supported"):
        jax.grad(checkpointed)(X)
    if face.engine == "forward":
        assert_same(face.grad(checkpointed)(X), jnp.sin(X))
    else:
        with pytest.raises(NonReplayableError, match=r"OrderedIO.*'io_callback' at .*test_checkpoint\.py.*Move the operation"):
            face.grad(checkpointed)(X)


# ---------------------------------------------------------------------------------------------------------------- the face


def test_decorator_and_arguments() -> None:
    @dualrev.checkpoint(policy="auto", static_argnums=1)
    def power(x: Any, n: int) -> Any:
        return jnp.sin(x) ** n if n > 1 else x

    assert_same(dualrev.grad(lambda x: jnp.sum(power(x, 2)))(X), jnp.sin(2 * X))
    assert_same(dualrev.grad(lambda x: jnp.sum(dualrev.checkpoint(jnp.sin)(x)))(X), jnp.cos(X))
    assert policies.dots_saveable is jax.checkpoint_policies.dots_saveable
    with pytest.raises(TypeError, match="policy must be None, 'auto' or a function"):
        dualrev.checkpoint(jnp.sin, policy="dots")  # type: ignore[call-overload]
    with pytest.raises(AttributeError, match="no_such_policy"):
        _ = policies.no_such_policy


def test_static_arguments_by_name() -> None:
    """A name is static by keyword, by position and under jit, and the function is traced once for each value."""
    traced: list[str] = []

    @functools.partial(dualrev.checkpoint, static_argnames=("kind", "power"))
    def f(x: Any, kind: str = "sin", *, power: int = 1) -> Any:
        """A wave."""
        traced.append(kind)
        wave = jnp.sin(x) if kind == "sin" else jnp.cos(x)
        for _ in range(power):
            wave = wave * x
        return wave

    assert f.__name__ == "f"
    assert f.__doc__ == "A wave."
    x = 0.7
    expected = np.cos(x) * x**2 + 2 * x * np.sin(x)
    for call in (lambda x: f(x, power=2), lambda x: f(x, "sin", power=2), lambda x: f(x, kind="sin", power=2)):
        assert_close(dualrev.grad(call)(x), expected)
        assert_close(dualrev.grad(jax.jit(call))(x), expected)
        assert_close(jax.grad(call)(x), expected)
        assert "remat" in str(jax.make_jaxpr(call)(x))
    assert_close(dualrev.grad(lambda x: f(x, "cos"))(x), np.cos(x) - x * np.sin(x))
    assert len(traced) == 4
    both = dualrev.checkpoint(lambda x, n, kind: x**n if kind else x, static_argnums=1, static_argnames="kind")
    assert_close(dualrev.grad(both)(x, 3, True), 3 * x**2)
    anything = dualrev.checkpoint(lambda x, **options: x * len(options["kind"]), static_argnames="kind", policy="auto")
    assert_close(dualrev.grad(anything)(x, kind="four"), 4.0)
    with pytest.raises(ValueError, match="'knd', which is not an argument of f; its arguments are x, kind, power"):
        dualrev.checkpoint(f, static_argnames="knd")
    with pytest.raises(ValueError, match=r"static argument 'kind' must be hashable; got \['sin'\] of type list"):
        f(x, kind=["sin"])
    with pytest.raises(TypeError, match="static_argnames must be a string or several"):
        dualrev.checkpoint(f, static_argnames=(1,))  # type: ignore[arg-type]


def test_concrete() -> None:
    assert_close(dualrev.grad(dualrev.checkpoint(jnp.sin, concrete=False))(0.5), np.cos(0.5))
    with pytest.raises(NotImplementedError, match=r"concrete=True is not supported.*static_argnames"):
        dualrev.checkpoint(concrete=True)(jnp.sin)
