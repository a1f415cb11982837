"""``dr.explain``: the figures of each variant, the line of code that it recommends, what dominates, and the command."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from agreement import assert_close

import dualrev
from dualrev import time_model
from dualrev.__main__ import main
from dualrev._jax.source_lines import line_of
from dualrev.inspection.explanation import Explanation, Variant, measuring
from dualrev.inspection.explanation.api import explained
from dualrev.inspection.liveness import live_bytes, peak_bytes
from dualrev.programs.partition import eqns_within
from dualrev.time_model import calibrate, machine

Array = Any
dr: Any = dualrev


@pytest.fixture(autouse=True)
def shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The constants that come with the package, whatever this machine was calibrated to."""
    monkeypatch.setattr(machine, "_constants", lambda backend: time_model.shipped("cpu", "0.10.2"))


def x_of(*shape: int) -> Array:
    n = 1
    for length in shape:
        n *= length
    return jnp.linspace(0.5, 1.7, n).reshape(shape)


def loss(w: Array, x: Array) -> Array:
    h = jnp.tanh(x @ w)
    h, _ = jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), h, None, length=7)
    return jnp.sum(h**2)


def band(x: Array) -> Array:
    return jnp.sin(x[1:]) * x[:-1] + jnp.exp(x[1:])


def energy(x: Array) -> Array:
    return jnp.sum((x[1:] - x[:-1] ** 2) ** 2 + jnp.exp(x[1:]))


def few(x: Array) -> Array:
    a = jnp.sin(x[0] * x[1]) * x[2] / (1 + x[3] ** 2) + x[4]
    return jnp.stack([a, a * 2, jnp.exp(a), a**2, jnp.cos(a)])


def narrow(x: Array) -> Array:
    return jnp.tanh(jnp.tanh(x @ x_of(40, 3)) @ x_of(3, 40))


def tree(p: Any, *, scale: Array, kind: str = "sin") -> Array:
    return scale * jnp.sum(getattr(jnp, kind)(p["a"]) * p["index"].astype(p["a"].dtype))


def powers(n: int, x: Array, times: int = 2) -> Array:
    for _ in range(times):
        x = x**n
    return jnp.sum(x)


def evaluated(code: str, fun: Callable[..., Any]) -> Callable[..., Any]:
    """The line of code as a user runs it, who has the function under its name."""
    name = fun.__name__ if fun.__name__.isidentifier() else "f"
    found: Callable[..., Any] = eval(code, {"dr": dualrev, "jax": jax, name: fun})
    return found


def assert_same(found: Any, expected: Any) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert_close(a, b)


Case = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], dict[str, Any], Callable[..., Any], set[str]]
CASES: dict[str, Case] = {
    "gradient": (loss, (x_of(6, 6), x_of(3, 6)), {}, {}, jax.grad(loss), {"reverse", "forward", "reverse, inputs stored"}),
    "second argument": (loss, (x_of(6, 6), x_of(3, 6)), {}, {"argnums": 1}, jax.grad(loss, 1), {"reverse"}),
    "both": (loss, (x_of(6, 6), x_of(3, 6)), {}, {"argnums": (0, 1)}, jax.grad(loss, (0, 1)), {"reverse"}),
    "tree, integers and strings": (
        tree, ({"a": x_of(4), "index": jnp.arange(4)},), {"scale": jnp.asarray(2.0), "kind": "cos"}, {},
        lambda p, scale, kind: {"a": jax.grad(lambda a: tree({**p, "a": a}, scale=scale, kind=kind))(p["a"]), "index": None},
        {"reverse"}),
    "numbers that Python counts with": (powers, (3, x_of(4), 2), {}, {}, lambda n, x, times: jax.grad(lambda x: powers(n, x, times))(x),
                                        {"reverse", "forward"}),
    "lambda": (lambda x: jnp.sum(jnp.sin(x)), (x_of(5),), {}, {}, lambda x: jnp.cos(x), {"reverse"}),
    "auxiliary results": (lambda x: (jnp.sum(x**2), {"n": x}), (x_of(5),), {}, {"has_aux": True}, lambda x: (2 * x, {"n": x}),
                          {"reverse"}),
    "sparse Jacobian": (band, (x_of(120),), {}, {}, jax.jacfwd(band), {"sparse", "forward", "reverse", "tape"}),
    "small Jacobian": (few, (x_of(5),), {}, {}, jax.jacfwd(few), {"elimination", "forward", "reverse", "tape"}),
    "Jacobian through a waist": (narrow, (x_of(40),), {}, {}, jax.jacfwd(narrow), {"waist", "tape"}),
    "Jacobian of a scalar": (energy, (x_of(9),), {}, {"derivative": "jacobian"}, jax.grad(energy), {"reverse"}),
    "Hessian": (energy, (x_of(9),), {}, {"derivative": "hessian"}, jax.hessian(energy), {"forward over reverse", "forward", "reverse"}),
}


