"""A traced program as items: operations grouped by the calls, loops and branches that hold them, and by named scopes."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from dualrev._jax.avals import AbstractValue
from dualrev._jax.calls import cond_p, jit_p, scan_layout, scan_p, while_p
from dualrev._jax.jaxprs import Atom, ClosedJaxpr, Jaxpr, JaxprEqn, Var, is_literal
from dualrev._jax.source_lines import defined_at, line_of
from dualrev.inspection.drawing.items import Item, number
from dualrev.programs.jaxprs import nbytes_of
from dualrev.time_model import Constants, cost_of_equation, cost_of_jaxpr
from dualrev.time_model.operations import program_of
from dualrev.time_model.reading import UNKNOWN_STEPS

#: A program that an equation holds: what it is called, the program, the steps that it makes, and the names of its inputs.
Held: TypeAlias = tuple[str, Jaxpr, int, dict[Var, str]]


def read(program: ClosedJaxpr, names: Mapping[Var, str], line: str, constants: Constants) -> list[Item]:
    """The items of a program, with predicted seconds and flops; ``names`` are those of its inputs, ``line`` is where it is called."""
    reader = _Reader(constants)
    items = reader.items(program.jaxpr, names, 1.0, line)
    seconds = cost_of_jaxpr(program, constants).by_equation
    # A function that is called twice is one program, whose time is that of both calls.
    times = Counter(id(eqn) for _, eqn in reader.equations)
    for item, eqn in reader.equations:
        item.own_seconds += seconds[id(eqn)][1] / times[id(eqn)] if id(eqn) in seconds else 0.0
    return items


class _Reader:
    def __init__(self, constants: Constants):
        self.constants = constants
        #: Each item with its equation; a call that is drawn as its one operation has both.
        self.equations: list[tuple[Item, JaxprEqn]] = []

    def items(self, jaxpr: Jaxpr, names: Mapping[Var, str], times: float, line: str) -> list[Item]:
        """``line``: where the program is called, which stands for lines of a library."""
        pairs = [(self._item(eqn, names, times, line), _scopes(eqn)) for eqn in jaxpr.eqns]
        return list(_grouped(pairs))

    def _item(self, eqn: JaxprEqn, names: Mapping[Var, str], times: float, line: str) -> Item:
        item = Item(
            _label(eqn), _types([v.aval for v in eqn.outvars]), line_of(eqn.source_info) or line,
            frozenset(a for a in eqn.invars if not is_literal(a)), frozenset(eqn.outvars),
            tuple(dict.fromkeys(names[a] for a in eqn.invars if not is_literal(a) and a in names)), name=str(eqn.primitive))
        self.equations.append((item, eqn))
        held = list(_held(eqn, names))
        for what, jaxpr, steps, inner in held:
            children = self.items(jaxpr, inner, times * steps, item.line)
            if len(held) == 1:
                item.children += children
            elif children:
                item.children.append(Item(what, children=children, line=item.line))
        item.is_choice = eqn.primitive is cond_p
        if not item.children:
            item.own_flops = times * cost_of_equation(eqn, self.constants).flops
        elif len(held) == 1 and len(item.children) == 1 and not item.children[0].children and eqn.primitive is not scan_p:
            self._merge(item, item.children[0], eqn)
        return item

    def _merge(self, call: Item, only: Item, eqn: JaxprEqn) -> None:
        """A call of one operation is drawn as that operation; a rule of the user's keeps its name."""
        if eqn.primitive is jit_p:
            name = eqn.params["name"]
            call.label = only.label if name == only.label else f"{only.label} ({name})"
            call.name = only.name
        call.own_flops, call.children = only.own_flops, []
        for k in range(len(self.equations) - 1, -1, -1):  # those of the one operation stand last, after the call's own
            item, inner = self.equations[k]
            if item is call:
                return
            self.equations[k] = call, inner


def _label(eqn: JaxprEqn) -> str:
    name = str(eqn.primitive)
    if eqn.primitive is scan_p:
        return f"scan, {number(int(eqn.params['length']), 'step')}" if isinstance(eqn.params["length"], int) else "scan"
    if eqn.primitive is while_p:
        return f"while, {UNKNOWN_STEPS} steps assumed"
    if eqn.primitive is cond_p:
        return f"cond, {number(len(eqn.params['branches']), 'branch').replace('branchs', 'branches')}"
    if eqn.primitive is jit_p:
        return f"jit {eqn.params['name']}"
    inner = program_of(eqn)
    if inner is None:
        return name
    own = eqn.params.get("name")
    return f"{name} {own if isinstance(own, str) else defined_at(_open(inner)).partition(' at ')[0]}"


