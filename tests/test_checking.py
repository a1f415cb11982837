"""``dr.check``: each kind of wrong program is found and named, and right programs give no false alarm."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import promoting
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from random_programs import Pool

import dualrev as dr
from dualrev.inspection.checking.derivatives import Derivatives
from dualrev.inspection.checking.report import Finding
from dualrev.problems import SCENARIOS

check = dr.check
SOURCE = pathlib.Path(__file__).read_text().splitlines()
X = jnp.array([0.3, -0.7, 1.2])
Z = jnp.array([0.3 + 1.0j, -0.7 + 0.5j])


def found(report: dr.CheckReport, kind: str) -> Finding:
    """The one finding of a kind."""
    those = report.of_kind(kind)  # type: ignore[arg-type]
    assert len(those) == 1, str(report)
    return those[0]


# -------------------------------------------------------------------------------------------------------------- wrong rules


def custom_jvp(fun: Callable[..., Any], rule: Callable[..., Any]) -> Callable[..., Any]:
    made = jax.custom_jvp(fun)
    made.defjvp(rule)
    return made


def custom_vjp(fun: Callable[..., Any], fwd: Callable[..., Any], bwd: Callable[..., Any]) -> Callable[..., Any]:
    made = jax.custom_vjp(fun)
    made.defvjp(fwd, bwd)
    return made


def wave(x: Any) -> Any:
    return jnp.sin(x)


wrong_jvp = custom_jvp(wave, lambda p, t: (jnp.sin(p[0]), -jnp.cos(p[0]) * t[0]))  # the sign
wrong_vjp = custom_vjp(wave, lambda x: (jnp.sin(x), x), lambda x, ct: (2 * ct * jnp.cos(x),))  # a factor
right_vjp = custom_vjp(wave, lambda x: (jnp.sin(x), x), lambda x, ct: (ct * jnp.cos(x),))
#: Right to first order; its second derivative is that of another function.
wrong_second = custom_jvp(wave, lambda p, t: (jnp.sin(p[0]), lax.stop_gradient(jnp.cos(p[0])) * t[0]))


@dr.rule(partials=[lambda x: jnp.sin(x)])  # should be cos
def wrong_partial(x: Any) -> Any:
    return jnp.sin(x)


@dr.rule(bilinear=[lambda ct, x, y: ct * y, lambda ct, x, y: 2 * ct * x])  # the second is twice too large
def wrong_product(x: Any, y: Any) -> Any:
    return x * y


def the_line_of(marker: str) -> int:
    """The number of the line of this file that ends with a comment."""
    return next(i for i, line in enumerate(SOURCE, 1) if line.rstrip().endswith(f"# {marker}"))


def test_a_wrong_jvp_rule_is_named_with_its_input_and_line() -> None:
    def f(x: jax.Array, scale: jax.Array) -> jax.Array:
        y = jnp.exp(x) * scale
        return wrong_jvp(y) + x  # wrong here

    report = check(f)(X, scale=jnp.array(2.0) * jnp.ones(3))
    finding = found(report, "custom rule")
    assert not report.ok and not report
    assert finding.operation == "wave" and finding.mode == "forward and reverse" and finding.severity == "wrong"
    assert finding.input == "x, scale"
    assert finding.line is not None and f"test_checking.py:{the_line_of('wrong here')}:" in finding.line
    assert "wave" in str(report) and "differs from the derivative of its function" in str(report)
    assert finding.difference == pytest.approx(2.0)
    with pytest.raises(dr.testing.DerivativeError, match="wave"):
        report.raise_if_wrong()


def test_only_the_input_that_is_wrong_is_named() -> None:
    finding = found(check(lambda p: jnp.sum(wrong_vjp(p["a"]) + jnp.cos(p["b"])))({"a": X, "b": X}), "custom rule")
    assert finding.input == "p['a']"


@pytest.mark.parametrize("wrap", [
    jax.jit, lambda f: lambda x: lax.cond(x[0] > 0, f, jnp.cos, x), jax.checkpoint, dr.checkpoint, dr.region("forward"), jax.vmap,
    lambda f: lambda x: lax.scan(lambda c, _: (f(c), None), x, None, length=3)[0],
    lambda f: lambda x: lax.fori_loop(0, 3, lambda _, c: f(c), x),
    lambda f: lambda x: lax.while_loop(lambda c: jnp.sum(c**2) < 0.01, f, 0.01 * x),
    lambda f: lambda x: lax.map(f, x),
], ids=["jit", "cond", "jax.checkpoint", "dr.checkpoint", "region", "vmap", "scan", "fori_loop", "while_loop", "map"])
def test_a_wrong_rule_is_found_inside(wrap: Callable[..., Any]) -> None:
    def part(x: jax.Array) -> jax.Array:
        return wrong_vjp(x) * 3.0  # inside

    finding = found(check(wrap(part), order=1)(X), "custom rule")
    assert finding.operation == "wave" and f":{the_line_of('inside')}:" in (finding.line or "")


def test_the_failing_step_is_named() -> None:
    def step(c: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
        return lax.cond(i == 2, wrong_vjp, jnp.cos, c), None

    report = check(lambda x: lax.scan(step, x, jnp.arange(4))[0], order=1)(jnp.array(0.4))
    assert "step 2 of the scan" in found(report, "custom rule").text


@pytest.mark.parametrize(("fun", "args", "name"), [
    (lambda x: wrong_partial(x) ** 2, (X,), "wrong_partial"), (wrong_product, (X, X + 2), "wrong_product")])
def test_rules_of_dualrev_are_named(fun: Callable[..., Any], args: tuple[Any, ...], name: str) -> None:
    finding = found(check(fun)(*args), "custom rule")
    assert finding.operation == name and finding.severity == "wrong"


def test_the_second_derivative_of_a_rule() -> None:
    finding = found(check(lambda x: wrong_second(2 * x))(X), "custom rule")
    assert finding.order == 2 and finding.operation == "wave"
    assert check(lambda x: wrong_second(2 * x), order=1)(X).ok


def test_a_rule_whose_modes_disagree() -> None:
    nonlinear = custom_vjp(wave, lambda x: (jnp.sin(x), x), lambda x, ct: (ct * jnp.cos(x) + 0.1,))
    assert not check(nonlinear)(X).ok


def test_rules_that_differ_on_purpose_are_notes() -> None:
    def rounded(x: Any) -> Any:
        return jnp.round(x)

    def same(x: Any) -> Any:
        return x

    through = custom_jvp(rounded, lambda p, t: (jnp.round(p[0]), t[0]))
    clipped = custom_vjp(same, lambda x: (x, None), lambda _, ct: (jnp.clip(ct, -0.1, 0.1),))
    for f, name in ((through, "rounded"), (clipped, "same")):
        report = check(lambda x, f=f: f(2 * x) * x)(X)  # type: ignore[misc]
        assert report.ok and found(report, "custom rule").severity == "note" and found(report, "custom rule").operation == name
        assert not check(lambda x, f=f: f(2 * x), surrogates="wrong")(X).ok  # type: ignore[misc]


def test_a_rule_that_does_not_fit_its_function() -> None:
    short = custom_vjp(wave, lambda x: (jnp.sin(x), x), lambda x, ct: (ct[:2],))
    finding = found(check(short)(X), "no derivative")
    assert finding.severity == "wrong" and "reverse" in (finding.mode or "") and "CustomRuleError" in finding.text


# ------------------------------------------------------------------------------------------------------------ foreign rules


def foreign(name: str, jvp: Callable[..., Any], transpose: Callable[..., Any] | None = None) -> Primitive:
    made = Primitive(name)
    made.def_impl(lambda x: 2 * x)
    made.def_abstract_eval(lambda x: jax.core.ShapedArray(x.shape, x.dtype))
    mlir.register_lowering(made, mlir.lower_fun(lambda x: 2 * x, multiple_results=False))
    batching.defvectorized(made)
    ad.primitive_jvps[made] = jvp
    if transpose is not None:
        ad.primitive_transposes[made] = transpose
    return made


def test_foreign_rules_are_named() -> None:
    bad_jvp = foreign("bad_jvp", lambda p, t: (bad_jvp.bind(*p), 3 * t[0]))
    finding = found(check(lambda x: bad_jvp.bind(jnp.sin(x)), order=1)(X), "foreign rule")
    assert finding.operation == "bad_jvp" and "registered JVP" in finding.text and finding.severity == "wrong" and finding.line
    bad_transpose = foreign("bad_transpose", lambda p, t: (bad_transpose.bind(*p), bad_transpose.bind(t[0])), lambda ct, x: [5 * ct])
    finding = found(check(lambda x: bad_transpose.bind(jnp.sin(x)), order=1)(X), "foreign rule")
    assert finding.mode == "reverse" and "registered transpose" in finding.text
    mine = Primitive("mine")
    mine.def_impl(lambda x: x**3)
    mine.def_abstract_eval(lambda x: jax.core.ShapedArray(x.shape, x.dtype))
    mlir.register_lowering(mine, mlir.lower_fun(lambda x: x**3, multiple_results=False))
    dr.rule(mine, partials=[lambda x: 2 * x**2])
    finding = found(check(lambda x: mine.bind(x), order=1)(X), "foreign rule")
    assert finding.operation == "mine" and "test_checking.py" in finding.text


def test_a_wrong_row_of_the_table_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from dualrev.table.rows import rows

    monkeypatch.setattr(rows[lax.tan_p], "jvp", lambda primals, tangents, params: ([lax.tan(primals[0])], [3.5 * tangents[0]]))
    finding = found(check(lambda x: jnp.cos(jnp.tan(x) * x), order=1)(jnp.array(0.3)), "derivative")
    assert finding.operation == "tan" and finding.mode == "forward"


# --------------------------------------------------------------------------------------------------------- non-smooth points


@pytest.mark.parametrize(("f", "x", "name"), [
    (jnp.abs, 0.0, "abs"), (lambda x: jnp.maximum(x, 2 * x), 0.0, "max"), (jax.nn.relu, 0.0, "max"),
    (lambda x: jnp.sort(jnp.stack([x, 1 - x]))[0], 0.5, "sort"), (lambda x: jnp.where(x > 1, x, 2 * x), 1.0, "gt"),
    (lambda x: jnp.max(jnp.stack([x, x**2])), 1.0, "reduce_max"), (lambda x: x * jnp.floor(x), 2.0, "floor"),
    (lambda x: jnp.clip(x, 0.0, 1.0), 1.0, "min"), (lambda x: lax.cond(x < 1, lambda y: y, lambda y: 3 * y - 2, x), 1.0, "lt"),
], ids=["abs", "max", "relu", "sort", "where", "reduce_max", "floor", "clip", "cond"])
def test_kinks_at_the_point(f: Callable[..., Any], x: float, name: str) -> None:
    report = check(f)(jnp.array(x))
    assert report.ok and any(k.operation == name and k.severity == "warning" for k in report.of_kind("non-smooth")), str(report)


def test_decisions_near_the_point() -> None:
    def f(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.abs(x - 1) * x)  # near

    report = check(f)(jnp.array([3.0, 1 + 1e-8]))
    finding = found(report, "non-smooth")
    assert report.ok and finding.severity == "note" and finding.operation == "abs"
    assert f":{the_line_of('near')}:" in (finding.line or "")
    assert finding.difference == pytest.approx(1e-8, rel=1)
    assert not check(f)(jnp.array([3.0, 1.1])).findings


def test_a_wrong_derivative_at_a_kink_that_is_none() -> None:
    report = check(lambda x: jax.nn.relu(x) - jax.nn.relu(-x))(jnp.array(0.0))  # the function is x
    assert not report.ok and found(report, "non-smooth").operation == "max"


# ------------------------------------------------------------------------------------------------------- blocked derivatives


@pytest.mark.parametrize(("f", "name"), [
    (jnp.floor, "floor"), (jnp.sign, "sign"), (lambda x: lax.stop_gradient(x) ** 2, "stop_gradient"),
    (lambda x: jnp.round(jnp.sin(x)), "round"), (lambda x: (x > 0.5).astype(float) * 2, "gt"),
    (lambda x: jnp.array([1.0, 2.0, 3.0])[jnp.argmax(x)], "argmax"), (lambda x: x.astype(int).astype(float), "convert_element_type"),
    (jax.jit(lambda x: lax.scan(lambda c, v: (c + jnp.floor(v), None), jnp.zeros(()), x)[0]), "floor")],
    ids=["floor", "sign", "stop_gradient", "round", "comparison", "argmax", "cast", "scan"])
def test_what_blocks_a_derivative(f: Callable[..., Any], name: str) -> None:
    finding = found(check(f)(X), "blocked")
    assert finding.operation == name and finding.input in ("x", "args[0]", "number") and finding.severity == "warning"


def test_one_open_path_is_enough() -> None:
    assert not check(lambda x: x + 0 * jnp.floor(x))(X).of_kind("blocked")
    assert not check(lambda x, i: x[i])(X, jnp.array([0, 2])).findings  # integers that are indices


def test_integer_inputs() -> None:
    with promoting():
        report = check(lambda n, x: n * x)(3, X)
        finding = found(report, "integer input")
        assert report.ok and finding.input == "n" and finding.severity == "note"
    report = check(lambda n: n * 2)(jnp.array(3))
    assert not report.ok and found(report, "integer input").severity == "wrong"


# ------------------------------------------------------------------------------------ no values, no digits, no determinism


def test_infinite_slopes_and_values() -> None:
    def masked(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0))  # slope

    finding = found(check(masked)(jnp.array([0.0, 1.0])), "not finite")
    assert finding.operation == "sqrt" and finding.mode == "reverse" and f":{the_line_of('slope')}:" in (finding.line or "")
    finding = found(check(jax.jit(lambda x: jnp.sum(jnp.log(x) * 2)))(X), "not finite")
    assert finding.operation == "log" and finding.mode is None and finding.severity == "wrong"


def test_cancellation_in_single_precision() -> None:
    def f(x: jax.Array) -> jax.Array:
        return (1 - jnp.cos(x)) / x**2  # cancels

    report = check(f, order=1)(jnp.array(1e-3, jnp.float32))
    finding = found(report, "precision")
    assert finding.operation == "sub" and finding.severity == "warning" and f":{the_line_of('cancels')}:" in (finding.line or "")
    assert report.ok and "float64" in finding.text
    assert found(check(lambda x: jnp.log(1 + x), order=1)(jnp.array(1e-6, jnp.float32)), "precision").operation == "log"
    assert not check(jnp.log1p, order=1)(jnp.array(1e-6, jnp.float32)).findings


def test_cancellation_in_a_derivative_and_overflow() -> None:
    report = check(lambda x: jnp.sum(jnp.sqrt(x**2 + 1e4) - x), order=1)(jnp.array([4e4], jnp.float32))
    assert found(report, "precision").severity == "warning", str(report)
    report = check(lambda x: jnp.log(jnp.sum(jnp.exp(x))), order=1)(jnp.array([100.0, 1.0], jnp.float32))
    assert found(report, "precision").operation == "exp"
    assert not check(jax.nn.logsumexp, order=1)(jnp.array([100.0, 1.0], jnp.float32)).findings


def test_functions_that_are_not_functions_of_their_arguments() -> None:
    rng = np.random.default_rng(0)
    assert found(check(lambda x: x * rng.random())(X), "not deterministic").severity == "wrong"

    def counts(x: np.ndarray) -> np.ndarray:
        return np.asarray(x * rng.random())

    def called(x: jax.Array) -> jax.Array:
        return x + jax.pure_callback(counts, jax.ShapeDtypeStruct(x.shape, x.dtype), lax.stop_gradient(x))

    assert found(check(called)(X), "not deterministic").operation == "pure_callback"


def test_functions_without_derivative() -> None:
    assert not check(lambda x: jnp.argmax(x))(X).ok
    finding = found(check(lambda x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x))(X), "no derivative")
    assert finding.severity == "wrong" and finding.mode == "forward and reverse" and "pure_callback" in finding.text


def test_noise_is_no_error() -> None:
    assert check(lambda x: (1 - jnp.cos(x)) / x**2, order=1)(jnp.array(1e-4)).ok
    assert check(lambda x: jnp.sum(jnp.cumsum(1e8 * x) - 1e8 * x))(X).ok


# ------------------------------------------------------------------------------------------------------------ right programs


@functools.lru_cache
def newton() -> Callable[..., Any]:
    def solve(a: jax.Array) -> jax.Array:
        return lax.while_loop(lambda s: jnp.abs(s * s - a) > 1e-12, lambda s: (s + a / s) / 2, a)

    return dr.implicit(solve, lambda s, a: s * s - a)


def newton_steps(s: jax.Array, a: jax.Array) -> jax.Array:
    return lax.fori_loop(0, 8, lambda _, s: (s + a / s) / 2, s)


RIGHT: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "sin": (jnp.sin, (X,)), "product": (lambda x, y: x * y, (X, X + 1)), "log": (jnp.log, (jnp.array([1e-6, 1.0, 1e6]),)),
    "sinc": (jnp.sinc, (jnp.array([0.0, 0.4]),)), "matmul": (jnp.matmul, (jnp.outer(X, X), X)),
    "softmax": (jax.nn.softmax, (X,)), "relu": (jax.nn.relu, (X,)), "gelu": (jax.nn.gelu, (X,)), "silu": (jax.nn.silu, (X,)),
    "logsumexp": (jax.nn.logsumexp, (X,)), "softplus": (jax.nn.softplus, (X,)), "sort": (lambda x: jnp.sort(x) * x, (X,)),
    "max": (lambda x: jnp.max(x) * jnp.min(x), (X,)), "clip": (lambda x: jnp.clip(x, -0.5, 0.5), (X,)),
    "norm": (jnp.linalg.norm, (X,)), "solve": (jnp.linalg.solve, (jnp.eye(3) + jnp.outer(X, X), X)),
    "cholesky": (lambda x: jnp.linalg.cholesky(jnp.eye(3) + jnp.outer(x, x)), (X,)),
    "eigh": (lambda x: jnp.linalg.eigvalsh(jnp.diag(X) + jnp.outer(x, x)), (X,)), "fft": (lambda x: jnp.abs(jnp.fft.fft(x)), (X,)),
    "complex": (lambda z: z**2 * jnp.conj(z), (Z,)), "to real": (lambda z: jnp.real(z * jnp.conj(z)), (Z,)),
    "gather": (lambda x, i: x[i] ** 2, (X, jnp.array([2, 2, 0]))), "scatter": (lambda x: x.at[jnp.array([1, 1])].add(x[:2]), (X,)),
    "size 0": (lambda x: jnp.sin(x), (jnp.zeros((0, 2)),)), "empty sum": (lambda x, y: jnp.sum(x) * y, (jnp.zeros(0), X)),
    "scan": (lambda x: lax.scan(lambda c, v: (c * v + 1, c), 1.0, x), (X,)),
    "reversed scan": (lambda x: lax.scan(lambda c, v: (jnp.sin(c + v), c * v), 1.0, x, reverse=True), (X,)),
    "fori": (lambda x: lax.fori_loop(0, 4, lambda i, c: jnp.cos(c), x), (X,)), "implicit": (newton(), (jnp.array(4.0),)),
    "while": (lambda a: lax.while_loop(lambda c: jnp.sum(c) < 10, lambda c: c * 2 + a, a), (jnp.abs(X),)),
    "cond": (lambda x: lax.cond(jnp.sum(x) > 0, jnp.sin, jnp.cos, x), (X,)), "where": (lambda x: jnp.where(x > 0, x**2, x), (X,)),
    "safe where": (lambda x: jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0), (jnp.array([-1.0, 2.0]),)),
    "checkpoint": (jax.checkpoint(lambda x: jnp.sin(jnp.exp(x))), (X,)), "jit": (jax.jit(lambda x: jnp.tan(x)), (X,)),
    "vmap": (jax.vmap(lambda x: x**3), (X,)), "grad inside": (jax.grad(lambda x: jnp.sum(x**3)), (X,)),
    "dr.grad inside": (dr.grad(lambda x: jnp.sum(jnp.sin(x))), (X,)), "custom_vjp": (right_vjp, (X,)),
    "custom_root": (lambda a: lax.custom_root(lambda s: s**2 - a, 1.5, lambda f, s: newton_steps(s, a), lambda g, y: y / g(1.0)),
                    (jnp.array(2.0),)),
    "pytree": (lambda p, t: {"out": p["a"] * p["b"][0], "n": t}, ({"a": X, "b": [jnp.array(2.0)]}, 3)),
    "large": (lambda x: 1e12 * jnp.sin(x), (X,)), "small": (lambda x: 1e-12 * jnp.sin(x), (X,)),
    "constant": (lambda x: jnp.ones(3), (X,)), "identity": (lambda x: x, (X,)), "square at 0": (jnp.square, (jnp.zeros(2),)),
    "gammaln": (lax.lgamma, (jnp.abs(X),)), "erf": (lax.erf, (X,)), "cumulative": (lambda x: jnp.cumsum(jnp.cumprod(x)), (X,)),
    "masked softmax": (lambda x: jax.nn.softmax(jnp.where(jnp.array([True, False, True]), x, -jnp.inf)), (X,)),
    "Python if": (lambda x: x**2 if x > 0 else -x, (2.0,)),
    "key": (lambda k, x: x * jax.random.normal(k, (3,)), (jax.random.key(0), X)),
    "string": (lambda x, how: jnp.sin(x) if how == "sin" else x, (X, "sin")),
    "bfloat16": (lambda x: jnp.sum(x * x), (jnp.array([1.0, 2.0], jnp.bfloat16),)),
    "float32": (lambda x: jnp.sum(jnp.sin(x) * jnp.exp(x)), (jnp.array([0.3, 2.0], jnp.float32),)),
    "forced float32": (lambda x: jnp.tanh(x.astype(jnp.float32)) ** 2, (jnp.array([0.3, 2.0]),)),
}
#: One in so many is checked to order 2 by default; all are with ``--thorough``.
SECOND = 6


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.promotes
def test_right_programs_give_no_alarm(name: str, request: pytest.FixtureRequest) -> None:
    fun, args = RIGHT[name]
    order = 2 if request.config.getoption("--thorough") or list(RIGHT).index(name) % SECOND == 0 else 1
    report = check(fun, order=order)(*args)  # type: ignore[arg-type]
    assert not [f for f in report.findings if f.severity != "note"], str(report)


@pytest.mark.parametrize("problem", [pytest.param(s, marks=pytest.mark.thorough) for s in SCENARIOS.select("tour")], ids=repr)
def test_problems_give_no_alarm(problem: Any) -> None:
    report = check(problem.function)(problem.make_inputs())
    assert not [f for f in report.findings if f.severity != "note"], str(report)


@pytest.mark.thorough
@pytest.mark.promotes
@pytest.mark.parametrize("seed", range(10))
def test_random_programs_give_no_alarm(seed: int) -> None:
    pool = Pool(seed)
    for number in range(8):
        program = pool.program(number)
        gradient = dr.grad(lambda xs, p=program: jnp.sum(jnp.abs(p.run(xs))))(program.inputs)  # type: ignore[arg-type, misc]
        if not all(np.isfinite(x).all() for x in (program.run(program.inputs), *jax.tree.leaves(gradient))):
            continue  # some lines of the table are about the ends of a domain, and poles; jax differentiates not all of them
        report = check(lambda *xs, p=program: p.run(xs), order=min(2, program.order))(*program.inputs)  # type: ignore[arg-type, misc]
        assert report.ok, f"{program!r}\n{report}"


# ---------------------------------------------------------------------------------------------------------------- the report


def test_a_check_prints_nothing_and_draws_no_other_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    def f(x: jax.Array) -> jax.Array:
        jax.debug.print("seen {x}", x=x)
        return x * jax.random.normal(jax.random.key(0), x.shape, x.dtype)

    assert not check(f, order=1)(jnp.ones(3, jnp.float32)).findings
    jax.effects_barrier()
    assert capsys.readouterr().out == ""


def test_reports_are_the_same_each_time() -> None:
    f = lambda x: wrong_vjp(x) + jnp.abs(x - 0.3)  # noqa: E731
    assert str(check(f, order=1)(X)) == str(check(f, order=1)(X))
    assert str(check(f, order=1, seed=1)(X)) != str(check(f, order=1)(X))


def test_what_check_refuses() -> None:
    with pytest.raises(TypeError, match="values of its arguments"):
        jax.jit(lambda x: check(jnp.sin)(x).ok)(X)
    with pytest.raises(ValueError, match="order=3"):
        check(jnp.sin, order=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="surrogates"):
        check(jnp.sin, surrogates="ok")  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        check(lambda x: x / (1 // 0))(X)


@pytest.mark.promotes
def test_nothing_stays_behind() -> None:
    def settings() -> list[object]:
        return [getattr(jax.config, name) for name in ("jax_enable_x64", "jax_numpy_dtype_promotion", "jax_debug_nans")]

    before = settings()
    check(lambda x: x * jnp.asarray(2.0, jnp.float64), order=1)(jnp.array(1.0, jnp.float32))
    assert settings() == before
    assert float(jax.grad(jnp.sin)(0.0)) == 1.0 and Derivatives(lambda x: [x], False).value(X)[0] is X


# -------------------------------------------------------------------------------------------------------------------- limits


def test_what_limits_leave_out_is_said_with_how_to_check_it() -> None:
    @jax.custom_jvp
    def cube(x: Any) -> Any:
        return x**3

    cube.defjvp(lambda primals, tangents: (cube(*primals), 3 * primals[0] ** 2 * tangents[0]))

    def f(x: Any) -> Any:
        return lax.fori_loop(0, 12, lambda i, c: c + 0.01 * cube(x), x)

    report = dr.check(f, most_steps=8)(0.5)
    assert report.ok and len(report.left_out) == 2
    steps, calls = report.left_out
    assert steps.startswith("steps 8 to 11 of the scan at ") and "check(f, most_steps=12)" in steps
    assert calls.startswith("the rule of 'cube' in 4 of its 8 calls at ") and "check(f, most_calls=8)" in calls
    assert f"not checked: {steps}" in str(report)
    assert dr.check(f, most_steps=12, most_calls=12)(0.5).left_out == ()


def test_operations_behind_the_limit_are_said_not_to_be_searched() -> None:
    @dr.rule(partials=[lambda x: 2 * x])  # should be 3 * x ** 2
    def cube(x: Any) -> Any:
        return x**3

    def f(x: Any) -> Any:
        for _ in range(12):
            x = jnp.sin(x)
        return cube(x)

    report = dr.check(f, most_operations=10)(0.5)
    assert not report.ok and any("most_operations=13" in text for text in report.left_out)
    assert [found.operation for found in dr.check(f)(0.5).findings] == ["cube"]


def test_loops_of_examples_that_take_different_numbers_of_steps() -> None:
    def f(x: Any) -> Any:
        return lax.while_loop(lambda c: c < x, lambda c: c + jnp.abs(x), x * 0.1)

    report = dr.check(jax.vmap(f))(jnp.array([0.5, 0.7]))
    assert any("under vmap" in text and "check(f)(x[i])" in text for text in report.left_out)
    assert dr.check(f)(0.5).left_out == ()


def test_limits_are_positive() -> None:
    with pytest.raises(ValueError, match="most_steps must be at least 1; got 0"):
        dr.check(jnp.sin, most_steps=0)
