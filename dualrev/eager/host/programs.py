"""Programs that numpy evaluates: the equations of a traced program as statements of one Python function."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

import dualrev.eager.host.drawing
import dualrev.eager.host.entrywise
import dualrev.eager.host.factoring
import dualrev.eager.host.moving
import dualrev.eager.host.reducing  # noqa: F401  (these five register primitives)
from dualrev._jax.calls import scan_layout
from dualrev._jax.jaxprs import Atom, ClosedJaxpr, JaxprEqn, is_literal
from dualrev._jax.traces import Tracer
from dualrev.eager.host.registry import COSTS, MAKERS, HostFunction
from dualrev.eager.host.statements import Statement, kind_of, lines
from dualrev.eager.host.windows import work_of

#: The longest that numpy may take for a program, in estimated nanoseconds; the others are compiled.  It depends on the program alone,
#: so that a result does not depend on how often it was computed.
LONGEST = 400_000.0
#: Nanoseconds of a product of matrices for each multiplication, or for each entry where it has few for each; and of any equation.
_MULTIPLICATION, _ENTRY, _EQUATION = 0.003, 0.4, 700.0
#: The parameters under which primitives hold the program that they call.
_CALLED = {"jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr",
           "closed_call": "call_jaxpr", "core_call": "call_jaxpr", "remat2": "jaxpr", "checkpoint": "jaxpr"}


class TracedError(Exception):
    """An operand is being traced: it has no value that numpy could read."""


def _value(x: Any) -> Any:
    """An operand as numpy reads it."""
    if isinstance(x, Tracer):
        raise TracedError
    return np.asarray(x)


def _reshaped(x: Any, shape: tuple[int, ...]) -> Any:
    return x.reshape(shape)


class _NotOfferedError(Exception):
    """A primitive that numpy has no counterpart of, or a program that takes too long."""


def _for_this_platform(eqn: JaxprEqn) -> Any:
    """The branch for the CPU, where numpy computes."""
    pairs = list(zip(eqn.params["branches"], eqn.params["branches_platforms"], strict=True))
    found = next((branch for branch, names in pairs if names is not None and "cpu" in names), None)
    found = next((branch for branch, names in pairs if names is None), None) if found is None else found
    if found is None:
        raise _NotOfferedError("platform")
    return found


class _Broadcast:
    """An array that is to be broadcast to a shape: its name before, and after where that was needed."""

    __slots__ = ("shape", "small", "whole")

    def __init__(self, small: str, shape: tuple[int, ...]):
        self.small, self.shape = small, shape
        self.whole: str | None = None


_Name: TypeAlias = str | _Broadcast
#: Primitives whose functions broadcast their operands, as long as one of them has the shape of the result.
_BROADCASTING = frozenset((
    "add", "sub", "mul", "div", "max", "min", "pow", "rem", "atan2", "add_any", "and", "or", "xor", "eq", "ne", "lt", "le", "gt", "ge",
    "select_n"))


def _needed(body: Any) -> list[JaxprEqn]:
    """The equations that the results depend on."""
    needed = {id(x) for x in body.outvars}
    found = []
    for eqn in reversed(body.eqns):
        if eqn.effects or any(id(x) in needed for x in eqn.outvars):
            needed.update([id(x) for x in eqn.invars])
            found.append(eqn)
    return found[::-1]


class _Writer:
    """The statements of a program, the functions that they call, and about how long they take."""

    def __init__(self) -> None:
        self.statements: list[Statement] = []
        self.names: dict[str, Any] = {"_asarray": np.asarray, "_ndarray": np.ndarray, "_value": _value, "_reshape": _reshaped,
                                      "_broadcast_to": np.broadcast_to}
        self.cost = 0.0
        self._count = 0

    def fresh(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def function(self, args: Sequence[str], reads: Sequence[str], results: Sequence[str], result: str) -> HostFunction:
        """The statements as a Python function that returns an expression of the results."""
        text = "\n    ".join([f"def program({', '.join(args)}):", *reads, *lines(self.statements, results), f"return {result}"])
        exec(compile(text, "<program on the host>", "exec"), self.names)
        return self.names["program"]  # type: ignore[no-any-return]

    def constant(self, value: Any) -> str:
        name = f"c{len(self.names)}"
        self.names[name] = value
        return name

    def program(self, body: Any, consts: Sequence[Any], args: Sequence[_Name]) -> list[_Name]:
        """Write the statements of a program on named operands, and return the names of its results."""
        env: dict[Any, _Name] = dict(zip(body.invars, args, strict=True))
        for var, value in zip(body.constvars, consts, strict=True):
            env[var] = self.constant(np.asarray(value))
        for eqn in _needed(body):
            names = [self._operand(atom, env) for atom in eqn.invars]
            inner = _CALLED.get(eqn.primitive.name)
            if eqn.primitive.name == "platform_index":
                env[eqn.outvars[0]] = "None"  # who reads it, chooses a branch by the names of platforms
            elif eqn.primitive.name == "custom_linear_solve":
                env.update(zip(eqn.outvars, self._solution(eqn, names), strict=True))
            elif inner is not None or eqn.params.get("branches_platforms"):
                called = _for_this_platform(eqn) if inner is None else eqn.params[inner]
                given = names[1:] if inner is None else names
                results = self.program(getattr(called, "jaxpr", called), getattr(called, "consts", ()), given)
                env.update(zip(eqn.outvars, results, strict=True))
            elif eqn.primitive.name in _CONTROL:
                self._control(eqn, self.full(names), env)
            elif eqn.primitive.name == "broadcast_in_dim" and len(names) == 1:
                env[eqn.outvars[0]] = self._broadcast(eqn, *self.full(names))
            else:
                self._equation(eqn, names, env)
        return [self._operand(atom, env) for atom in body.outvars]

    def full(self, names: Sequence[_Name]) -> list[str]:
        """The names of arrays, whole where they are broadcast."""
        return [self._whole(x) if isinstance(x, _Broadcast) else x for x in names]

    def _whole(self, x: _Broadcast) -> str:
        if x.whole is None:
            x.whole = self.fresh()
            self.statements.append(Statement([x.whole], "_broadcast_to", [x.small, repr(x.shape)]))
        return x.whole

    def _broadcast(self, eqn: JaxprEqn, name: str) -> _Name:
        """A name with dimensions of size 1; it is broadcast where something else than a ufunc reads it."""
        shape, dims = tuple(eqn.params["shape"]), eqn.params["broadcast_dimensions"]
        given = eqn.invars[0].aval.shape  # type: ignore[attr-defined]
        self._spend("broadcast_in_dim", 0.0)
        middle = [1] * len(shape)
        for d, n in zip(dims, given, strict=True):
            middle[d] = n
        small = name
        if given and tuple(middle) != given:
            small = self.fresh()
            self.statements.append(Statement([small], "_reshape", [name, repr(tuple(middle))]))
        return small if tuple(middle) == shape and (given or not shape) else _Broadcast(small, shape)

    def _solution(self, eqn: JaxprEqn, names: Sequence[_Name]) -> list[_Name]:
        """Write the program that solves a linear equation; the others that come with it are for derivatives."""
        lengths = eqn.params["const_lengths"]
        first, n = lengths.matvec + lengths.vecmat, lengths.solve
        solve = eqn.params["jaxprs"].solve
        return self.program(solve.jaxpr, solve.consts, [*names[first:first + n], *names[sum(lengths):]])

    def _control(self, eqn: JaxprEqn, operands: Sequence[str], env: dict[Any, _Name]) -> None:
        """Write a call of a loop of known length, or of a choice among branches."""
        if eqn.effects:
            raise _NotOfferedError(eqn.primitive.name)
        called, cost = _CONTROL[eqn.primitive.name](eqn)
        self._spend(eqn.primitive.name, cost)
        self._call(eqn, called, operands, env)

    def _spend(self, name: str, cost: float) -> None:
        self.cost += _EQUATION + cost
        if self.cost > LONGEST:
            raise _NotOfferedError(name)

    def _call(self, eqn: JaxprEqn, fun: HostFunction, operands: Sequence[str], env: dict[Any, _Name]) -> None:
        results = [self.fresh() for _ in eqn.outvars]
        env.update(zip(eqn.outvars, results, strict=True))
        is_tuple = eqn.primitive.multiple_results
        kind = None if is_tuple else kind_of(fun, eqn.outvars[0].aval)
        self.statements.append(Statement(results, self.constant(fun), operands, is_tuple, kind))

    def _operand(self, atom: Atom, env: dict[Any, _Name]) -> _Name:
        return self.constant(np.asarray(atom.val, atom.aval.dtype)) if is_literal(atom) else env[atom]  # type: ignore[attr-defined]

    def _equation(self, eqn: JaxprEqn, operands: Sequence[_Name], env: dict[Any, _Name]) -> None:
        name = eqn.primitive.name
        maker = MAKERS.get(name)
        if maker is None or eqn.effects:
            raise _NotOfferedError(name)
        ins: list[Any] = [x.aval for x in eqn.invars]
        outs: list[Any] = [x.aval for x in eqn.outvars]
        fun = maker(eqn.params, ins, outs)
        if fun is None:
            raise _NotOfferedError(name)
        self._spend(name, _time(eqn, name, ins, outs))
        if name in _BROADCASTING and any(type(x) is str and a.shape == outs[0].shape for x, a in zip(operands, ins, strict=True)):
            operands = [x.small if isinstance(x, _Broadcast) else x for x in operands]
        self._call(eqn, fun, self.full(operands), env)


def _written(jaxpr: Any) -> tuple[HostFunction, float]:
    """A function that returns the results of a program in a list, and about how many nanoseconds it takes."""
    writer = _Writer()
    args = [f"a{i}" for i in range(len(jaxpr.in_avals))]
    results = writer.full(writer.program(jaxpr.jaxpr, jaxpr.consts, args))
    return writer.function(args, [], results, f"[{', '.join(results)}]"), writer.cost


def _loop(eqn: JaxprEqn) -> tuple[HostFunction, float]:
    """A scan: its body for each step, in Python's own loop."""
    params = eqn.params
    length, jaxpr = params["length"], params["jaxpr"]
    if not isinstance(length, int):
        raise _NotOfferedError("scan")
    body, cost = _written(jaxpr)
    first, n = scan_layout(params)
    stacks = [(x.aval.shape, np.dtype(x.aval.dtype)) for x in eqn.outvars[n:]]  # type: ignore[attr-defined]
    order = range(length - 1, -1, -1) if params["reverse"] else range(length)

    def scanned(*args: Any) -> list[Any]:
        consts, carry, xs = args[:first], args[first: first + n], args[first + n:]
        found = [np.empty(shape, dtype) for shape, dtype in stacks]
        for i in order:
            results = body(*consts, *carry, *[x[i] for x in xs])
            carry = results[:n]
            for stack, y in zip(found, results[n:], strict=True):
                stack[i] = y
        return [*carry, *found]

    return scanned, length * (cost + _EQUATION * (1 + len(stacks)))


