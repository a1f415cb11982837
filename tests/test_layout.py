"""The package stands in storeys: imports go down only, and stand at the top of a file.

The order of the storeys is held by ``lint-imports`` (``[tool.importlinter]`` in pyproject.toml); what it does not see is held here.
"""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator

import pytest

import dualrev

PACKAGE = pathlib.Path(dualrev.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
NAMES = {".".join(("dualrev", *p.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): p for p in SOURCES}


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(node: ast.AST, inside: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """The imports that run, and whether each stands inside a function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, inside
        elif not is_for_types_only(child):
            yield from imports(child, inside or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)))


def modules(statement: ast.Import | ast.ImportFrom) -> set[str]:
    """The modules of the package that an import statement names."""
    if isinstance(statement, ast.Import):
        return {alias.name for alias in statement.names if alias.name in NAMES}
    base = statement.module or ""
    assert not statement.level, f"relative import of {base}"
    found = {f"{base}.{alias.name}" for alias in statement.names} & set(NAMES)
    return found | ({base} & set(NAMES) if len(found) < len(statement.names) else set())


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_stand_at_the_top(path: pathlib.Path) -> None:
    tree = ast.parse(path.read_text())
    first = min((node.lineno for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))), default=10**9)
    late = [f"line {s.lineno}" for s, inside in imports(tree) if not inside and s.lineno > first]
    hidden = [f"line {s.lineno}" for s, inside in imports(tree) if inside and modules(s)]
    assert late == [], "imports below a definition"
    assert hidden == [], "imports of the package inside a function"


def test_there_is_no_circle() -> None:
    graph = {name: {m for s, _ in imports(ast.parse(path.read_text())) for m in modules(s)} - {name} for name, path in NAMES.items()}
    while free := [name for name, found in graph.items() if not found & set(graph)]:
        for name in free:
            del graph[name]
    assert sorted(graph) == [], "modules that import each other, and modules that import those"


@pytest.mark.parametrize("folder", sorted(p.parent for p in SOURCES if p.name == "__init__.py"), ids=lambda p: p.name)
def test_folders_say_what_lives_there(folder: pathlib.Path) -> None:
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    assert len(text.splitlines()) >= 1
    if folder != PACKAGE and folder.name != "problems":
        assert "May import:" in text and "Start reading at" in text


def test_long_tests_exist() -> None:
    """A test that is renamed would run by default again."""
    folder = pathlib.Path(__file__).parent
    for line in (folder / "long.txt").read_text().splitlines():
        file, _, name = line.partition("::")
        assert f"def {name.partition('[')[0]}(" in (folder.parent / file).read_text(), line
