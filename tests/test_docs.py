"""The examples in the README, in the guides and in docstrings, typed as shown."""

from __future__ import annotations

import doctest
import importlib
import pathlib
import pkgutil
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jax
import pages
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


#: Pages that are cheap enough for every run; the others run with --thorough.  Those of other libraries run in tests/ecosystem.
QUICK = {"benchmarks", "coverage", "from_pytorch", "how_it_is_built", "index"}
ELSEWHERE = {"other_libraries"}


def cases() -> Iterator[Any]:
    for page in pages.pages():
        name = "-".join(page.relative_to(pages.GUIDE).with_suffix("").parts)
        if name not in ELSEWHERE:
            yield pytest.param(page, id=name, marks=() if name in QUICK or name.startswith("reference") else pytest.mark.thorough)


@pytest.mark.parametrize("page", list(cases()))
def test_guides(page: pathlib.Path) -> None:
    assert run(pages.examples(page)).failed == 0


def test_guides_show_code() -> None:
    """All pages are read on every run, also those whose code takes long, and most have code."""
    counts = {page.stem: len(pages.examples(page).examples) for page in pages.pages() if page.parent.name != "reference"}
    assert {name for name, count in counts.items() if count < 5} <= {"benchmarks", "coverage", "how_it_is_built"}
    assert sum(counts.values()) > 250


@pytest.mark.thorough
@pytest.mark.parametrize("command", [command for page in pages.pages() for command in pages.commands(page, "python -m dualrev")])
def test_commands_of_guides(command: str) -> None:
    found = subprocess.run([sys.executable, *shlex.split(command)[1:]], capture_output=True, text=True, cwd=ROOT)
    assert found.returncode == 0 and "sinc" in found.stdout, found.stderr


@pytest.mark.parametrize("block", ["```python\nprint(1)\n```", "```sh\nrm -r x\n```", "```pycon\nprint(1)\n```"])
def test_blocks_that_nothing_would_run_are_refused(block: str, tmp_path: pathlib.Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n{block}\n")
    with pytest.raises(ValueError, match=r"page\.md:"):
        pages.examples(page)


@pytest.mark.parametrize("name", public_modules())
def test_docstrings(name: str) -> None:
    module: Any = importlib.import_module(name)
    for examples in doctest.DocTestFinder(exclude_empty=True).find(module):
        if examples.examples:
            assert run(examples).failed == 0, examples.name


@pytest.mark.parametrize("name", [name for name in dualrev.__all__ if callable(getattr(dualrev, name))])
def test_public_names_show_an_example(name: str) -> None:
    assert ">>> " in (getattr(dualrev, name).__doc__ or ""), name
