"""``dr.installed()``: what it replaces, where, for whom, and that everything is as before afterwards."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import pathlib
import pickle
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import find_top_trace
from jax.interpreters import ad

import dualrev as dr
from dualrev import oracle
from dualrev.installed.transforms import ORIGINALS, TRANSFORMS

NAMES = tuple(TRANSFORMS)


def looping(x: Any) -> Any:
    """A loop of unknown length: in reverse mode, an error of jax's."""
    return lax.while_loop(lambda y: y < 10.0, lambda y: y * x, x)


def is_dualrev(grad: Any) -> bool:
    """Whose function a call of ``grad`` returns; the user's own is not evaluated."""
    return grad(looping).__code__.co_filename == TRANSFORMS["grad"].__code__.co_filename


def jaxs(name: str) -> Any:
    return ORIGINALS[name]


@pytest.fixture
def library() -> Iterator[Any]:
    """A module that holds jax's transforms in every way, as written by someone else."""
    source = '''
import dataclasses, functools, typing
import jax
from jax import grad, value_and_grad as vg

class Optimizer:
    transform = jax.grad
    method = staticmethod(jax.grad)
    class Inner:
        transform = jax.grad
    def __init__(self, transform=jax.grad, *, other=jax.jacrev):
        self.transform, self.other = transform, other
    bound = functools.partialmethod(jax.grad)

@dataclasses.dataclass
class Settings:
    transform: typing.Callable = jax.grad

class Row(typing.NamedTuple):
    transform: typing.Callable = jax.grad

def by_default(f, transform=jax.grad):
    return transform(f)

def made(transform):
    def apply(f):
        return transform(f)
    return apply

closed = made(jax.grad)
with_aux = functools.partial(jax.grad, has_aux=True)
argument = functools.partial(lambda transform, f: transform(f), jax.grad)
registry = {"grad": jax.grad, "inner": {"all": [jax.grad, jax.vjp]}}
pair = (jax.grad, (jax.jvp, 1))
fixed = frozenset([jax.grad])
row = Row()
optimizer = Optimizer()
settings = Settings()
def square(x):
    return x * x
before = jax.grad(square)
compiled = jax.jit(jax.vmap(jax.grad(square)))
'''
    module: Any = types.ModuleType("some_library")
    sys.modules["some_library"] = module
    exec(compile(source, "some_library.py", "exec"), vars(module))
    yield module
    del sys.modules["some_library"]


WAYS = {
    "name": lambda m: m.grad,
    "class attribute": lambda m: m.Optimizer.transform,
    "staticmethod": lambda m: m.Optimizer.method,
    "nested class": lambda m: m.Optimizer.Inner.transform,
    "default": lambda m: m.Optimizer().transform,
    "dataclass": lambda m: m.Settings().transform,
    "dataclass field": lambda m: dataclasses.fields(m.Settings)[0].default,
    "named tuple": lambda m: m.Row().transform,
    "default of a function": lambda m: m.by_default,
    "closure": lambda m: m.closed,
    "partial": lambda m: m.with_aux.func,
    "argument of a partial": lambda m: m.argument,
    "partialmethod": lambda m: vars(m.Optimizer)["bound"].func,
    "dict": lambda m: m.registry["grad"],
    "list in dicts": lambda m: m.registry["inner"]["all"][0],
    "tuple": lambda m: m.pair[0],
}


def snapshot(module: Any) -> list[Any]:
    held = [*vars(module).values(), *vars(module.Optimizer).values(), *vars(module.Optimizer.Inner).values(),
            module.by_default.__defaults__, module.Optimizer.__init__.__defaults__,
            module.Optimizer.__init__.__kwdefaults__["other"], module.closed.__closure__[0].cell_contents, module.with_aux.func,
            module.with_aux.keywords, module.argument.args, *module.registry.values(), *module.registry["inner"]["all"],
            *module.pair, vars(module.Optimizer)["bound"].func, *[getattr(jax, name) for name in NAMES], ad.JVPTracer]
    return [id(x) for x in held]


