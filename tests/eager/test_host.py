"""Programs that numpy evaluates give what jax compiles, and dtypes do not depend on jax's 64-bit setting."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualrev import eager as torch
from dualrev.eager.host import programs as host
from dualrev.eager.host.programs import host_program
from dualrev.rules.elementwise import one_minus_square

rng = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def _written_over(x: jax.Array) -> list[jax.Array]:
    """Large arrays that are read once, twice, by views, and that are results."""
    a = x * 2
    b = a + 1
    c = b * b
    d = c.T
    e = c - x
    f = jnp.exp(-e * e)
    return [e * 3, d, f + jnp.sum(f, 0), b > 0, jnp.abs(x) + x, (x + 1).reshape(-1)[:5]]


X, Y, SQUARE = floats(3, 4), floats(3, 4), floats(4, 4)
KEY, PLACES = jax.random.PRNGKey(3), np.array([2, 0, 1, -1])
WHOLE, BELOW = np.array([7, -7, 5, -1]), np.array([2, 2, -3, -3])
CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = dict(
    normal=(lambda k: jax.random.normal(k, (5, 3)), (KEY,)), doubles=(lambda k: jax.random.normal(k, (5,), jnp.float64), (KEY,)),
    split=(lambda k: jax.random.split(k, 3), (KEY,)), fold=(lambda k: jax.random.fold_in(k, 7), (KEY,)),
    permutation=(lambda k: jax.random.permutation(k, 20), (KEY,)),
    bernoulli=(lambda k, p: jax.random.bernoulli(k, p, (40,)), (KEY, 0.3)),
    integers=(lambda k, a, b: jax.random.randint(k, (50,), a, b), (KEY, np.int64(3), np.int64(70))),
    split_bits=(lambda x: jax.lax.bitcast_convert_type(x, jnp.int16), (X,)),
    merged_bits=(lambda x: jax.lax.bitcast_convert_type(jnp.asarray(x).reshape(3, 2, 2), jnp.int64), (X,)),
    one_bit_pattern=(lambda x: jax.lax.bitcast_convert_type(x, jnp.uint8), (np.float32(1.5),)),
    logarithm=(lambda x: jnp.log2(x * x + 1), (X,)), square=(lambda x: one_minus_square(jnp.asarray(x)), (X,)),
    softmax=(jax.nn.softmax, (X,)), logsumexp=(lambda x: jax.scipy.special.logsumexp(x, 1), (X,)),
    variance=(lambda x: jnp.var(x, 1), (X,)),
    product=(lambda x, y: x @ y.T, (X, Y)), batches=(lambda a, b: jnp.einsum("bij,bkj->bik", a, b), (floats(2, 3, 4), floats(2, 5, 4))),
    wide_product=(lambda x, y: jax.lax.dot(x, y.T, preferred_element_type=jnp.float64), (X, Y)),
    rows=(lambda x, i: jnp.asarray(x)[i], (SQUARE, PLACES)), columns=(lambda x, i: jnp.asarray(x)[:, i], (SQUARE, PLACES)),
    apart=(lambda x, i: jnp.asarray(x)[i, :, i], (floats(4, 3, 4), PLACES)),
    along=(lambda x, i: jnp.take_along_axis(x, i, 1), (X, np.array([[0, 1], [2, 3], [1, -1]]))),
    outside=(lambda x, i: jnp.asarray(x).at[i].get(mode="fill"), (SQUARE, np.array([0, 9]))),
    taken=(lambda x, i: jnp.take(x, i, 0), (SQUARE, np.array([0, 9, -1]))),
    put=(lambda x, i: jnp.asarray(x).at[i].set(1.0), (SQUARE, PLACES)),
    added=(lambda x, i: jnp.asarray(x).at[:, i].add(2.0), (SQUARE, PLACES)),
    dropped=(lambda x, i: jnp.asarray(x).at[i].set(5.0, mode="drop"), (SQUARE, np.array([0, 9]))),
    sort=(lambda x: (jnp.sort(x, 1), jnp.argsort(x, 0, descending=True), *jax.lax.top_k(x, 2)), (X,)),
    cumulative=(lambda x: (jnp.cumsum(x, 1), jax.lax.cumsum(x, 0, reverse=True), jnp.cumprod(x, 0), jax.lax.cummax(x, 1)), (X,)),
    extremes=(lambda x: (jnp.max(x, 0), jnp.min(x), jnp.argmax(x, 1), jnp.argmin(x, 0)), (X,)),
    empty=(lambda x: jnp.max(x[:, :0], 1, initial=-1.0), (X,)),
    pad=(lambda x: (jnp.pad(x, ((1, 2), (0, 1))), jax.lax.pad(x, np.float32(7), ((-2, -1, 2), (3, -5, 1)))), (X,)),
    part=(lambda x, i: (jax.lax.dynamic_slice(x, (i, i), (2, 2)), jax.lax.dynamic_update_slice(x, x[:1], (i, i))), (X, np.int32(5))),
    shapes=(lambda x: (jnp.roll(x, 1, 1), jnp.flip(x, 1), jnp.tile(x, (2, 3)), jnp.concatenate([x, x], 1), jnp.tril(x), x.T), (X,)),
    exact=(lambda x: (jnp.floor(x), jnp.sign(x), jnp.round(x), jnp.trunc(x), jnp.sqrt(abs(x))), (X,)),
    powers=(lambda x: (x ** 3 + x ** -2, jnp.clip(x, -0.5, 0.5)), (X,)),
    special=(lambda x: (jax.lax.erf(x), jax.lax.erfc(x), jax.lax.lgamma(abs(x)), jax.lax.digamma(abs(x)), jax.nn.gelu(x)), (X,)),
    whole=(lambda a, b: (a // b, a % b, jnp.fmod(a, b), jax.lax.div(a, b), a ^ b, ~a, a << abs(b), a >> abs(b)), (WHOLE, BELOW)),
    conversions=(lambda x, a: ((x * 1e12).astype(jnp.int32), a.astype(jnp.uint8), x.astype(jnp.bfloat16) * 2, a > 0), (X, WHOLE)),
    complex=(lambda x: (jnp.abs(jnp.exp(1j * x) * (2 + 1j)), jnp.real(jnp.conj(1j * x))), (X,)),
    cholesky=(lambda a: (jnp.linalg.cholesky(a @ a.T + jnp.eye(4)), jnp.linalg.cholesky(jnp.stack([-a @ a.T, a @ a.T + jnp.eye(4)]))),
              (SQUARE,)),
    triangular=(lambda a, b: [jax.lax.linalg.triangular_solve((jnp.tril if low else jnp.triu)(a) + 2 * jnp.eye(4, dtype=a.dtype),
                                                              b.T if left else b, left_side=left, lower=low, transpose_a=t,
                                                              unit_diagonal=u)
                              for left in (True, False) for low in (True, False) for t in (True, False) for u in (True, False)],
                (SQUARE, X)),
    singular=(lambda a: jax.lax.linalg.triangular_solve(a, a, left_side=True, lower=True),
              (np.array([[1.0, 0, 0], [1, 0, 0], [1, 1, 2]]),)),
    lu=(lambda a, x: (*jax.lax.linalg.lu(a), *jax.lax.linalg.lu(x), jnp.linalg.det(a), jnp.linalg.inv(a), jnp.linalg.solve(a, x.T)),
        (SQUARE, X)),
    symmetric=(lambda a: (jnp.linalg.eigh(a + a.T)[0], abs(jnp.linalg.eigh(a + a.T)[1]), jnp.linalg.eigvalsh(a * jnp.nan)), (SQUARE,)),
    svd=(lambda x: (jnp.linalg.svd(x, full_matrices=False)[1], *map(abs, jnp.linalg.svd(x.T, full_matrices=False)),
                    jnp.linalg.svd(x, compute_uv=False), jnp.linalg.pinv(x)), (X,)),
    qr=(lambda x: (*map(abs, jnp.linalg.qr(x)), *map(abs, jnp.linalg.qr(x.T)), abs(jnp.linalg.qr(x.T, "complete")[0][:, :3])), (X,)),
    eigenvalues=(lambda a: (jnp.sort(abs(jnp.linalg.eigvals(a))), jnp.linalg.eig(a + a.T)[0].real.sum()), (SQUARE,)),
    fourier=(lambda x: (jnp.fft.fft(x), jnp.fft.ifft(x, axis=0), jnp.fft.rfft(x, 6), jnp.fft.irfft(x + 1j * x, 5), jnp.fft.fft2(x),
                        jnp.fft.rfft2(x), jnp.fft.irfft2(x + 0j), jnp.fft.fft(x.astype(jnp.float64))), (X,)),
    precision=(lambda x: (jax.lax.reduce_precision(x, 8, 11), jax.lax.reduce_precision(x, 8, 7), jax.lax.reduce_precision(x, 8, 23),
                          jax.lax.reduce_precision(x.astype(jnp.float64) / 3, 11, 20)),
               (np.array([1.5, -0.1, np.inf, -np.inf, np.nan, 3.4e38, 1e-41, 0.0, 1 + 3 * 2.0 ** -12], np.float32),)),
    scan=(lambda c, x: (jax.lax.scan(lambda c, x: ((jnp.tanh(c[0] * x.sum() + c[1]), c[1] + 1), (c[0], x * c[1])), (c, 0.5), x),
                        jax.lax.scan(lambda c, x: (c @ SQUARE + x, None), c, x, reverse=True),
                        jax.lax.fori_loop(0, 5, lambda i, c: c * i + 1, c), jax.lax.scan(lambda c, _: (c * 2, c), c, length=0),
                        jax.lax.map(lambda x: x.sum(), x)), (X[0], X)),
    branches=(lambda i, x: [jax.lax.switch(i + k, [jnp.sin, lambda x: x * 2, jnp.cos], x) for k in (-4, 0, 9)], (np.int32(1), X)),
    large=(lambda x: _written_over(jnp.asarray(x)), (floats(70, 80),)),
    broadcasts=(lambda x, y: (x + y[:, None] * jnp.ones(4) > 0, jnp.where(y[:, None] > 0, 0.0, x), jnp.broadcast_to(y[:, None], (3, 5)),
                              jnp.broadcast_to(y, (2, 3)).sum(0), jnp.maximum(jnp.broadcast_to(y[0], (3, 4)), x).T,
                              jnp.broadcast_to(y[1], (2, 2)) + jnp.broadcast_to(y[2], (2, 2)), jnp.ones((2, 3)) * 2), (X, X[:, 0])),
    bits=(lambda x, a: (jax.lax.bitcast_convert_type(x, jnp.int32), jax.lax.shift_right_logical(a, jnp.int64(3))), (X, WHOLE)),
)
#: The image and kernel of a convolution, and its settings.
CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = dict(
    plain=((2, 3, 7, 6), (4, 3, 3, 2), {}), one=((2, 3, 4, 4), (5, 3, 1, 1), {}), line=((2, 3, 9), (4, 3, 4), {}),
    volume=((1, 2, 4, 5, 4), (3, 2, 2, 3, 2), dict(padding=[(1, 0), (0, 1), (1, 1)])),
    strided=((2, 3, 8, 7), (4, 3, 3, 3), dict(window_strides=(2, 3), padding=[(1, 1), (2, 0)])),
    dilated=((2, 3, 8, 7), (4, 3, 2, 3), dict(rhs_dilation=(3, 2), padding=[(1, 1), (0, 2)])),
    spread=((2, 3, 4, 3), (4, 3, 3, 3), dict(lhs_dilation=(2, 3), padding=[(1, 2), (-1, 2)])),
    cut=((2, 3, 8, 7), (4, 3, 3, 3), dict(padding=[(-2, 1), (0, -3)])),
    groups=((2, 6, 5, 5), (4, 3, 3, 3), dict(feature_group_count=2)), deep=((2, 4, 5, 5), (8, 1, 3, 3), dict(feature_group_count=4)),
    batches=((6, 2, 5, 5), (4, 2, 3, 3), dict(batch_group_count=2)),
    last=((2, 7, 6, 3), (3, 2, 3, 4), dict(dimension_numbers=("NHWC", "HWIO", "NHWC"))),
    turned=((7, 3, 2, 6), (2, 4, 3, 3), dict(dimension_numbers=("HCNW", "WOIH", "WNHC"), padding="SAME")))


@pytest.mark.parametrize("dtype", ["float32", *[pytest.param(d, marks=pytest.mark.thorough) for d in (
    "float64", "bfloat16", "complex64", "int32")]])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str, dtype: str) -> None:
    image, kernel, settings = CONVOLUTIONS[name]
    settings = {"window_strides": (1,) * (len(image) - 2), "padding": "VALID", **settings}
    with jax.enable_x64(True):
        unit = 4 if dtype == "int32" else 1
        args = [jnp.asarray(np.round(floats(*shape) * 4) / 4 * unit).astype(dtype) for shape in (image, kernel)]
        program = host_program(jax.make_jaxpr(lambda x, w: jax.lax.conv_general_dilated(x, w, **settings))(*args))
        # In double precision: in single, jax 0.10.2 is wrong where padding is negative.
        kind = np.complex128 if dtype == "complex64" else np.float64
        x, w = (arg.astype(kind) for arg in args)
        right = np.asarray(jax.lax.conv_general_dilated(x, w, **settings))
    assert program is not None
    found, = program(*[np.asarray(x) for x in args])
    assert found.dtype == dtype and found.shape == right.shape
    np.testing.assert_allclose(found.astype(kind), right, 1e-2 if dtype == "bfloat16" else 1e-6, 1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "complex64"])
@pytest.mark.parametrize("kind", ["add", "max", "min"])
def test_reductions_of_windows(kind: str, dtype: str) -> None:
    if dtype == "complex64" and kind != "add":
        return
    x = jnp.asarray(np.round(floats(2, 7, 6) * 9), dtype)
    start = {"add": 0, "max": np.iinfo(np.int32).min if dtype == "int32" else -np.inf,
             "min": np.iinfo(np.int32).max if dtype == "int32" else np.inf}[kind]
    for settings in (dict(padding="VALID"), dict(padding=[(0, 0), (1, 2), (2, 0)], window_dilation=(1, 2, 1)),
                     dict(padding="SAME", base_dilation=(1, 2, 3))):
        def pool(x: Any, settings: Any = settings) -> Any:
            return jax.lax.reduce_window(x, np.asarray(start, x.dtype), getattr(jax.lax, kind), (1, 3, 2), (1, 2, 1), **settings)

        program = host_program(jax.make_jaxpr(pool)(x))
        assert program is not None
        found, = program(np.asarray(x))
        right = np.asarray(pool(x))
        assert found.dtype == right.dtype
        np.testing.assert_allclose(found, right, 1e-6)


@pytest.mark.parametrize("name", CASES)
def test_numpy_gives_what_jax_compiles(name: str) -> None:
    fun, args = CASES[name]
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        program = host_program(jax.make_jaxpr(fun)(*args))
        expected = jax.tree.leaves(jax.jit(fun)(*args))
    assert program is not None
    for found, right in zip(program(*[np.asarray(x) for x in args]), expected, strict=True):
        assert found.dtype == right.dtype and found.shape == right.shape
        kind = np.complex128 if right.dtype.kind == "c" else np.float64
        np.testing.assert_allclose(found.astype(kind), np.asarray(right).astype(kind), 2e-6, 1e-6)


def test_large_programs_and_unknown_primitives_are_compiled() -> None:
    large = jax.make_jaxpr(jnp.sin)(np.zeros((1000, 1000), np.float32))
    loop = jax.make_jaxpr(lambda x: jax.lax.while_loop(lambda x: x < 3, lambda x: x + 1, x))(np.float32(0))
    assert host_program(large) is None and host_program(loop) is None


def test_numbers_do_not_depend_on_how_operations_are_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> list[Any]:
        torch.clear_caches()
        torch.manual_seed(0)
        x, w = torch.randn(5, 3, requires_grad=True), torch.randn(3, 2, requires_grad=True)
        y = (torch.tanh(x @ w) + torch.nn.functional.dropout(x, 0.4)[:, :2]).softmax(1)
        y[torch.tensor([0, 0, 3])].log().sum().backward()
        return [y, x.grad, w.grad, torch.randint(0, 90, (4,)), torch.randperm(9)]

    small = [t.tolist() for t in found()]
    monkeypatch.setattr(host, "LONGEST", 0.0)
    compiled = [t.tolist() for t in found()]
    torch.clear_caches()
    for a, b in zip(small, compiled, strict=True):
        np.testing.assert_allclose(a, b, 2e-5, 1e-6)


DOUBLES = """
import jax, jax.numpy as jnp
from dualrev import eager as torch
model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
optimizer = torch.optim.Adam(model.parameters())
x = torch.randn(5, 3, dtype=torch.float64)
@torch.jit
def step(x):
    optimizer.zero_grad()
    loss = (model(x) ** 2).mean()
    loss.backward()
    optimizer.step()
    return loss
