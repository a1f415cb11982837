"""The table against jax's own registries: nothing that jax can differentiate is missing without a reason."""

from __future__ import annotations

import jax
import pytest
from covered import FILE, registry, rows, text, uncovered

from dualrev.rules.exclusions import EXCLUDED


def test_every_primitive_that_jax_differentiates_is_covered() -> None:
    assert len(registry()) > 200
    assert not uncovered(), ("jax has a differentiation rule for these, and the table has no row and no reason not to "
                             f"(dualrev/rules/exclusions.py): {uncovered()}")


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