@pytest.mark.parametrize("name", CASES)
def test_each_variant_is_the_derivative_and_its_line_runs_as_printed(name: str) -> None:
    fun, args, kwargs, options, expected, names = CASES[name]
    found = dr.explain(fun, *args, **options, **kwargs)
    by_jax = expected(*args, **kwargs)
    assert names <= {v.name for v in found.variants}, found
    assert_same(evaluated(found.code, fun)(*args, **kwargs), by_jax)
    for variant in found.variants:
        assert_same(evaluated(variant.code, fun)(*args, **kwargs), by_jax)
        assert variant.seconds > 0 and variant.kernels > 0 and variant.bytes_moved > 0 and variant.peak_bytes > 0
    assert found.code == found[found.recommended].code
    assert found.recommended in str(found) and found.code in found._repr_html_().replace("&quot;", '"').replace("&#x27;", "'")


@pytest.mark.parametrize("name", ["gradient", "sparse Jacobian", "small Jacobian", "Hessian"])
def test_the_recommendation_is_that_of_auto_or_better(name: str) -> None:
    fun, args, _, options, _, _ = CASES[name]
    found = dr.explain(fun, *args, **options)
    plan = getattr(dr, found.derivative)(fun, engine="auto").plan(*args)
    assert found.automatic == plan.chosen
    assert found.recommended == plan.chosen or found[found.recommended].seconds < found[plan.chosen].seconds
    for variant, seconds in plan.seconds.items():
        if "sparse" not in variant:  # a sparse derivative keeps what it has prepared: its program is another one the second time
            assert found[variant].seconds == pytest.approx(seconds, rel=0.2)


def test_shapes_do_for_arguments() -> None:
    args = x_of(6, 6), x_of(3, 6)
    concrete, shapes = dr.explain(loss, *args), dr.explain(loss, *[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in args])
    assert shapes.value is None and shapes.norm is None and concrete.value == pytest.approx(float(loss(*args)))
    assert concrete.variants == shapes.variants and concrete.lines == shapes.lines
    assert [(a.name, a.type, a.is_differentiated) for a in shapes.arguments] == [
        ("w", "float64[6, 6]", True), ("x", "float64[3, 6]", False)]

    @jax.jit
    def within(w: Array, x: Array) -> Array:
        assert dr.explain(loss, w, x).value is None
        return w

    within(*args)


def test_what_is_differentiated_is_said() -> None:
    text = str(dr.explain(tree, {"a": x_of(4), "index": jnp.arange(4)}, scale=jnp.asarray(2.0)))
    assert "gradient of tree by p['a'] float64[4]" in text
    assert "not differentiated: p['index'] int" in text and "scale float64[]" in text
    assert "gradient of powers by x float64[4]" in str(dr.explain(powers, 3, x_of(4)))
    text = str(dr.explain(few, x_of(5)))
    assert "Jacobian of few" in text and f"norm {float(jnp.linalg.norm(few(x_of(5)))):.6g}" in text


def test_numbers_of_passes_and_of_bytes_kept() -> None:
    args = x_of(6, 6), x_of(3, 6)
    found = dr.explain(loss, *args)
    assert found["forward"].passes == 36 and found["forward"].residual_bytes == 0
    assert found["reverse"].passes == 1

    def kept(fun: Callable[..., Any]) -> int:
        """Within a compiled program."""
        nbytes: list[int] = []
        jax.eval_shape(lambda w, x: nbytes.append(dr.linearize(lambda w: fun(w, x), w)[1].residual_bytes), *args)
        return nbytes[0]

    assert found["reverse"].residual_bytes == kept(loss)
    assert found["reverse, inputs stored"].residual_bytes == kept(dr.checkpoint(loss))
    assert found["reverse, inputs stored"].residual_bytes < found["reverse"].residual_bytes
    jacobian = dr.explain(band, x_of(120))
    assert (jacobian["sparse"].passes, jacobian["forward"].passes, jacobian["reverse"].passes) == (2, 120, 119)
    assert dr.explain(narrow, x_of(40))["waist"].how == "3 pulls, 3 pushes"


