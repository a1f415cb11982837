"""The examples in the README, in the guides and in docstrings, typed as shown."""

from __future__ import annotations

import doctest
import importlib
import pathlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import jax
import pytest
from agreement import promoting

import dualrev

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def single_precision() -> Iterator[None]:
    """Examples show what a user sees who has configured nothing."""
    jax.config.update("jax_enable_x64", False)
    with promoting():
        yield
    jax.config.update("jax_enable_x64", True)


def public_modules() -> list[str]:
    names = [m.name for m in pkgutil.walk_packages(dualrev.__path__, "dualrev.")]
    return [name for name in names if not name.endswith("__main__")]


def run(examples: doctest.DocTest) -> doctest.TestResults:
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    return runner.run(examples)


def test_readme() -> None:
    text = (ROOT / "README.md").read_text()
    examples = doctest.DocTestParser().get_doctest(text, {}, "README.md", "README.md", 0)
    assert len(examples.examples) > 15
    assert run(examples).failed == 0


#: Pages whose programs take long to compile.
LONG = {"cost_of_many_devices", "many_devices", "taylor_integrator"}


@pytest.mark.parametrize("page", [
    pytest.param(page, id=page.stem, marks=pytest.mark.thorough if page.stem in LONG else ())
    for page in sorted((ROOT / "papers" / "guide").glob("*.md"))])
def test_guides(page: pathlib.Path) -> None:
    examples = doctest.DocTestParser().get_doctest(page.read_text(), {}, page.name, str(page), 0)
    assert len(examples.examples) > 10
    assert run(examples).failed == 0


@pytest.mark.parametrize("name", public_modules())
def test_docstrings(name: str) -> None:
    module: Any = importlib.import_module(name)
    for examples in doctest.DocTestFinder(exclude_empty=True).find(module):
        if examples.examples:
            assert run(examples).failed == 0, examples.name


@pytest.mark.parametrize("name", [name for name in dualrev.__all__ if callable(getattr(dualrev, name))])
def test_public_names_show_an_example(name: str) -> None:
    assert ">>> " in (getattr(dualrev, name).__doc__ or ""), name
