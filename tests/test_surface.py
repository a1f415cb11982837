"""The public surface does not change unnoticed: ``tests/surface.txt`` has every public name with its signature."""

from __future__ import annotations

import difflib
import importlib
import pathlib
import re
import types
from collections.abc import Callable

import pytest
import surface

import dualrev


def test_public_names_and_signatures_are_those_written_down() -> None:
    written = surface.FILE.read_text(encoding="utf-8").splitlines()
    change = list(difflib.unified_diff(written, list(surface.lines()), "tests/surface.txt", "now", lineterm="", n=0))
    assert change == [], ("the public names or signatures have changed. If that is meant: python -m tests.surface, a line in "
                          "CHANGELOG.md, and for what is removed or renamed the steps of papers/guide/compatibility.md.\n"
                          + "\n".join(change))


@pytest.mark.parametrize("module", surface.MODULES)
def test_public_modules_have_all(module: str) -> None:
    found = importlib.import_module(surface.MODULES[module])
    assert len(found.__all__) == len(set(found.__all__)) and all(hasattr(found, name) for name in found.__all__)


def test_what_is_in_no_module_is_not_public() -> None:
    """Every module of the package that has ``__all__`` and is no part of the imperative face is among those that are frozen."""
    package = pathlib.Path(dualrev.__file__).parent
    stating = {".".join(("dualrev", *path.relative_to(package).with_suffix("").parts)).removesuffix(".__init__")
               for path in package.rglob("*.py")
               if "eager" not in path.parts and re.search(r"^__all__ = ", path.read_text(encoding="utf-8"), re.MULTILINE)}
    assert stating == set(surface.MODULES.values())


def _new_default(x: float, *, y: int = 3) -> float:
    return x * y


def _new_name(x: float, *, z: int = 2) -> float:
    return x * z


@pytest.mark.parametrize("changed", [_new_default, _new_name, lambda x, y=2: x])
def test_a_changed_signature_is_seen(changed: Callable[..., float]) -> None:
    def old(x: float, *, y: int = 2) -> float:
        return x * y

    assert surface.signature(old) == "(x: float, *, y: int = 2) -> float"
    assert surface.signature(changed) != surface.signature(old)


def test_a_missing_name_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dualrev, "__all__", [name for name in dualrev.__all__ if name != "hvp"])
    monkeypatch.setattr(surface, "IMPERATIVE", ())
    with pytest.raises(AssertionError, match=r"-dualrev\.hvp"):
        test_public_names_and_signatures_are_those_written_down()
    assert isinstance(dualrev.hvp, types.FunctionType)