def test_what_takes_too_many_passes_is_left_out_with_the_reason() -> None:
    found = dr.explain(loss, x_of(30, 30), x_of(3, 30))
    assert "900 inputs are more than 256 pushes" in found.left_out["forward"] and "900 inputs" in str(found)
    assert "forward" not in {v.name for v in found.variants}


def test_a_derivative_that_would_not_fit_is_priced_all_the_same() -> None:
    found = dr.explain(jax.nn.softmax, jax.ShapeDtypeStruct((100_000,), "float32"))
    assert found["reverse"].peak_bytes > 4 * 10**10 and found["forward"].passes == 100_000
    assert found.left_out["sparse"] == "its pattern has many entries"


# --------------------------------------------------------------------------------------------------------- what dominates


def heavy(w: Array, x: Array) -> Array:
    light = jnp.sin(x)
    y = light @ w @ w @ w  # the line that dominates
    return jnp.sum(y)


def test_lines_that_dominate() -> None:
    found = dr.explain(heavy, x_of(60, 60), x_of(40, 60))
    first = found.lines[0]
    assert first.source.startswith("y = light @ w") and first.place.startswith(__file__) and first.operation == "dot_general"
    assert first.share > 0.5
    assert sum(line.share for line in found.lines) == pytest.approx(1.0)
    assert sum(line.residual_bytes for line in found.lines) == found[found.recommended].residual_bytes
    assert sum(line.bytes_moved for line in found.lines) == pytest.approx(found[found.recommended].bytes_moved, rel=0.01)
    assert "y = light @ w @ w @ w" in str(found)


def steps(w: Array, x: Array) -> Array:
    def step(c: Array, _: None) -> tuple[Array, None]:
        c = jnp.sin(c @ w)
        return c * jax.nn.softmax(c), None

    h = jnp.tanh(x)
    return jnp.sum(jax.lax.scan(step, h, None, length=9)[0])


@pytest.mark.parametrize("derived", [dr.grad(steps), dr.grad(dr.checkpoint(steps)), dr.grad(steps, fuse_loops=False),
                                     dr.jacfwd(steps, engine="reverse")])
def test_operations_of_pulls_and_pushes_stand_on_the_users_lines(derived: Any) -> None:
    """Loops included, and what jax's own functions call."""
    start = steps.__code__.co_firstlineno
    lines = range(start, start + 8)
    jaxpr = jax.make_jaxpr(derived)(x_of(5, 5), x_of(2, 5))
    found = [(name, line_of(eqn.source_info)) for eqn in eqns_within(jaxpr) if (name := str(eqn.primitive)) in ("dot_general", "cos")]
    assert len(found) > 3
    for name, where in found:
        assert any(f"{__file__}:{line}" in where for line in lines), (name, where)


def test_lines_of_the_user_end_with_the_pull() -> None:
    """What is traced after a pull stands on its own line."""
    def both(x: Array) -> Array:
        gradient = dr.grad(energy)(x)
        return jnp.cosh(gradient)

    (cosh,) = [eqn for eqn in eqns_within(jax.make_jaxpr(both)(x_of(4))) if str(eqn.primitive) == "cosh"]
    assert f":{both.__code__.co_firstlineno + 2}" in line_of(cosh.source_info)


# --------------------------------------------------------------------------------------------------------------- liveness


def test_bytes_that_live() -> None:
    a, x = jnp.ones((8, 8)), jnp.ones(8)
    jaxpr = jax.make_jaxpr(lambda a, x: a @ (a @ (a @ x)))(a, x)
    inputs, vector = 8 * 72, 8 * 8
    assert [m.nbytes for m in live_bytes(jaxpr)] == [inputs + vector, inputs + 2 * vector, inputs + 2 * vector]
    assert peak_bytes(jax.make_jaxpr(lambda x: x)(x)) == vector
    # What is computed where it is read has no memory.
    assert peak_bytes(jax.make_jaxpr(lambda x: jnp.cos(jnp.sin(x) * 2.0))(x)) == 2 * vector


