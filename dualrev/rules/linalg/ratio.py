"""Quotients whose denominator may vanish: ``x / y`` with a mask of the entries where ``y`` is zero, to rounding.

The derivatives of eigenvectors are full of them: ``Pᵢⱼ / (wⱼ - wᵢ)`` at a repeated eigenvalue.  Where the function that is
differentiated does not depend on the choice of eigenvectors the numerator vanishes too, and the quotient has a limit, which is
determined by how numerator and denominator *move*: L'Hôpital's rule.  So the value of a quotient under a forward trace, which knows
how things move, is that of the limit.  An entry where the mask holds is, by ``mode``,

============  ===========================  ==============================================  =============================
mode          its value                    under a forward trace that moves ``y``          and its tangent there
============  ===========================  ==============================================  =============================
``"open"``    NaN: nobody knows            the limit ``ẋ / ẏ`` along that direction        NaN: it takes the next order
``"split"``   NaN                          the limit ``ẋ / ẏ``                             0: nothing depends on it
``"pole"``    NaN                          ``x / ẏ``, and zero at all other entries        0
``"zero"``    0: the numerator was made 0  0                                               NaN
============  ===========================  ==============================================  =============================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jax import Array, lax

from dualrev._jax.new_primitives import entrywise_primitive
from dualrev._jax.primitives import Params
from dualrev.linear import zeros
from dualrev.linear.maps import Tangent
from dualrev.table.adjoints import LinearRow
from dualrev.table.choosing import ByActivityRow
from dualrev.table.partials import ElementwiseRow
from dualrev.table.rows import register

Mode = Literal["open", "split", "pole", "zero"]


def entries(x: Array, value: float) -> Array:
    return lax.full_like(x, value)


def quotient(x: Array, y: Array, vanishes: Array, *, mode: Mode) -> Array:
    at_zero = entries(x, 0.0 if mode == "zero" else float("nan"))
    return lax.select(vanishes, at_zero, lax.div(x, lax.select(vanishes, entries(y, 1), y)))


ratio_p = entrywise_primitive("ratio", quotient)


def ratio(x: Array, y: Array, vanishes: Array, mode: Mode) -> Array:
    """``x / y``, with entries where ``y`` vanishes as ``mode`` says; all of one shape, ``x`` and ``y`` of one dtype."""
    return ratio_p.bind(x, y, vanishes, mode=mode)


def by_denominator(_: Array, y: Array, vanishes: Array, *, out: Array) -> Array:
    # How the quotient moves where the denominator vanishes takes the next order, whatever its value is.
    return lax.select(vanishes, entries(y, float("nan")), lax.neg(lax.div(out, y)))


class QuotientRow(ElementwiseRow):
    """The denominator moves: entry by entry, and a push finds limits."""

    def jvp(self, primals: Sequence[Array], tangents: Sequence[Tangent], params: Params) -> tuple[list[Array], Sequence[Tangent]]:
        (x, y, vanishes), (t_x, t_y, _) = primals, tangents
        assert t_y is not None  # else the row of a linear operation is in force
        mode = params["mode"]
        if mode == "pole":
            return [lax.select(vanishes, lax.div(x, t_y), entries(x, 0))], [None]
        out = quotient(x, y, vanishes, mode="zero")
        change = zeros.add(t_x, lax.neg(lax.mul(out, t_y)))
        t_out = quotient(change, y, vanishes, mode="zero" if mode == "split" else "open")
        if mode != "zero":
            limit = lax.div(entries(y, 0) if t_x is None else t_x, t_y)
            # Where somebody else moves the denominator, the limit moves as only the next order could tell.
            limit = lax.add(limit, ratio(entries(y, 0), y, vanishes, "zero"))
            out = lax.select(vanishes, limit, out)
        return [out], [t_out]


# Linear in the numerator, so that a tape keeps the quotient as it is where the denominator does not move.
register(ByActivityRow(
    LinearRow(ratio_p, (lambda ct, _, y, vanishes, *, mode: ratio(ct, y, vanishes, mode),), cost="entrywise"),
    QuotientRow(ratio_p, lambda _, y, vanishes, *, mode: quotient(entries(y, 1), y, vanishes, mode=mode), by_denominator, None)))
