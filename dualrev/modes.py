"""What a mode of differentiation of your own needs: the class that it extends, the rows that it reads, and its evaluation.

A mode carries *parts* beside each value and says how one operation maps them (:class:`Mode`); loops, branches, calls and the rules that
users attach are evaluated under it as they stand.  ``papers/modes/`` has two complete modes and tells how each was written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jax.tree_util import tree_flatten, tree_unflatten

from dualrev import errors
from dualrev._jax.avals import typeof
from dualrev.engines import parts as _parts
from dualrev.functional import checks
from dualrev.programs.functions import as_arrays
from dualrev.table.mode import Mode as Mode
from dualrev.table.mode import Parts as Parts
from dualrev.table.recomputation import cost_of as cost_of
from dualrev.table.rows import Row as Row
from dualrev.table.rows import row_of as _row_of

__all__ = ["Mode", "Parts", "Row", "cost_of", "evaluate", "row_of"]


def row_of(primitive: Any) -> Row:
    """The row of a primitive: its derivative, and the facts that :class:`Row` lists.

    Args:
      primitive: of jax, such as ``jax.lax.sin_p``, or of your own.

    Returns:
      The :class:`Row`.

    Raises:
      MissingRuleError: the table has no row for it.

    >>> import jax, dualrev.modes
    >>> dualrev.modes.row_of(jax.lax.sin_p).kind, dualrev.modes.row_of(jax.lax.dot_general_p).kind
    ('diagonal', 'product')
    """
    from_table: Row = _row_of(primitive, "any")
    return from_table


def evaluate(mode: Mode, fun: Callable[..., Any], args: Sequence[Any], parts: Sequence[Any]) -> tuple[Any, Any]:
    r"""The value of a function and its parts, under a mode that goes forward.

    Args:
      mode: how one operation maps values and parts.
      fun: a function of pytrees of arrays.
      args: its arguments.
      parts: for each argument a tree like it, with the parts of each array in the array's place; None for what has none.

    Returns:
      ``(out, parts_out)``: ``fun(*args)``, and a tree like it with the parts of each array, None for what depends on no input.

    Raises:
      TypeError: ``fun`` is not callable, or an argument is not an array.
      ValueError: the trees of arguments and parts do not match.
      MissingRuleError: an operation has no row.

    With tangents for parts, it is ``jvp``:

    >>> import jax.numpy as jnp
    >>> from dualrev.modes import Mode, evaluate
    >>> class Pushes(Mode):
    ...     name = "pushes"
    ...     def row(self, row, primals, parts, params):
    ...         return row.bind(primals, params), row.first(primals, parts, params)
    ...     def zero(self, aval):
    ...         return jnp.zeros(aval.shape, aval.dtype)
    >>> out, tangent = evaluate(Pushes(), lambda x: x * x, (3.0,), (1.0,))
    >>> float(out), float(tangent)
    (9.0, 6.0)
    """
    checks.check_callable(fun)
    with errors.calling(mode.name):
        tree: Any
        flat, tree = tree_flatten(tuple(args))
        checks.check_leaves(tuple(args), "args")
        try:
            given = tree.flatten_up_to(tuple(parts))
        except ValueError as error:
            raise ValueError(f"{mode.name}: parts must have the structure of the arguments, {tree}; got {parts!r}: {error}") from error
        flat = as_arrays(flat)
        given = [p if mode.has_parts(typeof(x)) else None for x, p in zip(flat, given, strict=True)]

        out_trees: list[Any] = []

        def flat_fun(*values: Any) -> list[Any]:
            outs, out_tree = tree_flatten(fun(*tree_unflatten(tree, values)))
            out_trees.append(out_tree)
            return as_arrays(outs)

        outs, parts_out = _parts.evaluate(mode, flat_fun, flat, given)
        return tree_unflatten(out_trees[0], outs), tree_unflatten(out_trees[0], parts_out)
