"""The table against jax's own registries: nothing that jax can differentiate is missing without a reason."""

from __future__ import annotations

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
