"""The package differentiates on its own: jax's differentiation is named in the oracle and nowhere else."""

from __future__ import annotations

import ast
import functools
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.extend.core import Primitive

import dualrev
from dualrev._jax.libraries import foreign_rules, is_of_jax, owner_of
from dualrev._jax.rules_for_jax import is_registered
from dualrev.calls.foreign import ForeignRow
from dualrev.table.operations import OpRow
from dualrev.table.rows import row_of, rows

PACKAGE = pathlib.Path(dualrev.__file__).parent
ORACLE = PACKAGE / "oracle.py"
PRIVATE = PACKAGE / "_jax"
#: ``dualrev.installed`` puts dualrev's transforms in place of jax's, so it looks jax's up, by names that stand in a table; it keeps
#: them to put them back, and for calls of the user's outside a block.  It names none, and differentiates with none.
ALLOWED = {PACKAGE / name: {"jax.*"} for name in ("installed/replacing.py", "installed/transforms.py")}
#: What the rules of an operation's class take, an object that adds cotangents; and the objects that say what is wanted of a cotangent.
ALLOWED[PRIVATE / "high_primitives.py"] = {"jax._src.interpreters.ad.NullAccum", "jax._src.interpreters.ad.ValAccum"}
ALLOWED[PRIVATE / "references.py"] = {"jax.ad"}

DIFFERENTIATION = {"jvp", "vjp", "grad", "value_and_grad", "linearize", "linear_transpose", "jacfwd", "jacrev", "jacobian",
                   "hessian",
                   "custom_jvp", "custom_vjp", "custom_gradient", "fwd_and_bwd", "hvp", "closure_convert"}
MODULES = ("jax.experimental.jet", "jax.interpreters.ad", "jax._src.interpreters.ad", "jax.custom_derivatives", "jax.ad",
           "jax.test_util", "jax._src.public_test_util", "jax.experimental.sparse.ad")
#: Names of jax's rule registries and passes, under whatever module they are reached.
REGISTRIES = {"primitive_jvps", "primitive_transposes", "primitive_linearizations", "backward_pass", "backward_pass3",
              "jvp_jaxpr",
              "JVPTrace", "LinearizeTrace", "deflinear", "defjvp_zero", "vjp_trace"}
#: What _jax/ may read of jax's machinery: the primitives that carry a user's rules, and their zeros.
#: Of the class of jax's pushed values, whether a value is an instance, which libraries ask.
READABLE = {"custom_jvp_call_p", "custom_vjp_call_p", "custom_vjp_call_jaxpr_p", "SymbolicZero", "JVPTracer"}
#: Where one function of _jax/ may read more: the rules that another library registered with jax for a primitive of its own, which
#: are a user's rules as those of jax.custom_jvp are, and what such rules take for operands.  It gives nothing for a primitive that jax
#: defined, whoever registered a rule for it, and the one file that may ask it is asked only for primitives that have no row.
READS_FOREIGN_RULES, ASKS_FOR_FOREIGN_RULES = "foreign_rules", "calls/foreign.py"
FOREIGN = {f"jax._src.interpreters.ad.{name}" for name in (
    "primitive_jvps", "primitive_transposes", "primitive_linearizations", "fancy_transposes", "UndefinedPrimal", "ValAccum")}
#: Where another function of _jax/ may write: it registers the derivative of a user's own primitive with jax, as the user would with
#: jax.interpreters.ad, so that jax.grad knows the primitive too.  That is stating a rule, not differentiating: dualrev never asks jax
#: for it.  The function may look whether a registry has an entry and set one, and nothing else; the one file that may call it does so
#: for primitives that neither jax nor another library defines and for which nobody has registered a derivative.
WRITES_RULES, ASKS_TO_WRITE = "register_with_jax", "table/with_jax.py"
WRITABLE = {"primitive_jvps", "primitive_transposes", "primitive_linearizations", "fancy_transposes"}
HIDDEN = ("jax._src", "jax.core", "jax.extend", "jax.interpreters", "jaxlib")


def sources() -> list[pathlib.Path]:
    return sorted(PACKAGE.rglob("*.py"))