def test_a_step_holds_its_own_bytes() -> None:
    def loop(a: Array, x: Array) -> Array:
        return jax.lax.scan(lambda c, _: (a @ (a @ c), c), x, None, length=100)[1]

    small, stacked = 8 * 8, 100 * 8 * 8
    nbytes = peak_bytes(jax.make_jaxpr(loop)(jnp.ones((8, 8)), jnp.ones(8)))
    assert 8 * 72 + stacked + 2 * small <= nbytes <= 8 * 72 + stacked + 5 * small


@pytest.mark.parametrize("fun", [loss, dr.grad(loss), dr.grad(dr.checkpoint(loss, policy="auto")), dr.grad(loss, fuse_loops=False)])
def test_peaks_are_near_those_of_the_compiler(fun: Callable[..., Any]) -> None:
    args = x_of(50, 50), x_of(80, 50)
    reserved = jax.jit(fun).lower(*args).compile().memory_analysis()
    if reserved is None:
        pytest.skip("the compiler does not tell")
    total = reserved.argument_size_in_bytes + reserved.output_size_in_bytes + reserved.temp_size_in_bytes
    assert 0.6 * total < peak_bytes(jax.make_jaxpr(fun)(*args)) < 1.7 * total


# -------------------------------------------------------------------------------------------------------------- measuring


def test_measured_times_stand_beside_predicted_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "BUDGET", 0.0)
    heard: list[str] = []
    found = explained(few, (x_of(5),), {}, measure=True, told=lambda step, done, steps: heard.append(step))
    assert found.is_measured and all(v.measured_seconds and v.measured_ratio for v in found.variants)
    assert found[found.predicted].measured_ratio == 1.0
    assert any(step.startswith("compiling: ") for step in heard) and "measuring" in heard
    assert [v.measured_seconds for v in found.variants] == sorted(v.measured_seconds or 0.0 for v in found.variants)
    assert "measured" in str(found) and json.loads(json.dumps(found.to_dict()))["is_measured"] is True


