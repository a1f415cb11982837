"""The table itself: what a row is, and how rows are found.

A row gives the local linearization of one primitive.  The forms in which rows are stated are in :mod:`dualrev.table.forms`.
"""

from __future__ import annotations

import importlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import jax

from dualrev import errors
from dualrev._jax.avals import ShapedArray, typeof
from dualrev._jax.primitives import Params, Primitive
from dualrev.linear.maps import LinearMap, Tangent
from dualrev.options.settings import Active
from dualrev.table import engine
from dualrev.table.axes import Axes
from dualrev.table.exclusions import EXCLUDED
from dualrev.table.mode import Carried, Mode, Parts

#: The table: primitive -> its row.
rows: dict[Primitive, Row] = {}

#: Families whose operations exist only once a module of jax has been imported: that module -> the family's files.
optional: dict[str, tuple[str, ...]] = {}

#: Functions that find rows of other libraries' primitives, which neither the table nor an optional family has.
others: list[Callable[[Primitive], Row | None]] = []

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep

#: Files that construct rows for others: the line where a row is stated lies outside of them.
_FORMS = tuple(f"table/{name}.py" for name in ("rows", "operations", "partials", "adjoints", "pushforward", "choosing", "forms"))
_FORMS += ("calls/call_rows.py", "functional/user_rules.py")


class Unknown:
    """An operand that a program is linear in, while the program is transposed: its value is not known, its abstract value is."""

    __slots__ = ("aval",)

    def __init__(self, aval: ShapedArray):
        self.aval = aval

    @property
    def ndim(self) -> int:
        ndim: int = self.aval.ndim
        return ndim

    @property
    def shape(self) -> tuple[int, ...]:
        shape: tuple[int, ...] = self.aval.shape
        return shape


#: An operand or a result: an array, or an unknown one that a program is linear in.
Operand: TypeAlias = jax.Array | Unknown

#: A program over arrays, which a row may return in place of an operation.
Program: TypeAlias = Callable[..., Sequence[jax.Array]]

#: The linearization of an operation: outputs, the linear map (None: all outputs are constant), and which outputs it maps to.
Taped: TypeAlias = tuple[Sequence[Operand], LinearMap | None, Sequence[bool]]


def aval_of(x: Operand) -> ShapedArray:
    """The abstract value of an operand."""
    return x.aval if type(x) is Unknown else typeof(x)


class Expansion:
    """The result of a row that replaces the operation by a program: ``run(*operands)`` is evaluated under the same mode.

    ``plain`` is the linearization without this replacement, for a tape inside another one; None if the row has no other.
    """

    __slots__ = ("plain", "run")

    def __init__(self, plain: Taped | None, run: Program):
        self.plain = plain
        self.run = run


#: ``dual(x, part)``: ``x`` with ``part`` as its coefficient of the infinitesimal ``ε``.
Dual: TypeAlias = Callable[[jax.Array, jax.Array], jax.Array]


class Split:
    """The result of a row whose linear map has poles at these values.

    ``linearize(dual)`` is the linearization without poles, at operands that ``dual(x, part)`` shifts by ``ε part``.  ``plain`` is the
    linearization with poles, for a tape inside another one: a shift changes all operations that follow
    (see :mod:`dualrev.engines.infinitesimal`).
    """

    __slots__ = ("linearize", "plain")

    def __init__(self, plain: Taped, linearize: Callable[[Dual], Taped]):
        self.plain = plain
        self.linearize = linearize


#: Outputs and their tangents, or a program whose push replaces that of the operation.
Pushed: TypeAlias = tuple[list[jax.Array], Sequence[Tangent]] | Expansion
#: Outputs, linear map and which outputs it maps to; or a program, or a linearization that the engine finishes.
Linearized: TypeAlias = Taped | Expansion | Split


class AllBut:
    """All positions but some, of an operation with any number of operands."""

    def __init__(self, *positions: int):
        self.positions = frozenset(positions)

    def __contains__(self, position: int) -> bool:
        return position not in self.positions

    def __repr__(self) -> str:
        return f"AllBut({', '.join(map(str, sorted(self.positions)))})"


#: Positions among the operands of an operation.
Operands = frozenset[int] | AllBut

Kind = Literal["zero", "diagonal", "linear", "product", "program", "call"]
TakenParts = Literal["any", "arrays", "uniform"]
Cost = Literal["entrywise", "moves", "work", "its program"]