def test_every_way_to_hold_a_function(library: Any) -> None:
    before = snapshot(library)
    assert not any(is_dualrev(way(library)) for way in WAYS.values())
    with dr.installed() as report:
        for name, way in WAYS.items():
            assert is_dualrev(way(library)), name
        assert library.vg is jax.value_and_grad
        assert library.Optimizer().other is jax.jacrev
        assert library.registry["inner"]["all"][1] is jax.vjp
        assert library.pair[1][0] is jax.jvp
    assert snapshot(library) == before
    assert not any(is_dualrev(way(library)) for way in WAYS.values())
    assert {"some_library.grad", "some_library.Optimizer.transform", "some_library.Optimizer.__init__.__defaults__", "jax.grad",
            "some_library.with_aux.func", "some_library.registry['grad']", "some_library.closed.__closure__['transform']",
            } <= set(report["grad"])
    assert "some_library.vg" in report["value_and_grad"]
    assert set(report) == {*NAMES, "JVPTracer"}
    assert "some_library: grad" in str(report) and "vg (value_and_grad)" in str(report)
    assert len(report.places) > 20


def test_what_cannot_be_replaced_is_named(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "jacrev", mine := lambda f: f)
    with dr.installed() as report:
        assert jax.jacrev is mine and library.optimizer.transform is jaxs("grad")
    assert "frozenset" in report.left["some_library.fixed"]
    assert "Row" in report.left["some_library.row"]
    assert "took jax.grad before the block" in report.left["<some_library.Optimizer object>.transform"]
    assert "took jax.grad before the block" in report.left["<some_library.Settings object>.transform"]
    assert "jax.grad made it before the block" in report.left["some_library.before"]
    assert "jax.grad made it before the block" in report.left["some_library.compiled"]
    assert "someone put there" in report.left["jax.jacrev"]
    assert "dualrev has no fwd_and_bwd" in report.left["jax.fwd_and_bwd"]
    assert report.left["some_library.fixed"] in str(report)
    assert not [place for place in report.left if place.startswith(("jax._src.", "dualrev"))]


@pytest.mark.parametrize("name", NAMES)
def test_stand_ins_look_like_jaxs(name: str) -> None:
    original = getattr(jax, name)
    with dr.installed():
        new = getattr(jax, name)
        assert new is not original
        assert (new.__name__, new.__qualname__, new.__doc__) == (original.__name__, original.__qualname__, original.__doc__)
        assert inspect.signature(new) == inspect.signature(original)
        assert isinstance(new, types.FunctionType)
        assert pickle.loads(pickle.dumps(new)) is new
        assert functools.wraps(new)(lambda: None).__name__ == name
        pickled = pickle.dumps(new)
    assert getattr(jax, name) is original
    assert pickle.loads(pickled) is original
    # What jax's function takes, ours takes, or refuses by name (jax 0.12 added arguments of vjp and linearize).
    taken = inspect.signature(TRANSFORMS[name]).parameters
    for argument in inspect.signature(original).parameters:
        if argument not in taken:
            assert argument in ("in_nzs", "saveable_args")
            with dr.installed(), pytest.raises(TypeError, match=f"unexpected keyword argument '{argument}'"):
                getattr(jax, name)(jnp.sin, 1.0, **{argument: True})


def test_values_are_those_of_jax() -> None:
    def f(x: Any) -> Any:
        return jnp.sin(x) * x[0]

    x, t, u = jnp.array([0.3, 0.7]), jnp.array([1.0, -2.0]), jnp.array([1.0, 2.0])
    calls: dict[str, Any] = {
        "jvp": lambda: jax.jvp(f, (x,), (t,)), "vjp": lambda: jax.vjp(f, x)[1](u), "linearize": lambda: jax.linearize(f, x)[1](t),
        "linear_transpose": lambda: jax.linear_transpose(lambda x: 3 * x[::-1], x)(t), "grad": lambda: jax.grad(lambda x: f(x)[0])(x),
        "value_and_grad": lambda: jax.value_and_grad(lambda x: f(x)[1])(x), "jacfwd": lambda: jax.jacfwd(f)(x),
        "jacrev": lambda: jax.jacrev(f)(x), "jacobian": lambda: jax.jacobian(f)(x), "hessian": lambda: jax.hessian(f)(x)}
    assert set(calls) == set(NAMES)
    expected = {name: call() for name, call in calls.items()}
    with dr.installed():
        for name, call in calls.items():
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), call(), expected[name])


