"""Whole programs as people write them, step by step as in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from against_torch import in_both
from programs import networks, science, sequences, tutorials

pytestmark = pytest.mark.thorough

PROGRAMS: dict[str, Callable[[Any], Any]] = {
    f"{module.__name__.rpartition('.')[2]}: {name.replace('_', ' ')}": program
    for module in (networks, sequences, science, tutorials) for name, program in vars(module).items()
    if callable(program) and getattr(program, "__module__", "") == module.__name__ and name not in ("fill", "waves", "trained")}


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(name: str) -> None:
    def program(t: Any) -> Any:
        found = PROGRAMS[name](t)
        return [list(x.values()) if isinstance(x, dict) else x for x in found]

    in_both(program, 2e-4)
