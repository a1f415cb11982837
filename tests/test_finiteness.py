"""Where a NaN or an infinity came from: ``where_nan``, ``finite``, ``python -m dualrev nan``, and ``jax_debug_nans``."""

from __future__ import annotations

import functools
import json
import pathlib
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from faults import FAULTS, Fault
from jax import lax

import dualrev as dr
from dualrev.__main__ import main
from dualrev.inspection.finiteness.causes import CAUSES
from dualrev.inspection.finiteness.report import NanReport

HERE = pathlib.Path(__file__)
#: Faults that take more than a second: in loops within loops, and in long rules.
SLOW = {"pull_in_while", "pull_in_checkpointed_scan", "in_nested_loops", "std_of_constants", "repeated_eigenvalues", "singular_solve",
        "gradient_of_indefinite", "in_hessian", "in_while", "log_in_other_branch"}
QUICK = [f for f in FAULTS if f.name not in SLOW]


def line_with(mark: str) -> int:
    """The line of this file that ends with a mark."""
    (found,) = [i for i, line in enumerate(HERE.read_text().splitlines(), 1) if line.endswith(f"# {mark}")]
    return found


@functools.cache
def report_of(name: str) -> NanReport:
    (fault,) = [f for f in FAULTS if f.name == name]
    return dr.where_nan(fault.run)(*fault.args)


def is_exact(fault: Fault) -> bool:
    report = report_of(fault.name)
    return report.made is not None and (report.operation, report.where, report.line, report.made.steps, report.made.example) == (
        fault.operation, fault.where, fault.line, fault.steps, fault.example)


def test_share_of_faults_that_are_found_exactly() -> None:
    """Operation, direction, line, step and example are right for at least 29 of 30 faults."""
    assert len(QUICK) >= 30
    missed = [f.name for f in QUICK if not is_exact(f)]
    assert len(missed) * 30 <= len(QUICK), [str(report_of(name)) for name in missed]


@pytest.mark.thorough
def test_faults_in_loops_and_long_rules_are_found_exactly() -> None:
    missed = [f.name for f in FAULTS if not is_exact(f)]
    assert missed == [], [str(report_of(name)) for name in missed]


# -------------------------------------------------------------------------------------------------------------- the report


def test_report_tells_operation_line_values_cause_and_cure() -> None:
    def loss(x: Any) -> Any:
        return jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0))  # the root

    report = dr.where_nan(dr.grad(loss))(jnp.array([4.0, 0.0]))
    assert report and report.kind == "nan" and report.index == (1,)
    assert (report.operation, report.where, report.file, report.line) == ("sqrt", "pull", str(HERE), line_with("the root"))
    assert report.made is not None and report.made.kind == "inf" and report.made.values == ("0.5", "0") and report.made.out == "inf"
    assert report.became is not None and report.became.values == ("0", "inf")
    text = str(report)
    assert f"{HERE}:{line_with('the root')} (" in text and "the pull of sqrt" in text and "zero_wins=True" in text
    assert "div(0.5, 0) = inf at [1] of float64[2]" in text
    np.testing.assert_array_equal(report.value, [0.25, np.nan])


def test_cure_that_is_told_works() -> None:
    def norm(x: Any) -> Any:
        return jnp.linalg.norm(x)

    report = dr.where_nan(dr.grad(norm))(jnp.zeros(3))
    assert report.made is not None and "zero_wins=True" in report.made.cure and "norm" in report.made.why
    assert not dr.where_nan(dr.grad(norm, zero_wins=True))(jnp.zeros(3))


def test_what_is_thrown_away_is_not_reported() -> None:
    def safe(x: Any) -> Any:
        y = jnp.where(x > 0, x, 1.0)
        masked = jnp.where(x > 0, jnp.log(x), 0.0)
        return jnp.sum(jnp.where(x > 0, jnp.sqrt(y), 0.0)) + jnp.sum(lax.stop_gradient(masked))

    assert not dr.where_nan(safe)(jnp.array([-1.0, 0.0, 2.0]))
    assert not dr.where_nan(dr.grad(safe))(jnp.array([-1.0, 0.0, 2.0]))


def test_a_nan_that_is_thrown_away_does_not_hide_the_one_that_is_not() -> None:
    def f(x: Any) -> Any:
        masked = jnp.where(x > 9, jnp.log(x - 5), 0.0)
        return jnp.sum(masked) + jnp.sum(jnp.sqrt(x - 1))  # the one that counts

    report = dr.where_nan(f)(jnp.array([2.0, 0.5]))
    assert (report.operation, report.line) == ("sqrt", line_with("the one that counts"))
    assert report.made is not None and report.made.index == (1,) and report.made.values == ("-0.5",)


