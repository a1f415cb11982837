"""The command: ``python -m dualrev``, in this process and, once, as a user would run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dualrev
from dualrev.__main__ import COMMANDS, main
from dualrev.linear.residuals import size
from dualrev.problems import PROBLEMS, Scenario
from dualrev.problems.scenario import alone
from dualrev.report import measure, tables
from dualrev.report.commands import doctor

MODEL = '''
import jax
import jax.numpy as jnp
import numpy as np

number = 3

def start():
    return {"w": jnp.arange(3.0), "steps": 2}

def loss(p, scale=1.0):
    x = p["w"]
    for _ in range(p["steps"]):
        x = x * jnp.sin(x) + scale
    return jnp.sum(x**2)

def vector(x, y):
    return {"a": x * y, "b": jnp.sum(x), "index": jnp.argmax(x)}

def branches(x):
    return x**2 if x > 0 else -x

def prints(x):
    print("hello")
    return x * x

def fails(x):
    y = x + 1
    raise RuntimeError("no luck\\nat all")

def to_numpy(x):
    return jnp.asarray(np.sin(x))

def text(x):
    return "four"

def texts(x):
    return {"a": x, "b": "four"}

def nothing(x):
    pass

def whole(x):
    return jnp.argmax(x)

def complex_out(x):
    return x + 1j

def empty(x):
    return jnp.zeros((0, 3)) * x

def safe_root(x):
    return jnp.where(x > 0, jnp.sqrt(x), 0.0)

def no_arguments():
    return jnp.ones(3)

class Net:
    @staticmethod
    def energy(x):
        return jnp.vdot(x, x)
'''


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    return str(path)


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["problems"][0]


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that exits with 2 says: one line on standard error, nothing on standard output."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dualrev: error: ")
    assert err.count("\n") == 1
    return err


# ------------------------------------------------------------------------------------------------------------ a user's own


def test_user_function_of_a_file(model, capsys):
    row = run_json(capsys, f"{model}:loss", "--args", "start(), scale=0.5")
    assert (row["inputs"], row["outputs"]) == (4, 1)  # three weights and the scale; the number of steps is held fixed
    assert row["name"] == "model:loss"
    w = np.arange(3.0)
    for _ in range(2):
        w = w * np.sin(w) + 0.5
    assert row["value"] == pytest.approx(np.sum(w**2))
    assert row["forward"] == {"passes": 4, "passes_for_jacobian": 4, "at_once": 4, "compiled": True,
                              "seconds": row["forward"]["seconds"]}
    assert row["reverse"]["passes"] == 1
    assert row["auto"] == "pull"
    assert row["tape_ops"] > 5
    assert row["tape_bytes"] > 0
    assert row["agrees"] is True
    assert row["difference_engines"] < 1e-14
    assert row["difference_jax"] < 1e-14


def test_vector_output_counts_floats_only(model, capsys):
    row = run_json(capsys, f"{model}:vector", "--args", "jnp.ones(3), 2.0")
    assert (row["inputs"], row["outputs"], row["auto"]) == (4, 4, "push")
    assert row["value"] == pytest.approx(np.sqrt(3 * 4 + 9))
    assert row["forward"]["passes"] == row["reverse"]["passes"] == 4


def test_module_on_the_path(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_module.py").write_text("def f(x):\n    return x ** 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    row = run_json(capsys, "own_module:f", "--args", "2.0,")
    assert row["value"] == 8
    assert row["name"] == "own_module:f"


def test_file_with_the_name_of_a_module(tmp_path, monkeypatch, capsys):
    """A file called random.py is loaded, and Python keeps its own."""
    import random

    (tmp_path / "random.py").write_text("from dataclasses import dataclass\n@dataclass\nclass C:\n    a: 'int' = 2\n"
                                        "def f(x):\n    return C().a * x\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert run_json(capsys, f"{tmp_path}/random.py:f", "--args", "2.0")["value"] == 4
    assert sys.modules["random"] is random


def test_attribute_of_a_class(model, capsys):
    assert run_json(capsys, f"{model}:Net.energy", "--args", "jnp.arange(3.0)")["value"] == 5


def test_python_control_flow_runs_without_jit(model, capsys):
    row = run_json(capsys, f"{model}:branches", "--args", "-2.0")
    assert (row["forward"]["compiled"], row["reverse"]["compiled"], row["value"]) == (False, False, 2)
    assert main([f"{model}:branches", "--args", "3.0"]) == 0
    assert "un-jitted" in capsys.readouterr().out


def test_what_a_function_prints_stays_out_of_the_json(model, capsys):
    assert run_json(capsys, f"{model}:prints", "--args", "2.0")["value"] == 4


def test_memory(model, capsys, monkeypatch):
    found = run_json(capsys, f"{model}:loss", "--args", "start(), scale=0.5", "--memory")
    assert found["name"] == "model:loss"
    assert found["tape_bytes"] == sum(r["nbytes"] for r in found["residuals"]) > 0
    assert any(r["op"] == "sin" and r["shape"] == [3] and r["kind"] == "input" and "model.py" in r["line"] for r in found["residuals"])
    monkeypatch.setenv("COLUMNS", "120")
    assert main([f"{model}:loss", "--args", "start()", "--memory"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("model:loss", "kept by", "sin", "integer_pow", "input [0]"))


def test_modes(model, capsys, monkeypatch):
    found = run_json(capsys, f"{model}:loss", "--args", "start(), scale=0.5", "--modes")
    by_name = {op["name"]: op for op in found["operations"]}
    assert by_name["sin"]["times"] == 2 and by_name["sin"]["kind"] == "diagonal"
    assert by_name["sin"]["reads"] == {"Laplacian": "second partials", "Taylor": "recurrence", "sparsity": "entries",
                                       "elimination": "diagonal block"}
    assert by_name["mul"]["reads"]["Taylor"] == "convolution"
    monkeypatch.setenv("COLUMNS", "140")
    assert main([f"{model}:loss", "--args", "start()", "--modes"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("model:loss", "operation", "elimination", "product rule", "reduce_sum"))
    assert main([f"{model}:loss", "--args", "start()", "--modes", "--memory"]) == 2
    assert "--memory and --modes are two tables" in capsys.readouterr().err


@pytest.mark.thorough
def test_memory_of_the_shipped_problems(capsys):
    assert main(["--memory"]) == 0
    out = capsys.readouterr().out
    assert all(problem.name in out for problem in PROBLEMS)


def test_table_of_a_user_function(model, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([f"{model}:loss", "--args", "start()"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    for word in ("problem", "inputs", "outputs", "ops", "stored", "passes", "time", "auto", "engines", "from jax", "value"):
        assert word in out


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(("target", "arguments", "said"), [
    ("no_such_module:f", "1.0", "there is no module 'no_such_module'"),
    ("no_such.py:f", "1.0", "there is no file 'no_such.py'; type path/to/file.py:function"),
    ("dualrev", "1.0", "'dualrev' names no function; type module:function or path/to/file.py:function"),
    ("dualrev:", "1.0", "names no function"),
    ("dualrev.nothing:f", "1.0", "there is no module 'dualrev.nothing'"),
])
def test_unknown_target(target, arguments, said, capsys):
    assert said in error_of(capsys, target, "--args", arguments)


@pytest.mark.parametrize(("function", "arguments", "said"), [
    ("lost", "1.0", "has no function 'lost'; its functions are: start, loss, vector, branches,"),
    ("number", "1.0", ":number is not a function but an int; its functions are: start,"),
    ("loss", None, 'loss(p, scale=1.0) needs arguments; give them as Python expressions, such as --args "jnp.ones(3), 2.0"'),
    ("no_arguments", None, "no_arguments() takes no arguments, so there is nothing to differentiate by"),
    ("no_arguments", "", "none of its arguments holds floats"),
    ("vector", "jnp.ones(3", '--args "jnp.ones(3" is not valid Python'),
    ("vector", "1.0) + (2.0", "is not valid Python (unmatched ')')"),
    ("vector", "jnp.ons(3), 2.0", "failed: AttributeError: module 'jax.numpy' has no attribute 'ons'"),
    ("vector", "unknown", "failed: NameError: name 'unknown' is not defined; write Python expressions"),
    ("vector", "jnp.ones(3)", "does not fit vector(x, y): missing a required argument: 'y'"),
    ("vector", "1.0, 2.0, 3.0", "does not fit vector(x, y): too many positional arguments"),
    ("vector", "1.0, z=2.0", "does not fit vector(x, y): missing a required argument: 'y'"),
    ("loss", "start(), size=1.0", "does not fit loss(p, scale=1.0): got an unexpected keyword argument 'size'"),
    ("vector", "1, jnp.arange(3)", "vector(x, y) can't be compared: none of its arguments holds floats, so there is nothing to "
                                   "differentiate by; write 2.0 for 2"),
    ("vector", "1j, 2.0", "an argument is complex"),
    ("text", "1.0", "text(x) can't be compared: it returns a str; return an array, a float or a pytree of them"),
    ("texts", "1.0", "it returns a dict with a str in it"),
    ("nothing", "1.0", "it returns None; return an array"),
    ("whole", "jnp.ones(3)", "none of its outputs holds floats, so every derivative is zero; return a float array"),
    ("vector", "jnp.ones(0), 2.0", "vector(x, y) failed: ValueError: "),
    ("prints", "jnp.ones(0)", "its arguments hold no numbers, only empty arrays"),
    ("empty", "1.0", "it returns only empty arrays"),
    ("complex_out", "1.0", "it returns complex values"),
    ("fails", "1.0", "fails(x) failed: RuntimeError: no luck (model.py:"),
    ("to_numpy", "jnp.ones(3)", "to_numpy(x) failed: TracerArrayConversionError:"),
])
def test_misfit(function, arguments, said, model, capsys):
    given = [] if arguments is None else ["--args", arguments]
    assert said in error_of(capsys, f"{model}:{function}", *given)


@pytest.mark.parametrize(("function", "statement"), [
    ("fails", '    raise RuntimeError("no luck\\nat all")'),
    ("to_numpy", "    return jnp.asarray(np.sin(x))"),
])
def test_line_of_an_error(function, statement, model, capsys):
    line = MODEL.splitlines().index(statement) + 1
    assert error_of(capsys, f"{model}:{function}", "--args", "1.0").endswith(f"(model.py:{line})\n")


@pytest.mark.parametrize(("source", "said"), [
    ("x = 1 / 0\n", "failed: ZeroDivisionError: division by zero (broken.py:1)"),
    ("import not_installed_anywhere\n", "failed: ModuleNotFoundError: No module named 'not_installed_anywhere' (broken.py:1)"),
    ("def f(:\n", "failed: SyntaxError: invalid syntax (broken.py:1)"),
])
def test_file_that_does_not_import(source, said, tmp_path, capsys):
    path = tmp_path / "broken.py"
    path.write_text(source)
    assert said in error_of(capsys, f"{path}:f", "--args", "1.0")
    assert "broken" not in sys.modules


def test_module_that_does_not_import(tmp_path, monkeypatch, capsys):
    (tmp_path / "needs_more.py").write_text("import not_installed_anywhere\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    said = error_of(capsys, "needs_more:f", "--args", "1.0")
    assert "importing needs_more failed: ModuleNotFoundError: No module named 'not_installed_anywhere'" in said


def test_options(capsys):
    assert "--args belongs to a function" in error_of(capsys, "--args", "1.0")
    assert "see python -m dualrev --help" in error_of(capsys, "--jsn")


def test_help(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    for word in ("module:function", "path/to/file.py:function", "--args", "--memory", "--json", "exit status"):
        assert word in out

# ------------------------------------------------------------------------------------------------------------ the command line


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_one_screen(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stopped:
        main([*command.split(), "--help"])
    assert stopped.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert 5 < len(lines) <= 40 and max(map(len, lines)) <= 125


@pytest.mark.parametrize(("words", "said"), [
    (["explian"], "did you mean 'explain'?"), (["versions"], "names no function; type module:function"),
    (["doctor", "--jsn"], "did you mean '--json'?"), (["doctor", "now"], "unrecognized arguments: now"),
    (["explain", "m:f", "--mesure"], "did you mean '--measure'?"), (["explain"], "required: module:function"),
    (["explain", "m:f", "--derivative", "jac"], "invalid choice: 'jac'"),
    (["calibrate", "--wet-run"], "did you mean '--dry-run'?"), (["draw", "m:f", "--max-boxes", "many"], "invalid int value: 'many'"),
    (["memory", "m:f", "--josn"], "did you mean '--json'?"), (["nan", "m:f", "--nanonly"], "did you mean '--nan-only'?"),
    (["run", "--modulse", "x"], "unrecognized arguments"), (["--vresion"], "did you mean '--version'?"),
    (["mymodel:f", "mymodel:g"], "unrecognized arguments: mymodel:g")])
def test_what_is_mistyped(words, said, capsys):
    assert said in error_of(capsys, *words)


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"dualrev {dualrev.__version__}\n"


def test_doctor(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["dualrev"] == dualrev.__version__ and found["versions"]["jax"] == jax.__version__
    assert found["ok"] and len(found["tests"]) == len(doctor.TESTS) and found["flags"]["jax_enable_x64"] == "True"
    assert len(found["devices"]) == jax.device_count()


def test_doctor_sees_a_wrong_derivative(monkeypatch, capsys):
    right = dualrev.grad
    monkeypatch.setattr(dualrev, "grad", lambda f: lambda *x: jax.tree.map(lambda y: 1.01 * y, right(f)(*x)))
    monkeypatch.setattr(doctor, "TESTS", {name: doctor.TESTS[name] for name in ("the gradient of a loop of unknown length",)})
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "failed" in out and "1 of 1 tests failed" in out and "AssertionError" in out


def test_doctor_tells_of_settings(monkeypatch, capsys):
    monkeypatch.setattr(jax, "__version__", "0.9.1")
    monkeypatch.setenv("XLA_FLAGS", "--xla_nothing")
    with jax.disable_jit():
        assert main(["doctor", "--no-test"]) == 0
    out = capsys.readouterr().out
    assert "jax 0.9.1 is too old" in out and "jax_disable_jit is set" in out and "XLA_FLAGS = --xla_nothing" in out


# ------------------------------------------------------------------------------------------------------------ measuring


def small(count: int = 1) -> tuple[Scenario, ...]:
    return tuple(Scenario(f"small {i}", lambda x: x * jnp.sin(x), alone(lambda: jnp.arange(3.0)), description="x sin x",
                          citation="nobody") for i in range(count))


def test_shipped_table_names_its_problems(monkeypatch, capsys):
    monkeypatch.setattr("dualrev.__main__.PROBLEMS", small(2))
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main([]) == 0
    out = capsys.readouterr().out
    assert f"dualrev {dualrev.__version__} · jax {jax.__version__} · cpu · float64" in out
    assert "small 0: x sin x.  nobody." in out
    rows = [line.split() for line in out.splitlines() if line.startswith("small 1 ")]
    assert rows[0][:4] == ["small", "1", "3", "3"]
    assert max(map(len, out.splitlines())) <= tables.WIDTH


def test_wrong_derivative_is_found(monkeypatch, capsys):
    monkeypatch.setattr("dualrev.__main__.PROBLEMS", small())
    right = dualrev.jacrev
    monkeypatch.setattr(dualrev, "jacrev",
                        lambda *args, **kw: lambda *x: jax.tree.map(lambda y: 1.001 * y, right(*args, **kw)(*x)))
    assert main(["--json"]) == 1
    out, err = capsys.readouterr()
    row = json.loads(out)["problems"][0]
    assert row["agrees"] is False
    assert row["difference_engines"] == pytest.approx(1e-3, rel=1e-2)
    assert row["difference_jax"] == pytest.approx(1e-3, rel=1e-2)
    assert "the derivatives of small 0 differ by more than rounding" in err


def test_modes_that_differ_by_a_nan(model, capsys):
    """At 0 the reverse mode of a guarded root is 0 · inf and the forward mode 0, in jax as here: the table says so."""
    assert main([f"{model}:safe_root", "--args", "jnp.array([0.0, 1.0])", "--json"]) == 1
    out, err = capsys.readouterr()
    row = json.loads(out)["problems"][0]
    assert row["difference_engines"] is None
    assert row["difference_jax"] == 0
    assert "differ by more than rounding" in err


@pytest.mark.parametrize(("n", "m", "most", "passes"), [(3, 4, 3, (3, 1)), (4, 3, 3, (1, 3)), (4, 5, 3, (1, 1))])
def test_too_many_passes_are_sampled(n, m, most, passes, monkeypatch):
    monkeypatch.setattr(measure, "MOST_PASSES", most)
    matrix = jnp.asarray(np.random.default_rng(3).normal(size=(m, n)))
    made = measure.measure("sampled", measure.flatten(lambda x: jnp.tanh(matrix @ x), (jnp.ones(n),), {}))
    assert (made.forward.passes, made.reverse.passes) == passes
    assert (made.forward.passes_for_jacobian, made.reverse.passes_for_jacobian) == (n, m)
    assert made.agrees
    assert 0 <= made.difference_engines < 1e-12
    assert tables.passes(made.forward) == (f"1 of {n}" if passes[0] == 1 else f"{n}")


def test_passes_are_bounded_in_memory(monkeypatch):
    monkeypatch.setattr(measure, "BYTES_AT_ONCE", 500)
    made = measure.measure("chunks", measure.flatten(lambda x: jnp.sin(x), (jnp.ones(6),), {}))
    assert 1 <= made.forward.at_once < 6
    assert made.agrees
    assert tables.passes(made.forward) == f"6 by {made.forward.at_once}"


@pytest.mark.parametrize(("n", "m"), [(2, 3), (3, 3), (3, 2)])
def test_auto_is_what_the_jacobian_does(n, m, monkeypatch):
    """The table's word for ``engine="auto"`` against the passes that it makes."""
    matrix = jnp.ones((m, n))
    flat = measure.flatten(lambda x: matrix @ jnp.sin(x), (jnp.ones(n),), {})
    said = measure.measure("auto", flat).auto
    done: list[str] = []

    def watched(direction, blocks):
        def watching(*args):
            done.append(direction)
            return blocks(*args)

        return watching

    for direction in ("push", "pull"):
        name = f"_{direction}_blocks"
        monkeypatch.setattr(dualrev.functional.jacobians, name, watched(direction, getattr(dualrev.functional.jacobians, name)))
    dualrev.jacobian(flat.function)(*flat.primals)
    assert done == [said]


