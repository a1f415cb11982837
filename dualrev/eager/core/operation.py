"""An operation on tensors: a jax function, with an evaluation and pulls that are derived from the table of rules.

It is compiled once for each set of active inputs; jax keeps one program for each set of shapes and dtypes.  The compiled evaluation
returns a :class:`Record`, which lists the residuals and holds the pulls, and arrays: the outputs, and residuals that are neither
inputs nor outputs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp

from dualrev import errors
from dualrev._jax.avals import ShapedArray, is_differentiable, tangent_aval, typeof
from dualrev._jax.jaxprs import ClosedJaxpr, jaxpr_as_fun
from dualrev.calls.derived_programs import Wrapper
from dualrev.calls.linearization import Linearization
from dualrev.eager.core.caches import BOUND, caches
from dualrev.eager.core.dtype_refusals import refusing
from dualrev.eager.core.evaluation import Evaluation, aval_of, compiled, fixed, key_of, known_values, promoting, traced, wide
from dualrev.eager.core.guards import GUARDS, Guards, guarded
from dualrev.eager.core.modes import mode
from dualrev.options.settings import DEFAULT, under

R = TypeVar("R")
#: A function of arrays, and of static arguments, that returns an array, or several where the operation has ``many``.
ArrayFunction: TypeAlias = Callable[..., Any]
#: A pull: from saved values and cotangents to the cotangents of active inputs.
Pull: TypeAlias = Callable[..., Sequence[jax.Array]]


class Evaluated(tuple[Any, ...]):
    """The result of a compiled evaluation, ``(record, arrays)``: the outputs, then residuals that are neither inputs nor outputs."""

    __slots__ = ()


# The record is static data of the result's pytree structure: jax keeps it with the program for the shapes at hand.
jax.tree_util.register_pytree_node(Evaluated, lambda pair: (pair[1], pair[0]), lambda record, arrays: Evaluated((record, arrays)))


class Record:
    """The linearization of an operation for some shapes, dtypes and active inputs, with its compiled pulls."""

    __slots__ = (
        "_pull_ops",
        "_pulls",
        "_read_by_residuals",
        "active",
        "differentiable",
        "guarded",
        "has_new",
        "is_small",
        "light",
        "linearization",
        "n_in",
        "n_out",
        "narrow",
        "on_host",
        "op",
        "out_avals",
        "positions",
        "single",
        "sources",
    )

    def __init__(self, op: Op, avals: Sequence[ShapedArray], active: tuple[bool, ...], on_host: bool = True):
        self.op = op
        self.on_host = on_host
        #: Whether it is of values that jax traces without 64 bits.
        self.narrow = mode.narrow
        #: Whether numpy evaluates it.
        self.is_small = False
        self.active = active
        self.n_in = len(avals)
        with errors.calling("backward"), wide():
            linearization = under(DEFAULT, Linearization, op.flat, avals, active, False, Wrapper(op.name, None))
        self.linearization = linearization
        self.out_avals = linearization.out_avals
        #: The floating outputs: part of the graph also where the derivative is zero, as in PyTorch.
        self.differentiable = tuple([j for j, aval in enumerate(self.out_avals) if is_differentiable(aval)])
        self.n_out = len(self.out_avals)
        #: The residuals: (0, i) is input i; (1, j) is output j; (2, k) is an array of its own.
        kinds = {"in": 0, "out": 1, "new": 2}
        self.sources = tuple([(kinds[kind], where) for kind, where in linearization.residual_sources])
        #: Whether the pull recomputes residuals from the inputs.
        self.light = op.light and any(kind != 0 for kind, _ in self.sources)
        if self.light:
            self.sources = tuple([(0, i) for i in self._read(avals)])
        #: Whether a floating residual is neither an input nor an output: derivatives of the pull then need the inputs.
        self.has_new = any(kind == 2 and is_differentiable(linearization.new_avals[k]) for kind, k in self.sources)
        self.positions = tuple([i for i, a in enumerate(active) if a])
        #: The inputs, by number, and the outputs, by ``~number``, that PyTorch saves: it refuses a backward after they were changed
        #: in place.  The arrays that are saved here never change.
        self.guarded = guarded(op.guards, self.positions, self.sources, linearization)
        #: ``pull_of((True,))``, once it was compiled.
        self.single: tuple[Pull, tuple[int, ...]] | None = None
        self._pulls: dict[tuple[bool, ...], tuple[Pull, tuple[int, ...]]] = {}
        self._read_by_residuals: list[int] | None = None
        self._pull_ops: dict[tuple[bool, ...], Op] = {}

    def _dtypes(self) -> Any:
        """A block in which jax has the dtypes that it had when this was made."""
        return contextlib.nullcontext() if self.narrow else jax.enable_x64(True)

    def evaluate(self, args: Sequence[jax.Array]) -> Evaluated:
        outs, new = self.linearization.evaluate(args)
        return Evaluated((self, (*outs, *(() if self.light else new))))

    def run(self) -> Callable[..., Sequence[Any]]:
        """The evaluation of outputs, and of residuals that are neither inputs nor outputs."""
        host, run = fixed(lambda *args: self.evaluate(args)[1], self.linearization.in_avals, self.on_host)
        self.is_small = host
        return run

    def _residuals(self, inputs: Sequence[jax.Array]) -> list[jax.Array]:
        """The residuals, computed from the inputs."""
        outs, new = self.linearization.evaluate(inputs)
        pools = {"in": inputs, "out": outs, "new": new}
        return [pools[kind][where] for kind, where in self.linearization.residual_sources]

    def _read(self, avals: Sequence[ShapedArray]) -> list[int]:
        """The inputs that the residuals depend on."""
        jaxpr = traced(lambda *inputs: self._residuals(inputs), avals).jaxpr
        needed = {id(x) for x in jaxpr.outvars}
        for eqn in reversed(jaxpr.eqns):
            if any(id(x) in needed for x in eqn.outvars):
                needed.update(id(x) for x in eqn.invars)
        return [i for i, x in enumerate(jaxpr.invars) if id(x) in needed]

    @property
    def read(self) -> list[int]:
        """The inputs that the residuals depend on: derivatives of the pull lead to these only."""
        if self.light:
            return [i for _, i in self.sources]
        if self._read_by_residuals is None:
            with self._dtypes():
                self._read_by_residuals = self._read(self.linearization.in_avals)
        return self._read_by_residuals

    def _again(self, jaxpr: ClosedJaxpr) -> Pull:
        """The pull as a function of inputs and cotangents, which recomputes the residuals."""
        pull = jaxpr_as_fun(jaxpr)
        avals = self.linearization.in_avals
        given = self.read

        def again(*args: jax.Array) -> list[jax.Array]:
            known = dict(zip(given, args, strict=False))
            inputs = [known[i] if i in known else jnp.zeros(aval.shape, aval.dtype) for i, aval in enumerate(avals)]
            return pull(*self._residuals(inputs), *args[len(given):])

        return again

    def _whole(self, pull: Pull, mask: tuple[bool, ...]) -> Pull:
        """The pull, with zeros for the inputs that the outputs do not depend on."""
        which = self.linearization.results_of("pull", mask)
        if all(which):
            return pull
        avals = [self.linearization.in_avals[i] for i in self.positions]

        def whole(*args: jax.Array) -> list[jax.Array]:
            found = iter(pull(*args))
            return [next(found) if nonzero else jnp.zeros(aval.shape, aval.dtype) for nonzero, aval in zip(which, avals, strict=True)]

        return whole

    def pull_of(self, mask: tuple[bool, ...]) -> tuple[Pull, tuple[int, ...]]:
        """The compiled pull for these nonzero cotangents, ``pull(*saved, *cotangents)``, and the inputs that its results belong to."""
        found = self._pulls.get(mask)
        if found is None:
            with errors.calling("backward"), self._dtypes():
                program = under(DEFAULT, self.linearization.program_of, "pull", mask)
            pull = self._again(program.jaxpr) if self.light else jaxpr_as_fun(program.jaxpr)
            _, run = fixed(self._whole(pull, mask), self._pull_avals(mask), self.on_host)
            found = self._pulls[mask] = run, self.positions
            if len(mask) == 1:
                self.single = found
        return found

    def _pull_avals(self, mask: tuple[bool, ...]) -> list[ShapedArray]:
        """The types of what a pull takes: saved values, and nonzero cotangents."""
        lin = self.linearization
        pools = (lin.in_avals, lin.out_avals, lin.new_avals)
        return [*[pools[kind][where] for kind, where in self.sources],
                *[tangent_aval(aval) for aval, m in zip(self.out_avals, mask, strict=True) if m]]

    def pull_op(self, mask: tuple[bool, ...]) -> Op:
        """The pull as an operation on saved values and cotangents, which can be differentiated.

        Residuals that are neither inputs nor outputs are recomputed from the inputs, for they depend on them.
        """
        found = self._pull_ops.get(mask)
        if found is None:
            with self._dtypes():
                jaxpr = under(DEFAULT, self.linearization.program_of, "pull", mask).jaxpr
            pull = self._again(jaxpr) if self.has_new or self.light else jaxpr_as_fun(jaxpr)
            found = self._pull_ops[mask] = Op(f"{self.op.name.partition(':')[0]}Backward", self._whole(pull, mask), many=True,
                                              promotes=False)
        return found


class Op:
    """An operation: its name in PyTorch, and a jax function of arrays.

    ``promotes``: operands broadcast and are promoted as tensors are; false for a user's own function, and for derived ones.
    ``many``: the function returns a tuple or list, and the operation a tuple of tensors.
    ``light``: only inputs are saved; other residuals are cheap, and the pull recomputes them.
    ``guards``: what PyTorch saves for backward, by default that of its name in
    :mod:`dualrev.eager.core.guards`; None where what is read here is guarded.
    """

    __slots__ = ("__weakref__", "_graded", "_pushes", "flat", "fun", "guards", "light", "many", "name", "node_type", "plain", "statics")

    def __init__(self, name: str, fun: ArrayFunction, many: bool = False, light: bool = False, promotes: bool = True,
                 guards: Guards | None = None):
        self.guards = GUARDS.get(name) if promotes and guards is None else guards
        fun = promoting(refusing(name, fun)) if promotes else fun
        self.light = light
        #: The class of its nodes, once there is one.
        self.node_type: type[Any] | None = None
        self.name = name
        #: The static arguments of a member of a family.
        self.statics: tuple[Hashable, ...] | None = None
        self.fun = fun
        self.many = many
        self.flat = (lambda *args: list(fun(*args))) if many else (lambda *args: [fun(*args)])
        self.plain = Evaluation(fun, many)
        self._graded: dict[int, Graded] = {}
        self._pushes: dict[tuple[bool, ...], Op] = {}
        caches.add(self)

    def cache_clear(self) -> None:
        """Forget the compiled programs of derivatives; ``plain`` is a cache of its own."""
        self._graded.clear()
        self._pushes.clear()

    def __repr__(self) -> str:
        return f"Op({self.name})"

    def graded(self, mask: int) -> Graded:
        """The compiled evaluation that returns ``(record, arrays)``; bit ``i`` of the mask is set where input ``i`` is active."""
        found = self._graded.get(mask)
        if found is None:
            def evaluate(*args: jax.Array) -> Evaluated:
                active = tuple([bool(mask >> i & 1) for i in range(len(args))])
                return Record(self, [typeof(x) for x in args], active).evaluate(args)

            evaluate.__name__ = self.name.partition(":")[0]
            found = self._graded[mask] = Graded(self, mask, compiled(evaluate))
        return found


class Graded:
    """The evaluation of an operation, with the record that its node keeps, for each set of shapes and dtypes.

    Bit ``i`` of the mask is set where input ``i`` is active; ``traced`` serves operands that are being traced.
    """

    __slots__ = ("kept", "mask", "op", "traced")

    def __init__(self, op: Op, mask: int, traced: Callable[..., Evaluated]):
        self.op = op
        self.mask = mask
        self.traced = traced
        self.kept: dict[Hashable, tuple[Record, Callable[..., Sequence[Any]]]] = {}

    def __call__(self, *args: Any) -> tuple[Record, Sequence[Any]]:
        key = key_of(args)
        if key is None:
            return self.traced(*args)
        record, run = self.kept.get(key) or self._make(key, args)
        return record, run(*args)

    def _make(self, key: tuple[Hashable, ...], args: Sequence[Any]) -> tuple[Record, Callable[..., Sequence[Any]]]:
        active = tuple([bool(self.mask >> i & 1) for i in range(len(args))])
        with known_values():
            record = Record(self.op, [aval_of(x) for x in args], active, "device" not in key)
        while len(self.kept) >= BOUND:
            self.kept.pop(next(iter(self.kept)), None)
        found = self.kept[key] = record, record.run()
        return found


def family(name: str, fun: ArrayFunction, many: bool = False, light: bool = False,
           guards: Guards | Callable[..., Guards | None] | None = None) -> Callable[..., Op]:
    """Operations that differ in static arguments: ``family(...)(*statics)`` is that of ``fun(*arrays, *statics)``.

    ``guards`` may be a function of the static arguments.
    """

    @caches.memoized
    def make(*statics: Hashable) -> Op:
        known = guards(*statics) if callable(guards) else guards
        op = Op(name, lambda *arrays: fun(*arrays, *statics), many, light, guards=known)
        op.statics = statics
        return op

    return make