def test_infinite_masks_are_no_fault() -> None:
    def attention(x: Any) -> Any:
        scores = jnp.where(jnp.tri(4, dtype=bool), jnp.outer(x, x), -jnp.inf)
        return jnp.sum(jax.nn.softmax(scores) ** 2)

    x = jnp.linspace(0.0, 1.0, 4)
    assert not dr.where_nan(attention)(x)
    assert not dr.where_nan(dr.grad(attention))(x)


def test_infinities_of_results_by_option() -> None:
    def f(x: Any) -> Any:
        return jnp.log(x)

    report = dr.where_nan(f)(jnp.array([1.0, 0.0]))
    assert report.kind == "inf" and report.operation == "log" and report.made is not None and report.made.out == "-inf"
    without = dr.where_nan(f, infinities=False)(jnp.array([1.0, 0.0]))
    assert not without and "no result is NaN" in str(without)


def test_a_nan_that_was_given() -> None:
    report = dr.where_nan(lambda p, y: jnp.sum(p["w"] * y))({"w": jnp.array([1.0, np.nan])}, jnp.ones(2))
    assert report.operation == "input" and report.made is not None and report.made.equation == "argument 0['w']"
    assert "argument 0['w']" in str(report)


def test_a_nan_that_is_closed_over() -> None:
    table = jnp.array([1.0, np.nan])
    report = dr.where_nan(lambda x: jnp.sum(x * table))(jnp.ones(2))
    assert report.found and report.made is not None and report.made.equation == "constant"


def test_first_of_several_results_and_their_names() -> None:
    report = dr.where_nan(lambda x: {"fine": x, "bad": (x, jnp.log(-x))})(2.0)
    assert report.result == "result['bad'][1]" and report.operation == "log"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "complex64"])
def test_dtypes(dtype: str) -> None:
    x = jnp.array([1.0, 0.0], dtype)
    report = dr.where_nan(lambda x: jnp.sum(x / x))(x)
    assert report.operation == "div" and report.made is not None and report.made.index == (1,) and report.made.dtype == dtype


def test_empty_arrays_integers_and_held_arguments() -> None:
    assert not dr.where_nan(lambda x, n, mode: (x[:0], jnp.arange(n), len(mode)))(jnp.ones(3), 4, "mode")
    assert "all results are finite" in str(dr.where_nan(lambda n: n + 1)(3))
    report = dr.where_nan(lambda x, n=3: functools.reduce(lambda y, _: jnp.log(y), range(n), x))(2.0, n=4)
    assert report.operation == "log"


def test_named_axes_of_a_scan_in_a_batch() -> None:
    """The step and the example at once."""
    def f(x: Any) -> Any:
        return lax.scan(lambda c, a: (c + jnp.sqrt(c * a), None), x, jnp.array([1.0, 1.0, -1.0]))[0]  # in a batch

    report = dr.where_nan(jax.vmap(f))(jnp.array([0.0, 2.0, 0.0]))
    assert report.made is not None and (report.made.steps, report.made.example) == ((2,), (1,))
    assert report.line == line_with("in a batch")


def test_the_same_operations_at_lines_of_two_functions() -> None:
    """Programs that are traced once for all who use them have no line of the first."""
    def one(x: Any) -> Any:
        return jnp.sum(jax.nn.log_softmax(jnp.sqrt(x) * 0.0))  # the first user

    def two(x: Any) -> Any:
        return jnp.sum(jax.nn.log_softmax(jnp.sqrt(x) * 0.0))  # the second user

    for fun, mark in ((one, "the first user"), (two, "the second user"), (one, "the first user")):
        assert dr.where_nan(dr.grad(fun))(jnp.array([1.0, 0.0])).line == line_with(mark)


def test_python_code_that_reads_values() -> None:
    def f(x: Any) -> Any:
        return jnp.sqrt(x) * 0.0 if x < 1 else x  # in a branch of Python

    report = dr.where_nan(dr.grad(f))(0.0)
    assert (report.kind, report.operation, report.where) == ("nan", "sqrt", "pull")
    assert report.line == line_with("in a branch of Python")
    assert not dr.where_nan(dr.grad(f))(2.0)
    with dr.finite(), pytest.raises(dr.errors.NonFiniteError) as error:
        dr.grad(f)(0.0)
    assert raised(error) == ("sqrt", line_with("in a branch of Python"))


