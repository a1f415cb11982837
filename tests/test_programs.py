"""Random programs over the whole table: both engines and jax agree, to order 2.  ``python -m tests.fuzz`` tries more of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from agreement import assert_close, check
from fuzz_modes import MODES, Compared, Question, ask
from jax import lax
from jax import numpy as jnp
from random_programs import Operation, Pool, Program
from random_steps import Array, Drawn

import dualrev


@pytest.mark.promotes
@pytest.mark.thorough
@pytest.mark.parametrize("pool", range(2))
def test_random_programs(pool: int) -> None:
    """Steps compiled once, in every mode: what fails is drawn again by ``python -m tests.fuzz --pool P --program N``."""
    drawn = Pool(pool)
    compared = []
    for number in range(1, 30):
        question = Question(drawn.program(number), number, is_full=number % 2 == 0)
        compared.append(question.has_answer)
        names = list(MODES)
        for name in (names[number % len(names)], names[(number + 1) % len(names)]):
            try:
                ask(name, question)
            except Exception as error:
                error.add_note(f"{name}: {question.program}")
                raise
    assert np.mean(compared) > 0.5, "too few programs have finite derivatives in jax"


@pytest.mark.promotes
@pytest.mark.thorough
@pytest.mark.parametrize("number", range(40))
def test_random_programs_compiled(number: int) -> None:
    """Both engines to order 2 and jax in one program."""
    check(Pool(number).program(number, longest=3).scenario(), number, ("forward", "reverse") if number % 2 else ("reverse", "forward"))


@pytest.mark.promotes
@pytest.mark.thorough
@pytest.mark.parametrize("number", range(3))
def test_random_programs_without_jit(number: int) -> None:
    check(dataclasses.replace(Pool(number).program(0, longest=4).scenario(), order=1), number, compiled=False)


@pytest.mark.promotes
def test_a_wrong_mode_is_found() -> None:
    """The fuzzer compares: a mode that gives another answer fails, and so does one of another type."""
    def wrong(question: Question) -> Any:
        yield Compared("push", [2 * question.push[0]], question.push)

    def cast(question: Question) -> Any:
        yield Compared("push", [question.push[0].astype("float32")], question.push)

    def wrong_pull(question: Question) -> Any:
        yield question.compare_pull("pull", [1.001 * ct for ct in question.pull])

    x = np.array([0.3, 0.7])
    sine = Operation(Drawn("sin", jnp.sin), [jax.ShapeDtypeStruct(x.shape, x.dtype)])
    question = Question(Program("by hand", [x], [(sine, (0,))], True), 0)
    differs = "Not equal to tolerance"
    for mode, message in ((wrong, differs), (wrong_pull, differs), (cast, "expected float64, got float32")):
        MODES["wrong"] = MODES["forward"]._replace(check=mode)
        try:
            with pytest.raises(AssertionError, match=message):
                ask("wrong", question)
        finally:
            del MODES["wrong"]


@pytest.mark.parametrize("engine", ["forward", "reverse"])
def test_inner_product_identity(engine: Any) -> None:
    """⟨J t, u⟩ = ⟨t, Jᵀ u⟩ for a map with every kind of step."""
    def f(x: Any) -> Array:
        return lax.cumsum(lax.sort(lax.sin(x) * 2)[::2]) @ jnp.arange(6.0).reshape(3, 2)

    x, t, u = np.linspace(-1, 1, 5), np.arange(5.0), np.array([1.0, -2.0])
    moved = dualrev.jvp(f, (x,), (t,), engine=engine)[1]
    assert_close(jnp.vdot(moved, u), jnp.vdot(t, dualrev.vjp(f, x, engine=engine)[1](u)[0]))
