"""How results are compared with jax, the oracle of every test."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_flatten

import dualrev
from dualrev.problems.scenario import Scenario

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


# ----------------------------------------------------------------------------------------- the derivatives of a scenario


def directions(like: Any, seed: int) -> Any:
    """Random arrays of the shapes and dtypes of a pytree's."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: (rng.standard_normal(x.shape)
                                   + (1j * rng.standard_normal(x.shape) if x.dtype.kind == "c" else 0)).astype(x.dtype), like)


#: The forward engine pulls by a push for each input: it is asked for no more than so many.
MOST_PUSHES = 512


def derivatives(d: Any, f: Callable[[Any], Any], x: Any, t: Any, ct: Any, order: int,
                engine: str | None = None) -> dict[str, list[Any]]:
    """A push and a pull; of order 2 the push of a pull, and the pull of a push."""
    chosen = {} if engine is None else {"engine": engine}
    found = {"push": d.jvp(f, (x,), (t,), **chosen)[1]}
    if engine != "forward" or sum(leaf.size for leaf in jax.tree.leaves(x)) <= MOST_PUSHES:
        found["pull"] = d.vjp(f, x, **chosen)[1](ct)[0]
    if order == 2:
        reverse = {} if engine is None else {"engine": "reverse"}
        found["push of pull"] = d.jvp(lambda x: d.vjp(f, x)[1](ct)[0], (x,), (t,), **chosen)[1]
        found["pull of push"] = d.vjp(lambda x: d.jvp(f, (x,), (t,))[1], x, **reverse)[1](ct)[0]
    return {what: jax.tree.leaves(arrays) for what, arrays in found.items()}


def check(scenario: Scenario, seed: int, engines: tuple[str, ...] = ENGINES, compiled: bool = True) -> bool:
    """Compare the engines with jax; False if jax's own derivative is not finite, so that there is nothing to compare with.

    Second order is compared for the first of ``engines``.
    """
    inputs = scenario.draw()[0]
    engines = tuple(engine for engine in engines if engine in scenario.engines)
    out = jax.eval_shape(scenario.function, inputs)
    t, ct = directions(inputs, seed), directions(out, seed + 1)

    def everything(x: Any, t: Any, ct: Any) -> dict[str, dict[str, list[Any]]]:
        results = {"jax": derivatives(jax, scenario.function_in_jax, x, t, ct, scenario.order)}
        for i, engine in enumerate(engines):
            results[engine] = derivatives(dualrev, scenario.function, x, t, ct, scenario.order if i == 0 else 1, engine)
        return results

    results = (jax.jit(everything) if compiled else everything)(inputs, t, ct)
    if not all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(results["jax"])):
        return False
    # Entries that cancel are compared with the size of what cancelled: the largest derivative of the same order.
    dtypes = [x.dtype for x in jax.tree.leaves((out, inputs))]
    tolerance = 100 * max(scenario.rtol, *(TOLERANCES[str(dtype)] for dtype in dtypes))
    # Values are of order one, so that what cancels to zero is known to a few units of their rounding.
    floor = max(1e-6, 4 * max(float(jnp.finfo(dtype).eps) for dtype in dtypes) / tolerance)
    for engine in engines:
        for what, arrays in results[engine].items():
            for got, expected in zip(arrays, results["jax"][what], strict=True):
                assert got.dtype == expected.dtype
                assert got.shape == expected.shape
                assert_close(got, expected, tolerance, f"{engine}, {what}: {scenario}", floor=floor)
    return True


def same(a: Any, b: Any, rtol: float = 1e-6) -> None:
    """Two trees are of one structure, with leaves that agree."""
    trees: list[Any] = [jax.tree_util.tree_structure(x) for x in (a, b)]
    assert trees[0] == trees[1]
    jax.tree_util.tree_map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-12), a, b)