def _choice(eqn: JaxprEqn) -> tuple[HostFunction, float]:
    """A branch, by its number."""
    branches, costs = zip(*[_written(branch) for branch in eqn.params["branches"]], strict=True)
    last = len(branches) - 1
    return lambda i, *args: branches[min(max(int(i), 0), last)](*args), max(costs)


#: Primitives that run programs of their own a known number of times.
_CONTROL: dict[str, Callable[[JaxprEqn], tuple[HostFunction, float]]] = {"scan": _loop, "cond": _choice}


def _time(eqn: JaxprEqn, name: str, ins: Sequence[Any], outs: Sequence[Any]) -> float:
    """About how many nanoseconds numpy takes for the entries of an equation."""
    n_out = sum(math.prod(x.shape) for x in outs)
    if name == "dot_general":
        (left, _), _ = eqn.params["dimension_numbers"]
        # A few rows by the large kernels of the last layers of a network: moving the entries takes longer than multiplying.
        entries = n_out + sum(math.prod(x.shape) for x in ins)
        return max(_MULTIPLICATION * n_out * math.prod([ins[0].shape[d] for d in left]), _ENTRY * entries)
    if name.startswith(("conv_", "reduce_window")):
        return work_of(name, eqn.params, ins, outs)
    n_in = sum(math.prod(x.shape) for x in ins) if name.startswith(("reduce", "arg")) else 0
    if name.startswith("scatter"):
        return 0.1 * n_out + COSTS[name] * math.prod(ins[2].shape)
    return COSTS[name] * max(n_out, n_in)


def host_program(jaxpr: ClosedJaxpr, single: bool = False) -> Callable[..., Any] | None:
    """A function that evaluates a traced program with numpy; None where it has no counterpart of an equation, or takes too long.

    It returns a list of the results, or the ``single`` one, and raises :class:`TracedError` where an operand has no value.  Warnings
    of divisions by zero and of overflows are silenced: the results are those of IEEE arithmetic, as the compiler's are.
    """
    writer = _Writer()
    args = [f"a{i}" for i in range(len(jaxpr.in_avals))]
    try:
        results = writer.full(writer.program(jaxpr.jaxpr, jaxpr.consts, args))
    except _NotOfferedError:
        return None
    reads = [f"if type({a}) is not _ndarray: {a} = _value({a})" for a in args]
    found = [f"_asarray({name})" for name in results]
    result = found[0] if single else f"[{', '.join(found)}]"
    return np.errstate(all="ignore")(writer.function(args, reads, results, result))
