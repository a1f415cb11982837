"""An operation on tensors: a jax function, with an evaluation and pulls that are derived from the table of rules.

Each is compiled once for each set of inputs that require grad; jax keeps one program for each set of shapes and dtypes.  The
evaluation gives a :class:`Record`, which tells what the pull reads and how it is to be called, and arrays: the outputs, and what
else the pull reads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dualrev import errors
from dualrev._jax import is_differentiable, jaxpr_as_fun, typeof
from dualrev.engines.staging import Linearization, Wrapper
from dualrev.settings import DEFAULT, under

#: How many operations with static arguments are kept, for each kind.
KEPT = 1024


class Evaluated(tuple[Any, ...]):
    """What a compiled evaluation returns: ``(record, arrays)``, the outputs and the residuals that are neither inputs nor outputs."""

    __slots__ = ()


# The record stands in the structure of what a compiled function returns: finding it costs nothing, whatever the shapes are.
jax.tree_util.register_pytree_node(Evaluated, lambda pair: (pair[1], pair[0]), lambda record, arrays: Evaluated((record, arrays)))


class Record:
    """The linearization of an operation for some shapes, dtypes and active inputs, with its compiled pulls."""

    __slots__ = (
        "_pull_ops",
        "_pulls",
        "active",
        "has_new",
        "light",
        "linearization",
        "moves",
        "n_in",
        "n_out",
        "op",
        "out_avals",
        "positions",
        "single",
        "sources",
    )

    def __init__(self, op: Op, avals: Sequence[Any], active: tuple[bool, ...]):
        self.op = op
        self.active = active
        self.n_in = len(avals)
        with errors.calling("backward"):
            linearization = under(DEFAULT, Linearization, op.flat, avals, active, False, Wrapper(op.name, None))
        self.linearization = linearization
        self.out_avals = linearization.out_avals
        #: Floating outputs are part of the graph, though the operation be flat: their gradient is zero, as PyTorch has it.
        self.moves = tuple([j for j, aval in enumerate(self.out_avals) if is_differentiable(aval)])
        self.n_out = len(self.out_avals)
        #: What the pull reads: 0, i is input i; 1, j is output j; 2, k is a residual of its own.
        kinds = {"in": 0, "out": 1, "new": 2}
        self.sources = tuple([(kinds[kind], where) for kind, where in linearization.residual_sources])
        #: Whether the pull computes again what is neither an input nor saved.
        self.light = op.light and any(kind != 0 for kind, _ in self.sources)
        if self.light:
            self.sources = tuple([(0, i) for i in self._read(avals)])
        #: Whether a residual depends smoothly on the inputs and is neither one nor an output: derivatives of the pull need the inputs.
        self.has_new = any(kind == 2 and is_differentiable(linearization.new_avals[k]) for kind, k in self.sources)
        self.positions = tuple([i for i, moves in enumerate(active) if moves])
        #: ``pull_of((True,))``, once it was asked for.
        self.single: tuple[Callable[..., Any], tuple[int, ...]] | None = None
        self._pulls: dict[tuple[bool, ...], tuple[Callable[..., Any], tuple[int, ...]]] = {}
        self._pull_ops: dict[tuple[bool, ...], Op] = {}

    def evaluate(self, args: Sequence[Any]) -> Evaluated:
        outs, new = self.linearization.evaluate(args)
        return Evaluated((self, (*outs, *(() if self.light else new))))

    def _residuals(self, inputs: Sequence[Any]) -> list[Any]:
        """What the pull reads, computed from the inputs."""
        outs, new = self.linearization.evaluate(inputs)
        pools = {"in": inputs, "out": outs, "new": new}
        return [pools[kind][where] for kind, where in self.linearization.residual_sources]

    def _read(self, avals: Sequence[Any]) -> list[int]:
        """The inputs that residuals depend on."""
        jaxpr = jax.make_jaxpr(lambda *inputs: self._residuals(inputs))(*avals).jaxpr
        needed = {id(x) for x in jaxpr.outvars}
        for eqn in reversed(jaxpr.eqns):
            if any(id(x) in needed for x in eqn.outvars):
                needed.update(id(x) for x in eqn.invars)
        return [i for i, x in enumerate(jaxpr.invars) if id(x) in needed]

    def _again(self, jaxpr: Any) -> Callable[..., Any]:
        """The pull as a function of inputs and the cotangents, which computes residuals again."""
        pull = jaxpr_as_fun(jaxpr)
        avals = self.linearization.in_avals
        given = [i for _, i in self.sources] if self.light else range(self.n_in)

        def again(*args: Any) -> Any:
            known = dict(zip(given, args, strict=False))
            inputs = [known[i] if i in known else jnp.zeros(aval.shape, aval.dtype) for i, aval in enumerate(avals)]
            return pull(*self._residuals(inputs), *args[len(given):])

        return again

    def _whole(self, pull: Callable[..., Any], mask: tuple[bool, ...]) -> Callable[..., Any]:
        """The pull with zeros for the inputs that have no influence."""
        which = self.linearization.results_of("pull", mask)
        if all(which):
            return pull
        avals = [self.linearization.in_avals[i] for i in self.positions]

        def whole(*args: Any) -> list[Any]:
            found = iter(pull(*args))
            return [next(found) if nonzero else jnp.zeros(aval.shape, aval.dtype) for nonzero, aval in zip(which, avals, strict=True)]

        return whole

    def pull_of(self, mask: tuple[bool, ...]) -> tuple[Callable[..., Any], tuple[int, ...]]:
        """The compiled pull for these nonzero cotangents, ``pull(*saved, *cotangents)``, and the inputs that its results are for."""
        found = self._pulls.get(mask)
        if found is None:
            with errors.calling("backward"):
                program = under(DEFAULT, self.linearization.program_of, "pull", mask)
            pull = self._again(program.jaxpr) if self.light else jaxpr_as_fun(program.jaxpr)
            found = self._pulls[mask] = jax.jit(self._whole(pull, mask), inline=True), self.positions
            if len(mask) == 1:
                self.single = found
        return found

    def pull_op(self, mask: tuple[bool, ...]) -> Op:
        """The pull as an operation, to be differentiated: of what is saved and the cotangents.

        What is saved and is neither an input nor an output is computed again, from the inputs, for it depends on them.
        """
        found = self._pull_ops.get(mask)
        if found is None:
            jaxpr = under(DEFAULT, self.linearization.program_of, "pull", mask).jaxpr
            pull = self._again(jaxpr) if self.has_new or self.light else jaxpr_as_fun(jaxpr)
            found = self._pull_ops[mask] = Op(f"{self.op.name.partition(':')[0]}Backward", self._whole(pull, mask), many=True,
                                              promotes=False)
        return found


def promoting(fun: Callable[..., Any]) -> Callable[..., Any]:
    """The function with jax's own promotion of shapes and dtypes, which is PyTorch's but for what operations convert themselves.

    Tensors broadcast by definition, and optimizers mix dtypes.  A user who makes jax strict asks that of functions of arrays, not of
    tensors.
    """
    @functools.wraps(fun)
    def promotes(*args: Any) -> Any:
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return fun(*args)

    return promotes


class Op:
    """An operation: its name in PyTorch, and a jax function of arrays.

    ``promotes``: operands broadcast and are promoted as tensors are; not so in a user's own function, nor in what is derived.
    ``many``: the function returns a tuple or list, and the operation a tuple of tensors.
    ``light``: its inputs are all that is saved; what else the pull reads is cheap to compute again.
    """

    __slots__ = ("_graded", "_pushes", "flat", "fun", "light", "many", "name", "node_type", "plain")

    def __init__(self, name: str, fun: Callable[..., Any], many: bool = False, light: bool = False, promotes: bool = True):
        fun = promoting(fun) if promotes else fun
        self.light = light
        #: The class of its nodes, once there is one.
        self.node_type: type[Any] | None = None
        self.name = name
        self.fun = fun
        self.many = many
        self.flat = (lambda *args: list(fun(*args))) if many else (lambda *args: [fun(*args)])
        self.plain = jax.jit(fun, inline=True)
        self._graded: dict[int, Callable[..., Any]] = {}
        self._pushes: dict[Any, Op] = {}

    def __repr__(self) -> str:
        return f"Op({self.name})"

    def graded(self, mask: int) -> Callable[..., Any]:
        """The compiled evaluation that gives ``(record, arrays)``; bit ``i`` of the mask tells whether input ``i`` is active."""
        found = self._graded.get(mask)
        if found is None:
            def evaluate(*args: Any) -> Evaluated:
                active = tuple([bool(mask >> i & 1) for i in range(len(args))])
                return Record(self, [typeof(x) for x in args], active).evaluate(args)

            evaluate.__name__ = self.name.partition(":")[0]
            found = self._graded[mask] = jax.jit(evaluate, inline=True)
        return found


def family(name: str, fun: Callable[..., Any], many: bool = False, light: bool = False) -> Callable[..., Op]:
    """Operations that differ in static arguments: ``family(...)(*statics)`` is the one of ``fun(*arrays, *statics)``."""

    @functools.lru_cache(maxsize=KEPT, typed=True)
    def make(*statics: Any) -> Op:
        return Op(name, lambda *arrays: fun(*arrays, *statics), many, light)

    return make