def test_relative_difference():
    inf, nan = np.inf, np.nan
    assert measure.relative_difference([1.0, 2.0], [1.0, 2.5]) == 0.2
    assert measure.relative_difference([nan, inf, 1.0], [nan, inf, 1.0]) == 0
    assert measure.relative_difference([nan, 1.0], [1.0, 1.0]) == inf
    assert measure.relative_difference([inf, 1.0], [-inf, 1.0]) == inf
    assert measure.relative_difference([0.0], [0.0]) == 0
    assert measure.relative_difference(np.zeros((0, 3)), np.zeros((0, 3))) == 0


@pytest.mark.parametrize(("seconds", "text"), [(2.5, "2.5 s"), (0.0123, "12.3 ms"), (4.2e-5, "42 µs")])
def test_seconds(seconds, text):
    assert tables.seconds(seconds) == text


@pytest.mark.parametrize(("n", "text"), [(0, "0 B"), (1000, "1000 B"), (1536, "1.5 KiB"), (3 * 2**20, "3 MiB")])
def test_size(n, text):
    assert size(n) == text


# ------------------------------------------------------------------------------------------------------------ as a program


@pytest.mark.thorough
def test_as_a_program(tmp_path):
    """The main job, as typed: every shipped problem in full by both engines, equal to jax in float64."""
    environment = {**os.environ, "PYTHONPATH": str(Path(dualrev.__file__).parents[1]), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-m", "dualrev", "--json"], cwd=tmp_path, env=environment, capture_output=True,
                          text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["problems"]
    assert [row["name"] for row in rows] == [problem.name for problem in PROBLEMS]
    for row in rows:
        assert row["forward"]["passes"] == row["inputs"]
        assert row["reverse"]["passes"] == row["outputs"]
        assert row["difference_engines"] < 1e-12
        assert row["difference_jax"] < 1e-12
        assert row["forward"]["compiled"]
        assert row["reverse"]["compiled"]
        assert row["description"]
        assert row["citation"]
