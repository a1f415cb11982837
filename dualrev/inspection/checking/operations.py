"""The operations of a program on their values, one by one, with the user's lines: calls are entered, and loops step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import jax
import numpy as np

from dualrev import errors
from dualrev._jax.avals import is_differentiable, typeof
from dualrev._jax.calls import cond_p, scan_layout, scan_p, while_p
from dualrev._jax.custom_rules import custom_jvp_call_p, custom_vjp_call_p
from dualrev._jax.jaxprs import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, is_literal, jaxpr_as_fun, open_and_closed
from dualrev._jax.libraries import is_of_jax, owner_of
from dualrev._jax.source_lines import defined_at, line_of
from dualrev.inspection.checking.limits import limits
from dualrev.table.rows import rows

#: The primitives of functions that have a rule of the user's.
RULED = (custom_jvp_call_p, custom_vjp_call_p)


#: Tells an operation of a run of a program from all others.
Key: TypeAlias = tuple[int, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation on its values; ``place`` says in which call, branch and step it stands."""

    eqn: JaxprEqn
    operands: list[jax.Array]
    place: tuple[str, ...]

    @property
    def line(self) -> str:
        return line_of(self.eqn.source_info)

    @property
    def name(self) -> str:
        return name_of(self.eqn)

    @property
    def key(self) -> Key:
        """The same for the same operation in another run of the program."""
        return id(self.eqn), self.place

    @property
    def where(self) -> str:
        """``'sin' at file:line (function), in step 3 of a scan``."""
        steps = ", in " + ", ".join(self.place) if self.place else ""
        return f"{self.name!r}{' at ' + self.line if self.line else ''}{steps}"

    @property
    def is_ruled(self) -> bool:
        """Whether it is a call of a function that has a rule of the user's."""
        return self.eqn.primitive in RULED

    @property
    def is_foreign(self) -> bool:
        """Whether its primitive is another library's, or has a row of the user's."""
        row, module = rows.get(self.eqn.primitive), owner_of(self.eqn.primitive)
        if row is not None and row.is_users_own:
            return True
        return module is not None and not is_of_jax(module) and module.split(".")[0] != "dualrev"

    def run(self, *operands: jax.Array) -> list[jax.Array]:
        return bind(self.eqn, operands)

    def moving(self) -> tuple[Callable[..., list[jax.Array]], list[jax.Array]]:
        """The operation as a function of its differentiable operands, which returns its differentiable results; and those operands."""
        which = [i for i, x in enumerate(self.operands) if is_differentiable(typeof(x))]
        return of_some(self.run, self.operands, which), [self.operands[i] for i in which]


def of_some(run: Callable[..., Sequence[jax.Array]], operands: Sequence[jax.Array],
            which: Sequence[int]) -> Callable[..., list[jax.Array]]:
    """A function of some operands, which returns the differentiable results."""
    def fun(*xs: jax.Array) -> list[jax.Array]:
        values = list(operands)
        for i, x in zip(which, xs, strict=True):
            values[i] = x
        return [out for out in run(*values) if is_differentiable(typeof(out))]

    return fun


def name_of(eqn: JaxprEqn) -> str:
    """The primitive's name; of a function with a rule, that function's."""
    if eqn.primitive in RULED:
        return ruled_function(eqn)[0]
    return str(eqn.primitive)


def ruled_function(eqn: JaxprEqn) -> tuple[str, str]:
    """``(name, file:line)`` of the function that a rule belongs to."""
    body, _ = open_and_closed(eqn.params["call_jaxpr"])
    name, _, where = defined_at(body).partition(" at ")
    return name, where


def whose(operation: Operation) -> str:
    """The primitive and the library that defined it."""
    return errors.whose(operation.eqn.primitive)


def bind(eqn: JaxprEqn, operands: Sequence[jax.Array]) -> list[jax.Array]:
    with eqn.ctx.manager:
        out = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
    return list(out) if eqn.primitive.multiple_results else [out]


def program_of(eqn: JaxprEqn) -> ClosedJaxpr | None:
    """The program that a call runs once on its own operands, where it holds one."""
    row = rows.get(eqn.primitive)
    if eqn.primitive in RULED:
        found = eqn.params["call_jaxpr"]
    elif (row is not None and row.cost == "its program") or str(eqn.primitive) in ("region", "closed_call", "core_call"):
        found = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    else:
        return None
    if not hasattr(found, "eqns"):
        return None
    body, closed = open_and_closed(found)
    return closed if len(body.invars) == len(eqn.invars) and len(body.outvars) == len(eqn.outvars) else None


def held(params: dict[str, object]) -> list[ClosedJaxpr | Jaxpr]:
    """The programs among the parameters of an equation."""
    return [p for value in params.values() for p in (value if isinstance(value, (tuple, list)) else [value])
            if isinstance(p, (ClosedJaxpr, Jaxpr))]


def equations(jaxpr: ClosedJaxpr | Jaxpr) -> Iterator[JaxprEqn]:
    """The equations of a program and of those that it holds."""
    for eqn in open_and_closed(jaxpr)[0].eqns:
        yield eqn
        for inner in held(eqn.params):
            yield from equations(inner)


#: ``enter = visit(operation)``: whether to look at the operations that it holds.
Visit: TypeAlias = Callable[[Operation], bool]
#: What sees the results of an operation.
After: TypeAlias = Callable[[Operation, list[jax.Array]], None]


