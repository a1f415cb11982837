"""Quotients whose denominator may vanish: ``x / y`` with a mask of the entries where ``y`` is zero, to rounding.

Derivatives of eigenvectors have such quotients: ``Pᵢⱼ / (wⱼ - wᵢ)`` at a repeated eigenvalue.  If the differentiated function does not
depend on the choice of eigenvectors, the numerator vanishes too, and the quotient has a limit, which the *tangents* of numerator and
denominator determine (L'Hôpital's rule).  So the primal value of a quotient in a push, where tangents are known, is that limit.  By
``mode``, an entry where the mask holds is

============  ===========================  ==============================================  =============================
mode          its value                    in a push in which ``y`` is active              and its tangent there
============  ===========================  ==============================================  =============================
``"open"``    NaN: not determined          the limit ``ẋ / ẏ`` along that direction        NaN: it needs order n + 1
``"split"``   NaN                          the limit ``ẋ / ẏ``                             0: no result depends on it
``"pole"``    NaN                          ``x / ẏ``, and zero at all other entries        0
``"zero"``    0: the numerator is made 0   0                                               NaN
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
    """``x / y``, by ``mode`` where ``y`` vanishes; all of one shape, ``x`` and ``y`` of one dtype."""
    return ratio_p.bind(x, y, vanishes, mode=mode)


def by_denominator(_: Array, y: Array, vanishes: Array, *, out: Array) -> Array:
    # Where the denominator vanishes, the tangent of the quotient needs order n + 1, whatever the value is.
    return lax.select(vanishes, entries(y, float("nan")), lax.neg(lax.div(out, y)))


class QuotientRow(ElementwiseRow):
    """The row for an active denominator: entry by entry, where a push computes limits."""

    def jvp(self, primals: Sequence[Array], tangents: Sequence[Tangent], params: Params) -> tuple[list[Array], Sequence[Tangent]]:
        (x, y, vanishes), (t_x, t_y, _) = primals, tangents
        assert t_y is not None  # else the linear row is chosen
        mode = params["mode"]
        if mode == "pole":
            return [lax.select(vanishes, lax.div(x, t_y), entries(x, 0))], [None]
        out = quotient(x, y, vanishes, mode="zero")
        change = zeros.add(t_x, lax.neg(lax.mul(out, t_y)))
        t_out = quotient(change, y, vanishes, mode="zero" if mode == "split" else "open")
        if mode != "zero":
            limit = lax.div(entries(y, 0) if t_x is None else t_x, t_y)
            # Under an outer mode in which the denominator is active, the tangent of the limit needs order n + 1.
            limit = lax.add(limit, ratio(entries(y, 0), y, vanishes, "zero"))
            out = lax.select(vanishes, limit, out)
        return [out], [t_out]


# Linear in the numerator, so that the tape keeps the quotient as it is if the denominator is not active.
register(ByActivityRow(
    LinearRow(ratio_p, (lambda ct, _, y, vanishes, *, mode: ratio(ct, y, vanishes, mode),), cost="entrywise"),
    QuotientRow(ratio_p, lambda _, y, vanishes, *, mode: quotient(entries(y, 1), y, vanishes, mode=mode), by_denominator, None)))
