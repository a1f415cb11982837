"""What a call may ask beyond jax: zeros that win, cotangents in a dtype of their own, leaves that pass through, pushes of VJP rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import FACES, Face, assert_same

import dualrev

pytestmark = pytest.mark.thorough

# ---------------------------------------------------------------------------------------------------------------- zero_wins


def one_side(x: Any) -> Any:
    return jnp.where(x < 1, x, jnp.sqrt(x))


def norm(x: Any) -> Any:
    return jnp.sqrt(jnp.sum(x * x))


def norm_by_contraction(x: Any) -> Any:
    return jnp.sqrt(x @ x)


def guarded_log(x: Any) -> Any:
    return jnp.where(x > 0, jnp.log(x), 0.0)


def standard_deviation(x: Any) -> Any:
    return jnp.std(x)


#: The mean of four ones is exact however a compiler contracts it.
ZERO_WINS: list[tuple[Callable[..., Any], Any, Any]] = [
    (one_side, 0.0, 1.0), (norm, jnp.zeros(3), jnp.zeros(3)), (norm_by_contraction, jnp.zeros(3), jnp.zeros(3)),
    (guarded_log, 0.0, 0.0), (guarded_log, -1.0, 0.0), (standard_deviation, jnp.ones(4), jnp.zeros(4)),
]


@pytest.mark.parametrize("face", FACES, ids=str)
@pytest.mark.parametrize(("f", "x", "expected"), ZERO_WINS, ids=lambda v: getattr(v, "__name__", None))
def test_zero_wins(f: Callable[..., Any], x: Any, expected: Any, face: Face) -> None:
    """jax gives nan at each of these points, apart from a negative argument behind a guard."""
    if f is not guarded_log or x == 0.0:
        assert not np.isfinite(jax.grad(f)(x)).all()
    for gradient in (face.grad(f, zero_wins=True), jax.jit(face.grad(f, zero_wins=True))):
        np.testing.assert_array_equal(gradient(x), expected)
    batch = jnp.stack([jnp.asarray(x, float), jnp.asarray(x, float) + 2.0 + jnp.arange(float(jnp.size(x))).reshape(jnp.shape(x))])
    np.testing.assert_allclose(jax.vmap(face.grad(f, zero_wins=True))(batch)[1], jax.grad(f)(batch[1]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("face", FACES, ids=str)
def test_infinities_and_nans_that_mean_something_survive(face: Face) -> None:
    def gradient(f: Callable[..., Any], x: float) -> float:
        return float(face.grad(f, zero_wins=True)(x))

    assert gradient(jnp.sqrt, 0.0) == np.inf
    assert gradient(lambda x: -2 * jnp.sqrt(x), 0.0) == -np.inf
    assert gradient(lambda x: x * jnp.inf, 2.0) == np.inf
    assert np.isnan(gradient(lambda x: x * jnp.nan, 2.0))
    assert np.isnan(gradient(lambda x: jnp.sqrt(x), -1.0))
    row = jnp.array([1.0, jnp.inf])
    matrix = jnp.array([[2.0, 3.0], [0.0, 1.0]])
    assert_same(face.vjp(lambda x: matrix @ x, row, zero_wins=True)[1](row)[0], jnp.array([2.0, jnp.inf]))
    mixed = face.vjp(lambda x: jnp.array([[1.0], [-1.0]]) @ x, jnp.ones(1), zero_wins=True)[1](jnp.array([jnp.inf, jnp.inf]))[0]
    assert np.isnan(mixed).all()


@pytest.mark.parametrize("f", [lambda x: jnp.sum(jnp.sin(x) ** 2), lambda x: (x @ x) ** 2, lambda x: jnp.prod(jnp.cumsum(x) ** 2)])
def test_second_derivatives_where_first_ones_vanish(f: Callable[..., Any]) -> None:
    """A product with a zero that wins nothing is a product: its own derivative is not lost."""
    for x in (jnp.zeros(2), jnp.array([0.0, 1.0])):
        assert_same(dualrev.hessian(f, zero_wins=True)(x), jax.hessian(f)(x))


def test_nested_calls_keep_their_own_settings() -> None:
    def inner(x: Any) -> Any:
        return dualrev.grad(one_side)(x)

    assert np.isnan(dualrev.jvp(inner, (0.0,), (1.0,), zero_wins=True)[0])
    assert float(dualrev.vjp(lambda x: dualrev.grad(one_side, zero_wins=True)(x), 0.0)[0]) == 1.0


# ---------------------------------------------------------------------------------------------------------- cotangent_dtype

BF16 = jnp.bfloat16


def unrolled(w: Any) -> Any:
    total = jnp.float32(0)
    for _ in range(1000):
        total = total + w.astype(jnp.float32)
    return total


def looped(w: Any) -> Any:
    return jax.lax.fori_loop(0, 1000, lambda _, total: total + w.astype(jnp.float32), jnp.float32(0))


def looped_compiled(w: Any) -> Any:
    return jax.jit(looped)(w)


def looked_up(w: Any) -> Any:
    return jnp.sum(w[jnp.zeros(1000, jnp.int32)].astype(jnp.float32))


def product(w: Any) -> Any:
    return jnp.sum((w * jnp.ones(1000, BF16)).astype(jnp.float32))


def contracted(w: Any) -> Any:
    return jnp.sum((jnp.ones((1000, 1), BF16) @ w.reshape(1, 1)).astype(jnp.float32))


@pytest.mark.parametrize("face", FACES, ids=str)
@pytest.mark.parametrize("f", [unrolled, looped, looped_compiled, looked_up, product, contracted], ids=lambda f: f.__name__)
def test_cotangents_accumulate_in_a_wider_dtype(f: Callable[..., Any], face: Face) -> None:
    w = jnp.ones((1,) if f is looked_up else (), BF16)
    if f is unrolled:
        assert float(jax.grad(f)(w)) == 256
        assert float(face.grad(f)(w)) in (256, 1000)  # a push does not accumulate
    gradient = face.grad(f, cotangent_dtype=jnp.float32)(w)
    assert gradient.dtype == jnp.float32 and gradient.shape == w.shape
    assert float(gradient.sum()) == 1000
    assert float(jax.jit(face.grad(f, cotangent_dtype="float32"))(w).sum()) == 1000


def test_cotangent_dtypes_by_parameter() -> None:
    p = {"w": jnp.ones(2, BF16), "b": jnp.ones(2, BF16), "x": jnp.ones(2)}

    def f(p: Any) -> Any:
        return jnp.sum(jnp.sin(p["w"] * p["b"]).astype(jnp.float64) * p["x"])

    found = dualrev.grad(f, cotangent_dtype={"w": jnp.float32})(p)
    assert {k: str(v.dtype) for k, v in found.items()} == {"w": "float32", "b": "bfloat16", "x": "float64"}
    assert dualrev.grad(f, cotangent_dtype="float32")(p)["x"].dtype == jnp.float64
    _, pull = dualrev.vjp(lambda w, x: w.astype(x.dtype) * x, p["w"], p["x"], cotangent_dtype=(jnp.float64, None))
    assert [str(ct.dtype) for ct in pull(jnp.ones(2))] == ["float64", "float64"]
    jacobian = dualrev.jacrev(lambda w: w * 2, cotangent_dtype=jnp.float32)(p["w"])
    assert jacobian.dtype == jnp.float32


def test_cotangent_dtype_errors() -> None:
    with pytest.raises(ValueError, match="prefix of the differentiated arguments"):
        dualrev.grad(lambda p: p["a"], cotangent_dtype={"b": "float32"})({"a": 1.0})
    with pytest.raises(TypeError, match="floating-point or complex dtype"):
        dualrev.grad(jnp.sin, cotangent_dtype="int32")(1.0)


# ---------------------------------------------------------------------------------------------------------------- non_float


class Model:
    """A parameter among leaves of every other kind."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {"w": jnp.array([0.3, 0.5]), "n": 3, "f": jnp.sin, "s": "name", "key": jax.random.key(0),
                                     "on": jnp.array([True]), "none": None, "scale": 2.0}

    @staticmethod
    def loss(p: Any) -> Any:
        assert p["s"] == "name" and p["none"] is None
        return jnp.sum(p["f"](p["w"])) * p["n"] * p["scale"] * jnp.where(p["on"][0], 1.0, 0.0)