def within(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == m or name.startswith(m + ".") for m in modules)


def names_used(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """The full dotted names of jax that a module imports or reaches through attributes, wherever they stand."""
    bound: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
                bound[alias.asname or alias.name.split(".")[0]] = alias.name if alias.asname else alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno
                bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parts: list[str] = []
            inner: ast.AST = node
            while isinstance(inner, ast.Attribute):
                parts.append(inner.attr)
                inner = inner.value
            if isinstance(inner, ast.Name) and inner.id in bound:
                yield ".".join([bound[inner.id], *reversed(parts)]), node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            if called in ("import_module", "__import__"):
                for text in texts:
                    yield text, node.lineno
            elif called == "getattr" and node.args and isinstance(node.args[0], ast.Name) and node.args[0].id in bound:
                for text in texts or ["*"]:
                    yield f"{bound[node.args[0].id]}.{text}", node.lineno


def differentiates(name: str) -> bool:
    """Whether a dotted name is one of jax's ways to differentiate."""
    if not within(name, ("jax",)):
        return False
    parts = name.split(".")
    if parts[-1] in READABLE:
        return False
    return (within(name, MODULES) or name == "jax.*" or bool(REGISTRIES & set(parts[1:]))
            or (bool(DIFFERENTIATION & set(parts[1:])) and "numpy" not in parts))


def only_writes(function: ast.FunctionDef) -> bool:
    """Whether a function only sets entries of jax's registries, and looks whether there is one."""
    allowed: set[ast.AST] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            allowed.add(node.value)
        elif isinstance(node, ast.Compare) and all(isinstance(op, (ast.In, ast.NotIn)) for op in node.ops):
            allowed.update(node.comparators)
    return all(node in allowed for node in ast.walk(function) if isinstance(node, ast.Name) and node.id in WRITABLE)


def violations(source: str, private: bool = False) -> list[str]:
    found = []
    tree = ast.parse(source)
    readers = [node for node in tree.body if private and isinstance(node, ast.FunctionDef)
               and (node.name == READS_FOREIGN_RULES or (node.name == WRITES_RULES and only_writes(node)))]
    for name, line in names_used(tree):
        is_read = name.removesuffix(".get") in FOREIGN and any(node.lineno <= line <= (node.end_lineno or 0) for node in readers)
        if (differentiates(name) and not is_read) or (not private and within(name, HIDDEN)):
            found.append(f"line {line}: {name}")
    return found


@pytest.mark.parametrize("path", [p for p in sources() if p != ORACLE], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_differentiation_by_jax(path: pathlib.Path) -> None:
    found = violations(path.read_text(), private=path.parent == PRIVATE)
    assert [name for name in found if name.split(": ")[1] not in ALLOWED.get(path, ())] == []


@pytest.mark.parametrize("source", [
    "import jax\njax.grad(f)",
    "import jax as j\nx = j.jvp",
    "from jax import vjp",
    "from jax import vjp as pull",
    "def f():\n    from jax.experimental import jet",
    "import jax.experimental.jet as jet",
    "from jax.interpreters import ad",
    "from jax._src.interpreters import ad",
    "from jax._src import core\ncore.x",
    "import jax\njax.core.Trace",
    "import jax\njax.extend.core.primitives",
    "import jax\ngetattr(jax, 'linearize')",
    "import jax\ngetattr(jax, name)",
    "import importlib\nimportlib.import_module('jax.interpreters.ad')",
    "import jax\n@jax.custom_jvp\ndef f(x): return x",
    "from jax import custom_derivatives as cd\ncd.custom_vjp",
    "import jax\njax.jacfwd(jax.jacrev(f))",
    "import jax\nf = [jax.value_and_grad]",
])
def test_the_search_finds(source: str) -> None:
    assert violations(source)


@pytest.mark.parametrize("source", [
    "import jax\njax.jit(jax.vmap(f))\njax.tree_util.tree_map(g, x)",
    "from dualrev import grad, jvp\njvp(f, x, t)",
    "import jax.numpy as jnp\njnp.gradient(x)",
    "class Row:\n    def jvp(self): ...\nrow.jvp(x)",
    "from jax import lax\nlax.stop_gradient(x)\nlax.linalg",
])
def test_the_search_does_not_find(source: str) -> None:
    assert not violations(source)


READS = "    from jax._src.interpreters.ad import primitive_jvps\n    return primitive_jvps.get(primitive)\n"


def test_registered_rules_are_read_by_one_function_for_one_file() -> None:
    assert not violations(f"def foreign_rules(primitive):\n{READS}", private=True)
    assert violations(f"def foreign_rules(primitive):\n{READS}")
    assert violations(f"def rules(primitive):\n{READS}", private=True)
    assert violations(f"def foreign_rules(primitive):\n{READS.replace('primitive_jvps', 'backward_pass')}", private=True)
    asking = [str(p.relative_to(PACKAGE)) for p in sources() if p.parent != PRIVATE and READS_FOREIGN_RULES in p.read_text()]
    assert asking == [ASKS_FOR_FOREIGN_RULES]


WRITES = """def register_with_jax(primitive, rule):
    from jax._src.interpreters.ad import primitive_jvps
    if primitive in primitive_jvps:
        return
    primitive_jvps[primitive] = rule
"""


def test_rules_are_written_by_one_function_for_one_file() -> None:
    assert not violations(WRITES, private=True)
    assert violations(WRITES)
    assert violations(WRITES.replace("register_with_jax", "tell"), private=True)
    for reading in ("rule = primitive_jvps[primitive]", "primitive_jvps.get(primitive)", "primitive_jvps.pop(primitive)",
                    "primitive_jvps[primitive](x, t)", "rules = primitive_jvps", "del primitive_jvps[primitive]",
                    "rules = primitive in primitive_jvps and primitive_jvps"):
        assert violations(f"{WRITES}    {reading}\n", private=True), reading
    assert violations(WRITES.replace("primitive_jvps", "backward_pass"), private=True)
    asking = [str(p.relative_to(PACKAGE)) for p in sources() if p.parent != PRIVATE and WRITES_RULES in p.read_text()]
    assert asking == [ASKS_TO_WRITE]


def test_what_is_registered_with_jax_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from jax._src.interpreters import ad
    from jax.interpreters import mlir

    p = Primitive("registered")
    p.def_impl(lambda x: 2.0 * x)
    p.def_abstract_eval(lambda x: x)
    mlir.register_lowering(p, mlir.lower_fun(lambda x: 2.0 * x, multiple_results=False))
    dualrev.rule(p, partials=[2.0])
    monkeypatch.setitem(rows, p, rows.pop(p))  # which goes with the test
    assert is_registered(p) and jax.grad(p.bind)(1.0) == 2.0
    monkeypatch.setitem(ad.primitive_jvps, p, Forbidden)
    monkeypatch.setitem(ad.primitive_transposes, p, Forbidden)
    for engine in ("forward", "reverse"):
        assert dualrev.grad(p.bind, engine=engine)(1.0) == 2.0  # type: ignore[arg-type]
        assert dualrev.jvp(p.bind, (1.0,), (1.0,), engine=engine)[1] == 2.0  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="jax's own differentiation was called"):
        jax.grad(p.bind)(1.0)


def test_rules_are_read_of_primitives_that_neither_jax_nor_the_table_defines() -> None:
    from jax._src.interpreters.ad import primitive_jvps, primitive_transposes

    known = {**primitive_jvps, **primitive_transposes}
    assert len(known) > 200
    for primitive in known:
        if is_of_jax(str(owner_of(primitive))):
            assert foreign_rules(primitive) is None
    assert all(is_of_jax(str(owner_of(p))) for p in known if p in rows and not is_registered(p))
    assert not [p for p in rows if isinstance(rows[p], ForeignRow)]
    assert isinstance(row_of(lax.sin_p, "forward"), OpRow)


def test_private_names_are_imported_in_one_place() -> None:
    importing = {p for p in sources() if any(within(n, HIDDEN) for n, _ in names_used(ast.parse(p.read_text())))}
    assert {p.parent for p in importing - {ORACLE}} == {PRIVATE}


@functools.cache
def imports_of(path: pathlib.Path) -> set[str]:
    """The modules of the package that a module imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                here = ("dualrev", *path.relative_to(PACKAGE).parent.parts)
                module = ".".join([*here[: len(here) - node.level + 1], *([module] if module else [])])
            found.add(module)
            found.update(f"{module}.{alias.name}" for alias in node.names)
    return {name for name in found if name.split(".")[0] == "dualrev"}


def reached_from(start: str) -> set[str]:
    files = {".".join(("dualrev", *p.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): p
             for p in sources()}
    waiting, seen = [start], set()
    while waiting:
        name = waiting.pop()
        if name in files and name not in seen:
            seen.add(name)
            waiting.extend(imports_of(files[name]))
    return seen


def test_nothing_that_differentiates_imports_the_oracle() -> None:
    parts = [".".join(("dualrev", *p.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
             for folder in ("rules", "engines", "eager") for p in (PACKAGE / folder).rglob("*.py")]
    for start in ["dualrev", "dualrev.functional.api", "dualrev.linear.maps", *parts]:
        reached = reached_from(start)
        assert reached, start
        assert "dualrev.oracle" not in reached, start
    assert "dualrev.engines.reverse" in reached_from("dualrev.functional.api")


def test_importing_the_package_does_not_load_the_oracle() -> None:
    program = "import sys, dualrev; assert not {'dualrev.oracle', 'jax.experimental.jet'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=PACKAGE.parent, timeout=120)


def test_engines_name_no_primitive() -> None:
    for path in (PACKAGE / "engines").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            assert not name.endswith("_p"), f"{path.name}:{getattr(node, 'lineno', 0)}: {name}"


class Forbidden:
    def __init__(self, *_: Any, **__: Any):
        raise AssertionError("jax's own differentiation was called")


@pytest.mark.parametrize("engine", ["forward", "reverse"])
def test_derivatives_work_without_those_of_jax(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the entry points of jax's differentiation replaced by an error, everything still runs."""
    from jax._src.interpreters import ad

    @jax.custom_jvp
    def cubed(x: Any) -> Any:
        return x**3

    cubed.defjvp(lambda p, t: (cubed(*p), 3 * p[0] ** 2 * t[0]))

    @jax.custom_vjp
    def halved(x: Any) -> Any:
        return x / 2

    halved.defvjp(lambda x: (halved(x), None), lambda _, ct: (ct / 2,))

    def f(x: Any) -> Any:
        c, ys = lax.scan(lambda c, a: (jnp.sin(c) * a, c), x, jnp.arange(2.0))
        c = lax.cond(c > 0, cubed, halved, c + x)
        return jax.checkpoint(jnp.tanh)(c) + jax.jit(jnp.exp)(x) + ys.sum()

    expected = jax.grad(f)(0.7), jax.grad(jax.grad(f))(0.7)
    for name in ("JVPTrace", "LinearizeTrace", "jvp", "jvpfun", "linearize", "vjp", "backward_pass", "backward_pass3",
                 "jvp_jaxpr",
                 "linearize_jaxpr", "LinearizeTracer", "JVPTracer"):
        if hasattr(ad, name):
            monkeypatch.setattr(ad, name, Forbidden)
    for name in ("primitive_jvps", "primitive_transposes", "primitive_linearizations"):
        if hasattr(ad, name):
            monkeypatch.setattr(ad, name, None)
    with pytest.raises(Exception):  # noqa: B017  (whatever jax makes of it)
        jax.grad(lambda x: f(x) * 1.5)(0.7)
    grad = dualrev.grad(f, engine=engine)
    assert abs(grad(0.7) - expected[0]) < 1e-12
    assert abs(jax.jit(grad)(0.7) - expected[0]) < 1e-12
    assert abs(dualrev.grad(grad, engine=engine)(0.7) - expected[1]) < 1e-12
    assert abs(dualrev.jvp(grad, (0.7,), (1.0,), engine=engine)[1] - expected[1]) < 1e-12
