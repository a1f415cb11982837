"""What bad input raises: the class that jax raises, the phrase that users search for, and what is wrong where."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import ENGINES, FACES, Face
from jax import lax
from jax.extend.core import Primitive

import dualrev

VEC = np.array([0.5, -1.5, 2.0])
NOT_SCALAR = r"^Gradient only defined for scalar-output functions\. "
JVP_ARGUMENTS = "primal and tangent arguments to jax.jvp "
NEEDS_REAL = r"requires real- or complex-valued inputs \(input dtype that is a sub-dtype of np.inexact\), but got "
REAL_OUTPUT = r"requires real-valued outputs \(output dtype that is a sub-dtype of np.floating\), but got "
REAL_INPUT = r"requires real-valued inputs \(input dtype that is a sub-dtype of np.floating\), but got "
BAD_TANGENT = "linearized function called on tangent values inconsistent with the original primal values"
INDEX = "must have value greater than or equal to -len\\(args\\) and less than len\\(args\\), but got value"


def product(x: Any, y: Any) -> Any:
    return x * y


def unknown_op(x: Any) -> Any:
    return _unknown_p.bind(x)


_unknown_p = Primitive("unknown_op")
_unknown_p.def_impl(lambda x: x)
_unknown_p.def_abstract_eval(lambda x: x)

#: name, program, class (as jax), phrases that the message must match.
BAD: list[tuple[str, Callable[[Any], Any], type[Exception], list[str]]] = [
    # grad of something that is not a scalar
    ("grad tuple", lambda d: d.grad(lambda x: (x, x))(1.0), TypeError, [NOT_SCALAR, r"Output was \("]),
    ("grad empty", lambda d: d.grad(lambda x: ())(1.0), TypeError, [NOT_SCALAR, r"Output was \(\)"]),
    ("grad none", lambda d: d.grad(lambda x: None)(1.0), TypeError, [NOT_SCALAR, "Output was None"]),
    ("grad vector", lambda d: d.grad(lambda x: x)(VEC), TypeError, [NOT_SCALAR, r"had shape: \(3,\)"]),
    ("grad one element", lambda d: d.grad(lambda x: x)(np.ones(1)), TypeError, [NOT_SCALAR, r"had shape: \(1,\)"]),
    ("value_and_grad vector", lambda d: d.value_and_grad(lambda x: x)(VEC), TypeError, [NOT_SCALAR]),
    # dtypes
    ("grad int", lambda d: d.grad(lambda x: x**2)(3), TypeError, [f"^grad {NEEDS_REAL}int64", "allow_int"]),
    ("grad bool", lambda d: d.grad(lambda x: x * 1.0)(True), TypeError, [f"^grad {NEEDS_REAL}bool"]),
    ("grad key", lambda d: d.grad(lambda k: jax.random.uniform(k))(jax.random.key(0)), TypeError, [NEEDS_REAL]),
    ("grad int leaf", lambda d: d.grad(lambda p: p["a"] * 1.0)({"a": 1, "b": 2.0}), TypeError, [f"{NEEDS_REAL}int64"]),
    ("value_and_grad int", lambda d: d.value_and_grad(lambda x: x * 1.0)(3), TypeError, [NEEDS_REAL]),
    ("jacrev int", lambda d: d.jacrev(lambda x: x * 1.0)(3), TypeError, [f"^jacrev {NEEDS_REAL}int64"]),
    ("jacfwd int", lambda d: d.jacfwd(lambda x: x * 1.0)(3), TypeError, [f"^jacfwd {REAL_INPUT}int64"]),
    ("jacfwd complex", lambda d: d.jacfwd(lambda x: x * x)(1j), TypeError, [f"^jacfwd {REAL_INPUT}complex128"]),
    ("hessian int", lambda d: d.hessian(lambda x: x * 1.0)(3), TypeError, ["but got int64"]),
    ("grad complex output", lambda d: d.grad(lambda x: x + 1j)(3.0), TypeError,
     [f"^grad {REAL_OUTPUT}complex128", "holomorphic"]),
    ("grad complex", lambda d: d.grad(jnp.sin)(1j), TypeError, [REAL_OUTPUT]),
    ("grad int output", lambda d: d.grad(lambda x: jnp.int32(3))(1.0), TypeError, [f"{REAL_OUTPUT}int32"]),
    ("jacrev complex output", lambda d: d.jacrev(jnp.sin)(1j), TypeError, [f"^jacrev {REAL_OUTPUT}complex128"]),
    ("holomorphic grad real", lambda d: d.grad(lambda x: x * x, holomorphic=True)(3.0), TypeError,
     ["^grad with holomorphic=True requires inputs with complex dtype, but got float64"]),
    ("holomorphic jacfwd real", lambda d: d.jacfwd(lambda x: x * x, holomorphic=True)(3.0), TypeError,
     ["^jacfwd with holomorphic=True requires inputs with complex dtype, but got float64"]),
    ("holomorphic jacrev real", lambda d: d.jacrev(lambda x: x * x, holomorphic=True)(3.0), TypeError,
     ["^jacrev with holomorphic=True requires inputs with complex dtype, but got float64"]),
    ("holomorphic grad real output", lambda d: d.grad(jnp.real, holomorphic=True)(3j), TypeError,
     ["^grad with holomorphic=True requires outputs with complex dtype, but got float64"]),
    ("holomorphic jacfwd real output", lambda d: d.jacfwd(jnp.real, holomorphic=True)(3j), TypeError,
     ["^jacfwd with holomorphic=True requires outputs with complex dtype"]),
    # argnums
    ("argnums too few", lambda d: d.grad(product)(x=1.0, y=1.0), TypeError,
     ["differentiating with respect to argnums=0 requires at least 1 positional arguments to be passed by the caller, "
      "but got only 0 positional arguments"]),
    ("argnums out of range", lambda d: d.grad(jnp.sin, argnums=1)(1.0), TypeError,
     ["argnums=1 requires at least 2", "got only 1"]),
    ("argnums tuple out of range", lambda d: d.value_and_grad(product, argnums=(0, 2))(1.0, 2.0), TypeError,
     [r"argnums=\(0, 2\) requires at least 3", "got only 2"]),
    ("argnums negative out of range", lambda d: d.grad(product, argnums=-3)(1.0, 2.0), ValueError, [f"{INDEX} -3", "== 2"]),
    ("jacfwd argnums", lambda d: d.jacfwd(jnp.sin, argnums=1)(1.0), ValueError, [f"{INDEX} 1"]),
    ("jacrev argnums", lambda d: d.jacrev(jnp.sin, argnums=-2)(1.0), ValueError, [f"{INDEX} -2"]),
    ("hessian argnums", lambda d: d.hessian(jnp.sin, argnums=1)(1.0), ValueError, [f"{INDEX} 1"]),
    ("argnums text", lambda d: d.grad(product, argnums="x")(1.0, 2.0), TypeError, ["integer"]),
    ("argnums float", lambda d: d.grad(product, argnums=1.5)(1.0, 2.0), TypeError, ["float"]),
    ("argnums none", lambda d: d.grad(product, argnums=())(1.0, 2.0), ValueError, []),
    # what is not a function, not an array, not a pair
    *[(f"{name} of a number", lambda d, name=name: getattr(d, name)(3), TypeError, ["Expected a callable value, got 3"])
      for name in ("grad", "value_and_grad", "jacfwd", "jacrev", "hessian", "jacobian")],
    ("jvp of a number", lambda d: d.jvp(3, (1.0,), (1.0,)), TypeError, ["Expected a callable value, got 3"]),
    ("vjp of a number", lambda d: d.vjp(3, 1.0), TypeError, ["Expected a callable value, got 3"]),
    ("linearize of a number", lambda d: d.linearize(3, 1.0), TypeError, ["Expected a callable value, got 3"]),
    ("linear_transpose of a number", lambda d: d.linear_transpose(3, 1.0), TypeError, ["callable"]),
    ("grad of text", lambda d: d.grad(lambda x: x)("foo"), TypeError, [r".* 'foo' of type <.*'str'> is not a valid JAX type"]),
    ("vjp of text", lambda d: d.vjp(jnp.sin, "foo"), TypeError, [r".* 'foo' of type <.*'str'> is not a valid JAX type"]),
    ("jvp of text", lambda d: d.jvp(jnp.sin, ("foo",), (1.0,)), TypeError,
     [r"'foo' of type <.*'str'> is not a valid JAX type"]),
    ("jacfwd of text", lambda d: d.jacfwd(jnp.sin)("foo"), TypeError, [r"'foo' of type <.*'str'> is not a valid JAX type"]),
    ("text output", lambda d: d.grad(lambda x: "out")(1.0), TypeError, [r"'out' of type <.*'str'> is not a valid JAX type"]),
    ("jvp text output", lambda d: d.jvp(lambda x: "out", (1.0,), (1.0,)), TypeError, [r"'out' of type <.*'str'>"]),
    ("aux of three", lambda d: d.grad(lambda x: (1.0, 2.0, 3.0), has_aux=True)(1.0), TypeError, ["two-element tuple"]),
    ("aux of one", lambda d: d.grad(lambda x: (x,), has_aux=True)(1.0), TypeError, ["two-element tuple"]),
    ("aux missing", lambda d: d.grad(lambda x: x, has_aux=True)(1.0), TypeError, ["two-element tuple"]),
    ("vjp aux missing", lambda d: d.vjp(lambda x: x, 1.0, has_aux=True), TypeError, ["two-element tuple"]),
    ("linearize aux missing", lambda d: d.linearize(lambda x: x, 1.0, has_aux=True), TypeError, ["two-element tuple"]),
    ("reduce_axes", lambda d: d.grad(jnp.sin, reduce_axes=("i",))(1.0), NotImplementedError, ["reduce_axes"]),
    # tangents
    ("jvp bare primal", lambda d: d.jvp(product, 0.0, (1.0,)), TypeError,
     [f"{JVP_ARGUMENTS}must be tuples or lists; found float and tuple"]),
    ("jvp bare tangent", lambda d: d.jvp(product, (0.0,), np.ones(2)), TypeError,
     [f"{JVP_ARGUMENTS}must be tuples or lists; found tuple and ndarray"]),
    ("jvp missing tangent", lambda d: d.jvp(product, (1.0,), ()), TypeError,
     [f"{JVP_ARGUMENTS}must have the same tree structure"]),
    ("jvp tuple and list", lambda d: d.jvp(jnp.sin, (1.0,), [1.0]), TypeError,
     [f"{JVP_ARGUMENTS}must have the same tree structure"]),
    ("jvp dtype", lambda d: d.jvp(jnp.sin, (np.float16(2),), (np.float32(2),)), TypeError,
     [f"{JVP_ARGUMENTS}do not match", "primal dtype float16", "tangent dtype float32"]),
    ("jvp int tangent", lambda d: d.jvp(lambda x: x, (1,), (1,)), TypeError,
     [f"{JVP_ARGUMENTS}do not match", "float0", "int64"]),
    ("jvp shape", lambda d: d.jvp(jnp.sin, (VEC,), (np.ones(4),)), ValueError,
     ["jvp called with different primal and tangent shapes", r"\(3,\)", r"\(4,\)"]),
    ("jvp scalar shape", lambda d: d.jvp(jnp.sin, (VEC,), (2.0,)), ValueError,
     ["jvp called with different primal and tangent shapes"]),
    ("linearize structure", lambda d: d.linearize(jnp.sin, 1.0)[1](1.0, 2.0), TypeError, [r"expected PyTreeDef\(\(\*,\)\)"]),
    ("linearize shape", lambda d: d.linearize(jnp.sin, VEC)[1](np.ones(4)), ValueError,
     [BAD_TANGENT, r"float64\[4\]", r"float64\[3\]"]),
    ("linearize dtype", lambda d: d.linearize(jnp.sin, VEC)[1](np.ones(3, "float32")), ValueError, [BAD_TANGENT, "float32"]),
    ("linearize int tangent", lambda d: d.linearize(jnp.sin, 1.0)[1](1), ValueError, [BAD_TANGENT, "int64"]),
    ("linearize int primal", lambda d: d.linearize(jnp.sum, np.arange(3))[1](np.ones(3)), ValueError, [BAD_TANGENT, "float0"]),
    # cotangents
    ("vjp structure", lambda d: d.vjp(product, 3.0, 4.0)[1]((1.0, 2.0)), ValueError, ["unexpected tree structure"]),
    ("vjp none", lambda d: d.vjp(product, 3.0, 4.0)[1](None), ValueError, ["unexpected tree structure"]),
    ("vjp dtype", lambda d: d.vjp(product, np.float32(3), np.float32(4))[1](np.float16(42)), ValueError,
     ["unexpected JAX type", r"got float16\[\], but expected float32\[\]"]),
    ("vjp python float", lambda d: d.vjp(product, np.float32(3), np.float32(4))[1](1.0), ValueError,
     ["unexpected JAX type", "float64"]),
    ("vjp shape", lambda d: d.vjp(jnp.sin, np.ones((2, 3)))[1](np.ones((2, 4))), ValueError,
     ["unexpected JAX type", r"got float64\[2,4\]", r"expected float64\[2,3\]"]),
    ("vjp many arguments", lambda d: d.vjp(product, 3.0, 4.0)[1](1.0, 1.0), TypeError,
     ["applied to product", "single argument"]),
    ("vjp text", lambda d: d.vjp(product, 3.0, 4.0)[1]("u"), TypeError, []),
    ("transpose dtypes", lambda d: d.linear_transpose(lambda x: 2.0 * x, 1), TypeError, ["linear_transpose only supports"]),
    ("transpose structure", lambda d: d.linear_transpose(lambda x: [x, x], 1.0)(1.0), TypeError,
     ["cotangent tree does not match"]),
    ("transpose shape", lambda d: d.linear_transpose(lambda x: jnp.stack([x, x]), 1.0)(1.0), TypeError,
     ["cotangent type does not match"]),
    ("transpose complex", lambda d: d.linear_transpose(lambda x: x, 1.0)(1j), TypeError, ["cotangent type does not match"]),
    # inside the function
    ("to numpy", lambda d: d.grad(lambda x: np.exp(x).sum())(VEC), jax.errors.TracerArrayConversionError,
     ["The numpy.ndarray conversion method __array__\\(\\) was called on"]),
    ("branch on a vector", lambda d: d.grad(lambda x: x.sum() if x > 0 else x)(VEC), ValueError, ["truth value"]),
    ("assignment", lambda d: d.grad(lambda x: x.__setitem__(0, 1.0))(VEC), TypeError, ["immutable"]),
    ("hash", lambda d: d.grad(lambda x: hash(x) * x)(1.0), TypeError, ["unhashable"]),
    ("missing rule", lambda d: d.grad(unknown_op)(1.0), NotImplementedError,
     ["^Differentiation rule for 'unknown_op' not implemented"]),
    ("missing rule jvp", lambda d: d.jvp(unknown_op, (1.0,), (1.0,)), NotImplementedError,
     ["^Differentiation rule for 'unknown_op'"]),
]


def kind(error: BaseException) -> tuple[bool, ...]:
    return tuple(isinstance(error, c) for c in (TypeError, ValueError, NotImplementedError,
                                                jax.errors.TracerArrayConversionError))


@pytest.mark.parametrize("face", FACES, ids=ENGINES)
@pytest.mark.parametrize(("program", "expected", "phrases"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_input(program: Callable[[Any], Any], expected: type[Exception], phrases: list[str], face: Face) -> None:
    with pytest.raises(expected) as caught:
        program(face)
    with pytest.raises(expected):
        program(jax)
    for phrase in phrases:
        assert re.search(phrase, str(caught.value)), f"{phrase!r} not in {caught.value}"


# ------------------------------------------------------------------------------------------- which leaf, expected, got


TREE = {"a": VEC, "b": [np.ones((2, 3)), 1.0]}


@pytest.mark.parametrize("face", FACES, ids=ENGINES)
def test_the_leaf_of_a_bad_tangent_is_named(face: Face) -> None:
    bad = {"a": VEC, "b": [np.ones((3, 2)), 1.0]}
    with pytest.raises(ValueError, match=r"\['b'\]\[0\]") as caught:
        face.jvp(lambda p: p["a"], (TREE,), (bad,))
    assert "(2, 3)" in str(caught.value)
    assert "(3, 2)" in str(caught.value)
    with pytest.raises(ValueError, match=r"\['b'\]\[0\]"):
        face.linearize(lambda p: p["a"], TREE)[1](bad)
    with pytest.raises(TypeError, match=r"\['b'\]\[1\]"):
        face.jvp(lambda p: p["a"], (TREE,), ({"a": VEC, "b": [np.ones((2, 3)), np.float32(1)]},))


@pytest.mark.parametrize("face", FACES, ids=ENGINES)
def test_the_leaf_of_a_bad_cotangent_is_named(face: Face) -> None:
    _, pull = face.vjp(lambda p: p, TREE)
    with pytest.raises(ValueError, match=r"\['b'\]\[1\]") as caught:
        pull({"a": VEC, "b": [np.ones((2, 3)), np.ones(2)]})
    assert "float64[2]" in str(caught.value)
    assert "float64[]" in str(caught.value)


@pytest.mark.parametrize("face", FACES, ids=ENGINES)
def test_a_bad_argument_is_named(face: Face) -> None:
    with pytest.raises(TypeError, match=r"\['b'\]"):
        face.grad(lambda p: p["a"])({"a": 1.0, "b": "text"})


# --------------------------------------------------------------------------------------------- the language of the call


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("call", ["grad", "value_and_grad", "jacfwd", "jacrev", "hessian", "jacobian"])
def test_a_missing_rule_names_the_call_and_the_line(call: str, engine: Any) -> None:
    with pytest.raises(NotImplementedError) as caught:
        getattr(dualrev, call)(unknown_op, engine=engine)(1.0)
    message = str(caught.value)
    assert "unknown_op" in message
    assert call in message
    assert "test_errors.py" in message
    assert "dualrev/rules/" in message


@pytest.mark.parametrize("engine", ENGINES)
def test_a_missing_rule_below_jit_and_scan(engine: Any) -> None:
    lowered = jax.jit(unknown_op)
    with pytest.raises(NotImplementedError, match="unknown_op"):
        dualrev.grad(lambda x: lowered(x), engine=engine)(1.0)
    with pytest.raises(NotImplementedError, match="unknown_op"):
        dualrev.grad(lambda x: lax.scan(lambda c, _: (unknown_op(c), None), x, None, length=2)[0], engine=engine)(1.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_nonlinear_functions_are_not_transposed(engine: Any) -> None:
    for fun in (jnp.sin, lambda x: x * x, lambda x: x / (1 + x), lambda x: jnp.where(x > 0, x, 2 * x)):
        with pytest.raises((TypeError, NotImplementedError), match="linear"):
            dualrev.linear_transpose(fun, 1.0, engine=engine)(1.0)


def test_unknown_engine() -> None:
    face: Any = dualrev
    for call in (lambda: face.grad(jnp.sin, engine="sideways")(1.0),
                 lambda: face.jvp(jnp.sin, (1.0,), (1.0,), engine="fwd"),
                 lambda: face.jacobian(jnp.sin, engine="both")(1.0), lambda: face.vjp(jnp.sin, 1.0, engine="auto")):
        with pytest.raises(ValueError, match="engine") as caught:
            call()
        assert "forward" in str(caught.value)
        assert "reverse" in str(caught.value)


@pytest.mark.parametrize("chunk_size", [0, -1])
def test_bad_chunk_size(chunk_size: int) -> None:
    for name in ("jacfwd", "jacrev"):
        with pytest.raises(ValueError, match="chunk_size"):
            getattr(dualrev, name)(jnp.sin, chunk_size=chunk_size)(VEC)


# -------------------------------------------------------------------------------------------------------------- leaks


@pytest.mark.parametrize("face", FACES, ids=ENGINES)
@pytest.mark.parametrize("name", ["grad", "jvp"])
def test_an_escaped_tracer(name: str, face: Face) -> None:
    kept: list[Any] = []

    def leak(x: Any) -> Any:
        kept.append(x * 2)
        return x * x

    if name == "grad":
        face.grad(leak)(1.0)
    else:
        face.jvp(leak, (1.0,), (1.0,))
    (tracer,) = kept
    assert repr(tracer)
    unexpected = jax.errors.UnexpectedTracerError
    with pytest.raises(unexpected, match="Encountered an unexpected tracer"):
        tracer + 1
    with pytest.raises(unexpected, match="Encountered an unexpected tracer"):
        jax.jit(lambda y: y + tracer)(1.0)
    with pytest.raises(unexpected, match="Encountered an unexpected tracer"):
        face.grad(lambda x: x * tracer)(1.0)
    with pytest.raises(unexpected, match="Encountered an unexpected tracer"):
        face.jvp(jnp.sin, (tracer,), (1.0,))
    assert face.grad(lambda x: x * x)(3.0) == 6.0


@pytest.mark.thorough
@pytest.mark.parametrize("face", FACES, ids=ENGINES)
def test_the_leak_checker_sees_leaks_and_only_leaks(face: Face) -> None:
    def clean(x: Any) -> Any:
        body = jax.checkpoint(lambda c, a: (jnp.sin(c) * a, c))
        c, ys = lax.scan(body, x, jnp.arange(3.0))
        return jax.nn.relu(c) + ys.sum() + jax.jit(jnp.tanh)(c)

    kept: list[Any] = []

    def keep(x: Any) -> Any:
        kept.append(x)
        return x

    with jax.checking_leaks():
        face.grad(clean)(2.0)
        face.jvp(clean, (2.0,), (1.0,))
        jax.jit(face.grad(clean))(2.0)
        with pytest.raises(Exception, match="Leaked"):
            face.grad(keep)(3.0)


# ------------------------------------------------------------------------------------------------- rules that are wrong


@pytest.mark.parametrize("face", FACES, ids=ENGINES)
def test_a_custom_rule_of_the_wrong_structure(face: Face) -> None:
    @jax.custom_jvp
    def f(x: Any) -> Any:
        return x**2

    f.defjvp(lambda primals, tangents: (f(primals[0]), jnp.reshape(tangents[0], (1,))))
    with pytest.raises(TypeError, match="corresponding shapes and dtypes"):
        face.grad(f)(2.0)

    @jax.custom_vjp
    def g(x: Any) -> Any:
        return x**2

    g.defvjp(lambda x: (x, None), lambda _, ct: (ct, ct))
    with pytest.raises(TypeError, match=r"Custom VJP bwd rule .*must produce"):
        face.grad(g)(2.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_errors_of_users_pass_through(engine: Any) -> None:
    class MyError(Exception):
        pass

    def f(x: Any) -> Any:
        raise MyError("mine")

    face = Face(engine)
    for call in (lambda: face.grad(f)(1.0), lambda: face.jvp(f, (1.0,), (1.0,)), lambda: face.vjp(f, 1.0),
                 lambda: face.jacfwd(f)(1.0), lambda: face.hessian(f)(1.0), lambda: face.linear_transpose(f, 1.0)(1.0)):
        with pytest.raises(MyError, match="mine"):
            call()
    with pytest.raises(TypeError, match="takes 1 positional argument"):
        face.jvp(f, (1.0, 2.0), (1.0, 1.0))