class Row(ABC):
    """One primitive: its derivative, and facts about it that can be read without running it.

    ``jvp(primals, tangents, params) -> (outs, tangents out)`` and ``linearize(primals, active, params, is_linear) -> (outs,
    map, active outs)``; each list and tuple has one entry for each operand or result.  With ``is_linear`` the active operands are
    :class:`Unknown` and so are the outputs that depend on them.

    A reader calls :meth:`choose` first: the facts of a row that chooses are those that all its options share.  Facts are about
    floating-point operands and results; an integer has no tangent.

    ============  ========================================================================================================
    ``kind``      the derivative
    ============  ========================================================================================================
    ``zero``      all tangents of results are zero
    ``linear``    the same at all values of the differentiable operands; other operands, such as indices, have no derivative.  The
                  operation is linear in ``linear_in``; in other operands it may add a constant (the fill value of a gather), or
                  round.  A row whose result ``i`` is operand ``i`` is linear
    ``product``   the product rule for the two operands in ``linear_in``
    ``diagonal``  entry by entry, by :meth:`partials`
    ``program``   a program over other primitives, for J·v or for the operation itself.  Also a derivative that another library
                  registered, and one that raises an error.  A reader can evaluate its push, and nothing else
    ``call``      that of the programs among the parameters, which each mode evaluates itself; a reduction by an operation of the
                  user's is a call
    ============  ========================================================================================================

    >>> import jax
    >>> from dualrev.modes import row_of
    >>> row = row_of(jax.lax.mul_p)
    >>> row.kind, sorted(row.linear_in), row.cost
    ('product', [0, 1], 'entrywise')
    """

    kind: Kind = "program"
    #: The operands in which the operation ``f`` itself, not its derivative alone, is linear over the real numbers while all others
    #: are fixed: jointly, ``f(a x + b y) = a f(x) + b f(y)`` for all of these together; for a product, in each of the two.
    linear_in: Operands = frozenset()
    #: The operands that select, for each entry of the result, one of the other operands (or of the programs), and that have no
    #: derivative: the predicate of ``select_n``, the index of ``cond``.  An index into an array is none: it gives a place.
    selects: frozenset[int] = frozenset()
    #: The cost of computing it again: ``entrywise``, a few operations for each entry, which a compiler fuses with the operations that
    #: read them; ``moves``, reading and writing alone; ``work``, more; ``its program``, the cost of the one program that it runs once.
    cost: Cost = "work"
    #: Whether the operation works entry by entry, so that :meth:`partials` gives the factors of tangents: all of kind ``diagonal``,
    #: and elementwise sums and products.
    is_diagonal = False
    #: Whether :meth:`choose` returns another row for some operands or parameters.
    chooses = False
    #: Whether the row raises an error at some values: a push through a program with this operation then runs unstaged.
    may_refuse = False
    #: Whether equations of its derivative are marked as those of one operation: not those of programs that it runs.
    is_operation = True
    #: The parts that :meth:`through` takes: ``any``, which :meth:`Mode.row` reads; ``arrays``, trees of arrays of any structure, which
    #: programs take; ``uniform``, those of the structure that zeros have.
    takes_parts: TakenParts = "any"
    #: The form in which the row is stated, as COVERAGE.md shows it.
    form = "a program"
    #: Whether a user stated the row: all types that it returns are then checked.
    is_users_own = False

    def __init__(self, primitive: Primitive):
        self.primitive = primitive
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename.endswith(_FORMS):
            frame = frame.f_back
        path = frame.f_code.co_filename
        #: Where the row is stated: the file, within the package or by its name alone, and the line.
        self.where = f"{path.removeprefix(_PACKAGE) if path.startswith(_PACKAGE) else os.path.basename(path)}:{frame.f_lineno}"

    def choose(self, primals: Sequence[Operand], active: Sequence[Active], params: Params) -> Row:
        """The row for these operands (values, or :class:`Unknown`), activity and parameters: this one, or an option of it."""
        return self

    @abstractmethod
    def jvp(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent], params: Params) -> Pushed:
        ...

    @abstractmethod
    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params, is_linear: bool) -> Linearized:
        ...

    def through(self, mode: Mode, primals: Sequence[jax.Array], parts: Sequence[Parts], params: Params) -> Carried | Expansion:
        """``(outs, parts out)`` under a forward mode, or an :class:`Expansion`; rows that hold programs override this."""
        return mode.row(self, primals, parts, params)

    def partials(self, primals: Sequence[jax.Array], params: Params, active: Sequence[Active] | None = None) -> list[Tangent]:
        """For each operand, the factor of its tangent, in the shape and dtype of the output; for rows that are :attr:`is_diagonal`.

        None for an operand that has no tangent, has a factor of 0 everywhere, or is not ``active`` (by default, all are active).
        """
        raise TypeError(f"{self.primitive} is not stated by partial derivatives: its row is of kind {self.kind!r}")

    def axes(self, primals: Sequence[Operand], params: Params) -> Axes | None:
        """Which axes of the operands are which axes of the results, of an operation that is linear in operands; None if not stated."""
        return None

    def divisor(self, primals: Sequence[jax.Array], params: Params) -> tuple[int, jax.Array] | None:
        """For an operation ``x / g`` entry by entry, the position of ``x`` and the value of ``g``; None for any other operation."""
        return None

    def first(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent], params: Params) -> list[Tangent]:
        """``Df[t]``, one for each output, None where it is zero; a tangent of None is zero."""
        return list(pushed(self, primals, tangents, params)[1])

    def second(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent], params: Params) -> list[Tangent]:
        """``D²f[t, t]``, one for each output, None where it is zero; a tangent of None is zero.

        It is the derivative of the row's own push along the same tangents, and needs no formula of its own.
        """
        return self.first_and_second(primals, tangents, params)[1]

    def first_and_second(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent],
                         params: Params) -> tuple[list[Tangent], list[Tangent]]:
        """``Df[t]`` and ``D²f[t, t]`` of each output, from one evaluation of the push."""
        which: list[bool] = []

        def push(*primals: jax.Array) -> list[jax.Array]:
            firsts = self.first(primals, tangents, params)
            which[:] = [t is not None for t in firsts]
            return [t for t in firsts if t is not None]

        firsts, seconds = engine.push_through(push, primals, tangents)
        places = [sum(which[:i]) if is_nonzero else None for i, is_nonzero in enumerate(which)]
        return [None if i is None else firsts[i] for i in places], [None if i is None else seconds[i] for i in places]

    def runs(self, params: Params) -> Program | None:
        """The program that the operation runs once, on its own operands; None for operations that are no such call."""
        return None

    def bind(self, primals: Sequence[Operand], params: Params) -> list[jax.Array]:
        outs = self.primitive.bind(*primals, **params)
        return list(outs) if self.primitive.multiple_results else [outs]


