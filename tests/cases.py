"""The test table: at least one line for each row of the rule table.

A line names a primitive, a function that uses it, and how to make the function's arguments::

    case("sin", lax.sin, normal(3, 4))
    case("max", lax.max, ints_as_float(2, 3), ints_as_float(2, 3), label="ties")
    case("gather", lambda x, i: x[i], normal(5, 2), ints(0, 5, 4), dtypes=("float64", "float32"))

The lines stand in one file for each family, ``tests/cases_<family>.py``, as ``CASES = [case(...), ...]``.

An argument is a maker ``(rng, dtype) -> array``.  What a maker gives in a float or complex dtype is differentiated, unless it
is wrapped in :func:`constant`; integers, booleans and keys are not.  The function returns an array or a tuple of arrays.
"""

from __future__ import annotations

import importlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Maker = Callable[[np.random.Generator, Any], Any]

F64 = ("float64",)
C128 = ("complex128",)
#: Real and complex.
RC = ("float64", "complex128")
#: Low precisions are compared with jax in the same dtype, at loose tolerance and order 1 (see ``test_rules.py``).
LOW = ("float32", "float16", "bfloat16")
ALL_FLOATS = (*F64, *LOW)
ALL = (*RC, *LOW)


class Case(NamedTuple):
    """One line of the table."""

    primitive: str
    fun: Callable[..., Any]
    makers: tuple[Maker, ...]
    dtypes: tuple[str, ...]
    #: Highest order of derivative that is compared: 2, or 1 where the second derivative is not defined at the point.
    order: int
    #: What is particular about the line; part of the test's name.
    label: str
    #: Whether the function is also run under vmap (with every argument batched).
    vmap: bool
    #: Relative tolerance, where rounding alone exceeds the default of the dtype.
    rtol: float | None
    #: Whether every operand may be differentiated in reverse; False for operations that have a push only.
    reverse: bool
    #: An equivalent function, where jax cannot differentiate ``fun`` itself, or is wrong.
    oracle: Callable[..., Any] | None = None


def case(primitive: str, fun: Callable[..., Any], *makers: Maker, dtypes: Sequence[str] = F64, order: int = 2, label: str = "",
         vmap: bool = True, rtol: float | None = None, reverse: bool = True, oracle: Callable[..., Any] | None = None) -> Case:
    return Case(primitive, fun, makers, tuple(dtypes), order, label, vmap, rtol, reverse, oracle)


# ------------------------------------------------------------------------------------------------------- arguments


def _cast(x: Any, dtype: Any) -> np.ndarray:
    import ml_dtypes  # registers bfloat16 with numpy  # noqa: F401

    return np.asarray(x).astype(dtype)


def normal(*shape: int) -> Maker:
    """Standard normal values, complex where the dtype is."""
    def make(rng: np.random.Generator, dtype: Any) -> np.ndarray:
        x = rng.standard_normal(shape)
        if np.dtype(dtype).kind == "c":
            x = x + 1j * rng.standard_normal(shape)
        return _cast(x, dtype)
    return make


def real_normal(*shape: int) -> Maker:
    """Standard normal values of the real dtype that belongs to the case's dtype."""
    def make(rng: np.random.Generator, dtype: Any) -> np.ndarray:
        real = {"complex128": "float64", "complex64": "float32"}.get(str(dtype), dtype)
        return _cast(rng.standard_normal(shape), real)
    return make


def uniform(low: float, high: float, *shape: int) -> Maker:
    """Values in ``[low, high)``; where the dtype is complex, with a small imaginary part."""
    def make(rng: np.random.Generator, dtype: Any) -> np.ndarray:
        x = rng.uniform(low, high, shape)
        if np.dtype(dtype).kind == "c":
            x = x + 0.3j * rng.uniform(-1, 1, shape)
        return _cast(x, dtype)
    return make


def distinct(*shape: int) -> Maker:
    """Values without ties, well apart, in random order."""
    def make(rng: np.random.Generator, dtype: Any) -> np.ndarray:
        n = int(np.prod(shape))
        return _cast((rng.permutation(n).reshape(shape) - n / 2 + 0.25) / max(n / 4, 1), dtype)
    return make


def tied(*shape: int) -> Maker:
    """Small whole numbers as floats: many ties, and zeros."""
    def make(rng: np.random.Generator, dtype: Any) -> np.ndarray:
        return _cast(rng.integers(-1, 2, shape), dtype)
    return make


def values(*entries: Any) -> Maker:
    """These values, as a vector (or as nested lists give the shape)."""
    return lambda _rng, dtype: _cast(np.array(entries), dtype)


def scalar(value: complex) -> Maker:
    """This value, of shape ``()``."""
    return lambda _rng, dtype: _cast(value, dtype)


def ints(low: int, high: int, *shape: int, dtype: str = "int32") -> Maker:
    """Integers in ``[low, high)``: not differentiated."""
    return lambda rng, _dtype: rng.integers(low, high, shape).astype(dtype)


def bools(*shape: int) -> Maker:
    return lambda rng, _dtype: np.asarray(rng.integers(0, 2, shape).astype(bool))


def fixed(value: Any, dtype: Any = None) -> Maker:
    """This array whatever the case's dtype, such as an index."""
    return lambda _rng, _dtype: np.asarray(value, dtype)


class Constant:
    """A maker whose value is not differentiated."""

    def __init__(self, maker: Maker):
        self.maker = maker

    def __call__(self, rng: np.random.Generator, dtype: Any) -> Any:
        return self.maker(rng, dtype)


def constant(maker: Maker) -> Constant:
    """The same argument, not differentiated."""
    return Constant(maker)


# -------------------------------------------------------------------------------------------------------- the table


def bind(name: str, **params: Any) -> Callable[..., Any]:
    """The primitive itself as a function, for primitives that only one release of jax has or that no function exposes."""
    from dualrev._jax.primitives import primitive

    def run(*args: Any) -> Any:
        found = primitive(name)
        assert found is not None, f"jax has no primitive {name!r}: if that is so in this release, say so in tests/releases.py"
        return found.bind(*args, **params)
    return run


#: Rows that no line of the table fits, such as those that hold programs, and the file that tests each.  A file of cases may add to it.
ELSEWHERE = {
    **dict.fromkeys(("debug_callback", "debug_print", "jit", "cond", "remat2"), "test_nesting.py"),
    "region": "test_region.py",
    "one_kernel": "test_one_kernel.py",
    "call_hi_primitive": "test_implicit.py",
    **dict.fromkeys(("scan", "while"), "test_loops.py"),
}


def load() -> list[Case]:
    """All lines but those whose primitive stands in ``releases.py`` and not in this release of jax."""
    from releases import here

    found: list[Case] = []
    for path in sorted(pathlib.Path(__file__).parent.glob("cases_*.py")):
        module = importlib.import_module(path.stem)
        found.extend(module.CASES)
        ELSEWHERE.update(getattr(module, "ELSEWHERE", {}))
    return [c for c in found if here(c.primitive)]


CASES = load()