class Walk:
    """Evaluates a program and shows each operation before (``visit``) and after (``after``) it is evaluated."""

    def __init__(self, visit: Visit | None = None, after: After | None = None):
        self.visit = visit or (lambda operation: True)
        self.after = after or (lambda operation, results: None)

    def run(self, jaxpr: ClosedJaxpr | Jaxpr, args: Sequence[jax.Array], place: tuple[str, ...] = ()) -> list[jax.Array]:
        body, closed = open_and_closed(jaxpr)
        env = dict(zip((*body.constvars, *body.invars), (*closed.consts, *args), strict=True))
        for eqn in body.eqns:
            if eqn.effects and not eqn.outvars:
                continue  # what the program prints is printed once, by the program
            operation = Operation(eqn, [_number(a) if is_literal(a) else env[a] for a in eqn.invars], place)
            results = self._entered(operation) if self.visit(operation) else None
            results = operation.run(*operation.operands) if results is None else results
            self.after(operation, results)
            env.update(zip(eqn.outvars, results, strict=True))
        return [_number(a) if is_literal(a) else env[a] for a in body.outvars]

    def _entered(self, operation: Operation) -> list[jax.Array] | None:
        """The results of an operation that holds programs, by a walk through them; None for other operations."""
        eqn, operands, place = operation.eqn, operation.operands, operation.place
        if eqn.primitive is cond_p:
            branches = eqn.params["branches"]
            chosen = int(np.clip(int(operands[0]), 0, len(branches) - 1))
            return self.run(branches[chosen], operands[1:], (*place, f"branch {chosen} of the cond{_at(eqn)}"))
        if eqn.primitive is scan_p:
            return self._scan(operation)
        if eqn.primitive is while_p:
            return self._while(operation)
        program = program_of(eqn)
        if program is None:
            return None
        return self.run(program, operands, (*place, f"the function {name_of(eqn)!r}") if operation.is_ruled else place)

    def _scan(self, operation: Operation) -> list[jax.Array]:
        eqn, operands, place = operation.eqn, operation.operands, operation.place
        n_consts, n_carry = scan_layout(eqn.params)
        consts, carry, xs = operands[:n_consts], operands[n_consts: n_consts + n_carry], operands[n_consts + n_carry:]
        length, body = eqn.params["length"], eqn.params["jaxpr"]
        if length == 0:
            return operation.run(*operands)
        order = range(length)[::-1] if eqn.params["reverse"] else range(length)
        rest = jax.jit(jaxpr_as_fun(open_and_closed(body)[1]))
        most = limits.get().steps
        if length > most:
            limits.get().leave_out_steps(f"scan{_at(eqn)}", length)
        stacks: list[list[jax.Array]] = [[] for _ in eqn.outvars[n_carry:]]
        for n, i in enumerate(order):
            step = [x[i] for x in xs]
            if n < most:
                outs = self.run(body, [*consts, *carry, *step], (*place, f"step {i} of the scan{_at(eqn)}"))
            else:
                outs = list(rest(*consts, *carry, *step))
            carry = outs[:n_carry]
            for stack, y in zip(stacks, outs[n_carry:], strict=True):
                stack.append(y)
        ordered = [stack[::-1] if eqn.params["reverse"] else stack for stack in stacks]
        return [*carry, *[jax.numpy.stack(stack) for stack in ordered]]

    def _while(self, operation: Operation) -> list[jax.Array] | None:
        eqn, operands, place = operation.eqn, operation.operands, operation.place
        n, m = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        cond_consts, body_consts, carry = operands[:n], operands[n: n + m], operands[n + m:]
        if eqn.params["cond_jaxpr"].out_avals[0].shape:
            limits.get().leave_out_batched_loop(f"while_loop{_at(eqn)}")
            return None
        rest = jax.jit(jaxpr_as_fun(open_and_closed(eqn.params["body_jaxpr"])[1]))
        step, most = 0, limits.get().steps
        while True:
            here = (*place, f"step {step} of the while_loop{_at(eqn)}")
            looks = step < most
            (goes,) = (self.run if looks else Walk().run)(eqn.params["cond_jaxpr"], [*cond_consts, *carry], here)
            if not bool(goes):
                if step > most:
                    limits.get().leave_out_steps(f"while_loop{_at(eqn)}", step)
                return list(carry)
            inputs = [*body_consts, *carry]
            carry = self.run(eqn.params["body_jaxpr"], inputs, here) if looks else list(rest(*inputs))
            step += 1


def directions(jaxpr: ClosedJaxpr, here: Sequence[jax.Array], there: Sequence[jax.Array],
               step: float) -> dict[Key, list[jax.Array]]:
    """How the differentiable operands of each operation change on the way from one point to another, ``step`` away.

    Operands that are copies of one value change together: a rule need not be right for changes that do not occur.
    """
    at_there: dict[Key, list[jax.Array]] = {}
    found: dict[Key, list[jax.Array]] = {}

    def remember(operation: Operation) -> bool:
        at_there[operation.key] = operation.moving()[1]
        return not operation.is_ruled

    def compare(operation: Operation) -> bool:
        points, others = operation.moving()[1], at_there.get(operation.key)
        if others is not None and [x.shape for x in points] == [x.shape for x in others]:
            found[operation.key] = [(y - x) / np.asarray(step, x.dtype) for x, y in zip(points, others, strict=True)]
        return not operation.is_ruled

    Walk(remember).run(jaxpr, there)
    Walk(compare).run(jaxpr, here)
    return found


def _number(atom: Literal) -> jax.Array:
    """A number that stands in the program, in the dtype that it has there."""
    number: jax.Array = np.asarray(atom.val, atom.aval.dtype)  # type: ignore[attr-defined, assignment]  # jax takes it as an array
    return number


def _at(eqn: JaxprEqn) -> str:
    line = line_of(eqn.source_info)
    return f" at {line}" if line else ""