def test_jacobian_pulls() -> None:
    """A function whose adjoint is an error in forward mode, with fewer inputs than outputs."""
    f = jax.custom_vjp(lambda x: x * jnp.ones(3))
    f.defvjp(lambda x: (x * jnp.ones(3), None), lambda _, ct: (lax.while_loop(lambda c: c < -1, lambda c: c / 2, jnp.sum(ct)),))
    with dr.installed():
        np.testing.assert_allclose(jax.jacobian(f)(2.0), np.ones(3))


def test_jax_inside_and_the_oracle_keep_jaxs() -> None:
    def root(a: Any) -> Any:
        return lax.custom_root(lambda y: y**3 - a, 1.0, lambda g, y: lax.fori_loop(0, 30, lambda i, y: y - g(y) / (3 * y**2), y),
                               lambda g, y: y / g(1.0))

    with dr.installed():
        assert abs(float(jax.grad(root)(8.0)) - 1 / 12) < 1e-6
        assert abs(float(jax.jvp(root, (8.0,), (1.0,))[1]) - 1 / 12) < 1e-6
        with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
            oracle.pull(looping, 1.0)(2.0)
        assert jax.custom_jvp is not dr.rule and jax.checkpoint.__module__ == "jax._src.ad_checkpoint"
        assert not is_dualrev(sys.modules["jax._src.api"].grad)


def test_nesting_options_and_choices(library: Any) -> None:
    def kinked(x: Any) -> Any:
        return jnp.where(x < 1, x, jnp.sqrt(x))

    def at_zero() -> float:
        return float(jax.grad(kinked)(0.0))

    grad, jvp = jax.grad, jax.jvp
    with dr.installed(["jvp"]) as outer:
        assert jax.grad is grad and jax.jvp is not jvp
        assert set(outer) == {"jvp", "JVPTracer"}
        assert np.isnan(at_zero())
        with dr.installed(zero_wins=True) as inner:
            assert at_zero() == 1.0 and inner.options == {"zero_wins": True}
            assert "some_library.grad" in inner["grad"] and "jax.jvp" in inner["jvp"]
            with dr.installed("grad", zero_wins=False):
                assert np.isnan(at_zero())
            assert at_zero() == 1.0
        assert jax.grad is grad and jax.jvp is not jvp and library.grad is grad
    assert jax.jvp is jvp


def test_programs_compiled_in_a_block_are_not_used_outside() -> None:
    count = []

    def f(x: Any) -> Any:
        count.append(1)
        return jax.grad(lambda x: jnp.where(x < 1, x, jnp.sqrt(x)))(x)

    compiled = jax.jit(f)
    assert np.isnan(compiled(0.0))
    for _ in range(2):
        with dr.installed(zero_wins=True):
            assert compiled(0.0) == 1.0
        assert np.isnan(compiled(0.0))
    assert len(count) <= 3  # the first block may retrace what was compiled before it, once


def test_choice_of_modules(library: Any) -> None:
    other: Any = types.ModuleType("other_library")
    exec("import functools, jax\nfrom jax import grad\n"
         "def by_attribute(f): return jax.grad(f)\n"
         "def by_name(f): return grad(f)\n"
         "def by_jax(f, x): return jax.vmap(functools.partial(jax.jvp, f))((x,), (x,))\n", vars(other))
    pushed: list[str] = []

    def f(x: Any) -> Any:
        pushed.append(type(x).__name__)
        return x

    sys.modules["other_library"] = other
    try:
        with dr.installed(skip="other_library") as report:
            assert is_dualrev(jax.grad) and is_dualrev(library.grad)
            assert not is_dualrev(other.by_attribute) and not is_dualrev(other.by_name)
            assert other.grad is jaxs("grad") and "other_library.grad" not in report.places
            other.by_jax(f, np.ones(2))
        with dr.installed(modules=[other]) as report:
            assert is_dualrev(other.by_attribute) and is_dualrev(other.by_name)
            assert not is_dualrev(jax.grad) and library.grad is jaxs("grad")
            assert "other_library.grad" in report.places and "some_library.grad" not in report.places
            other.by_jax(f, np.ones(2))
            assert pushed == ["JVPTracer", "Dual"]
        assert other.grad is jaxs("grad")
    finally:
        del sys.modules["other_library"]