def pushed(row: Row, primals: Sequence[jax.Array], tangents: Sequence[Tangent],
           params: Params) -> tuple[list[jax.Array], Sequence[Tangent]]:
    """Outputs and their tangents; a program that the row returns is evaluated."""
    result = row.jvp(primals, tangents, params)
    return engine.push_through(result.run, primals, tangents) if isinstance(result, Expansion) else result


def linearized(row: Row, primals: Sequence[Operand], active: tuple[Active, ...], params: Params,
               is_linear: bool) -> Taped:
    """The linearization of a row for a tape inside another one; a program that the row returns is linearized."""
    result = row.linearize(primals, active, params, is_linear)
    if isinstance(result, tuple):
        return result
    if result.plain is None and isinstance(result, Expansion):
        outs, tape = engine.linearize(result.run, primals, active, is_linear)
        return outs, tape, [slot is not None for slot in tape.out_slots]
    plain: Taped = result.plain
    return plain


def register(row: Row) -> None:
    rows[row.primitive] = row


def row_of(primitive: Primitive, mode: str) -> Row:
    """The row of a primitive.  An optional family that has it is loaded; a primitive of another library is looked up there.

    Raises MissingRuleError if there is none.
    """
    row = rows.get(primitive)
    if row is None:
        load_optional()
        row = rows.get(primitive) or next(filter(None, (find(primitive) for find in others)), None)
        if row is None:
            raise errors.missing_rule(primitive, mode, EXCLUDED.get(str(primitive)))
    return row


def load_optional() -> None:
    """Register the rows of each optional family whose operations exist by now; rows that a user stated for them stay."""
    for module, files in list(optional.items()):
        if module in sys.modules:
            stated = dict(rows)
            for file in files:
                importlib.import_module(file)
            rows.update(stated)
            optional.pop(module, None)


class ZeroRow(Row):
    """All tangents of the results are zero."""

    kind = "zero"
    form = "zero"

    def __init__(self, primitive: Primitive, cost: Cost = "work"):
        super().__init__(primitive)
        self.cost = cost

    def jvp(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent],
            params: Params) -> tuple[list[jax.Array], Sequence[Tangent]]:
        outs = self.bind(primals, params)
        return outs, [None] * len(outs)

    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params,
                  is_linear: bool) -> Taped:
        if is_linear:
            raise errors.not_linear(self.primitive)
        outs = self.bind(primals, params)
        return outs, None, [False] * len(outs)


def zero(*primitives: Primitive, cost: Cost = "work") -> None:
    """State that the derivative of primitives is zero almost everywhere, or that no output is differentiable."""
    for primitive in primitives:
        register(ZeroRow(primitive, cost))
