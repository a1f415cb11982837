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
from dualrev.table.exclusions import EXCLUDED
from dualrev.table.mode import Carried, Mode, Parts

#: The table: primitive -> its row.
rows: dict[Primitive, Row] = {}

#: Families whose operations exist only once a module of jax has been imported: that module -> the family's files.
optional: dict[str, tuple[str, ...]] = {}

#: Where the rows of primitives come from that neither the table nor an optional family has.
others: list[Callable[[Primitive], Row | None]] = []

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep

#: Files that make rows but state none.
_FORMS = tuple(f"table/{name}.py" for name in ("rows", "operations", "partials", "adjoints", "pushforward", "choosing", "forms"))
_FORMS += ("calls/call_rows.py", "functional/user_rules.py")


class Unknown:
    """Stands for the value of something that a program is linear in: it has an abstract value and nothing else."""

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


#: An operand or a result: an array, or what stands for one that a program is linear in.
Operand: TypeAlias = jax.Array | Unknown

#: A program over arrays: what a row may give in an operation's place.
Program: TypeAlias = Callable[..., Sequence[jax.Array]]

#: What an operation gives to a tape: outputs, the linear map (None: all outputs are constant), and which outputs it maps to.
Taped: TypeAlias = tuple[Sequence[Operand], LinearMap | None, Sequence[bool]]


def aval_of(x: Operand) -> ShapedArray:
    """The abstract value of an operand."""
    return x.aval if type(x) is Unknown else typeof(x)


class Expansion:
    """What a row gives where the operation is to be replaced by a program: ``run(*operands)``, under the mode that asked.

    ``plain`` is what the row would give otherwise, for a tape that is a part of another, or None if it has nothing else.
    """

    __slots__ = ("plain", "run")

    def __init__(self, plain: Taped | None, run: Program):
        self.plain = plain
        self.run = run


#: ``dual(x, part)``: ``x`` with ``part`` as its coefficient of the infinitesimal ``ε``.
Dual: TypeAlias = Callable[[jax.Array, jax.Array], jax.Array]


class Split:
    """What a row gives where it finds poles: ``linearize(dual)`` does without, where ``dual(x, part)`` is ``x`` with an ``ε`` part.

    ``plain`` is the linearization with poles, for a tape that is a part of another: splitting takes all that comes after
    (see :mod:`dualrev.engines.infinitesimal`).
    """

    __slots__ = ("linearize", "plain")

    def __init__(self, plain: Taped, linearize: Callable[[Dual], Taped]):
        self.plain = plain
        self.linearize = linearize


#: Outputs and their tangents, or a program to push through in the operation's place.
Pushed: TypeAlias = tuple[list[jax.Array], Sequence[Tangent]] | Expansion
#: Outputs, linear map and which outputs it maps to, or what else is to be done.
Linearized: TypeAlias = Taped | Expansion | Split


class AllBut:
    """The positions of all operands but some, of an operation that takes any number of them."""

    def __init__(self, *positions: int):
        self.positions = frozenset(positions)

    def __contains__(self, position: int) -> bool:
        return position not in self.positions

    def __repr__(self) -> str:
        return f"AllBut({', '.join(map(str, sorted(self.positions)))})"


#: Positions among the operands of an operation.
Operands = frozenset[int] | AllBut

Kind = Literal["zero", "diagonal", "linear", "product", "program", "call"]
Cost = Literal["entrywise", "moves", "work", "its program"]


