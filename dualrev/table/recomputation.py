"""Which operations are cheap enough to run again."""

from __future__ import annotations

from dualrev._jax.jaxprs import JaxprEqn
from dualrev._jax.primitives import Primitive
from dualrev.programs.partition import held_eqns
from dualrev.table.exclusions import BY_ENGINES
from dualrev.table.rows import Cost, rows

#: The costs that amount to reading operands and writing results, as a compiler fuses such operations.
CHEAP: frozenset[Cost] = frozenset(("entrywise", "moves"))


def cost_of(primitive: Primitive) -> Cost:
    """The cost of computing an operation again, from its row; a call that engines handle without a row costs its program.

    Args:
      primitive: of jax, or of your own.

    Returns:
      ``"entrywise"``, ``"moves"`` (entries alone), ``"work"`` or ``"its program"``.

    Raises:
      TypeError: what is no primitive and cannot be a key.

    >>> import jax
    >>> from dualrev.modes import cost_of
    >>> cost_of(jax.lax.sin_p), cost_of(jax.lax.transpose_p), cost_of(jax.lax.dot_general_p)
    ('entrywise', 'moves', 'work')
    """
    row = rows.get(primitive)
    return row.cost if row is not None else "its program" if str(primitive) in BY_ENGINES else "work"


def is_cheap(eqn: JaxprEqn) -> bool:
    """Whether the results of an equation may be recomputed: a call is as cheap as its program."""
    if eqn.effects:
        return False
    cost = cost_of(eqn.primitive)
    return cost in CHEAP or (cost == "its program" and all(cost_of(inner.primitive) != "work" and not inner.effects
                                                           for inner in held_eqns(eqn)))