@pytest.mark.parametrize("face", FACES, ids=str)
def test_leaves_pass_through(face: Face) -> None:
    p = Model().tree
    nothing = dict.fromkeys(p)
    expected = {**nothing, "w": 6 * jnp.cos(p["w"]), "scale": 3 * jnp.sum(jnp.sin(p["w"]))}
    assert_same(face.grad(Model.loss, non_float="none")(p), expected)
    out, pull = face.vjp(lambda p: (Model.loss(p), p["n"], "done"), p, non_float="none")
    assert out[1:] == (3, "done")
    assert_same(pull((1.0, None, None))[0], expected)
    (_, n, word), tangent = face.jvp(lambda p: (Model.loss(p), p["n"], "done"), (p,), ({**nothing, "w": p["w"], "scale": 1.0},),
                                         non_float="none")
    assert (n, word) == (3, "done") and tangent[1:] == (None, None)
    assert_same(tangent[0], jnp.sum(6 * jnp.cos(p["w"]) * p["w"]) + 3 * jnp.sum(jnp.sin(p["w"])))
    (_, aux), gradient = face.value_and_grad(lambda p: (Model.loss(p), p["w"]), has_aux=True, non_float="none")(p)
    assert_same((aux, gradient), (p["w"], expected))
    jacobian = face.jacobian(lambda p: {"y": p["w"] * p["scale"], "what": "it"}, non_float="none")(p)
    assert jacobian["what"] is None
    assert_same(jacobian["y"], {**nothing, "w": 2.0 * jnp.eye(2), "scale": p["w"]})


