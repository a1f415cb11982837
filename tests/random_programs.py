"""Random programs, made of steps that many programs share.

A program is a list of steps; each takes arrays that earlier steps made and appends one more.  A :class:`Pool` holds the steps from
which programs are drawn, each of which was traced once.  In one of two programs, each step is a call of a jitted function.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import random_steps as steps
from random_steps import Array, Drawn, TableLine, one_of

from dualrev._jax.jaxprs import jaxpr_as_fun
from dualrev.problems.scenario import Scenario, alone

#: Shapes of arrays.  A pool has a scalar and a few of these, so that its operations are few.
SHAPES = [(2,), (3,), (2, 3), (3, 2), (1, 3), (2, 1, 3), (0, 2), (1,), (4,), (6,), (0,), (2, 1), (2, 2), (3, 3), (2, 3, 1), (2, 2, 3)]
SHAPES_PER_POOL = 4
#: The dtypes of the inputs of a pool's programs.
DTYPES = [("float64",), ("float64", "complex128"), ("float64",), ("float32",)]
#: Lines of the test table in one pool.
LINES_PER_POOL = 20
#: Kinds of steps, as often as they are drawn.
KINDS = ["table", "unary", "table", "binary", "table", "moving", "table", "reduction", "contraction", "conversion"]
#: How many steps of one kind, with parameters of their own, a pool has for operands of one type.
VARIANTS = 2
#: Of so many steps, a pool has one, so that the types of operations are few: what NumPy lacks is compiled for each.
KEPT = 3
#: Attempts to draw a step that fits.
ATTEMPTS = 20


class Operation:
    """A step for operands of given types, traced once."""

    def __init__(self, drawn: Drawn, avals: Sequence[Any]):
        self.name, self.case = drawn.name, drawn.case
        line = drawn.fun if isinstance(drawn.fun, TableLine) else None
        jaxpr, out = jax.make_jaxpr(drawn.fun, return_shape=True)(*avals)
        self.out = jax.ShapeDtypeStruct(out.shape, out.dtype)
        self.run = _first(jaxpr)
        #: The same as one call.
        self.call = jax.jit(self.run)
        self.in_jax = _first(jax.make_jaxpr(line.in_jax)(*avals)) if line is not None and line.case.oracle else self.run


def _first(jaxpr: Any) -> Callable[..., Array]:
    run = jaxpr_as_fun(jaxpr)
    return lambda *x: run(*x)[0]


class Program:
    """Operations and the positions of what each reads: of the inputs, and then of the results of earlier operations."""

    def __init__(self, label: str, inputs: list[np.ndarray], operations: list[tuple[Operation, tuple[int, ...]]], is_compiled: bool):
        self.label = label
        #: Whether each step is a call of a jitted function; otherwise its operations stand in the program one by one.
        self.is_compiled = is_compiled
        self.inputs = inputs
        self.operations = operations
        table = [op.case for op, _ in operations if op.case is not None]
        #: The highest order of derivative that makes sense, and the tolerance, of all lines of the table among the steps.
        self.order = min((case.order for case in table), default=2)
        self.rtol = max((case.rtol or 0.0 for case in table), default=0.0)
        #: Whether a sweep over a basis can go through it: the forward engine pulls by one.
        self.can_be_batched = all(case.vmap for case in table)
        self.out = operations[-1][0].out

    def __repr__(self) -> str:
        inputs = [f"{x.dtype}{list(x.shape)}" for x in self.inputs]
        how = " of calls" if self.is_compiled else ""
        return f"{self.label}{how}: {' > '.join(op.name for op, _ in self.operations)}; inputs {inputs}"

    def run(self, inputs: Sequence[Array], in_jax: bool = False) -> Array:
        env = list(inputs)
        for op, reads in self.operations:
            run = op.in_jax if in_jax else op.call if self.is_compiled else op.run
            env.append(run(*[env[i] for i in reads]))
        return env[-1]

    def scenario(self) -> Scenario:
        return Scenario(repr(self), self.run, alone(lambda: self.inputs), tags=("random",), inputs=sum(x.size for x in self.inputs),
                        outputs=self.out.size, oracle=functools.partial(self.run, in_jax=True), order=self.order, rtol=self.rtol,
                        engines=("forward", "reverse") if self.can_be_batched else ("reverse",))


class Pool:
    """Steps to make programs of: so many lines of the test table, and for operands of one type a few steps of each kind."""

    def __init__(self, seed: int):
        self.seed = seed
        # Pools of consecutive seeds go through the whole table, in an order that starts anew with each turn.
        n_parts = -(-len(steps.USABLE) // LINES_PER_POOL)
        turn, part = divmod(seed, n_parts)
        self.lines = [steps.USABLE[i] for i in np.random.default_rng((turn, 2)).permutation(len(steps.USABLE))[part::n_parts]]
        rng = np.random.default_rng((seed, 1))
        self.dtypes = DTYPES[seed % len(DTYPES)]
        self.shapes = [(), *[SHAPES[i] for i in rng.permutation(len(SHAPES))[:SHAPES_PER_POOL]]]
        self.operations: dict[tuple[Any, ...], Operation | None] = {}

    def program(self, number: int, longest: int = 6) -> Program:
        """The program of this number: the same one each time."""
        rng = np.random.default_rng((self.seed, 3, number))
        dtype = one_of(rng, self.dtypes)
        inputs = []
        for _ in range(int(rng.integers(1, 4))):
            shape = one_of(rng, self.shapes)
            x = rng.standard_normal(shape)
            inputs.append(np.asarray(x + 1j * rng.standard_normal(shape) if dtype == "complex128" else x).astype(dtype))
        avals: list[Any] = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs]
        operations: list[tuple[Operation, tuple[int, ...]]] = []

        def append(kind: str, reads: tuple[int, ...], variant: int) -> bool:
            found = self.operation(kind, [avals[i] for i in reads], variant)
            if found is not None:
                operations.append((found, reads))
                avals.append(found.out)
            return found is not None

        wanted = int(rng.integers(2, longest + 1))
        for _ in range(ATTEMPTS):
            if wanted <= 0:
                break
            kind, variant, last = one_of(rng, KINDS), int(rng.integers(VARIANTS)), len(avals) - 1
            if kind == "table" and avals[-1].dtype == np.float32:
                kind = "unary"
            if kind == "table":
                line = int(rng.integers(len(self.lines)))
                wanted -= append("measure", (last,), 0) and append(f"table {line}", (len(avals) - 1,), 0)
            else:
                other = int(rng.integers(len(avals)))
                pair = (last, other) if rng.integers(2) else (other, last)
                wanted -= append(kind, pair if kind in ("binary", "contraction") else (last,), variant)
        append("measure", (len(avals) - 1,), 0) if not operations else append("unary", (len(avals) - 1,), 0)
        return Program(f"pool {self.seed}, program {number}", inputs, operations, number % 2 == 0)

    def operation(self, kind: str, avals: Sequence[Any], variant: int) -> Operation | None:
        """The step of this kind and variant for operands of these types; None where there is none, or its result is too large."""
        key = (kind, variant, *[(a.shape, str(a.dtype)) for a in avals])
        if key not in self.operations:
            is_common = kind in ("measure", "conversion") or kind.startswith("table")
            if not is_common and zlib.crc32(repr((self.seed, key)).encode()) % KEPT:
                return None
            self.operations[key] = self._made(kind, avals, np.random.default_rng((self.seed, zlib.crc32(repr(key).encode()))))
        return self.operations[key]

    def _made(self, kind: str, avals: Sequence[Any], rng: np.random.Generator) -> Operation | None:
        if kind == "measure":
            return Operation(Drawn("measure", steps.measure), avals)
        if kind.startswith("table"):
            case = self.lines[int(kind.split()[1])]
            dtype = one_of(rng, [d for d in ("float64", "complex128") if d in case.dtypes])
            name = f"{case.primitive} {case.label}".strip()
            return Operation(Drawn(name, TableLine(case, dtype, rng), case), avals)
        drawn: Drawn | None = getattr(steps, kind)(rng, *avals)
        if drawn is None:
            return None
        out = jax.eval_shape(drawn.fun, *avals)
        return Operation(drawn, avals) if out.shape in self.shapes else None