def test_a_long_loop_keeps_one_state() -> None:
    def f(x: Any) -> Any:
        return lax.fori_loop(0, 50_000, lambda i, c: c + jnp.where(i == 40_001, jnp.log(-c * c), 1.0), x)  # in a long loop

    report = dr.where_nan(f)(1.0)
    assert report.made is not None and report.made.steps == (40_001,) and report.line == line_with("in a long loop")


def test_programs_are_compiled_once() -> None:
    count = 0

    def f(x: Any) -> Any:
        nonlocal count
        count += 1
        return jnp.sum(x)

    ask = dr.where_nan(f)
    for x in (1.0, 2.0, 3.0):
        assert not ask(jnp.full(3, x))
    assert count == 1


def test_every_cause_is_told_in_full() -> None:
    for cause in CAUSES:
        assert cause.why and cause.cure and (cause.operations or cause.functions)
        assert cause.where in ("function", "derivative", "both")


def test_bad_input() -> None:
    with pytest.raises(TypeError, match="callable"):
        dr.where_nan(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"returned str for result\['name'\]"):
        dr.where_nan(lambda x: {"x": x, "name": "model"})(1.0)
    with pytest.raises(TypeError, match="being traced"):
        jax.jit(lambda x: dr.where_nan(jnp.sin)(x).value)(1.0)


# ------------------------------------------------------------------------------------------------------------------ finite


def root(x: Any) -> Any:
    return jnp.sum(jnp.sqrt(x) * 0.0)  # root of finite


BAD, GOOD = np.array([1.0, 0.0]), np.array([1.0, 2.0])


def raised(error: pytest.ExceptionInfo[dr.errors.NonFiniteError]) -> tuple[str, int]:
    report = error.value.report
    assert isinstance(report, NanReport) and str(report) == str(error.value)
    return report.operation, report.line


def test_unjitted_results_raise_at_once() -> None:
    calls = [lambda: dr.grad(root)(BAD), lambda: dr.value_and_grad(root)(BAD), lambda: dr.jacobian(root)(BAD),
             lambda: dr.jvp(root, (BAD,), (np.ones(2),)), lambda: dr.vjp(root, BAD)[1](1.0),
             lambda: dr.hvp(root, (BAD,), (np.ones(2),)), lambda: dr.linearize(root, BAD)[1](np.ones(2)),
             lambda: dr.laplacian(root)(BAD)]
    for call in calls:
        reached = False
        with dr.finite(), pytest.raises(dr.errors.NonFiniteError) as error:
            call()
            reached = True
        assert not reached and raised(error) == ("sqrt", line_with("root of finite"))
        assert isinstance(error.value, FloatingPointError)


def test_a_function_that_was_compiled_before() -> None:
    traced = 0

    def counted(x: Any) -> Any:
        nonlocal traced
        traced += 1
        return root(x)

    gradient = jax.jit(dr.grad(counted))
    gradient(BAD)
    with dr.finite():  # the first block of a process makes jax trace everything anew
        gradient(GOOD)
    gradient(BAD)
    once = traced
    for _ in range(2):
        with pytest.raises(dr.errors.NonFiniteError) as error, dr.finite():
            gradient(BAD)
        assert raised(error) == ("sqrt", line_with("root of finite"))
        assert np.isnan(gradient(BAD)).any()  # outside of the block, nothing is looked at
    with dr.finite():
        assert np.isfinite(gradient(GOOD)).all()
    assert traced == once


def test_a_training_step_that_closes_over_what_it_traces() -> None:
    @jax.jit
    def step(w: jax.Array, data: jax.Array) -> jax.Array:
        scale = data * 2

        def body(c: jax.Array, _: None) -> tuple[jax.Array, None]:
            return c - 0.1 * dr.grad(lambda v: jnp.sum(jnp.sqrt(v * scale)))(c), None  # in the step

        return lax.scan(body, w, None, length=3)[0]

    with dr.finite():
        step(jnp.array([4.0, 4.0]), jnp.ones(2))
    with pytest.raises(dr.errors.NonFiniteError) as error, dr.finite():
        step(jnp.array([4.0, 0.0]), jnp.ones(2))
    assert raised(error) == ("sqrt", line_with("in the step"))


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["unjitted", "jitted"])
def test_examples_under_vmap(wrap) -> None:
    batch = np.array([[1.0, 2.0], [3.0, 4.0], [0.0, 1.0]])
    with pytest.raises(dr.errors.NonFiniteError) as error, dr.finite():
        wrap(jax.vmap(dr.grad(root)))(batch)
    report = error.value.report
    assert isinstance(report, NanReport) and report.made is not None and report.made.example == (2,)
    with dr.finite():
        wrap(jax.vmap(dr.grad(root)))(batch[:2])


