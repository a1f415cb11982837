"""What is told of a NaN or an infinity: the operation, its line, the values that went in, the usual cause and the cure."""

from __future__ import annotations

import linecache
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import jax
import numpy as np

from dualrev._jax.calls import jit_p
from dualrev._jax.jaxprs import JaxprEqn
from dualrev._jax.source_lines import Mark, SourceInfo, file_and_line, has_line, is_of_library, marks_of
from dualrev._jax.trees import PyTree
from dualrev.inspection.finiteness.causes import Cause, cause_of
from dualrev.inspection.finiteness.entries import Entry, Kind
from dualrev.inspection.finiteness.examples import Members, members_of
from dualrev.inspection.finiteness.origins import Origin

_WORDS = {"nan": "NaN", "inf": "infinity"}
_CALLS = ("scan", "while", "cond")


@dataclass(frozen=True)
class Operation:
    """The operation that made a NaN or an infinity, in words and numbers.

    Attributes:
      kind: ``"nan"`` or ``"inf"``.
      operation: the operation as the function has it, such as ``"sqrt"``; ``"input"`` for a number that was given as an argument.
      where: ``"function"``, ``"pull"`` or ``"push"``; of higher order, ``"push of pull"``.
      file, line, function: the user's code.
      equation: the operation of the derivative that made it, such as ``"div"`` in the pull of ``sqrt``; else the operation itself.
      index: the entry of its result; ``shape`` and ``dtype`` are those of the result.
      values: the operands' entries that went in, or what an operand is like where it has many that count.
      out: the number that came out.
      steps: the steps of the loops around it, outermost first, counted from 0 (of a scan, the position in its arrays).
      example: the position of the example, one for each ``vmap`` around it, outermost first, whatever ``in_axes`` and ``out_axes`` are;
        None for a ``vmap`` whose examples all have this value (left out if it is the last), and ``()`` where that is so for every one,
        or where a rule of ``vmap`` computes something of which it can't be told.
      shard: of a value in ``shard_map``, the position of its shard along each axis of the mesh; ``index``, ``shape`` and ``values`` are
        those of the shard.
      functions: the compiled functions around it, innermost first.
      why, cure: the usual cause, and what to do.
    """

    kind: Kind
    operation: str
    where: str
    file: str
    line: int
    function: str
    equation: str
    index: Entry
    shape: tuple[int, ...]
    dtype: str
    values: tuple[str, ...]
    out: str
    steps: tuple[int, ...]
    example: tuple[int | None, ...]
    functions: tuple[str, ...]
    why: str
    cure: str
    shard: Mapping[str, int] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """``file:line (function)``."""
        return f"{self.file}:{self.line} ({self.function})" if self.file else "a line that is not known"

    @property
    def name(self) -> str:
        """The operation, and the direction in which its derivative went: ``the pull of sqrt``."""
        if self.operation == "input":
            return "an argument"
        return self.operation if self.where == "function" else f"the {self.where.replace(' of ', ' of the ')} of {self.operation}"

    def lines(self) -> list[str]:
        code = linecache.getline(self.file, self.line).strip() if self.file else ""
        found = [f"{self.name} at {self.place}{code and f':  {code}'}"]
        how = f"{self.equation}({', '.join(self.values)})" if self.values else self.equation
        at = f" at {list(self.index)} of {self.dtype}{list(self.shape)}" if self.index else ""
        found.append(f"  {how} = {self.out}{at}")
        if self.steps:
            found.append(f"  in step {', '.join(map(str, self.steps))} of the loop{'s' * (len(self.steps) > 1)} around it")
        if self.example:
            found.append(f"  of example {', '.join('any' if n is None else str(n) for n in self.example)} under vmap")
        if self.shard:
            found.append(f"  on shard {', '.join(f'{axis}={i}' for axis, i in self.shard.items())}")
        return found