def test_modules_imported_in_a_block(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_late.py").write_text("from jax import grad\nimport functools\n"
                                               "def f(g, by=grad): return by(g)\nclass A:\n    by = grad\nheld = [grad]\n")
    monkeypatch.syspath_prepend(tmp_path)
    with dr.installed() as report:
        late: Any = __import__("imported_late")
        assert is_dualrev(late.f)
        kept = jax.grad
    assert late.grad is late.A.by is late.held[0] is jaxs("grad") and late.f.__defaults__ == (jaxs("grad"),)
    assert "imported_late.grad" in report.places
    assert not is_dualrev(kept)  # a stand-in that someone kept does what jax does
    with dr.installed():
        assert is_dualrev(kept)
    del sys.modules["imported_late"]


def test_exceptions_and_one_block_used_again() -> None:
    block = dr.installed()
    with pytest.raises(KeyError), block:
        raise KeyError
    assert jax.grad is jaxs("grad")
    with block, block:
        assert is_dualrev(jax.grad)
    assert jax.grad is jaxs("grad")

    @dr.installed()
    def decorated() -> bool:
        return is_dualrev(jax.grad)

    assert decorated() and not is_dualrev(jax.grad)


def test_what_others_put_there_meanwhile_stays(library: Any) -> None:
    with dr.installed():
        library.grad = mine = lambda f: f
    assert library.grad is mine


def test_threads_with_overlapping_blocks(library: Any) -> None:
    wrong: list[str] = []
    barrier = threading.Barrier(4)

    def work(i: int) -> None:
        barrier.wait()
        for _ in range(3):
            with dr.installed(["grad"] if i % 2 else None, modules=None if i else ["some_library", "jax", __name__]):
                if library.grad is jaxs("grad") or jax.grad is jaxs("grad"):
                    wrong.append("restored while in use")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert library.grad is jaxs("grad") and [getattr(jax, name) for name in NAMES] == [jaxs(name) for name in NAMES]


def test_the_first_block_may_end_first() -> None:
    first, second = dr.installed(), dr.installed(["grad", "jvp"])
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert is_dualrev(jax.grad) and jax.vjp is jaxs("vjp") and jax.jvp is not jaxs("jvp")
    second.__exit__(None, None, None)
    assert [getattr(jax, name) for name in NAMES] == [jaxs(name) for name in NAMES]


def test_install_and_uninstall() -> None:
    first = dr.install()
    second = dr.install(["grad"], zero_wins=True)
    dr.uninstall(first)
    assert is_dualrev(jax.grad) and jax.vjp is jaxs("vjp")
    with pytest.raises(RuntimeError, match="not installed"):
        dr.uninstall(first)
    dr.uninstall()
    assert jax.grad is jaxs("grad") and second["grad"]
    with pytest.raises(RuntimeError, match="nothing is installed"):
        dr.uninstall()


def test_libraries_that_ask_for_jvp_tracers() -> None:
    """As Equinox's ``filter_jvp``: what is no tracer of this very derivative has no tangent."""
    def filtered(f: Any, x: Any, t: Any) -> Any:
        def inner(x: Any) -> Any:
            main = find_top_trace(x).main
            is_dynamic.append([isinstance(y, ad.JVPTracer) and y._trace.main is main for y in f(x)])
            return f(x)

        is_dynamic: list[Any] = []
        _, tangents = jax.jvp(inner, (x,), (t,))
        return [t if moves else None for t, moves in zip(tangents, is_dynamic[0], strict=True)]

    def nested(x: Any) -> Any:
        return filtered(lambda y: (y * x, x), x, 1.0)[:1] + [filtered(lambda y: (x,), x, 1.0)[0] is None]

    jvp_tracer = ad.JVPTracer
    expected = filtered(lambda x: (jnp.sin(x), jnp.ones(())), 1.0, 1.0)
    assert expected[1] is None
    for _ in range(2):
        with dr.installed():
            assert ad.JVPTracer is not jvp_tracer and issubclass(jvp_tracer, ad.JVPTracer)
            found = filtered(lambda x: (jnp.sin(x), jnp.ones(())), 1.0, 1.0)
            assert found[1] is None
            np.testing.assert_allclose(found[0], np.cos(1.0), rtol=1e-12)
            assert nested(2.0)[1] and not isinstance(1.0, ad.JVPTracer)
    assert ad.JVPTracer is jvp_tracer