def test_measured_times_change_the_recommendation(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(runs: list[Any]) -> list[list[float]]:
        return [[3.0, *[1.0 + k for k in range(len(runs) - 1)]]] * 3

    monkeypatch.setattr(measuring, "_rounds", slow)
    found = dr.explain(loss, x_of(6, 6), x_of(3, 6), measure=True)
    assert found.predicted == "reverse" and found.recommended != "reverse"
    assert found.code == found[found.recommended].code
    assert "3.00 times as fast as reverse, which was predicted to be the best" in str(found)
    assert 'engine="auto" takes reverse' in str(found)


def test_only_a_clear_difference_changes_it() -> None:
    def variant(name: str, ratio: float | None) -> Variant:
        return Variant(name, "", 1, "", 0.0, 0.0, 0.0, 0, 0, 1.0, None if ratio is None else 1.0, None, ratio)

    assert measuring.fastest([variant("a", 1.0), variant("b", 0.98), variant("c", None)], "a") == "a"
    assert measuring.fastest([variant("a", 1.0), variant("b", 0.5), variant("c", None)], "a") == "b"


# ---------------------------------------------------------------------------------------------------------------- reports


def test_a_dictionary_for_machines() -> None:
    found = json.loads(json.dumps(dr.explain(loss, x_of(6, 6), x_of(3, 6)).to_dict()))
    assert found["derivative"] == "grad" and found["recommended"] == "reverse" and found["code"] == "jax.jit(dr.grad(loss))"
    (reverse,) = [v for v in found["variants"] if v["name"] == "reverse"]
    assert {"passes", "flops", "bytes_moved", "kernels", "residual_bytes", "peak_bytes", "seconds"} <= set(reverse)
    assert found["lines"][0]["share"] > 0


def test_html_is_well_formed() -> None:
    open_tags: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            if tag != "br":
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    text = dr.explain(lambda x: jnp.sum(jnp.where(x < 1, x, x**2)), x_of(4))._repr_html_()
    Checker().feed(text)
    assert not open_tags and "&lt;lambda&gt;" in text and "<lambda>" not in text


@pytest.mark.parametrize(("call", "error", "match"), [
    (lambda: dr.explain(3.0, x_of(3)), TypeError, "function"),
    (lambda: dr.explain(loss, x_of(3, 3), x_of(3, 3), derivative="gradient"), ValueError, "'grad', 'jacobian', 'hessian'"),
    (lambda: dr.explain(lambda n: n * 2, 3), TypeError, "no input to differentiate by: n: the Python number 3"),
    (lambda: dr.explain(lambda n: n * 2, jnp.arange(3)), TypeError, r"n: int\d+\[3\]"),
    (lambda: dr.explain(lambda: 1.0), TypeError, "no positional argument"),
    (lambda: dr.explain(jnp.argmax, x_of(3)), TypeError, r"argmax returns int\d+\[\], which has no derivative"),
    (lambda: dr.explain(lambda x: {"a": x, "b": "text"}, x_of(3)), TypeError, r"a str at \['b'\]"),
    (lambda: dr.explain(lambda x: None, x_of(3)), TypeError, "no array"),
    (lambda: dr.explain(lambda x: jax.lax.complex(x, x), x_of(3)), TypeError, "holomorphic"),
    (lambda: dr.explain(band, x_of(3), derivative="grad"), TypeError, r"float64\[2\], and derivative='grad' is that of one scalar"),
    (lambda: dr.explain(band, x_of(3), derivative="hessian"), TypeError, "one scalar"),
    (lambda: dr.explain(lambda x: x if x[0] > 0 else -x, x_of(3)), ValueError, "can't be traced"),
    (lambda: dr.explain(band, jax.ShapeDtypeStruct((3,), "float64"), measure=True), TypeError, "measure=True runs the function"),
    (lambda: dr.explain(loss, x_of(3, 3), x_of(3, 3), argnums=2), ValueError, "argnums"),
    (lambda: dr.explain(lambda x: x, x_of(3), has_aux=True), TypeError, "must return"),
    (lambda: dr.explain(jnp.sum, jax.ShapeDtypeStruct(jax.export.symbolic_shape("n"), "float32")), ValueError, "symbol"),
])
def test_what_does_not_fit_is_said(call: Callable[[], Explanation], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()


def test_errors_of_the_function_are_its_own() -> None:
    def wrong(x: Array) -> Array:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        dr.explain(wrong, x_of(3))
    assert dr.explain(energy, x_of(4)).recommended  # and nothing is left behind


# ------------------------------------------------------------------------------------------------------------ the command


MODEL = """
import jax.numpy as jnp

def loss(w, x, scale=1.0):
    print("told by the function")
    return scale * jnp.sum(jnp.tanh(x @ w))

def best(w):
    return jnp.argmax(w)
"""


@pytest.fixture
def model(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file with functions, and a home in which the constants of the device were never measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "a_model.py"
    path.write_text(MODEL)
    return str(path)


def test_the_command(model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[int] = []

    def measured(told: Any) -> time_model.Constants:
        calls.append(1)
        told(0)
        return time_model.shipped("cpu").replace(name="measured here, calibrated")

    monkeypatch.setattr(calibrate, "measured", measured)
    monkeypatch.setattr(machine, "forget", lambda: None)
    words = ["explain", f"{model}:loss", "--args", "jnp.ones((4, 4)), jnp.ones((2, 4)), scale=2.0"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["name"] == "loss" and found["code"] == "jax.jit(dr.grad(loss))"
    assert calls == [1] and machine.cache_file().exists()
    assert main([*words, "--argnums", "1", "--derivative", "jacobian"]) == 0
    shown = capsys.readouterr()
    assert "Jacobian of loss by x" in shown.out and "told by the function" not in shown.out and "recommended: " in shown.out
    assert calls == [1]  # once for a device


def test_what_the_command_can_not_explain(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words, match in ((["explain", f"{model}:best", "--args", "jnp.ones(3)", "--no-calibration"], "has no derivative"),
                         (["explain", f"{model}:loss", "--no-calibration"], "needs arguments"),
                         (["explain", f"{model}:none", "--args", "1.0", "--no-calibration"], "has no function")):
        assert main(words) == 2
        assert match in capsys.readouterr().err
    assert not machine.cache_file().exists()


def test_a_notebook_shows_the_picture_of_the_function() -> None:
    found = dr.explain(lambda x, n: jnp.sum(jnp.tanh(x) ** n), x_of(4), 3)
    assert "tanh" in found.picture().svg and found.picture().svg in found._repr_html_()
    assert "_draw" not in found.to_dict()
