"""How results are compared with jax, the oracle of every test."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.tree_util import tree_flatten

import dualrev

ENGINES: tuple[Any, ...] = ("forward", "reverse")

TRANSFORMATIONS = ("jvp", "vjp", "linearize", "linear_transpose", "grad", "value_and_grad", "jacfwd", "jacrev", "jacobian",
                   "hessian")

#: Relative and absolute tolerance of results that were computed in a dtype.
TOLERANCES = {"float64": 1e-10, "complex128": 1e-10, "float32": 2e-5, "complex64": 2e-5, "float16": 1e-2, "bfloat16": 5e-2}


@contextlib.contextmanager
def promoting() -> Iterator[None]:
    """jax's own promotion of shapes and dtypes, for formulas of tests: the suite refuses it everywhere else (``conftest.py``)."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


class Face:
    """``dualrev`` with the engine fixed: it stands where ``jax`` stands in code that differentiates."""

    def __init__(self, engine: str):
        self.engine = engine
        for name in TRANSFORMATIONS:
            setattr(self, name, functools.partial(getattr(dualrev, name), engine=engine))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def __repr__(self) -> str:
        return f"dualrev, {self.engine}"


FACES = [Face(engine) for engine in ENGINES]


def assert_same(got: Any, expected: Any, rtol: float | None = None, weak_types: bool = False) -> None:
    """Equal structures, shapes, dtypes and (with ``weak_types``) weak types; values equal to rounding."""
    got_tree: Any
    tree: Any
    got_leaves, got_tree = tree_flatten(got)
    leaves, tree = tree_flatten(expected)
    assert got_tree == tree, f"structure: expected {tree}, got {got_tree}"
    for i, (x, y) in enumerate(zip(got_leaves, leaves, strict=True)):
        if isinstance(y, (str, type(None))):
            assert x == y
            continue
        x_aval, y_aval = jax.typeof(x), jax.typeof(y)
        assert x_aval.shape == y_aval.shape, f"leaf {i}: expected {y_aval}, got {x_aval}"
        assert x_aval.dtype == y_aval.dtype, f"leaf {i}: expected {y_aval}, got {x_aval}"
        if weak_types:
            assert x_aval.weak_type == y_aval.weak_type, f"leaf {i}: expected {y_aval}, got {x_aval}"
        if y_aval.dtype == jax.dtypes.float0:
            continue
        assert_close(x, y, rtol, f"leaf {i}")


def assert_close(x: Any, y: Any, rtol: float | None = None, what: str = "", floor: float = 1e-300) -> None:
    """Values equal to rounding, relative to the largest entry; below ``floor`` nothing is told apart from rounding."""
    tolerance = TOLERANCES.get(str(jax.typeof(y).dtype), 0.0) if rtol is None else rtol
    x, y = np.asarray(x), np.asarray(y)
    if y.dtype.kind not in "fciub":  # bfloat16 and the like
        x, y = x.astype(np.float64), y.astype(np.float64)
    finite = np.abs(y[np.isfinite(y)]) if y.size else y
    scale = float(finite.max()) if finite.size else 0.0
    np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * max(scale, floor), err_msg=what)