@pytest.mark.parametrize(("arguments", "error", "match"), [
    (dict(transforms=["grads"]), ValueError, "transforms must be among jvp, vjp.*got 'grads'"),
    (dict(transforms=3), TypeError, "transforms must be a name or a sequence of names; got 3"),
    (dict(skip=[3]), TypeError, "skip must be names; got 3"),
    (dict(zero_win=True), TypeError, "unexpected keyword argument 'zero_win'"),
    (dict(zero_wins=3), TypeError, "zero_wins must be True or False"),
])
def test_bad_arguments(arguments: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        dr.installed(**arguments)
    assert jax.grad is jaxs("grad")


SCRIPT = '''
import os
os.environ["JAX_ENABLE_X64"] = "1"
import pickle, sys
import helper
import jax
from jax import grad
class Own: pass
def f(x):
    return jax.lax.while_loop(lambda y: y < 10.0, lambda y: y * x, x)
assert __name__ == "__main__" and sys.modules["__main__"].Own is Own and type(pickle.loads(pickle.dumps(Own()))) is Own
assert helper.grad is grad is pickle.loads(pickle.dumps(grad))
print(sys.argv[1:], sys.argv[0] == __file__, grad(f)(2.0), grad(f)(2.0).dtype)
def fails():
    raise KeyError("no such thing")
if "fail" in sys.argv:
    fails()
sys.exit(5)
'''


def test_running_a_script(tmp_path: pathlib.Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "helper.py").write_text("from jax import grad")
    root = pathlib.Path(dr.__file__).parent.parent

    def run(*arguments: str) -> Any:
        return subprocess.run([sys.executable, "-m", "dualrev", "run", *arguments], cwd=root, capture_output=True, text=True,
                              timeout=120)

    path = str(tmp_path / "script.py")
    done = run("--report", path, "--report", "x")
    assert done.returncode == 5, done.stderr
    assert done.stdout == "['--report', 'x'] True 32.0 float64\n"
    assert "jax: grad, hessian" in done.stderr and "helper: grad" in done.stderr
    done = run(path, "fail")
    assert done.returncode == 1
    assert done.stderr.startswith(f'Traceback (most recent call last):\n  File "{path}", line 17, in <module>\n    fails()')
    assert done.stderr.endswith("KeyError: 'no such thing'\n") and "dualrev" not in done.stderr


def test_running_in_this_process(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from dualrev.__main__ import main

    package = tmp_path / "a_program"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(
        "import sys, jax\nfrom jax import grad, vjp\nfrom a_program import part\n"
        "print(sys.argv[1:], __name__, __package__, grad is part.grad, grad.__module__, vjp.__module__)\n")
    (package / "part.py").write_text("from jax import grad")
    monkeypatch.syspath_prepend(tmp_path)
    before = sys.modules["__main__"], list(sys.argv), list(sys.path)
    assert main(["run", "--transforms", "grad", "-m", "a_program", "-m", "y"]) == 0
    assert capsys.readouterr().out == "['-m', 'y'] __main__ a_program True jax jax._src.api\n"
    assert before == (sys.modules["__main__"], sys.argv, sys.path)
    assert jax.grad is jaxs("grad") is sys.modules["a_program.part"].grad
    (tmp_path / "bad.py").write_text("x = (\n")
    assert main(["run", str(tmp_path / "bad.py")]) == 1
    assert "SyntaxError" in capsys.readouterr().err
    for words, said in ((["nowhere.py"], "can't open 'nowhere.py'"), (["-m", "no_such_module"], "no code to run was found"),
                        ([], "no program"), (["--transforms", "grads", "x.py"], "transforms must be among"),
                        (["--what", "x.py"], "see python -m dualrev run")):
        assert main(["run", *words]) == 2
        assert said in capsys.readouterr().err