@dataclass(frozen=True)
class NanReport:
    """What was found in the results of a function, and the first operation that made it; ``print`` shows it.

    Attributes:
      found: whether a result has a NaN or an infinity; a report is true where one does.
      kind: ``"nan"``, ``"inf"`` or None.
      result: the name of the result, and ``index`` its first bad entry.
      made: the first operation that made one (:class:`Operation`), None where nothing was found.  Where a NaN comes from an
        infinity, as 0 times infinity, it is the operation that made the infinity.
      became: the operation that then made the NaN from it; None where ``made`` made the NaN itself.
      others: further operations that made numbers which the same entry is due to, in the order in which they run.
      infinities: whether infinities were looked for, too.
      value: what the function returned.

    ``operation``, ``where``, ``file`` and ``line`` are those of ``made``.
    """

    name: str
    kind: Kind | None = None
    result: str = ""
    index: Entry = ()
    made: Operation | None = None
    became: Operation | None = None
    others: tuple[Operation, ...] = ()
    infinities: bool = True
    value: PyTree = field(default=None, repr=False)

    @classmethod
    def of_good(cls, name: str, infinities: bool, value: PyTree) -> NanReport:
        """The report on results that are finite, at once: calls of a few microseconds are asked about, too."""
        report: NanReport = object.__new__(cls)
        report.__dict__.update(name=name, infinities=infinities, value=value)  # the class holds the other fields' defaults
        return report

    @property
    def found(self) -> bool:
        return self.kind is not None

    def __bool__(self) -> bool:
        return self.found

    @property
    def operation(self) -> str:
        """The operation of the function, such as ``"sqrt"``; an empty string where nothing was found."""
        return "" if self.made is None else self.made.operation

    @property
    def where(self) -> str:
        """``"function"``, ``"pull"``, ``"push"`` or, of higher order, ``"push of pull"``."""
        return "" if self.made is None else self.made.where

    @property
    def file(self) -> str:
        return "" if self.made is None else self.made.file

    @property
    def line(self) -> int:
        return 0 if self.made is None else self.made.line

    def __str__(self) -> str:
        if self.kind is None:
            return f"{self.name}: {'all results are finite' if self.infinities else 'no result is NaN'}"
        at = f" at {list(self.index)}" if self.index else ""
        words = [f"{self.name}: {_WORDS[self.kind]} in {self.result}{at}"]
        if self.made is None:
            words.append("  it does not appear when operations run one by one: the compiler computed another number")
            return "\n".join(words)
        first, *rest = self.made.lines()
        words += [f"  first made by {first}", *[f"  {line}" for line in rest]]
        if self.became is not None:
            first, *rest = self.became.lines()
            words += [f"  then NaN in {first}", *[f"  {line}" for line in rest]]
        words += [f"  why: {self.made.why}", f"  cure: {self.made.cure}"]
        if self.others:
            words.append(f"  also made by {', '.join(f'{o.name} at {o.place}' for o in self.others)}")
        return "\n".join(words)


def describe(origin: Origin) -> Operation:
    """The words for an operation that was found."""
    eqn, path = origin.eqn, origin.place.within
    chain = [*path, *([eqn] if eqn is not None else [])]
    marks = [mark for e in chain for mark in marks_of(e.source_info)]
    own = [mark for mark in marks if not mark.is_call]
    equation = "constant" if eqn is None else str(eqn.primitive)
    if own and own[-1].direction != "pull" and _is_primal(origin, own[-1]):
        own = own[:-1]
        operation, where = (own[0].operation, _directions(own)) if own else (equation, "function")
    elif own:
        operation, where = own[0].operation, _directions(own)
    else:
        calls = [mark.direction for mark in marks if mark.is_call]
        operation, where = equation, calls[-1] if calls else "function"
    file, line, function = _line(chain, own)
    functions = _functions(path, marks)
    because = _because(origin)
    cause: Cause = cause_of(operation, where != "function", functions, because)
    out = origin.out
    members = Members() if eqn is None or out is None else members_of(eqn, origin.entry, tuple(out.shape))
    return Operation(
        kind=origin.kind, operation=operation, where=where, file=file, line=line, function=function, equation=equation,
        index=origin.entry, shape=() if out is None else tuple(out.shape), dtype="" if out is None else str(out.dtype),
        values=tuple(_shown(x, origin) for x in origin.operands), out=_number(out, origin.entry) if out is not None else origin.kind,
        steps=(*origin.place.steps, *members.steps), example=members.example, functions=functions, why=cause.why, cure=cause.cure,
        shard=origin.place.shard)


