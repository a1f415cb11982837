"""Small loops of derivatives are one kernel each on CPUs; all else is left to the compiler."""

from __future__ import annotations

import functools
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from agreement import assert_same
from jax import lax

import dualrev as dr
from dualrev._jax.one_kernel import IS_TRIED
from dualrev.calls.loops import one_kernel
from dualrev.calls.loops.one_kernel import is_wanted

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="kernels of XLA:CPU")

STEPS = 6


class fused:
    """The package's functions, with kernels on any release."""

    grad = staticmethod(functools.partial(dr.grad, fuse_loops=True))
    value_and_grad = staticmethod(functools.partial(dr.value_and_grad, fuse_loops=True))
    jvp = staticmethod(functools.partial(dr.jvp, fuse_loops=True))
    linearize = staticmethod(functools.partial(dr.linearize, fuse_loops=True))


def loss(x: Any) -> Any:
    """A step of 30 operations, more than any compiler takes for small; the value takes a logarithm, which the gradient does not."""
    def step(c: Any, t: Any) -> Any:
        a, b = c
        for _ in range(5):
            a, b = jnp.sin(a) + t * b, b + .1 * a * jnp.stack([a[1], a[0]])
        return (a, b), jnp.sum(jnp.log(1.5 + .1 * a))

    (a, _), costs = lax.scan(step, (x, .5 * x), .1 * jnp.arange(1., STEPS + 1))
    return jnp.sum(a**2) + jnp.sum(costs)


X = jnp.array([[.3, .1], [.2, -.4]])


def kernels(f: Callable[..., Any], *args: Any) -> int:
    """The number of loops in the compiled program that are part of one kernel by our asking; -1 if there are loops beside these."""
    text = str(jax.jit(f).lower(*args).compile().as_text())
    marked = len(re.findall(r" call\(.*inlineable=\"false\".*xla_cpu_small_call=\"true\"", text))
    entry = text[text.index("\nENTRY"):]
    return -1 if " while(" in entry else marked


def test_the_loops_of_a_gradient_are_one_kernel_each() -> None:
    assert kernels(fused.grad(loss), X) == 2, "XLA no longer makes a kernel of a call that is marked: look at dualrev._jax.one_kernel"
    assert kernels(dr.grad(loss, fuse_loops=False), X) <= 0


def test_the_default_is_to_fuse_on_releases_on_which_it_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels(dr.grad(loss), X) == (2 if IS_TRIED else -1)
    monkeypatch.setattr(one_kernel, "IS_TRIED", False)
    assert kernels(dr.grad(loss), X) <= 0 and kernels(dr.grad(loss, fuse_loops=True), X) == 2


def test_what_nobody_reads_is_not_computed() -> None:
    text = str(jax.jit(fused.grad(loss)).lower(X).compile().as_text())
    assert " log(" not in text and " log(" in str(jax.jit(fused.value_and_grad(loss)).lower(X).compile().as_text())