def test_no_influence_is_zeros_and_float0_stays_the_default() -> None:
    p = {"w": jnp.ones(2), "unused": jnp.ones(3), "n": 3}
    found = dualrev.grad(lambda p: jnp.sum(p["w"]), non_float="none")(p)
    assert_same(found, {"w": jnp.ones(2), "unused": jnp.zeros(3), "n": None})
    assert dualrev.grad(lambda p: jnp.sum(p["w"]), allow_int=True)(p)["n"].dtype == jax.dtypes.float0
    with pytest.raises(TypeError, match="not a valid JAX type"):
        dualrev.grad(Model.loss)(Model().tree)


# ----------------------------------------------------------------------------------------------------------- custom_vjp_jvp


@jax.custom_vjp
def scaled_backward(x: Any) -> Any:
    return jnp.sin(x)


scaled_backward.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (7.0 * ct,))


@pytest.mark.parametrize("face", FACES, ids=str)
@pytest.mark.parametrize("compiled", [False, True])
def test_push_of_a_custom_vjp_function(face: Face, compiled: bool) -> None:
    f = jax.jit(scaled_backward) if compiled else scaled_backward

    def found(policy: Any) -> list[float]:
        options = {} if policy is None else dict(custom_vjp_jvp=policy)
        return [float(face.jvp(f, (0.5,), (1.0,), **options)[1]), float(face.jacfwd(f, **options)(0.5)),
                float(face.linearize(f, 0.5, **options)[1](1.0))]

    with pytest.raises(TypeError, match="can't apply forward-mode autodiff"):
        jax.jvp(f, (0.5,), (1.0,))
    assert found(None) == found("transpose") == [7.0] * 3
    np.testing.assert_allclose(found("differentiate_primal"), np.cos(0.5), rtol=1e-14)
    with pytest.raises(TypeError, match=r"can't apply forward-mode autodiff .*custom_vjp_jvp='error'"):
        found("error")
    if face.engine == "reverse":
        for policy in ("error", "differentiate_primal"):  # a pull is the user's own whatever pushes
            assert float(face.grad(f, custom_vjp_jvp=policy)(0.5)) == 7.0


@jax.custom_vjp
def tripled(t: Any) -> Any:
    return jax.pure_callback(lambda t: np.asarray(3 * t), jax.ShapeDtypeStruct(t.shape, t.dtype), t, vmap_method="sequential")


tripled.defvjp(lambda t: (tripled(t), None), lambda _, ct: (tripled(ct),))


@jax.custom_jvp
def sine(x: Any) -> Any:
    return jnp.sin(x)


sine.defjvp(lambda primals, tangents: (sine(*primals), jnp.cos(primals[0]) * tripled(tangents[0])))


@pytest.mark.parametrize("face", FACES, ids=str)
def test_custom_jvp_whose_rule_calls_a_custom_vjp(face: Face) -> None:
    """The inner function's own backward function transposes it, whatever it computes with."""
    with pytest.raises(NotImplementedError, match="custom_vjp_call"):
        jax.grad(sine)(0.5)
    expected = 3 * np.cos(0.5)
    np.testing.assert_allclose([face.grad(sine)(0.5), jax.jit(face.grad(sine))(0.5)], [expected] * 2, rtol=1e-14)
    np.testing.assert_allclose(face.grad(face.grad(sine))(0.5), -3 * np.sin(0.5), rtol=1e-14)


# ------------------------------------------------------------------------------------------------------------------- errors


def test_unknown_options() -> None:
    with pytest.raises(TypeError, match=r"grad\(\) got an unexpected keyword argument 'zero_win'; its options are"):
        dualrev.grad(jnp.sin, zero_win=True)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="custom_vjp_jvp must be"):
        dualrev.jvp(jnp.sin, (1.0,), (1.0,), custom_vjp_jvp="primal")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="non_float must be"):
        dualrev.vjp(jnp.sin, 1.0, non_float=None)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="zero_wins must be"):
        dualrev.linearize(jnp.sin, 1.0, zero_wins=1)  # type: ignore[call-overload]