def of_input(kind: Kind, name: str, entry: Entry, x: jax.Array) -> Operation:
    """The words for a number that was given."""
    cause = cause_of("input", False, (), "")
    return Operation(kind, "input", "function", "", 0, "", name, entry, tuple(x.shape), str(x.dtype), (), _number(x, entry), (), (), (),
                     cause.why, cause.cure)


def _is_primal(origin: Origin, mark: Mark) -> bool:
    """Whether an equation evaluates the operation itself: the first of its name among those with the operation's mark."""
    if origin.eqn is None:
        return False
    with_mark = [eqn for eqn in origin.jaxpr.eqns if any(m is mark for m in marks_of(eqn.source_info))]
    first = next((eqn for eqn in with_mark if str(eqn.primitive) == mark.operation), None)
    return first is origin.eqn


def _directions(own: Sequence[Mark]) -> str:
    """``push of pull`` for the push of the pull of an operation."""
    return " of ".join("pull" if mark.direction == "linearize" else mark.direction for mark in reversed(own))


def _line(chain: Sequence[JaxprEqn], own: Sequence[Mark]) -> tuple[str, int, str]:
    """The user's line: that of the operation whose derivative it is, else the innermost that is known."""
    candidates: list[SourceInfo] = [own[0].source] if own and own[0].source is not None else []
    for eqn in reversed(_of_this_call(chain)):
        candidates += [eqn.source_info, *[mark.source for mark in reversed(marks_of(eqn.source_info)) if mark.source is not None]]
    return next((file_and_line(source) for source in candidates if has_line(source)), ("", 0, ""))


def _of_this_call(chain: Sequence[JaxprEqn]) -> list[JaxprEqn]:
    """The equations whose lines are those of this call: down to the first call of a compiled function of a library."""
    found: list[JaxprEqn] = []
    for eqn in chain:
        found.append(eqn)
        if eqn.primitive is jit_p and is_of_library(eqn.params["jaxpr"].jaxpr):
            break
    return found


def _functions(path: Sequence[JaxprEqn], marks: Sequence[Mark]) -> tuple[str, ...]:
    names = [str(eqn.params["name"]) for eqn in path if "name" in eqn.params]
    names += [mark.operation for mark in marks if mark.is_call]
    plain = [name.removeprefix("pull_").removeprefix("push_") for name in reversed(names)]
    return tuple(dict.fromkeys(name for name in plain if name not in _CALLS))


def _because(origin: Origin) -> str:
    """How a NaN came about, where the operation is a sum or a product."""
    if origin.kind != "nan" or not origin.is_from_infinity or origin.eqn is None:
        return ""
    name = str(origin.eqn.primitive)
    if name in ("mul", "dot_general", "conv_general_dilated"):
        return "0 * inf"
    return "inf - inf" if name in ("add", "sub", "reduce_sum", "cumsum", "add_any", "psum") else ""


def _shown(x: jax.Array, origin: Origin) -> str:
    """The entry of an operand that went into the bad entry; of operands of other shapes, what they are like."""
    shape = () if origin.out is None else tuple(origin.out.shape)
    if not hasattr(x, "shape") or jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended):
        return str(x.dtype)
    if x.size == 1:
        return _number(x, (0,) * x.ndim)
    if tuple(x.shape) == shape and len(origin.entry) == x.ndim:
        return _number(x, origin.entry)
    values = np.asarray(x)
    kind = f"{x.dtype}{list(x.shape)}"
    if x.size <= 9:
        return f"{kind} {values.tolist()}"
    if not jax.dtypes.issubdtype(x.dtype, np.floating):
        return kind
    values = values.astype(np.float64)
    with np.errstate(all="ignore"):
        return f"{kind} from {np.nanmin(values):.6g} to {np.nanmax(values):.6g}"


def _number(x: jax.Array, entry: Entry) -> str:
    if jax.dtypes.issubdtype(x.dtype, np.bool_) or jax.dtypes.issubdtype(x.dtype, np.integer):
        return str(np.asarray(x)[entry])
    value = np.asarray(x)[entry]
    if jax.dtypes.issubdtype(x.dtype, np.complexfloating):
        return f"{complex(value):.6g}"
    return f"{float(value):.6g}"