class Row(ABC):
    """What is known of one primitive: its derivative, and facts that a reader may ask for without running anything.

    ``jvp(primals, tangents, params) -> (outs, tangents out)`` and ``linearize(primals, active, params, is_linear) -> (outs,
    map, active outs)``; lists and tuples are flat over operands and results.  With ``is_linear`` the active operands are
    :class:`Unknown` and so are the outputs that depend on them.

    A reader first lets the row choose (:meth:`choose`): facts of a row that chooses are what its options have in common.  Facts are
    about floating-point operands and results; an integer one has no tangent.

    ============  ========================================================================================================
    ``kind``      the derivative
    ============  ========================================================================================================
    ``zero``      no tangent comes out
    ``linear``    the same at all values of the operands that have one; by the others, such as indices, there is none.  The operation
                  is linear in ``linear_in``; in others it may add a constant (the fill value of a gather), or round.
                  Rows that pass operands alongside each other are linear
    ``product``   that of a product of the two operands in ``linear_in``
    ``diagonal``  entry by entry, by :meth:`partials`
    ``program``   a program over other primitives, for J·v or for the operation itself.  Also where the statement cannot be looked
                  into: one that another library registered, one that is an error.  All that can be done is to ask for pushes
    ``call``      that of the programs among the parameters, which a reader evaluates in its own way; a reduction by an operation
                  of the user's is one
    ============  ========================================================================================================
    """

    kind: Kind = "program"
    #: The operands in which the operation ``f`` itself, not its derivative alone, is linear over the real numbers while all others
    #: stay: jointly, ``f(a x + b y) = a f(x) + b f(y)`` for these at once; of a product, in each of the two while the other stays.
    linear_in: Operands = frozenset()
    #: The operands that say of each entry of the result from which of the other operands (or of the programs) it comes, and that
    #: have no derivative: the predicate of ``select_n``, the index of ``cond``.  An index into an array is none: it says where.
    selects: frozenset[int] = frozenset()
    #: What computing it again costs: ``entrywise``, a few operations for each entry, which a compiler fuses with what reads them;
    #: ``moves``, no more than to read and write; ``work``, more; ``its program``, what the one program that it runs once costs.
    cost: Cost = "work"
    #: Whether the operation works entry by entry, so that :meth:`partials` says what it multiplies tangents by: of kind ``diagonal``,
    #: and of sums and products that are so too.
    is_diagonal = False
    #: Whether another row is in force at some operands or parameters (:meth:`choose`).
    chooses = False
    #: Whether the row looks at values, and refuses some: a program that holds the operation is then pushed through unstaged.
    may_refuse = False
    #: The form in which the row is stated, for the list of what the table covers.
    form = "a program"
    #: Whether a user stated the row: what it returns is checked in full.
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
        """The row that is in force for these operands (values, or :class:`Unknown`), of which some are active, and parameters."""
        return self

    @abstractmethod
    def jvp(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent], params: Params) -> Pushed:
        ...

    @abstractmethod
    def linearize(self, primals: Sequence[Operand], active: tuple[Active, ...], params: Params, is_linear: bool) -> Linearized:
        ...

    def through(self, mode: Mode, primals: Sequence[jax.Array], parts: Sequence[Parts], params: Params) -> Carried | Expansion:
        """``(outs, parts out)`` under a mode that goes forward, or an :class:`Expansion`; rows that hold programs say how here."""
        return mode.row(self, primals, parts, params)

    def partials(self, primals: Sequence[jax.Array], params: Params, active: Sequence[Active] | None = None) -> list[Tangent]:
        """Of an operation that :attr:`is_diagonal`: for each operand the factor of its tangent, as the output in shape and dtype.

        None for an operand that has no tangent, has a factor of 0 everywhere, or is not ``active`` (without it, all are).
        """
        raise TypeError(f"{self.primitive} is not stated by partial derivatives: its row is of kind {self.kind!r}")

    def first(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent], params: Params) -> list[Tangent]:
        """``Df[t]``, one for each output, None where it is zero; a tangent of None is zero."""
        return list(pushed(self, primals, tangents, params)[1])

    def second(self, primals: Sequence[jax.Array], tangents: Sequence[Tangent], params: Params) -> list[Tangent]:
        """``D²f[t, t]``, one for each output, None where it is zero; a tangent of None is zero.

        The derivative of the row's own push along the same tangents: no formula is stated for it.
        """
        which: list[bool] = []

        def push(*primals: jax.Array) -> list[jax.Array]:
            moved = self.first(primals, tangents, params)
            which[:] = [t is not None for t in moved]
            return [t for t in moved if t is not None]

        _, found = engine.push_through(push, primals, tangents)
        seconds = iter(found)
        return [next(seconds) if moves else None for moves in which]

    def bind(self, primals: Sequence[Operand], params: Params) -> list[jax.Array]:
        outs = self.primitive.bind(*primals, **params)
        return list(outs) if self.primitive.multiple_results else [outs]


def pushed(row: Row, primals: Sequence[jax.Array], tangents: Sequence[Tangent],
           params: Params) -> tuple[list[jax.Array], Sequence[Tangent]]:
    """Outputs and their tangents, also of a row that gives a program."""
    result = row.jvp(primals, tangents, params)
    return engine.push_through(result.run, primals, tangents) if isinstance(result, Expansion) else result


def linearized(row: Row, primals: Sequence[Operand], active: tuple[Active, ...], params: Params,
               is_linear: bool) -> Taped:
    """What a row gives to a tape that is a part of another, also of a row that gives a program."""
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
    """The row of a primitive, which may belong to an optional family that nothing has needed so far, or to another library."""
    row = rows.get(primitive)
    if row is None:
        load_optional()
        row = rows.get(primitive) or next(filter(None, (find(primitive) for find in others)), None)
        if row is None:
            raise errors.missing_rule(primitive, mode, EXCLUDED.get(str(primitive)))
    return row


def load_optional() -> None:
    """State the rows of each optional family whose operations exist by now; rows that a user stated for them stay."""
    for module, files in list(optional.items()):
        if module in sys.modules:
            stated = dict(rows)
            for file in files:
                importlib.import_module(file)
            rows.update(stated)
            optional.pop(module, None)


class ZeroRow(Row):
    """No tangent comes out, whatever goes in."""

    kind = "zero"
    form = "flat"

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
    """State that primitives are flat almost everywhere, or have no differentiable output."""
    for primitive in primitives:
        register(ZeroRow(primitive, cost))
