"""The predicted time of an elimination, from the structures of blocks: an objective of :class:`.orders.Search`.

Products without a sum, and sums of blocks, are operations entry by entry, which a compiler fuses; a product that sums over an axis is
one of matrices: written out within a kernel while it is small, else a call of a library with its own cost and rate.  A product by
numbers that are known to be 1 or -1 takes no time.  The constants are those of :mod:`dualrev.time_model`, for single precision.
"""

from __future__ import annotations

from dualrev.engines.elimination.structure import Product, Structure
from dualrev.time_model import Constants

_ITEM = 4


def product_ns(a: Structure, b: Structure, p: Product, c: Constants) -> float:
    """Nanoseconds of the product of two blocks."""
    if not p.nontrivial:
        return 0.0
    n = p.multiplications
    if n <= p.structure.size:
        return 1e9 * n * c.entry("simple", _ITEM)
    if n < c.library_dot:
        return 1e9 * n * c.written_dot_s
    nbytes = float(_ITEM * (a.size + b.size + p.structure.size))
    return 1e9 * (c.kernel_s + c.dot_s + 2 * n / c.dot_per_s[0] + nbytes / c.rate(nbytes))


def sum_ns(s: Structure, c: Constants) -> float:
    """Nanoseconds of the sum of two blocks that has this structure."""
    return 1e9 * s.size * c.entry("simple", _ITEM)
