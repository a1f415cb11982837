"""Options are stated once: checks, settings, documentation and the type of keyword options come from one field each."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, fields
from typing import Any, Literal

import jax
import jax.numpy as jnp
import pytest
from keywords import FILE, text

import dualrev as dr
from dualrev.options.fields import checks_of, defaults_of, keyword_class, option
from dualrev.options.keywords import Options
from dualrev.options.settings import DEFAULT, PLAIN, CallSettings, Request, Settings, current, settings_of, using


def test_the_keywords_are_current() -> None:
    if FILE.read_text() != (current := text()):
        FILE.write_text(current)
        pytest.fail(f"{FILE.name} was stale; it has been written again")


def test_the_keywords_are_the_fields() -> None:
    assert list(Options.__annotations__) == [field.name for field in fields(CallSettings)]
    for field in fields(CallSettings):
        assert f"``{field.name}``" in (Options.__doc__ or "")


@dataclass(frozen=True, slots=True, eq=False)
class WithOneMore(CallSettings):
    """What adding an option takes."""

    precision: Literal["low", "high"] | None = option(None, "how products are rounded.", lambda call, value: None)
    order: Literal["up", "down"] = option("up", "the way round.")


def test_adding_an_option_is_adding_a_field() -> None:
    assert defaults_of(WithOneMore)["order"] == "up"
    with pytest.raises(ValueError, match="grad: order must be 'up' or 'down'; got 'left'"):
        checks_of(WithOneMore)["order"]("grad", "left")
    written = keyword_class(WithOneMore, "Options", "Options.")
    assert '    order: Literal["up", "down"]\n' in written and '- ``order`` ("up"): the way round.' in written
    assert '    precision: Literal["low", "high"] | None\n' in written


def test_a_field_without_a_check_is_an_error() -> None:
    @dataclass(frozen=True)
    class Wrong:
        size: float = option(1.0, "how large.")

    with pytest.raises(TypeError, match=r"the option size has the type <class 'float'>, .*: state one, check="):
        checks_of(Wrong)


BAD: list[tuple[str, Any, type[Exception], str]] = [
    ("zero_wins", 1, TypeError, "grad: zero_wins must be True or False; got 1"),
    ("split_repeated", "yes", TypeError, "grad: split_repeated must be True or False; got 'yes'"),
    ("custom_vjp_jvp", "primal", ValueError,
     "grad: custom_vjp_jvp must be 'transpose', 'differentiate_primal' or 'error'; got 'primal'"),
    ("custom_vjp_jvp", ["error"], ValueError, r"grad: custom_vjp_jvp must be .*; got \['error'\]"),
    ("stack_cotangents", 1, ValueError, "grad: stack_cotangents must be 'auto', True or False; got 1"),
    ("non_float", None, ValueError, "grad: non_float must be 'float0' or 'none'; got None"),
    ("loop_checkpoints", 2.0, TypeError, "grad: loop_checkpoints must be None or a whole number; got 2.0"),
    ("loop_checkpoints", True, TypeError, "grad: loop_checkpoints must be None or a whole number; got True"),
    ("max_steps", 0, ValueError, "grad: max_steps must be at least 1; got 0"),
    ("schedule", "some", ValueError, r"grad: schedule must be 'all', 'sqrt', Revolve\(slots\) or Bytes\(n\); got 'some'"),
    ("zero_win", True, TypeError, r"grad\(\) got an unexpected keyword argument 'zero_win'; its options are engine, cotangent_dtype, "),
]


@pytest.mark.parametrize(("name", "value", "error", "words"), BAD, ids=[f"{name}={value!r}" for name, value, *_ in BAD])
def test_what_is_no_option_is_named(name: str, value: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        dr.grad(jnp.sin, **{name: value})
    with pytest.raises(error, match=words.replace("grad", "installed")):
        dr.installed(**{name: value})


def test_equal_settings_are_one_object() -> None:
    assert settings_of() is DEFAULT is current.get() and Request.of("grad", {}) is PLAIN
    asked = settings_of(zero_wins=True, schedule=dr.Revolve(3))
    assert asked is Request.of("grad", {"schedule": dr.Revolve(3), "zero_wins": True}).settings is not DEFAULT
    assert asked is asked.replace(max_steps=2).replace(max_steps=None)
    assert (asked.zero_wins, asked.schedule, asked.max_steps) == (True, dr.Revolve(3), None)
    for same in (copy.copy(asked), copy.deepcopy(asked), pickle.loads(pickle.dumps(asked))):
        assert same is asked
    assert len({asked, settings_of(zero_wins=True, schedule=dr.Revolve(3)), DEFAULT}) == 2
    with pytest.raises(AttributeError):
        asked.zero_wins = False  # type: ignore[misc]


def test_what_the_functional_face_reads_is_no_setting() -> None:
    request = Request.of("grad", {"cotangent_dtype": {"w": "float32"}, "non_float": "none"})
    assert request == (DEFAULT, {"w": "float32"}, True)
    assert [field.name for field in fields(CallSettings)] == [*defaults_of(Settings), "cotangent_dtype", "non_float"]


def test_a_type_checker_objects_to_what_is_no_option() -> None:
    """Each ignore is needed, or mypy says so (``warn_unused_ignores`` for this file)."""
    with pytest.raises(TypeError):
        dr.grad(jnp.sin, zero_win=True)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        dr.jvp(jnp.sin, (1.0,), (1.0,), zero_wins=1)  # type: ignore[call-overload]
    with pytest.raises(ValueError):
        dr.vjp(jnp.sin, 1.0, custom_vjp_jvp="primal")  # type: ignore[call-overload]
    with pytest.raises(ValueError):
        dr.linearize(jnp.sin, 1.0, schedule="some")  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        dr.installed(loop_checkpoint=3)  # type: ignore[call-arg]
    gradient = dr.grad(jnp.sin, zero_wins=True, schedule=dr.Bytes(100), stack_cotangents=False, max_steps=None)
    with using(settings_of(max_steps=3)):
        assert jax.jit(gradient)(0.0) == 1.0
