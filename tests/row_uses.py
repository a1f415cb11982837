"""Uses of rows: the operands and parameters with which lines of the test table come to their primitives."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from cases import Case, Constant

import dualrev.calls.families  # noqa: F401  (fills the table)
from dualrev._jax.jaxprs import is_literal
from dualrev.table.rows import Row, pushed, row_of


class Use(NamedTuple):
    """One use of a row: the operands at which an operation is evaluated, and which of them depend on what is differentiated."""

    row: Row
    operands: list[Any]
    active: list[bool]
    params: dict[str, Any]

    def run(self, operands: Sequence[Any]) -> list[Any]:
        """The floating-point results."""
        return [out for out in self.row.bind(operands, self.params) if is_float(out)]

    def push(self, operands: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
        """The tangents of all results; zeros where there is none."""
        outs, moved = pushed(self.row, operands, tangents, self.params)
        return [np.zeros(out.shape, out.dtype) if t is None else t for out, t in zip(outs, moved, strict=True)]

    def random(self, which: Sequence[int], seed: int) -> list[Any]:
        """Random numbers in place of some operands, None for the others."""
        rng = np.random.default_rng([zlib.crc32(str(self.row.primitive).encode()), seed])
        return [normal(rng, x) if i in which else None for i, x in enumerate(self.operands)]

    @property
    def moving(self) -> list[int]:
        return [i for i, moves in enumerate(self.active) if moves]


def is_float(x: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(x), jnp.inexact))


def normal(rng: np.random.Generator, like: Any) -> Any:
    x = rng.standard_normal(like.shape)
    if jnp.issubdtype(like.dtype, jnp.complexfloating):
        x = x + 1j * rng.standard_normal(like.shape)
    return jnp.asarray(x.astype(like.dtype))


def combined(a: float, x: Any, b: float, y: Any) -> Any:
    """``a x + b y`` in numpy, which need not compile it."""
    return jnp.asarray((a * np.asarray(x) + b * np.asarray(y)).astype(x.dtype))


def filled(values: Sequence[Any], operands: Sequence[Any]) -> list[Any]:
    return [x if value is None else value for value, x in zip(values, operands, strict=True)]


class _Reached(Exception):  # noqa: N818  (a signal)
    """The primitive that was looked for, its operands, which of them are active, its parameters."""


CALLS = {"jit", "closed_call", "eval_jaxpr", "remat2", "custom_jvp_call", "custom_vjp_call", "custom_lin"}


def follow(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], active: Sequence[bool], name: str) -> tuple[list[Any], list[bool]]:
    """Run a jaxpr, operation by operation, until it comes to a primitive."""
    env: dict[Any, tuple[Any, bool]] = {v: (x, False) for v, x in zip(jaxpr.constvars, consts, strict=True)}
    env.update(zip(jaxpr.invars, zip(args, active, strict=True), strict=True))

    def read(atom: Any) -> tuple[Any, bool]:
        return (jnp.asarray(atom.val, atom.aval.dtype), False) if is_literal(atom) else env[atom]  # type: ignore[attr-defined]

    for eqn in jaxpr.eqns:
        pairs = [read(atom) for atom in eqn.invars]
        operands, flags = [x for x, _ in pairs], [flag and is_float(x) for x, flag in pairs]
        if str(eqn.primitive) == name:
            raise _Reached(eqn.primitive, operands, flags, dict(eqn.params))
        inner = next((eqn.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in eqn.params), None)
        if inner is not None and str(eqn.primitive) in CALLS:
            outs, out_flags = follow(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands, flags, name)
        else:
            given = eqn.primitive.get_bind_params(eqn.params)
            functions, params = given if isinstance(given, tuple) else ((), given)  # until 0.11 what is bound may be functions
            found = eqn.primitive.bind(*functions, *operands, **params)
            outs = list(found) if eqn.primitive.multiple_results else [found]
            out_flags = [any(flags)] * len(outs)
        env.update(zip(eqn.outvars, zip(outs, out_flags, strict=True), strict=True))
    pairs = [read(atom) for atom in jaxpr.outvars]
    return [x for x, _ in pairs], [flag for _, flag in pairs]


def use_of(case: Case, dtype: str) -> Use:
    """The first use of a case's primitive."""
    rng = np.random.default_rng(zlib.crc32(f"{case.primitive} {case.label} {dtype}".encode()))
    args = [jnp.asarray(maker(rng, jnp.dtype(dtype))) for maker in case.makers]
    active = [is_float(x) and not isinstance(maker, Constant) for x, maker in zip(args, case.makers, strict=True)]
    closed = jax.make_jaxpr(case.fun)(*args)
    try:
        follow(closed.jaxpr, closed.consts, args, active, case.primitive)
    except _Reached as found:
        primitive, operands, flags, params = found.args
        row = row_of(primitive, "read")
        return Use(row.choose(operands, flags, params), operands, flags, params)
    raise AssertionError(f"{case.primitive} is not reached")