found = [model(x), step(x), step(x), model[0].weight.grad, torch.func.hessian(lambda x: (x ** 3).sum())(x[0]),
         torch.vmap(lambda x: x * 2)(x), torch.autograd.functional.jacobian(lambda x: x * x, x[0]), torch.linalg.inv(x[:3] @ x[:3].T)]
large = torch.ones(600, 600, dtype=torch.float64, requires_grad=True)
(large.sin() * 2).sum().backward()
assert all(t.dtype is torch.float64 for t in [*found, large.grad, *model.parameters()]), [t.dtype for t in found]
assert torch.autograd.gradcheck(model, (x.clone().requires_grad_(),))
assert (torch.tensor(2 ** 40) + 1).item() == 2 ** 40 + 1
assert jnp.ones(2).dtype == jnp.float32 and not jax.config.jax_enable_x64
"""


def test_doubles_do_not_need_the_setting_of_jax() -> None:
    subprocess.run([sys.executable, "-c", DOUBLES], check=True)


def test_no_program_is_made_for_a_new_index_number_or_bound() -> None:
    x = torch.arange(40.0).reshape(20, 2).requires_grad_()

    def work(i: int) -> None:
        y = x[i] * (i + 0.5) + x[i: i + 3].sum(0)
        torch.add(y, x[i], alpha=i + 0.25).clamp(-1.0, 100.0).sum().backward()
        z = torch.zeros(20)
        z[i] = i
        torch.randint(0, i + 9, (3,))
        torch.nn.functional.dropout(z, 0.1 + i / 50)

    work(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host, "host_program", None)
        patch.setattr("dualrev.eager.core.evaluation.host_program", None)
        for i in range(2, 9):
            work(i)
