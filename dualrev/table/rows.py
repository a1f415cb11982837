"""The table itself: what a row is, and how rows are found.

A row gives the local linearization of one primitive.  The forms in which rows are stated are in :mod:`dualrev.table.forms`.
"""

from __future__ import annotations

import importlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from dualrev import errors
from dualrev._jax.avals import typeof
from dualrev.linear.maps import LinearMap
from dualrev.table.exclusions import EXCLUDED

#: The table: primitive -> its row.
rows: dict[Any, Row] = {}

#: Families whose operations exist only once a module of jax has been imported: that module -> the family's files.
optional: dict[str, tuple[str, ...]] = {}

#: Where the rows of primitives come from that neither the table nor an optional family has.
others: list[Callable[[Any], Row | None]] = []

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep

#: Files that make rows but state none.
_FORMS = tuple(f"table/{name}.py" for name in ("rows", "operations", "partials", "adjoints", "pushforward", "choosing", "forms"))
_FORMS += ("calls/call_rows.py", "functional/user_rules.py")


class Unknown:
    """Stands for the value of something that a program is linear in: it has an abstract value and nothing else."""

    __slots__ = ("aval",)

    def __init__(self, aval: Any):
        self.aval = aval

    @property
    def ndim(self) -> int:
        return self.aval.ndim

    @property
    def shape(self) -> tuple[int, ...]:
        return self.aval.shape


def aval_of(x: Any) -> Any:
    return x.aval if type(x) is Unknown else typeof(x)


class Row(ABC):
    """What an engine asks of the table for one primitive.

    ``jvp(primals, tangents, params) -> (outs, tangents out)`` and ``linearize(primals, active, params, is_linear) -> (outs,
    map, active outs)``; lists and tuples are flat over operands and results.  With ``is_linear`` the active operands are
    :class:`Unknown` and so are the outputs that depend on them.
    """

    #: The form in which the row is stated, for the list of what the table covers.
    form = "a program"

    def __init__(self, primitive: Any):
        self.primitive = primitive
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename.endswith(_FORMS):
            frame = frame.f_back
        path = frame.f_code.co_filename
        #: Where the row is stated: the file, within the package or by its name alone, and the line.
        self.where = f"{path.removeprefix(_PACKAGE) if path.startswith(_PACKAGE) else os.path.basename(path)}:{frame.f_lineno}"

    @abstractmethod
    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any], params: dict[str, Any]) -> tuple[list[Any], Sequence[Any]]:
        ...

    @abstractmethod
    def linearize(self, primals: Sequence[Any], active: tuple[bool, ...], params: dict[str, Any],
                  is_linear: bool) -> tuple[list[Any], LinearMap | None, Sequence[bool]]:
        ...

    def bind(self, primals: Sequence[Any], params: dict[str, Any]) -> list[Any]:
        outs = self.primitive.bind(*primals, **params)
        return list(outs) if self.primitive.multiple_results else [outs]


def register(row: Row) -> None:
    rows[row.primitive] = row


def row_of(primitive: Any, mode: str) -> Row:
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


class Split(Exception):  # noqa: N818  (a signal)
    """Raised by a row that finds poles: ``linearize(dual)`` does without, where ``dual(x, part)`` is ``x`` with an ``ε`` part.

    ``plain`` is the linearization with poles, for a tape that is a part of another: splitting takes all that comes after
    (see :mod:`dualrev.engines.infinitesimal`).
    """

    def __init__(self, plain: Any, linearize: Callable[[Callable[[Any, Any], Any]], Any]):
        super().__init__()
        self.plain = plain
        self.linearize = linearize


class Unfold(Exception):  # noqa: N818  (a signal)
    """Raised by a row that holds a program in which a row looks at values: evaluate it one operation at a time.

    ``plain`` is the linearization that does not look.
    """

    def __init__(self, plain: Any, run: Callable[..., Sequence[Any]]):
        super().__init__()
        self.plain = plain
        self.run = run


class ZeroRow(Row):
    """No tangent comes out, whatever goes in."""

    form = "flat"

    def jvp(self, primals: Sequence[Any], tangents: Sequence[Any], params: dict[str, Any]) -> tuple[list[Any], Sequence[Any]]:
        outs = self.bind(primals, params)
        return outs, [None] * len(outs)

    def linearize(self, primals: Sequence[Any], active: tuple[bool, ...], params: dict[str, Any],
                  is_linear: bool) -> tuple[list[Any], LinearMap | None, Sequence[bool]]:
        if is_linear:
            raise errors.not_linear(self.primitive)
        outs = self.bind(primals, params)
        return outs, None, [False] * len(outs)


def zero(*primitives: Any) -> None:
    """State that primitives are flat almost everywhere, or have no differentiable output."""
    for primitive in primitives:
        register(ZeroRow(primitive))