def over_a_loop(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: lax.scan(lambda x, _: (x - .1 * f(x), None), x, length=3)[0]


def in_a_branch(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: lax.cond(x[0, 0] > 0, f, jnp.cos, x)


def entries(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: jnp.sum(f(x) * jnp.arange(4.).reshape(2, 2))


AROUND: dict[str, Callable[[Any], Callable[[Any], Any]]] = {
    "itself": lambda grad: grad(loss),
    "a batch": lambda grad: lambda x: jax.vmap(grad(loss))(jnp.stack([x, 2 * x, -x])),
    "a named batch": lambda grad: lambda x: jax.vmap(lambda y: lax.psum(grad(loss)(y), "i"), axis_name="i")(jnp.stack([x, -x])),
    "a compiled batch": lambda grad: lambda x: jax.vmap(jax.jit(grad(loss)))(jnp.stack([x, 2 * x, -x])),
    "one that is differentiated": lambda grad: grad(entries(grad(loss))),
    "one that is compiled and differentiated": lambda grad: grad(entries(jax.jit(grad(loss)))),
    "one that jax differentiates": lambda grad: jax.grad(entries(grad(loss))),
    "one that jax differentiates, compiled": lambda grad: jax.grad(entries(jax.jit(grad(loss)))),
    "jax's pushes": lambda grad: lambda x: jax.jvp(jax.jit(grad(loss)), (x,), (jnp.ones_like(x),)),
    "a loop": lambda grad: over_a_loop(grad(loss)),
    "a loop that is differentiated": lambda grad: grad(entries(over_a_loop(grad(loss)))),
    "a branch": lambda grad: in_a_branch(grad(loss)),
    "a checkpoint": lambda grad: jax.grad(entries(jax.checkpoint(jax.jit(grad(loss))))),
    "a map": lambda grad: lambda x: lax.map(grad(loss), jnp.stack([x, 2 * x])),
}


@pytest.mark.parametrize("around", AROUND)
def test_a_loop_within(around: str) -> None:
    assert_same(jax.jit(AROUND[around](fused.grad))(X), jax.jit(AROUND[around](jax.grad))(X))


def test_forward_mode() -> None:
    push = lambda x: fused.jvp(loss, (x,), (jnp.ones_like(x),))  # noqa: E731
    assert kernels(push, X) == 1
    assert_same(jax.jit(push)(X), jax.jvp(loss, (X,), (jnp.ones_like(X),)))


def test_jax_transposes_a_push() -> None:
    push = jax.jit(fused.linearize(loss, X)[1])
    assert "one_kernel" in str(jax.make_jaxpr(push)(X))
    assert_same(jax.linear_transpose(push, X)(1.0)[0], jax.grad(loss)(X))
    assert_same(jax.jit(lambda: jax.linear_transpose(push, X)(1.0)[0])(), jax.grad(loss)(X))


def loop_of(step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: jnp.sum(lax.fori_loop(0, 3, lambda _, x: step(x), x))


def polynomial(x: Any) -> Any:
    for _ in range(30):
        x = x * (.5 * x + .1) + .2
    return x


WIDE = jnp.full((64, 64), .01)
REFUSED: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "a product of matrices": (lambda x: jnp.sin(x @ x), jnp.full((8, 8), .1)),
    "a product of thin matrices": (lambda x: .1 * x.at[0, 0].add(jnp.sum(x @ x.T)), jnp.full((2, 8), .1)),
    "a product of long vectors": (lambda x: x / (1 + x @ x), jnp.full(5000, .01)),
    "products of many vectors": (lambda x: .5 * x * jnp.einsum("ij,ij->i", x, x)[:, None], jnp.full((100, 50), .01)),
    "a part without entries": (lambda x: .5 * x + jnp.sum(x[2:]), X),
    "half precision within": (lambda x: x * .5 + (x.astype("bfloat16") * 2).astype(x.dtype), X),
    "a long sum": (lambda x: x / (1 + jnp.sum(x)), WIDE),
    "a long maximum": (lambda x: x - .1 * jnp.max(x, 0, keepdims=True), WIDE),
    "a sort": (lambda x: .5 * jnp.sort(x), X),
    "a running sum": (lambda x: .1 * jnp.cumsum(x, 0), X),
    "a factorization": (lambda x: .1 * jnp.linalg.inv(x @ x.T + jnp.eye(2)), X),
    "a scatter": (lambda x: x.at[jnp.array([0, 1, 0])].add(.5), X),
    "large arrays": (lambda x: x * .5 + 1, jnp.ones(10_000)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_one_kernel(what: str) -> None:
    """XLA could not compile most of these as one kernel."""
    step, x = REFUSED[what]
    assert kernels(lambda x: fused.jvp(loop_of(step), (x,), (x,)), x) <= 0
    assert_same(jax.jit(fused.grad(loop_of(step)))(x), jax.grad(loop_of(step))(x))


@pytest.mark.parametrize("n", [500, 4000])
def test_long_polynomials_are_one_kernel(n: int) -> None:
    """XLA would split such a step among threads."""
    x = jnp.full((2, n), .1)
    assert kernels(fused.grad(loop_of(polynomial)), x) == 2
    assert_same(jax.jit(fused.grad(loop_of(polynomial)))(x), jax.grad(loop_of(polynomial))(x))


@pytest.mark.thorough
def test_a_batch_that_makes_a_loop_large_is_not_one_kernel() -> None:
    many = jnp.stack([X] * 5000)
    gradient = jax.vmap(fused.grad(loss))
    assert kernels(gradient, many[:3]) == 2 and kernels(gradient, many) <= 0
    assert_same(jax.jit(gradient)(many)[0], jax.grad(loss)(X))


def test_effects_and_symbols_are_refused() -> None:
    def prints(x: Any) -> Any:
        return lax.fori_loop(0, 3, lambda _, x: (jax.debug.print("{}", x[0, 0]), x * .5)[1], x)

    assert not is_wanted(jax.make_jaxpr(prints)(X))
    (rows,) = jax.export.symbolic_shape("n")
    assert not is_wanted(jax.make_jaxpr(loop_of(jnp.sin))(jax.ShapeDtypeStruct((rows,), "float64")))
    exported = jax.export.export(jax.jit(fused.grad(loop_of(jnp.sin))))(jax.ShapeDtypeStruct((rows,), "float64"))
    assert_same(exported.call(jnp.ones(3)), jax.grad(loop_of(jnp.sin))(jnp.ones(3)))
    shipped = jax.export.export(jax.jit(fused.grad(loss)), platforms=("cpu", "cuda"))(X)
    assert_same(shipped.call(X), jax.grad(loss)(X))


def test_an_operand_that_is_not_read() -> None:
    """XLA ends the process if the optimized program of a kernel does not read one of its operands."""
    def run(init: Any, xs: Any) -> Any:
        return lax.scan(lambda c, x: ((c[0] * .5 + 1, c[1], c[2]), jnp.zeros(2)), init, xs)

    init, xs = (X, jnp.arange(3.0), 2.0), jnp.ones((3, 4))
    assert_same(jax.jit(lambda *args: one_kernel.as_one_kernel(run, *args))(init, xs), run(init, xs))


def test_an_operand_that_is_known_to_the_compiler() -> None:
    """XLA writes its value into the program of the kernel, which then does not read it; another loop has a copy of it."""
    def run(init: Any, xs: Any) -> Any:
        return lax.scan(lambda c, _: ((c[0] + 1, jnp.tanh(c[1]) * 2 + c[0]), c[0] * 2), init, xs, length=3)

    def program(around: Callable[..., Any], x: Any) -> Any:
        zero, yes = jnp.zeros(()), jnp.ones((), bool)
        (_, y), ys = around(run, (zero, x), None)
        other = lax.scan(lambda c, _: ((c[0] + 2, ~c[1], jnp.sort(jnp.sin(c[2]) + c[0])), None), (zero, yes, y), None, length=4)[0]
        return ys, other

    args = (X.ravel(),)
    assert_same(jax.jit(functools.partial(program, one_kernel.as_one_kernel))(*args), program(lambda run, *args: run(*args), *args))


def test_a_stack_without_entries_is_not_an_operand() -> None:
    """The same: XLA makes a constant of it."""
    def run(init: Any, xs: Any) -> Any:
        return lax.scan(lambda c, x: (c * .5 + jnp.sum(x), c), init, xs)

    xs = jnp.ones((3, 0))
    assert "small_call" not in jax.jit(lambda *args: one_kernel.as_one_kernel(run, *args)).lower(X, xs).as_text()
    assert_same(jax.jit(lambda *args: one_kernel.as_one_kernel(run, *args))(X, xs), run(X, xs))


@pytest.mark.thorough
def test_loops_at_random() -> None:
    ran = subprocess.run([sys.executable, "-m", "tests.fuzz_loops", "--count", "80"], capture_output=True, text=True, check=False,
                         cwd=pathlib.Path(__file__).parent.parent)
    assert ran.returncode == 0 and "80 loops" in ran.stdout, ran.stdout + ran.stderr