def test_check_within_a_block() -> None:
    gradient = jax.jit(dr.grad(root))
    with dr.finite() as block:
        gradient(GOOD)
        block.check()
        gradient(BAD)
        with pytest.raises(dr.errors.NonFiniteError):
            block.check()


def test_nested_derivatives_are_one() -> None:
    """What is not finite within a derivative and is not in its result is no fault."""
    def f(x: Any) -> Any:
        inner = dr.grad(lambda y: jnp.sum(jnp.sqrt(y)))(x)
        return jnp.sum(jnp.where(jnp.isinf(lax.stop_gradient(inner)), x, x * x))

    with dr.finite():
        np.testing.assert_allclose(dr.grad(f)(BAD), [2.0, 1.0])


def test_errors_of_others_pass() -> None:
    gradient = jax.jit(dr.grad(root))
    with pytest.raises(KeyError, match="mine"), dr.finite():
        gradient(BAD)
        raise KeyError("mine")
    with dr.finite():  # what the block before left is gone
        gradient(GOOD)


def test_infinities_are_looked_at_or_not() -> None:
    def f(x: Any) -> Any:
        return jnp.sum(jnp.sqrt(x))

    with pytest.raises(dr.errors.NonFiniteError), dr.finite():
        dr.grad(f)(BAD)
    with dr.finite(infinities=False):
        assert np.isinf(dr.grad(f)(BAD)).any()


def test_threads_do_not_see_each_others_blocks() -> None:
    found: dict[str, object] = {}
    opened, done = threading.Event(), threading.Event()
    gradient = jax.jit(dr.grad(root))

    def other() -> None:
        opened.wait()
        try:
            found["other"] = np.isnan(np.asarray(gradient(BAD))).any()
        except Exception as error:
            found["other"] = error
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with dr.finite():
        opened.set()
        done.wait()
        gradient(GOOD)
    thread.join()
    assert found["other"] is np.True_


# ---------------------------------------------------------------------------------------------------------- jax_debug_nans


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["unjitted", "jitted"])
def test_debug_nans_names_the_line_of_the_user(wrap) -> None:
    def f(x: Any) -> Any:
        y = jnp.sqrt(x)  # root under debug_nans
        return jnp.sum(jnp.where(x > 0, y, 0.0))

    with jax.debug_nans(True), pytest.raises(FloatingPointError) as error:
        wrap(dr.grad(f))(jnp.array([1.0, 0.0]))
    told = f"{error.value} {' '.join(getattr(error.value, '__notes__', ()))}"
    assert f"test_finiteness.py:{line_with('root under debug_nans')}" in told, told


# --------------------------------------------------------------------------------------------------------- the command line


PROGRAM = """\
import jax.numpy as jnp

def loss(x):
    y = jnp.sqrt(x)
    return jnp.sum(y * jnp.array([0.0, 1.0, 1.0]))
"""


def test_command(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model_of_nan.py"
    path.write_text(PROGRAM)
    assert main(["nan", f"{path}:loss", "--args", "jnp.arange(3.0)"]) == 1
    out = capsys.readouterr().out
    assert "model_of_nan:loss: all results are finite" in out and f"the pull of sqrt at {path}:4 (loss)" in out and "zero_wins" in out
    assert main(["nan", f"{path}:loss", "--args", "jnp.arange(3.0) + 1"]) == 0
    assert main(["nan", f"{path}:loss", "--args", "jnp.arange(3.0) - 1", "--json", "--value-only"]) == 1
    found = json.loads(capsys.readouterr().out.split("\n", 2)[2])
    assert found["function"]["made"]["operation"] == "sqrt" and found["function"]["made"]["line"] == 4


def test_command_with_bad_input(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model_of_nan_2.py"
    path.write_text(PROGRAM)
    assert main(["nan", f"{path}:nothing", "--args", "1.0"]) == 2
    assert main(["nan", f"{path}:loss"]) == 2
    assert main(["nan", f"{path}:loss", "--args", "1.0", "--unknown"]) == 2
    assert "error" in capsys.readouterr().err
