"""The page of the guide that uses other libraries, as it stands."""

from __future__ import annotations

import doctest
import pathlib
import sys

import jax
import pytest

sys.path.append(str(pathlib.Path(__file__).parent.parent))

import pages


@pytest.mark.filterwarnings("ignore")
def test_other_libraries() -> None:
    jax.config.update("jax_enable_x64", False)
    try:
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        found = runner.run(pages.examples(pages.GUIDE / "other_libraries.md"))
    finally:
        jax.config.update("jax_enable_x64", True)
    assert found.attempted > 20
    assert found.failed == 0