def _held(eqn: JaxprEqn, names: Mapping[Var, str]) -> Iterator[Held]:
    """The programs of an equation, of whatever operation it is."""
    def given(jaxpr: Jaxpr, atoms: Sequence[Atom]) -> dict[Var, str]:
        return {v: names[a] for v, a in zip(jaxpr.invars, atoms, strict=False) if not is_literal(a) and a in names}

    if eqn.primitive is scan_p:
        body = _open(eqn.params["jaxpr"])
        consts, carries = scan_layout(eqn.params)
        inner = given(body, eqn.invars[:consts])
        for v, a in itertools.islice(zip(body.invars, eqn.invars, strict=True), consts + carries, None):
            if not is_literal(a) and a in names:
                inner[v] = f"{names[a]}[step]"
        length = eqn.params["length"]
        yield "step", body, length if isinstance(length, int) else UNKNOWN_STEPS, inner
    elif eqn.primitive is while_p:
        cond, body = _open(eqn.params["cond_jaxpr"]), _open(eqn.params["body_jaxpr"])
        split = eqn.params["cond_nconsts"]
        yield "condition", cond, UNKNOWN_STEPS, given(cond, eqn.invars[:split])
        yield "step", body, UNKNOWN_STEPS, given(body, eqn.invars[split: split + eqn.params["body_nconsts"]])
    elif eqn.primitive is cond_p:
        for k, branch in enumerate(eqn.params["branches"]):
            yield f"branch {k}", _open(branch), 1, given(_open(branch), eqn.invars[1:])
    else:
        single = program_of(eqn)
        for key, value in eqn.params.items():
            for k, program in enumerate(value if isinstance(value, (tuple, list)) else [value]):
                if program is not None and (hasattr(program, "eqns") or hasattr(program, "jaxpr")):
                    jaxpr = _open(program)
                    fits = program is single and len(jaxpr.invars) == len(eqn.invars)
                    fields = getattr(value, "_fields", ())
                    yield fields[k] if fields else key, jaxpr, 1, given(jaxpr, eqn.invars) if fits else {}


def _open(program: ClosedJaxpr | Jaxpr) -> Jaxpr:
    body: Jaxpr = getattr(program, "jaxpr", program)  # type: ignore[arg-type]  # two classes in 0.10, one since 0.11
    return body


def _scopes(eqn: JaxprEqn) -> tuple[str, ...]:
    """The names of ``jax.named_scope`` around an equation, within its program; what transforms add is left out."""
    return tuple(part for part in str(eqn.source_info.name_stack).split("/") if part and "(" not in part)


def _grouped(pairs: Sequence[tuple[Item, tuple[str, ...]]], depth: int = 0) -> Iterator[Item]:
    """Neighbours in one scope as a group.  What stands between two runs of a scope parts them, so that groups form no cycle."""
    for scope, run in itertools.groupby(pairs, key=lambda pair: pair[1][depth: depth + 1]):
        found = list(run)
        if not scope:
            yield from (item for item, _ in found)
        elif len(found) == 1:
            yield found[0][0]
        else:
            yield group(f"scope {scope[0]}", list(_grouped(found, depth + 1)))


def group(label: str, children: list[Item]) -> Item:
    """A group of neighbours of one program."""
    writes = frozenset().union(*[c.writes for c in children])
    reads = frozenset().union(*[c.reads for c in children])
    return Item(label, reads=reads - writes, writes=writes, children=children, line=children[0].line,
                inputs=tuple(dict.fromkeys(name for child in children for name in child.inputs)))


def _types(avals: Sequence[AbstractValue]) -> str:
    if not avals:
        return ""
    first = type_of(max(avals, key=nbytes_of))
    return first if len(avals) == 1 else f"{first} and {len(avals) - 1} more"


def type_of(aval: AbstractValue) -> str:
    """``float32[4, 8]``, or as jax writes what is no array."""
    dtype, shape = getattr(aval, "dtype", None), getattr(aval, "shape", None)
    return str(aval) if dtype is None or shape is None else f"{dtype}[{', '.join(map(str, shape))}]"
