"""The table against jax's own registries: nothing that jax can differentiate is missing without a reason."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import jax
import pytest
from covered import FILE, registry, rows, text, uncovered
from releases import SINCE, UNTIL, here

from dualrev._jax.primitives import primitive
from dualrev.table.exclusions import EXCLUDED
from dualrev.table.rows import load_optional


def test_every_primitive_that_jax_differentiates_is_covered() -> None:
    assert len(registry()) > 200
    assert not uncovered(), ("jax has a differentiation rule for these, and the table has no row and no reason not to "
                             f"(dualrev/rules/exclusions.py): {uncovered()}")


@pytest.mark.thorough
def test_so_is_every_primitive_of_modules_that_jax_imports_on_demand() -> None:
    program = """
import importlib, pathlib, pkgutil, sys
import jax, jax.experimental
for module in pkgutil.walk_packages(jax.__path__, "jax."):
    # Not: compilers' own languages, tools that start servers, and modules for other devices.
    if not {"mosaic", "triton", "tools", "tpu", "gpu", "jax2tf", "colocated_python", "array_serialization"} & {*module.name.split(".")}:
        try:
            importlib.import_module(module.name)
        except ImportError:
            continue
sys.path.insert(0, "tests")
import covered
print(covered.uncovered())
"""
    root = pathlib.Path(__file__).parent.parent
    found = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, cwd=root, check=False,
                           env={**os.environ, "PYTHONPATH": str(root)})
    assert found.returncode == 0, found.stderr
    assert found.stdout.split("\n")[-2] == "[]"


@pytest.mark.parametrize("name", sorted({**SINCE, **UNTIL}))
def test_primitives_of_some_releases(name: str) -> None:
    load_optional()
    assert here(name) == (primitive(name) is not None), f"tests/releases.py is wrong about {name!r} in jax {jax.__version__}"


def test_exclusions_are_few_and_have_reasons() -> None:
    assert len(EXCLUDED) <= 25
    assert all(len(reason) > 20 for reason in EXCLUDED.values())
    assert not set(EXCLUDED) & set(rows()), "excluded, though there is a row"


def test_coverage_file_is_current() -> None:
    written = FILE.read_text() if FILE.exists() else ""
    if written and f"with jax {jax.__version__};" not in written:
        pytest.skip("the file describes another release of jax: what that one has differs")
    if written != (current := text()):
        FILE.write_text(current)
        pytest.fail(f"{FILE.name} was stale; it has been written again")
