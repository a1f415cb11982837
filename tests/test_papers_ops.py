"""``papers/ops``, how to write an op: its page, its cases and its command."""

from __future__ import annotations

import doctest
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import promoting

import dualrev as dr
from dualrev.testing import check_rule
from papers.ops import __main__ as command
from papers.ops.cases import by_the_definition, cases, check
from papers.ops.circular import circular
from papers.ops.statements import EXAMPLES

ROOT = pathlib.Path(__file__).parent.parent
CASES = cases()


def test_the_page_is_true() -> None:
    text = (ROOT / "papers" / "ops" / "README.md").read_text()
    examples = doctest.DocTestParser().get_doctest(text, {}, "README.md", "README.md", 0)
    assert len(examples.examples) > 15
    jax.config.update("jax_enable_x64", False)
    try:
        with promoting():
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
            assert runner.run(examples).failed == 0
    finally:
        jax.config.update("jax_enable_x64", True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_cases(case: Any) -> None:
    assert check(case) < 1e-12


@pytest.mark.parametrize("engine", ["forward", "reverse"])
def test_each_engine_at_order_2(engine: Any) -> None:
    x, y = CASES[0].args

    def f(x: Any, y: Any) -> Any:
        return jnp.sum(jnp.sin(circular(x, y)))

    def plain(x: Any, y: Any) -> Any:
        return jnp.sum(jnp.sin(by_the_definition(x, y)))

    found = jax.jit(dr.hessian(f, (0, 1), engine=engine))(x, y)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(jax.hessian(plain, (0, 1))(x, y)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


def test_only_what_an_adjoint_reads_is_stored() -> None:
    x, y = CASES[0].args
    _, J = dr.linearize(lambda x: circular(x, y), x)
    assert J.residual_bytes == y.nbytes
    _, J = dr.linearize(circular, x, y)
    assert J.residual_bytes == x.nbytes + y.nbytes


@pytest.mark.parametrize(("function", "point"), EXAMPLES, ids=lambda v: getattr(v, "__name__", ""))
def test_the_other_statements(function: Any, point: Any) -> None:
    check_rule(function, *map(jnp.asarray, point))


def test_operands_that_do_not_fit() -> None:
    for wrong in (jnp.ones(3), jnp.ones(4, "float32"), 1.0):
        with pytest.raises(TypeError, match=r"circular takes two arrays of one shape and floating-point dtype, .* float64\[4\] and"):
            circular(jnp.ones(4), wrong)  # type: ignore[arg-type]


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "cases", lambda: CASES[:1])
    command.main()
    out = capsys.readouterr().out
    assert "two vectors" in out and "log_sum_exp" in out and "after 200 steps" in out
    before, after = command.find_blur()
    assert after < before / 100
